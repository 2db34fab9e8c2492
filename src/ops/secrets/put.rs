//! PutSecretValue: a new version.

use super::edit::{Edit, NewValue, apply};
use super::seal::{Given, check_token, check_value, token};
use super::{Named, SecretTarget, facts, locate};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, SecretBlob, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// PutSecretValue:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html>.
pub struct PutSecretValue;

/// What [`PutSecretValue`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PutSecretValueInput {
    secret_id: Option<String>,
    client_request_token: Option<String>,
    secret_string: Option<SecretText>,
    secret_binary: Option<SecretBlob>,
    version_stages: Option<Vec<String>>,
    rotation_token: Option<String>,
}

impl Input for PutSecretValueInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("secretId", &self.secret_id);
        checks.length("secretId", self.secret_id.as_deref(), 1, 2048);
        check_token(checks, self.client_request_token.as_deref());
        check_value(checks, self.secret_string.as_ref(), self.secret_binary.as_ref());
        checks.items("versionStages", self.version_stages.as_ref().map(Vec::len), 1, 20);
        for (n, label) in self.version_stages.iter().flatten().enumerate() {
            checks.length(&format!("versionStages.{}.member", n + 1), Some(label), 1, 256);
        }
        check_rotation_token(checks, self.rotation_token.as_deref());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

/// The token says which rotation a put belongs to; it authenticates nobody, and no more than its
/// form is asked of it. It is sensitive, so no finding shows it.
fn check_rotation_token(checks: &mut Checks, token: Option<&str>) {
    let Some(token) = token else { return };
    checks.blob("rotationToken", Some(token.chars().count()), 36, 256);
    if !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        let rule = "Member must satisfy regular expression pattern: ^[a-zA-Z0-9\\-]+$";
        checks.fail_unshown("rotationToken", rule);
    }
}

/// What [`PutSecretValue`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PutSecretValueOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    version_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    version_stages: Vec<String>,
}

impl Operation for PutSecretValue {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "PutSecretValue";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/secrets/{SecretId}/value" };
    type Input = PutSecretValueInput;
    type Target = SecretTarget;
    type Output = PutSecretValueOutput;

    async fn locate(call: &Call, input: &PutSecretValueInput) -> Result<SecretTarget> {
        token(input.client_request_token.as_ref())?;
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: PutSecretValueInput,
    ) -> Result<PutSecretValueOutput> {
        let token = token(input.client_request_token.as_ref())?.clone();
        let given = Given::of(input.secret_string, input.secret_binary)?.ok_or_else(no_value)?;
        let new = NewValue { token: token.clone(), given, labels: input.version_stages };
        let Named { arn, name } = Named::of(&target)?;
        let mut output =
            PutSecretValueOutput { arn, name, version_id: token, version_stages: Vec::new() };
        // Which labels it has at last is settled by the change itself.
        call.answering(&output)?;
        let secret = apply(call, &target, &Edit { value: Some(new), ..Edit::default() }).await?;
        let stages = secret.labels_of(&output.version_id).map(str::to_owned);
        output.version_stages = stages.collect();
        Ok(output)
    }
}

fn no_value() -> Error {
    let text = "You must provide either SecretString or SecretBinary.";
    Error::new(Condition::InvalidRequest, text)
}
