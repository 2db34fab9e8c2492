//! The store key: 32 random bytes, unwrapped by the token once per start, from which the keys for
//! row MACs, access-key secrets and page tokens are derived. So a stranger's request, checked
//! against an access key, never reaches the token.
//!
//! At rest it is wrapped with AES-KW (RFC 3394) under
//! `HKDF-Expand(message secret, "strongroom store key wrapping v1", 32)`, the message secret being
//! derived by a backing key of its own over a nonce and SHA-256 of the site (region).

use super::{Error, derivation_input, expand, open_in_place, seal_in_place};
use crate::clock::{Random, random_bytes, random_key};
use crate::custody::lane::Lane;
use crate::name::{BackingKeyId, KeyCheck, Scheme};
use crate::secret::{Key, Secret};
use aes_kw::{KeyInit, KwAes256};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

const LABEL: &[u8] = b"strongroom store secret v1";
const WRAPPING: &[u8] = b"strongroom store key wrapping v1";

/// The store key as it stands in the database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WrappedStoreKey {
    /// The backing key.
    pub backing: BackingKeyId,
    /// Its scheme.
    pub scheme: Scheme,
    /// What it must check to.
    pub check: KeyCheck,
    /// 32 bytes, in base64.
    nonce: String,
    /// 40 bytes: AES-KW of the store key, in base64.
    wrapped: String,
}

/// The store key, unwrapped.
pub struct StoreKey(Key);

impl StoreKey {
    /// Makes a store key and wraps it under a backing key that is there already.
    pub async fn create(
        lane: &Lane,
        random: &dyn Random,
        site: &str,
        backing: BackingKeyId,
        check: KeyCheck,
    ) -> Result<(Self, WrappedStoreKey), Error> {
        let (key, nonce) = (random_key(random)?, random_bytes::<32>(random)?);
        let kek = wrapping_key(lane, site, backing, check, &nonce).await?;
        let mut wrapped = [0; 40];
        kek.wrap_key(key.expose(), &mut wrapped).map_err(|_| Error::Primitive)?;
        let (nonce, wrapped) = (base64(&nonce), base64(&wrapped));
        let scheme = Scheme::HmacKdf;
        Ok((Self(key), WrappedStoreKey { backing, scheme, check, nonce, wrapped }))
    }

    /// Unwraps it with the token's help.
    pub async fn unwrap(lane: &Lane, site: &str, wrapped: &WrappedStoreKey) -> Result<Self, Error> {
        let nonce = unbase64(&wrapped.nonce)?;
        let kek = wrapping_key(lane, site, wrapped.backing, wrapped.check, &nonce).await?;
        let blob: [u8; 40] = unbase64(&wrapped.wrapped)?;
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
    backing: BackingKeyId,
    check: KeyCheck,
    nonce: &[u8; 32],
) -> Result<KwAes256, Error> {
    let mut bound = [0; 32];
    bound.copy_from_slice(digest::digest(&digest::SHA256, site.as_bytes()).as_ref());
    let secret = lane.derive(backing, check, derivation_input(LABEL, nonce, &bound)).await?;
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
