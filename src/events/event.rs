//! What an audit record says has become of a secret, as a document for whoever wants to know.
//!
//! The envelope is EventBridge's:
//! <https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html>. Of a record only
//! members that are named here get into an event, and none of them is ever a secret value.

use crate::clock::Time;
use crate::name::{Arn, SUFFIX_LEN, Service};
use memchr::memmem;
use serde::Serialize;
use serde_json::{Map, Value};

/// Whose events these are. Not `aws.secretsmanager`: names that begin with `aws.` are AWS's own, and its
/// event buses take none from elsewhere.
const SOURCE: &str = "strongroom.secretsmanager";
/// Records of what the appliance does by itself, or has found, that are events by their own name. Their
/// particulars hold nothing secret and go along.
const HAPPENINGS: [&str; 9] = [
    "RotationStarted",
    "RotationSucceeded",
    "RotationFailed",
    "TestRotationStarted",
    "TestRotationSucceeded",
    "TestRotationFailed",
    "SecretExpiring",
    "SecretExpired",
    "SecretDrifted",
];

/// Something that has become of a secret.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Event {
    version: &'static str,
    /// The id of the audit record: the same whenever it is sent.
    pub(super) id: String,
    /// What has happened.
    #[serde(rename = "detail-type")]
    pub(super) kind: String,
    source: &'static str,
    /// The account whose secret it is.
    pub(super) account: String,
    time: String,
    region: String,
    /// The secret's ARN.
    resources: [String; 1],
    detail: Map<String, Value>,
}

impl Event {
    /// The event that a record of the audit log is, if it is one.
    pub(super) fn of(record: &[u8]) -> Option<Self> {
        // Nearly all records are reads: a look at the bytes is enough for them.
        let marks: [&[u8]; 2] = [b"\"serviceEventDetails\":", b"\"AwsServiceEvent\""];
        if !marks.iter().any(|mark| memmem::find(record, mark).is_some()) {
            return None;
        }
        Self::read(&serde_json::from_slice(record).ok()?)
    }

    fn read(record: &Value) -> Option<Self> {
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        let ours = text("eventSource") == Some(Service::SecretsManager.event_source());
        if !ours || record.get("errorCode").is_some() {
            return None;
        }
        let operation = text("eventName")?;
        let change = record.pointer("/serviceEventDetails/secret");
        let by_itself = text("eventType") == Some("AwsServiceEvent");
        let happening = by_itself && HAPPENINGS.contains(&operation);
        let kind = match change {
            _ if happening => operation,
            Some(change) => kind(operation, change),
            None => return None,
        };
        let arn =
            change.and_then(|change| change.get("arn")).or(record.pointer("/resources/0/ARN"));
        let arn = arn?.as_str()?;
        let name = name_in(arn)?;
        let mut detail = match record.get("requestParameters") {
            Some(Value::Object(particulars)) if happening => particulars.clone(),
            _ => Map::new(),
        };
        let mut say = |name: &str, value: Option<&Value>| {
            if let Some(value) = value {
                detail.insert(name.to_owned(), value.clone());
            }
        };
        say("operation", record.get("eventName"));
        say("requestId", record.get("requestID"));
        say("principal", record.pointer("/userIdentity/arn").filter(|_| !by_itself));
        for member in ["revision", "currentVersionId"] {
            say(member, change.and_then(|change| change.get(member)));
        }
        detail.insert("name".to_owned(), name.into());
        Some(Self {
            version: "0",
            id: text("eventID")?.to_owned(),
            kind: kind.to_owned(),
            source: SOURCE,
            account: Arn::parse(arn)?.account.to_owned(),
            time: text("eventTime")?.to_owned(),
            region: text("awsRegion")?.to_owned(),
            resources: [arn.to_owned()],
            detail,
        })
    }

    /// The secret's name.
    pub(super) fn secret(&self) -> &str {
        self.detail.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// When it happened; none if the record tells no time.
    pub(super) fn time(&self) -> Option<Time> {
        let stamp: jiff::Timestamp = self.time.parse().ok()?;
        Some(Time(stamp.as_millisecond()))
    }

    /// As it is sent: the same bytes whenever it is.
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What a change of a secret is called.
fn kind(operation: &str, change: &Value) -> &'static str {
    let is = |member: &str| change.get(member).and_then(Value::as_bool) == Some(true);
    match operation {
        _ if is("deleted") => "SecretDeleted",
        "CreateSecret" => "SecretCreated",
        "DeleteSecret" => "SecretDeletionScheduled",
        "RestoreSecret" => "SecretRestored",
        _ if is("valueChanged") => "SecretValueChanged",
        _ => "SecretChanged",
    }
}

/// The name in a secret's ARN.
fn name_in(arn: &str) -> Option<&str> {
    let name = Arn::parse(arn)?.resource.strip_prefix("secret:")?;
    let (name, suffix) = name.rsplit_once('-')?;
    (suffix.len() == SUFFIX_LEN).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:prod/db-AbCdEf";

    /// A record as the log has it.
    fn record(name: &str, more: Value) -> Value {
        let mut record = json!({
            "eventTime": "2026-01-01T00:00:00.123Z", "eventSource": "secretsmanager.amazonaws.com",
            "eventName": name, "awsRegion": "eu-central-1", "eventID": "e", "requestID": "r",
            "eventType": "AwsApiCall", "userIdentity": {"arn": "arn:aws:iam::444455556666:user/x"},
            "requestParameters": {"secretId": "prod/db", "description": "not told"},
            "resources": [{"ARN": ARN}],
        });
        let Value::Object(more) = more else { panic!("members") };
        record.as_object_mut().expect("an object").extend(more);
        record
    }

    fn told(record: &Value) -> Option<Value> {
        Event::of(record.to_string().as_bytes()).map(|event| json!(event))
    }

    fn change(more: Value) -> Value {
        let mut secret = json!({"arn": ARN, "name": "prod/db", "revision": 7, "valueChanged": false,
            "currentVersionId": "v", "deleted": false});
        let Value::Object(more) = more else { panic!("members") };
        secret.as_object_mut().expect("an object").extend(more);
        json!({"serviceEventDetails": {"secret": secret}})
    }

    #[test]
    fn a_change_is_an_event_in_the_envelope_of_eventbridge() {
        let event = told(&record("PutSecretValue", change(json!({"valueChanged": true}))));
        assert_eq!(
            event.expect("an event"),
            json!({
                "version": "0", "id": "e", "detail-type": "SecretValueChanged",
                "source": "strongroom.secretsmanager", "account": "111122223333",
                "time": "2026-01-01T00:00:00.123Z", "region": "eu-central-1", "resources": [ARN],
                "detail": {"name": "prod/db", "operation": "PutSecretValue", "requestId": "r",
                    "principal": "arn:aws:iam::444455556666:user/x", "revision": 7,
                    "currentVersionId": "v"},
            })
        );
    }

    #[test]
    fn each_kind_of_change_has_its_name() {
        let kind = |name: &str, more| {
            let event = told(&record(name, change(more))).expect("an event");
            event["detail-type"].as_str().expect("a text").to_owned()
        };
        assert_eq!(kind("CreateSecret", json!({"valueChanged": true})), "SecretCreated");
        assert_eq!(kind("DeleteSecret", json!({})), "SecretDeletionScheduled");
        assert_eq!(kind("DeleteSecret", json!({"deleted": true})), "SecretDeleted");
        assert_eq!(kind("EndSecretVersionDelete", json!({"deleted": true})), "SecretDeleted");
        assert_eq!(kind("RestoreSecret", json!({})), "SecretRestored");
        assert_eq!(kind("TagResource", json!({})), "SecretChanged");
    }

    #[test]
    fn what_changed_nothing_failed_or_is_no_secret_s_is_no_event() {
        assert_eq!(told(&record("PutSecretValue", json!({}))), None, "the same value again");
        let failed = json!({"errorCode": "InternalServiceError"});
        let mut both = change(json!({}));
        both.as_object_mut().expect("an object").extend(failed.as_object().expect("one").clone());
        assert_eq!(told(&record("PutSecretValue", both)), None);
        let mut foreign = change(json!({}));
        foreign["eventSource"] = "kms.amazonaws.com".into();
        assert_eq!(told(&record("PutSecretValue", foreign)), None);
        assert_eq!(told(&record("GetSecretValue", json!({"eventType": "AwsServiceEvent"}))), None);
        assert_eq!(Event::of(b"torn \"AwsServiceEvent\""), None);
    }

    #[test]
    fn what_the_appliance_has_found_is_told_with_its_particulars() {
        let by_itself = json!({"eventType": "AwsServiceEvent",
            "requestParameters": {"step": "testSecret", "reason": "no login"}});
        let event = told(&record("RotationFailed", by_itself)).expect("an event");
        assert_eq!(event["detail-type"], "RotationFailed");
        assert_eq!(
            event["detail"],
            json!({"name": "prod/db", "operation": "RotationFailed", "requestId": "r",
                "step": "testSecret", "reason": "no login"})
        );
        // Nobody gets such an event by naming an operation like it.
        assert_eq!(told(&record("SecretDrifted", json!({"x": "\"AwsServiceEvent\""}))), None);
    }
}
