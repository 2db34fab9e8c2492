//! AWS Signature Version 4, verified: the header form and the presigned URL form.
//!
//! Pure: no I/O and no clock. Three steps, in AWS's order of refusals:
//!
//! 1. [`Presented::parse`] reads what the request claims (access key id, scope, token).
//! 2. [`Presented::check`] compares the claims with the time, the region and the service.
//! 3. Whoever knows the secrets finds the one of [`Presented::access_key_id`], and
//!    [`Checked::verify`] compares the signature under its [`SigningKey`].
//!
//! Nothing that [`Presented`] says is proven before `verify` returns `Ok`.
//!
//! ```text
//! signature = hex(HMAC(signing key, string to sign))
//! string to sign = "AWS4-HMAC-SHA256" LF timestamp LF scope LF hex(SHA-256(canonical request))
//! canonical request = method LF path LF query LF {name ":" value LF} LF signed headers LF
//!                     hex(SHA-256(body))
//! ```
//!
//! Source: "Create a signed AWS API request", AWS IAM User Guide; canonicalisation is that of every
//! service but S3 (path normalised and encoded once more than it was sent).

mod canonical;
mod claims;
mod error;
mod key;
mod parse;
mod verify;

#[cfg(test)]
mod signer;
#[cfg(test)]
mod tests;

pub(in crate::identity) use parse::only;

pub use error::AuthError;
pub use key::{DerivationFailed, SigningKey, SigningKeys};
pub use parse::Presented;
pub use verify::{Checked, Expected};

use http::{HeaderMap, Method};

/// The one algorithm that is accepted.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the time of signing may lie from now, both ways, in milliseconds.
pub const SKEW: i64 = 300_000;
/// The longest life of a presigned URL, in seconds (a week).
pub const MAX_EXPIRES: i64 = 604_800;
/// The longest `Authorization` header, in bytes.
pub const MAX_AUTHORIZATION: usize = 8 * 1024;
/// The longest query string, in bytes.
pub const MAX_QUERY: usize = 16 * 1024;
/// The most parameters in a query string.
pub const MAX_PARAMETERS: usize = 256;
/// The most names in `SignedHeaders`.
pub const MAX_SIGNED_HEADERS: usize = 64;
/// The longest path, in bytes.
pub const MAX_PATH: usize = 8 * 1024;
/// The longest canonical request, in bytes: bounds what signed header values may add.
pub const MAX_CANONICAL: usize = 128 * 1024;

/// One request as it was received, before anything changed it.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// The method as sent.
    pub method: &'r Method,
    /// The path as sent, still percent-encoded.
    pub path: &'r str,
    /// The query as sent, without the question mark; empty if there is none.
    pub query: &'r str,
    /// The headers as received.
    pub headers: &'r HeaderMap,
    /// HTTP/2's `:authority` (or the authority of an absolute request target); stands for `host`.
    pub authority: Option<&'r str>,
    /// The whole body.
    pub body: &'r [u8],
}
