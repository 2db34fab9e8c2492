//! Temporary credentials: an access key id (`ASIA...`), its secret, and a session token that holds
//! everything else, so that nothing of a session is stored.
//!
//! ```text
//! access key id = "ASIA" || base32(account as 40 bits) || base32(40 random bits)
//! token = base64url(0x01 || nonce (32 random bytes) || AES-256-GCM(session) || tag (16 bytes))
//! its key = HKDF-Expand(session key, "token" || nonce), its associated data the access key id
//! secret access key = 40 characters of 6 bits out of
//!     HKDF-Expand(session key, "secret" || nonce || access key id), so that it stands nowhere
//! ```

use super::{Error, expand, open_in_place, seal_in_place};
use crate::clock::{Random, Time, random_bytes};
use crate::secret::{Key, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The label of the session key; see [`super::store_key::StoreKey::derive`].
pub const LABEL: &str = "strongroom session tokens v1";
/// What ids of temporary access keys begin with.
pub const PREFIX: &str = "ASIA";
/// The longest token, in characters.
pub const MAX_TOKEN: usize = 8192;

const VERSION: u8 = 1;
const NONCE: usize = 32;
/// Characters of an id that tell the account, and of those that tell sessions apart.
const DIGITS: usize = 8;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Whom a session stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The account itself.
    #[serde(rename = "a")]
    Root,
    /// A user, for a while.
    #[serde(rename = "u")]
    User,
    /// Somebody in a role.
    #[serde(rename = "r")]
    Role,
}

/// A session, as its token holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The account.
    #[serde(rename = "a")]
    pub account: String,
    /// Whom it stands for.
    #[serde(rename = "k")]
    pub kind: Kind,
    /// The ARN of the role, the user or the root.
    #[serde(rename = "i")]
    pub issuer_arn: String,
    /// The unique id of the role or user; the account of a root.
    #[serde(rename = "u")]
    pub issuer_id: String,
    /// The session's name; empty for a user's or the root's.
    #[serde(rename = "n")]
    pub name: String,
    /// Session policies: what decisions call them, and the documents.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<(String, String)>,
    /// Session tags.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// The keys of those that pass on.
    #[serde(rename = "tt", default, skip_serializing_if = "Vec::is_empty")]
    pub transitive: Vec<String>,
    /// When it began.
    #[serde(rename = "b")]
    pub issued: Time,
    /// When it ends.
    #[serde(rename = "e")]
    pub expires: Time,
    /// The source identity.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// The identity provider that vouched for it.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Whether it was got with the credentials of another one.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub chained: bool,
}

impl Session {
    /// The ARN of whoever has it: of the user or root itself, or
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub fn arn(&self) -> String {
        let role = self.issuer_arn.rsplit('/').next().unwrap_or_default();
        match self.kind {
            Kind::Root | Kind::User => self.issuer_arn.clone(),
            Kind::Role => {
                ["arn:aws:sts::", &self.account, ":assumed-role/", role, "/", &self.name].concat()
            }
        }
    }

    /// The unique id of whoever has it: of the user or root itself, or `AROA...:SESSION`.
    pub fn principal_id(&self) -> String {
        match self.kind {
            Kind::Root | Kind::User => self.issuer_id.clone(),
            Kind::Role => [&self.issuer_id, ":", &self.name].concat(),
        }
    }
}

/// Temporary credentials, told once.
pub struct Credentials {
    /// `ASIA` and 16 characters.
    pub access_key_id: String,
    /// 40 characters.
    pub secret_access_key: Secret,
    /// The token.
    pub token: Secret,
}

/// Makes and opens session tokens.
#[derive(Clone)]
pub struct Sessions(Arc<Key>);

impl Sessions {
    /// Under a key derived from the store key by [`LABEL`].
    pub fn new(key: Key) -> Self {
        Self(Arc::new(key))
    }

    /// New credentials for a session.
    ///
    /// # Errors
    /// [`Error::TooLong`] if its token would be longer than [`MAX_TOKEN`]; no randomness.
    pub fn make(&self, random: &dyn Random, session: &Session) -> Result<Credentials, Error> {
        let nonce = random_bytes::<NONCE>(random)?;
        let access_key_id = id(&session.account, random_bytes(random)?);
        let record = serde_json::to_vec(session).map_err(|_| Error::Primitive)?;
        let mut bytes = Vec::with_capacity(1 + NONCE + record.len() + 16);
        bytes.push(VERSION);
        bytes.extend(nonce);
        bytes.extend(record);
        let key = self.token_key(&nonce)?;
        seal_in_place(&key, access_key_id.as_bytes(), &mut bytes, 1 + NONCE)?;
        let token = Secret::new(URL_SAFE_NO_PAD.encode(bytes).into_bytes());
        if token.len() > MAX_TOKEN {
            return Err(Error::TooLong);
        }
        let secret_access_key = self.secret(&access_key_id, &nonce)?;
        Ok(Credentials { access_key_id, secret_access_key, token })
    }

    /// The session that a token holds, and the secret access key that goes with it. Whether it has
    /// ended is the caller's to check.
    ///
    /// # Errors
    /// [`Error::Invalid`]: not made here, altered, or of another access key.
    pub fn open(&self, access_key_id: &str, token: &str) -> Result<(Session, Secret), Error> {
        if token.len() > MAX_TOKEN {
            return Err(Error::Invalid);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::Invalid)?;
        let (version, rest) = bytes.split_first().ok_or(Error::Invalid)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(Error::Invalid)?;
        if *version != VERSION {
            return Err(Error::Invalid);
        }
        let mut record = Secret::copy_of(sealed);
        open_in_place(&self.token_key(nonce)?, access_key_id.as_bytes(), &mut record)?;
        let session = serde_json::from_slice(record.expose()).map_err(|_| Error::Invalid)?;
        Ok((session, self.secret(access_key_id, nonce)?))
    }

    fn token_key(&self, nonce: &[u8; NONCE]) -> Result<Key, Error> {
        let info = [b"token".as_slice(), nonce].concat();
        Key::fill(|out| expand(&self.0, &info, out))
    }

    fn secret(&self, access_key_id: &str, nonce: &[u8; NONCE]) -> Result<Secret, Error> {
        let info = [b"secret".as_slice(), nonce, access_key_id.as_bytes()].concat();
        let mut secret = Secret::new(vec![0; 40]);
        expand(&self.0, &info, secret.expose_mut())?;
        for byte in secret.expose_mut() {
            *byte = BASE64.get(usize::from(*byte & 63)).copied().unwrap_or(b'A');
        }
        Ok(secret)
    }
}

/// An id that tells its account, as AWS's do.
fn id(account: &str, random: [u8; DIGITS]) -> String {
    let account: u64 = account.parse().unwrap_or_default();
    let digit = |value: u64| {
        let at = usize::try_from(value & 31).unwrap_or(0);
        BASE32.get(at).map_or('A', |byte| char::from(*byte))
    };
    let told = (0..DIGITS).rev().map(|place| digit(account >> (5 * place)));
    PREFIX.chars().chain(told).chain(random.iter().map(|byte| digit(u64::from(*byte)))).collect()
}

/// The account that the id of a temporary access key tells; none if it is no such id. Whether a
/// session was ever given out under it, nobody knows.
pub fn account_of(id: &str) -> Option<String> {
    let digits = id.strip_prefix(PREFIX).filter(|digits| digits.len() == 2 * DIGITS)?;
    let value =
        |byte: u8| BASE32.iter().position(|b| *b == byte).and_then(|v| u64::try_from(v).ok());
    let values = digits.bytes().map(value).collect::<Option<Vec<u64>>>()?;
    let account = values.iter().take(DIGITS).fold(0, |all, value| all << 5 | value);
    (account < 1_000_000_000_000).then(|| format!("{account:012}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;

    fn session() -> Session {
        Session {
            account: "000000000042".into(),
            kind: Kind::Role,
            issuer_arn: "arn:aws:iam::000000000042:role/r".into(),
            issuer_id: "AROAEXAMPLE".into(),
            name: "me".into(),
            policies: vec![("session policy".into(), "{}".into())],
            tags: vec![("team".into(), "blue".into())],
            transitive: vec!["team".into()],
            issued: Time(1_000),
            expires: Time(2_000),
            source_identity: Some("alice".into()),
            provider: None,
            chained: true,
        }
    }

    fn sessions(byte: u8) -> Sessions {
        Sessions::new(Key::take(&mut [byte; 32]))
    }

    fn made() -> (Credentials, String) {
        let made = sessions(1).make(&SystemRandom, &session()).expect("makes");
        let token = made.token.expose_str().expect("text").to_owned();
        (made, token)
    }

    #[test]
    fn a_token_opens_to_what_it_was_made_of() {
        let (made, token) = made();
        let (opened, secret) = sessions(1).open(&made.access_key_id, &token).expect("opens");
        assert_eq!(opened, session());
        assert!(secret == made.secret_access_key && secret.len() == 40);
        assert_eq!(made.access_key_id.len(), 20);
        assert_eq!(account_of(&made.access_key_id).as_deref(), Some("000000000042"));
    }

    #[test]
    fn a_token_that_is_foreign_altered_or_of_another_key_opens_to_nothing() {
        let (made, token) = made();
        let id = &made.access_key_id;
        assert!(sessions(2).open(id, &token).is_err());
        assert!(sessions(1).open("ASIAAAAAAAAAAAAAAAAA", &token).is_err());
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(bytes).expect("text");
            assert!(sessions(1).open(id, &altered).is_err(), "{at}");
            let cut = token.get(..at).expect("base64 is ASCII");
            assert!(sessions(1).open(id, cut).is_err(), "{at}");
        }
        assert!(sessions(1).open(id, &"A".repeat(MAX_TOKEN + 1)).is_err());
    }

    #[test]
    fn a_session_that_no_header_would_hold_is_refused_when_it_is_made() {
        let mut long = session();
        long.policies = vec![("p".into(), "x".repeat(MAX_TOKEN))];
        assert!(matches!(sessions(1).make(&SystemRandom, &long), Err(Error::TooLong)));
    }

    #[test]
    fn only_ids_of_temporary_keys_tell_an_account() {
        assert_eq!(account_of("AKIAIOSFODNN7EXAMPLE"), None);
        assert_eq!(account_of("ASIA"), None);
        assert_eq!(account_of("ASIA77777777AAAAAAAA"), None);
        let id = id("999999999999", [0; DIGITS]);
        assert_eq!(account_of(&id).as_deref(), Some("999999999999"));
    }
}
