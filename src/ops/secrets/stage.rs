//! UpdateSecretVersionStage: moving labels.

use super::edit::save;
use super::facts;
use super::rotate::state::note_labels;
use super::{SecretTarget, labels, locate, marked_for_deletion, not_found};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// UpdateSecretVersionStage:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html>.
pub struct UpdateSecretVersionStage;

/// What [`UpdateSecretVersionStage`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSecretVersionStageInput {
    secret_id: Option<String>,
    version_stage: Option<String>,
    remove_from_version_id: Option<String>,
    move_to_version_id: Option<String>,
}

impl Input for UpdateSecretVersionStageInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("secretId", &self.secret_id);
        checks.length("secretId", self.secret_id.as_deref(), 1, 2048);
        checks.required("versionStage", &self.version_stage);
        checks.length("versionStage", self.version_stage.as_deref(), 1, 256);
        checks.length("removeFromVersionId", self.remove_from_version_id.as_deref(), 32, 64);
        checks.length("moveToVersionId", self.move_to_version_id.as_deref(), 32, 64);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref()).or_else(|| {
            facts::text(key, "secretsmanager:versionstage", self.version_stage.as_ref())
        })
    }
}

/// What [`UpdateSecretVersionStage`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSecretVersionStageOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
}

impl Operation for UpdateSecretVersionStage {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "UpdateSecretVersionStage";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/secrets/{SecretId}/stages/{VersionStage}" };
    type Input = UpdateSecretVersionStageInput;
    type Target = SecretTarget;
    type Output = UpdateSecretVersionStageOutput;

    async fn locate(call: &Call, input: &UpdateSecretVersionStageInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: UpdateSecretVersionStageInput,
    ) -> Result<UpdateSecretVersionStageOutput> {
        let secret = target.live()?;
        let label = given(&input.version_stage, "versionStage")?.clone();
        let (from, to) = (input.remove_from_version_id, input.move_to_version_id);
        let (account, name, uid, now) =
            (secret.account.clone(), secret.name.clone(), secret.uid, call.now);
        let output =
            UpdateSecretVersionStageOutput { arn: target.arn().to_owned(), name: name.clone() };
        call.answering(&output)?;
        call.commit(move |rows| {
            let found = rows.secret(&account, &name)?.filter(|s| s.uid == uid);
            let mut secret = found.ok_or_else(not_found)?;
            if secret.deleted.is_some() {
                return Err(marked_for_deletion());
            }
            // A rotation's version has its label before it has a value: it can be taken off.
            let bare = |id: &&String| secret.labels_of(id).next().is_none();
            for id in [from.as_ref().filter(bare), to.as_ref()].into_iter().flatten() {
                if !rows.has_version(uid, id)? {
                    return Err(no_version(id));
                }
            }
            labels::shift(&mut secret.stages, &label, from.as_deref(), to.as_deref())?;
            save(rows, &mut secret, now)?;
            note_labels(rows, &secret, now)
        })
        .await?;
        Ok(output)
    }
}

fn no_version(id: &str) -> Error {
    let text = format!("Secrets Manager can't find the specified secret value for VersionId: {id}");
    Error::new(Condition::NotFound, text)
}
