//! What a record of the audit log tells of how its request was decided.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a request was decided, from its record; what a server adds from its policies as they stand
/// now is in [`Decided::now`] and [`Decided::asked`].
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Explanation {
    /// The id that the caller was told.
    pub request_id: String,
    /// The record's own id.
    pub event_id: String,
    /// When it came, as the record has it.
    pub event_time: String,
    /// The service.
    pub event_source: String,
    /// The operation.
    pub event_name: String,
    /// Who called.
    pub principal: Principal,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip_address: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The error, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// What the policies said, in the order in which they were asked.
    pub decisions: Vec<Decided>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// It was allowed and done.
    Done,
    /// A policy forbade it, or none allowed it.
    Denied,
    /// It was allowed and failed for another reason.
    Failed,
    /// It failed before a policy was asked.
    Undecided,
}

/// Who called.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Principal {
    /// The kind of principal; `Unknown` if the caller was not proved.
    pub r#type: String,
    /// Its ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// The access key that signed the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The role of a role session: its policies count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
}

/// One decision.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Decided {
    /// The IAM action.
    pub action: String,
    /// The ARN of the resource; `*` where the action has none.
    pub resource: String,
    /// `Allow`, `ExplicitDeny` or `ImplicitDeny`.
    pub effect: String,
    /// The kind of policy that decided; for an implicit denial the kind that lacks an allowance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The policy: an ARN, or the name of an inline policy; none where none was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Which statement of it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_number: Option<usize>,
    /// What its writer called the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// The grant that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<String>,
    /// The policy as it stands now; more than one where several have its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub now: Vec<Standing>,
    /// For a denial: the policies of each kind that were asked, as they are now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
}

/// A policy that decided, as it stands now.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Standing {
    /// The ARN of what it hangs on; for a managed policy its own.
    pub holder: String,
    /// Whether it is what it was.
    pub state: State,
    /// The statement that stands now where the one that decided stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<serde_json::Value>,
    /// The last change since the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<Change>,
}

/// What became of a policy since a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// No change is on record: the statement is the one that decided.
    Unchanged,
    /// It was changed: the statement may be another one.
    Changed,
    /// It is there and no longer attached to the caller.
    Detached,
    /// It is no longer there, or has fewer statements.
    Gone,
    /// More changes are on record than were looked through.
    Unknown,
}

/// A change of a policy, as the audit log has it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// The record's id.
    pub event_id: String,
    /// The operation.
    pub event_name: String,
    /// When it was done.
    pub event_time: String,
    /// Who did it.
    pub principal_arn: String,
}

/// The policies of one kind.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Asked {
    /// The kind.
    pub kind: String,
    /// Whether this is the kind that lacked an allowance.
    pub lacking: bool,
    /// Their names; none if there is no policy of this kind.
    pub policies: Vec<String>,
}

/// A record, as far as it is explained.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(default)]
    user_identity: Identity,
    event_time: String,
    event_source: String,
    event_name: String,
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    additional_event_data: Option<More>,
    #[serde(rename = "requestID", default)]
    request_id: String,
    #[serde(rename = "eventID")]
    event_id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Identity {
    r#type: String,
    arn: Option<String>,
    account_id: Option<String>,
    access_key_id: Option<String>,
    session_context: Option<Context>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    session_issuer: Option<Issuer>,
}

#[derive(Deserialize)]
struct Issuer {
    arn: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct More {
    decisions: Vec<Decision>,
}

#[derive(Deserialize)]
struct Decision {
    action: String,
    resource: String,
    effect: String,
    source: Option<String>,
    policy: Option<String>,
    statement: Option<usize>,
    sid: Option<String>,
    grant: Option<String>,
}

impl Explanation {
    /// From a line of the audit log; none if it is no record.
    pub fn of_record(line: &[u8]) -> Option<Self> {
        let record: Record = serde_json::from_slice(line).ok()?;
        let decisions = record.additional_event_data.unwrap_or_default().decisions;
        let mut explanation = Self {
            request_id: record.request_id,
            event_id: record.event_id,
            event_time: record.event_time,
            event_source: record.event_source,
            event_name: record.event_name,
            principal: record.user_identity.into(),
            source_ip_address: record.source_ip_address,
            outcome: Outcome::Undecided,
            error_code: record.error_code,
            error_message: record.error_message,
            decisions: decisions.into_iter().map(Decided::from).collect(),
        };
        explanation.outcome = explanation.outcome();
        Some(explanation)
    }

    /// Whether this is the request, or the event, of this id.
    pub fn is_of(&self, id: &str) -> bool {
        [&self.request_id, &self.event_id].into_iter().any(|own| own.eq_ignore_ascii_case(id))
    }

    /// What became of it. A batch goes on where one of its parts is denied, and succeeds.
    fn outcome(&self) -> Outcome {
        let refused = |code: &String| code.starts_with("AccessDenied");
        match (&self.error_code, self.decisions.last()) {
            (None, _) => Outcome::Done,
            (Some(code), Some(last)) if last.effect != "Allow" && refused(code) => Outcome::Denied,
            (Some(_), None) => Outcome::Undecided,
            (Some(_), Some(_)) => Outcome::Failed,
        }
    }
}

impl From<Identity> for Principal {
    fn from(identity: Identity) -> Self {
        let issuer = identity.session_context.and_then(|context| context.session_issuer);
        Self {
            r#type: identity.r#type,
            arn: identity.arn,
            account_id: identity.account_id,
            access_key_id: identity.access_key_id,
            role_arn: issuer.map(|issuer| issuer.arn),
        }
    }
}

impl From<Decision> for Decided {
    fn from(decision: Decision) -> Self {
        Self {
            action: decision.action,
            resource: decision.resource,
            effect: decision.effect,
            kind: decision.source,
            policy: decision.policy,
            statement_number: decision.statement.map(|from_zero| from_zero.saturating_add(1)),
            sid: decision.sid,
            grant_id: decision.grant,
            now: Vec::new(),
            asked: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn explained(error: Option<&str>, decisions: &serde_json::Value) -> Explanation {
        let record = json!({
            "userIdentity": {
                "type": "AssumedRole",
                "arn": "arn:aws:sts::111122223333:assumed-role/app/s1",
                "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::111122223333:role/app"}},
            },
            "eventTime": "2026-01-01T00:00:00.000Z",
            "eventSource": "kms.amazonaws.com",
            "eventName": "Decrypt",
            "errorCode": error,
            "requestParameters": null,
            "additionalEventData": {"decisions": decisions},
            "requestID": "r",
            "eventID": "e",
        });
        Explanation::of_record(&serde_json::to_vec(&record).expect("JSON")).expect("a record")
    }

    #[test]
    fn a_record_tells_the_statement_from_one_and_the_role_behind_a_session() {
        let told = explained(
            None,
            &json!([{"action": "kms:Decrypt", "resource": "k", "effect": "Allow",
                "source": "identity-based policy", "policy": "p", "statement": 0, "sid": "A"}]),
        );
        assert_eq!(told.outcome, Outcome::Done);
        assert_eq!(told.decisions[0].statement_number, Some(1));
        assert_eq!(told.decisions[0].sid.as_deref(), Some("A"));
        let role = told.principal.role_arn.as_deref();
        assert_eq!(role, Some("arn:aws:iam::111122223333:role/app"));
        assert!(told.is_of("R") && told.is_of("e") && !told.is_of("x"));
    }

    #[test]
    fn a_denial_a_failure_and_a_request_that_no_policy_saw_are_told_apart() {
        let deny = json!([{"action": "a", "resource": "r", "effect": "ImplicitDeny"}]);
        let allow = json!([{"action": "a", "resource": "r", "effect": "Allow"}]);
        let outcome = |error, decisions| explained(error, decisions).outcome;
        assert_eq!(outcome(Some("AccessDeniedException"), &deny), Outcome::Denied);
        assert_eq!(outcome(Some("AccessDenied"), &deny), Outcome::Denied);
        assert_eq!(outcome(Some("NotFoundException"), &allow), Outcome::Failed);
        let none = json!([]);
        assert_eq!(outcome(Some("ValidationException"), &none), Outcome::Undecided);
        assert_eq!(outcome(None, &deny), Outcome::Done, "a batch of which a part was denied");
    }

    #[test]
    fn what_is_no_record_is_not_explained() {
        for line in ["", "{}", "[]", "null", r#"{"eventID": 7}"#] {
            assert!(Explanation::of_record(line.as_bytes()).is_none(), "{line}");
        }
    }
}
