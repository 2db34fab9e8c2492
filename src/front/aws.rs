//! AWS JSON 1.1: a target names a row; an error has a body.

use crate::name::Service;
use crate::ops::error::{Condition, Error};
use crate::ops::{self, Row};

/// The media type of requests and answers.
pub const MEDIA_TYPE: &str = "application/x-amz-json-1.1";

/// The row that `X-Amz-Target` names: `secretsmanager.GetSecretValue`, `TrentService.Encrypt`.
pub fn target(header: &str) -> Option<&'static Row> {
    let (prefix, name) = header.rsplit_once('.')?;
    let service = Service::ALL.into_iter().find(|s| s.target_prefixes().contains(&prefix))?;
    ops::find(service, name)
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

/// The body of an error whose code stands in a header.
pub fn message(message: &str) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        message: &'a str,
    }
    serde_json::to_vec(&Body { message }).unwrap_or_default()
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
