//! Why a signature was refused, in AWS's words.
//!
//! The texts are those that AWS's JSON services answer (recorded from DynamoDB, KMS, Secrets
//! Manager and API Gateway). AWS used to echo the whole `Authorization` header and now answers
//! its digest, which also keeps a bearer token out of answers and logs.

use super::SKEW;
use crate::clock::Time;

/// A refusal. [`AuthError::code`] is AWS's exception name, `Display` its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is neither an `Authorization` header nor an `X-Amz-Algorithm` parameter.
    #[error("Missing Authentication Token")]
    MissingToken,
    /// The header form and the presigned form at once.
    #[error(
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
    )]
    BothForms,
    /// A piece of the `Authorization` header has no equal sign. Holds base64(SHA-256(header)).
    #[error(
        "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 \
         and encoded with Base64): '{digest}'."
    )]
    NotAPair {
        /// base64(SHA-256(header value)).
        digest: String,
    },
    /// The `Authorization` header lacks parameters, or there is no date.
    #[error("{missing}(Hashed with SHA-256 and encoded with Base64) Authorization={digest}")]
    MissingParameters {
        /// One sentence for each, with a space after each.
        missing: String,
        /// base64(SHA-256(header value)).
        digest: String,
    },
    /// A presigned URL lacks parameters. Holds one sentence for each, with a space after each.
    #[error("{0}Re-examine the query-string parameters.")]
    MissingQueryParameters(String),
    /// The date is not in ISO 8601's basic format (nor, in `Date`, in RFC 9110's).
    #[error(
        "Date must be in ISO-8601 'basic format'. Got '{0}'. See http://en.wikipedia.org/wiki/ISO_8601"
    )]
    DateFormat(String),
    /// Another algorithm than [`super::ALGORITHM`].
    #[error("Unsupported AWS 'algorithm': '{0}'.")]
    Algorithm(String),
    /// The credential has not five elements.
    #[error(
        "Credential must have exactly 5 slash-delimited elements, e.g. \
         keyid/date/region/service/term, got '{0}'"
    )]
    Credential(String),
    /// `X-Amz-Expires` is no number of seconds from 0 to a week. Holds AWS's text.
    #[error("{0}")]
    Expires(&'static str),
    /// A part of the request is larger than what is verified. Our own text.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its limit, in bytes or in number.
        limit: usize,
    },
    /// What must stand once stands twice, so that its reading would be ambiguous. Our own text.
    #[error("`{0}` must not be repeated")]
    Repeated(&'static str),
    /// `host` is not among the signed headers.
    #[error("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")]
    HostNotSigned,
    /// A present `x-amz-*` header is not among the signed headers.
    #[error("'{0}' must be a 'SignedHeader' in the AWS Authorization.")]
    HeaderNotSigned(String),
    /// Signed too long ago, or a presigned URL's time is over.
    #[error(
        "Signature expired: {} is now earlier than {} ({} - {}.)",
        basic(*.signed), basic(Time(.now.0.saturating_sub(*.valid))), basic(*.now), span(*.valid)
    )]
    Expired {
        /// When the request says that it was signed.
        signed: Time,
        /// The verifier's time.
        now: Time,
        /// For how many milliseconds the signature was valid.
        valid: i64,
    },
    /// Signed in the future.
    #[error(
        "Signature not yet current: {} is still later than {} ({} + {}.)",
        basic(*.signed), basic(Time(.now.0.saturating_add(SKEW))), basic(*.now), span(SKEW)
    )]
    NotYetCurrent {
        /// When the request says that it was signed.
        signed: Time,
        /// The verifier's time.
        now: Time,
    },
    /// The scope is not ours. Holds one sentence for each fault.
    #[error("{0}")]
    Scope(String),
    /// The signature is not the one of this request under this key.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your \
         AWS Secret Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    /// The access key is unknown, or the session token is not its own.
    #[error("The security token included in the request is invalid.")]
    UnrecognizedClient,
    /// The session token's time is over.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
}

impl AuthError {
    /// AWS's exception name, as in `__type` and `x-amzn-errortype`. Always with HTTP status 400.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingToken => "MissingAuthenticationTokenException",
            Self::NotAPair { .. }
            | Self::MissingParameters { .. }
            | Self::MissingQueryParameters(_)
            | Self::DateFormat(_)
            | Self::Algorithm(_)
            | Self::Credential(_)
            | Self::Expires(_)
            | Self::TooLarge { .. } => "IncompleteSignatureException",
            Self::BothForms
            | Self::Repeated(_)
            | Self::HostNotSigned
            | Self::HeaderNotSigned(_)
            | Self::Expired { .. }
            | Self::NotYetCurrent { .. }
            | Self::Scope(_)
            | Self::Mismatch => "InvalidSignatureException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::ExpiredToken => "ExpiredTokenException",
        }
    }
}

impl AuthError {
    /// The code that services of the Query protocol have for it. With HTTP status 403, but for
    /// IncompleteSignature, which is 400.
    /// Source: <https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>.
    pub fn query_code(&self) -> &'static str {
        match self.code() {
            "MissingAuthenticationTokenException" => "MissingAuthenticationToken",
            "IncompleteSignatureException" => "IncompleteSignature",
            "UnrecognizedClientException" => "InvalidClientTokenId",
            "ExpiredTokenException" => "ExpiredToken",
            _ => "SignatureDoesNotMatch",
        }
    }
}

/// `time` in ISO 8601's basic format.
pub(super) fn basic(time: Time) -> String {
    jiff::Timestamp::from_second(time.seconds())
        .map(|stamp| stamp.strftime("%Y%m%dT%H%M%SZ").to_string())
        .unwrap_or_default()
}

/// A duration in AWS's manner: whole minutes where it is such, else seconds.
fn span(milliseconds: i64) -> String {
    if milliseconds % 60_000 == 0 {
        format!("{} min", milliseconds / 60_000)
    } else {
        format!("{} sec", milliseconds / 1000)
    }
}
