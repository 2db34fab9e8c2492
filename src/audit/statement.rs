//! Statements that the key for checkpoints signs besides checkpoints: what the appliance says of its
//! keys, for an auditor. What is signed is
//!
//! ```text
//! strongroom attestation v1
//! <the tree's name>
//! <SHA-256 of the statement, base64>
//!
//! — <the tree's name> <signature>
//! ```
//!
//! No checkpoint begins like that, and no certificate of a key for checkpoints (`delegate`), since a
//! tree's name has no space in it. The hash keeps what the token must sign short.

use super::note::{Note, Signed, Verifier};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The text that is signed for a statement, by the key of this name.
pub(super) fn text(name: &str, statement: &str) -> String {
    let hash = STANDARD.encode(digest(&SHA256, statement.as_bytes()));
    format!("strongroom attestation v1\n{name}\n{hash}\n")
}

/// Whether the note is this key's of exactly this statement. [`Signed::Bad`] too for what is no note,
/// and for one of something else that the key has signed.
pub fn check(key: &Verifier, statement: &str, note: &str) -> Signed {
    let Some(note) = Note::parse(note.as_bytes()) else { return Signed::Bad };
    match key.check(&note) {
        Signed::Good(_) if note.text != text(key.name(), statement) => Signed::Bad,
        checked => checked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::checkpoint::Checkpoint;
    use crate::name::SigningScheme;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use proptest::prelude::*;

    const NAME: &str = "strongroom/eu-central-1/1";

    fn key() -> (Ed25519KeyPair, Verifier) {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let key = Verifier::new(NAME, SigningScheme::Ed25519, pair.public_key().as_ref());
        (pair, key.expect("a key"))
    }

    fn signed(pair: &Ed25519KeyPair, key: &Verifier, text: &str) -> String {
        format!("{text}\n{}", key.line(pair.sign(text.as_bytes()).as_ref()))
    }

    #[test]
    fn a_note_holds_for_its_statement_and_its_key_alone() {
        let ((pair, key), (_, other)) = (key(), key());
        let note = signed(&pair, &key, &text(NAME, "{}"));
        assert_eq!(check(&key, "{}", &note), Signed::Good(None));
        assert_eq!(check(&key, "{} ", &note), Signed::Bad);
        assert_eq!(check(&other, "{}", &note), Signed::Absent);
        assert_eq!(check(&key, "{}", &note.replace(" v1", " v2")), Signed::Bad);
        assert_eq!(check(&key, "{}", "{}"), Signed::Bad);
    }

    #[test]
    fn a_checkpoint_is_no_statement_and_a_statement_no_checkpoint() {
        let (pair, key) = key();
        let hash = STANDARD.encode(digest(&SHA256, b"{}"));
        let checkpoint = signed(&pair, &key, &format!("{NAME}\n1\n{hash}\n"));
        let read = Checkpoint::parse(checkpoint.as_bytes()).expect("a checkpoint");
        assert!(read.is_by(&key));
        assert_eq!(check(&key, "{}", &checkpoint), Signed::Bad);
        let note = signed(&pair, &key, &text(NAME, "{}"));
        assert!(Checkpoint::parse(note.as_bytes()).is_none_or(|read| !read.is_by(&key)));
    }

    proptest! {
        #[test]
        fn what_was_altered_is_not_signed(at in 0_usize..200, with in any::<u8>()) {
            let (pair, key) = key();
            let note = signed(&pair, &key, &text(NAME, "{}"));
            let mut altered = note.clone().into_bytes();
            let at = at % altered.len();
            altered[at] = with;
            if let Ok(altered) = String::from_utf8(altered) {
                let good = matches!(check(&key, "{}", &altered), Signed::Good(_));
                prop_assert_eq!(good, altered == note);
            }
        }
    }
}
