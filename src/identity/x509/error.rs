//! Why a certificate was refused.

use super::{MAX_CERTIFICATE, MAX_CHAIN};
use crate::identity::sigv4::AuthError;

/// A refusal. [`Error::code`] is Roles Anywhere's exception name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The signature of the request, or what it claims, in SigV4's words.
    #[error(transparent)]
    Request(#[from] AuthError),
    /// The request has no header `X-Amz-X509`.
    #[error("X-Amz-X509 header is missing")]
    NoCertificate,
    /// A header is no base64 of a certificate.
    #[error("{0} header is malformed")]
    Header(&'static str),
    /// The serial number in the credential is another one.
    #[error("the serial number in the credential is not the certificate's")]
    Serial,
    /// The algorithm is not one of the certificate's key.
    #[error("the algorithm of the signature does not fit the certificate's key")]
    KeyType,
    /// A certificate is too long.
    #[error("a certificate has more than {MAX_CERTIFICATE} bytes")]
    TooLong,
    /// Too many certificates.
    #[error("the chain has more than {MAX_CHAIN} certificates")]
    TooMany,
    /// Not a certificate, or not one of version 3.
    #[error("the certificate is malformed")]
    Malformed,
    /// A CA's own certificate.
    #[error("the certificate is a CA's: an end-entity certificate is needed")]
    IsCa,
    /// `keyUsage` lacks `digitalSignature`, or is not there.
    #[error("the certificate's key usage does not include Digital Signature")]
    NoDigitalSignature,
    /// `extKeyUsage` is there and lacks `clientAuth`.
    #[error("the certificate's extended key usage does not include TLS Web Client Authentication")]
    NoClientAuth,
    /// The key is too short or of a type that is not accepted.
    #[error("the certificate's key is neither RSA of 2048 to 8192 bits nor EC on P-256 or P-384")]
    Key,
    /// Its time is over.
    #[error("the certificate, or one that it depends on, has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the certificate, or one that it depends on, is not valid yet")]
    NotYetValid,
    /// It was revoked.
    #[error("the certificate, or one that it depends on, has been revoked")]
    Revoked,
    /// No revocation list that is valid now speaks of it.
    #[error("whether the certificate has been revoked can't be told: {0}")]
    RevocationUnknown(String),
    /// A signature in the chain is of an algorithm that is not accepted, SHA-1 above all.
    #[error("a certificate of the chain is signed with an algorithm that is not accepted")]
    Algorithm,
    /// No CA of the trust anchor vouches for it.
    #[error("Untrusted signing certificate: {0}")]
    Untrusted(String),
    /// What a rule makes of the certificate is no session name.
    #[error(
        "the role session name `{0}` that a rule makes of the certificate does not match \
         [\\w+=,.@-]{{2,64}}"
    )]
    SessionName(String),
}

impl Error {
    /// Roles Anywhere's exception name. `ValidationException` goes with HTTP status 400,
    /// `AccessDeniedException` with 403.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Header(_) | Self::TooLong | Self::TooMany | Self::Malformed => {
                "ValidationException"
            }
            _ => "AccessDeniedException",
        }
    }

    /// As [`Self::code`].
    pub fn status(&self) -> u16 {
        if self.code() == "ValidationException" { 400 } else { 403 }
    }

    /// What path validation found.
    pub(super) fn of_path(error: &webpki::Error) -> Self {
        use webpki::Error as Path;
        match error {
            Path::CaUsedAsEndEntity => Self::IsCa,
            Path::CertExpired { .. } => Self::Expired,
            Path::CertNotValidYet { .. } => Self::NotYetValid,
            Path::CertRevoked => Self::Revoked,
            Path::RequiredEkuNotFoundContext(_) | Path::EmptyEkuExtension => Self::NoClientAuth,
            Path::UnsupportedSignatureAlgorithmContext(_)
            | Path::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | Path::SignatureAlgorithmMismatch => Self::Algorithm,
            Path::CrlExpired { .. } => Self::RevocationUnknown("the list is out of date".into()),
            Path::UnknownRevocationStatus => {
                Self::RevocationUnknown("no list of its issuer is there".into())
            }
            Path::InvalidCrlSignatureForPublicKey
            | Path::IssuerNotCrlSigner
            | Path::UnsupportedCrlSignatureAlgorithmContext(_)
            | Path::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
                Self::RevocationUnknown(error.to_string())
            }
            Path::BadDer
            | Path::BadDerTime
            | Path::MalformedExtensions
            | Path::ExtensionValueInvalid
            | Path::InvalidCertValidity
            | Path::InvalidSerialNumber
            | Path::TrailingData(_)
            | Path::UnsupportedCertVersion => Self::Malformed,
            other => Self::Untrusted(other.to_string()),
        }
    }
}
