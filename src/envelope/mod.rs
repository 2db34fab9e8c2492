//! Ciphertext: the envelope format, data keys at rest and their cache, the store key.
//!
//! Every envelope has a key of its own. From the token comes a 32-byte *message secret*; HKDF makes
//! from it the AES-256-GCM key that seals the body, and a commitment that stands in the header.
//! `docs/envelope.md` has the format byte by byte, with test vectors.
//!
//! ```text
//!  0       1        2        3         19            35      67           99
//!  version | scheme | id kind | key id | backing key | nonce | commitment | body || tag
//! ```

pub mod access_key;
pub mod cache;
pub mod context;
pub mod message;
pub mod session;
pub mod store_key;
pub mod value;

use crate::clock::{Random, random_bytes};
use crate::custody::{self, lane::Lane};
use crate::name::{BackingKeyId, KeyCheck, Scheme};
use crate::secret::{Key, Secret};
use crate::store::keys::{Backing, Key as KmsKey};
use aws_lc_rs::{aead, constant_time, hkdf};
use context::{Binding, Context, associated_data};
use std::sync::Arc;

/// The format's version, the first byte.
const VERSION: u8 = 1;
/// Bytes before the commitment.
const BOUND: usize = 67;
/// Bytes before the body.
const HEADER: usize = 99;
/// Bytes of the GCM tag.
const TAG: usize = 16;
/// What an envelope adds to its plaintext, in bytes.
pub const OVERHEAD: usize = HEADER + TAG;
/// The largest envelope that is looked at: AWS's limit for a CiphertextBlob.
pub const MAX_LEN: usize = 6_144;

/// SP 800-108 label of the message secret.
const MESSAGE_SECRET: &[u8] = b"strongroom message secret v1";
/// SP 800-108 label of what is derived to see whether the token works.
const PROBE: &[u8] = b"strongroom probe v1";
/// HKDF info of body key and commitment.
const BODY_AND_COMMITMENT: &[u8] = b"strongroom body key and commitment v1";

/// What can go wrong with an envelope.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an envelope, altered, for another context, or from another key. The reason is not told.
    #[error("the ciphertext is not valid here")]
    Invalid,
    /// The plaintext is longer than an envelope may hold.
    #[error("the plaintext is too long")]
    TooLong,
    /// The token could not do its part.
    #[error(transparent)]
    Custody(#[from] custody::Error),
    /// A primitive failed, or randomness ran out.
    #[error("a cryptographic primitive failed")]
    Primitive,
}

impl From<crate::clock::NoRandomness> for Error {
    fn from(_: crate::clock::NoRandomness) -> Self {
        Self::Primitive
    }
}

/// An envelope, taken apart but not opened: wrapped, never to be mistaken for what is inside.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The KMS key that it names.
    pub key_id: String,
    /// The backing key that it names.
    pub backing: BackingKeyId,
    scheme: Scheme,
    bytes: Vec<u8>,
}

impl Envelope {
    /// Takes an envelope apart; anything that is not exactly of the format is [`Error::Invalid`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let [version, scheme, kind, rest @ ..] = bytes else { return Err(Error::Invalid) };
        if *version != VERSION || !(OVERHEAD..=MAX_LEN).contains(&bytes.len()) {
            return Err(Error::Invalid);
        }
        let (key_id, rest) = rest.split_first_chunk::<16>().ok_or(Error::Invalid)?;
        let (backing, _) = rest.split_first_chunk::<16>().ok_or(Error::Invalid)?;
        Ok(Self {
            key_id: key_id_text(*kind, *key_id).ok_or(Error::Invalid)?,
            backing: BackingKeyId(*backing),
            scheme: Scheme::from_byte(*scheme).ok_or(Error::Invalid)?,
            bytes: bytes.to_vec(),
        })
    }

    fn nonce(&self) -> Result<&[u8; 32], Error> {
        self.part(BOUND - 32..BOUND)?.try_into().map_err(|_| Error::Invalid)
    }

    fn digest(&self, binding: &Binding<'_>, context: &Context) -> Result<[u8; 32], Error> {
        Ok(associated_data(self.part(0..BOUND)?, binding, context))
    }

    /// Checks the commitment before the body key is used at all.
    fn open(&self, secret: &Key, digest: &[u8; 32]) -> Result<Secret, Error> {
        let (body_key, commitment) = body_key_and_commitment(secret)?;
        constant_time::verify_slices_are_equal(&commitment, self.part(BOUND..HEADER)?)
            .map_err(|_| Error::Invalid)?;
        let mut body = Secret::copy_of(self.part(HEADER..self.bytes.len())?);
        open_in_place(&body_key, digest, &mut body)?;
        Ok(body)
    }

    fn part(&self, range: std::ops::Range<usize>) -> Result<&[u8], Error> {
        self.bytes.get(range).ok_or(Error::Invalid)
    }
}

/// Seals and opens envelopes with the token's help.
#[derive(Clone)]
pub struct Envelopes {
    lane: Lane,
    random: Arc<dyn Random>,
    region: Arc<str>,
    probe: (BackingKeyId, KeyCheck),
}

impl Envelopes {
    /// With the token behind this lane, for an appliance in this region; `probe` is a backing key
    /// that is always there (the store's).
    pub fn new(
        lane: Lane,
        random: Arc<dyn Random>,
        region: &str,
        probe: (BackingKeyId, KeyCheck),
    ) -> Self {
        Self { lane, random, region: region.into(), probe }
    }

    /// A real derivation in the token, thrown away: whether it works.
    pub async fn probe(&self) -> Result<(), Error> {
        let input = derivation_input(PROBE, &[0; 32], &[0; 32]);
        self.lane.derive(self.probe.0, self.probe.1, input).await?;
        Ok(())
    }

    /// Seals up to 4,096 bytes under the current backing key of a KMS key.
    pub async fn seal(
        &self,
        key: &KmsKey,
        context: &Context,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if plaintext.len() + OVERHEAD > MAX_LEN {
            return Err(Error::TooLong);
        }
        let backing = key.current().ok_or(Error::Primitive)?;
        let nonce = random_bytes(&*self.random)?;
        let draft = Draft::new(&self.binding(key, backing), context, &nonce, plaintext.len())?;
        let input = derivation_input(MESSAGE_SECRET, &nonce, &draft.digest);
        let secret = self.lane.derive(backing.id, backing.check, input).await?;
        draft.seal(&secret, plaintext)
    }

    /// Opens an envelope that names this KMS key.
    pub async fn open(
        &self,
        key: &KmsKey,
        context: &Context,
        envelope: Envelope,
    ) -> Result<Secret, Error> {
        let backing = key
            .backing
            .iter()
            .find(|b| b.id == envelope.backing && b.scheme == envelope.scheme)
            .filter(|_| key.id == envelope.key_id)
            .ok_or(Error::Invalid)?;
        let digest = envelope.digest(&self.binding(key, backing), context)?;
        let input = derivation_input(MESSAGE_SECRET, envelope.nonce()?, &digest);
        let secret = self.lane.derive(backing.id, backing.check, input).await?;
        envelope.open(&secret, &digest)
    }

    fn binding<'a>(&'a self, key: &'a KmsKey, backing: &Backing) -> Binding<'a> {
        Binding {
            account: &key.account,
            region: &self.region,
            key_id: &key.id,
            backing: backing.id,
            scheme: backing.scheme,
        }
    }
}

/// An envelope in the making: its header up to the commitment, which waits for the message secret.
struct Draft {
    bytes: Vec<u8>,
    digest: [u8; 32],
}

impl Draft {
    fn new(
        binding: &Binding<'_>,
        context: &Context,
        nonce: &[u8; 32],
        plaintext_len: usize,
    ) -> Result<Self, Error> {
        let (kind, id) = key_id_bytes(binding.key_id).ok_or(Error::Primitive)?;
        let mut bytes = Vec::with_capacity(plaintext_len + OVERHEAD);
        bytes.extend([VERSION, binding.scheme as u8, kind]);
        bytes.extend(id);
        bytes.extend(binding.backing.0);
        bytes.extend(nonce);
        let digest = associated_data(&bytes, binding, context);
        Ok(Self { bytes, digest })
    }

    fn seal(self, secret: &Key, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let Self { mut bytes, digest } = self;
        let (body_key, commitment) = body_key_and_commitment(secret)?;
        bytes.extend(commitment);
        bytes.extend(plaintext);
        seal_in_place(&body_key, &digest, &mut bytes, HEADER)?;
        Ok(bytes)
    }
}

/// The input of SP 800-108 counter mode with one block of 256 bits:
/// `[1]_32 || label || 0x00 || nonce || SHA-256(associated data) || [256]_32`.
fn derivation_input(label: &[u8], nonce: &[u8; 32], digest: &[u8; 32]) -> Vec<u8> {
    let mut input = Vec::with_capacity(4 + label.len() + 1 + 64 + 4);
    input.extend(1u32.to_be_bytes());
    input.extend(label);
    input.push(0);
    input.extend(nonce);
    input.extend(digest);
    input.extend(256u32.to_be_bytes());
    input
}

/// `body key || commitment = HKDF-Expand(message secret, info, 64)` (RFC 5869; the extract step is
/// left out as section 3.3 allows: the message secret is the output of a pseudorandom function).
fn body_key_and_commitment(secret: &Key) -> Result<(Key, [u8; 32]), Error> {
    let mut out = zeroize::Zeroizing::new([0; 64]);
    expand(secret, BODY_AND_COMMITMENT, out.as_mut())?;
    let (body, commitment) = out.split_first_chunk::<32>().ok_or(Error::Primitive)?;
    let commitment = commitment.try_into().map_err(|_| Error::Primitive)?;
    let body = Key::fill(|key| {
        key.copy_from_slice(body);
        Ok::<_, Error>(())
    })?;
    Ok((body, commitment))
}

/// HKDF-Expand with SHA-256 (RFC 5869 section 2.3) of a uniformly random 256-bit key.
fn expand(key: &Key, info: &[u8], out: &mut [u8]) -> Result<(), Error> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key.expose())
        .expand(&[info], Len(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| Error::Primitive)
}

/// AES-256-GCM over `bytes[from..]`, the tag appended. The key seals this once and nothing else, so
/// the IV is 96 zero bits.
fn seal_in_place(key: &Key, aad: &[u8], bytes: &mut Vec<u8>, from: usize) -> Result<(), Error> {
    let body = bytes.get_mut(from..).ok_or(Error::Primitive)?;
    let tag = gcm(key)?
        .seal_in_place_separate_tag(zero_iv(), aead::Aad::from(aad), body)
        .map_err(|_| Error::Primitive)?;
    bytes.extend(tag.as_ref());
    Ok(())
}

/// Opens what [`seal_in_place`] sealed; the plaintext takes its place.
fn open_in_place(key: &Key, aad: &[u8], body: &mut Secret) -> Result<(), Error> {
    let bytes = body.expose_mut();
    let len = gcm(key)?
        .open_in_place(zero_iv(), aead::Aad::from(aad), bytes)
        .map_err(|_| Error::Invalid)?
        .len();
    bytes.truncate(len);
    Ok(())
}

fn gcm(key: &Key) -> Result<aead::LessSafeKey, Error> {
    aead::UnboundKey::new(&aead::AES_256_GCM, key.expose())
        .map(aead::LessSafeKey::new)
        .map_err(|_| Error::Primitive)
}

fn zero_iv() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; 12])
}

/// A key id as its kind (0: UUID, 1: `mrk-`) and 16 bytes.
fn key_id_bytes(id: &str) -> Option<(u8, [u8; 16])> {
    let (kind, digits) = match id.strip_prefix("mrk-") {
        Some(digits) => (1, digits),
        None => (0, id),
    };
    Some((kind, *uuid::Uuid::try_parse(digits).ok()?.as_bytes()))
}

fn key_id_text(kind: u8, id: [u8; 16]) -> Option<String> {
    let id = uuid::Uuid::from_bytes(id);
    match kind {
        0 => Some(id.hyphenated().to_string()),
        1 => Some(format!("mrk-{}", id.simple())),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
