//! Signed notes and verifier keys (c2sp.org/signed-note).
//!
//! ```text
//! <text, each line ended by a line feed>
//!
//! — <name> base64(key id (4 bytes) || signature)
//! ```
//!
//! A verifier key is written `<name>+<key id, 8 hex digits>+base64(type || public key)`:
//!
//! | type | key | key id | signature |
//! |---|---|---|---|
//! | 0x01 | Ed25519, 32 bytes | SHA-256(name \|\| 0x0A \|\| 0x01 \|\| key)\[:4\] | 64 bytes over the text |
//! | 0x02 | ECDSA P-256, SubjectPublicKeyInfo in DER | SHA-256(key)\[:4\] | DER, over SHA-256 of the text |
//! | 0x04 | Ed25519 of a witness (c2sp.org/tlog-cosignature) | as 0x01 with 0x04 | time (8 bytes) \|\| 64 bytes over `cosignature/v1`, the time and the text |

use crate::name::SigningScheme;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The largest note that is read, in bytes.
pub const MAX_NOTE: usize = 64 * 1024;
/// Signatures that a note may have.
const MAX_SIGNATURES: usize = 64;

/// What stands before an uncompressed P-256 point in a SubjectPublicKeyInfo (RFC 5480).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point of P-256, in bytes.
const P256_POINT: usize = 65;

/// The kinds of key, by their byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ed25519 = 1,
    Ecdsa = 2,
    Witness = 4,
}

/// A key that checks signatures of notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    kind: Kind,
    /// As it stands in the verifier key, behind the type.
    key: Vec<u8>,
}

/// What a note says of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// The key has signed it; a witness says when, in seconds since the epoch.
    Good(Option<u64>),
    /// A signature in the key's name is not the key's.
    Bad,
    /// There is none in the key's name.
    Absent,
}

impl Verifier {
    /// A token's key, under the name of the tree that it signs for. `None` if the key has not the
    /// length that it must have.
    pub fn new(name: &str, scheme: SigningScheme, public: &[u8]) -> Option<Self> {
        let (kind, key) = match scheme {
            SigningScheme::Ed25519 => (Kind::Ed25519, public.to_vec()),
            SigningScheme::EcdsaP256 => (Kind::Ecdsa, [&P256_SPKI[..], public].concat()),
        };
        Self::checked(name, kind, key)
    }

    fn checked(name: &str, kind: Kind, key: Vec<u8>) -> Option<Self> {
        let right = match kind {
            Kind::Ed25519 | Kind::Witness => key.len() == 32,
            Kind::Ecdsa => key.starts_with(&P256_SPKI) && key.len() == P256_SPKI.len() + P256_POINT,
        };
        let named = !name.is_empty() && !name.contains(|c: char| c == '+' || c.is_whitespace());
        let id = match kind {
            Kind::Ecdsa => key_id(&[&key]),
            other => key_id(&[name.as_bytes(), b"\n", &[other as u8], &key]),
        };
        (right && named).then(|| Self { name: name.to_owned(), id, kind, key })
    }

    /// Reads a verifier key. `None` if it is none, or its id is not that of its key.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim_end().splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key = STANDARD.decode(key).ok()?;
        let (kind, key) = key.split_first()?;
        let kind = [Kind::Ed25519, Kind::Ecdsa, Kind::Witness]
            .into_iter()
            .find(|known| *known as u8 == *kind)?;
        let read = Self::checked(name, kind, key.to_vec())?;
        (read.hex_id() == id).then_some(read)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a witness's.
    pub fn is_witness(&self) -> bool {
        self.kind == Kind::Witness
    }

    fn hex_id(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The line with a signature, as the key made it: 64 bytes.
    pub fn line(&self, signature: &[u8]) -> String {
        let bytes = [&self.id[..], &self.signature(signature)].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(bytes))
    }

    /// A signature, as the key made it (64 bytes), in the form that notes have it in.
    pub fn signature(&self, made: &[u8]) -> Vec<u8> {
        match self.kind {
            Kind::Ecdsa => der(made),
            Kind::Ed25519 | Kind::Witness => made.to_vec(),
        }
    }

    /// Whether this is the key's signature of a text.
    pub fn is_signature(&self, text: &str, signature: &[u8]) -> bool {
        self.verify(text, signature).is_some()
    }

    /// What a note says of this key.
    pub fn check(&self, note: &Note) -> Signed {
        let mut found = Signed::Absent;
        for (name, bytes) in &note.signatures {
            let Some((id, signature)) = bytes.split_first_chunk::<4>() else { continue };
            if *name != self.name || *id != self.id {
                continue;
            }
            match self.verify(&note.text, signature) {
                Some(time) => found = Signed::Good(time),
                None => return Signed::Bad,
            }
        }
        found
    }

    fn verify(&self, text: &str, signature: &[u8]) -> Option<Option<u64>> {
        match self.kind {
            Kind::Ed25519 => {
                let key = UnparsedPublicKey::new(&ED25519, &self.key);
                key.verify(text.as_bytes(), signature).ok()?;
                Some(None)
            }
            Kind::Ecdsa => {
                let point = self.key.get(P256_SPKI.len()..)?;
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
                key.verify(text.as_bytes(), signature).ok()?;
                Some(None)
            }
            Kind::Witness => {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                let time = u64::from_be_bytes(*time);
                let text = format!("cosignature/v1\ntime {time}\n{text}");
                let key = UnparsedPublicKey::new(&ED25519, &self.key);
                key.verify(text.as_bytes(), signature).ok()?;
                Some(Some(time))
            }
        }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[self.kind as u8], &self.key[..]].concat());
        write!(f, "{}+{}+{key}", self.name, self.hex_id())
    }
}

fn key_id(parts: &[&[u8]]) -> [u8; 4] {
    let hash = digest(&SHA256, &parts.concat());
    let mut id = [0; 4];
    id.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    id
}

/// An ECDSA signature r || s as DER writes it (RFC 3279 section 2.2.3).
fn der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let body = [integer(r), integer(s)].concat();
    tagged(0x30, &body)
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = bytes.get(zeros..).unwrap_or_default();
    let pad = digits.first().is_none_or(|first| *first >= 0x80);
    let digits = [if pad { &[0][..] } else { &[] }, digits].concat();
    tagged(0x02, &digits)
}

/// For less than 128 bytes, which r, s and both together are.
fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap_or(0);
    [&[tag, length], body].concat()
}

/// A note as it was read: nothing is known of it before a key was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text, its last line feed included.
    pub text: String,
    signatures: Vec<(String, Vec<u8>)>,
}

impl Note {
    /// Reads a note. `None` if it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let note = std::str::from_utf8(bytes).ok().filter(|note| note.len() <= MAX_NOTE)?;
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return None;
        }
        let (text, lines) = note.rsplit_once("\n\n")?;
        let lines = lines.strip_suffix('\n')?.split('\n');
        let signatures: Option<Vec<_>> = lines.map(signature).collect();
        let signatures = signatures.filter(|all| (1..=MAX_SIGNATURES).contains(&all.len()))?;
        Some(Self { text: format!("{text}\n"), signatures })
    }
}

fn signature(line: &str) -> Option<(String, Vec<u8>)> {
    let (name, bytes) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(bytes).ok()?;
    let right = !name.is_empty() && !name.contains('+') && bytes.len() > 4;
    right.then(|| (name.to_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    };
    use proptest::prelude::*;

    /// The example of c2sp.org/tlog-cosignature: its key is not published, so the test is of the form.
    const COSIGNED: &str = "example.com/behind-the-sofa\n20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/\
        Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2\
        oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

    /// The verifier key and note of Go's sum.golang.org documentation and of golang.org/x/mod's
    /// tests: "PeterNeumann".
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_SAYS: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdn\
        gotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_another_program_is_read_and_checked() {
        let key = Verifier::parse(PETER).expect("a key");
        assert_eq!(key.to_string(), PETER);
        let note = Note::parse(PETER_SAYS.as_bytes()).expect("a note");
        assert_eq!(key.check(&note), Signed::Good(None));
        let changed = PETER_SAYS.replace("answer", "question");
        let changed = Note::parse(changed.as_bytes()).expect("a note");
        assert_eq!(key.check(&changed), Signed::Bad);
        let note = Note::parse(COSIGNED.as_bytes()).expect("a note");
        assert_eq!(note.signatures.len(), 2);
        assert_eq!(key.check(&note), Signed::Absent);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(Verifier::parse(&PETER.replace("c74f20a3", "c74f20a4")).is_none());
        assert!(Verifier::parse(&PETER.replace("Peter", "Paul ")).is_none());
        assert!(Verifier::parse("PeterNeumann+c74f20a3").is_none());
        assert!(Verifier::parse("").is_none());
    }

    #[test]
    fn both_kinds_of_key_sign_what_they_check() {
        let text = "o\n1\nroot\n";
        let pair = Ed25519KeyPair::generate().expect("a key");
        let key = Verifier::new("o", SigningScheme::Ed25519, pair.public_key().as_ref());
        let key = key.expect("a key");
        let note = format!("{text}\n{}", key.line(pair.sign(text.as_bytes()).as_ref()));
        assert_eq!(key.check(&Note::parse(note.as_bytes()).expect("a note")), Signed::Good(None));

        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let key = Verifier::new("o", SigningScheme::EcdsaP256, pair.public_key().as_ref());
        let key = key.expect("a key");
        assert_eq!(Verifier::parse(&key.to_string()), Some(key.clone()));
        // Often enough for numbers with a high bit and with a leading zero.
        for _ in 0..600 {
            let made = pair.sign(&SystemRandom::new(), text.as_bytes()).expect("signed");
            let note = Note::parse(format!("{text}\n{}", key.line(made.as_ref())).as_bytes());
            assert_eq!(key.check(&note.expect("a note")), Signed::Good(None));
        }
    }

    #[test]
    fn a_witness_says_when() {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let key = [&[4], pair.public_key().as_ref()].concat();
        let id = key_id(&[b"w", b"\n", &key]);
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let witness = Verifier::parse(&format!("w+{hex}+{}", STANDARD.encode(&key)));
        let witness = witness.expect("a key");
        assert!(witness.is_witness());
        let text = "o\n1\nroot\n";
        let signed = pair.sign(format!("cosignature/v1\ntime 1679315147\n{text}").as_bytes());
        let signature = [&1_679_315_147_u64.to_be_bytes(), signed.as_ref()].concat();
        let note = format!("{text}\n{}", witness.line(&signature));
        let note = Note::parse(note.as_bytes()).expect("a note");
        assert_eq!(witness.check(&note), Signed::Good(Some(1_679_315_147)));
        let signature = [&1_679_315_148_u64.to_be_bytes(), signed.as_ref()].concat();
        let note = format!("{text}\n{}", witness.line(&signature));
        assert_eq!(witness.check(&Note::parse(note.as_bytes()).expect("a note")), Signed::Bad);
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Note::parse(&bytes);
            Verifier::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
