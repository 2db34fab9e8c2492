//! SigV4-X509: requests signed with a certificate's key, as CreateSession of IAM Roles Anywhere
//! wants them.
//!
//! ```text
//! Authorization: AWS4-X509-RSA-SHA256 Credential=serial/date/region/rolesanywhere/aws4_request,
//!                SignedHeaders=host;x-amz-date;x-amz-x509, Signature=hex(signature)
//! X-Amz-X509: base64(DER)            X-Amz-X509-Chain: base64(DER),base64(DER)
//! ```
//!
//! Canonical request and string to sign are SigV4's, under the algorithm's own name; the signature
//! is RSASSA-PKCS1-v1_5 or ECDSA (DER) with SHA-256. `serial` is the certificate's serial number in
//! decimal. Source: "The IAM Roles Anywhere authentication signing process", IAM Roles Anywhere
//! User Guide.

use super::certificate::{Certificate, KeyType};
use super::{Error, MAX_CERTIFICATE, MAX_CHAIN};
use crate::clock::Time;
use crate::identity::sigv4::{AuthError, Expected, Presented, Request, only};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};

/// The service's signing name.
pub const SERVICE: &str = "rolesanywhere";
const RSA: &str = "AWS4-X509-RSA-SHA256";
const ECDSA: &str = "AWS4-X509-ECDSA-SHA256";
/// The most hex digits of a signature: those of the longest RSA key that is accepted.
const MAX_SIGNATURE: usize = 2 * 8192 / 8;

static X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
static X_AMZ_X509: HeaderName = HeaderName::from_static("x-amz-x509");
static X_AMZ_X509_CHAIN: HeaderName = HeaderName::from_static("x-amz-x509-chain");

/// What a request proved: that its sender has the certificate's key. Nobody has vouched for the
/// certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The certificate (DER).
    pub leaf: Vec<u8>,
    /// Those that lead from it to a CA (DER), five at most.
    pub chain: Vec<Vec<u8>>,
}

impl Proven {
    /// The chain as [`super::TrustAnchor::verify_chain`] takes it.
    pub fn intermediates(&self) -> Vec<&[u8]> {
        self.chain.iter().map(Vec::as_slice).collect()
    }
}

/// Proves that a request, body included, was signed at `now` for `region` with the key of the
/// certificate that it carries.
pub fn verify(request: &Request<'_>, region: &str, now: Time) -> Result<Proven, Error> {
    let presented = Presented::parse_as(request, &[RSA, ECDSA])?;
    let headers = request.headers;
    // The documentation knows no presigned form, and no other date than this.
    if presented.is_presigned() || only(headers, &X_AMZ_DATE, "X-Amz-Date")?.is_none() {
        return Err(AuthError::Mismatch.into());
    }
    // Every `x-amz-` header is a signed one after this, the certificates' among them.
    presented.check(&Expected { now, region, services: &[SERVICE] })?;
    let leaf = only(headers, &X_AMZ_X509, "X-Amz-X509")?.ok_or(Error::NoCertificate)?;
    let leaf = certificates(leaf, "X-Amz-X509", 1)?.pop().ok_or(Error::NoCertificate)?;
    let chain = only(headers, &X_AMZ_X509_CHAIN, "X-Amz-X509-Chain")?;
    let chain =
        chain.map(|value| certificates(value, "X-Amz-X509-Chain", MAX_CHAIN)).transpose()?;
    check_signature(&presented, &Certificate::read(&leaf)?)?;
    Ok(Proven { leaf, chain: chain.unwrap_or_default() })
}

fn check_signature(presented: &Presented<'_>, certificate: &Certificate<'_>) -> Result<(), Error> {
    if presented.access_key_id() != certificate.serial() {
        return Err(Error::Serial);
    }
    let fitting = match certificate.key_type()? {
        KeyType::Rsa => RSA,
        KeyType::P256 | KeyType::P384 => ECDSA,
    };
    if presented.algorithm() != fitting {
        return Err(Error::KeyType);
    }
    let signature = unhex(presented.signature()).ok_or(AuthError::Mismatch)?;
    let message = presented.string_to_sign()?;
    if certificate.verifies(&message, &signature)? {
        Ok(())
    } else {
        Err(AuthError::Mismatch.into())
    }
}

/// The certificates of a header: base64 (DER), commas between.
fn certificates(
    value: &HeaderValue,
    name: &'static str,
    most: usize,
) -> Result<Vec<Vec<u8>>, Error> {
    let text = value.to_str().map_err(|_| Error::Header(name))?;
    if text.split(',').count() > most {
        return Err(Error::TooMany);
    }
    let certificate = |part: &str| {
        let der = STANDARD.decode(part.trim_ascii()).map_err(|_| Error::Header(name))?;
        match der.len() {
            0 => Err(Error::Header(name)),
            1..=MAX_CERTIFICATE => Ok(der),
            _ => Err(Error::TooLong),
        }
    };
    text.split(',').map(certificate).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() > MAX_SIGNATURE || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks_exact(2).map(pair).collect()
}
