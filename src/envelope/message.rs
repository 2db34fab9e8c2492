//! Authorization messages: why a request was refused, sealed, so that whoever was refused can hand
//! it on and not read it.

use super::Error;
use super::store_key::{open_small, seal_small};
use crate::clock::Random;
use crate::secret::{Key, Secret};

/// The label of their key; see [`super::store_key::StoreKey::derive`].
pub const LABEL: &str = "strongroom authorization messages v1";

/// Seals and opens authorization messages.
pub struct Messages(Key);

impl Messages {
    /// Under a key derived from the store key by [`LABEL`].
    pub fn new(key: Key) -> Self {
        Self(key)
    }

    /// A message that opens in `account` alone.
    ///
    /// # Errors
    /// Without randomness, and if a primitive fails.
    pub fn seal(&self, random: &dyn Random, account: &str, json: Vec<u8>) -> Result<String, Error> {
        seal_small(&self.0, random, account, &Secret::new(json))
    }

    /// What [`Self::seal`] sealed for this account.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn open(&self, account: &str, message: &str) -> Result<Secret, Error> {
        open_small(&self.0, account, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;

    #[test]
    fn a_message_opens_in_its_own_account_alone_and_not_once_altered() {
        let messages = Messages::new(Key::take(&mut [1; 32]));
        let sealed = messages.seal(&SystemRandom, "1", b"{}".to_vec()).expect("seals");
        assert!(messages.open("1", &sealed).is_ok_and(|json| json.expose() == b"{}"));
        assert!(messages.open("2", &sealed).is_err());
        let (first, rest) = sealed.split_at(1);
        let altered = [if first == "A" { "B" } else { "A" }, rest].concat();
        assert!(messages.open("1", &altered).is_err());
        assert!(messages.open("1", "").is_err());
    }
}
