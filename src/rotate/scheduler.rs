//! What is due: taken in the order of its time, a bounded number at once.

use super::machine;
use crate::clock::random_uuid;
use crate::ops::call::Services;
use crate::ops::secrets::rotate::state::reclaim;
use crate::store::Error as StoreError;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Rotations at once.
const MOST: usize = 16;
/// The longest and the shortest sleep: the clock may be set, and a database may be out of order.
const SLEEP: (Duration, Duration) = (Duration::from_secs(15), Duration::from_millis(100));
/// How long is waited after a fault of the database's.
const FAULT: Duration = Duration::from_secs(5);

/// Rotates what is due, for ever.
pub async fn keep_rotating(services: Arc<Services>) {
    let owner: Arc<str> = loop {
        match begin(&services).await {
            Ok(owner) => break owner.into(),
            Err(error) => tracing::error!(%error, "rotations wait"),
        }
        tokio::time::sleep(FAULT).await;
    };
    let (mut running, mut busy) = (JoinSet::new(), HashSet::new());
    loop {
        if let Err(error) = start_due(&services, &owner, &mut running, &mut busy) {
            tracing::error!(%error, "rotations wait");
        }
        let sleep = until_next(&services, running.len() < MOST);
        tokio::select! {
            Some(done) = running.join_next() => match done {
                Ok(uid) => drop(busy.remove(&uid)),
                Err(error) => tracing::error!(%error, "a rotation broke off"),
            },
            () = services.rotations.wake.notified() => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// Names this process, and lets go of what an earlier one held.
async fn begin(services: &Services) -> crate::ops::error::Result<String> {
    let now = services.world.clock.now();
    let left = services.records.write(move |rows| reclaim(rows, now)).await?;
    if left > 0 {
        tracing::info!(left, "going on with rotations that were broken off");
    }
    Ok(random_uuid(&*services.world.random)?)
}

/// Starts what is due and not at work already, as far as there is room.
fn start_due(
    services: &Arc<Services>,
    owner: &Arc<str>,
    running: &mut JoinSet<i64>,
    busy: &mut HashSet<i64>,
) -> Result<(), StoreError> {
    let room = MOST.saturating_sub(running.len());
    if room == 0 {
        return Ok(());
    }
    let now = services.world.clock.now();
    let limit = i64::try_from(room + busy.len()).unwrap_or(i64::MAX);
    let due = services.records.read(|rows| rows.rotations_due(now, limit))?;
    for uid in due.into_iter().filter(|uid| !busy.contains(uid)).take(room).collect::<Vec<_>>() {
        busy.insert(uid);
        let (services, owner) = (services.clone(), owner.clone());
        running.spawn(async move {
            machine::work(&services, &owner, uid).await;
            uid
        });
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
