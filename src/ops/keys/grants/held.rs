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

use super::holder::{account_arn, identities, is_of_account};
use super::terms::{OPERATIONS, hold};
use crate::ops::authority::{compile, standing};
use crate::ops::call::Call;
use crate::ops::error::{Error, Result};
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
    compile("grant", &document.to_string(), Kind::Key)
}

/// What the engine says with `policy` in the place of the key policy.
pub(super) fn lets(call: &Call, request: &Request<'_>, policy: &Policy) -> Result<bool> {
    let standing = standing(&call.records, request.caller)?;
    let policies = Policies {
        identity: &standing.identity,
        boundary: standing.boundary.as_deref(),
        resource: OfResource::Rules(policy),
    };
    Ok(matches!(policy::decide(request, &policies), Decision::Allow(_)))
}

#[cfg(test)]
mod tests {
    use super::super::terms::tests::{Asked, grant, subset};
    use super::*;
    use crate::policy::Caller;
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
        let caller = Caller::user("111122223333", "arn:aws:iam::111122223333:user/bob", "AIDA1");
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

    #[test]
    fn every_form_of_principal_can_stand_in_the_key_policy_that_a_grant_counts_as() {
        for arn in [
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::111122223333:user/a/bob",
            "arn:aws:iam::111122223333:role/app",
            "arn:aws:sts::111122223333:assumed-role/app/i-1",
        ] {
            assert!(as_key_policy(arn).is_ok(), "{arn}");
        }
    }
}
