//! How rotations go, in numbers.

use crate::ops::call::Services;
use crate::ops::error::Result;
use crate::store::rotations::Step;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const STEPS: [Step; 4] = [Step::Create, Step::Set, Step::Test, Step::Finish];

/// What became of rotations since the start; trials do not count.
#[derive(Default)]
pub struct Tally {
    /// Those that ended well.
    pub succeeded: AtomicU64,
    /// Those that ended with AWSCURRENT untouched.
    pub failed: AtomicU64,
    /// Attempts at each step that failed.
    failures: [AtomicU64; 4],
}

impl Tally {
    /// Counts an attempt at a step that failed, and the rotation if that was its end.
    pub fn failed_at(&self, step: Step, ended: bool) {
        let counted = STEPS.iter().zip(&self.failures).find(|(known, _)| **known == step);
        counted.map(|(_, count)| count.fetch_add(1, Relaxed));
        if ended {
            self.failed.fetch_add(1, Relaxed);
        }
    }

    /// Each step and how many attempts at it failed.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STEPS.iter().zip(&self.failures).map(|(step, count)| (step.name(), count.load(Relaxed)))
    }
}

/// How rotations are now.
pub struct State {
    /// Begun and not ended.
    pub under_way: u64,
    /// Those of them whose time is over.
    pub overdue: u64,
    /// How long one waits for its turn that has waited longest, in seconds.
    pub oldest_due: u64,
}

/// How rotations are now: a few rows of an index.
///
/// # Errors
/// Those of the database.
pub fn state(services: &Services) -> Result<State> {
    let now = services.world.clock.now();
    let found = services.records.read(|rows| {
        let (under_way, overdue) = rows.rotations_under_way(now)?;
        let waits = rows.next_rotation()?.map_or(0, |due| now.0.saturating_sub(due.0) / 1000);
        Ok::<_, crate::store::Error>((under_way, overdue, waits))
    });
    let (under_way, overdue, waits) = found?;
    Ok(State { under_way, overdue, oldest_due: u64::try_from(waits).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_step_and_ends_apart() {
        let tally = Tally::default();
        tally.failed_at(Step::Set, false);
        tally.failed_at(Step::Set, false);
        tally.failed_at(Step::Create, true);
        let counted: Vec<_> = tally.failures().collect();
        let expected =
            [("createSecret", 1), ("setSecret", 2), ("testSecret", 0), ("finishSecret", 0)];
        assert_eq!(counted, expected);
        assert_eq!(tally.failed.load(Relaxed), 1);
    }
}
