//! Why a token was refused, in AWS's words where they are known.

use super::{MAX_TOKEN, MIN_TOKEN};
use crate::clock::Time;

/// A refusal. [`Error::code`] is STS's error code, `Display` its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter or longer than a token may be.
    #[error(
        "The ID Token provided has {0} characters: it must have from {MIN_TOKEN} to {MAX_TOKEN}"
    )]
    Size(usize),
    /// Not three base64url parts, of which the first two are JSON objects.
    #[error(
        "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access \
         Token)"
    )]
    NotAJwt,
    /// An algorithm that proves nothing to us: `none`, an HMAC, or one that is not known.
    #[error("The ID Token provided is signed with an algorithm that is not accepted: {0}")]
    Algorithm(String),
    /// The header names extensions that must be understood (RFC 7515, 4.1.11). None is.
    #[error("The ID Token provided has critical header parameters, which are not supported")]
    Critical,
    /// The account trusts no issuer of this URL.
    #[error("No OpenIDConnect provider found in your account for {0}")]
    UnknownIssuer(String),
    /// The issuer publishes no such key.
    #[error(
        "Couldn't retrieve verification key from your identity provider,  please reference \
         AssumeRoleWithWebIdentity documentation for requirements"
    )]
    UnknownKey,
    /// The key is of another type than the algorithm, or is published for another use.
    #[error("The verification key of your identity provider is not one for the token's algorithm")]
    KeyMismatch,
    /// The key can't be used: too short, of an unknown type, damaged.
    #[error("The verification key of your identity provider is not accepted: {0}")]
    UnusableKey(&'static str),
    /// The signature is not the key's.
    #[error("The signature of the ID Token provided is invalid")]
    Signature,
    /// A claim that must be there is not.
    #[error("Missing a required claim: {0}")]
    Missing(&'static str),
    /// A claim is there and of another form than it must have.
    #[error("The ID Token provided has an invalid claim: {0}")]
    Malformed(&'static str),
    /// Issued for somebody else.
    #[error("Incorrect token audience")]
    Audience,
    /// Its time is over.
    #[error(
        "Token expired: current date/time {} must be before the expiration date/time {expires}",
        .now.seconds()
    )]
    Expired {
        /// The verifier's time.
        now: Time,
        /// When it expired, in seconds since the epoch.
        expires: i64,
    },
    /// Its time has not begun (`nbf`).
    #[error(
        "The identity provider does not vouch for the ID Token yet: it is not valid before {0}"
    )]
    NotYetValid(i64),
    /// Issued in the future (`iat`), further than clocks differ.
    #[error("The ID Token provided was issued in the future: {0}")]
    IssuedInFuture(i64),
    /// The issuer's keys could not be had; why is in the log.
    #[error(
        "The identity provider that was asked to verify the ID Token could not be reached, or \
         answered with no usable keys"
    )]
    Unreachable,
}

/// The errors that STS has for these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The token proves nothing.
    InvalidIdentityToken,
    /// The token's time is over.
    ExpiredToken,
    /// The issuer itself says that the token is not to be taken.
    IdpRejectedClaim,
    /// The issuer's keys could not be had: trying again may help, and SDKs do.
    IdpCommunicationError,
    /// The parameter is out of bounds, whatever it says.
    Validation,
}

impl Code {
    /// As it stands in STS's answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidIdentityToken => "InvalidIdentityToken",
            Self::ExpiredToken => "ExpiredTokenException",
            Self::IdpRejectedClaim => "IDPRejectedClaim",
            Self::IdpCommunicationError => "IDPCommunicationError",
            Self::Validation => "ValidationError",
        }
    }

    /// The HTTP status that STS's API Reference gives it.
    pub fn status(self) -> u16 {
        match self {
            Self::IdpRejectedClaim => 403,
            _ => 400,
        }
    }
}

impl Error {
    /// STS's error for this refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::Size(_) => Code::Validation,
            Self::Expired { .. } => Code::ExpiredToken,
            Self::NotYetValid(_) => Code::IdpRejectedClaim,
            Self::Unreachable => Code::IdpCommunicationError,
            Self::NotAJwt
            | Self::Algorithm(_)
            | Self::Critical
            | Self::UnknownIssuer(_)
            | Self::UnknownKey
            | Self::KeyMismatch
            | Self::UnusableKey(_)
            | Self::Signature
            | Self::Missing(_)
            | Self::Malformed(_)
            | Self::Audience
            | Self::IssuedInFuture(_) => Code::InvalidIdentityToken,
        }
    }
}
