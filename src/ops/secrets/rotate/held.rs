//! A rotation in the hands of one process: taken, step by step, until it has ended or is let go of. Each
//! function is one durable change, made inside a transaction.

use super::super::edit::save;
use super::super::labels::{CURRENT, PENDING};
use super::state::{begin, clear, fresh, left_behind, over, resumed};
use crate::clock::Time;
use crate::ops::error::{Condition, Error, Result};
use crate::store::records::Rows;
use crate::store::rotations::{Failure, Lease, Progress, Rotation, Step};
use crate::store::secrets::Secret;
use std::time::Duration;

/// How long a process may be silent about a rotation that it has taken, in milliseconds. While it is
/// at a step it says four times as often that it is there ([`RENEWAL`]).
pub(super) const LEASE: i64 = 60_000;
/// After how long a lease is renewed.
pub const RENEWAL: Duration = Duration::from_secs(15);
/// The pause after a first failure, and the longest one, in milliseconds.
pub(super) const PAUSES: (i64, i64) = (1000, 15 * 60_000);

/// A rotation in the hands of one process.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its record as it was last written.
    pub rotation: Rotation,
    /// What is under way.
    pub progress: Progress,
    /// The random end of the secret's ARN.
    pub suffix: String,
}

/// Takes a rotation that is due for the process `owner`, and begins it with `token` if its window has
/// come. None if there is nothing to do.
///
/// # Errors
/// Those of the database.
pub fn take(
    rows: &mut Rows<'_>,
    uid: i64,
    (owner, token): (&str, &str),
    now: Time,
) -> Result<Option<Held>> {
    let Some(mut rotation) = rows.rotation(uid)?.filter(|r| r.due.is_some_and(|due| due <= now))
    else {
        return Ok(None);
    };
    let secret = rows.secret(&rotation.account, &rotation.name)?.filter(|s| s.uid == uid);
    let Some(mut secret) = secret else { return Ok(None) };
    if secret.deleted.is_some() {
        // Until it is restored.
        (rotation.due, rotation.lease) = (None, None);
        rows.put_rotation(&mut rotation)?;
        return Ok(None);
    }
    let Some(mut progress) = under_way(rows, &mut secret, &mut rotation, token, now)? else {
        rotation.due = None;
        rows.put_rotation(&mut rotation)?;
        return Ok(None);
    };
    progress.noted = true;
    let held = Held { suffix: secret.suffix, progress, rotation };
    keep(rows, held, owner, now).map(Some)
}

/// What is under way, or what begins now; none if nothing is to be.
fn under_way(
    rows: &mut Rows<'_>,
    secret: &mut Secret,
    rotation: &mut Rotation,
    token: &str,
    now: Time,
) -> Result<Option<Progress>> {
    if rotation.progress.is_some() {
        return Ok(rotation.progress.clone());
    }
    let Some(next) = rotation.next.filter(|_| rotation.enabled) else { return Ok(None) };
    let mut progress = match left_behind(secret) {
        Some(version) => resumed(version, now),
        None => fresh(token, false, now),
    };
    progress.until = next.closes.max(progress.until);
    begin(rows, secret, rotation, progress.clone(), now)?;
    Ok(Some(progress))
}

/// Writes a rotation that stays in the hands of `owner`.
fn keep(rows: &mut Rows<'_>, mut held: Held, owner: &str, now: Time) -> Result<Held> {
    let until = Time(now.0.saturating_add(LEASE));
    held.rotation.progress = Some(held.progress.clone());
    held.rotation.lease = Some(Lease { owner: owner.to_owned(), until });
    // Who looks at it then finds a process that died.
    held.rotation.due = Some(until);
    rows.put_rotation(&mut held.rotation)?;
    Ok(held)
}

/// Reads a rotation again that is still in the same hands, with its secret.
fn again(rows: &mut Rows<'_>, held: &Held) -> Result<(Rotation, Secret)> {
    let lost = || Error::new(Condition::Conflict, "the rotation was cancelled or taken over");
    let rotation = rows.rotation(held.rotation.secret)?;
    let rotation = rotation.filter(|r| {
        r.lease.as_ref().map(|l| &l.owner) == held.rotation.lease.as_ref().map(|l| &l.owner)
            && r.progress.as_ref().is_some_and(|p| p.token == held.progress.token)
    });
    let rotation = rotation.ok_or_else(lost)?;
    let secret = rows.secret(&rotation.account, &rotation.name)?;
    let secret = secret.filter(|s| s.uid == rotation.secret).ok_or_else(lost)?;
    Ok((rotation, secret))
}

/// Says that the process is still at it.
///
/// # Errors
/// [`Condition::Conflict`] if the rotation is not in these hands any more; those of the database.
pub fn renew(rows: &mut Rows<'_>, held: &Held, now: Time) -> Result<()> {
    let (mut rotation, _) = again(rows, held)?;
    let until = Time(now.0.saturating_add(LEASE));
    rotation.lease = rotation.lease.map(|lease| Lease { until, ..lease });
    rotation.due = Some(until);
    Ok(rows.put_rotation(&mut rotation)?)
}

/// Goes on to the next step, which is written before it is done.
///
/// # Errors
/// As for [`renew`].
pub fn advance(rows: &mut Rows<'_>, held: &Held, next: Step, now: Time) -> Result<Held> {
    let (rotation, secret) = again(rows, held)?;
    let owner = rotation.lease.as_ref().map(|lease| lease.owner.clone()).unwrap_or_default();
    let set = held.progress.set || next == Step::Set;
    let progress = Progress { step: next, set, ..held.progress.clone() };
    keep(rows, Held { rotation, progress, suffix: secret.suffix }, &owner, now)
}

/// Ends a rotation that went well; answers whether it did: AWSCURRENT must be on its version.
///
/// # Errors
/// As for [`renew`].
pub fn conclude(rows: &mut Rows<'_>, held: &Held, now: Time) -> Result<bool> {
    let (mut rotation, mut secret) = again(rows, held)?;
    let token = &held.progress.token;
    if held.progress.trial {
        clear(rows, &mut secret, token, now)?;
    } else if secret.version_with(CURRENT) != Some(token.as_str()) {
        return Ok(false);
    } else {
        secret.stages.retain(|s| s.label != PENDING || s.version != *token);
        save(rows, &mut secret, now)?;
        rotation.last = Some(now);
    }
    rotation.failure = None;
    over(rows, rotation, now)?;
    Ok(true)
}

/// What a failed step leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Another attempt.
    Again,
    /// Another attempt, although its time is over: the new value may be the only one that logs in.
    Overdue,
    /// The end, with AWSCURRENT untouched.
    Ended,
}

/// Whether a rotation whose value the target may have is to end if AWSCURRENT logs in: an attempt has
/// failed, and its time is up or another one can't go better. Not while the target has taken the
/// new value and it was not tested yet, nor once it was let in.
pub fn may_end(progress: &Progress, now: Time) -> bool {
    let asked = progress.set && matches!(progress.step, Step::Create | Step::Set);
    let in_vain = progress.failures > 0 && (progress.hopeless || now >= progress.until);
    asked && in_vain && !progress.trial
}

/// Notes that AWSCURRENT was let in and AWSPENDING was not: if it is so once more after `quiet`
/// milliseconds without an attempt, the rotation is over.
///
/// # Errors
/// As for [`advance`].
pub fn look_again(rows: &mut Rows<'_>, held: &Held, quiet: i64, now: Time) -> Result<()> {
    let (mut rotation, _) = again(rows, held)?;
    rotation.progress = Some(Progress { settling: true, ..held.progress.clone() });
    rotation.due = Some(Time(now.0.saturating_add(quiet)));
    rotation.lease = None;
    Ok(rows.put_rotation(&mut rotation)?)
}

/// What a failure leads to; `worth` says whether another attempt may go better.
pub fn fate(progress: &Progress, worth: bool, now: Time) -> Fate {
    let late = now >= progress.until;
    if progress.trial || (!progress.set && (late || !worth)) {
        Fate::Ended
    } else if late && !progress.overdue {
        Fate::Overdue
    } else {
        Fate::Again
    }
}

/// Notes a failure and what it leads to.
///
/// # Errors
/// As for [`renew`].
pub fn fail(rows: &mut Rows<'_>, held: &Held, fate: Fate, why: &str, now: Time) -> Result<()> {
    let (mut rotation, mut secret) = again(rows, held)?;
    let step = held.progress.step;
    rotation.failure = Some(Failure { step, at: now, why: why.to_owned() });
    if fate == Fate::Ended {
        clear(rows, &mut secret, &held.progress.token, now)?;
        return over(rows, rotation, now);
    }
    let mut progress = held.progress.clone();
    progress.failures = progress.failures.saturating_add(1);
    progress.overdue |= fate == Fate::Overdue;
    progress.settling = false;
    if step == Step::Test {
        // What does not log in is set once more.
        progress.step = Step::Set;
    }
    rotation.due = Some(Time(now.0.saturating_add(pause(progress.failures))));
    rotation.progress = Some(progress);
    rotation.lease = None;
    Ok(rows.put_rotation(&mut rotation)?)
}

/// The pause after so many failures: it doubles.
fn pause(failures: u32) -> i64 {
    let doubled = PAUSES.0.checked_shl(failures.saturating_sub(1).min(20)).unwrap_or(PAUSES.1);
    doubled.min(PAUSES.1)
}

#[cfg(test)]
mod tests {
    use super::super::super::labels;
    use super::super::state::reschedule;
    use super::*;
    use crate::clock::DAY;
    use crate::store::Store;
    use crate::store::records::{Records, RowMac};
    use crate::store::secrets::Version;
    use crate::store::sqlite::{Options, Sqlite};
    use std::sync::Arc;

    const UID: i64 = 7;
    const ACCOUNT: &str = "111122223333";
    /// A moment in the middle of a day.
    const NOON: i64 = 20_000 * DAY + DAY / 2;

    /// A database with one secret, whose version `v1` is current.
    async fn records(dir: &std::path::Path) -> Records {
        let engine = Sqlite::open(Options::new(dir.join("data"))).expect("a database");
        let records = Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10);
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "uid": UID, "account": ACCOUNT, "name": "db", "suffix": "AbCdEf", "created": 1,
            "changed": 1, "stages": [{"label": CURRENT, "version": "v1"}], "versions": 1,
            "prune_after": 0, "revision": 1,
        }))
        .expect("a secret");
        let stored = records.write(move |rows| {
            rows.put_secret(&secret)?;
            rows.add_version(UID, &version("v1"))
        });
        stored.await.expect("written");
        records
    }

    fn version(id: &str) -> Version {
        let (data_key, value) = (vec![1], vec![1]);
        Version { id: id.to_owned(), created: Time(1), accessed: None, data_key, value }
    }

    fn daily() -> Rotation {
        serde_json::from_value(serde_json::json!({
            "secret": UID, "account": ACCOUNT, "name": "db", "enabled": true, "function": "f",
            "rules": {"after_days": 1}, "scheduled": NOON, "due": null, "revision": 0,
        }))
        .expect("a rotation")
    }

    async fn write<T: Send + 'static>(
        records: &Records,
        f: impl FnMut(&mut Rows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        records.write(f).await
    }

    /// Sets the secret up for a rotation a day, at noon.
    async fn set_up(records: &Records) -> Rotation {
        let set_up = write(records, |rows| {
            let mut rotation = daily();
            reschedule(&mut rotation, Time(NOON));
            rows.put_rotation(&mut rotation)?;
            Ok(rotation)
        });
        set_up.await.expect("written")
    }

    async fn taken(records: &Records, owner: &'static str, now: Time) -> Option<Held> {
        write(records, move |rows| take(rows, UID, (owner, "v2"), now)).await.expect("read")
    }

    fn labels(records: &Records) -> Vec<(String, String)> {
        let secret = records.secret(ACCOUNT, "db").expect("read").expect("there");
        secret.stages.iter().map(|s| (s.label.clone(), s.version.clone())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(label, id)| ((*label).to_owned(), (*id).to_owned())).collect()
    }

    #[tokio::test]
    async fn a_rotation_begins_in_its_window_goes_step_by_step_and_plans_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path()).await;
        let due = set_up(&records).await.due.expect("a window");
        assert!(taken(&records, "a", Time(due.0 - 1)).await.is_none(), "too early");
        let mut held = taken(&records, "a", due).await.expect("due");
        assert_eq!(labels(&records), pairs(&[(CURRENT, "v1"), (PENDING, "v2")]));
        for (step, set) in [(Step::Set, true), (Step::Test, true), (Step::Finish, true)] {
            let before = held.clone();
            held =
                write(&records, move |rows| advance(rows, &before, step, due)).await.expect("held");
            assert_eq!((held.progress.step, held.progress.set), (step, set));
        }
        let ended = held.clone();
        let well = write(&records, move |rows| conclude(rows, &ended, due)).await;
        assert!(matches!(well, Ok(false)), "AWSCURRENT has not moved");
        let well = write(&records, move |rows| {
            let mut secret = rows.secret(ACCOUNT, "db")?.expect("there");
            labels::put(&mut secret.stages, CURRENT, "v2");
            save(rows, &mut secret, due)?;
            conclude(rows, &held, due)
        });
        assert!(well.await.expect("concluded"));
        assert_eq!(labels(&records), pairs(&[(CURRENT, "v2"), ("AWSPREVIOUS", "v1")]));
        let rotation = records.rotation(UID).expect("read").expect("there");
        assert_eq!((rotation.last, rotation.progress.is_none()), (Some(due), true));
        assert_eq!(rotation.due.map(Time::day), Some(due.day() + 1));
    }

    #[tokio::test]
    async fn a_rotation_is_in_one_process_s_hands_until_that_is_silent_for_too_long() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path()).await;
        let due = set_up(&records).await.due.expect("a window");
        let lost = taken(&records, "a", due).await.expect("due");
        assert!(taken(&records, "b", Time(due.0 + LEASE - 1)).await.is_none());
        let held = taken(&records, "b", Time(due.0 + LEASE)).await.expect("left");
        assert_eq!(held.progress, lost.progress);
        let gone = lost.clone();
        let late = write(&records, move |rows| advance(rows, &lost, Step::Set, due)).await;
        assert!(late.is_err_and(|error| error.condition == Condition::Conflict));
        let late = write(&records, move |rows| renew(rows, &gone, due)).await;
        assert!(late.is_err_and(|error| error.condition == Condition::Conflict));
        let later = Time(due.0 + LEASE + LEASE / 2);
        write(&records, move |rows| renew(rows, &held, later)).await.expect("held");
        assert!(taken(&records, "c", Time(later.0 + LEASE - 1)).await.is_none(), "it was renewed");
        assert!(taken(&records, "c", Time(later.0 + LEASE)).await.is_some());
    }

    #[tokio::test]
    async fn what_never_got_to_the_target_ends_with_its_window_and_leaves_no_trace() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path()).await;
        let due = set_up(&records).await.due.expect("a window");
        let held = taken(&records, "a", due).await.expect("due");
        assert_eq!(fate(&held.progress, true, due), Fate::Again);
        assert_eq!(fate(&held.progress, false, due), Fate::Ended, "it can't get better");
        let until = held.progress.until;
        assert_eq!(fate(&held.progress, true, until), Fate::Ended);
        let ended = write(&records, move |rows| {
            rows.add_version(UID, &version("v2"))?;
            fail(rows, &held, Fate::Ended, "no", until)
        });
        ended.await.expect("ended");
        assert_eq!(labels(&records), pairs(&[(CURRENT, "v1")]));
        let rotation = records.rotation(UID).expect("read").expect("there");
        assert!(rotation.progress.is_none() && rotation.due > Some(until));
        assert_eq!(
            rotation.failure.as_ref().map(|f| (f.step, f.why.as_str())),
            Some((Step::Create, "no"))
        );
        assert!(!records.read(|rows| rows.has_version(UID, "v2")).expect("read"));
    }

    #[tokio::test]
    async fn what_may_have_got_to_the_target_goes_on_and_that_it_is_late_is_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path()).await;
        let due = set_up(&records).await.due.expect("a window");
        let held = taken(&records, "a", due).await.expect("due");
        let held = write(&records, move |rows| advance(rows, &held, Step::Set, due)).await;
        let held = held.expect("held");
        let until = held.progress.until;
        assert_eq!(fate(&held.progress, false, due), Fate::Again);
        assert_eq!(fate(&held.progress, true, until), Fate::Overdue);
        let failed = held.clone();
        let noted = write(&records, move |rows| fail(rows, &failed, Fate::Overdue, "no", until));
        noted.await.expect("noted");
        let again = taken(&records, "b", Time(until.0 + 1000)).await.expect("due again");
        assert_eq!(again.progress.token, held.progress.token);
        assert_eq!(fate(&again.progress, false, Time(until.0 + DAY)), Fate::Again);
    }

    #[tokio::test]
    async fn what_may_have_got_to_the_target_ends_after_two_looks_with_no_attempt_between() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path()).await;
        let due = set_up(&records).await.due.expect("a window");
        let mut held = taken(&records, "a", due).await.expect("due");
        let until = held.progress.until;
        held.progress.failures = 1;
        held.progress.hopeless = true;
        assert!(!may_end(&held.progress, until), "the target has not heard of it");
        held.progress.set = true;
        held.progress.step = Step::Set;
        assert!(may_end(&held.progress, due), "no attempt can go better");
        held.progress.hopeless = false;
        assert!(!may_end(&held.progress, Time(until.0 - 1)) && may_end(&held.progress, until));
        for step in [Step::Test, Step::Finish] {
            let progress = Progress { step, hopeless: true, ..held.progress.clone() };
            assert!(!may_end(&progress, until), "the target has taken the new value");
        }
        let first = Progress { failures: 0, ..held.progress.clone() };
        assert!(!may_end(&first, until), "after a crash, say: it is tried first");
        let looked_at = held.clone();
        let waits = write(&records, move |rows| look_again(rows, &looked_at, 60_000, until));
        waits.await.expect("held");
        assert!(taken(&records, "b", Time(until.0 + 59_999)).await.is_none());
        let again = taken(&records, "b", Time(until.0 + 60_000)).await.expect("due");
        assert!(again.progress.settling && may_end(&again.progress, until));
        let failed = again.clone();
        let noted = write(&records, move |rows| fail(rows, &failed, Fate::Again, "no", until));
        noted.await.expect("noted");
        let rotation = records.rotation(UID).expect("read").expect("there");
        assert!(rotation.progress.as_ref().is_some_and(|progress| !progress.settling));
    }

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour() {
        assert_eq!([1, 2, 3].map(pause), [1000, 2000, 4000]);
        assert_eq!([11, 100, u32::MAX].map(pause), [900_000; 3]);
    }
}
