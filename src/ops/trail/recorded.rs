//! A request as its record holds it, ready to be judged again.

use super::explanation::Explanation;
use crate::audit::Tls;
use crate::clock::Time;
use crate::name::{Service, Uuid};
use crate::ops::call::{Call, Origin, Services};
use crate::ops::{Row, find};
use crate::policy::{Caller, Facts, PrincipalKind, Session};
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::Arc;

/// A recorded request of a principal.
pub(super) struct Recorded {
    /// What was decided.
    pub(super) told: Explanation,
    /// Who called, as far as the record tells: neither session policies nor session tags.
    pub(super) caller: Arc<Caller>,
    /// The operation.
    pub(super) row: &'static Row,
    /// When it came.
    pub(super) time: Time,
    /// The input, without what is secret; none if the record does not hold it.
    pub(super) input: Option<serde_json::Value>,
    source_ip: IpAddr,
    user_agent: String,
    tls: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    user_identity: Identity,
    user_agent: Option<String>,
    #[serde(default)]
    request_parameters: serde_json::Value,
    tls_details: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    r#type: String,
    principal_id: String,
    arn: String,
    account_id: String,
    access_key_id: Option<String>,
    session_context: Option<Context>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    session_issuer: Option<Issuer>,
    web_id_federation_data: Option<Federation>,
    attributes: Attributes,
    source_identity: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Issuer {
    principal_id: String,
    arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Federation {
    federated_provider: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    creation_date: String,
}

impl Recorded {
    /// From a line of the log; none for what is no request of a user, a role or a root.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let told = Explanation::of_record(line)?;
        let record: Record = serde_json::from_slice(line).ok()?;
        let service = Service::ALL.into_iter().find(|s| s.event_source() == told.event_source)?;
        let row = find(service, &told.event_name)?;
        let parameters = &record.request_parameters;
        let cut = parameters.get("omitted").is_some();
        let plan = row.input_plan().filter(|_| parameters.is_object() && !cut);
        Some(Self {
            caller: Arc::new(record.user_identity.caller()?),
            row,
            time: moment(&told.event_time)?,
            input: plan.and_then(|plan| plan.restored(parameters)),
            source_ip: told.source_ip_address.as_deref()?.parse().ok()?,
            user_agent: record.user_agent.unwrap_or_default(),
            tls: record.tls_details.is_some(),
            told,
        })
    }

    /// The same request once more; it is not run.
    pub(super) fn call(&self, services: &Arc<Services>) -> Call {
        let tls = self.tls.then_some(Tls { version: "", cipher: "" });
        let origin = Origin {
            request_id: Uuid::NIL,
            source_ip: self.source_ip,
            user_agent: self.user_agent.clone(),
            tls,
        };
        Call::new(services.clone(), self.row, self.caller.clone(), self.time, origin)
    }

    /// The condition keys that the input answers; none if the record does not hold it.
    pub(super) fn facts(&self) -> Option<Box<dyn Facts>> {
        let body = serde_json::to_vec(self.input.as_ref()?).ok()?;
        self.row.facts(&body).ok()
    }

    /// A text member of the input.
    pub(super) fn named(&self, member: &str) -> Option<&str> {
        self.input.as_ref()?.get(member)?.as_str()
    }
}

impl Identity {
    fn caller(self) -> Option<Caller> {
        let kind = match self.r#type.as_str() {
            "Root" => PrincipalKind::Root,
            "IAMUser" => PrincipalKind::User,
            "AssumedRole" => PrincipalKind::AssumedRole,
            _ => return None,
        };
        let session = match self.session_context {
            Some(context) => Some(context.session(&self.arn, &self.principal_id)?),
            None => None,
        };
        Some(Caller {
            account: self.account_id,
            arn: self.arn,
            principal_id: self.principal_id,
            kind,
            access_key_id: self.access_key_id,
            session: session.map(Arc::new),
        })
    }
}

impl Context {
    /// The session of a role, or of the user with this ARN and id.
    fn session(self, arn: &str, id: &str) -> Option<Session> {
        let name = self.session_issuer.as_ref().and_then(|_| arn.rsplit('/').next());
        let name = name.unwrap_or_default().to_owned();
        let issuer = self.session_issuer;
        let (issuer_arn, issuer_id) =
            issuer.map_or((arn.to_owned(), id.to_owned()), |i| (i.arn, i.principal_id));
        let issued = moment(&self.attributes.creation_date)?;
        Some(Session {
            issuer_arn,
            issuer_id,
            name,
            policies: Vec::new(),
            tags: Vec::new(),
            transitive: Vec::new(),
            issued,
            expires: Time(i64::MAX),
            source_identity: self.source_identity,
            provider: self.web_id_federation_data.map(|data| data.federated_provider),
            chained: false,
        })
    }
}

/// A moment as records write it.
fn moment(text: &str) -> Option<Time> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    Some(Time(stamp.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(identity: &serde_json::Value, parameters: &serde_json::Value) -> Option<Recorded> {
        let record = json!({
            "userIdentity": identity,
            "eventTime": "2026-01-01T00:00:00.000Z",
            "eventSource": "kms.amazonaws.com",
            "eventName": "Encrypt",
            "sourceIPAddress": "10.0.0.7",
            "userAgent": "test",
            "requestParameters": parameters,
            "requestID": "r",
            "eventID": "e",
        });
        Recorded::read(&serde_json::to_vec(&record).expect("JSON"))
    }

    #[test]
    fn a_role_session_is_known_again_with_its_issuer_and_the_input_by_its_names() {
        let identity = json!({
            "type": "AssumedRole",
            "principalId": "AROAX:s1",
            "arn": "arn:aws:sts::111122223333:assumed-role/app/s1",
            "accountId": "111122223333",
            "sessionContext": {
                "sessionIssuer": {
                    "principalId": "AROAX", "arn": "arn:aws:iam::111122223333:role/app",
                },
                "attributes": {"creationDate": "2025-12-31T23:00:00.000Z"},
            },
        });
        let parameters = json!({"keyId": "alias/x", "encryptionContext": {"App": "web"}});
        let known = record(&identity, &parameters).expect("a request");
        assert_eq!(known.caller.principal_arn(), "arn:aws:iam::111122223333:role/app");
        let session = known.caller.session.as_deref().expect("a session");
        assert_eq!((session.issuer_id.as_str(), session.name.as_str()), ("AROAX", "s1"));
        assert_eq!(known.named("KeyId"), Some("alias/x"));
        let facts = known.facts().expect("an input");
        let context = facts.fact("kms:encryptioncontext:app");
        assert_eq!(context, Some(crate::policy::Values::one("web")));
    }

    #[test]
    fn what_was_cut_is_not_guessed_and_strangers_are_passed_over() {
        let root = json!({"type": "Root", "principalId": "111122223333",
            "arn": "arn:aws:iam::111122223333:root", "accountId": "111122223333"});
        for cut in [json!({"omitted": true}), json!({"keyId": "OMITTED_DUE_TO_SIZE"}), json!(null)]
        {
            assert!(record(&root, &cut).expect("a request").facts().is_none(), "{cut}");
        }
        assert!(record(&json!({"type": "Unknown"}), &json!({})).is_none());
    }
}
