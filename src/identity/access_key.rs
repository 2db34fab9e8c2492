//! Access keys: made here, their secrets sealed under a key of the store key's.

use crate::clock::{NoRandomness, Random, Time, random_bytes};
use crate::envelope::{self, store_key};
use crate::secret::{Key, Secret};
use crate::store::identity::{AccessKey, Principal};

/// The label of the key that access-key secrets are sealed under; see
/// [`envelope::store_key::StoreKey::derive`].
pub const SEALING: &str = "strongroom access key secrets v1";

/// AWS's alphabet for the ids of access keys and principals.
const ID: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// The alphabet of secret access keys: base64's.
const SECRET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// An id of AWS's form: `prefix` (`AKIA`, `AIDA`) and 16 characters, 80 random bits.
pub fn random_id(random: &dyn Random, prefix: &str) -> Result<String, NoRandomness> {
    let bytes = random_bytes::<16>(random)?;
    let letters = bytes.iter().filter_map(|b| ID.get(usize::from(b & 31)));
    Ok(prefix.chars().chain(letters.map(|b| char::from(*b))).collect())
}

/// A secret access key: 40 characters, 240 random bits.
pub fn random_secret(random: &dyn Random) -> Result<Secret, NoRandomness> {
    let mut secret = Secret::new(vec![0; 40]);
    random.fill(secret.expose_mut())?;
    for byte in secret.expose_mut() {
        *byte = SECRET.get(usize::from(*byte & 63)).copied().unwrap_or(b'A');
    }
    Ok(secret)
}

/// A new access key for a principal.
pub fn make(
    sealing: &Key,
    random: &dyn Random,
    now: Time,
    principal: (&str, &str, Principal),
    account: &str,
    (id, secret): (String, &Secret),
) -> Result<AccessKey, envelope::Error> {
    let (arn, principal_id, kind) = principal;
    let sealed_secret = store_key::seal_small(sealing, random, &id, secret)?;
    Ok(AccessKey {
        id,
        account: account.to_owned(),
        principal: arn.to_owned(),
        principal_id: principal_id.to_owned(),
        kind,
        active: true,
        created: now,
        sealed_secret,
    })
}

/// An access key's secret.
pub fn open(sealing: &Key, key: &AccessKey) -> Result<Secret, envelope::Error> {
    store_key::open_small(sealing, &key.id, &key.sealed_secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;

    #[test]
    fn ids_and_secrets_have_the_form_that_clients_know() {
        let id = random_id(&SystemRandom, "AKIA").expect("randomness");
        assert_eq!(id.len(), 20);
        assert!(id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
        assert_eq!(random_secret(&SystemRandom).map(|s| s.len()).ok(), Some(40));
    }

    #[test]
    fn a_sealed_secret_opens_for_its_own_access_key_only() {
        let sealing = Key::take(&mut [3; 32]);
        let secret = Secret::copy_of(b"secret");
        let principal = ("arn", "AIDA", Principal::User);
        let make = |id: &str| {
            let key = (id.to_owned(), &secret);
            make(&sealing, &SystemRandom, Time(0), principal, "111111111111", key).expect("seals")
        };
        let (mut one, two) = (make("AKIA1"), make("AKIA2"));
        assert!(open(&sealing, &one).is_ok_and(|s| s == secret));
        one.sealed_secret = two.sealed_secret;
        assert!(open(&sealing, &one).is_err());
    }
}
