//! Key pairs as OpenSSH writes them.

use crate::clock::{NoRandomness, Random, random_bytes, random_key};
use crate::secret::Secret;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// The one kind of key that is made.
const KIND: &str = "ssh-ed25519";
/// Length of a line of PEM, in characters, as ssh-keygen has it.
const LINE: usize = 70;
/// What the private part is padded to, in bytes, if it is not encrypted.
const BLOCK: usize = 8;
/// The longest public key, in characters of Base64: RSA of 16,384 bits, three times over.
const MAX_BLOB: usize = 8192;

/// A public key: its kind and its bytes in Base64. Neither holds anything that a shell or a file of
/// lines could take for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: String,
    blob: String,
}

impl PublicKey {
    /// Reads a line of a `.pub` file; a comment is left out.
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (kind, blob) = (words.next()?, words.next()?);
        let kind_fits = |c: char| c.is_ascii_alphanumeric() || "-.@".contains(c);
        let blob_fits = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        let fits = kind.starts_with(|c: char| c.is_ascii_alphanumeric())
            && kind.chars().all(kind_fits)
            && blob.starts_with("AAAA")
            && blob.len() <= MAX_BLOB
            && blob.chars().all(blob_fits);
        fits.then(|| Self { kind: kind.to_owned(), blob: blob.to_owned() })
    }
}

/// `KIND BASE64`, as it stands in files.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.blob)
    }
}

/// A new Ed25519 key pair: the private key in OpenSSH's format, not encrypted, and the public one.
///
/// # Errors
/// There is no randomness.
pub fn generate(random: &dyn Random) -> Result<(Secret, PublicKey), NoRandomness> {
    let seed = random_key(random)?;
    // A seed of 32 bytes is always a key (RFC 8032 section 5.1.5).
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| NoRandomness)?;
    let public = pair.public_key().as_ref();
    let mut blob = Vec::new();
    field(&mut blob, KIND.as_bytes());
    field(&mut blob, public);
    let private = private_part(random_bytes(random)?, seed.expose(), public);
    let public = PublicKey { kind: KIND.to_owned(), blob: STANDARD.encode(&blob) };
    Ok((armoured(&container(&blob, &private)), public))
}

/// A string of SSH (RFC 4251 section 5): its length, then its bytes.
fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The private part: a number twice, the key, an empty comment, the padding 1, 2, 3...
/// (OpenSSH, PROTOCOL.key).
fn private_part(check: [u8; 4], seed: &[u8], public: &[u8]) -> Secret {
    let both = Secret::new([seed, public].concat());
    let mut part = Vec::with_capacity(256);
    part.extend_from_slice(&check);
    part.extend_from_slice(&check);
    field(&mut part, KIND.as_bytes());
    field(&mut part, public);
    field(&mut part, both.expose());
    field(&mut part, b"");
    let missing = part.len().next_multiple_of(BLOCK) - part.len();
    part.extend((1..).take(missing).map(|n: u8| n));
    Secret::new(part)
}

/// The whole: no cipher, no derivation, one key.
fn container(public: &[u8], private: &Secret) -> Secret {
    let mut whole = Vec::with_capacity(512);
    whole.extend_from_slice(b"openssh-key-v1\0");
    field(&mut whole, b"none");
    field(&mut whole, b"none");
    field(&mut whole, b"");
    whole.extend_from_slice(&1_u32.to_be_bytes());
    field(&mut whole, public);
    field(&mut whole, private.expose());
    Secret::new(whole)
}

fn armoured(whole: &Secret) -> Secret {
    let encoded = Secret::new(STANDARD.encode(whole.expose()).into_bytes());
    let mut pem = Vec::with_capacity(1024);
    pem.extend_from_slice(b"-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for line in encoded.expose().chunks(LINE) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END OPENSSH PRIVATE KEY-----\n");
    Secret::new(pem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;

    #[test]
    fn a_public_key_is_read_without_its_comment_and_holds_nothing_for_a_shell() {
        let key = PublicKey::read("ssh-ed25519 AAAAC3Nz+/= a comment").unwrap();
        assert_eq!(key.to_string(), "ssh-ed25519 AAAAC3Nz+/=");
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA'", "a;b AAAA", "* AAAA", "ssh-rsa BBBB"] {
            assert!(PublicKey::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_private_key_has_lines_as_openssh_writes_them_and_is_another_each_time() {
        let (private, public) = generate(&SystemRandom).unwrap();
        let lines: Vec<&str> = private.expose_str().unwrap().lines().collect();
        assert_eq!(lines.first(), Some(&"-----BEGIN OPENSSH PRIVATE KEY-----"));
        assert!(lines.iter().all(|line| line.len() <= LINE));
        assert_ne!(generate(&SystemRandom).unwrap().1, public);
        assert_eq!(PublicKey::read(&public.to_string()), Some(public));
    }
}
