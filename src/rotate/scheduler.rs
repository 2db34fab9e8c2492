//! What is due: taken in the order of its time, a bounded number at once.

use super::machine;
use crate::clock::{Time, random_uuid};
use crate::ops::call::Services;
use crate::ops::error::Result;
use crate::ops::secrets::rotate::settle::settle;
use crate::store::Error as StoreError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Rotations at once.
const MOST: usize = 16;
/// The longest and the shortest sleep: the clock may be set, and a database may be out of order.
const SLEEP: (Duration, Duration) = (Duration::from_secs(15), Duration::from_millis(100));
/// How long is waited after a fault of the database's or of our own.
const FAULT: Duration = Duration::from_secs(5);
/// How far the clock may fall behind between two looks before it counts as set back, in milliseconds.
const BEHIND: i64 = 1000;

/// Rotates what is due, for ever.
pub async fn keep_rotating(services: Arc<Services>) {
    let owner: Arc<str> = loop {
        match begin(&services).await {
            Ok(owner) => break owner.into(),
            Err(error) => tracing::error!(%error, "rotations wait"),
        }
        tokio::time::sleep(FAULT).await;
    };
    let mut running = Running::default();
    let mut watch = Watch::new(services.world.clock.now());
    loop {
        if watch.was_set_back(services.world.clock.now()) {
            tracing::warn!("the clock was set back: rotations are planned again");
            again(&services).await;
        }
        if let Err(error) = start_due(&services, &owner, &mut running) {
            tracing::error!(%error, "rotations wait");
        }
        let sleep = until_next(&services, running.room() > 0);
        tokio::select! {
            Some((uid, ended)) = running.ended() => if let Err(error) = ended {
                broke_off(&services, &owner, &mut running, uid, &error).await;
            },
            () = services.rotations.wake.notified() => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// Names this process, and puts right what an earlier one has left.
async fn begin(services: &Services) -> Result<String> {
    let (records, now) = (&services.records, services.world.clock.now());
    let left = settle(records, records.exclusive(), now).await?;
    if left > 0 {
        tracing::info!(left, "rotations were broken off or planned by a clock that was wrong");
    }
    Ok(random_uuid(&*services.world.random)?)
}

/// Plans again what a clock had planned that was set back.
async fn again(services: &Services) {
    let now = services.world.clock.now();
    if let Err(error) = settle(&services.records, false, now).await {
        tracing::error!(%error, "rotations could not be planned again");
    }
}

/// A rotation that broke off by a fault of ours is a failure like another, and left alone for a while.
async fn broke_off(
    services: &Arc<Services>,
    owner: &str,
    running: &mut Running,
    uid: i64,
    error: &JoinError,
) {
    tracing::error!(%error, "a rotation broke off");
    running.start(uid, tokio::time::sleep(FAULT));
    if let Err(error) = machine::broke_off(services, owner, uid).await {
        tracing::error!(%error, "that a rotation broke off could not be noted");
    }
}

/// The rotations at work, and of which secret each is.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    secrets: HashMap<Id, i64>,
}

impl Running {
    fn room(&self) -> usize {
        MOST.saturating_sub(self.tasks.len())
    }

    fn has(&self, uid: i64) -> bool {
        self.secrets.values().any(|at_work| *at_work == uid)
    }

    fn start(&mut self, uid: i64, work: impl Future<Output = ()> + Send + 'static) {
        self.secrets.insert(self.tasks.spawn(work).id(), uid);
    }

    /// Waits for one to end, well or by a panic; none if nothing is at work.
    async fn ended(&mut self) -> Option<(i64, std::result::Result<(), JoinError>)> {
        let ended = self.tasks.join_next_with_id().await?;
        let (id, ended) = match ended {
            Ok((id, ())) => (id, Ok(())),
            Err(error) => (error.id(), Err(error)),
        };
        Some((self.secrets.remove(&id)?, ended))
    }
}

/// The clock beside one that nobody sets.
struct Watch {
    clock: Time,
    steady: Instant,
}

impl Watch {
    fn new(now: Time) -> Self {
        Self { clock: now, steady: Instant::now() }
    }

    /// Whether the clock was set back since the last look.
    fn was_set_back(&mut self, now: Time) -> bool {
        let behind = behind(self.clock, self.steady.elapsed(), now);
        *self = Self::new(now);
        behind > BEHIND
    }
}

/// How far the clock is behind where it should be, in milliseconds.
fn behind(before: Time, passed: Duration, now: Time) -> i64 {
    let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
    before.0.saturating_add(passed).saturating_sub(now.0)
}

/// Starts what is due and not at work already, as far as there is room.
fn start_due(
    services: &Arc<Services>,
    owner: &Arc<str>,
    running: &mut Running,
) -> std::result::Result<(), StoreError> {
    let room = running.room();
    if room == 0 {
        return Ok(());
    }
    let now = services.world.clock.now();
    // Those at work may be due again by a clock that was put forward.
    let limit = i64::try_from(MOST + room).unwrap_or(i64::MAX);
    let due = services.records.read(|rows| rows.rotations_due(now, limit))?;
    let new = due.into_iter().filter(|uid| !running.has(*uid)).take(room);
    for uid in new.collect::<Vec<_>>() {
        let (services, owner) = (services.clone(), owner.clone());
        running.start(uid, async move { machine::work(&services, &owner, uid).await });
    }
    Ok(())
}

/// How long nothing is due.
fn until_next(services: &Services, room: bool) -> Duration {
    let next = services.records.read(|rows| rows.next_rotation()).ok().flatten();
    let Some(next) = next.filter(|_| room) else { return SLEEP.0 };
    let left = next.0.saturating_sub(services.world.clock.now().0);
    Duration::from_millis(u64::try_from(left).unwrap_or(0)).clamp(SLEEP.1, SLEEP.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_panics_is_at_work_no_more_and_it_is_known_which() {
        let mut running = Running::default();
        assert!(running.ended().await.is_none());
        running.start(7, async { panic!("a fault of ours") });
        assert!(running.has(7) && running.room() == MOST - 1);
        let (uid, ended) = running.ended().await.expect("one");
        assert!(uid == 7 && ended.is_err_and(|error| error.is_panic()));
        assert!(!running.has(7) && running.room() == MOST);
        running.start(7, async {});
        assert!(matches!(running.ended().await, Some((7, Ok(())))));
    }

    #[test]
    fn a_clock_is_set_back_if_it_falls_behind_and_not_if_it_goes_ahead() {
        let after = |now| behind(Time(1000), Duration::from_secs(15), Time(now));
        assert!(after(15_500) < BEHIND && after(9_000_000) < BEHIND);
        assert!(after(14_000) > BEHIND && after(-9_000_000) > BEHIND);
        let mut watch = Watch::new(Time(1_000_000));
        assert!(watch.was_set_back(Time(0)));
        assert!(!watch.was_set_back(Time(0)), "told once");
    }
}
