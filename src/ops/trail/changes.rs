//! Changes of policies, as the audit log has them.

use super::explanation::Change;
use super::holders::Held;
use crate::audit::index::{Event, Index, Kind, Query};
use crate::clock::Time;
use crate::name::Arn;
use crate::ops::error::Result;
use crate::policy::managed;
use serde::Deserialize;

/// Records of each operation that are looked through.
const MOST: usize = 1000;

/// The operations that change a policy on something of this kind.
fn changing(holder: &str) -> &'static [&'static str] {
    let Some(arn) = Arn::parse(holder).filter(|_| managed::find(holder).is_none()) else {
        return &[];
    };
    match (arn.service, arn.resource.split(['/', ':']).next()) {
        ("kms", _) => &["PutKeyPolicy"],
        ("secretsmanager", _) => &["PutResourcePolicy", "DeleteResourcePolicy"],
        ("iam", Some("user")) => &["PutUserPolicy", "DeleteUserPolicy"],
        ("iam", Some("group")) => &["PutGroupPolicy", "DeleteGroupPolicy"],
        ("iam", Some("role")) => &["PutRolePolicy", "DeleteRolePolicy", "UpdateAssumeRolePolicy"],
        ("iam", Some("policy")) => {
            &["CreatePolicyVersion", "SetDefaultPolicyVersion", "CreatePolicy", "DeletePolicy"]
        }
        _ => &[],
    }
}

/// The last change of a policy since a moment; and whether there are more records than were looked
/// through.
pub(super) fn last_change(
    index: &Index,
    account: &str,
    held: &Held,
    since: Time,
) -> Result<(bool, Option<Change>)> {
    let (mut more, mut newest) = (false, None::<Change>);
    for name in changing(&held.holder) {
        let query = Query {
            account,
            kind: Kind::EventName,
            value: name,
            from: since,
            until: Time(i64::MAX),
            before: None,
            limit: MOST,
        };
        let places = index.places(&query)?;
        more |= places.len() == MOST;
        let lines = index.records(places.iter().map(|place| place.at))?;
        let change = lines.iter().find_map(|line| change(line, account, held));
        // Times of records are written in one form, so that they sort as texts.
        newest = newest.into_iter().chain(change).max_by(|a, b| a.event_time.cmp(&b.event_time));
    }
    Ok((more && newest.is_none(), newest))
}

/// A record of a change.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(rename = "eventID")]
    event_id: String,
    event_name: String,
    event_time: String,
    error_code: Option<String>,
    user_identity: Identity,
    request_parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(default)]
    arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    policy_name: Option<String>,
}

/// The change that a record tells of, if it is one of this policy.
fn change(line: &[u8], account: &str, held: &Held) -> Option<Change> {
    let event = Event::read(line)?;
    let ours = event.account.as_deref() == Some(account);
    let of_holder = event.resources.iter().any(|resource| resource.arn == held.holder);
    let record: Record = serde_json::from_slice(line).ok()?;
    let named = record.request_parameters.and_then(|parameters| parameters.policy_name);
    // A key's policy is named as well, always `default`.
    let of_policy = held.name.is_none() || named.is_none() || named == held.name;
    (ours && of_holder && of_policy && record.error_code.is_none()).then_some(Change {
        event_id: record.event_id,
        event_name: record.event_name,
        event_time: record.event_time,
        principal_arn: record.user_identity.arn,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const USER: &str = "arn:aws:iam::111122223333:user/eve";

    fn record(name: &str, policy: &str, error: Option<&str>) -> Vec<u8> {
        let record = json!({
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/admin"},
            "eventTime": "2026-01-01T00:00:00.000Z",
            "eventSource": "iam.amazonaws.com",
            "eventName": name,
            "requestParameters": {"userName": "eve", "policyName": policy},
            "errorCode": error,
            "requestID": "r",
            "eventID": "e",
            "resources": [{"ARN": USER}],
            "recipientAccountId": "111122223333",
        });
        serde_json::to_vec(&record).expect("JSON")
    }

    #[test]
    fn a_change_is_one_of_this_policy_that_succeeded() {
        let held =
            Held { holder: USER.into(), name: Some("p".into()), document: None, attached: true };
        let found = |line: &[u8]| change(line, "111122223333", &held);
        let told = found(&record("PutUserPolicy", "p", None)).expect("a change");
        assert_eq!(told.principal_arn, "arn:aws:iam::111122223333:user/admin");
        assert!(found(&record("PutUserPolicy", "q", None)).is_none());
        assert!(found(&record("PutUserPolicy", "p", Some("NoSuchEntity"))).is_none());
        assert!(change(&record("PutUserPolicy", "p", None), "444455556666", &held).is_none());
    }

    #[test]
    fn policies_of_ours_never_change() {
        assert!(changing("arn:aws:iam::aws:policy/AdministratorAccess").is_empty());
        assert!(changing("arn:aws:kms:r:1:key/k").contains(&"PutKeyPolicy"));
    }
}
