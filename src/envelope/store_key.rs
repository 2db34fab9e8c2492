//! The store key: 32 random bytes, unwrapped by the token once per start, from which the keys for
//! row MACs, access-key secrets and page tokens are derived. So a stranger's request, checked
//! against an access key, never reaches the token.
//!
//! At rest it is wrapped once for each token that holds it, with AES-KW (RFC 3394) under
//! `HKDF-Expand(message secret, "strongroom store key wrapping v1", 32)`. The message secret is what
//! a backing key of its own derives over a nonce and SHA-256 of the site (region), by the token's
//! scheme:
//!
//! - `hmac-kdf`: as for an envelope.
//! - `ecdh`: `HMAC-SHA-256(Z, derivation input)`, Z being what the token's key agrees on with
//!   [`NOBODY`]. Whoever has the public key alone can't compute it, so nobody can put a store key of
//!   his own in the place of this one.

use super::{Error, derivation_input, expand, holders, open_in_place, seal_in_place, token_key};
use crate::clock::{Random, random_bytes, random_key};
use crate::custody::lane::Lane;
use crate::custody::tokens::Tokens;
use crate::name::{BackingKeyId, KeyCheck, Scheme};
use crate::secret::{Key, Secret};
use crate::store::keys::KeyHolder;
use aes_kw::{KeyInit, KwAes256};
use aws_lc_rs::{digest, hmac};
use serde::{Deserialize, Serialize};

const LABEL: &[u8] = b"strongroom store secret v1";
const WRAPPING: &[u8] = b"strongroom store key wrapping v1";

/// A point of P-256 whose discrete logarithm nobody knows: its x-coordinate is
/// SHA-256("strongroom point of nobody v1" || 0x00), its y-coordinate is the even one. Uncompressed.
pub const NOBODY: [u8; 65] = *b"\x04\
    \x9e\x96\x99\x0a\x39\xe5\xcc\xf1\x76\x5c\xd1\xf8\x4f\x63\x69\x19\
    \x94\xd6\x5b\x3d\xf8\x86\xcd\x8a\xe3\xfa\x46\x5f\x3c\x1a\xad\x2a\
    \x1b\x7c\x13\xcd\x47\x9f\xc8\xe2\x2a\xc9\x56\x46\x8a\x16\xd2\xc5\
    \x28\x20\xed\x12\xc8\x93\xc5\xa9\x7e\x9f\xa4\xb4\x76\x51\x48\x7a";

/// The store key as it stands in the database: wrapped for each token that holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "AsWritten")]
pub struct WrappedStoreKey {
    /// Never empty.
    pub wraps: Vec<Wrap>,
}

/// The store key as rows have it: those of before there were several tokens have one wrap alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum AsWritten {
    Several { wraps: Vec<Wrap> },
    One { backing: BackingKeyId, scheme: Scheme, check: KeyCheck, nonce: String, wrapped: String },
}

impl From<AsWritten> for WrappedStoreKey {
    fn from(row: AsWritten) -> Self {
        let wraps = match row {
            AsWritten::Several { wraps } => wraps,
            AsWritten::One { backing, scheme, check, nonce, wrapped } => {
                let holder = KeyHolder::alone(backing, check);
                vec![Wrap { holder, scheme, nonce, wrapped }]
            }
        };
        Self { wraps }
    }
}

impl WrappedStoreKey {
    /// As it stands in the database; what is none is [`Error::Invalid`].
    pub fn read(stored: &serde_json::Value) -> Result<Self, Error> {
        Self::deserialize(stored).map_err(|_| Error::Invalid)
    }
}

/// The store key as one token opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wrap {
    /// The backing key.
    pub holder: KeyHolder,
    /// How it delivers the message secret: `hmac-kdf` or `ecdh`.
    pub scheme: Scheme,
    /// 32 bytes, in base64.
    nonce: String,
    /// 40 bytes: AES-KW of the store key, in base64.
    wrapped: String,
}

/// The store key, unwrapped.
pub struct StoreKey(Key);

impl StoreKey {
    /// Makes a store key that no token holds yet.
    pub fn create(random: &dyn Random) -> Result<Self, Error> {
        Ok(Self(random_key(random)?))
    }

    /// Wraps it for a token, under a backing key that is there already.
    pub async fn wrap(
        &self,
        lane: &Lane,
        random: &dyn Random,
        site: &str,
        (holder, scheme): (KeyHolder, Scheme),
    ) -> Result<Wrap, Error> {
        let nonce = random_bytes::<32>(random)?;
        let kek = wrapping_key(lane, site, (&holder, scheme), &nonce).await?;
        let mut wrapped = [0; 40];
        kek.wrap_key(self.0.expose(), &mut wrapped).map_err(|_| Error::Primitive)?;
        let (nonce, wrapped) = (base64(&nonce), base64(&wrapped));
        Ok(Wrap { holder, scheme, nonce, wrapped })
    }

    /// Unwraps it with the help of the first token that holds it and can be reached.
    pub async fn unwrap(
        tokens: &Tokens,
        site: &str,
        wrapped: &WrappedStoreKey,
    ) -> Result<Self, Error> {
        let mut last = Error::Invalid;
        for wrap in holders::up_first(tokens, &wrapped.wraps, |wrap| &wrap.holder) {
            match Self::unwrap_with(tokens, site, wrap).await {
                Err(Error::Custody(error)) if holders::elsewhere(&error) => {
                    last = error.into();
                }
                settled => return settled,
            }
        }
        Err(last)
    }

    async fn unwrap_with(tokens: &Tokens, site: &str, wrap: &Wrap) -> Result<Self, Error> {
        let lane = tokens.of(&wrap.holder.token)?;
        let nonce = unbase64(&wrap.nonce)?;
        let kek = wrapping_key(lane, site, (&wrap.holder, wrap.scheme), &nonce).await?;
        let blob: [u8; 40] = unbase64(&wrap.wrapped)?;
        let key =
            Key::fill(|out| kek.unwrap_key(&blob, out).map(|_| ()).map_err(|_| Error::Invalid))?;
        Ok(Self(key))
    }

    /// The key for one purpose: `HKDF-Expand(store key, label, 32)`.
    pub fn derive(&self, label: &str) -> Result<Key, Error> {
        Key::fill(|out| expand(&self.0, label.as_bytes(), out))
    }
}

async fn wrapping_key(
    lane: &Lane,
    site: &str,
    (holder, scheme): (&KeyHolder, Scheme),
    nonce: &[u8; 32],
) -> Result<KwAes256, Error> {
    let mut bound = [0; 32];
    bound.copy_from_slice(digest::digest(&digest::SHA256, site.as_bytes()).as_ref());
    let input = derivation_input(LABEL, nonce, &bound);
    let key = token_key(holder);
    let secret = match scheme {
        Scheme::HmacKdf => lane.derive(key, holder.check, input).await?,
        Scheme::Ecdh => {
            let agreed = lane.agree(key, holder.check, NOBODY.to_vec()).await?;
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, agreed.expose()), &input);
            Key::from_secret(&Secret::copy_of(mac.as_ref())).ok_or(Error::Primitive)?
        }
        // Anybody could make one with the public key.
        Scheme::RsaOaep => return Err(Error::Primitive),
    };
    let kek = Key::fill(|out| expand(&secret, WRAPPING, out))?;
    KwAes256::new_from_slice(kek.expose()).map_err(|_| Error::Primitive)
}

/// A small secret at rest under a key derived from the store key (access-key secrets): a fresh
/// AES-256-GCM key each, `HKDF-Expand(key, nonce)`; `nonce (32 bytes) || ciphertext || tag`, bound
/// to where it belongs.
pub fn seal_small(
    key: &Key,
    random: &dyn Random,
    belongs_to: &str,
    secret: &Secret,
) -> Result<String, Error> {
    let nonce = random_bytes::<32>(random)?;
    let once = Key::fill(|out| expand(key, &nonce, out))?;
    let mut bytes = Vec::with_capacity(32 + secret.len() + 16);
    bytes.extend(nonce);
    bytes.extend(secret.expose());
    seal_in_place(&once, belongs_to.as_bytes(), &mut bytes, 32)?;
    Ok(base64(&bytes))
}

/// Opens what [`seal_small`] sealed.
pub fn open_small(key: &Key, belongs_to: &str, sealed: &str) -> Result<Secret, Error> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(sealed);
    let bytes = bytes.map_err(|_| Error::Invalid)?;
    let (nonce, body) = bytes.split_first_chunk::<32>().ok_or(Error::Invalid)?;
    let once = Key::fill(|out| expand(key, nonce, out))?;
    let mut secret = Secret::copy_of(body);
    open_in_place(&once, belongs_to.as_bytes(), &mut secret)?;
    Ok(secret)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn unbase64<const N: usize>(text: &str) -> Result<[u8; N], Error> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes.map_err(|_| Error::Invalid)?.try_into().map_err(|_| Error::Invalid)
}
