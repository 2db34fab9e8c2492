//! What becomes of a rotation's record and of the secret's labels: when it is due, how it begins and
//! ends, what requests change about it. Each function that takes rows is part of one durable change.

use super::super::edit::save;
use super::super::labels::{self, CURRENT, PENDING};
use super::super::schedule::{RotationRules, Schedule, Window};
use crate::clock::{DAY, Time};
use crate::ops::error::Result;
use crate::store::records::Rows;
use crate::store::rotations::{self, Progress, Rotation, Rules, Step};
use crate::store::secrets::Secret;

/// How long a failure is followed by another attempt, where no window says so: one hour, in
/// milliseconds.
const PATIENCE: i64 = 3_600_000;
/// A moment that is further ahead than this, in milliseconds, was noted by a clock that was wrong.
const AHEAD: i64 = DAY;

impl From<&Rules> for RotationRules {
    fn from(rules: &Rules) -> Self {
        Self {
            automatically_after_days: rules.after_days,
            duration: rules.duration.clone(),
            schedule_expression: rules.expression.clone(),
        }
    }
}

impl From<&RotationRules> for Rules {
    fn from(rules: &RotationRules) -> Self {
        Self {
            after_days: rules.automatically_after_days,
            duration: rules.duration.clone(),
            expression: rules.schedule_expression.clone(),
        }
    }
}

/// When a rotation's rules let it happen. They were checked when they were stored.
pub(in crate::ops::secrets) fn schedule(rotation: &Rotation) -> Option<Schedule> {
    Schedule::of(&rotation.rules.as_ref()?.into()).ok()
}

/// Finds the next window, and the moment in it.
pub(super) fn reschedule(rotation: &mut Rotation, now: Time) {
    rotation.next = next_window(rotation, now);
    if rotation.progress.is_none() {
        rotation.due = planned(rotation);
    }
}

/// The next window that the rules allow.
pub(super) fn next_window(rotation: &Rotation, now: Time) -> Option<rotations::Window> {
    let schedule = schedule(rotation).filter(|_| rotation.enabled)?;
    let believed = |noted: Time| if noted.0.saturating_sub(now.0) > AHEAD { now } else { noted };
    let last = rotation.last.map(believed);
    let Window { opens, closes } = schedule.next_window(now, last, believed(rotation.scheduled))?;
    Some(rotations::Window { opens, closes })
}

/// The secret's own moment in the window that comes.
pub(super) fn planned(rotation: &Rotation) -> Option<Time> {
    let rotations::Window { opens, closes } = rotation.next?;
    Some(Window { opens, closes }.point_for(rotation.secret.unsigned_abs()))
}

/// What [`Window::next_rotation_date`] says of the window that comes.
pub(in crate::ops::secrets) fn next_date(rotation: &Rotation) -> Option<Time> {
    let next = rotation.next.filter(|_| rotation.enabled)?;
    Some(Window { opens: next.opens, closes: next.closes }.next_rotation_date())
}

/// Notes that a secret has a new current value by other means: that counts as a rotation.
pub(in crate::ops::secrets) fn note_value(rows: &mut Rows<'_>, uid: i64, now: Time) -> Result<()> {
    super::super::probe::soon(rows, uid, now)?;
    let Some(mut rotation) = rows.rotation(uid)? else { return Ok(()) };
    rotation.last = Some(now);
    reschedule(&mut rotation, now);
    Ok(rows.put_rotation(&mut rotation)?)
}

/// The version that an earlier rotation, or somebody else, has left with AWSPENDING.
pub(super) fn left_behind(secret: &Secret) -> Option<&str> {
    secret.version_with(PENDING).filter(|pending| secret.version_with(CURRENT) != Some(*pending))
}

/// Begins a rotation: the version is there by its label from now on, and has no value yet.
pub(super) fn begin(
    rows: &mut Rows<'_>,
    secret: &mut Secret,
    rotation: &mut Rotation,
    progress: Progress,
    now: Time,
) -> Result<()> {
    labels::put(&mut secret.stages, PENDING, &progress.token);
    save(rows, secret, now)?;
    rotation.progress = Some(progress);
    rotation.lease = None;
    rotation.due = Some(now);
    Ok(rows.put_rotation(rotation)?)
}

/// A rotation that begins now.
pub(super) fn fresh(token: &str, trial: bool, now: Time) -> Progress {
    Progress {
        token: token.to_owned(),
        trial,
        step: if trial { Step::Test } else { Step::Create },
        set: false,
        failures: 0,
        began: now,
        until: Time(now.0.saturating_add(PATIENCE)),
        noted: false,
        overdue: false,
        hopeless: false,
        settling: false,
    }
}

/// One that goes on with a version that was left behind: whether its value is in force nobody knows.
pub(super) fn resumed(token: &str, now: Time) -> Progress {
    Progress { set: true, ..fresh(token, false, now) }
}

/// Notes that labels were moved by hand: a rotation whose version lost AWSPENDING, and is not current
/// either, was given up.
pub(in crate::ops::secrets) fn note_labels(
    rows: &mut Rows<'_>,
    secret: &Secret,
    now: Time,
) -> Result<()> {
    let Some(rotation) = rows.rotation(secret.uid)? else { return Ok(()) };
    let Some(progress) = &rotation.progress else { return Ok(()) };
    let carries = |label| secret.version_with(label) == Some(progress.token.as_str());
    if carries(PENDING) || carries(CURRENT) { Ok(()) } else { over(rows, rotation, now) }
}

/// Takes away what is left of a rotation that comes to nothing: AWSPENDING, on whichever version its
/// function has put it, and the version that it was to make.
pub(super) fn clear(
    rows: &mut Rows<'_>,
    secret: &mut Secret,
    token: &str,
    now: Time,
) -> Result<()> {
    if left_behind(secret).is_some() {
        secret.stages.retain(|s| s.label != PENDING);
    }
    let bare = secret.labels_of(token).next().is_none();
    if bare && rows.has_version(secret.uid, token)? {
        rows.delete_version(secret.uid, token)?;
        secret.versions = secret.versions.saturating_sub(1);
    }
    save(rows, secret, now)
}

/// Notes that a secret was taken back from its deletion: what came to nothing meanwhile is due.
pub(in crate::ops::secrets) fn note_restored(
    rows: &mut Rows<'_>,
    uid: i64,
    now: Time,
) -> Result<()> {
    let Some(mut rotation) = rows.rotation(uid)?.filter(|r| r.due.is_none()) else {
        return Ok(());
    };
    rotation.due = match &rotation.progress {
        Some(_) => Some(now),
        None => planned(&rotation),
    };
    Ok(rows.put_rotation(&mut rotation)?)
}

/// Ends what was under way.
pub(super) fn over(rows: &mut Rows<'_>, mut rotation: Rotation, now: Time) -> Result<()> {
    rotation.progress = None;
    rotation.lease = None;
    rotation.due = None;
    reschedule(&mut rotation, now);
    Ok(rows.put_rotation(&mut rotation)?)
}
