//! What a caller may do by a grant.
//!
//! A grant counts as a statement of the key policy that names its grantee: AWS considers grants
//! along with key policies, a grant can allow and not deny, and an explicit denial anywhere wins
//! (<https://docs.aws.amazon.com/kms/latest/developerguide/policy-evaluation.html>). So the engine is
//! asked again with such a policy in the key policy's place, and it knows what a boundary or a session
//! policy takes away from a role, that an account as grantee leaves it to its identity policies, and
//! that in another account those must allow as well. The last does not hold for a grant that the
//! caller's own account made: the same page has it that one trusts a key of another account if "a
//! grant or IAM policy in your account" allows its use.

use super::terms::{OPERATIONS, hold};
use crate::ops::authority::{Standing, compile, standing};
use crate::ops::call::Call;
use crate::ops::error::{Error, Result};
use crate::ops::holder::{account_arn, identities, is_of_account};
use crate::policy::document::Kind;
use crate::policy::{self, Decision, OfResource, Policies, Policy, Request};
use crate::store::grants::{GRANTS, Grant};
use std::sync::Arc;

/// The most grants that one grantee can hold on a key: as many as the key can have.
const ALL: i64 = i64::MAX;

/// The grants that one principal holds on a key, and what they count as.
struct Held {
    grants: Vec<Grant>,
    policy: Arc<Policy>,
}

/// The id of a grant on the key `id` that allows the request and that `fits` what the request wants
/// to do besides.
///
/// # Errors
/// Those of the database.
pub(in crate::ops::keys) fn granted(
    call: &Call,
    id: &str,
    request: &Request<'_>,
    fits: &dyn Fn(&Grant) -> bool,
) -> Result<Option<String>> {
    let Some(operation) = operation(request.action) else { return Ok(None) };
    let caller = request.caller;
    let account = account_arn(&caller.account);
    let mut holders = identities(caller);
    if is_of_account(caller) {
        holders.push((&caller.account, &account));
    }
    for (holder, arn) in holders {
        let held = held(call, id, holder, arn)?;
        for (trusted, owner) in [(true, caller.account.as_str()), (false, request.owner)] {
            let mut fitting = held.grants.iter().filter(|grant| {
                (grant.issuer == caller.account) == trusted
                    && allows(grant, operation, request)
                    && fits(grant)
            });
            let asked = Request { owner, ..*request };
            if let Some(grant) = fitting.next()
                && lets(call, &asked, &held.policy)?
            {
                return Ok(Some(grant.id.clone()));
            }
        }
    }
    Ok(None)
}

/// The grant operation that an IAM action stands for.
fn operation(action: &str) -> Option<&'static str> {
    let name = action.strip_prefix("kms:")?;
    OPERATIONS.into_iter().find(|operation| *operation == name)
}

fn allows(grant: &Grant, operation: &str, request: &Request<'_>) -> bool {
    grant.operations.iter().any(|name| name == operation)
        && hold(&grant.constraints, operation, request.facts)
}

/// The principal's grants on the key, from memory until one of the key's is made or ends.
fn held(call: &Call, key: &str, holder: &str, arn: &str) -> Result<Arc<Held>> {
    let name = [key, "/", holder, "/", arn].concat();
    call.records.derived((GRANTS, key), &name, |rows| {
        let grants = rows.grants_on(key, Some(holder), "", ALL)?;
        Ok::<_, Error>(Held { grants, policy: Arc::new(as_key_policy(arn)?) })
    })
}

/// A key policy that lets one principal do everything: the grants say what of it counts.
pub(super) fn as_key_policy(arn: &str) -> Result<Policy> {
    let document = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"AWS": arn},
            "Action": "kms:*",
            "Resource": "*",
        }],
    });
    compile("grant", &document.to_string(), Kind::Key, &[])
}

/// What the engine says with `policy` in the place of the key policy.
pub(super) fn lets(call: &Call, request: &Request<'_>, policy: &Policy) -> Result<bool> {
    Ok(counts(request, policy, &*standing(&call.records, request.caller)?))
}

fn counts(request: &Request<'_>, policy: &Policy, standing: &Standing) -> bool {
    let policies = Policies {
        identity: &standing.identity,
        boundary: standing.boundary.as_deref(),
        resource: OfResource::Rules(policy),
    };
    matches!(policy::decide(request, &policies), Decision::Allow(_))
}

#[cfg(test)]
mod tests {
    use super::super::terms::tests::{Asked, grant, subset};
    use super::*;
    use crate::clock::Time;
    use crate::policy::facts::NoFacts;
    use crate::policy::{Caller, PrincipalKind, Session};
    use std::collections::BTreeMap;

    #[test]
    fn actions_of_kms_that_a_grant_can_allow_are_its_operations() {
        assert_eq!(operation("kms:Decrypt"), Some("Decrypt"));
        assert_eq!(operation("kms:ReEncryptFrom"), Some("ReEncryptFrom"));
        for other in ["kms:ReEncrypt", "kms:PutKeyPolicy", "kms:RevokeGrant", "iam:Decrypt", "Sign"]
        {
            assert_eq!(operation(other), None, "{other}");
        }
    }

    #[test]
    fn a_grant_allows_its_operations_under_its_constraints() {
        let caller = bob();
        let context = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let facts = Asked(context, None);
        let request = Request {
            caller: &caller,
            action: "kms:Decrypt",
            resource: "*",
            owner: "111122223333",
            facts: &facts,
        };
        let mut made = grant(&["Decrypt", "DescribeKey"]);
        assert!(allows(&made, "Decrypt", &request) && !allows(&made, "Encrypt", &request));
        made.constraints = subset(&[("a", "1")]);
        assert!(allows(&made, "Decrypt", &request));
        made.constraints = subset(&[("a", "2")]);
        assert!(!allows(&made, "Decrypt", &request) && allows(&made, "DescribeKey", &request));
    }

    const OWN: &str = "111122223333";
    const OTHER: &str = "444455556666";
    const BOB: &str = "arn:aws:iam::111122223333:user/bob";
    const ROLE: &str = "arn:aws:iam::111122223333:role/app";
    const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/app/i-1";

    fn bob() -> Caller {
        Caller::user(OWN, BOB, "AIDA1")
    }

    /// A session of the role, with these session policies.
    fn session(policies: Vec<Arc<Policy>>) -> Caller {
        let session = Session {
            issuer_arn: ROLE.to_owned(),
            issuer_id: "AROA1".to_owned(),
            name: "i-1".to_owned(),
            policies,
            tags: Vec::new(),
            transitive: Vec::new(),
            issued: Time(0),
            expires: Time(1),
            source_identity: None,
            provider: None,
            chained: false,
        };
        Caller {
            arn: SESSION.to_owned(),
            principal_id: "AROA1:i-1".to_owned(),
            kind: PrincipalKind::AssumedRole,
            session: Some(Arc::new(session)),
            ..bob()
        }
    }

    fn identity(action: &str) -> Arc<Policy> {
        let statement = format!(r#"{{"Effect":"Allow","Action":"{action}","Resource":"*"}}"#);
        let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#);
        Arc::new(compile("p", &text, Kind::Identity, &[]).expect("a policy"))
    }

    /// Whether a grant to `arn` counts for a Decrypt of `caller` with a key of `owner`.
    fn counts_for(caller: &Caller, owner: &str, arn: &str, standing: &Standing) -> bool {
        let request = Request {
            caller,
            action: "kms:Decrypt",
            resource: "arn:aws:kms:eu-central-1:1:key/k",
            owner,
            facts: &NoFacts,
        };
        counts(&request, &as_key_policy(arn).expect("a policy"), standing)
    }

    #[test]
    fn a_grant_to_a_user_needs_no_policy_at_home_and_an_identity_policy_abroad() {
        let nothing = Standing::default();
        let own = Standing { identity: vec![identity("kms:Decrypt")], ..Standing::default() };
        assert!(counts_for(&bob(), OWN, BOB, &nothing));
        assert!(!counts_for(&bob(), OTHER, BOB, &nothing));
        assert!(counts_for(&bob(), OTHER, BOB, &own));
    }

    #[test]
    fn a_grant_to_an_account_leaves_it_to_identity_policies() {
        let account = account_arn(OWN);
        let own = Standing { identity: vec![identity("kms:Decrypt")], ..Standing::default() };
        for owner in [OWN, OTHER] {
            assert!(!counts_for(&bob(), owner, &account, &Standing::default()));
            assert!(counts_for(&bob(), owner, &account, &own));
        }
    }

    #[test]
    fn session_policies_and_boundaries_limit_a_grant_to_a_role_and_not_one_to_its_session() {
        let other = || identity("s3:*");
        let nothing = Standing::default();
        let bounded = Standing { boundary: Some(other()), ..Standing::default() };
        let (free, limited) = (session(vec![]), session(vec![other()]));
        assert!(counts_for(&free, OWN, ROLE, &nothing));
        assert!(!counts_for(&limited, OWN, ROLE, &nothing));
        assert!(!counts_for(&free, OWN, ROLE, &bounded));
        assert!(counts_for(&limited, OWN, SESSION, &bounded));
        let known: Vec<_> = identities(&free).into_iter().map(|(id, _)| id).collect();
        assert_eq!(known, ["AROA1:i-1", "AROA1"]);
    }
}
