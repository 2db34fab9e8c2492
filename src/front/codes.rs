//! A condition becomes a code and a status: the one place that knows AWS's error codes.

use crate::name::Service;
use crate::ops::Row;
use crate::ops::error::Condition;
use http::StatusCode;

const BAD: StatusCode = StatusCode::BAD_REQUEST;
const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;
const MISSING: StatusCode = StatusCode::NOT_FOUND;
const CONFLICT: StatusCode = StatusCode::CONFLICT;
const BROKEN: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
const ABSENT: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// The code and status of a condition, as the row's service has them.
pub fn code(row: &Row, condition: Condition) -> (&'static str, StatusCode) {
    match row.service {
        Service::SecretsManager => secrets_manager(condition),
        Service::Kms => kms(row, condition),
        Service::Iam | Service::Sts => identity(row.service, condition),
        Service::CloudTrail => cloud_trail(condition),
        Service::RolesAnywhere => roles_anywhere(condition),
    }
}

/// The code alone, for audit records.
pub fn code_of(row: &Row, condition: Condition) -> &'static str {
    code(row, condition).0
}

#[expect(clippy::match_same_arms, reason = "one arm a condition: the table is read, not golfed")]
fn secrets_manager(condition: Condition) -> (&'static str, StatusCode) {
    use Condition as C;
    match condition {
        C::Serialization => ("SerializationException", BAD),
        C::Validation => ("ValidationException", BAD),
        C::AccessDenied | C::NotAuthorized => ("AccessDeniedException", BAD),
        C::Throttled => ("ThrottlingException", BAD),
        C::InvalidParameter | C::InvalidAliasName | C::Tag => ("InvalidParameterException", BAD),
        C::InvalidRequest => ("InvalidRequestException", BAD),
        C::NotFound | C::InvalidArn | C::KeyStoreNotFound => ("ResourceNotFoundException", BAD),
        C::AlreadyExists => ("ResourceExistsException", BAD),
        C::LimitExceeded => ("LimitExceededException", BAD),
        C::InvalidNextToken => ("InvalidNextTokenException", BAD),
        C::MalformedPolicy => ("MalformedPolicyDocumentException", BAD),
        C::PublicPolicy => ("PublicPolicyException", BAD),
        C::PreconditionNotMet => ("PreconditionNotMetException", BAD),
        C::InvalidCiphertext | C::IncorrectKey | C::DecryptionFailure => ("DecryptionFailure", BAD),
        C::InvalidKeyUsage | C::EncryptionFailure => ("EncryptionFailure", BAD),
        C::KeyStoreNameInUse
        | C::KeyStoreHasKeys
        | C::KeyStoreState
        | C::ClusterNotFound
        | C::ClusterInUse
        | C::ClusterUnfit
        | C::ClusterUnrelated
        | C::ClusterNotActive => ("InvalidRequestException", BAD),
        C::Unsupported | C::DryRun => ("InvalidRequestException", BAD),
        C::Disabled | C::InvalidState | C::Conflict => ("InvalidRequestException", BAD),
        C::InvalidGrantId | C::InvalidGrantToken => ("InvalidParameterException", BAD),
        C::DeleteConflict | C::Unmodifiable => ("InvalidRequestException", BAD),
        C::InvalidIdentityToken
        | C::RejectedClaim
        | C::ExpiredIdentityToken
        | C::PackedPolicyTooLarge
        | C::InvalidAuthorizationMessage
        | C::InvalidTimeRange
        | C::InvalidMaxResults
        | C::InvalidEventCategory => ("InvalidParameterException", BAD),
        C::KeyUnavailable
        | C::ProviderUnreachable
        | C::DependencyTimeout
        | C::Unavailable
        | C::Internal => ("InternalServiceError", BROKEN),
    }
}

#[expect(clippy::match_same_arms, reason = "one arm a condition: the table is read, not golfed")]
fn kms(row: &Row, condition: Condition) -> (&'static str, StatusCode) {
    use Condition as C;
    match condition {
        C::Serialization => ("SerializationException", BAD),
        C::Validation | C::InvalidParameter | C::InvalidRequest => ("ValidationException", BAD),
        C::AccessDenied => ("AccessDeniedException", BAD),
        C::NotAuthorized => ("NotAuthorizedException", BAD),
        C::Throttled => ("ThrottlingException", BAD),
        C::NotFound => ("NotFoundException", BAD),
        C::AlreadyExists => ("AlreadyExistsException", BAD),
        C::LimitExceeded => ("LimitExceededException", BAD),
        C::InvalidNextToken => ("InvalidMarkerException", BAD),
        C::MalformedPolicy | C::PublicPolicy | C::PreconditionNotMet => {
            ("MalformedPolicyDocumentException", BAD)
        }
        C::InvalidArn => ("InvalidArnException", BAD),
        C::InvalidAliasName => ("InvalidAliasNameException", BAD),
        C::Tag => ("TagException", BAD),
        C::InvalidCiphertext | C::DecryptionFailure => ("InvalidCiphertextException", BAD),
        C::IncorrectKey => ("IncorrectKeyException", BAD),
        C::InvalidKeyUsage => ("InvalidKeyUsageException", BAD),
        C::KeyStoreNotFound => ("CustomKeyStoreNotFoundException", BAD),
        C::KeyStoreNameInUse => ("CustomKeyStoreNameInUseException", BAD),
        C::KeyStoreHasKeys => ("CustomKeyStoreHasCMKsException", BAD),
        C::KeyStoreState => ("CustomKeyStoreInvalidStateException", BAD),
        C::ClusterNotFound => ("CloudHsmClusterNotFoundException", BAD),
        C::ClusterInUse => ("CloudHsmClusterInUseException", BAD),
        C::ClusterUnfit => ("CloudHsmClusterInvalidConfigurationException", BAD),
        C::ClusterUnrelated => ("CloudHsmClusterNotRelatedException", BAD),
        C::ClusterNotActive => ("CloudHsmClusterNotActiveException", BAD),
        C::Unsupported => ("UnsupportedOperationException", BAD),
        C::DryRun => ("DryRunOperationException", BAD),
        C::InvalidGrantId => ("InvalidGrantIdException", BAD),
        C::InvalidGrantToken => ("InvalidGrantTokenException", BAD),
        C::Disabled => ("DisabledException", BAD),
        C::InvalidState | C::EncryptionFailure => ("KMSInvalidStateException", BAD),
        C::Conflict | C::DeleteConflict => ("ConflictException", BAD),
        C::Unmodifiable
        | C::InvalidIdentityToken
        | C::RejectedClaim
        | C::ExpiredIdentityToken
        | C::PackedPolicyTooLarge
        | C::InvalidAuthorizationMessage
        | C::InvalidTimeRange
        | C::InvalidMaxResults
        | C::InvalidEventCategory => ("ValidationException", BAD),
        C::KeyUnavailable if row.cryptographic => ("KeyUnavailableException", BROKEN),
        C::DependencyTimeout => ("DependencyTimeoutException", ABSENT),
        C::KeyUnavailable | C::ProviderUnreachable | C::Unavailable | C::Internal => {
            ("KMSInternalException", BROKEN)
        }
    }
}

/// IAM and STS, whose codes lack the suffix `Exception` for the most part.
#[expect(clippy::match_same_arms, reason = "one arm a condition: the table is read, not golfed")]
fn identity(service: Service, condition: Condition) -> (&'static str, StatusCode) {
    use Condition as C;
    match condition {
        C::Serialization => ("MalformedInput", BAD),
        C::Validation => ("ValidationError", BAD),
        C::AccessDenied | C::NotAuthorized => ("AccessDenied", FORBIDDEN),
        C::Throttled => ("Throttling", BAD),
        C::InvalidParameter | C::InvalidRequest if service == Service::Iam => ("InvalidInput", BAD),
        C::InvalidParameter | C::InvalidRequest => ("ValidationError", BAD),
        C::NotFound => ("NoSuchEntity", MISSING),
        C::AlreadyExists => ("EntityAlreadyExists", CONFLICT),
        C::LimitExceeded => ("LimitExceeded", CONFLICT),
        C::InvalidNextToken => ("ValidationError", BAD),
        C::MalformedPolicy | C::PublicPolicy | C::PreconditionNotMet => {
            ("MalformedPolicyDocument", BAD)
        }
        C::InvalidArn | C::InvalidAliasName => ("ValidationError", BAD),
        C::Tag => ("InvalidInput", BAD),
        C::Unsupported => ("NotSupportedService", MISSING),
        C::DeleteConflict => ("DeleteConflict", CONFLICT),
        C::Unmodifiable => ("UnmodifiableEntity", BAD),
        C::Conflict => ("ConcurrentModification", CONFLICT),
        C::InvalidIdentityToken => ("InvalidIdentityToken", BAD),
        C::RejectedClaim => ("IDPRejectedClaim", FORBIDDEN),
        C::ExpiredIdentityToken => ("ExpiredTokenException", BAD),
        C::ProviderUnreachable => ("IDPCommunicationError", BAD),
        C::PackedPolicyTooLarge => ("PackedPolicyTooLarge", BAD),
        C::InvalidAuthorizationMessage => ("InvalidAuthorizationMessageException", BAD),
        C::InvalidState => ("UnmodifiableEntity", BAD),
        C::InvalidCiphertext
        | C::IncorrectKey
        | C::InvalidKeyUsage
        | C::KeyStoreNotFound
        | C::KeyStoreNameInUse
        | C::KeyStoreHasKeys
        | C::KeyStoreState
        | C::ClusterNotFound
        | C::ClusterInUse
        | C::ClusterUnfit
        | C::ClusterUnrelated
        | C::ClusterNotActive
        | C::DryRun
        | C::InvalidGrantId
        | C::InvalidGrantToken
        | C::Disabled
        | C::InvalidTimeRange
        | C::InvalidMaxResults
        | C::InvalidEventCategory
        | C::DecryptionFailure
        | C::EncryptionFailure => ("ValidationError", BAD),
        C::KeyUnavailable | C::DependencyTimeout | C::Unavailable | C::Internal => {
            ("ServiceFailure", BROKEN)
        }
    }
}

fn cloud_trail(condition: Condition) -> (&'static str, StatusCode) {
    use Condition as C;
    match condition {
        C::Serialization => ("SerializationException", BAD),
        C::AccessDenied | C::NotAuthorized => ("AccessDeniedException", BAD),
        C::InvalidNextToken => ("InvalidNextTokenException", BAD),
        C::Unsupported => ("UnsupportedOperationException", BAD),
        C::InvalidParameter => ("InvalidLookupAttributesException", BAD),
        C::InvalidTimeRange => ("InvalidTimeRangeException", BAD),
        C::InvalidMaxResults => ("InvalidMaxResultsException", BAD),
        C::InvalidEventCategory => ("InvalidEventCategoryException", BAD),
        other => of_few(other, "InternalFailure"),
    }
}

fn roles_anywhere(condition: Condition) -> (&'static str, StatusCode) {
    use Condition as C;
    match condition {
        C::AccessDenied | C::NotAuthorized => ("AccessDeniedException", FORBIDDEN),
        C::NotFound => ("ResourceNotFoundException", MISSING),
        other => of_few(other, "InternalServerException"),
    }
}

/// Every condition, as services have it that tell no more than whose fault it is; `broken` is their
/// code for ours.
fn of_few(condition: Condition, broken: &'static str) -> (&'static str, StatusCode) {
    use Condition as C;
    match condition {
        C::Throttled => ("ThrottlingException", BAD),
        C::Serialization
        | C::Validation
        | C::AccessDenied
        | C::NotAuthorized
        | C::InvalidNextToken
        | C::InvalidTimeRange
        | C::InvalidMaxResults
        | C::InvalidEventCategory
        | C::Unsupported
        | C::InvalidParameter
        | C::InvalidRequest
        | C::NotFound
        | C::AlreadyExists
        | C::LimitExceeded
        | C::MalformedPolicy
        | C::PublicPolicy
        | C::PreconditionNotMet
        | C::InvalidArn
        | C::InvalidAliasName
        | C::Tag
        | C::InvalidCiphertext
        | C::IncorrectKey
        | C::InvalidKeyUsage
        | C::KeyStoreNotFound
        | C::KeyStoreNameInUse
        | C::KeyStoreHasKeys
        | C::KeyStoreState
        | C::ClusterNotFound
        | C::ClusterInUse
        | C::ClusterUnfit
        | C::ClusterUnrelated
        | C::ClusterNotActive
        | C::DryRun
        | C::InvalidGrantId
        | C::InvalidGrantToken
        | C::DeleteConflict
        | C::Unmodifiable
        | C::InvalidIdentityToken
        | C::RejectedClaim
        | C::ExpiredIdentityToken
        | C::PackedPolicyTooLarge
        | C::InvalidAuthorizationMessage
        | C::Disabled
        | C::InvalidState
        | C::Conflict
        | C::DecryptionFailure
        | C::EncryptionFailure => ("ValidationException", BAD),
        C::KeyUnavailable
        | C::ProviderUnreachable
        | C::DependencyTimeout
        | C::Unavailable
        | C::Internal => (broken, BROKEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::rest;
    use crate::ops::TABLE;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/errors.txt");
    const HEADER: &str = "\
# Every condition as the two doors answer it. `used` tells operations that use a KMS key's material
# from the others. Written by the tests of src/front/codes.rs with STRONGROOM_GOLDEN=write.
# service\tmaterial\tcondition\tcode\tstatus (AWS JSON)\tstatus (REST)
";

    fn table() -> String {
        let mut text = HEADER.to_owned();
        let kinds: BTreeSet<_> = TABLE.iter().map(|row| (row.service, row.cryptographic)).collect();
        for (service, used) in kinds {
            let of_kind = |row: &&Row| row.service == service && row.cryptographic == used;
            let row = TABLE.iter().find(of_kind).expect("an operation of this kind");
            for condition in Condition::ALL {
                let (code, status) = code(row, *condition);
                let material = if used { "used" } else { "unused" };
                let (service, status) = (service.prefix(), status.as_u16());
                let rest = rest::status(row, *condition).as_u16();
                writeln!(text, "{service}\t{material}\t{condition:?}\t{code}\t{status}\t{rest}")
                    .expect("writes into a string");
            }
        }
        text
    }

    #[test]
    fn the_error_table_is_the_golden_one() {
        if std::env::var("STRONGROOM_GOLDEN").is_ok_and(|mode| mode == "write") {
            std::fs::write(GOLDEN, table()).expect("the golden file is written");
        }
        let golden = std::fs::read_to_string(GOLDEN).expect("the golden file");
        assert_eq!(table(), golden, "on purpose? STRONGROOM_GOLDEN=write, and look at the diff");
    }

    #[test]
    fn secrets_manager_uses_no_key_material_in_its_rows() {
        assert!(!TABLE.iter().any(|r| r.service == Service::SecretsManager && r.cryptographic));
    }
}
