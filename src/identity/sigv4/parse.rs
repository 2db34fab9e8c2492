//! What a request claims about its signature, from the `Authorization` header or from the query.

use super::canonical::unescape;
use super::claims::{HeaderClaims, QueryClaims, not_a_pair, query_claims};
use super::error::basic;
use super::{ALGORITHM, AuthError, MAX_AUTHORIZATION, MAX_EXPIRES, MAX_PATH, MAX_QUERY, Request};
use crate::clock::Time;
use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE, HeaderName, HeaderValue};
use std::borrow::Cow;

static X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
static X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The claims of a signed request. Proven by nothing yet.
pub struct Presented<'r> {
    pub(super) request: Request<'r>,
    /// Whether the claims stand in the query.
    pub(super) presigned: bool,
    pub(super) signed_headers: Cow<'r, str>,
    /// What the claims are said to be signed with: one of those that the reader asked for.
    pub(super) algorithm: &'static str,
    /// The signature as it was presented: hex, unchecked.
    signature: &'r str,
    pub(super) signed_at: Time,
    /// `signed_at` as it stands in the string to sign.
    pub(super) timestamp: Cow<'r, str>,
    /// How many milliseconds after signing a presigned URL is valid.
    pub(super) expires: Option<i64>,
    credential: Credential<'r>,
    session_token: Option<Cow<'r, str>>,
}

impl<'r> Presented<'r> {
    /// Reads the claims of `request`.
    ///
    /// Reports what AWS calls `MissingAuthenticationTokenException` and
    /// `IncompleteSignatureException`, and anything beyond the limits of [`super`].
    pub fn parse(request: &Request<'r>) -> Result<Self, AuthError> {
        Self::parse_as(request, &[ALGORITHM])
    }

    /// As [`Self::parse`], for the algorithms of another scheme with the same claims.
    pub(in crate::identity) fn parse_as(
        request: &Request<'r>,
        algorithms: &[&'static str],
    ) -> Result<Self, AuthError> {
        within("path", request.path.len(), MAX_PATH)?;
        within("query string", request.query.len(), MAX_QUERY)?;
        let header = only(request.headers, &AUTHORIZATION, "Authorization")?;
        let algorithm = query_claims(request.query)?;
        match (header, algorithm) {
            (None, None) => Err(AuthError::MissingToken),
            (Some(_), Some(_)) => Err(AuthError::BothForms),
            (Some(header), None) => Self::from_header(request, header, algorithms),
            (None, Some(claims)) => Self::from_query(request, claims, algorithms),
        }
    }

    fn from_header(
        request: &Request<'r>,
        header: &'r HeaderValue,
        algorithms: &[&'static str],
    ) -> Result<Self, AuthError> {
        within("Authorization header", header.len(), MAX_AUTHORIZATION)?;
        let text = header.to_str().map_err(|_| not_a_pair(header))?.trim_ascii();
        let (algorithm, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let claims = HeaderClaims::parse(header, rest)?;
        let amz_date = only(request.headers, &X_AMZ_DATE, "X-Amz-Date")?;
        let date = match amz_date {
            Some(date) => Some(date),
            None => only(request.headers, &DATE, "Date")?,
        };
        let (Some(credential), Some(signature), Some(signed_headers), Some(date)) =
            (claims.credential, claims.signature, claims.signed_headers, date)
        else {
            return Err(claims.missing(header, date.is_some()));
        };
        let date = date.to_str().map_err(|_| AuthError::DateFormat(lossy(date.as_bytes())))?;
        let (signed_at, timestamp) = timestamp(Cow::Borrowed(date), amz_date.is_none())?;
        let algorithm = supported(algorithm, algorithms)?;
        Ok(Self {
            request: *request,
            presigned: false,
            signed_headers: Cow::Borrowed(signed_headers),
            algorithm,
            signature,
            signed_at,
            timestamp,
            expires: None,
            credential: Credential::parse(Cow::Borrowed(credential))?,
            session_token: header_token(request.headers)?,
        })
    }

    fn from_query(
        request: &Request<'r>,
        claims: QueryClaims<'r>,
        algorithms: &[&'static str],
    ) -> Result<Self, AuthError> {
        let (Some(credential), Some(signature), Some(signed_headers), Some(date)) =
            (claims.credential, claims.signature, claims.signed_headers, claims.date)
        else {
            return Err(claims.missing());
        };
        let (signed_at, timestamp) = timestamp(decoded(date)?, false)?;
        let algorithm = supported(&decoded(claims.algorithm)?, algorithms)?;
        let header_token = header_token(request.headers)?;
        let session_token = match (claims.token, header_token) {
            (Some(_), Some(_)) => return Err(AuthError::Repeated("X-Amz-Security-Token")),
            (Some(token), None) => Some(decoded(token)?),
            (None, token) => token,
        };
        Ok(Self {
            request: *request,
            presigned: true,
            signed_headers: decoded(signed_headers)?,
            algorithm,
            signature,
            signed_at,
            timestamp,
            expires: claims.expires.map(expires).transpose()?,
            credential: Credential::parse(decoded(credential)?)?,
            session_token,
        })
    }

    /// The access key id whose secret is said to have signed.
    pub fn access_key_id(&self) -> &str {
        self.credential.element(0)
    }

    /// The day of the scope, as `YYYYMMDD`.
    pub fn date(&self) -> &str {
        self.credential.element(1)
    }

    /// The region of the scope.
    pub fn region(&self) -> &str {
        self.credential.element(2)
    }

    /// The service's signing name in the scope.
    pub fn service(&self) -> &str {
        self.credential.element(3)
    }

    /// The session token of temporary credentials. Whoever resolves the access key id must hold
    /// it against that key: it is a bearer of its own and may stand outside the signature.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }

    /// When the request says that it was signed.
    pub fn signed_at(&self) -> Time {
        self.signed_at
    }

    /// Whether this is the presigned URL form.
    pub fn is_presigned(&self) -> bool {
        self.presigned
    }

    /// What the claims are said to be signed with.
    pub(in crate::identity) fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The signature as it was presented: hex, unchecked.
    pub(in crate::identity) fn signature(&self) -> &'r str {
        self.signature
    }

    pub(super) fn terminator(&self) -> &str {
        self.credential.element(4)
    }

    /// `date/region/service/terminator`.
    pub(super) fn scope(&self) -> &str {
        self.credential.scope()
    }

    /// Everything that chooses the signing key: the credential as one text.
    pub(super) fn credential(&self) -> &str {
        &self.credential.text
    }
}

/// `keyid/date/region/service/terminator`.
struct Credential<'r> {
    text: Cow<'r, str>,
    /// Where the four slashes are.
    slashes: [usize; 4],
}

impl<'r> Credential<'r> {
    fn parse(text: Cow<'r, str>) -> Result<Self, AuthError> {
        let text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches('/')),
            Cow::Owned(text) => Cow::Owned(text.trim_end_matches('/').to_owned()),
        };
        let mut slashes = [0; 4];
        let mut found = text.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
        let enough = slashes.iter_mut().all(|slot| match found.next() {
            Some((at, _)) => {
                *slot = at;
                true
            }
            None => false,
        });
        if enough && found.next().is_none() {
            drop(found);
            Ok(Self { text, slashes })
        } else {
            Err(AuthError::Credential(text.to_string()))
        }
    }

    /// The `n`th element, counted from 0.
    fn element(&self, n: usize) -> &str {
        let slash = |n: usize| self.slashes.get(n).copied();
        let from = n.checked_sub(1).and_then(slash).map_or(0, |at| at + 1);
        let to = slash(n).unwrap_or(self.text.len());
        self.text.get(from..to).unwrap_or_default()
    }

    fn scope(&self) -> &str {
        let [first, ..] = self.slashes;
        self.text.get(first + 1..).unwrap_or_default()
    }
}

/// The one value of a header, if it is there.
pub(in crate::identity) fn only<'r>(
    headers: &'r HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'r HeaderValue>, AuthError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(AuthError::Repeated(shown)),
        (value, None) => Ok(value),
    }
}

fn header_token(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, AuthError> {
    let token = only(headers, &X_AMZ_SECURITY_TOKEN, "X-Amz-Security-Token")?;
    match token.map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(token)) => Ok(Some(Cow::Borrowed(token.trim_ascii()))),
        Some(Err(_)) => Err(AuthError::UnrecognizedClient),
    }
}

pub(super) fn within(what: &'static str, value: usize, limit: usize) -> Result<(), AuthError> {
    if value > limit { Err(AuthError::TooLarge { what, limit }) } else { Ok(()) }
}

fn supported(algorithm: &str, accepted: &[&'static str]) -> Result<&'static str, AuthError> {
    let known = accepted.iter().find(|known| **known == algorithm);
    known.copied().ok_or_else(|| AuthError::Algorithm(algorithm.to_owned()))
}

/// The percent-decoded text of a query value. What is no text can be no claim.
fn decoded(raw: &str) -> Result<Cow<'_, str>, AuthError> {
    if !raw.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    unescape(raw.as_bytes(), |byte| bytes.push(byte)).ok_or(AuthError::Mismatch)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| AuthError::Mismatch)
}

/// The moment that `text` names and its form in the string to sign. `http_date`: the text is a
/// `Date` header, which may also be in RFC 9110's format.
fn timestamp(text: Cow<'_, str>, http_date: bool) -> Result<(Time, Cow<'_, str>), AuthError> {
    if let Some(time) = parse_basic(text.as_bytes()) {
        return Ok((time, text));
    }
    let parsed = if http_date {
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.as_ref()).ok()
    } else {
        None
    };
    match parsed {
        Some(stamp) => {
            let time = Time(stamp.as_millisecond());
            Ok((time, Cow::Owned(basic(time))))
        }
        None => Err(AuthError::DateFormat(text.into_owned())),
    }
}

/// Reads exactly `YYYYMMDDTHHMMSSZ`.
fn parse_basic(text: &[u8]) -> Option<Time> {
    let [y1, y2, y3, y4, mo1, mo2, d1, d2, b'T', h1, h2, m1, m2, s1, s2, b'Z'] = *text else {
        return None;
    };
    let two = |a: u8, b: u8| {
        let both = a.is_ascii_digit() && b.is_ascii_digit();
        both.then(|| i8::try_from((a - b'0') * 10 + (b - b'0')).ok()).flatten()
    };
    let year = i16::from(two(y1, y2)?) * 100 + i16::from(two(y3, y4)?);
    let (month, day) = (two(mo1, mo2)?, two(d1, d2)?);
    let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    Some(Time(jiff::tz::Offset::UTC.to_timestamp(civil).ok()?.as_millisecond()))
}

fn expires(text: &str) -> Result<i64, AuthError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AuthError::Expires("X-Amz-Expires should be a number"));
    }
    if digits.len() != text.len() {
        return Err(AuthError::Expires("X-Amz-Expires must be non-negative"));
    }
    match digits.parse::<i64>() {
        Ok(seconds) if seconds <= MAX_EXPIRES => Ok(seconds * 1000),
        _ => Err(AuthError::Expires(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires \
             must be less than 604800 seconds",
        )),
    }
}

/// 64 lower-case hex digits as 32 bytes.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
