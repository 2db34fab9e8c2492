//! CancelRotateSecret: no more rotations, and none that is under way.

use super::state::clear;
use crate::clock::Time;
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::secrets::{
    Named, SecretTarget, check_secret_id, facts, locate, marked_for_deletion, not_found,
};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::records::Rows;
use crate::store::secrets::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// CancelRotateSecret:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CancelRotateSecret.html>.
pub struct CancelRotateSecret;

/// What [`CancelRotateSecret`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CancelRotateSecretInput {
    secret_id: Option<String>,
}

impl Input for CancelRotateSecretInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

/// What [`CancelRotateSecret`] answers: of a rotation under way the version that it was making.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CancelRotateSecretOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<String>,
}

impl Operation for CancelRotateSecret {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "CancelRotateSecret";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/secrets/{SecretId}/rotation" };
    type Input = CancelRotateSecretInput;
    type Target = SecretTarget;
    type Output = CancelRotateSecretOutput;

    async fn locate(call: &Call, input: &CancelRotateSecretInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        _: CancelRotateSecretInput,
    ) -> Result<CancelRotateSecretOutput> {
        let (secret, now) = (target.live()?.clone(), call.now);
        let known = call.records.rotation(secret.uid)?;
        let version_id = known.and_then(|known| Some(known.progress.as_ref()?.token.clone()));
        let Named { arn, name } = Named::of(&target)?;
        let output = CancelRotateSecretOutput { arn, name, version_id };
        call.answering(&output)?;
        call.commit(move |rows| cancel(rows, &secret, now)).await?;
        Ok(output)
    }
}

/// Turns rotation off. AWSPENDING stays where setSecret may have run: its value may be the only one
/// that still logs in.
fn cancel(rows: &mut Rows<'_>, found: &Secret, now: Time) -> Result<()> {
    let secret = rows.secret(&found.account, &found.name)?.filter(|s| s.uid == found.uid);
    let mut secret = secret.ok_or_else(not_found)?;
    if secret.deleted.is_some() {
        return Err(marked_for_deletion());
    }
    let Some(mut rotation) = rows.rotation(secret.uid)? else { return Ok(()) };
    match rotation.progress.take() {
        Some(progress) if !progress.set => clear(rows, &mut secret, &progress.token, now)?,
        _ => super::super::edit::save(rows, &mut secret, now)?,
    }
    rotation.enabled = false;
    rotation.next = None;
    rotation.due = None;
    rotation.lease = None;
    Ok(rows.put_rotation(&mut rotation)?)
}
