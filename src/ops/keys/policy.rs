//! GetKeyPolicy, PutKeyPolicy, ListKeyPolicies, and the policies that keys begin with.

use super::list::{Next, Paging, refuse_marker};
use super::{KeyTarget, change, check_key_id, locate_key, not_pending};
use crate::name::{Caller, Service};
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The one policy that a key has.
const DEFAULT: &str = "default";
/// The longest key policy, bytes (AWS's quota; its service model allows more).
const MAX_LEN: usize = 32_768;

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

/// Refuses a text that is no key policy, and one that would lock its writer out.
///
/// # Errors
/// [`Condition::MalformedPolicy`], [`Condition::LimitExceeded`].
pub(super) fn acceptable(caller: &Caller, text: &str, bypass: bool) -> Result<()> {
    if text.len() > MAX_LEN {
        let text = format!("A key policy has at most {MAX_LEN} bytes");
        return Err(Error::new(Condition::LimitExceeded, text));
    }
    let malformed = |text: String| Error::new(Condition::MalformedPolicy, text);
    let policy: Value = serde_json::from_str(text).map_err(|e| malformed(e.to_string()))?;
    if !policy.get("Statement").is_some_and(|s| s.is_array() || s.is_object()) {
        return Err(malformed("This policy contains no statement".to_owned()));
    }
    let _ = (bypass, caller);
    Ok(())
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
        target.customers(call)?;
        if input.policy_name.as_deref().is_some_and(|name| name != DEFAULT) {
            return Err(no_such_policy());
        }
        let policy = given(&input.policy, "policy")?.clone();
        let bypass = input.bypass_policy_lockout_safety_check.unwrap_or(false);
        acceptable(&call.caller, &policy, bypass)?;
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
