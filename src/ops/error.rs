//! What an operation can answer instead of its output: conditions, not transports.
//!
//! A condition has a text for the caller and, where that says too little, one for the log. Which
//! AWS code and status it becomes stands in one place, `front/aws.rs`.

use crate::{custody, envelope, store};
use std::borrow::Cow;

/// What is the matter. The caller's fault, a conflict with a state, a dependency, or our bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    // The caller's fault.
    /// The body is not what the operation takes: broken JSON, wrong types.
    Serialization,
    /// A member is out of its documented bounds.
    Validation,
    /// A parameter that makes no sense (Secrets Manager's InvalidParameterException).
    InvalidParameter,
    /// Not possible in the resource's state (Secrets Manager's InvalidRequestException).
    InvalidRequest,
    /// No policy allows it.
    AccessDenied,
    /// Reserved for the service itself, whatever the policies say (KMS's NotAuthorizedException).
    NotAuthorized,
    /// No such resource.
    NotFound,
    /// There is one of that name already.
    AlreadyExists,
    /// A documented number is reached.
    LimitExceeded,
    /// A NextToken or Marker that was not given out for this request.
    InvalidNextToken,
    /// A policy that is none.
    MalformedPolicy,
    /// A policy that would open the resource to everybody.
    PublicPolicy,
    /// A policy that would lock its writer out, or a like condition.
    PreconditionNotMet,
    /// An ARN that is none, or of elsewhere.
    InvalidArn,
    /// An alias name that is none.
    InvalidAliasName,
    /// Tags that are not acceptable.
    Tag,
    /// A ciphertext that is not valid here; the text is empty.
    InvalidCiphertext,
    /// A ciphertext of another key than the one named.
    IncorrectKey,
    /// The key is not for this.
    InvalidKeyUsage,
    /// No such custom key store.
    KeyStoreNotFound,
    /// A custom key store of that name is there already.
    KeyStoreNameInUse,
    /// A custom key store that still has keys.
    KeyStoreHasKeys,
    /// No such token for a custom key store.
    ClusterNotFound,
    /// A token that a custom key store has already.
    ClusterInUse,
    /// A token that can't be a custom key store's.
    ClusterUnfit,
    /// Another token than the one that a custom key store's keys are in.
    ClusterUnrelated,
    /// This hardware, or this appliance, can't do it.
    Unsupported,
    /// DryRun: it would have been done.
    DryRun,
    /// No such grant (KMS's InvalidGrantIdException).
    InvalidGrantId,
    /// A grant token that is none.
    InvalidGrantToken,
    /// Something still hangs on it (IAM's DeleteConflict).
    DeleteConflict,
    /// What the service itself keeps can't be changed (IAM's UnmodifiableEntity).
    Unmodifiable,
    /// A web identity token that is none, or of nobody known.
    InvalidIdentityToken,
    /// A web identity token whose claims do not fit.
    RejectedClaim,
    /// A web identity token that has ended.
    ExpiredIdentityToken,
    /// Session policies and tags that are too long together.
    PackedPolicyTooLarge,
    /// An encoded authorization message that was not given out here.
    InvalidAuthorizationMessage,
    /// A time range that ends before it starts, or is none (CloudTrail's InvalidTimeRangeException).
    InvalidTimeRange,
    /// More events than a page has (CloudTrail's InvalidMaxResultsException).
    InvalidMaxResults,
    /// A category of events that is none (CloudTrail's InvalidEventCategoryException).
    InvalidEventCategory,
    // A conflict with a state.
    /// The key is disabled.
    Disabled,
    /// The key's state, or that of its record, forbids it.
    InvalidState,
    /// The custom key store's connection forbids it.
    KeyStoreState,
    /// Another change of the same kind is under way.
    Conflict,
    /// A stored value can't be opened: altered, or its key is gone or disabled.
    DecryptionFailure,
    /// A value can't be sealed: its key is disabled or gone.
    EncryptionFailure,
    // A dependency.
    /// Too much at once.
    Throttled,
    /// The token can't be reached.
    KeyUnavailable,
    /// A custom key store's token can't be reached.
    ClusterNotActive,
    /// An identity provider can't be reached.
    ProviderUnreachable,
    /// The token, the database or the audit log did not answer in time.
    DependencyTimeout,
    /// The database or the audit log can't be written or read.
    Unavailable,
    // Our bug.
    /// A fault of ours.
    Internal,
}

/// An answer that is not the output.
#[derive(Debug, thiserror::Error)]
#[error("{condition:?}: {message}{}", log.as_ref().map(|l| format!(" ({l})")).unwrap_or_default())]
pub struct Error {
    /// What is the matter.
    pub condition: Condition,
    /// For the caller.
    pub message: Cow<'static, str>,
    /// For the log, where the caller's text says too little or may not say it.
    pub log: Option<String>,
    /// The database's own error, where that is the cause.
    pub cause: Option<store::Error>,
}

/// A result of an operation's.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A condition with its text for the caller.
    pub fn new(condition: Condition, message: impl Into<Cow<'static, str>>) -> Self {
        Self { condition, message: message.into(), log: None, cause: None }
    }

    /// The same with a text for the log.
    pub fn logged(self, log: impl Into<String>) -> Self {
        Self { log: Some(log.into()), ..self }
    }

    /// A fault of ours; the caller is told no more than that.
    pub fn internal(log: impl Into<String>) -> Self {
        Self::new(Condition::Internal, "an internal fault; see the server's log").logged(log)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        use store::Error as E;
        let log = error.to_string();
        let made = match &error {
            E::Busy => Self::new(Condition::Throttled, "Rate exceeded"),
            E::Full => {
                Self::new(Condition::Unavailable, "the disk that holds the database is full")
            }
            E::Corrupt(_) => Self::new(
                Condition::InvalidState,
                "the stored record is damaged or was altered; restore it from a backup",
            ),
            E::Io(_) | E::Unusable(_) | E::InUse(_) => {
                Self::new(Condition::Unavailable, "the database is not available")
            }
            E::Internal(_) => Self::internal(""),
        };
        Self { cause: Some(error), ..made.logged(log) }
    }
}

impl store::AsStoreError for Error {
    fn take_store_error(mut self) -> std::result::Result<store::Error, Self> {
        self.cause.take().ok_or(self)
    }
}

impl From<custody::Error> for Error {
    fn from(error: custody::Error) -> Self {
        use custody::Error as E;
        let log = error.to_string();
        match error {
            E::Unavailable { .. } | E::Pin { .. } | E::Sealed { .. } => Self::new(
                Condition::KeyUnavailable,
                "the hardware that holds the key is not available",
            ),
            E::Overloaded(_) | E::NoSession(_) => Self::new(Condition::Throttled, "Rate exceeded"),
            E::Full { .. } => {
                Self::new(Condition::LimitExceeded, "the hardware has no room for another key")
            }
            E::Timeout(_) => Self::new(
                Condition::DependencyTimeout,
                "the hardware that holds the key did not answer in time",
            ),
            E::KeyNotFound(_) | E::KeyRejected { .. } => Self::new(
                Condition::InvalidState,
                "the key's material in the hardware is missing or not to be trusted",
            ),
            // What a caller may not ask for is refused before: this is the hardware's matter.
            E::Unsupported { .. } => Self::new(
                Condition::KeyUnavailable,
                "the hardware that holds the key refuses to use it",
            ),
            E::BadRequest(_) => Self::internal(""),
        }
        .logged(log)
    }
}

impl From<envelope::Error> for Error {
    fn from(error: envelope::Error) -> Self {
        match error {
            envelope::Error::Invalid => Self::new(Condition::InvalidCiphertext, ""),
            envelope::Error::TooLong => {
                Self::new(Condition::Validation, "the plaintext is too long")
            }
            envelope::Error::Custody(error) => error.into(),
            envelope::Error::Primitive => Self::internal("a cryptographic primitive failed"),
        }
    }
}

impl From<crate::audit::Error> for Error {
    fn from(error: crate::audit::Error) -> Self {
        Self::new(Condition::Unavailable, "the audit log can't be written, so nothing is answered")
            .logged(error.to_string())
    }
}

impl From<crate::clock::NoRandomness> for Error {
    fn from(error: crate::clock::NoRandomness) -> Self {
        Self::internal(error.to_string())
    }
}

#[cfg(test)]
impl Condition {
    /// Every condition, in the order of the declaration.
    pub(crate) const ALL: &[Self] = &[
        Self::Serialization,
        Self::Validation,
        Self::InvalidParameter,
        Self::InvalidRequest,
        Self::AccessDenied,
        Self::NotAuthorized,
        Self::NotFound,
        Self::AlreadyExists,
        Self::LimitExceeded,
        Self::InvalidNextToken,
        Self::MalformedPolicy,
        Self::PublicPolicy,
        Self::PreconditionNotMet,
        Self::InvalidArn,
        Self::InvalidAliasName,
        Self::Tag,
        Self::InvalidCiphertext,
        Self::IncorrectKey,
        Self::InvalidKeyUsage,
        Self::KeyStoreNotFound,
        Self::KeyStoreNameInUse,
        Self::KeyStoreHasKeys,
        Self::ClusterNotFound,
        Self::ClusterInUse,
        Self::ClusterUnfit,
        Self::ClusterUnrelated,
        Self::Unsupported,
        Self::DryRun,
        Self::InvalidGrantId,
        Self::InvalidGrantToken,
        Self::DeleteConflict,
        Self::Unmodifiable,
        Self::InvalidIdentityToken,
        Self::RejectedClaim,
        Self::ExpiredIdentityToken,
        Self::PackedPolicyTooLarge,
        Self::InvalidAuthorizationMessage,
        Self::InvalidTimeRange,
        Self::InvalidMaxResults,
        Self::InvalidEventCategory,
        Self::Disabled,
        Self::InvalidState,
        Self::KeyStoreState,
        Self::Conflict,
        Self::DecryptionFailure,
        Self::EncryptionFailure,
        Self::Throttled,
        Self::KeyUnavailable,
        Self::ClusterNotActive,
        Self::ProviderUnreachable,
        Self::DependencyTimeout,
        Self::Unavailable,
        Self::Internal,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_conditions_is_whole() {
        assert!(Condition::ALL.iter().enumerate().all(|(at, c)| *c as usize == at));
        assert_eq!(
            Condition::ALL.len(),
            Condition::Internal as usize + 1,
            "`Internal` is the last"
        );
    }
}
