//! GetSecretValue, BatchGetSecretValue, PutSecretValue: what is inside a secret.

use super::{SecretTarget, locate};
use crate::envelope::cache::{Hit, Name};
use crate::envelope::context::Context;
use crate::envelope::value::{self, Kind};
use crate::envelope::{self, Envelope};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::keys::{self, KeyTarget};
use crate::ops::shape::{Checks, Epoch, SecretBlob, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::secret::Key;
use crate::store::secrets::{Secret, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// What [`GetSecretValue`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetSecretValueOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    version_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_string: Option<SecretText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_binary: Option<SecretBlob>,
    version_stages: Vec<String>,
    created_date: Epoch,
}

impl Operation for GetSecretValue {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "GetSecretValue";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/secrets/{SecretId}/value" };
    type Input = GetSecretValueInput;
    type Target = SecretTarget;
    type Output = GetSecretValueOutput;

    async fn locate(call: &Call, input: &GetSecretValueInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: GetSecretValueInput,
    ) -> Result<GetSecretValueOutput> {
        let secret = target.secret()?;
        let stage = input.version_stage.as_deref().unwrap_or("AWSCURRENT");
        let id = input.version_id.as_deref().or_else(|| secret.version_with(stage));
        let version = match id {
            Some(id) => call.records.read(|rows| rows.version(secret.uid, id))?,
            None => None,
        };
        let version = version.ok_or_else(|| missing(stage))?;
        let (kind, opened) = open(call, target.arn(), secret, &version).await?;
        let (text, binary) = match kind {
            Kind::Text => (Some(SecretText(opened)), None),
            Kind::Binary => (None, Some(SecretBlob(opened))),
        };
        Ok(GetSecretValueOutput {
            arn: target.arn().to_owned(),
            name: secret.name.clone(),
            version_stages: secret.labels_of(&version.id).map(str::to_owned).collect(),
            version_id: version.id,
            secret_string: text,
            secret_binary: binary,
            created_date: Epoch(version.created),
        })
    }
}

fn missing(stage: &str) -> Error {
    let text =
        format!("Secrets Manager can't find the specified secret value for staging label: {stage}");
    Error::new(Condition::NotFound, text)
}

/// Opens a version's value: the data key from the cache or with the token, then the value.
pub(super) async fn open(
    call: &Call,
    arn: &str,
    secret: &Secret,
    version: &Version,
) -> Result<(Kind, crate::secret::Secret)> {
    let data_key = data_key(call, arn, secret, version).await?;
    value::open(data_key.key(), arn, &version.id, &version.value).map_err(undecryptable)
}

async fn data_key(call: &Call, arn: &str, secret: &Secret, version: &Version) -> Result<Hit> {
    let envelope = Envelope::parse(&version.data_key).map_err(undecryptable)?;
    let key = call.records.key(&envelope.key_id)?.ok_or_else(|| undecryptable("no such key"))?;
    let target = KeyTarget::found(&call.region, key.clone());
    keys::usable(&key, target.arn())?;
    let name = Name::of(&version.data_key, &[arn, &version.id]);
    if let Some(hit) = call.data_keys.find(&name) {
        return Ok(hit);
    }
    let context = version_context(arn, &version.id);
    let opened = call.envelopes.open(&key, &context, envelope).await.map_err(|e| match e {
        envelope::Error::Invalid => undecryptable(e),
        other => other.into(),
    })?;
    let data_key = Key::from_secret(&opened).ok_or_else(|| undecryptable("not 32 bytes"))?;
    debug_assert_eq!(secret.account, key.account);
    Ok(call.data_keys.keep(&name, data_key))
}

/// The encryption context of a version's data key, as AWS sets it.
pub(super) fn version_context(arn: &str, version_id: &str) -> Context {
    Context::from([
        ("SecretARN".to_owned(), arn.to_owned()),
        ("SecretVersionId".to_owned(), version_id.to_owned()),
    ])
}

fn undecryptable(why: impl ToString) -> Error {
    Error::new(
        Condition::DecryptionFailure,
        "Secrets Manager can't decrypt the protected secret text using the provided KMS key.",
    )
    .logged(why.to_string())
}
