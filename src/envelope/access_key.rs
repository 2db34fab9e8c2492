//! Access keys: made here, their secrets sealed under a key of the store key's.

use super::{Error, store_key};
use crate::clock::{NoRandomness, Random, Time, random_bytes};
use crate::secret::{Key, Secret};
use crate::store::identity::{AccessKey, Principal};

/// The label of the key that access-key secrets are sealed under; see
/// [`StoreKey::derive`](super::store_key::StoreKey::derive).
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

/// Who an access key is made for.
#[derive(Clone, Copy)]
pub struct Holder<'a> {
    /// The account.
    pub account: &'a str,
    /// The principal's ARN.
    pub arn: &'a str,
    /// Its unique id.
    pub id: &'a str,
    /// Whether it is the root or a user.
    pub kind: Principal,
}

/// Makes access keys.
pub struct Mint(Key);

impl Mint {
    /// Sealing under this key, derived from the store key by [`SEALING`].
    pub fn new(sealing: Key) -> Self {
        Self(sealing)
    }

    /// A new access key and its secret, which is told once. Whoever asked for it stores it.
    ///
    /// # Errors
    /// Without randomness, and if a primitive fails.
    pub fn make(
        &self,
        random: &dyn Random,
        now: Time,
        holder: Holder<'_>,
    ) -> Result<(AccessKey, Secret), Error> {
        let (id, secret) = (random_id(random, "AKIA")?, random_secret(random)?);
        let sealed_secret = store_key::seal_small(&self.0, random, &id, &secret)?;
        let key = AccessKey {
            id,
            account: holder.account.to_owned(),
            principal: holder.arn.to_owned(),
            principal_id: holder.id.to_owned(),
            kind: holder.kind,
            active: true,
            created: now,
            sealed_secret,
        };
        Ok((key, secret))
    }
}

/// An access key's secret.
pub fn open(sealing: &Key, key: &AccessKey) -> Result<Secret, Error> {
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
        let mint = Mint::new(Key::take(&mut [3; 32]));
        let holder =
            Holder { account: "111111111111", arn: "arn", id: "AIDA", kind: Principal::User };
        let make = || mint.make(&SystemRandom, Time(0), holder).expect("seals");
        let ((mut one, secret), (two, _)) = (make(), make());
        let sealing = Key::take(&mut [3; 32]);
        assert!(open(&sealing, &one).is_ok_and(|s| s == secret));
        one.sealed_secret = two.sealed_secret;
        assert!(open(&sealing, &one).is_err());
    }
}
