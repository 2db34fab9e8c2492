//! One record: CloudTrail's fields
//! (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>),
//! as one line of JSON.

use crate::clock::Time;
use crate::json::Object;
use crate::name::{Arn, Service, Uuid};
use crate::policy::{Caller, PrincipalKind, Session};
use std::cell::RefCell;
use std::net::IpAddr;

/// The event source of what is no service's: requests that were not understood, start and end.
pub const OWN_SOURCE: &str = "strongroom";

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
    /// What TLS agreed on; none on a plain connection.
    pub tls: Option<Tls>,
    /// The request id that the caller was told.
    pub request_id: Uuid,
    /// This record's own id.
    pub event_id: Uuid,
    /// The input, as JSON without what is secret; empty if it was not understood.
    pub parameters: &'a [u8],
    /// The answer, as JSON without what is secret; empty where CloudTrail has `null`.
    pub response: &'a [u8],
    /// What the policies said: JSON objects with commas between them.
    pub decisions: &'a [u8],
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
    /// The appliance itself, in the name of a service or in its own.
    Service(Option<Service>),
}

impl Record<'_> {
    /// One line of JSON, its line feed included.
    pub fn encode(&self) -> Vec<u8> {
        let more = self.parameters.len() + self.response.len() + self.decisions.len();
        let mut line = Vec::with_capacity(1536 + more);
        let mut object = Object::begin(&mut line);
        object.text("eventVersion", "1.11").object("userIdentity", |identity| {
            identify(identity, self.caller);
        });
        object
            .text("eventTime", &rfc3339(self.time))
            .text("eventSource", self.service.map_or(OWN_SOURCE, Service::event_source))
            .text("eventName", self.operation)
            .text("awsRegion", self.region);
        match self.source {
            Source::Address(address) => object.text("sourceIPAddress", &address.to_string()),
            Source::Service(service) => {
                object.text("sourceIPAddress", service.map_or(OWN_SOURCE, Service::event_source))
            }
        };
        object.text("userAgent", self.user_agent);
        if let Some((code, message)) = self.error {
            object.text("errorCode", code).text("errorMessage", message);
        }
        object
            .raw("requestParameters", json(self.parameters))
            .raw("responseElements", json(self.response));
        if !self.decisions.is_empty() {
            object.object("additionalEventData", |data| {
                data.raws("decisions", text(self.decisions));
            });
        }
        object
            .text("requestID", self.request_id.as_str())
            .text("eventID", self.event_id.as_str())
            .raw("readOnly", if self.read_only { "true" } else { "false" });
        if !self.resources.is_empty() {
            object.list("resources", self.resources, |out, arn| resource(out, arn));
        }
        object.text("eventType", event_type(self.caller)).raw("managementEvent", "true");
        if let Some(caller) = self.caller {
            object.text("recipientAccountId", &caller.account);
        }
        object.text("eventCategory", "Management");
        if let Some(tls) = self.tls {
            object.object("tlsDetails", |details| {
                details.text("tlsVersion", tls.version).text("cipherSuite", tls.cipher);
            });
        }
        object.end();
        line.push(b'\n');
        line
    }
}

/// The same line with particulars of what was done, which are known only as it is done: CloudTrail's
/// `serviceEventDetails`.
pub fn with_details(line: &[u8], fill: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let Some(open) = line.strip_suffix(b"}\n") else { return line.to_vec() };
    let mut told = Vec::with_capacity(line.len() + 256);
    told.extend_from_slice(open);
    told.extend_from_slice(b",\"serviceEventDetails\":");
    let mut details = Object::begin(&mut told);
    fill(&mut details);
    details.end();
    told.extend_from_slice(b"}\n");
    told
}

/// JSON that is written already; `null` if there is none.
fn json(bytes: &[u8]) -> &str {
    if bytes.is_empty() { "null" } else { text(bytes) }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("null")
}

/// A resource: its ARN, its account, its type, as CloudTrail has them.
fn resource(out: &mut Vec<u8>, arn: &str) {
    let mut object = Object::begin(out);
    if let Some(parts) = Arn::parse(arn) {
        object.text("accountId", parts.account);
        let kind = match (parts.service, parts.resource.split([':', '/']).next()) {
            ("kms", Some("key")) => "AWS::KMS::Key",
            ("kms", _) => "AWS::KMS::Alias",
            ("secretsmanager", _) => "AWS::SecretsManager::Secret",
            ("iam", Some("user")) => "AWS::IAM::User",
            ("iam", Some("group")) => "AWS::IAM::Group",
            ("iam", Some("role")) => "AWS::IAM::Role",
            ("iam", _) => "AWS::IAM::Policy",
            _ => "",
        };
        if !kind.is_empty() {
            object.text("type", kind);
        }
    }
    object.text("ARN", arn).end();
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
    if caller.kind == PrincipalKind::User {
        identity.text("userName", name(caller.principal_arn()));
    }
    if let Some(session) = &caller.session {
        identity.object("sessionContext", |context| in_session(context, caller, session));
    }
}

fn in_session(context: &mut Object<'_>, caller: &Caller, session: &Session) {
    if caller.kind == PrincipalKind::AssumedRole {
        context.object("sessionIssuer", |issuer| {
            issuer
                .text("type", "Role")
                .text("principalId", &session.issuer_id)
                .text("arn", &session.issuer_arn)
                .text("accountId", &caller.account)
                .text("userName", name(&session.issuer_arn));
        });
    }
    if let Some(provider) = &session.provider {
        context.object("webIdFederationData", |data| {
            data.text("federatedProvider", provider);
        });
    }
    context.object("attributes", |attributes| {
        attributes.text("creationDate", &rfc3339(session.issued)).text("mfaAuthenticated", "false");
    });
    if let Some(source) = &session.source_identity {
        context.text("sourceIdentity", source);
    }
}

/// The name at the end of an ARN.
fn name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// A moment as `2026-01-31T12:00:00.000Z`. The text of the second is kept from one record to the
/// next.
pub(super) fn rfc3339(time: Time) -> String {
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
            tls: Some(Tls { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256" }),
            parameters: br#"{"keyId":"k"}"#,
            response: b"",
            decisions: br#"{"action":"kms:Decrypt"},{"action":"kms:Encrypt"}"#,
            request_id: Uuid::NIL,
            event_id: Uuid::NIL,
            resources: &["arn:aws:kms:eu-central-1:111122223333:key/x".into()],
            error: Some(("AccessDeniedException", "no")),
        };
        let line = record.encode();
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1, "one line, whatever is in it");
        let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(json["eventTime"], "2026-01-01T00:00:00.123Z");
        assert_eq!(json["eventSource"], "kms.amazonaws.com");
        assert_eq!(json["userIdentity"]["type"], "Unknown");
        assert_eq!(json["resources"][0]["type"], "AWS::KMS::Key");
        assert_eq!(json["resources"][0]["accountId"], "111122223333");
        assert_eq!(json["requestParameters"]["keyId"], "k");
        assert!(json["responseElements"].is_null());
        assert_eq!(json["additionalEventData"]["decisions"][1]["action"], "kms:Encrypt");
        assert_eq!(json["tlsDetails"]["tlsVersion"], "TLSv1.3");
        assert_eq!(json["errorCode"], "AccessDeniedException");
        let told = with_details(&line, |details| {
            details.text("name", "a\"b");
        });
        assert_eq!(told.iter().filter(|b| **b == b'\n').count(), 1);
        let mut told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
        assert_eq!(told["serviceEventDetails"], serde_json::json!({"name": "a\"b"}));
        told.as_object_mut().expect("an object").remove("serviceEventDetails");
        assert_eq!(told, json);
    }
}
