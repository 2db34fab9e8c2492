//! One token: its parts, its header, its claims.

use super::keys::Algorithm;
use super::{Error, LEEWAY, MAX_TOKEN, MIN_TOKEN, SHOWN};
use crate::clock::Time;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// A token that was read. Nothing in it is proven.
pub struct Token<'t> {
    algorithm: Algorithm,
    key_id: Option<String>,
    signed: &'t str,
    signature: Vec<u8>,
    issuer: String,
    payload: Payload,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Payload {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Many>,
    azp: Option<String>,
    amr: Option<Many>,
    exp: Option<serde_json::Number>,
    nbf: Option<serde_json::Number>,
    iat: Option<serde_json::Number>,
    #[serde(rename = "https://aws.amazon.com/tags")]
    tags: Option<Tags>,
    #[serde(rename = "https://aws.amazon.com/source_identity")]
    source_identity: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// A text or a list of texts, as `aud` may be (RFC 7519, 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Many {
    One(String),
    List(Vec<String>),
}

impl From<Many> for Vec<String> {
    fn from(many: Many) -> Self {
        match many {
            Many::One(one) => vec![one],
            Many::List(list) => list,
        }
    }
}

/// AWS's claim for session tags.
const TAGS: &str = "https://aws.amazon.com/tags";
/// The same, for issuers that can't nest claims: a claim for each tag, one for the transitive keys.
const FLAT_TAG: &str = "https://aws.amazon.com/tags/principal_tags/";
const FLAT_TRANSITIVE: &str = "https://aws.amazon.com/tags/transitive_tag_keys";

/// Session tags: "Passing session tags using AssumeRoleWithWebIdentity", AWS IAM User Guide.
#[derive(Default, Deserialize)]
struct Tags {
    #[serde(default)]
    principal_tags: BTreeMap<String, Many>,
    #[serde(default)]
    transitive_tag_keys: Vec<String>,
}

/// A session tag that the issuer sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether it passes on to the next session of a chain.
    pub transitive: bool,
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The issuer's URL.
    pub issuer: String,
    /// Whom the token stands for, unique within the issuer.
    pub subject: String,
    /// For whom it was issued, as it is written there: the condition key `oaud`.
    pub audiences: Vec<String>,
    /// The one of the issuer's configured audiences that let it in: the condition key `aud`. It is
    /// `azp` if there is one.
    pub audience: String,
    /// To whom it was issued.
    pub authorized_party: Option<String>,
    /// How the subject was authenticated.
    pub methods: Vec<String>,
    /// When it expires.
    pub expires: Time,
    /// Session tags that the issuer sets. Keys are distinct; lengths and characters are unchecked.
    pub tags: Vec<Tag>,
    /// The source identity that the issuer sets.
    pub source_identity: Option<String>,
}

impl<'t> Token<'t> {
    /// Reads a token: its form, its algorithm, the issuer that it claims.
    pub fn parse(text: &'t str) -> Result<Self, Error> {
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&text.len()) {
            return Err(Error::Size(text.len()));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Error::NotAJwt)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::NotAJwt)?;
        let header: Header = object(header)?;
        let algorithm = Algorithm::named(&header.alg)
            .ok_or_else(|| Error::Algorithm(header.alg.chars().take(SHOWN).collect()))?;
        if header.crit.is_some() {
            return Err(Error::Critical);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Error::NotAJwt)?;
        let mut payload: Payload = object(payload)?;
        let issuer = payload.iss.take().ok_or(Error::Missing("iss"))?;
        Ok(Self { algorithm, key_id: header.kid, signed, signature, issuer, payload })
    }

    /// The issuer that it claims.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// What the signature is made over.
    pub(super) fn signed(&self) -> &'t [u8] {
        self.signed.as_bytes()
    }

    pub(super) fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The claims, if they hold at `now` and for one of `accepted`. Whoever calls has checked the
    /// signature.
    pub(super) fn into_claims(self, accepted: &[String], now: Time) -> Result<Claims, Error> {
        let expires = self.payload.check_times(now)?;
        let payload = self.payload;
        let audiences: Vec<String> = payload.aud.ok_or(Error::Missing("aud"))?.into();
        let audience = audience(&audiences, payload.azp.as_deref(), accepted)?;
        Ok(Claims {
            issuer: self.issuer,
            subject: required(payload.sub, "sub")?,
            audience,
            audiences,
            authorized_party: payload.azp,
            methods: payload.amr.map(Into::into).unwrap_or_default(),
            expires,
            tags: payload.tags.unwrap_or_default().with(payload.others)?.read()?,
            source_identity: payload.source_identity,
        })
    }
}

impl Payload {
    /// When the token expires.
    fn check_times(&self, now: Time) -> Result<Time, Error> {
        let seconds =
            |number: &Option<_>, name| number.as_ref().map(|n| moment(n, name)).transpose();
        let expires = seconds(&self.exp, "exp")?.ok_or(Error::Missing("exp"))?;
        let ahead = Time(now.0.saturating_add(LEEWAY)).seconds();
        if now.seconds() >= expires {
            return Err(Error::Expired { now, expires });
        }
        if let Some(begins) = seconds(&self.nbf, "nbf")?.filter(|begins| *begins > ahead) {
            return Err(Error::NotYetValid(begins));
        }
        if let Some(issued) = seconds(&self.iat, "iat")?.filter(|issued| *issued > ahead) {
            return Err(Error::IssuedInFuture(issued));
        }
        Ok(Time(expires.saturating_mul(1000)))
    }
}

impl Tags {
    /// These tags and those of the flat form. A key in both is refused.
    fn with(mut self, claims: BTreeMap<String, Value>) -> Result<Self, Error> {
        for (name, value) in claims {
            let many = || serde_json::from_value(value).map_err(|_| Error::Malformed(TAGS));
            if let Some(key) = name.strip_prefix(FLAT_TAG) {
                if self.principal_tags.insert(key.to_owned(), many()?).is_some() {
                    return Err(Error::Malformed(TAGS));
                }
            } else if name == FLAT_TRANSITIVE {
                self.transitive_tag_keys.extend(Vec::<String>::from(many()?));
            }
        }
        Ok(self)
    }

    fn read(self) -> Result<Vec<Tag>, Error> {
        let transitive = self.transitive_tag_keys;
        let tag = |(key, value): (String, Many)| {
            let values: Vec<String> = value.into();
            let [value] = <[String; 1]>::try_from(values).map_err(|_| Error::Malformed(TAGS))?;
            Ok(Tag { transitive: transitive.contains(&key), key, value })
        };
        self.principal_tags.into_iter().map(tag).collect()
    }
}

/// The audience that counts: the authorized party if there is one (AWS's rule), else the first of
/// the audiences that is accepted.
fn audience(
    audiences: &[String],
    party: Option<&str>,
    accepted: &[String],
) -> Result<String, Error> {
    let known = |name: &&str| accepted.iter().any(|a| a == name);
    let found = match party {
        Some(party) => Some(party).filter(known),
        None => audiences.iter().map(String::as_str).find(known),
    };
    found.map(ToOwned::to_owned).ok_or(Error::Audience)
}

fn required(claim: Option<String>, name: &'static str) -> Result<String, Error> {
    claim.filter(|text| !text.is_empty()).ok_or(Error::Missing(name))
}

/// A NumericDate (RFC 7519, 2): seconds since the epoch, rounded down if it has a fraction.
fn moment(number: &serde_json::Number, name: &'static str) -> Result<i64, Error> {
    /// The year 9999: no clock is off by more.
    const LAST: i64 = 253_402_300_799;
    let whole = number.as_i64().or_else(|| {
        let seconds = number.as_f64().map(f64::floor)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, and the range is checked"
        )]
        let whole = seconds as i64;
        Some(whole)
    });
    whole.filter(|s| (0..=LAST).contains(s)).ok_or(Error::Malformed(name))
}

/// A JSON object in base64url without padding, each member once.
fn object<T: DeserializeOwned>(part: &str) -> Result<T, Error> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::NotAJwt)?;
    // serde would take a list for a struct.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::NotAJwt);
    }
    serde_json::from_slice(&json).map_err(|_| Error::NotAJwt)
}
