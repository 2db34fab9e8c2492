//! Whether what a token does with a key is right, checked on this machine: what a probe asks of keys
//! of each scheme, whatever the token.

use super::oaep;
use crate::secret::Key;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::error::Unspecified;
use std::time::{Duration, Instant};

/// What came of trying something, or why it did not work.
pub type Tried<T> = Result<T, String>;

/// A key of `hmac-kdf`: it answers the same for the same input, and something else for another. Tells
/// the time of one use, as all of these do.
pub(super) fn derives(mut derive: impl FnMut(&[u8]) -> Tried<Key>) -> Tried<Duration> {
    let (one, same, two) = (derive(&[1; 1024])?, derive(&[1; 1024])?, derive(&[2; 1024])?);
    if one.expose() != same.expose() || one.expose() == two.expose() {
        return Err("what it answers is no HMAC".into());
    }
    timed(|| derive(b"probe").map(drop))
}

/// A key of `ecdh` with this public half: it agrees as this machine does.
pub(super) fn agrees(
    public: &[u8],
    mut agreed: impl FnMut(&[u8]) -> Tried<Key>,
) -> Tried<Duration> {
    let none = |_: Unspecified| "this machine can't agree on a key".to_owned();
    let mine = PrivateKey::generate(&ECDH_P256).map_err(none)?;
    let peer = mine.compute_public_key().map_err(none)?;
    let theirs = agreed(peer.as_ref())?;
    let public = UnparsedPublicKey::new(&ECDH_P256, public);
    let right = agree(&mine, public, Unspecified, |x| Ok(x == theirs.expose().as_slice()));
    if !right.map_err(none)? {
        return Err("what it agrees on is not what this machine does".into());
    }
    timed(|| agreed(peer.as_ref()).map(drop))
}

/// A key of `rsa-oaep` with this public half: it decrypts what this machine has encrypted.
pub(super) fn unwraps(
    public: &[u8],
    mut unwrap: impl FnMut(&[u8]) -> Tried<Key>,
) -> Tried<Duration> {
    let sealed = oaep::encrypt(public, &[7; 32]);
    let sealed = sealed.ok_or_else(|| "its public key can't be used".to_owned())?;
    if unwrap(&sealed)?.expose() != &[7; 32] {
        return Err("it decrypts to something else".into());
    }
    timed(|| unwrap(&sealed).map(drop))
}

/// The best of three.
pub(super) fn timed(mut act: impl FnMut() -> Tried<()>) -> Tried<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        act()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}
