//! Keys that sign checkpoints for a token that is too slow for it, or that wants a touch each time:
//! made in this process, certified by the token for a day.
//!
//! A checkpoint by such a key has one more line, which holds the certificate:
//!
//! ```text
//! delegate <key, base64> <from> <until> <the token's signature, base64>
//! ```
//!
//! with times in RFC 3339. The token's signature is over
//!
//! ```text
//! strongroom checkpoint key v1
//! <the tree's name>
//! <key, base64>
//! <from> <until>
//! ```
//!
//! No checkpoint begins like that, since a tree's name has no space in it. The signature line is that
//! of an Ed25519 key of the tree's name. The checkpoint's own time must lie between the two.

use super::Error;
use super::checkpoint::{Checkpoint, rfc3339};
use super::note::{Signed, Verifier};
use crate::clock::{Random, random_key};
use crate::name::SigningScheme;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How long a key may be used, in seconds.
const LIFE: i64 = 86_400;
/// An RFC 3339 time in whole seconds, in bytes; such times sort as texts do.
const TIME_LEN: usize = "2026-01-01T00:00:00Z".len();

/// A key of this process's.
pub(super) struct Delegate {
    pair: Ed25519KeyPair,
    key: Verifier,
    /// The certificate, as it stands in a checkpoint.
    line: String,
    until: i64,
}

impl Delegate {
    /// Makes a key at `now` (seconds since the epoch) and has it certified for the tree of this name
    /// by `sign`, which answers a signature in the form of [`Verifier::signature`].
    pub(super) async fn certified<F: Future<Output = Result<Vec<u8>, Error>>>(
        origin: &str,
        random: &dyn Random,
        now: i64,
        sign: impl FnOnce(String) -> F,
    ) -> Result<Self, Error> {
        let seed = random_key(random).map_err(|_| Error::signing("no randomness"))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose());
        let pair = pair.map_err(|_| Error::signing("no key could be made"))?;
        let public = pair.public_key().as_ref();
        let key = Verifier::new(origin, SigningScheme::Ed25519, public);
        let key = key.ok_or_else(|| Error::signing("no key could be made"))?;
        let public = STANDARD.encode(public);
        let until = now.saturating_add(LIFE);
        let (from, to) = (rfc3339(now), rfc3339(until));
        let signature = sign(certificate(origin, &public, &from, &to)).await?;
        let line = format!("delegate {public} {from} {to} {}\n", STANDARD.encode(signature));
        Ok(Self { pair, key, line, until })
    }

    /// Seconds for which it may still be used.
    pub(super) fn left(&self, now: i64) -> i64 {
        // A clock that was set back makes a key that is not valid yet.
        if now < self.until.saturating_sub(LIFE) { 0 } else { self.until.saturating_sub(now) }
    }

    /// Whether it is time for another one.
    pub(super) fn is_old(&self, now: i64) -> bool {
        self.left(now) < LIFE / 2
    }

    /// The note of a checkpoint's text.
    pub(super) fn note(&self, text: &str) -> String {
        let text = format!("{text}{}", self.line);
        let signature = self.pair.sign(text.as_bytes());
        format!("{text}\n{}", self.key.line(signature.as_ref()))
    }
}

fn certificate(origin: &str, public: &str, from: &str, until: &str) -> String {
    format!("strongroom checkpoint key v1\n{origin}\n{public}\n{from} {until}\n")
}

/// Whether a checkpoint is signed by a key that `key` has certified for that time.
pub(super) fn vouches(key: &Verifier, checkpoint: &Checkpoint) -> bool {
    certified(key, checkpoint)
        .is_some_and(|delegate| matches!(delegate.check(&checkpoint.note), Signed::Good(_)))
}

fn certified(key: &Verifier, checkpoint: &Checkpoint) -> Option<Verifier> {
    let text = &checkpoint.note.text;
    let line = text.lines().find_map(|line| line.strip_prefix("delegate "))?;
    let mut fields = line.split(' ');
    let (public, from, until) = (fields.next()?, fields.next()?, fields.next()?);
    let signature = STANDARD.decode(fields.next()?).ok()?;
    let time = checkpoint.time.as_deref()?;
    let plain = [from, until, time].iter().all(|t| t.len() == TIME_LEN && t.ends_with('Z'));
    let signed = certificate(&checkpoint.origin, public, from, until);
    let right = plain
        && (from..=until).contains(&time)
        && fields.next().is_none()
        && key.is_signature(&signed, &signature);
    let public = STANDARD.decode(public).ok().filter(|_| right)?;
    Verifier::new(&checkpoint.origin, SigningScheme::Ed25519, &public)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::merkle;
    use crate::clock::SystemRandom;

    const ORIGIN: &str = "strongroom/eu-central-1/1";
    const NOW: i64 = 1_767_225_600;

    /// A checkpoint of a moment by a certified key, and the key of the token.
    async fn made(moment: i64) -> (String, Verifier) {
        let token = Ed25519KeyPair::generate().expect("a key");
        let key = Verifier::new(ORIGIN, SigningScheme::Ed25519, token.public_key().as_ref());
        let sign = |text: String| async move { Ok(token.sign(text.as_bytes()).as_ref().to_vec()) };
        let made = Delegate::certified(ORIGIN, &SystemRandom, NOW, sign).await.expect("made");
        let root = STANDARD.encode(merkle::leaf(b"x"));
        let text = format!("{ORIGIN}\n1\n{root}\ntime {}\n", rfc3339(moment));
        (made.note(&text), key.expect("a key"))
    }

    fn is_by(note: &str, key: &Verifier) -> bool {
        Checkpoint::parse(note.as_bytes()).is_some_and(|checkpoint| checkpoint.is_by(key))
    }

    #[tokio::test]
    async fn a_certified_key_signs_for_its_day_its_tree_and_its_token() {
        let (note, key) = made(NOW + 60).await;
        assert!(is_by(&note, &key));
        assert!(!is_by(&note, &made(NOW).await.1), "another token's");
        for moment in [NOW - 1, NOW + LIFE + 1] {
            let (note, key) = made(moment).await;
            assert!(!is_by(&note, &key), "{moment}");
        }
        // Whoever moves the certificate to another key, tree or time is found out.
        let (other, _) = made(NOW + 60).await;
        let line = |note: &str| note.lines().find(|l| l.starts_with("delegate")).map(str::to_owned);
        let moved = note.replace(&line(&note).expect("one"), &line(&other).expect("one"));
        assert!(!is_by(&moved, &key));
        assert!(!is_by(&note.replace("2026-01-02", "2026-01-03"), &key));
        assert!(!is_by(&note.replace("central", "western"), &key));
        assert!(!is_by(&note.replace("delegate ", "delegated "), &key));
    }

    #[tokio::test]
    async fn a_key_is_renewed_in_the_middle_of_its_life() {
        let sign = |_| async { Ok(vec![0; 64]) };
        let made = Delegate::certified(ORIGIN, &SystemRandom, NOW, sign).await.expect("made");
        assert!(!made.is_old(NOW) && !made.is_old(NOW + LIFE / 2));
        assert!(made.is_old(NOW + LIFE / 2 + 1));
        assert!(made.left(NOW + LIFE - 1) > 0 && made.left(NOW + LIFE) <= 0);
        assert!(made.left(NOW - 1) <= 0, "the clock was set back");
    }
}
