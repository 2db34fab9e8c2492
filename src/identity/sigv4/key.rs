//! Signing keys: derived from a secret access key for one day, region and service.

use super::Checked;
use crate::secret::{Key, Secret};
use aws_lc_rs::hmac;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The HMAC key of one secret, day, region and service. AWS-LC wipes it when it is dropped.
pub struct SigningKey(hmac::Key);

/// The library refused to compute an HMAC.
#[derive(Debug, thiserror::Error)]
#[error("a signing key could not be derived")]
pub struct DerivationFailed;

impl SigningKey {
    /// HMAC(HMAC(HMAC(HMAC("AWS4" + secret, date), region), service), "aws4_request"), all with
    /// SHA-256. `date` is `YYYYMMDD`.
    pub fn derive(
        secret: &Secret,
        date: &str,
        region: &str,
        service: &str,
    ) -> Result<Self, DerivationFailed> {
        let mut first = Zeroizing::new(Vec::with_capacity(4 + secret.len()));
        first.extend_from_slice(b"AWS4");
        first.extend_from_slice(secret.expose());
        let day = step(&first, date)?;
        let region = step(day.expose(), region)?;
        let service = step(region.expose(), service)?;
        let last = step(service.expose(), "aws4_request")?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, last.expose())))
    }

    /// Whether `tag` is the HMAC of `message`, in constant time.
    pub(super) fn verifies(&self, message: &[u8], tag: &[u8; 32]) -> bool {
        hmac::verify(&self.0, message, tag).is_ok()
    }

    /// HMAC-SHA-256 of `message`: for whoever signs instead of verifying.
    pub fn sign(&self, message: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, message)
    }
}

fn step(key: &[u8], message: &str) -> Result<Key, DerivationFailed> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    Key::fill(|out| hmac::sign_to_buffer(&key, message.as_bytes(), out).map(drop))
        .map_err(|_| DerivationFailed)
}

/// A bounded cache of signing keys, so that a hot request costs one HMAC and not five.
///
/// An entry belongs to one revision of a secret: a new secret under the same access key id needs
/// a new revision number, and the old entry is never found again.
pub struct SigningKeys(Cache<Slot, Arc<SigningKey>>);

#[derive(PartialEq, Eq, Hash)]
struct Slot {
    revision: u64,
    credential: Box<str>,
}

#[derive(Hash)]
struct SlotRef<'a> {
    revision: u64,
    credential: &'a str,
}

impl Equivalent<Slot> for SlotRef<'_> {
    fn equivalent(&self, slot: &Slot) -> bool {
        self.revision == slot.revision && self.credential == &*slot.credential
    }
}

impl SigningKeys {
    /// Room for about `capacity` keys; the least used leave first.
    pub fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// The signing key for a request whose scope has been checked (so that no caller fills the
    /// cache with scopes of its own invention). Asks for the secret if the key isn't there.
    pub fn signing_key<E: From<DerivationFailed>>(
        &self,
        checked: &Checked<'_, '_>,
        revision: u64,
        secret: impl FnOnce() -> Result<Secret, E>,
    ) -> Result<Arc<SigningKey>, E> {
        let credential = checked.presented().credential();
        if let Some(key) = self.0.get(&SlotRef { revision, credential }) {
            return Ok(key);
        }
        let key = Arc::new(checked.derive(&secret()?)?);
        self.0.insert(Slot { revision, credential: credential.into() }, Arc::clone(&key));
        Ok(key)
    }

    /// Drops every key.
    pub fn clear(&self) {
        self.0.clear();
    }
}
