//! The schemes with public keys: one message secret for several holders, any one of which opens.
//!
//! A random *shared secret* is wrapped for each holder; what is derived from it and from the backing
//! key's *authenticator* is the message secret. Whoever has the public keys alone can neither make an
//! envelope that opens nor have a token try one: the MAC is checked before a token is asked.
//!
//! Between commitment and body stand
//!
//! ```text
//! ecdh:     number of holders (1) | ephemeral key (65) | holders x (check (8) | AES-KW (40)) | MAC (32)
//! rsa-oaep: number of holders (1) | holders x (check (8) | length (2) | ciphertext)          | MAC (32)
//!
//! AES-KW key = SHA-256(0x00000001 || Z || "strongroom ecdh wrap v1" || ephemeral key ||
//!                      holder's key || SHA-256(associated data))       (SP 800-56C, one step)
//! message secret = HMAC-SHA-256(HKDF-Expand(authenticator, "strongroom message secrets v1"),
//!                               shared secret || derivation input)
//! MAC = HMAC-SHA-256(HKDF-Expand(authenticator, "strongroom envelopes v1"),
//!                    SHA-256(associated data) || everything before the MAC || everything after it)
//! ```
//!
//! Wraps are not part of the associated data, so that an envelope can be sealed to other holders
//! without its body being opened.

use super::{Error, MAX_LEN, OVERHEAD, expand, token_key};
use crate::clock::{Random, random_key};
use crate::custody::{self, tokens::Tokens};
use crate::name::{BackingKeyId, KeyCheck, PublicKey, Scheme};
use crate::secret::{Key, Secret};
use crate::store::keys::{Backing, KeyHolder};
use aes_kw::{KeyInit, KwAes256};
use aws_lc_rs::{agreement, constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quick_cache::sync::Cache;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of the MAC.
pub(super) const MAC: usize = 32;
/// The most holders of one key.
pub const MOST: usize = 16;

/// The longest plaintext that KMS takes, in bytes.
const LONGEST_PLAINTEXT: usize = 4096;

const POINT: usize = 65;
const CHECK: usize = 8;
const WRAPPED: usize = 40;
/// The longest RSA ciphertext: of 4,096 bits.
const LONGEST: usize = 512;

const WRAP: &[u8] = b"strongroom ecdh wrap v1";
const MESSAGE_SECRETS: &[u8] = b"strongroom message secrets v1";
const ENVELOPES: &[u8] = b"strongroom envelopes v1";
const AUTHENTICATOR: &[u8] = b"strongroom authenticator v1";

/// How many authenticators are kept in memory.
const KEPT: usize = 10_000;

/// What is for each holder, taken apart.
pub(super) struct Wraps<'a> {
    /// Empty of `rsa-oaep`.
    ephemeral: &'a [u8],
    entries: Vec<(KeyCheck, &'a [u8])>,
}

/// How many bytes stand before the body, from the commitment on, in an envelope of this scheme.
pub(super) fn room(scheme: Scheme, bytes: &[u8]) -> Result<usize, Error> {
    if !scheme.has_holders() {
        return Ok(0);
    }
    let rest = read(scheme, bytes).ok_or(Error::Invalid)?.1;
    let used = bytes.len().saturating_sub(rest.len()) + MAC;
    // A body has a tag at least.
    if used + super::TAG <= bytes.len() { Ok(used) } else { Err(Error::Invalid) }
}

/// Reads wraps off the front; answers what is left.
fn read(scheme: Scheme, bytes: &[u8]) -> Option<(Wraps<'_>, &[u8])> {
    let (count, mut rest) = bytes.split_first()?;
    let mut take = |n: usize| {
        let (taken, left) = rest.split_at_checked(n)?;
        rest = left;
        Some(taken)
    };
    if !(1..=MOST).contains(&usize::from(*count)) {
        return None;
    }
    let ephemeral = if scheme == Scheme::Ecdh { take(POINT)? } else { &[] };
    let mut entries = Vec::with_capacity(usize::from(*count));
    for _ in 0..*count {
        let check = KeyCheck(take(CHECK)?.try_into().ok()?);
        let length = match scheme {
            Scheme::Ecdh => WRAPPED,
            _ => usize::from(u16::from_be_bytes(take(2)?.try_into().ok()?)),
        };
        entries.push((check, take(length).filter(|_| length <= LONGEST)?));
    }
    Some((Wraps { ephemeral, entries }, rest))
}

impl<'a> Wraps<'a> {
    /// Takes apart what [`wrap`] made, a MAC after it or not.
    pub(super) fn parse(scheme: Scheme, bytes: &'a [u8]) -> Option<Self> {
        let (wraps, rest) = read(scheme, bytes)?;
        (rest.is_empty() || rest.len() == MAC).then_some(wraps)
    }

    /// Whether these are for all holders that a backing key has, and for nobody else.
    pub(super) fn are_for(&self, backing: &Backing) -> bool {
        let holders = backing.holders.iter().map(|holder| holder.check);
        holders.eq(self.entries.iter().map(|(check, _)| *check))
    }

    /// The serial numbers of the tokens by which these can be opened.
    pub(super) fn openers(&self, backing: &Backing) -> Vec<String> {
        let openers = backing.holders.iter().filter(|holder| self.of(holder).is_some());
        openers.map(|holder| holder.token.clone()).collect()
    }

    fn of(&self, holder: &KeyHolder) -> Option<&'a [u8]> {
        let (_, wrapped) = self.entries.iter().find(|(check, _)| *check == holder.check)?;
        Some(wrapped)
    }
}

/// A new shared secret, and what is for each holder of it.
pub(super) fn wrap(
    random: &dyn Random,
    backing: &Backing,
    digest: &[u8; 32],
) -> Result<(Key, Vec<u8>), Error> {
    let shared = random_key(random)?;
    let wraps = wrap_again(random, backing, digest, &shared)?;
    Ok((shared, wraps))
}

/// What is for each holder of a shared secret.
pub(super) fn wrap_again(
    random: &dyn Random,
    backing: &Backing,
    digest: &[u8; 32],
    shared: &Key,
) -> Result<Vec<u8>, Error> {
    if backing.holders.len() > MOST {
        return Err(Error::TooLong);
    }
    let count = u8::try_from(backing.holders.len()).map_err(|_| Error::Primitive)?;
    let mut bytes = vec![count];
    let ephemeral = match backing.scheme {
        Scheme::Ecdh => Some(Ephemeral::new(random)?),
        Scheme::RsaOaep => None,
        Scheme::HmacKdf => return Err(Error::Primitive),
    };
    bytes.extend(ephemeral.iter().flat_map(|ephemeral| ephemeral.public));
    for holder in &backing.holders {
        let public = holder.public.as_ref().ok_or(Error::Primitive)?;
        bytes.extend(holder.check.0);
        match &ephemeral {
            Some(ephemeral) => bytes.extend(ephemeral.wrap(public, digest, shared)?),
            None => {
                let sealed = custody::oaep::encrypt(&public.0, shared.expose());
                let ciphertext = sealed.ok_or(Error::Primitive)?;
                let length = u16::try_from(ciphertext.len()).map_err(|_| Error::Primitive)?;
                bytes.extend(length.to_be_bytes());
                bytes.extend(ciphertext);
            }
        }
    }
    Ok(bytes)
}

/// Tokens that did not serve, by serial number: who opens many envelopes does not ask them for each.
#[derive(Default)]
pub struct Away(BTreeSet<String>);

impl Away {
    fn refuse(&self, token: &str) -> Result<(), custody::Error> {
        if !self.0.contains(token) {
            return Ok(());
        }
        let why = "it did not serve a moment ago".into();
        Err(custody::Error::Unavailable { token: token.to_owned(), why })
    }

    /// What is wrong with one key says nothing of the token's others.
    fn note(&mut self, token: &str, error: &custody::Error) {
        use custody::Error::{KeyNotFound, KeyRejected};
        if !matches!(error, KeyNotFound(_) | KeyRejected { .. }) {
            self.0.insert(token.to_owned());
        }
    }
}

/// The shared secret, by the first holder that can be reached and is not `away`.
pub(super) async fn unwrap(
    tokens: &Tokens,
    backing: &Backing,
    wraps: &Wraps<'_>,
    digest: &[u8; 32],
    away: &mut Away,
) -> Result<Key, Error> {
    let mut last = Error::Invalid;
    for holder in up_first(tokens, &backing.holders, |holder| holder) {
        let Some(wrapped) = wraps.of(holder) else { continue };
        if let Err(error) = away.refuse(&holder.token) {
            last = error.into();
            continue;
        }
        match unwrap_with(tokens, backing.scheme, holder, (wraps.ephemeral, wrapped), digest).await
        {
            Err(Error::Custody(error)) if elsewhere(&error) => {
                away.note(&holder.token, &error);
                last = error.into();
            }
            settled => return settled,
        }
    }
    Err(last)
}

/// Those whose token is up before the others, which are asked all the same: one may be back.
pub(super) fn up_first<'a, T>(
    tokens: &Tokens,
    all: &'a [T],
    holder: impl Fn(&T) -> &KeyHolder,
) -> impl Iterator<Item = &'a T> {
    let up = |one: &&T| tokens.of(&holder(one).token).is_ok_and(|lane| lane.health().up);
    let (up, down): (Vec<_>, Vec<_>) = all.iter().partition(up);
    up.into_iter().chain(down)
}

/// Whether another holder may do better.
pub(super) fn elsewhere(error: &custody::Error) -> bool {
    !matches!(error, custody::Error::BadRequest(_))
}

async fn unwrap_with(
    tokens: &Tokens,
    scheme: Scheme,
    holder: &KeyHolder,
    (ephemeral, wrapped): (&[u8], &[u8]),
    digest: &[u8; 32],
) -> Result<Key, Error> {
    let lane = tokens.of(&holder.token)?;
    let key = token_key(holder);
    match scheme {
        Scheme::Ecdh => {
            let public = holder.public.as_ref().ok_or(Error::Primitive)?;
            let agreed = lane.agree(key, holder.check, ephemeral.to_vec()).await?;
            let wrapping = wrapping_key(agreed.expose(), ephemeral, public, digest)?;
            Key::fill(|out| {
                wrapping.unwrap_key(wrapped, out).map(|_| ()).map_err(|_| Error::Invalid)
            })
        }
        Scheme::RsaOaep => Ok(lane.unwrap(key, holder.check, wrapped.to_vec()).await?),
        Scheme::HmacKdf => Err(Error::Primitive),
    }
}

/// A pair for one envelope, thrown away afterwards.
struct Ephemeral {
    private: agreement::PrivateKey,
    public: [u8; POINT],
}

impl Ephemeral {
    fn new(random: &dyn Random) -> Result<Self, Error> {
        // That 32 random bytes are no scalar happens once in 2^32 times.
        let private = match Self::private(random)? {
            Some(private) => private,
            None => Self::private(random)?.ok_or(Error::Primitive)?,
        };
        let public = private.compute_public_key().map_err(|_| Error::Primitive)?;
        let public = public.as_ref().try_into().map_err(|_| Error::Primitive)?;
        Ok(Self { private, public })
    }

    /// A private key of 32 random bytes, if they are one.
    fn private(random: &dyn Random) -> Result<Option<agreement::PrivateKey>, Error> {
        let scalar = random_key(random)?;
        Ok(agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar.expose()).ok())
    }

    fn wrap(
        &self,
        holder: &PublicKey,
        digest: &[u8; 32],
        shared: &Key,
    ) -> Result<[u8; WRAPPED], Error> {
        let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, &*holder.0);
        let wrapping = agreement::agree(&self.private, peer, Error::Primitive, |agreed| {
            wrapping_key(agreed, &self.public, holder, digest)
        })?;
        let mut wrapped = [0; WRAPPED];
        wrapping.wrap_key(shared.expose(), &mut wrapped).map_err(|_| Error::Primitive)?;
        Ok(wrapped)
    }
}

/// SP 800-56C, one step, with SHA-256.
fn wrapping_key(
    agreed: &[u8],
    ephemeral: &[u8],
    holder: &PublicKey,
    digest: &[u8; 32],
) -> Result<KwAes256, Error> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [&1u32.to_be_bytes(), agreed, WRAP, ephemeral, &holder.0, digest] {
        hash.update(part);
    }
    let key = Key::fill(|key| {
        key.copy_from_slice(hash.finish().as_ref());
        Ok::<_, Error>(())
    })?;
    KwAes256::new_from_slice(key.expose()).map_err(|_| Error::Primitive)
}

/// A backing key's authenticator, opened.
pub struct Authenticator {
    secret: Key,
    message_secrets: hmac::Key,
    envelopes: hmac::Key,
}

impl Authenticator {
    fn new(secret: Key) -> Result<Self, Error> {
        let key = |label| {
            let key = Key::fill(|out| expand(&secret, label, out))?;
            Ok::<_, Error>(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
        };
        let (message_secrets, envelopes) = (key(MESSAGE_SECRETS)?, key(ENVELOPES)?);
        Ok(Self { secret, message_secrets, envelopes })
    }

    /// What body key and commitment come from.
    pub(super) fn message_secret(&self, shared: &Key, input: &[u8]) -> Result<Key, Error> {
        let mut context = hmac::Context::with_key(&self.message_secrets);
        context.update(shared.expose());
        context.update(input);
        let tag = Secret::copy_of(context.sign().as_ref());
        Key::from_secret(&tag).ok_or(Error::Primitive)
    }

    /// Writes the MAC before `body`.
    pub(super) fn authenticate(
        &self,
        bytes: &mut [u8],
        body: usize,
        digest: &[u8; 32],
    ) -> Result<(), Error> {
        let mac = self.mac(bytes, body, digest)?;
        let place = bytes.get_mut(body - MAC..body).ok_or(Error::Primitive)?;
        place.copy_from_slice(mac.as_ref());
        Ok(())
    }

    /// Checks the MAC before `body`, in constant time.
    pub(super) fn check(&self, bytes: &[u8], body: usize, digest: &[u8; 32]) -> Result<(), Error> {
        let mac = self.mac(bytes, body, digest)?;
        let there = bytes.get(body - MAC..body).ok_or(Error::Invalid)?;
        constant_time::verify_slices_are_equal(mac.as_ref(), there).map_err(|_| Error::Invalid)
    }

    fn mac(&self, bytes: &[u8], body: usize, digest: &[u8; 32]) -> Result<hmac::Tag, Error> {
        let before = body.checked_sub(MAC).and_then(|at| bytes.get(..at)).ok_or(Error::Invalid)?;
        let after = bytes.get(body..).ok_or(Error::Invalid)?;
        let mut context = hmac::Context::with_key(&self.envelopes);
        for part in [digest, before, after] {
            context.update(part);
        }
        Ok(context.sign())
    }

    /// Sealed to a backing key's holders, in base64: what its row has.
    pub(super) fn sealed(&self, random: &dyn Random, backing: &Backing) -> Result<String, Error> {
        let wraps = wrap_again(random, backing, &bound_to(backing.id), &self.secret)?;
        sealed(&wraps)
    }
}

/// A new authenticator, sealed to the holders.
pub(super) fn new_authenticator(random: &dyn Random, backing: &Backing) -> Result<String, Error> {
    let (_, wraps) = wrap(random, backing, &bound_to(backing.id))?;
    sealed(&wraps)
}

/// Wraps as a row has them. Those of an envelope are as long: it must have room for the longest
/// plaintext beside them.
fn sealed(wraps: &[u8]) -> Result<String, Error> {
    let room = MAX_LEN - OVERHEAD - MAC - LONGEST_PLAINTEXT;
    if wraps.len() > room {
        return Err(Error::TooLong);
    }
    Ok(STANDARD.encode(wraps))
}

/// What an authenticator is bound to. That it stands in the right row is for the row's MAC to say.
fn bound_to(backing: BackingKeyId) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(AUTHENTICATOR);
    hash.update(&backing.0);
    let mut bound = [0; 32];
    bound.copy_from_slice(hash.finish().as_ref());
    bound
}

/// Authenticators that were opened: each once in a process, so that sealing asks no token.
pub(super) struct Authenticators(Cache<BackingKeyId, Arc<Authenticator>>);

impl Default for Authenticators {
    fn default() -> Self {
        Self(Cache::new(KEPT))
    }
}

impl Authenticators {
    /// That of a backing key. Whether the key may be used its row says, not this.
    pub(super) async fn of(
        &self,
        tokens: &Tokens,
        backing: &Backing,
        away: &mut Away,
    ) -> Result<Arc<Authenticator>, Error> {
        if let Some(known) = self.0.get(&backing.id) {
            return Ok(known);
        }
        let sealed = backing.authenticator.as_deref().ok_or(Error::Invalid)?;
        let sealed = STANDARD.decode(sealed).map_err(|_| Error::Invalid)?;
        let wraps = Wraps::parse(backing.scheme, &sealed).ok_or(Error::Invalid)?;
        let secret = unwrap(tokens, backing, &wraps, &bound_to(backing.id), away).await?;
        let opened = Arc::new(Authenticator::new(secret)?);
        self.0.insert(backing.id, opened.clone());
        Ok(opened)
    }
}

#[cfg(test)]
mod tests;
