//! PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy, ValidateResourcePolicy.

use super::{Named, SecretTarget, change, check_secret_id, facts, locate, not_pending};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount, OwnPolicy, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::holder::{meant, policy_shown};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Policy;
use crate::policy::Values;
use crate::policy::document::{self, Document, Kind, Malformed};
use crate::policy::reach::{self, Finding};
use crate::store::grants::Holder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const PUT: &str = "PutResourcePolicy";
const ROUTE: &str = "/secrets/{SecretId}/policy";

/// Reads a secret's policy, and whom it means.
fn parse(call: &Call, text: &str) -> Result<(Document, Vec<Holder>)> {
    let document = document::parse(text, Kind::Resource).map_err(refusal)?;
    let holders = meant(&call.records, &document, refusal)?;
    Ok((document, holders))
}

/// AWS's texts tell three faults apart.
fn refusal(why: Malformed) -> Error {
    let text = match why {
        Malformed::Principal(_) => "This resource policy contains an unsupported principal.",
        Malformed::ServicePrincipal(_) => {
            "This resource policy contains an invalid service principal."
        }
        Malformed::TooLong(_) | Malformed::Syntax(_) | Malformed::NoPrincipal => {
            "This resource policy contains a syntax error."
        }
    };
    Error::new(Condition::MalformedPolicy, text)
}

fn check_policy(checks: &mut Checks, policy: &Option<String>) {
    checks.required("resourcePolicy", policy);
    checks.length("resourcePolicy", policy.as_deref(), 1, 20_480);
}

/// A secret has one policy, and that one name leads to it. Another name is never overlooked: the
/// caller would change or read the policy that it did not mean.
fn default_policy(name: Option<&str>) -> Result<()> {
    match name {
        None | Some("default") => Ok(()),
        Some(_) => Err(Error::new(
            Condition::InvalidParameter,
            "You can only use the resource policy of the name default.",
        )),
    }
}

/// PutResourcePolicy:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutResourcePolicy.html>.
pub struct PutResourcePolicy;

/// What [`PutResourcePolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PutResourcePolicyInput {
    secret_id: Option<String>,
    resource_policy: Option<String>,
    block_public_policy: Option<bool>,
    policy_name: Option<String>,
}

impl Input for PutResourcePolicyInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
        check_policy(checks, &self.resource_policy);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref()).or_else(|| {
            facts::truth(key, "secretsmanager:blockpublicpolicy", self.block_public_policy)
        })
    }
}

impl Operation for PutResourcePolicy {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = PUT;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: ROUTE };
    type Input = PutResourcePolicyInput;
    type Target = SecretTarget;
    type Output = Named;

    async fn locate(call: &Call, input: &PutResourcePolicyInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: PutResourcePolicyInput,
    ) -> Result<Named> {
        let policy = given(&input.resource_policy, "resourcePolicy")?.clone();
        default_policy(input.policy_name.as_deref())?;
        target.live()?;
        let (parsed, holders) = parse(call, &policy)?;
        if input.block_public_policy == Some(true) && reach::grants_to_everybody(&parsed) {
            let text = "You can't attach a resource-based policy that allows broad access to the \
                        secret.";
            return Err(Error::new(Condition::PublicPolicy, text));
        }
        let output = Named::of(&target)?;
        call.answering(&output)?;
        change(call, &target, move |secret| {
            not_pending(secret)?;
            let changed =
                secret.policy.as_ref() != Some(&policy) || secret.policy_holders != holders;
            secret.policy = Some(policy.clone());
            secret.policy_holders.clone_from(&holders);
            Ok(changed)
        })
        .await?;
        Ok(output)
    }
}

/// GetResourcePolicy:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetResourcePolicy.html>.
pub struct GetResourcePolicy;

/// What [`GetResourcePolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetResourcePolicyInput {
    secret_id: Option<String>,
    policy_name: Option<String>,
}

impl Input for GetResourcePolicyInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

/// What [`GetResourcePolicy`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetResourcePolicyOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_policy: Option<String>,
}

impl Operation for GetResourcePolicy {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "GetResourcePolicy";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: ROUTE };
    type Input = GetResourcePolicyInput;
    type Target = SecretTarget;
    type Output = GetResourcePolicyOutput;

    async fn locate(call: &Call, input: &GetResourcePolicyInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: GetResourcePolicyInput,
    ) -> Result<GetResourcePolicyOutput> {
        default_policy(input.policy_name.as_deref())?;
        let secret = target.live()?;
        let Named { arn, name } = Named::of(&target)?;
        let shown = |text: &String| policy_shown(&call.records, text, &secret.policy_holders);
        let resource_policy = secret.policy.as_ref().map(shown).transpose()?;
        Ok(GetResourcePolicyOutput { arn, name, resource_policy })
    }
}

/// DeleteResourcePolicy:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DeleteResourcePolicy.html>.
pub struct DeleteResourcePolicy;

/// What [`DeleteResourcePolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteResourcePolicyInput {
    secret_id: Option<String>,
    policy_name: Option<String>,
}

impl Input for DeleteResourcePolicyInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

impl Operation for DeleteResourcePolicy {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "DeleteResourcePolicy";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: ROUTE };
    type Input = DeleteResourcePolicyInput;
    type Target = SecretTarget;
    type Output = Named;

    async fn locate(call: &Call, input: &DeleteResourcePolicyInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: DeleteResourcePolicyInput,
    ) -> Result<Named> {
        default_policy(input.policy_name.as_deref())?;
        let output = Named::of(&target)?;
        call.answering(&output)?;
        change(call, &target, |secret| {
            not_pending(secret)?;
            secret.policy_holders.clear();
            Ok(secret.policy.take().is_some())
        })
        .await?;
        Ok(output)
    }
}

/// ValidateResourcePolicy:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ValidateResourcePolicy.html>.
pub struct ValidateResourcePolicy;

/// What [`ValidateResourcePolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ValidateResourcePolicyInput {
    secret_id: Option<String>,
    resource_policy: Option<String>,
}

impl Input for ValidateResourcePolicyInput {
    fn check(&self, checks: &mut Checks) {
        checks.length("secretId", self.secret_id.as_deref(), 1, 2048);
        check_policy(checks, &self.resource_policy);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

/// What [`ValidateResourcePolicy`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ValidateResourcePolicyOutput {
    policy_validation_passed: bool,
    validation_errors: Vec<ValidationError>,
}

/// What is the matter with a policy.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ValidationError {
    check_name: &'static str,
    error_message: String,
}

/// Whose policy is validated: a secret's, or none's in particular.
pub enum Validated {
    /// This secret's.
    Secret(SecretTarget),
    /// That of any secret of the caller's account.
    Any(OwnAccount),
}

impl Target for Validated {
    fn arn(&self) -> &str {
        match self {
            Self::Secret(target) => target.arn(),
            Self::Any(account) => account.arn(),
        }
    }
    fn owner(&self) -> &str {
        match self {
            Self::Secret(target) => target.owner(),
            Self::Any(account) => account.owner(),
        }
    }
    fn policy(&self) -> Result<OwnPolicy> {
        match self {
            Self::Secret(target) => target.policy(),
            Self::Any(account) => account.policy(),
        }
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        match self {
            Self::Secret(target) => target.fact(call, key),
            Self::Any(account) => account.fact(call, key),
        }
    }
}

impl Operation for ValidateResourcePolicy {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "ValidateResourcePolicy";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/policy:validate" };
    type Input = ValidateResourcePolicyInput;
    type Target = Validated;
    type Output = ValidateResourcePolicyOutput;

    async fn locate(call: &Call, input: &ValidateResourcePolicyInput) -> Result<Validated> {
        match &input.secret_id {
            Some(id) => Ok(Validated::Secret(locate(call, id)?)),
            None => Ok(Validated::Any(OwnAccount::of(call))),
        }
    }

    async fn run(
        call: &Call,
        target: Allowed<Validated>,
        input: ValidateResourcePolicyInput,
    ) -> Result<ValidateResourcePolicyOutput> {
        // AWS asks for the right to put the policy as well.
        let target = call.allow(PUT, target.into_inner())?;
        if let Validated::Secret(target) = &*target {
            target.secret()?;
        }
        let (policy, _) = parse(call, given(&input.resource_policy, "resourcePolicy")?)?;
        let policy = Policy::compile(target.arn(), policy);
        let action = ["secretsmanager:", PUT].concat();
        let found = call.foresee(&action, &*target, |request| reach::findings(&policy, request))?;
        let error = |Finding { check, message }| ValidationError {
            check_name: check,
            error_message: message,
        };
        let validation_errors: Vec<_> = found.into_iter().map(error).collect();
        let policy_validation_passed = validation_errors.is_empty();
        Ok(ValidateResourcePolicyOutput { policy_validation_passed, validation_errors })
    }
}
