//! GetSecretValue: what is inside a secret.

use super::{SecretTarget, facts, labels, locate, seal};
use crate::envelope::value::Kind;
use crate::json::{self, Object};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Body, Checks, Epoch, SecretBlob, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{PrincipalKind, Values};
use crate::secret;
use crate::store::secrets::{Secret, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use zeroize::Zeroizing;

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

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
            .or_else(|| facts::text(key, "secretsmanager:versionid", self.version_id.as_ref()))
            .or_else(|| {
                facts::text(key, "secretsmanager:versionstage", self.version_stage.as_ref())
            })
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
    /// The secret's ARN; the value is wiped.
    pub(super) fn into_arn(self) -> String {
        self.arn
    }

    /// The same JSON that `Serialize` makes, without its cost; a test holds the two together.
    fn encode(&self) -> Result<Body> {
        let values =
            [self.secret_string.as_ref().map(|t| &t.0), self.secret_binary.as_ref().map(|b| &b.0)];
        // An escape takes at most six bytes; base64 takes four for three.
        let longest = values.iter().flatten().copied().map(escaped_len).sum::<usize>();
        let names = self.arn.len() + self.name.len() + 80 * self.version_stages.len();
        let mut body = secret::Secret::new(Vec::with_capacity(256 + names + longest));
        let mut object = Object::begin(body.expose_mut());
        object.text("ARN", &self.arn).text("Name", &self.name).text("VersionId", &self.version_id);
        if let Some(text) = &self.secret_string {
            object.text("SecretString", text.0.expose_str().unwrap_or_default());
        }
        if let Some(blob) = &self.secret_binary {
            let text = Zeroizing::new(STANDARD.encode(blob.0.expose()));
            object.text("SecretBinary", &text);
        }
        if !self.version_stages.is_empty() {
            object
                .list("VersionStages", &self.version_stages, |out, stage| json::string(out, stage));
        }
        let created = serde_json::to_string(&self.created_date);
        object.raw("CreatedDate", &created.map_err(|e| Error::internal(e.to_string()))?).end();
        Ok(Body::from(body))
    }
}

/// The most bytes that a value takes in JSON, as text or in base64.
fn escaped_len(value: &secret::Secret) -> usize {
    let escapes = value.expose().iter().filter(|b| **b < 0x20 || matches!(**b, b'"' | b'\\'));
    value.len() * 4 / 3 + 4 + 5 * escapes.count()
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

    fn encode(output: &SecretValue) -> Result<Body> {
        output.encode()
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
/// itself is recorded. What the appliance reads for itself is no use of the secret.
fn note_access(call: &Call, secret: &Secret, version: &Version) {
    if call.caller.kind == PrincipalKind::System {
        return;
    }
    let day = call.now.day();
    if version.accessed.is_none_or(|noted| noted < day) {
        call.accesses.note(secret.uid, &version.id, day);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    #[test]
    fn the_quick_way_writes_what_the_general_one_does() {
        let texts = ["hunter2", "", "a\"b\\c\n\u{1}é", &"x".repeat(2000)];
        for text in texts {
            for binary in [false, true] {
                let bytes = || secret::Secret::copy_of(text.as_bytes());
                let value = SecretValue {
                    arn: "arn:aws:secretsmanager:us-east-1:1:secret:a-AbCdEf".into(),
                    name: "a".into(),
                    version_id: "v".into(),
                    secret_string: (!binary).then(|| SecretText(bytes())),
                    secret_binary: binary.then(|| SecretBlob(bytes())),
                    version_stages: if binary { vec![] } else { vec!["A".into(), "B".into()] },
                    created_date: Epoch(Time(1_767_225_600_120)),
                };
                let quick = value.encode().expect("encodes").into_secret();
                let general = serde_json::to_vec(&value).expect("encodes");
                assert_eq!(quick.expose(), general);
            }
        }
    }
}
