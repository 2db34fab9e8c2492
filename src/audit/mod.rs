//! Proof of what was done: one JSON record per request, in CloudTrail's field names, in the log
//! before the answer leaves.
//!
//! A change's record commits in the same transaction as the change and is moved to the log from
//! there ([`outbox`]); every other record is appended before the answer and on disk within 100 ms,
//! or before the answer too with `sync = "always"`. No record, no answer.
//!
//! The log is kept as a Merkle tree ([`tree`]) with checkpoints that a key in the token signs
//! ([`checkpoint`]), so that what was changed, dropped or moved in it shows. docs/audit.md has the
//! formats.

pub mod checkpoint;
mod fit;
pub mod log;
pub mod merkle;
pub mod note;
mod options;
pub mod outbox;
pub mod proof;
pub mod reader;
mod recorder;
mod signer;
pub mod sink;
mod strangers;
pub mod tiles;
pub mod tree;
pub mod verify;

pub use options::Options;
pub use recorder::{Parts, Recorder, Status};

use crate::clock::Time;
use crate::json::Object;
use crate::name::{Service, Uuid};
use crate::policy::{Caller, PrincipalKind};
use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;

/// What the log says of one request.
pub struct Record<'a> {
    /// When it came.
    pub time: Time,
    /// Whose operation it was, if that was understood.
    pub service: Option<Service>,
    /// The operation, or what was given for one.
    pub operation: &'a str,
    /// Whether it only looks.
    pub read_only: bool,
    /// The region of the appliance.
    pub region: &'a str,
    /// Who called, if that was proved.
    pub caller: Option<&'a Caller>,
    /// Where it came from.
    pub source: Source,
    /// The caller's `User-Agent`.
    pub user_agent: &'a str,
    /// The request id that the caller was told.
    pub request_id: Uuid,
    /// This record's own id.
    pub event_id: Uuid,
    /// ARNs of what it acted on.
    pub resources: &'a [String],
    /// The error code and message, if it failed.
    pub error: Option<(&'a str, &'a str)>,
}

/// What TLS agreed on with a client; named as CloudTrail's `tlsDetails` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite's IANA name.
    pub cipher: &'static str,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// An address.
    Address(IpAddr),
    /// The appliance itself, in the name of a service.
    Service(Service),
}

impl Record<'_> {
    /// One line of JSON, its line feed included.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(1280);
        let mut object = Object::begin(&mut line);
        object
            .text("eventVersion", "1.11")
            .text("eventID", self.event_id.as_str())
            .text("eventTime", &rfc3339(self.time))
            .text("eventSource", self.service.map_or("strongroom", Service::event_source))
            .text("eventName", self.operation)
            .text("eventType", event_type(self.caller))
            .raw("readOnly", if self.read_only { "true" } else { "false" })
            .text("awsRegion", self.region);
        match self.source {
            Source::Address(address) => object.text("sourceIPAddress", &address.to_string()),
            Source::Service(service) => object.text("sourceIPAddress", service.event_source()),
        };
        object
            .text("userAgent", self.user_agent)
            .text("requestID", self.request_id.as_str())
            .object("userIdentity", |identity| identify(identity, self.caller));
        if let Some(caller) = self.caller {
            object.text("recipientAccountId", &caller.account);
        }
        if !self.resources.is_empty() {
            object.list("resources", self.resources, |out, arn| {
                Object::begin(out).text("ARN", arn).end();
            });
        }
        if let Some((code, message)) = self.error {
            object.text("errorCode", code).text("errorMessage", message);
        }
        object.end();
        line.push(b'\n');
        line
    }
}

/// CloudTrail tells what a service does by itself from what it is asked for.
fn event_type(caller: Option<&Caller>) -> &'static str {
    match caller.map(|c| c.kind) {
        Some(PrincipalKind::System) => "AwsServiceEvent",
        _ => "AwsApiCall",
    }
}

fn identify(identity: &mut Object<'_>, caller: Option<&Caller>) {
    let Some(caller) = caller else {
        identity.text("type", "Unknown");
        return;
    };
    identity
        .text("type", caller.kind.event_name())
        .text("principalId", &caller.principal_id)
        .text("arn", &caller.arn)
        .text("accountId", &caller.account);
    if let Some(id) = &caller.access_key_id {
        identity.text("accessKeyId", id);
    }
}

/// A moment as `2026-01-31T12:00:00.000Z`. The text of the second is kept from one record to the
/// next.
fn rfc3339(time: Time) -> String {
    thread_local! {
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != time.seconds() {
            *second = time.seconds();
            let stamp = jiff::Timestamp::from_second(*second).unwrap_or(jiff::Timestamp::MAX);
            *text = stamp.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        format!("{text}.{:03}Z", time.0.rem_euclid(1000))
    })
}

/// What can go wrong with the log. Each of them means that the request gets no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The log can't be written.
    #[error("the audit log `{path}` can't be written: {why}")]
    Io {
        /// Which file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// Records of changes pile up in the database because the log does not take them.
    #[error("too many audit records wait in the database for the audit log")]
    Behind,
    /// Records pile up in the log because the tree does not take them.
    #[error("too many audit records wait in the audit log for its tree")]
    Unsealed,
    /// A record that no tree takes.
    #[error("an audit record of more than 65535 bytes")]
    TooLong,
    /// The log, or what belongs to it, is not what the server made of it.
    #[error("the audit log was changed: `{path}`: {why}; see `strongroom audit verify`")]
    Altered {
        /// Which file.
        path: String,
        /// In which way.
        why: String,
    },
    /// A part of the tree is not there.
    #[error("the audit log's tree lacks {what}; see `strongroom audit verify`")]
    Missing {
        /// Which part.
        what: String,
    },
    /// No signature for a checkpoint.
    #[error("the audit log's tree can't be signed for: {why}")]
    Signing {
        /// Why not.
        why: String,
    },
    /// A sink that must take every record does not.
    #[error("the audit sink `{name}` fails: {why}")]
    Sink {
        /// Which one.
        name: String,
        /// In which way.
        why: String,
    },
}

impl Error {
    fn io(path: &Path, why: &std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), why: why.to_string() }
    }

    fn altered(path: &Path, why: &str) -> Self {
        Self::Altered { path: path.display().to_string(), why: why.to_owned() }
    }

    fn database(why: &crate::store::Error) -> Self {
        Self::Io { path: "the database".into(), why: why.to_string() }
    }

    fn signing(why: &str) -> Self {
        Self::Signing { why: why.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_with_the_trail_s_field_names() {
        let record = Record {
            time: Time(1_767_225_600_123),
            service: Some(Service::Kms),
            operation: "Decrypt",
            read_only: true,
            region: "eu-central-1",
            caller: None,
            source: Source::Address(IpAddr::from([127, 0, 0, 1])),
            user_agent: "a\nb",
            request_id: Uuid::NIL,
            event_id: Uuid::NIL,
            resources: &["arn:aws:kms:x".into()],
            error: Some(("AccessDeniedException", "no")),
        };
        let line = record.encode();
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1, "one line, whatever is in it");
        let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(json["eventTime"], "2026-01-01T00:00:00.123Z");
        assert_eq!(json["eventSource"], "kms.amazonaws.com");
        assert_eq!(json["userIdentity"]["type"], "Unknown");
        assert_eq!(json["resources"][0]["ARN"], "arn:aws:kms:x");
        assert_eq!(json["errorCode"], "AccessDeniedException");
    }
}
