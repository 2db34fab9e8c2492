//! Keys in tokens: their names, how they are known again, what they are used for.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The name of one key inside a token: 16 random bytes (`CKA_ID`), written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackingKeyId(pub [u8; 16]);

impl fmt::Display for BackingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BackingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for BackingKeyId {
    type Err = BadBackingKeyId;
    fn from_str(text: &str) -> Result<Self, BadBackingKeyId> {
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|_| text.len() == 32)
            .map(|n| Self(n.to_be_bytes()))
            .ok_or(BadBackingKeyId)
    }
}

impl Serialize for BackingKeyId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackingKeyId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How the token delivers the message secret of an envelope; one byte in the envelope's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Scheme {
    /// HMAC-SHA-256 in the token over a public input (SP 800-108 counter mode, one block).
    HmacKdf = 1,
    /// A random message secret, wrapped for each holder under a key agreed on with its P-256 key
    /// (SP 800-56A, one-pass Diffie-Hellman).
    Ecdh = 2,
    /// A random message secret, encrypted for each holder under its RSA key (RFC 8017, OAEP with
    /// SHA-256).
    RsaOaep = 3,
}

impl fmt::Display for Scheme {
    /// As configurations and rows have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HmacKdf => "hmac-kdf",
            Self::Ecdh => "ecdh",
            Self::RsaOaep => "rsa-oaep",
        })
    }
}

impl Scheme {
    /// The scheme that a header's byte names.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::HmacKdf, Self::Ecdh, Self::RsaOaep].into_iter().find(|scheme| *scheme as u8 == byte)
    }

    /// Whether sealing takes public keys alone, and any one of several holders opens.
    pub fn has_holders(self) -> bool {
        match self {
            Self::HmacKdf => false,
            Self::Ecdh | Self::RsaOaep => true,
        }
    }
}

/// Tells a key from another without telling anything of it: of a symmetric key the first 8 bytes of
/// HMAC-SHA-256(key, "strongroom key check v1"), of a pair those of
/// SHA-256("strongroom public key check v1" || public key). Stored beside the key's row and compared
/// before first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCheck(pub [u8; 8]);

impl KeyCheck {
    /// What is authenticated under a key to get its check value. No message secret is ever derived
    /// from this input.
    pub const LABEL: &[u8] = b"strongroom key check v1";

    /// From 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()?;
        Some(Self(number.to_be_bytes()))
    }

    /// Of a pair with this public key.
    pub fn of_public(public: &[u8]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"strongroom public key check v1");
        hash.update(public);
        let mut value = [0; 8];
        value.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(value)
    }
}

/// A key in a form that its own token alone can use, as a TPM gives its keys out: the token keeps no
/// copy, so this stands in the store. In base64 when it is written.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey(Arc<[u8]>);

impl WrappedKey {
    /// The longest one that is taken, in bytes.
    pub const MAX_LEN: usize = 2048;

    /// Takes what a token gave out, up to [`Self::MAX_LEN`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= Self::MAX_LEN).then(|| Self(bytes.into()))
    }

    /// As the token gave it out.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[wrapped key of {} bytes]", self.0.len())
    }
}

/// The public half of a pair in a token, as `custody` gives it out. In base64 when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(pub Arc<[u8]>);

impl Serialize for WrappedKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for WrappedKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = from_base64(d)?;
        Self::new(&bytes).ok_or_else(|| serde::de::Error::custom("a wrapped key is too long"))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        from_base64(d).map(|bytes| Self(bytes.into()))
    }
}

fn from_base64<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
    STANDARD.decode(&*text).map_err(serde::de::Error::custom)
}

/// What a signing key in a token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SigningScheme {
    /// Ed25519 (RFC 8032), pure: public keys of 32 bytes, signatures of 64.
    Ed25519,
    /// ECDSA over P-256 with SHA-256: public keys are uncompressed points of 65 bytes, signatures
    /// are r || s of 64.
    EcdsaP256,
}

/// A text that is not 32 hex digits.
#[derive(Debug, thiserror::Error)]
#[error("a backing key id is 32 hex digits")]
pub struct BadBackingKeyId;
