//! GetKeyPolicy, PutKeyPolicy, ListKeyPolicies, and the policies that keys begin with.

use super::list::{Next, Paging, refuse_marker};
use super::{KeyTarget, change, check_key_id, facts, locate_own, not_pending};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::holder::{meant, policy_shown};
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::document::{self, Document, Kind, Malformed};
use crate::policy::{Policy, Request, Values, reach};
use crate::store::grants::Holder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The one policy that a key has.
const DEFAULT: &str = "default";

/// The policy that a key has if none is given: its account may do everything, by IAM policies.
pub(super) fn default_policy(account: &str) -> String {
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {{
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "arn:aws:iam::{account}:root"
    }},
    "Action" : "kms:*",
    "Resource" : "*"
  }} ]
}}"#
    )
}

/// The policy of the key behind `alias/aws/secretsmanager`: whoever may use Secrets Manager may use
/// it through Secrets Manager, and its account may look at it. As AWS documents it at
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html>.
pub(super) fn secrets_key_policy(account: &str, region: &str) -> String {
    const THROUGH: &str = "Allow access through AWS Secrets Manager for all principals in the \
                           account that are authorized to use AWS Secrets Manager";
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "auto-secretsmanager-2",
  "Statement" : [ {{
    "Sid" : "{THROUGH}",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "*"
    }},
    "Action" : [ "kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:CreateGrant", "kms:DescribeKey" ],
    "Resource" : "*",
    "Condition" : {{
      "StringEquals" : {{
        "kms:CallerAccount" : "{account}",
        "kms:ViaService" : "secretsmanager.{region}.amazonaws.com"
      }}
    }}
  }}, {{
    "Sid" : "{THROUGH}",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "*"
    }},
    "Action" : "kms:GenerateDataKey*",
    "Resource" : "*",
    "Condition" : {{
      "StringEquals" : {{
        "kms:CallerAccount" : "{account}"
      }},
      "StringLike" : {{
        "kms:ViaService" : "secretsmanager.{region}.amazonaws.com"
      }}
    }}
  }}, {{
    "Sid" : "Allow direct access to key metadata to the account",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "arn:aws:iam::{account}:root"
    }},
    "Action" : [ "kms:Describe*", "kms:Get*", "kms:List*", "kms:RevokeGrant" ],
    "Resource" : "*"
  }} ]
}}"#
    )
}

/// The service model's bounds of a key policy.
pub(super) fn check_member(checks: &mut Checks, policy: Option<&str>) {
    checks.length("policy", policy, 1, 131_072);
    let fits =
        |text: &str| text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{ff}'));
    let pattern = "[\\u0009\\u000A\\u000D\\u0020-\\u00FF]+";
    checks.pattern("policy", policy, pattern, fits);
}

/// Whom a new key policy means. Refuses a text that is no key policy, and one that would lock its
/// writer out of the key `arn`, unless they `bypass` that check.
///
/// # Errors
/// [`Condition::MalformedPolicy`], [`Condition::LimitExceeded`]; those of the database.
pub(super) fn acceptable(
    call: &Call,
    target: &dyn Target,
    arn: &str,
    text: &str,
    bypass: bool,
) -> Result<Vec<Holder>> {
    let lets = |policy: &Policy| {
        let of_key =
            |request: &Request<'_>| reach::lets(policy, &Request { resource: arn, ..*request });
        call.foresee("kms:PutKeyPolicy", target, of_key)
    };
    let holders = |document: &Document| meant(&call.records, document, refusal);
    checked(text, bypass, holders, lets)
}

/// The same, where `lets` says whether a policy lets its writer put the next one.
fn checked(
    text: &str,
    bypass: bool,
    meant: impl FnOnce(&Document) -> Result<Vec<Holder>>,
    lets: impl FnOnce(&Policy) -> Result<bool>,
) -> Result<Vec<Holder>> {
    let document = document::parse(text, Kind::Key).map_err(refusal)?;
    let meant = meant(&document)?;
    if bypass || lets(&Policy::compile("the new key policy", document))? {
        return Ok(meant);
    }
    let text = "The new key policy will not allow you to update the key policy in the future.";
    Err(Error::new(Condition::MalformedPolicy, text))
}

fn refusal(why: Malformed) -> Error {
    let text = match why {
        Malformed::TooLong(most) => {
            let text = format!("A key policy has at most {most} bytes");
            return Error::new(Condition::LimitExceeded, text);
        }
        Malformed::Syntax(why) => format!("Syntax errors in policy: {why}"),
        Malformed::NoPrincipal => "Policy contains a statement with no principal.".to_owned(),
        Malformed::Principal(_) | Malformed::ServicePrincipal(_) => {
            "Policy contains a statement with one or more invalid principals.".to_owned()
        }
    };
    Error::new(Condition::MalformedPolicy, text)
}

fn no_such_policy() -> Error {
    Error::new(Condition::NotFound, "No such policy exists")
}

fn check_policy_name(checks: &mut Checks, name: Option<&str>) {
    checks.length("policyName", name, 1, 128);
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    checks.pattern("policyName", name, "[\\w]+", word);
}

/// GetKeyPolicy: <https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyPolicy.html>.
pub struct GetKeyPolicy;

/// What [`GetKeyPolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyPolicyInput {
    key_id: Option<String>,
    policy_name: Option<String>,
}

impl Input for GetKeyPolicyInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        check_policy_name(checks, self.policy_name.as_deref());
    }
}

/// What [`GetKeyPolicy`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyPolicyOutput {
    policy: String,
    policy_name: &'static str,
}

impl Operation for GetKeyPolicy {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "GetKeyPolicy";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}/policy" };
    type Input = GetKeyPolicyInput;
    type Target = KeyTarget;
    type Output = GetKeyPolicyOutput;

    async fn locate(call: &Call, input: &GetKeyPolicyInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: GetKeyPolicyInput,
    ) -> Result<GetKeyPolicyOutput> {
        let key = target.key()?;
        if input.policy_name.is_some_and(|name| name != DEFAULT) {
            return Err(no_such_policy());
        }
        let policy = policy_shown(&call.records, &key.policy, &key.policy_holders)?;
        Ok(GetKeyPolicyOutput { policy, policy_name: DEFAULT })
    }
}

/// PutKeyPolicy: <https://docs.aws.amazon.com/kms/latest/APIReference/API_PutKeyPolicy.html>.
pub struct PutKeyPolicy;

/// What [`PutKeyPolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PutKeyPolicyInput {
    key_id: Option<String>,
    policy_name: Option<String>,
    policy: Option<String>,
    bypass_policy_lockout_safety_check: Option<bool>,
}

impl Input for PutKeyPolicyInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        check_policy_name(checks, self.policy_name.as_deref());
        checks.required("policy", &self.policy);
        check_member(checks, self.policy.as_deref());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::of_bypass(self.bypass_policy_lockout_safety_check, key)
    }
}

impl Operation for PutKeyPolicy {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "PutKeyPolicy";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/keys/{KeyId}/policy" };
    type Input = PutKeyPolicyInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &PutKeyPolicyInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: PutKeyPolicyInput,
    ) -> Result<Empty> {
        let known = target.customers(call)?;
        if input.policy_name.as_deref().is_some_and(|name| name != DEFAULT) {
            return Err(no_such_policy());
        }
        let policy = given(&input.policy, "policy")?.clone();
        let bypass = input.bypass_policy_lockout_safety_check.unwrap_or(false);
        let holders = acceptable(call, &*target, &target.arn_of_key(known), &policy, bypass)?;
        change(call, &target, move |key, arn| {
            not_pending(key, arn)?;
            let changed = key.policy != policy || key.policy_holders != holders;
            key.policy.clone_from(&policy);
            key.policy_holders.clone_from(&holders);
            Ok(changed)
        })
        .await?;
        Ok(Empty {})
    }
}

/// ListKeyPolicies: <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListKeyPolicies.html>.
pub struct ListKeyPolicies;

/// What [`ListKeyPolicies`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeyPoliciesInput {
    key_id: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListKeyPoliciesInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        self.paging.check(checks);
    }
}

/// What [`ListKeyPolicies`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeyPoliciesOutput {
    policy_names: [&'static str; 1],
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListKeyPolicies {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListKeyPolicies";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}/policies" };
    type Input = ListKeyPoliciesInput;
    type Target = KeyTarget;
    type Output = ListKeyPoliciesOutput;

    async fn locate(call: &Call, input: &ListKeyPoliciesInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        _: &Call,
        target: Allowed<KeyTarget>,
        input: ListKeyPoliciesInput,
    ) -> Result<ListKeyPoliciesOutput> {
        target.key()?;
        if input.paging.goes_on() {
            return Err(refuse_marker());
        }
        Ok(ListKeyPoliciesOutput { policy_names: [DEFAULT], next: Next::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Caller;
    use crate::policy::facts::NoFacts;

    const ACCOUNT: &str = "111122223333";
    const KEY: &str =
        "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn caller() -> Caller {
        Caller {
            account: ACCOUNT.into(),
            arn: "arn:aws:iam::111122223333:user/admin".into(),
            principal_id: "AIDA".into(),
            kind: crate::policy::PrincipalKind::User,
            access_key_id: None,
            session: None,
        }
    }

    fn put(text: &str, bypass: bool) -> Result<()> {
        let lets = |policy: &Policy| {
            let request = Request {
                caller: &caller(),
                action: "kms:PutKeyPolicy",
                resource: KEY,
                owner: ACCOUNT,
                facts: &NoFacts,
            };
            Ok(reach::lets(policy, &request))
        };
        checked(text, bypass, |_| Ok(Vec::new()), lets).map(drop)
    }

    fn answer(text: &str) -> Result<()> {
        put(text, false)
    }

    fn statement(principal: &str, rest: &str) -> String {
        format!(r#"{{"Statement": [{{"Effect": "Allow", "Principal": {principal}, {rest}}}]}}"#)
    }

    #[test]
    fn the_policies_that_keys_begin_with_are_policies() {
        assert!(answer(&default_policy(ACCOUNT)).is_ok());
        assert!(document::parse(&secrets_key_policy(ACCOUNT, "eu-central-1"), Kind::Key).is_ok());
    }

    #[test]
    fn a_policy_must_let_its_writer_write_the_next_one() {
        let all = r#""Action": "kms:*", "Resource": "*""#;
        let user = r#"{"AWS": "arn:aws:iam::111122223333:user/admin"}"#;
        for text in [
            statement(user, all),
            statement(r#"{"AWS": "111122223333"}"#, r#""Action": "kms:Put*", "Resource": "*""#),
            statement(r#""*""#, r#""Action": "kms:putkeypolicy", "Resource": "*""#),
            statement(user, r#""NotAction": "kms:Decrypt", "Resource": "*""#),
        ] {
            assert!(answer(&text).is_ok(), "{text}");
        }
        let denied = format!(
            r#"{{"Statement": [{{"Effect": "Allow", "Principal": "*", {all}}},
                {{"Effect": "Deny", "Principal": {user}, {all}}}]}}"#
        );
        for text in [
            statement(r#"{"AWS": "arn:aws:iam::111122223333:user/other"}"#, all),
            statement(r#"{"AWS": "999999999999"}"#, all),
            statement(user, r#""Action": "kms:Get*", "Resource": "*""#),
            statement(user, r#""NotAction": "kms:*", "Resource": "*""#),
            denied,
        ] {
            let error = answer(&text).expect_err(&text);
            assert_eq!(error.condition, Condition::MalformedPolicy);
            assert!(error.message.starts_with("The new key policy will not allow you"));
            assert!(put(&text, true).is_ok(), "bypassed: {text}");
        }
    }

    #[test]
    fn what_is_no_policy_is_refused_even_with_the_check_bypassed() {
        for text in ["{", "[]", "{}", r#"{"Statement": []}"#, r#"{"Statement": 7}"#] {
            let refused = put(text, true).expect_err(text);
            assert_eq!(refused.condition, Condition::MalformedPolicy);
        }
        let long = default_policy(ACCOUNT) + &" ".repeat(32_768);
        assert_eq!(answer(&long).expect_err("long").condition, Condition::LimitExceeded);
    }
}
