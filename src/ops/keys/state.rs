//! EnableKey, DisableKey, ScheduleKeyDeletion, CancelKeyDeletion.

use super::{KeyTarget, change, check_key_id, facts, locate_own, not_pending};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::keys::{Key, KeyState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shortest, the longest and the default waiting period before a key is deleted, days.
const WINDOW: (i64, i64, i64) = (7, 30, 30);

/// What operations on one key without more to say take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct KeyIdInput {
    key_id: Option<String>,
}

impl KeyIdInput {
    /// The key that is named.
    pub(super) fn key_id(&self) -> Result<&str> {
        given(&self.key_id, "keyId").map(String::as_str)
    }
}

impl Input for KeyIdInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
    }
}

/// EnableKey: <https://docs.aws.amazon.com/kms/latest/APIReference/API_EnableKey.html>.
pub struct EnableKey;

impl Operation for EnableKey {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "EnableKey";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}:enable" };
    type Input = KeyIdInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &KeyIdInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(call: &Call, target: Allowed<KeyTarget>, _: KeyIdInput) -> Result<Empty> {
        change(call, &target, |key, arn| turn(key, arn, KeyState::Enabled)).await?;
        Ok(Empty {})
    }
}

/// DisableKey: <https://docs.aws.amazon.com/kms/latest/APIReference/API_DisableKey.html>.
pub struct DisableKey;

impl Operation for DisableKey {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "DisableKey";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}:disable" };
    type Input = KeyIdInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &KeyIdInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(call: &Call, target: Allowed<KeyTarget>, _: KeyIdInput) -> Result<Empty> {
        change(call, &target, |key, arn| turn(key, arn, KeyState::Disabled)).await?;
        Ok(Empty {})
    }
}

/// Turns a key on or off; answers whether that changed anything.
fn turn(key: &mut Key, arn: &str, state: KeyState) -> Result<bool> {
    not_pending(key, arn)?;
    let changed = key.state != state;
    key.state = state;
    Ok(changed)
}

/// ScheduleKeyDeletion:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ScheduleKeyDeletion.html>.
pub struct ScheduleKeyDeletion;

/// What [`ScheduleKeyDeletion`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduleKeyDeletionInput {
    key_id: Option<String>,
    pending_window_in_days: Option<i64>,
}

impl Input for ScheduleKeyDeletionInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        let (min, max, _) = WINDOW;
        checks.range("pendingWindowInDays", self.pending_window_in_days, min, max);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let days = self.pending_window_in_days.unwrap_or(WINDOW.2);
        facts::number(key, "kms:schedulekeydeletionpendingwindowindays", Some(days))
    }
}

/// What [`ScheduleKeyDeletion`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduleKeyDeletionOutput {
    key_id: String,
    deletion_date: Epoch,
    key_state: KeyState,
    pending_window_in_days: i64,
}

impl Operation for ScheduleKeyDeletion {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ScheduleKeyDeletion";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/keys/{KeyId}" };
    type Input = ScheduleKeyDeletionInput;
    type Target = KeyTarget;
    type Output = ScheduleKeyDeletionOutput;

    async fn locate(call: &Call, input: &ScheduleKeyDeletionInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: ScheduleKeyDeletionInput,
    ) -> Result<ScheduleKeyDeletionOutput> {
        let days = input.pending_window_in_days.unwrap_or(WINDOW.2);
        let due = call.now.plus_days(days);
        let output = ScheduleKeyDeletionOutput {
            key_id: target.arn().to_owned(),
            deletion_date: Epoch(due),
            key_state: KeyState::PendingDeletion,
            pending_window_in_days: days,
        };
        call.answering(&output)?;
        change(call, &target, move |key, arn| {
            not_pending(key, arn)?;
            key.state = KeyState::PendingDeletion;
            key.due = Some(due);
            key.window_days = Some(days);
            Ok(true)
        })
        .await?;
        Ok(output)
    }
}

/// CancelKeyDeletion:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_CancelKeyDeletion.html>.
pub struct CancelKeyDeletion;

/// What [`CancelKeyDeletion`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CancelKeyDeletionOutput {
    key_id: String,
}

impl Operation for CancelKeyDeletion {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "CancelKeyDeletion";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}:cancelDeletion" };
    type Input = KeyIdInput;
    type Target = KeyTarget;
    type Output = CancelKeyDeletionOutput;

    async fn locate(call: &Call, input: &KeyIdInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        _: KeyIdInput,
    ) -> Result<CancelKeyDeletionOutput> {
        let output = CancelKeyDeletionOutput { key_id: target.arn().to_owned() };
        call.answering(&output)?;
        change(call, &target, |key, arn| {
            if key.state != KeyState::PendingDeletion {
                let text = format!("{arn} is not pending deletion.");
                return Err(Error::new(Condition::InvalidState, text));
            }
            key.state = KeyState::Disabled;
            key.due = None;
            key.window_days = None;
            Ok(true)
        })
        .await?;
        Ok(output)
    }
}
