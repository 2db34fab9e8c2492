//! What no process would come to by itself: rotations whose process is gone, and moments that a clock
//! which was set back has moved far away.

use super::held::{LEASE, PAUSES};
use super::state::{next_window, planned};
use crate::clock::Time;
use crate::ops::error::{Error, Result};
use crate::store;
use crate::store::records::{Records, Rows};
use crate::store::rotations::Rotation;

/// Rotations that are put right in one transaction.
const AT_ONCE: usize = 256;

/// Puts right what is noted of rotations; answers of how many. `alone`: whether nobody else can be at
/// work, so that whatever is taken was taken by a process that is gone.
///
/// # Errors
/// Those of the database.
pub async fn settle(records: &Records, alone: bool, now: Time) -> Result<usize> {
    let wrong = records.scan(move |rows| {
        let all = rows.rotations_due(Time(i64::MAX), i64::MAX)?;
        let mut wrong = Vec::new();
        for uid in all {
            let found = match rows.rotation(uid) {
                // One row must not keep the others from rotating.
                Err(error @ store::Error::Corrupt(_)) => {
                    tracing::error!(uid, %error, "a rotation");
                    None
                }
                found => found?,
            };
            if found.is_some_and(|mut rotation| put_right(&mut rotation, alone, now)) {
                wrong.push(uid);
            }
        }
        Ok::<_, Error>(wrong)
    });
    let wrong = wrong.await?;
    for some in wrong.chunks(AT_ONCE) {
        let some = some.to_vec();
        records
            .write(move |rows| some.iter().try_for_each(|uid| mend(rows, *uid, alone, now)))
            .await?;
    }
    Ok(wrong.len())
}

fn mend(rows: &mut Rows<'_>, uid: i64, alone: bool, now: Time) -> Result<()> {
    let Some(mut rotation) = rows.rotation(uid)? else { return Ok(()) };
    if put_right(&mut rotation, alone, now) {
        rows.put_rotation(&mut rotation)?;
    }
    Ok(())
}

/// Puts one right; answers whether anything was wrong.
fn put_right(rotation: &mut Rotation, alone: bool, now: Time) -> bool {
    let Some(due) = rotation.due else { return false };
    let later_than = |limit: i64| due.0.saturating_sub(now.0) > limit;
    if rotation.progress.is_none() {
        return later_than(0) && plan_again(rotation, now);
    }
    if alone && rotation.lease.take().is_some() {
        rotation.due = Some(now);
    } else if rotation.lease.is_some() && later_than(LEASE) {
        // Whoever is at work will have said so by then.
        rotation.due = Some(Time(now.0.saturating_add(LEASE)));
    } else if rotation.lease.is_none() && later_than(PAUSES.1) {
        rotation.due = Some(now);
    } else {
        return false;
    }
    true
}

/// Plans a rotation again that was planned for later than its rules say.
fn plan_again(rotation: &mut Rotation, now: Time) -> bool {
    let sooner = next_window(rotation, now)
        .filter(|window| rotation.next.is_some_and(|next| window.opens < next.opens));
    if sooner.is_some() {
        rotation.next = sooner;
        rotation.due = planned(rotation);
    }
    sooner.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::DAY;
    use crate::store::rotations::Lease;
    use serde_json::json;

    /// A moment in the middle of a day.
    const NOON: i64 = 20_000 * DAY + DAY / 2;

    fn rotation(document: &serde_json::Value) -> Rotation {
        let mut whole = json!({
            "secret": 7, "account": "111122223333", "name": "db", "enabled": true, "function": "f",
            "rules": {"after_days": 10}, "scheduled": NOON, "due": null, "revision": 0,
        });
        let more = document.as_object().expect("an object").clone();
        whole.as_object_mut().expect("an object").extend(more);
        serde_json::from_value(whole).expect("a rotation")
    }

    fn under_way(due: i64) -> Rotation {
        rotation(&json!({"due": due, "progress": {
            "token": "v2", "trial": false, "step": "Set", "set": true, "failures": 1, "began": NOON,
            "until": NOON, "noted": true, "overdue": false,
        }}))
    }

    fn right(mut rotation: Rotation, alone: bool) -> Option<i64> {
        put_right(&mut rotation, alone, Time(NOON)).then(|| rotation.due.expect("a moment").0)
    }

    #[test]
    fn what_a_process_held_that_is_gone_is_due_and_what_another_one_holds_is_not() {
        let lease = |until| Some(Lease { owner: "a".to_owned(), until: Time(until) });
        let held = |until| Rotation { lease: lease(until), ..under_way(until) };
        assert_eq!(right(held(NOON + LEASE), true), Some(NOON));
        assert_eq!(right(held(NOON + LEASE), false), None);
        assert_eq!(right(held(NOON + DAY), false), Some(NOON + LEASE), "the clock was set back");
    }

    #[test]
    fn another_attempt_is_never_further_away_than_the_longest_pause() {
        assert_eq!(right(under_way(NOON + PAUSES.1), false), None);
        assert_eq!(right(under_way(NOON + PAUSES.1 + 1), false), Some(NOON));
        assert_eq!(right(under_way(NOON - 1), false), None);
    }

    #[test]
    fn what_was_planned_by_a_clock_that_was_ahead_is_planned_again() {
        let planned_at = |now: i64, last: i64| {
            let mut rotation = rotation(&json!({"last": last}));
            rotation.next = next_window(&rotation, Time(now));
            rotation.due = planned(&rotation);
            rotation
        };
        let sound = planned_at(NOON - DAY, NOON - DAY);
        assert_eq!(right(sound.clone(), true), None);
        for ahead in [
            planned_at(NOON + 400 * DAY, NOON - DAY),
            planned_at(NOON + 400 * DAY, NOON + 400 * DAY),
        ] {
            let due = right(ahead, false).expect("another moment");
            assert!(due > NOON && due < NOON + 11 * DAY, "{due}");
        }
        let mut missed = sound;
        missed.next = next_window(&missed, Time(NOON - 20 * DAY));
        missed.due = planned(&missed);
        assert_eq!(right(missed, true), None, "it is made up for");
    }
}
