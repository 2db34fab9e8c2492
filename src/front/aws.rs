//! AWS JSON 1.1: a target names a row; a condition becomes a code, a status and a body.
//!
//! This file is the one place that knows AWS's error codes.

use crate::name::Service;
use crate::ops::error::{Condition, Error};
use crate::ops::{self, Row};
use http::StatusCode;

/// The media type of requests and answers.
pub const MEDIA_TYPE: &str = "application/x-amz-json-1.1";

/// The row that `X-Amz-Target` names: `secretsmanager.GetSecretValue`, `TrentService.Encrypt`.
pub fn target(header: &str) -> Option<&'static Row> {
    let (prefix, name) = header.split_once('.')?;
    let service = Service::ALL.into_iter().find(|s| s.target_prefix() == prefix)?;
    ops::find(service, name)
}

/// The code and status of a condition, as the row's service has them.
#[expect(clippy::match_same_arms, reason = "one arm a condition: the table is read, not golfed")]
pub fn code(row: &Row, condition: Condition) -> (&'static str, StatusCode) {
    use Condition as C;
    use Service::{Kms, SecretsManager};
    let bad = StatusCode::BAD_REQUEST;
    let broken = StatusCode::INTERNAL_SERVER_ERROR;
    match (row.service, condition) {
        (_, C::Serialization) => ("SerializationException", bad),
        (_, C::Validation) => ("ValidationException", bad),
        (_, C::AccessDenied) => ("AccessDeniedException", bad),
        (_, C::Throttled) => ("ThrottlingException", bad),

        (SecretsManager, C::InvalidParameter) => ("InvalidParameterException", bad),
        (Kms, C::InvalidParameter) => ("ValidationException", bad),
        (SecretsManager, C::InvalidRequest) => ("InvalidRequestException", bad),
        (Kms, C::InvalidRequest) => ("ValidationException", bad),
        (SecretsManager, C::NotAuthorized) => ("AccessDeniedException", bad),
        (Kms, C::NotAuthorized) => ("NotAuthorizedException", bad),
        (SecretsManager, C::NotFound) => ("ResourceNotFoundException", bad),
        (Kms, C::NotFound) => ("NotFoundException", bad),
        (SecretsManager, C::AlreadyExists) => ("ResourceExistsException", bad),
        (Kms, C::AlreadyExists) => ("AlreadyExistsException", bad),
        (_, C::LimitExceeded) => ("LimitExceededException", bad),
        (SecretsManager, C::InvalidNextToken) => ("InvalidNextTokenException", bad),
        (Kms, C::InvalidNextToken) => ("InvalidMarkerException", bad),
        (_, C::MalformedPolicy) => ("MalformedPolicyDocumentException", bad),
        (SecretsManager, C::PublicPolicy) => ("PublicPolicyException", bad),
        (Kms, C::PublicPolicy) => ("MalformedPolicyDocumentException", bad),
        (SecretsManager, C::PreconditionNotMet) => ("PreconditionNotMetException", bad),
        (Kms, C::PreconditionNotMet) => ("MalformedPolicyDocumentException", bad),
        (SecretsManager, C::InvalidArn) => ("ResourceNotFoundException", bad),
        (Kms, C::InvalidArn) => ("InvalidArnException", bad),
        (SecretsManager, C::InvalidAliasName) => ("InvalidParameterException", bad),
        (Kms, C::InvalidAliasName) => ("InvalidAliasNameException", bad),
        (SecretsManager, C::Tag) => ("InvalidParameterException", bad),
        (Kms, C::Tag) => ("TagException", bad),
        (SecretsManager, C::InvalidCiphertext) => ("DecryptionFailure", bad),
        (Kms, C::InvalidCiphertext) => ("InvalidCiphertextException", bad),
        (SecretsManager, C::IncorrectKey) => ("DecryptionFailure", bad),
        (Kms, C::IncorrectKey) => ("IncorrectKeyException", bad),
        (SecretsManager, C::InvalidKeyUsage) => ("EncryptionFailure", bad),
        (Kms, C::InvalidKeyUsage) => ("InvalidKeyUsageException", bad),
        (SecretsManager, C::KeyStoreNotFound) => ("ResourceNotFoundException", bad),
        (Kms, C::KeyStoreNotFound) => ("CustomKeyStoreNotFoundException", bad),
        (SecretsManager, C::Unsupported) => ("InvalidRequestException", bad),
        (Kms, C::Unsupported) => ("UnsupportedOperationException", bad),
        (SecretsManager, C::DryRun) => ("InvalidRequestException", bad),
        (Kms, C::DryRun) => ("DryRunOperationException", bad),

        (SecretsManager, C::Disabled | C::InvalidState) => ("InvalidRequestException", bad),
        (Kms, C::Disabled) => ("DisabledException", bad),
        (Kms, C::InvalidState) => ("KMSInvalidStateException", bad),
        (SecretsManager, C::Conflict) => ("InvalidRequestException", bad),
        (Kms, C::Conflict) => ("ConflictException", bad),
        (SecretsManager, C::DecryptionFailure) => ("DecryptionFailure", bad),
        (Kms, C::DecryptionFailure) => ("InvalidCiphertextException", bad),
        (SecretsManager, C::EncryptionFailure) => ("EncryptionFailure", bad),
        (Kms, C::EncryptionFailure) => ("KMSInvalidStateException", bad),

        (
            SecretsManager,
            C::KeyUnavailable | C::DependencyTimeout | C::Unavailable | C::Internal,
        ) => ("InternalServiceError", broken),
        (Kms, C::KeyUnavailable) if row.cryptographic => ("KeyUnavailableException", broken),
        (Kms, C::DependencyTimeout) => {
            ("DependencyTimeoutException", StatusCode::SERVICE_UNAVAILABLE)
        }
        (Kms, C::KeyUnavailable | C::Unavailable | C::Internal) => ("KMSInternalException", broken),
    }
}

/// The body of an error: `__type` and the text, in the member that the service's clients expect.
pub fn error_body(service: Option<Service>, code: &str, message: &str) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Lower<'a> {
        __type: &'a str,
        message: &'a str,
    }
    #[derive(serde::Serialize)]
    struct Capital<'a> {
        __type: &'a str,
        #[serde(rename = "Message")]
        message: &'a str,
    }
    let capital = service == Some(Service::SecretsManager) && code != "SerializationException"
        || code == "AccessDeniedException";
    let body = if capital {
        serde_json::to_vec(&Capital { __type: code, message })
    } else {
        serde_json::to_vec(&Lower { __type: code, message })
    };
    body.unwrap_or_default()
}

/// The code alone, for audit records.
pub fn code_of(row: &Row, condition: Condition) -> &'static str {
    code(row, condition).0
}

/// Writes what the caller is not told to the log: our bugs and dependencies that are down.
pub fn log(row: &Row, request_id: &str, error: &Error) {
    let log = error.log.as_deref().unwrap_or_default();
    match error.condition {
        Condition::Internal => {
            tracing::error!(operation = row.name, request_id, log, "internal fault");
        }
        // A row that was altered, a key that its token has lost: somebody must look at it.
        Condition::InvalidState if error.log.is_some() => {
            tracing::error!(operation = row.name, request_id, log, "{}", error.message);
        }
        _ if error.log.is_some() => {
            tracing::warn!(operation = row.name, request_id, log, "{}", error.message);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::rest;
    use crate::ops::TABLE;
    use std::fmt::Write as _;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/errors.txt");
    const HEADER: &str = "\
# Every condition as the two doors answer it. `used` tells operations that use a KMS key's material
# from the others. Written by the tests of src/front/aws.rs with STRONGROOM_GOLDEN=write.
# service\tmaterial\tcondition\tcode\tstatus (AWS JSON)\tstatus (REST)
";

    fn table() -> String {
        let mut text = HEADER.to_owned();
        for (service, used) in
            [(Service::SecretsManager, false), (Service::Kms, false), (Service::Kms, true)]
        {
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
