//! GetSecretRotation: how far a rotation is, and why the last one did not end well. Strongroom's own
//! operation: AWS tells neither.

use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::secrets::{SecretTarget, check_secret_id, facts, locate};
use crate::ops::shape::{Checks, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::rotations::{Failure, Progress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// GetSecretRotation.
pub struct GetSecretRotation;

/// What [`GetSecretRotation`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetSecretRotationInput {
    secret_id: Option<String>,
}

impl Input for GetSecretRotationInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

/// What [`GetSecretRotation`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetSecretRotationOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    rotation_enabled: bool,
    #[serde(rename = "RotationLambdaARN")]
    rotation_lambda_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_progress: Option<InProgress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<LastFailure>,
    /// The next attempt, or the next rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_date: Option<Epoch>,
}

/// A rotation that is under way.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct InProgress {
    version_id: String,
    /// The step that comes next, or is being done.
    step: &'static str,
    /// Whether the target may have the new value: it is then rolled forward whatever comes.
    may_be_set: bool,
    /// Whether only testSecret is tried.
    test_only: bool,
    failed_attempts: u32,
    start_date: Epoch,
}

/// What went wrong last.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LastFailure {
    step: &'static str,
    reason: String,
    date: Epoch,
}

impl From<&Progress> for InProgress {
    fn from(progress: &Progress) -> Self {
        Self {
            version_id: progress.token.clone(),
            step: progress.step.name(),
            may_be_set: progress.set,
            test_only: progress.trial,
            failed_attempts: progress.failures,
            start_date: Epoch(progress.began),
        }
    }
}

impl From<&Failure> for LastFailure {
    fn from(failure: &Failure) -> Self {
        Self { step: failure.step.name(), reason: failure.why.clone(), date: Epoch(failure.at) }
    }
}

impl Operation for GetSecretRotation {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "GetSecretRotation";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/secrets/{SecretId}/rotation" };
    type Input = GetSecretRotationInput;
    type Target = SecretTarget;
    type Output = GetSecretRotationOutput;

    async fn locate(call: &Call, input: &GetSecretRotationInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        _: GetSecretRotationInput,
    ) -> Result<GetSecretRotationOutput> {
        let secret = target.secret()?;
        let rotation = call.records.rotation(secret.uid)?.ok_or_else(|| {
            let text = "The secret was never set up for rotation.";
            Error::new(Condition::InvalidRequest, text)
        })?;
        Ok(GetSecretRotationOutput {
            arn: target.arn().to_owned(),
            name: secret.name.clone(),
            rotation_enabled: rotation.enabled,
            rotation_lambda_arn: rotation.function.clone(),
            in_progress: rotation.progress.as_ref().map(InProgress::from),
            last_failure: rotation.failure.as_ref().map(LastFailure::from),
            // A lease's end is no date that anything is planned for.
            next_attempt_date: rotation.due.filter(|_| rotation.lease.is_none()).map(Epoch),
        })
    }
}
