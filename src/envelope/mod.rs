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
//!
//! Of the schemes with public keys, what is for the holders and a MAC stand before the body: see
//! [`holders`].

pub mod access_key;
pub mod cache;
pub mod context;
pub mod holders;
pub mod message;
pub mod session;
pub mod store_key;
pub mod value;

use crate::clock::{Random, random_bytes};
use crate::custody::{self, TokenKey, tokens::Tokens};
use crate::name::{BackingKeyId, Scheme};
use crate::secret::{Key, Secret};
use crate::store::keys::{Backing, Key as KmsKey, KeyHolder};
use aws_lc_rs::{aead, constant_time, hkdf};
use context::{Binding, Context, associated_data};
use holders::{Authenticators, Away, Wraps};
use std::sync::Arc;
use store_key::{StoreKey, WrappedStoreKey};

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
    /// Where the body begins.
    body: usize,
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
        let scheme = Scheme::from_byte(*scheme).ok_or(Error::Invalid)?;
        Ok(Self {
            key_id: key_id_text(*kind, *key_id).ok_or(Error::Invalid)?,
            backing: BackingKeyId(*backing),
            scheme,
            body: HEADER + holders::room(scheme, bytes.get(HEADER..).unwrap_or_default())?,
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
        let mut body = Secret::copy_of(self.part(self.body..self.bytes.len())?);
        open_in_place(&body_key, digest, &mut body)?;
        Ok(body)
    }

    /// What is for the holders, after the MAC was checked.
    fn wraps(
        &self,
        authenticator: &holders::Authenticator,
        digest: &[u8; 32],
    ) -> Result<Wraps<'_>, Error> {
        authenticator.check(&self.bytes, self.body, digest)?;
        Wraps::parse(self.scheme, self.part(HEADER..self.body)?).ok_or(Error::Invalid)
    }

    fn part(&self, range: std::ops::Range<usize>) -> Result<&[u8], Error> {
        self.bytes.get(range).ok_or(Error::Invalid)
    }
}

/// Seals and opens envelopes with the tokens' help.
#[derive(Clone)]
pub struct Envelopes {
    tokens: Tokens,
    random: Arc<dyn Random>,
    region: Arc<str>,
    authenticators: Arc<Authenticators>,
}

impl Envelopes {
    /// With these tokens, for an appliance in this region.
    pub fn new(tokens: Tokens, random: Arc<dyn Random>, region: &str) -> Self {
        Self { tokens, random, region: region.into(), authenticators: Arc::default() }
    }

    /// The store key, opened by a token and thrown away: whether the tokens work.
    pub async fn probe(&self, store_key: &WrappedStoreKey) -> Result<(), Error> {
        StoreKey::unwrap(&self.tokens, &self.region, store_key).await?;
        Ok(())
    }

    /// Seals up to 4,096 bytes under the current backing key of a KMS key.
    pub async fn seal(
        &self,
        key: &KmsKey,
        context: &Context,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let backing = key.current().ok_or(Error::Primitive)?;
        let nonce = random_bytes(&*self.random)?;
        let draft = Draft::new(&self.binding(key, backing), context, &nonce, plaintext.len())?;
        let input = derivation_input(MESSAGE_SECRET, &nonce, &draft.digest);
        if !backing.scheme.has_holders() {
            let secret = self.derive(backing, input).await?;
            return draft.seal(&secret, None, plaintext);
        }
        let authenticator = self.authenticator(backing).await?;
        let random = &*self.random;
        let (shared, wraps) = holders::wrap(random, backing, &draft.digest)?;
        let secret = authenticator.message_secret(&shared, &input)?;
        draft.seal(&secret, Some((&wraps, &authenticator)), plaintext)
    }

    /// Opens an envelope that names this KMS key.
    pub async fn open(
        &self,
        key: &KmsKey,
        context: &Context,
        envelope: Envelope,
    ) -> Result<Secret, Error> {
        let (backing, digest) = self.belongs(key, context, &envelope)?;
        let input = derivation_input(MESSAGE_SECRET, envelope.nonce()?, &digest);
        let secret = if backing.scheme.has_holders() {
            let authenticator = self.authenticator(backing).await?;
            let wraps = envelope.wraps(&authenticator, &digest)?;
            let shared =
                holders::unwrap(&self.tokens, backing, &wraps, &digest, &mut Away::default())
                    .await?;
            authenticator.message_secret(&shared, &input)?
        } else {
            self.derive(backing, input).await?
        };
        envelope.open(&secret, &digest)
    }

    /// The same envelope for the holders that its backing key has now. Tokens that are `away` are not
    /// asked, and one that does not serve is from then on.
    ///
    /// # Errors
    /// [`Error::Invalid`] if no token will ever open it.
    pub async fn reseal(
        &self,
        key: &KmsKey,
        context: &Context,
        envelope: &Envelope,
        away: &mut Away,
    ) -> Result<Resealed, Error> {
        let (backing, digest) = self.belongs(key, context, envelope)?;
        if !backing.scheme.has_holders() {
            return Ok(Resealed::Already);
        }
        let authenticator = match self.authenticators.of(&self.tokens, backing, away).await {
            Err(error) => {
                let all = backing.holders.iter().map(|holder| holder.token.clone());
                return waits(error, all.collect());
            }
            Ok(authenticator) => authenticator,
        };
        let wraps = envelope.wraps(&authenticator, &digest)?;
        if wraps.are_for(backing) {
            return Ok(Resealed::Already);
        }
        let shared = match holders::unwrap(&self.tokens, backing, &wraps, &digest, away).await {
            Err(error) => return waits(error, wraps.openers(backing)),
            Ok(shared) => shared,
        };
        let wraps = holders::wrap_again(&*self.random, backing, &digest, &shared)?;
        let mut bytes = envelope.part(0..HEADER)?.to_vec();
        bytes.extend(wraps);
        bytes.extend([0; holders::MAC]);
        let body = bytes.len();
        bytes.extend(envelope.part(envelope.body..envelope.bytes.len())?);
        authenticator.authenticate(&mut bytes, body, &digest)?;
        if bytes.len() > MAX_LEN { Err(Error::TooLong) } else { Ok(Resealed::Fresh(bytes)) }
    }

    /// A new authenticator for a backing key with holders, sealed to them: as it stands in the row.
    pub fn new_authenticator(&self, backing: &Backing) -> Result<String, Error> {
        holders::new_authenticator(&*self.random, backing)
    }

    /// The authenticator of a backing key, sealed to the holders that `backing` has now; it is opened
    /// by one of those that `before` has.
    pub async fn reseal_authenticator(
        &self,
        before: &Backing,
        backing: &Backing,
    ) -> Result<String, Error> {
        let authenticator = self.authenticator(before).await?;
        authenticator.sealed(&*self.random, backing)
    }

    async fn authenticator(&self, backing: &Backing) -> Result<Arc<holders::Authenticator>, Error> {
        self.authenticators.of(&self.tokens, backing, &mut Away::default()).await
    }

    /// The backing key that an envelope of this KMS key names, and the digest of what it is bound to.
    fn belongs<'a>(
        &self,
        key: &'a KmsKey,
        context: &Context,
        envelope: &Envelope,
    ) -> Result<(&'a Backing, [u8; 32]), Error> {
        let backing = key
            .backing
            .iter()
            .find(|b| b.id == envelope.backing && b.scheme == envelope.scheme)
            .filter(|_| key.id == envelope.key_id)
            .ok_or(Error::Invalid)?;
        let digest = envelope.digest(&self.binding(key, backing), context)?;
        Ok((backing, digest))
    }

    async fn derive(&self, backing: &Backing, input: Vec<u8>) -> Result<Key, Error> {
        let [holder] = backing.holders.as_slice() else { return Err(Error::Primitive) };
        let lane = self.tokens.of(&holder.token)?;
        Ok(lane.derive(token_key(holder), holder.check, input).await?)
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

/// What came of sealing an envelope to the holders of now.
#[derive(Debug, PartialEq, Eq)]
pub enum Resealed {
    /// The envelope that takes the old one's place.
    Fresh(Vec<u8>),
    /// It is for them already.
    Already,
    /// One of the tokens of these serial numbers has to open it, and none did.
    Waits(Vec<String>),
}

/// What another attempt may mend is waited for.
fn waits(error: Error, openers: Vec<String>) -> Result<Resealed, Error> {
    match error {
        Error::Custody(error) if holders::elsewhere(&error) => Ok(Resealed::Waits(openers)),
        // A token has looked at it: it is nothing that was encrypted to its key.
        Error::Custody(_) => Err(Error::Invalid),
        other => Err(other),
    }
}

/// How a holder's key is asked for.
fn token_key(holder: &KeyHolder) -> TokenKey {
    TokenKey { id: holder.key, wrapped: holder.wrapped.clone() }
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

    /// With what is for the holders, and what authenticates it, if the scheme has holders.
    fn seal(
        self,
        secret: &Key,
        holders: Option<(&[u8], &holders::Authenticator)>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let Self { mut bytes, digest } = self;
        let (body_key, commitment) = body_key_and_commitment(secret)?;
        bytes.extend(commitment);
        if let Some((wraps, _)) = holders {
            bytes.extend(wraps);
            bytes.extend([0; holders::MAC]);
        }
        let body = bytes.len();
        if body + plaintext.len() + TAG > MAX_LEN {
            return Err(Error::TooLong);
        }
        bytes.extend(plaintext);
        seal_in_place(&body_key, &digest, &mut bytes, body)?;
        if let Some((_, authenticator)) = holders {
            authenticator.authenticate(&mut bytes, body, &digest)?;
        }
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
