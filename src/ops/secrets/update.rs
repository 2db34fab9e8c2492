//! UpdateSecret: description, KMS key, value, in one change.

use super::edit::{Edit, NewValue, apply};
use super::seal::{self, Given, check_token, check_value, token};
use super::{Named, SecretTarget, facts, locate};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::{Checks, SecretBlob, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// UpdateSecret:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecret.html>.
pub struct UpdateSecret;

/// What [`UpdateSecret`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSecretInput {
    secret_id: Option<String>,
    client_request_token: Option<String>,
    description: Option<String>,
    kms_key_id: Option<String>,
    secret_string: Option<SecretText>,
    secret_binary: Option<SecretBlob>,
    #[serde(rename = "Type")]
    kind: Option<String>,
}

impl Input for UpdateSecretInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("secretId", &self.secret_id);
        checks.length("secretId", self.secret_id.as_deref(), 1, 2048);
        check_token(checks, self.client_request_token.as_deref());
        checks.length("description", self.description.as_deref(), 0, 2048);
        checks.length("kmsKeyId", self.kms_key_id.as_deref(), 0, 2048);
        check_value(checks, self.secret_string.as_ref(), self.secret_binary.as_ref());
        checks.length("type", self.kind.as_deref(), 0, 256);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
            .or_else(|| facts::text(key, "secretsmanager:description", self.description.as_ref()))
            .or_else(|| facts::kms_key_id(key, self.kms_key_id.as_ref()))
    }
}

/// What [`UpdateSecret`] answers; the version only where the value changed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSecretOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<String>,
}

impl Operation for UpdateSecret {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "UpdateSecret";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PATCH", path: "/secrets/{SecretId}" };
    type Input = UpdateSecretInput;
    type Target = SecretTarget;
    type Output = UpdateSecretOutput;

    async fn locate(call: &Call, input: &UpdateSecretInput) -> Result<SecretTarget> {
        token(input.client_request_token.as_ref())?;
        seal::refuse_managed(input.kind.as_deref())?;
        let target = locate(call, given(&input.secret_id, "secretId")?)?;
        let kms_key = seal::named_key_arn(call, &target.owner, input.kms_key_id.as_deref())?;
        Ok(SecretTarget { kms_key, ..target })
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: UpdateSecretInput,
    ) -> Result<UpdateSecretOutput> {
        let token = token(input.client_request_token.as_ref())?.clone();
        let given = Given::of(input.secret_string, input.secret_binary)?;
        let version_id = given.is_some().then(|| token.clone());
        let edit = Edit {
            description: input.description,
            kms_key_id: input.kms_key_id.map(|id| seal::key_name(&id).map(str::to_owned)),
            value: given.map(|given| NewValue { token, given, labels: None }),
        };
        let Named { arn, name } = Named::of(&target)?;
        let output = UpdateSecretOutput { arn, name, version_id };
        call.answering(&output)?;
        apply(call, &target, &edit).await?;
        Ok(output)
    }
}
