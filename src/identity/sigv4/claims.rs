//! The pieces of an `Authorization` header and of a presigned query, each at most once.

use super::canonical::QueryPairs;
use super::parse::within;
use super::{AuthError, MAX_PARAMETERS};
use aws_lc_rs::digest;
use base64::Engine;
use http::header::HeaderValue;

/// The parameters of an `Authorization` header.
#[derive(Clone, Copy, Default)]
pub(super) struct HeaderClaims<'r> {
    pub(super) credential: Option<&'r str>,
    pub(super) signature: Option<&'r str>,
    pub(super) signed_headers: Option<&'r str>,
}

impl<'r> HeaderClaims<'r> {
    pub(super) fn parse(header: &HeaderValue, parameters: &'r str) -> Result<Self, AuthError> {
        let mut claims = Self::default();
        for pair in parameters.split(',').flat_map(str::split_ascii_whitespace) {
            let (name, value) = pair.split_once('=').ok_or_else(|| not_a_pair(header))?;
            match name {
                "Credential" => once(&mut claims.credential, value, "Credential")?,
                "Signature" => once(&mut claims.signature, value, "Signature")?,
                "SignedHeaders" => once(&mut claims.signed_headers, value, "SignedHeaders")?,
                _ => {}
            }
        }
        Ok(claims)
    }

    pub(super) fn missing(self, header: &HeaderValue, dated: bool) -> AuthError {
        let mut missing = String::new();
        for (name, value) in [
            ("Credential", self.credential),
            ("Signature", self.signature),
            ("SignedHeaders", self.signed_headers),
        ] {
            if value.is_none() {
                missing += &format!("Authorization header requires '{name}' parameter. ");
            }
        }
        if !dated {
            missing += "Authorization header requires existence of either a 'X-Amz-Date' or a \
                        'Date' header. ";
        }
        AuthError::MissingParameters { missing, digest: hashed(header) }
    }
}

/// The parameters of a presigned URL, still percent-encoded.
#[derive(Clone, Copy, Default)]
pub(super) struct QueryClaims<'r> {
    pub(super) algorithm: &'r str,
    pub(super) credential: Option<&'r str>,
    pub(super) signature: Option<&'r str>,
    pub(super) signed_headers: Option<&'r str>,
    pub(super) date: Option<&'r str>,
    pub(super) expires: Option<&'r str>,
    pub(super) token: Option<&'r str>,
}

impl QueryClaims<'_> {
    pub(super) fn missing(self) -> AuthError {
        let mut missing = String::new();
        for (name, value) in [
            ("X-Amz-Credential", self.credential),
            ("X-Amz-Signature", self.signature),
            ("X-Amz-SignedHeaders", self.signed_headers),
            ("X-Amz-Date", self.date),
        ] {
            if value.is_none() {
                missing += &format!("AWS query-string parameters must include '{name}'. ");
            }
        }
        AuthError::MissingQueryParameters(missing)
    }
}

/// The presigned claims in `query`, or `None` without an `X-Amz-Algorithm`.
pub(super) fn query_claims(query: &str) -> Result<Option<QueryClaims<'_>>, AuthError> {
    let mut claims = QueryClaims::default();
    let mut algorithm = None;
    for (count, (name, value)) in QueryPairs::new(query).enumerate() {
        within("number of query parameters", count + 1, MAX_PARAMETERS)?;
        match name {
            "X-Amz-Algorithm" => once(&mut algorithm, value, "X-Amz-Algorithm")?,
            "X-Amz-Credential" => once(&mut claims.credential, value, "X-Amz-Credential")?,
            "X-Amz-Signature" => once(&mut claims.signature, value, "X-Amz-Signature")?,
            "X-Amz-SignedHeaders" => {
                once(&mut claims.signed_headers, value, "X-Amz-SignedHeaders")?;
            }
            "X-Amz-Date" => once(&mut claims.date, value, "X-Amz-Date")?,
            "X-Amz-Expires" => once(&mut claims.expires, value, "X-Amz-Expires")?,
            "X-Amz-Security-Token" => once(&mut claims.token, value, "X-Amz-Security-Token")?,
            _ => {}
        }
    }
    Ok(algorithm.map(|algorithm| QueryClaims { algorithm, ..claims }))
}

fn once<'r>(
    slot: &mut Option<&'r str>,
    value: &'r str,
    name: &'static str,
) -> Result<(), AuthError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(AuthError::Repeated(name)),
    }
}

pub(super) fn not_a_pair(header: &HeaderValue) -> AuthError {
    AuthError::NotAPair { digest: hashed(header) }
}

fn hashed(header: &HeaderValue) -> String {
    let digest = digest::digest(&digest::SHA256, header.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}
