//! Page tokens: where a list goes on, under a MAC, so that they survive a restart and can't be
//! forged or carried to another list.
//!
//! `base64url(position || HMAC-SHA-256(page key, scope || 0x00 || position)[..16])`, where the scope
//! is account, operation and a digest of whatever else shapes the list.

use super::error::{Condition, Error, Result};
use crate::secret::Key;
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of MAC that a token carries.
const MAC: usize = 16;

/// Makes and reads page tokens.
pub struct Pages(hmac::Key);

impl Pages {
    /// Under a key derived from the store key.
    pub fn new(key: &Key) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// A token for the place `position` of the list `scope`.
    pub fn token(&self, scope: &str, position: &str) -> String {
        let mut bytes = position.as_bytes().to_vec();
        bytes.extend(self.mac(scope, position.as_bytes()).as_ref().iter().take(MAC));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in a token; a token that was not given out for this list is
    /// [`Condition::InvalidNextToken`].
    pub fn position(&self, scope: &str, token: &str) -> Result<String> {
        let refuse = || Error::new(Condition::InvalidNextToken, "Invalid token");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse())?;
        let cut = bytes.len().checked_sub(MAC).ok_or_else(refuse)?;
        let (position, mac) = bytes.split_at_checked(cut).ok_or_else(refuse)?;
        let right = self.mac(scope, position);
        let right = right.as_ref().get(..MAC).ok_or_else(refuse)?;
        constant_time::verify_slices_are_equal(right, mac).map_err(|_| refuse())?;
        String::from_utf8(position.to_vec()).map_err(|_| refuse())
    }

    fn mac(&self, scope: &str, position: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(scope.as_bytes());
        context.update(&[0]);
        context.update(position);
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_list_only_and_not_once_altered() {
        let pages = Pages::new(&Key::take(&mut [1; 32]));
        let token = pages.token("a/ListKeys", "key-7");
        assert_eq!(pages.position("a/ListKeys", &token).ok().as_deref(), Some("key-7"));
        assert!(pages.position("b/ListKeys", &token).is_err());
        for i in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[i] = if other[i] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("ASCII");
            assert!(pages.position("a/ListKeys", &other).is_err() || other == token);
        }
        assert!(pages.position("a/ListKeys", "").is_err());
    }
}
