//! Records of many requests in one write(2), which costs more than anything else about a record.
//!
//! The first record of a batch lets the tasks that are ready take their turn; then it writes what
//! has gathered, for all of them. Nobody is answered before that write, and a write that fails fails
//! for the whole batch.

use super::Error;
use super::log::{Log, leaf};
use super::merkle::Hash;
use parking_lot::Mutex;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// The batch that records join.
#[derive(Default)]
pub(super) struct Gather(Mutex<Option<Open>>);

/// A batch before its write.
#[derive(Default)]
struct Open {
    lines: Vec<u8>,
    leaves: Vec<Hash>,
    batch: Arc<Batch>,
}

/// What those who wait for a batch look at.
#[derive(Default)]
struct Batch {
    /// How many records there were before it; or why it was not written.
    outcome: OnceLock<Result<u64, Error>>,
    written: Notify,
}

impl Batch {
    async fn outcome(&self) -> Result<u64, Error> {
        let mut written = pin!(self.written.notified());
        // Listens first, looks then: the write may end in between.
        written.as_mut().enable();
        if let Some(outcome) = self.outcome.get() {
            return outcome.clone();
        }
        written.await;
        // It is told of after it is set.
        self.outcome.get().cloned().unwrap_or(Err(Error::Behind))
    }
}

/// The one that writes; also if its request is given up meanwhile, since others wait for it.
struct Leader<'a>(&'a Log);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let open = self.0.gather().0.lock().take();
        let Some(Open { lines, leaves, batch }) = open else { return };
        let count = leaves.len() as u64;
        let written = self.0.append_hashed(&lines, leaves).map(|number| number - count);
        // Nobody else sets it.
        drop(batch.outcome.set(written));
        batch.written.notify_waiters();
    }
}

/// Appends one line with others; answers how many records there are with it.
pub(super) async fn append(log: &Log, line: &[u8]) -> Result<u64, Error> {
    let hash = leaf(line.strip_suffix(b"\n").unwrap_or(line))?;
    let (batch, place, first) = {
        let mut open = log.gather().0.lock();
        let first = open.is_none();
        let open = open.get_or_insert_default();
        open.lines.extend_from_slice(line);
        open.leaves.push(hash);
        (Arc::clone(&open.batch), open.leaves.len() as u64, first)
    };
    if first {
        let leader = Leader(log);
        tokio::task::yield_now().await;
        drop(leader);
    }
    Ok(batch.outcome().await? + place)
}
