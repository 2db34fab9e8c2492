//! EnableKeyRotation, DisableKeyRotation, GetKeyRotationStatus, RotateKeyOnDemand, and the rotations
//! that are due by the clock.
//!
//! A rotation makes a new backing key and seals with it from then on. The old ones stay: what they
//! sealed still opens.

use super::material::{Place, adopt, discard, event, make_backing_key};
use super::state::KeyIdInput;
use super::stores::refuse_in_store;
use super::{KeyTarget, change, check_key_id, facts, locate_key, locate_own, usable};
use crate::clock::Time;
use crate::name::{Service, key_arn};
use crate::ops::call::{Allowed, Call, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::keys::{Backing, Key, KeyHolder, KeyState, Rotation, RotationType};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The shortest, the longest and the default period of automatic rotation, days.
const PERIOD: (i64, i64, i64) = (90, 2560, 365);

/// How often a key may be rotated on demand: AWS's quota.
const ON_DEMAND_LIMIT: usize = 25;

/// How long before an automatic rotation none is made on demand, milliseconds.
const TOO_CLOSE: i64 = 20 * 60_000;

/// Keys rotated in one go; more wait for the next.
const BATCH: i64 = 100;

/// EnableKeyRotation:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_EnableKeyRotation.html>.
pub struct EnableKeyRotation;

/// What [`EnableKeyRotation`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EnableKeyRotationInput {
    key_id: Option<String>,
    rotation_period_in_days: Option<i64>,
}

impl Input for EnableKeyRotationInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.range("rotationPeriodInDays", self.rotation_period_in_days, PERIOD.0, PERIOD.1);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::number(key, "kms:rotationperiodindays", self.rotation_period_in_days)
    }
}

impl Operation for EnableKeyRotation {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "EnableKeyRotation";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/keys/{KeyId}/rotation" };
    type Input = EnableKeyRotationInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &EnableKeyRotationInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: EnableKeyRotationInput,
    ) -> Result<Empty> {
        let (days, now) = (input.rotation_period_in_days.unwrap_or(PERIOD.2), call.now);
        change(call, &target, move |key, arn| {
            rotatable(key, arn)?;
            Ok(turn_on(key, days, now))
        })
        .await?;
        Ok(Empty {})
    }
}

/// Refuses a key that is not enabled, and one whose material AWS does not rotate.
fn rotatable(key: &Key, arn: &str) -> Result<()> {
    refuse_in_store(key, arn)?;
    usable(key.state, arn)
}

/// Turns automatic rotation on, or gives it another period; answers whether that changed anything.
/// The period counts from now on.
fn turn_on(key: &mut Key, period_days: i64, now: Time) -> bool {
    if key.rotation.is_some_and(|rotation| rotation.period_days == period_days) {
        return false;
    }
    key.rotation = Some(Rotation { period_days, next: now.plus_days(period_days) });
    true
}

/// DisableKeyRotation:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DisableKeyRotation.html>.
pub struct DisableKeyRotation;

impl Operation for DisableKeyRotation {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "DisableKeyRotation";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/keys/{KeyId}/rotation" };
    type Input = KeyIdInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &KeyIdInput) -> Result<KeyTarget> {
        locate_own(call, input.key_id()?)
    }

    async fn run(call: &Call, target: Allowed<KeyTarget>, _: KeyIdInput) -> Result<Empty> {
        change(call, &target, |key, arn| {
            rotatable(key, arn)?;
            Ok(key.rotation.take().is_some())
        })
        .await?;
        Ok(Empty {})
    }
}

/// GetKeyRotationStatus:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyRotationStatus.html>.
pub struct GetKeyRotationStatus;

/// What [`GetKeyRotationStatus`] answers. An on-demand rotation is over when its request is answered,
/// so that there is never a date of one in progress.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyRotationStatusOutput {
    key_rotation_enabled: bool,
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_period_in_days: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_date: Option<Epoch>,
}

impl Operation for GetKeyRotationStatus {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "GetKeyRotationStatus";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}/rotation" };
    type Input = KeyIdInput;
    type Target = KeyTarget;
    type Output = GetKeyRotationStatusOutput;

    async fn locate(call: &Call, input: &KeyIdInput) -> Result<KeyTarget> {
        locate_key(call, input.key_id()?)
    }

    async fn run(
        _: &Call,
        target: Allowed<KeyTarget>,
        _: KeyIdInput,
    ) -> Result<GetKeyRotationStatusOutput> {
        let key = target.key()?;
        refuse_in_store(key, &target.arn_of_key(key))?;
        // A key that waits for its deletion shows as not rotated; if it is kept after all, its
        // rotation is as it was.
        let rotation = key.rotation.filter(|_| key.state != KeyState::PendingDeletion);
        Ok(GetKeyRotationStatusOutput {
            key_rotation_enabled: rotation.is_some(),
            key_id: key.id.clone(),
            rotation_period_in_days: rotation.map(|rotation| rotation.period_days),
            next_rotation_date: rotation.map(|rotation| Epoch(rotation.next)),
        })
    }
}

/// RotateKeyOnDemand:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_RotateKeyOnDemand.html>.
pub struct RotateKeyOnDemand;

/// What [`RotateKeyOnDemand`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RotateKeyOnDemandOutput {
    key_id: String,
}

impl Operation for RotateKeyOnDemand {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "RotateKeyOnDemand";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}:rotate" };
    type Input = KeyIdInput;
    type Target = KeyTarget;
    type Output = RotateKeyOnDemandOutput;

    async fn locate(call: &Call, input: &KeyIdInput) -> Result<KeyTarget> {
        locate_own(call, input.key_id()?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        _: KeyIdInput,
    ) -> Result<RotateKeyOnDemandOutput> {
        let key = target.customers(call)?.clone();
        let (arn, now) = (target.arn_of_key(&key), call.now);
        may_rotate(&key, &arn, now)?;
        let place = Place::of(key.current().ok_or_else(|| Error::internal("a key of nothing"))?);
        let new = make_backing_key(&call.services, &place, Some(RotationType::OnDemand)).await?;
        let made = new.holders.clone();
        let output = RotateKeyOnDemandOutput { key_id: arn.clone() };
        call.answering(&output)?;
        let committed = call
            .commit(move |rows| {
                let mut key = current(rows, &key, &arn)?;
                may_rotate(&key, &arn, now)?;
                replace(rows, &mut key, new.clone())
            })
            .await;
        settle(&call.services, &made, committed).await?;
        Ok(output)
    }
}

/// Refuses a rotation on demand that the key's state, its history or its schedule forbids.
fn may_rotate(key: &Key, arn: &str, now: Time) -> Result<()> {
    rotatable(key, arn)?;
    let on_demand = |backing: &&Backing| backing.rotation == Some(RotationType::OnDemand);
    if key.backing.iter().filter(on_demand).count() >= ON_DEMAND_LIMIT {
        let text = format!(
            "The on-demand rotations limit has been reached for the given keyId. No more on-demand \
             rotations can be performed for this key: {arn}"
        );
        return Err(Error::new(Condition::LimitExceeded, text));
    }
    if key.rotates().is_some_and(|next| next.0.saturating_sub(now.0) <= TOO_CLOSE) {
        return Err(conflict(arn));
    }
    Ok(())
}

fn conflict(arn: &str) -> Error {
    let text = format!(
        "A rotation of {arn} is in progress or scheduled to begin within the next 20 minutes."
    );
    Error::new(Condition::Conflict, text)
}

/// The key as it stands now, if nobody rotated it since `known` was read, and the same tokens hold it:
/// one that came to it meanwhile would lack the new material.
fn current(rows: &mut Rows<'_>, known: &Key, arn: &str) -> Result<Key> {
    let gone = || Error::new(Condition::NotFound, format!("Key '{arn}' does not exist"));
    let key = rows.key(&known.id)?.ok_or_else(gone)?;
    if key.same_material(known) { Ok(key) } else { Err(conflict(arn)) }
}

/// Puts a new backing key behind the others, which makes it the current one.
fn replace(rows: &mut Rows<'_>, key: &mut Key, new: Backing) -> Result<()> {
    adopt(rows, &new.holders)?;
    key.backing.push(new);
    key.revision += 1;
    rows.put_key(key)?;
    Ok(())
}

/// Gives up a backing key that did not get its place.
async fn settle(services: &Services, made: &[KeyHolder], committed: Result<()>) -> Result<()> {
    if committed.is_err() {
        discard(services, made).await;
    }
    committed
}

/// Rotates the KMS keys whose automatic rotation is due; answers how many.
///
/// # Errors
/// Those of the database. A key that can't be rotated now is logged, and tried again the next time.
pub async fn rotate_due(services: &Arc<Services>) -> Result<usize> {
    let now = services.world.clock.now();
    let due =
        services.records.scan(move |rows| Ok::<_, Error>(rows.keys_to_rotate(now, BATCH)?)).await?;
    let mut rotated = 0;
    for key in due {
        let id = key.id.clone();
        match rotate(services, key, now).await {
            Ok(()) => rotated += 1,
            Err(error) if error.condition == Condition::Conflict => {}
            Err(error) => tracing::error!(%error, "KMS key {id} is due and could not be rotated"),
        }
    }
    Ok(rotated)
}

/// [`Condition::Conflict`] if somebody else rotated it meanwhile, or it is not due any more.
async fn rotate(services: &Services, key: Key, now: Time) -> Result<()> {
    let arn = key_arn(&services.region, &key.account, &key.id);
    let event = event("RotateKey", &key.account, arn.clone());
    let place = Place::of(key.current().ok_or_else(|| Error::internal("a key of nothing"))?);
    let new = make_backing_key(services, &place, Some(RotationType::Automatic)).await?;
    let made = new.holders.clone();
    let committed = services
        .commit_event(&event, move |rows| {
            let mut key = current(rows, &key, &arn)?;
            let rotation = key.rotation.filter(|_| key.rotates().is_some_and(|next| next <= now));
            let rotation = rotation.ok_or_else(|| conflict(&arn))?;
            key.rotation = Some(following(rotation, now));
            replace(rows, &mut key, new.clone())
        })
        .await;
    settle(services, &made, committed).await
}

/// The schedule after a rotation at `now`: a period after the date that was due; if that is over
/// too (the key was disabled for long), a period from now.
fn following(rotation: Rotation, now: Time) -> Rotation {
    let next = rotation.next.plus_days(rotation.period_days);
    let next = if next > now { next } else { now.plus_days(rotation.period_days) };
    Rotation { next, ..rotation }
}

#[cfg(test)]
mod tests {
    use super::super::rotations::tests::key;
    use super::*;
    use crate::clock::DAY;
    use crate::name::{BackingKeyId, KeyCheck};
    use crate::store::Store;
    use crate::store::records::{Records, RowMac};
    use crate::store::sqlite::{Options, Sqlite};

    const NOW: Time = Time(1_000 * DAY);

    #[test]
    fn turning_on_again_with_the_same_period_moves_no_date() {
        let mut key = key(1);
        assert!(turn_on(&mut key, 365, NOW));
        assert!(!turn_on(&mut key, 365, NOW.plus_days(10)));
        assert_eq!(key.rotates(), Some(NOW.plus_days(365)));
        assert!(turn_on(&mut key, 90, NOW.plus_days(10)));
        assert_eq!(key.rotates(), Some(NOW.plus_days(100)));
    }

    #[test]
    fn a_schedule_goes_on_from_the_date_that_was_due_unless_that_is_long_gone() {
        let due = |next| Rotation { period_days: 90, next };
        assert_eq!(following(due(NOW), Time(NOW.0 + 60_000)).next, NOW.plus_days(90));
        assert_eq!(following(due(NOW), NOW.plus_days(90)).next, NOW.plus_days(180));
        assert_eq!(following(due(NOW), NOW.plus_days(400)).next, NOW.plus_days(490));
    }

    #[test]
    fn a_disabled_key_is_never_due() {
        let mut key = key(1);
        turn_on(&mut key, 90, NOW);
        key.state = KeyState::Disabled;
        assert_eq!(key.rotates(), None);
    }

    #[test]
    fn the_twenty_sixth_rotation_on_demand_is_one_too_many() {
        let may = |key: &Key| may_rotate(key, "ARN", NOW).map_err(|e| (e.condition, e.message));
        assert_eq!(may(&key(25)), Ok(()));
        let (condition, text) = may(&key(26)).expect_err("refused");
        assert_eq!(condition, Condition::LimitExceeded);
        assert_eq!(
            text,
            "The on-demand rotations limit has been reached for the given keyId. No more on-demand \
             rotations can be performed for this key: ARN"
        );
    }

    #[test]
    fn no_rotation_on_demand_within_twenty_minutes_of_an_automatic_one() {
        let before = |minutes: i64| {
            let mut key = key(1);
            let next = Time(NOW.0 + minutes * 60_000);
            key.rotation = Some(Rotation { period_days: 90, next });
            may_rotate(&key, "ARN", NOW).map_err(|error| error.condition)
        };
        assert_eq!(before(21), Ok(()));
        assert_eq!(before(20), Err(Condition::Conflict));
        assert_eq!(before(-1), Err(Condition::Conflict));
    }

    /// The new material once lacked the token that came to hold the key while it was made.
    #[tokio::test]
    async fn new_material_is_for_the_holders_of_now_or_for_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Sqlite::open(Options::new(dir.path().join("data"))).expect("a database");
        let records = Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10);
        let mut held = key(1);
        let other = KeyHolder::alone(BackingKeyId([9; 16]), KeyCheck([9; 8]));
        held.backing.iter_mut().for_each(|backing| backing.holders.push(other.clone()));
        for (now, same) in [(key(1), true), (held, false), (key(2), false)] {
            records.write(move |rows| rows.put_key(&now)).await.expect("written");
            let found = records.write(|rows| current(rows, &key(1), "ARN")).await;
            assert_eq!(found.is_ok(), same);
        }
    }
}
