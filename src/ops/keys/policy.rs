//! GetKeyPolicy, PutKeyPolicy, ListKeyPolicies, and the policies that keys begin with.

use super::list::{Next, Paging, refuse_marker};
use super::{KeyTarget, change, check_key_id, facts, locate_key, not_pending};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Caller;
use crate::policy::Values;
use crate::policy::document::{
    self, Document, Effect, Kind, Malformed, Patterns, Principal, Principals,
};
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

/// Refuses a text that is no key policy, and one that would lock its writer out of the key `arn`,
/// unless they `bypass` that check.
///
/// # Errors
/// [`Condition::MalformedPolicy`], [`Condition::LimitExceeded`].
pub(super) fn acceptable(caller: &Caller, arn: &str, text: &str, bypass: bool) -> Result<()> {
    let policy = document::parse(text, Kind::Key).map_err(refusal)?;
    if bypass || lets_change(&policy, caller, arn) {
        return Ok(());
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

/// Whether a caller could put another key policy after this one. Statements with conditions count
/// for nothing here: whether they will hold then is not known now.
fn lets_change(policy: &Document, caller: &Caller, arn: &str) -> bool {
    let speaks = |effect: Effect| {
        policy.statements.iter().any(|statement| {
            statement.effect == effect
                && statement.conditions.is_empty()
                && statement.principals.as_ref().is_some_and(|p| speak_of(p, caller))
                && cover(&statement.actions, "kms:PutKeyPolicy")
                && cover(&statement.resources, arn)
        })
    };
    speaks(Effect::Allow) && !speaks(Effect::Deny)
}

fn speak_of(principals: &Principals, caller: &Caller) -> bool {
    let named = principals.list.iter().any(|principal| match principal {
        Principal::Everyone => true,
        Principal::Account(account) => *account == caller.account,
        Principal::Arn(arn) => *arn == caller.arn,
        Principal::Service(_) | Principal::Federated(_) => false,
    });
    named != principals.negated
}

fn cover(patterns: &Patterns, text: &str) -> bool {
    let matched = patterns.patterns.iter().any(|pattern| like(pattern.as_bytes(), text.as_bytes()));
    !patterns.patterns.is_empty() && matched != patterns.negated
}

/// Whether a text is as a pattern says: `*` is any number of characters, `?` is one, in any case
/// of letters. Takes at most as many steps as pattern and text have characters, multiplied.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(byte) => {
                p += 1;
                t += 1;
            }
            _ => {
                // The last star takes one character more.
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'*')
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
        locate_key(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        _: &Call,
        target: Allowed<KeyTarget>,
        input: GetKeyPolicyInput,
    ) -> Result<GetKeyPolicyOutput> {
        let key = target.key()?;
        if input.policy_name.is_some_and(|name| name != DEFAULT) {
            return Err(no_such_policy());
        }
        Ok(GetKeyPolicyOutput { policy: key.policy.clone(), policy_name: DEFAULT })
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
        locate_key(call, given(&input.key_id, "keyId")?)
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
        acceptable(&call.caller, &target.arn_of_key(known), &policy, bypass)?;
        change(call, &target, move |key, arn| {
            not_pending(key, arn)?;
            let changed = key.policy != policy;
            key.policy.clone_from(&policy);
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
        locate_key(call, given(&input.key_id, "keyId")?)
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

    fn answer(text: &str) -> Result<()> {
        acceptable(&caller(), KEY, text, false)
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
            assert!(acceptable(&caller(), KEY, &text, true).is_ok(), "bypassed: {text}");
        }
    }

    #[test]
    fn what_is_no_policy_is_refused_even_with_the_check_bypassed() {
        for text in ["{", "[]", "{}", r#"{"Statement": []}"#, r#"{"Statement": 7}"#] {
            let refused = acceptable(&caller(), KEY, text, true).expect_err(text);
            assert_eq!(refused.condition, Condition::MalformedPolicy);
        }
        let long = default_policy(ACCOUNT) + &" ".repeat(32_768);
        assert_eq!(answer(&long).expect_err("long").condition, Condition::LimitExceeded);
    }

    #[test]
    fn patterns_have_two_wildcards() {
        let fits = |pattern: &str, text: &str| like(pattern.as_bytes(), text.as_bytes());
        assert!(fits("*", "") && fits("kms:*Key*", "kms:PutKeyPolicy") && fits("a?c", "abc"));
        assert!(fits("*b*b*", "abab") && fits("KMS:put*", "kms:PutKeyPolicy"));
        assert!(!fits("", "a") && !fits("a", "") && !fits("a?", "a") && !fits("*b", "abc"));
        assert!(!fits(&"*a".repeat(50), &"b".repeat(500)), "and does not take for ever");
    }
}
