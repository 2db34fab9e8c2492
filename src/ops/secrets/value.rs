//! GetSecretValue: what is inside a secret.

use super::{SecretTarget, labels, locate, seal};
use crate::envelope::value::Kind;
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Epoch, SecretBlob, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::secrets::{Secret, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// GetSecretValue:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>.
pub struct GetSecretValue;

/// What [`GetSecretValue`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetSecretValueInput {
    secret_id: Option<String>,
    version_id: Option<String>,
    version_stage: Option<String>,
}

impl Input for GetSecretValueInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("secretId", &self.secret_id);
        checks.length("secretId", self.secret_id.as_deref(), 1, 2048);
        checks.length("versionId", self.version_id.as_deref(), 32, 64);
        checks.length("versionStage", self.version_stage.as_deref(), 1, 256);
    }
}

/// What [`GetSecretValue`] answers, and one value of BatchGetSecretValue.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct SecretValue {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    version_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_string: Option<SecretText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_binary: Option<SecretBlob>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    version_stages: Vec<String>,
    created_date: Epoch,
}

impl SecretValue {
    /// About how long its JSON is, in bytes: binary grows by a third, and there are the names.
    fn size(&self) -> usize {
        let text = self.secret_string.as_ref().map_or(0, |text| text.0.len());
        let binary = self.secret_binary.as_ref().map_or(0, |blob| blob.0.len() * 4 / 3);
        512 + self.name.len() * 2 + text + binary
    }
}

impl Operation for GetSecretValue {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "GetSecretValue";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/secrets/{SecretId}/value" };
    type Input = GetSecretValueInput;
    type Target = SecretTarget;
    type Output = SecretValue;

    async fn locate(call: &Call, input: &GetSecretValueInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    fn answer_size(output: &SecretValue) -> usize {
        output.size()
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: GetSecretValueInput,
    ) -> Result<SecretValue> {
        read(call, target, input.version_id.as_deref(), input.version_stage.as_deref()).await
    }
}

/// Reads a version of a secret: by its id, by a label, by both if they go together, else the
/// current one.
pub(super) async fn read(
    call: &Call,
    target: Allowed<SecretTarget>,
    id: Option<&str>,
    stage: Option<&str>,
) -> Result<SecretValue> {
    let secret = target.live()?.clone();
    let version = find(call, &secret, id, stage)?;
    let arn = target.into_inner().into_arn();
    let (kind, opened) = seal::open(call, &arn, &version).await?;
    note_access(call, &secret, &version);
    let (secret_string, secret_binary) = match kind {
        Kind::Text => (Some(SecretText(opened)), None),
        Kind::Binary => (None, Some(SecretBlob(opened))),
    };
    Ok(SecretValue {
        arn,
        name: secret.name.clone(),
        version_stages: secret.labels_of(&version.id).map(str::to_owned).collect(),
        version_id: version.id.clone(),
        secret_string,
        secret_binary,
        created_date: Epoch(version.created),
    })
}

fn find(
    call: &Call,
    secret: &Secret,
    id: Option<&str>,
    stage: Option<&str>,
) -> Result<Arc<Version>> {
    let missing = |what: &str, which: &str| {
        let text =
            format!("Secrets Manager can't find the specified secret value for {what}: {which}");
        Error::new(Condition::NotFound, text)
    };
    let label = stage.unwrap_or(labels::CURRENT);
    let Some(id) = id else {
        let none = || missing("staging label", label);
        let id = secret.version_with(label).ok_or_else(none)?;
        return call.records.version(secret.uid, id)?.ok_or_else(none);
    };
    let version = call.records.version(secret.uid, id)?;
    let version = version.ok_or_else(|| missing("VersionId", id))?;
    if stage.is_some_and(|stage| secret.version_with(stage) != Some(id)) {
        return Err(Error::new(
            Condition::InvalidRequest,
            "You provided a VersionStage that is not associated to the provided VersionId.",
        ));
    }
    Ok(version)
}

/// Notes the day of a read, once a day, beside the answer and without a record of its own: the read
/// itself is recorded.
fn note_access(call: &Call, secret: &Secret, version: &Version) {
    let day = call.now.day();
    if version.accessed.is_none_or(|noted| noted < day) {
        call.accesses.note(secret.uid, &version.id, day);
    }
}
