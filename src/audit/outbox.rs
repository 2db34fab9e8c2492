//! Moves the records of changes from the database, where they committed with their change, to the
//! log. A record leaves the database only after it is on disk in the log; after a crash in between,
//! the event ids at the end of the log tell which ones are there already.

use super::Error;
use super::fit::fit;
use super::log::Log;
use crate::store::records::Records;
use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Records moved at once.
const BATCH: i64 = 1024;
/// How often the database is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// How much of the log's end is searched after a start: more than any batch can have filled.
const TAIL: u64 = 64 << 20;

/// Says whether the mover keeps up.
#[derive(Clone, Default)]
pub struct Progress(Arc<AtomicBool>);

impl Progress {
    /// Fails while records pile up: no record, no answer.
    pub fn ready(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Acquire) { Err(Error::Behind) } else { Ok(()) }
    }
}

/// Starts the mover. What an earlier process left behind is in the log when this returns.
pub async fn start(records: Records, log: Log) -> Result<Progress, Error> {
    let mut last = 0;
    let waiting = records.read(|rows| rows.records_after(0, 1)).map_err(|e| Error::database(&e))?;
    let mut known = HashSet::new();
    if !waiting.is_empty() {
        known = event_ids_from(&log, log.size().saturating_sub(TAIL))?;
    }
    while move_batch(&records, &log, &mut last, &known).await? {}
    let progress = Progress::default();
    tokio::spawn(keep_moving(records, log, last, progress.clone()));
    Ok(progress)
}

async fn keep_moving(records: Records, log: Log, mut last: i64, progress: Progress) {
    let known = HashSet::new();
    loop {
        match move_batch(&records, &log, &mut last, &known).await {
            Ok(more) => {
                progress.0.store(false, Ordering::Release);
                if !more {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(error) => {
                if !progress.0.swap(true, Ordering::AcqRel) {
                    tracing::error!(%error, "audit records wait in the database; trying again");
                }
                tokio::time::sleep(PAUSE * 4).await;
            }
        }
    }
}

/// Moves what comes after `last` and is not `known` to be in the log; answers whether there may be
/// more.
async fn move_batch(
    records: &Records,
    log: &Log,
    last: &mut i64,
    known: &HashSet<String>,
) -> Result<bool, Error> {
    let after = *last;
    let batch =
        records.read(|rows| rows.records_after(after, BATCH)).map_err(|e| Error::database(&e))?;
    let Some((up_to, _)) = batch.last() else { return Ok(false) };
    let up_to = *up_to;
    let mut lines = Vec::new();
    for (_, record) in &batch {
        if event_id(record).is_none_or(|id| !known.contains(&id)) {
            lines.extend_from_slice(&fit(record));
        }
    }
    if !lines.is_empty() {
        let number = log.append_lines(&lines)?;
        *last = up_to;
        log.durable(number).await?;
    }
    *last = up_to;
    records.write(move |rows| rows.delete_records(up_to)).await.map_err(|e| Error::database(&e))?;
    Ok(batch.len() == usize::try_from(BATCH).unwrap_or(usize::MAX))
}

pub(super) fn event_id(record: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Id {
        #[serde(rename = "eventID")]
        id: String,
    }
    serde_json::from_slice::<Id>(record).ok().map(|r| r.id)
}

/// The ids of the records that begin after byte `from` of the log.
fn event_ids_from(log: &Log, from: u64) -> Result<HashSet<String>, Error> {
    let end = read_from(log.path(), from).map_err(|e| Error::io(log.path(), &e))?;
    Ok(end.split(|b| *b == b'\n').filter_map(event_id).collect())
}

fn read_from(path: &std::path::Path, from: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(end)
}
