//! Sends what comes in the log to a sink.

use super::Sink;
use super::connection::Remote;
use crate::audit::follow::{Follower, NOTE};
use crate::audit::log::Log;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The wait after a failure: it doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Sends what comes, for ever.
pub(super) async fn keep_following(
    sink: Arc<Sink>,
    follower: Follower,
    mut remote: Remote,
    log: Log,
) {
    let mut appended = log.appended();
    let mut pause = BACKOFF.0;
    let mut follower = Some(follower);
    loop {
        let size = *appended.borrow_and_update();
        match step(&sink, &mut follower, &mut remote, size).await {
            Ok(true) => {
                pause = BACKOFF.0;
                if sink.failing.swap(false, Ordering::AcqRel) {
                    tracing::info!(sink = sink.name, "the audit sink takes records again");
                }
            }
            Ok(false) => {
                // Woken from time to time too, to note the position.
                drop(tokio::time::timeout(NOTE, appended.changed()).await);
            }
            Err(why) => {
                if !sink.failing.swap(true, Ordering::AcqRel) {
                    let mandatory = sink.mandatory;
                    tracing::error!(sink = sink.name, mandatory, why, "the audit sink fails");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

/// Sends a batch; answers whether there was one.
async fn step(
    sink: &Sink,
    follower: &mut Option<Follower>,
    remote: &mut Remote,
    size: u64,
) -> Result<bool, String> {
    let Some(mut reading) = follower.take() else { return Err("its reader has failed".into()) };
    let read = tokio::task::spawn_blocking(move || {
        let noted = reading.note();
        let batch = noted.and_then(|()| reading.batch(size));
        (reading, batch)
    });
    let (reading, batch) = read.await.map_err(|e| e.to_string())?;
    let reading = follower.insert(reading);
    let batch = batch.map_err(|e| e.to_string())?;
    let Some((_, behind)) = batch.last() else { return Ok(false) };
    let behind = *behind;
    let records: Vec<_> = batch.into_iter().map(|(record, _)| record).collect();
    let late = size.saturating_sub(reading.index());
    if !sink.mandatory && late > sink.lag {
        let left_out = records.len() as u64;
        if sink.dropped.fetch_add(left_out, Ordering::AcqRel) == 0 {
            tracing::error!(
                sink = sink.name,
                late,
                "the audit sink is too late: it misses records"
            );
        }
    } else {
        match tokio::time::timeout(sink.deadline, remote.send(&records)).await {
            Ok(sent) => sent?,
            Err(_) => {
                remote.hang_up();
                return Err("it did not answer in time".into());
            }
        }
    }
    reading.advance(behind);
    sink.taken.send_replace(reading.index());
    Ok(true)
}
