//! Keys that never leave hardware.
//!
//! What crosses this seam is owned messages that name key ids: no handle, session or closure does,
//! so that a driver can move to a process of its own. A [`lane::Lane`] stands before each token:
//! permits, a bounded queue, a deadline.

pub mod attested;
pub mod boot;
mod breaker;
pub mod child;
pub mod claims;
#[cfg(test)]
mod documented;
pub mod enrolment;
pub mod lane;
pub mod oaep;
#[cfg(feature = "yubikey")]
mod piv;
pub mod pkcs11;
pub mod probe;
pub mod profile;
pub mod proof;
mod queue;
pub mod sealed;
pub mod tokens;
#[cfg(feature = "tpm")]
mod tpm;
pub mod trial;

pub use crate::name::{BackingKeyId, KeyCheck, Scheme, SigningScheme, WrappedKey};
use crate::secret::{Key, Secret};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What a token says of one key: read back from it, not assumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// `CKA_SENSITIVE`: the value can't be read.
    pub sensitive: bool,
    /// `CKA_EXTRACTABLE`: the value can be wrapped out. Must be false.
    pub extractable: bool,
    /// `CKA_NEVER_EXTRACTABLE`: it never could; false for imported keys.
    pub never_extractable: bool,
    /// `CKA_ALWAYS_SENSITIVE`: it always was; false for imported keys.
    pub always_sensitive: bool,
    /// `CKA_LOCAL`: made inside the token.
    pub local: bool,
    /// The mechanisms that the token lets this key be used with, by their standard names.
    pub mechanisms: Vec<String>,
    /// The key-check value.
    pub check: KeyCheck,
}

/// Which key in a token is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// Its name.
    pub id: BackingKeyId,
    /// The key itself, if the token keeps none: what it gave out when the key was made.
    pub wrapped: Option<WrappedKey>,
}

impl From<BackingKeyId> for TokenKey {
    /// A key that the token keeps.
    fn from(id: BackingKeyId) -> Self {
        Self { id, wrapped: None }
    }
}

/// The label (`L` of RFC 8017) under which message secrets are encrypted by [`Scheme::RsaOaep`]. It
/// ends in a zero byte because TPMs want it to.
pub const OAEP_LABEL: &[u8] = b"strongroom message secret v1\0";

/// What can be asked of a token. Every message is owned and bounded.
pub enum Request {
    /// Make a key for this scheme; it never existed outside. An id that is taken already is
    /// [`Error::KeyRejected`].
    Generate { id: BackingKeyId, scheme: Scheme },
    /// Bring in given key material (seeds of `strongroom dev`): sensitive and not extractable
    /// from then on, but not local.
    Import { id: BackingKeyId, scheme: Scheme, material: Key },
    /// Destroy a key; a key that is not there is [`Error::KeyNotFound`]. Of a key that the token
    /// does not keep nothing is there to be destroyed.
    Destroy { id: BackingKeyId },
    /// Have the hardware sign what the key is, over this nonce of at most 64 bytes. Hardware that
    /// has no such thing answers [`Error::Unsupported`].
    Attest { key: TokenKey, nonce: Vec<u8> },
    /// Read a key's attributes back.
    Inspect { key: TokenKey },
    /// HMAC-SHA-256 under an `hmac-kdf` key; `input` is at most 1,024 bytes and not the key-check
    /// label. The key must have this key-check value and attributes as they were made: both are
    /// checked at its first use after every login, so a key put in its place is
    /// [`Error::KeyRejected`].
    Derive { key: TokenKey, check: KeyCheck, input: Vec<u8> },
    /// The x-coordinate, 32 bytes, of the point that an `ecdh` key and the public key `peer` (an
    /// uncompressed point of P-256, 65 bytes) agree on. The key is checked as for `Derive`.
    Agree { key: TokenKey, check: KeyCheck, peer: Vec<u8> },
    /// The 32 bytes that are encrypted in `ciphertext` (at most 512 bytes) for an `rsa-oaep` key under
    /// [`OAEP_LABEL`]. The key is checked as for `Derive`.
    Unwrap { key: TokenKey, check: KeyCheck, ciphertext: Vec<u8> },
    /// Random bytes of the token's own generator, at most 4,096.
    Random { len: usize },
    /// Make a pair of keys that signs and does nothing else; the private one never existed outside.
    /// An id that is taken already is [`Error::KeyRejected`].
    GenerateSigner { id: BackingKeyId, scheme: SigningScheme },
    /// Sign a message of at most 4,096 bytes. The key's attributes must be as they were made, which
    /// is checked at its first use after every login, and each signature must be one of `public`: a
    /// key put in its place is [`Error::KeyRejected`].
    Sign { key: TokenKey, scheme: SigningScheme, public: Vec<u8>, message: Vec<u8> },
}

impl Request {
    /// Whether it uses a key and does nothing else: what is asked most.
    fn only_uses(&self) -> bool {
        matches!(self, Self::Derive { .. } | Self::Agree { .. } | Self::Unwrap { .. })
    }

    /// Whether it makes or destroys a key.
    fn changes_keys(&self) -> bool {
        matches!(
            self,
            Self::Generate { .. }
                | Self::Import { .. }
                | Self::GenerateSigner { .. }
                | Self::Destroy { .. }
        )
    }
}

/// What a token answers; the variant fits the request's.
pub enum Response {
    Made(Made),
    Evidence(Evidence),
    Proof(proof::Proof),
    Destroyed,
    MessageSecret(Key),
    Random(Secret),
    Signer(NewSigner),
    Signature(Vec<u8>),
}

/// A new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What the token says of it.
    pub evidence: Evidence,
    /// The key itself, if the token keeps none.
    pub wrapped: Option<WrappedKey>,
    /// The public half, of a pair: of `ecdh` an uncompressed point of 65 bytes, of `rsa-oaep` a
    /// SubjectPublicKeyInfo in DER.
    pub public: Option<Vec<u8>>,
}

/// A new pair that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSigner {
    /// The public half, in the form that its [`SigningScheme`] says.
    pub public: Vec<u8>,
    /// The private half, if the token keeps none.
    pub wrapped: Option<WrappedKey>,
}

/// Which token this is; known by serial number, never by slot number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    pub label: String,
    pub serial: String,
    pub manufacturer: String,
    pub model: String,
}

/// How a token is known before its serial number is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locator {
    /// By serial number, as [`TokenInfo::serial`] gave it.
    Serial(String),
    /// By label; two tokens of one label are refused.
    Label(String),
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "serial {serial}"),
            Self::Label(label) => f.write_str(label),
        }
    }
}

/// What it takes to reach one token.
pub struct Access {
    /// Which token.
    pub token: Locator,
    /// The user PIN.
    pub pin: Secret,
    /// The PKCS#11 module, if it is at none of the places that the profile names.
    pub module: Option<PathBuf>,
    /// How a device is reached that has no module: of a TPM the TCTI (`device:/dev/tpmrm0`).
    pub device: Option<String>,
}

/// How a token was when it was last spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether the last attempt to reach the token succeeded. A token that went away unnoticed
    /// counts as up until a request finds out.
    pub up: bool,
    /// Why it is not up.
    pub why: Option<String>,
    /// Counts logins since the start; handles live as long as an epoch.
    pub epoch: u64,
    /// Requests that wait in the lane.
    pub waiting: usize,
    /// Threads that have a session, as far as is known; those that found none have stepped back.
    pub seated: usize,
}

/// One token, as what reaches it knows it.
pub(crate) trait Token: Send + Sync {
    /// Which token this is.
    fn info(&self) -> &TokenInfo;
    /// How it is; never waits for the hardware.
    fn health(&self) -> Health;
}

/// A token in this process, shared by the threads that use it.
pub(crate) trait Driver: Token {
    /// A worker of its own for one thread.
    fn worker(self: Arc<Self>) -> Box<dyn Worker>;
}

/// What one thread uses to speak to the token: a session and what belongs to it.
pub(crate) trait Worker: Send {
    /// Does one request, however long the hardware takes.
    fn serve(&mut self, request: &Request) -> Result<Response>;
}

/// Reaches the token that `access` names and puts a lane before it. Blocks: call it before the
/// reactor runs, or on a blocking thread.
///
/// # Errors
/// [`Error::Unavailable`] if the module can't be loaded or no token matches, [`Error::Pin`] if the
/// token refuses the PIN (tried once), [`Error::Unsupported`] if the token lacks what its profile
/// promises, [`Error::BadRequest`] if `options` are out of bounds.
pub fn open(
    profile: profile::Profile,
    access: Access,
    options: &lane::Options,
) -> Result<lane::Lane> {
    let settings = options.check(&profile)?;
    lane::Lane::of_driver(driver(profile, access)?, settings)
}

/// The driver of a token's kind, in this process.
pub(crate) fn driver(profile: profile::Profile, access: Access) -> Result<Arc<dyn Driver>> {
    Ok(match profile.kind {
        profile::Kind::Pkcs11 => Arc::new(pkcs11::Driver::open(profile, access)?),
        #[cfg(feature = "tpm")]
        profile::Kind::Tpm => Arc::new(tpm::Driver::open(profile, access)?),
        #[cfg(not(feature = "tpm"))]
        kind @ profile::Kind::Tpm => return Err(left_out(profile.name, kind)),
        #[cfg(feature = "yubikey")]
        profile::Kind::YubiKey => Arc::new(piv::Driver::open(profile, access)?),
        #[cfg(not(feature = "yubikey"))]
        kind @ profile::Kind::YubiKey => return Err(left_out(profile.name, kind)),
    })
}

/// Makes a blank token ready for an appliance: see [`pkcs11::init_token`]. Blocks.
///
/// # Errors
/// [`Error::Unsupported`] if this program was built without what the profile's kind takes; else those
/// of the kind.
pub fn provision(
    profile: &profile::Profile,
    access: &Access,
    so_pin: &Secret,
    label: &str,
) -> Result<TokenInfo> {
    match profile.kind {
        profile::Kind::Pkcs11 => {
            pkcs11::init_token(profile, access.module.as_deref(), label, so_pin, &access.pin)
        }
        #[cfg(feature = "tpm")]
        profile::Kind::Tpm => tpm::look(profile, access),
        #[cfg(not(feature = "tpm"))]
        kind @ profile::Kind::Tpm => Err(left_out(profile.name.clone(), kind)),
        #[cfg(feature = "yubikey")]
        profile::Kind::YubiKey => piv::provision(profile, access, so_pin, label),
        #[cfg(not(feature = "yubikey"))]
        kind @ profile::Kind::YubiKey => Err(left_out(profile.name.clone(), kind)),
    }
}

/// What a device tells before its PIN is given. Blocks.
///
/// # Errors
/// Those of [`provision`].
fn survey(profile: &profile::Profile, access: &Access) -> Result<probe::Survey> {
    match profile.kind {
        profile::Kind::Pkcs11 => {
            let why = "a PKCS#11 token tells nothing before its PIN is given".to_owned();
            Err(Error::Unavailable { token: access.token.to_string(), why })
        }
        #[cfg(feature = "tpm")]
        profile::Kind::Tpm => tpm::survey(profile, access),
        #[cfg(feature = "yubikey")]
        profile::Kind::YubiKey => piv::survey(profile, &access.token),
        #[cfg(not(all(feature = "tpm", feature = "yubikey")))]
        kind => Err(left_out(profile.name.clone(), kind)),
    }
}

fn left_out(profile: String, kind: profile::Kind) -> Error {
    let feature = if kind == profile::Kind::Tpm { "tpm" } else { "yubikey" };
    let why = format!("this program was built without the feature `{feature}`");
    Error::Unsupported { profile, why }
}

/// What can go wrong in custody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token can't be reached: not there, not logged in, module failed. It may come back.
    #[error("token `{token}` is unavailable: {why}")]
    Unavailable { token: String, why: String },
    /// The queue before the token is full.
    #[error("token `{0}` has too many requests waiting")]
    Overloaded(String),
    /// The token has no session for another thread.
    #[error("token `{0}` has no session left for another thread")]
    NoSession(String),
    /// The token did not answer by the deadline.
    #[error("token `{0}` did not answer in time")]
    Timeout(String),
    /// No such key in the token. An alarm, unless a destroy intent stands.
    #[error("backing key {0} is not in its token")]
    KeyNotFound(BackingKeyId),
    /// The key is there but not as it was made: attributes loosened, or another value.
    #[error("backing key {id} is not to be trusted: {why}")]
    KeyRejected { id: BackingKeyId, why: String },
    /// The profile says that this hardware can't do it.
    #[error("profile `{profile}` can't do this: {why}")]
    Unsupported { profile: String, why: String },
    /// Wrong or locked PIN: never retried by itself.
    #[error("token `{token}` refused the PIN: {why}")]
    Pin { token: String, why: String },
    /// The token's PIN is sealed, and what it is sealed in is not this TPM's or was altered: trying
    /// again can't help. The token itself has not been asked.
    #[error("the sealed PIN of token `{token}` can't be opened: {why}")]
    Sealed { token: String, why: String },
    /// Every place for a key is taken.
    #[error("token `{token}` is full: {why}")]
    Full { token: String, why: String },
    /// Our fault: a request out of its documented bounds.
    #[error("bad custody request: {0}")]
    BadRequest(&'static str),
}

/// A result of custody's.
pub type Result<T> = std::result::Result<T, Error>;
