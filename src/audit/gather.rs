//! Records of many requests in one write(2), which costs more than anything else about a record.
//!
//! The first record of a batch lets the tasks that are ready take their turn; then it writes what
//! has gathered, for all of them. Nobody is answered before that write, and a write that fails fails
//! for the whole batch. Where nobody else is at work such a turn costs more than the write, so it is
//! left out while nobody joins.

use super::Error;
use super::log::{Log, leaf};
use super::merkle::Hash;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::Notify;

/// Batches of one record in a row after which none is expected to be joined.
const LONELY: u32 = 4;
/// Of those after that, one in so many waits all the same, to see whether others come again.
const PROBE: u32 = 16;

/// The batch that records join.
#[derive(Default)]
pub(super) struct Gather {
    open: Mutex<Option<Open>>,
    /// How many batches in a row had one record.
    alone: AtomicU32,
}

impl Gather {
    /// Whether others may be expected to join.
    fn is_busy(&self) -> bool {
        let alone = self.alone.load(Ordering::Relaxed);
        alone < LONELY || alone.is_multiple_of(PROBE)
    }

    /// Notes how many records a batch had.
    fn note(&self, records: u64) {
        let alone = match records {
            1 => self.alone.load(Ordering::Relaxed).wrapping_add(1),
            _ => 0,
        };
        self.alone.store(alone, Ordering::Relaxed);
    }
}

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
        let open = self.0.gather().open.lock().take();
        let Some(Open { lines, leaves, batch }) = open else { return };
        let count = leaves.len() as u64;
        self.0.gather().note(count);
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
        let mut open = log.gather().open.lock();
        let first = open.is_none();
        let open = open.get_or_insert_default();
        open.lines.extend_from_slice(line);
        open.leaves.push(hash);
        (Arc::clone(&open.batch), open.leaves.len() as u64, first)
    };
    if first {
        let leader = Leader(log);
        if log.gather().is_busy() {
            turn().await;
        }
        drop(leader);
    }
    Ok(batch.outcome().await? + place)
}

/// Waits until the tasks that are ready have had their turn. Where something else of the same task
/// wakes it meanwhile, which has it polled at once, a bare `yield_now` would be over.
async fn turn() {
    let mut yielding = pin!(tokio::task::yield_now());
    let mut next: Option<Arc<Turn>> = None;
    poll_fn(|cx| {
        let Some(next) = &next else {
            let turn = next.insert(Arc::new(Turn::default()));
            turn.task.lock().replace(cx.waker().clone());
            let waker = Waker::from(Arc::clone(turn));
            return yielding.as_mut().poll(&mut Context::from_waker(&waker));
        };
        next.task.lock().replace(cx.waker().clone());
        if next.come.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Told when the next turn comes.
#[derive(Default)]
struct Turn {
    come: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.come.store(true, Ordering::Release);
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::Sync;
    use super::*;
    use std::collections::BTreeSet;

    fn log(folder: &tempfile::TempDir) -> Log {
        let log = Log::open(&folder.path().join("log"), Sync::Interval).expect("a log");
        log.begin(0);
        log
    }

    fn written(log: &Log) -> Vec<String> {
        let text = std::fs::read_to_string(log.path()).expect("the log");
        text.lines().map(str::to_owned).collect()
    }

    /// A task that is polled again at once, for whatever reason, has had no turn.
    #[tokio::test]
    async fn a_turn_lasts_until_others_had_theirs() {
        let other = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&other);
        drop(tokio::spawn(async move { done.store(true, Ordering::SeqCst) }));
        let mut turn = pin!(turn());
        poll_fn(|cx| {
            assert!(turn.as_mut().poll(cx).is_pending());
            assert!(turn.as_mut().poll(cx).is_pending(), "it was polled again at once");
            Poll::Ready(())
        })
        .await;
        turn.await;
        assert!(other.load(Ordering::SeqCst));
    }

    /// Appends them in one turn of the runtime; answers their numbers.
    async fn together(log: &Log, lines: &[String]) -> Vec<Option<u64>> {
        let mut tasks = Vec::new();
        for line in lines {
            let (log, line) = (log.clone(), line.clone());
            tasks.push(tokio::spawn(async move { append(&log, line.as_bytes()).await.ok() }));
        }
        let mut numbers = Vec::new();
        for task in tasks {
            numbers.push(task.await.expect("no panic"));
        }
        numbers
    }

    /// Each of them knows its place, and the log has each of them once.
    #[tokio::test]
    async fn records_that_come_together_are_numbered_as_they_stand() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(&folder);
        let lines: Vec<_> = (0..50).map(|i| format!("{{\"i\":{i}}}\n")).collect();
        let numbers = together(&log, &lines).await;
        assert_eq!(numbers, (1..=50).map(Some).collect::<Vec<_>>());
        let trimmed: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
        assert_eq!(written(&log), trimmed);
    }

    /// With threads beside each other, and through stretches in which nobody else comes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_record_is_lost_or_written_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(&folder);
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut numbers = Vec::new();
                    for i in 0..200 {
                        let line = format!("{{\"task\":{task},\"i\":{i}}}\n");
                        numbers.push((append(&log, line.as_bytes()).await.expect("room"), line));
                    }
                    numbers
                })
            })
            .collect();
        let mut all = BTreeSet::new();
        for task in tasks {
            all.extend(task.await.expect("no panic"));
        }
        let (numbers, lines): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        assert_eq!(numbers, (1..=1600).collect::<Vec<_>>());
        assert_eq!(written(&log), lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>());
    }

    /// A client hangs up: those who joined its batch are answered all the same.
    #[tokio::test]
    async fn one_that_is_given_up_writes_for_the_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(&folder);
        let mut first = Box::pin(append(&log, b"{\"first\":1}\n"));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(first.as_mut().poll(&mut context), Poll::Pending));
        let mut second = Box::pin(append(&log, b"{\"second\":1}\n"));
        assert!(matches!(second.as_mut().poll(&mut context), Poll::Pending));
        assert!(written(&log).is_empty());
        drop(first);
        assert_eq!(second.await.expect("written"), 2);
        assert_eq!(written(&log), ["{\"first\":1}", "{\"second\":1}"]);
    }

    #[tokio::test]
    async fn what_can_not_be_written_fails_for_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(&folder);
        log.stop(Error::Behind);
        assert_eq!(together(&log, &["{}\n".to_owned(), "{}\n".to_owned()]).await, [None, None]);
        assert!(written(&log).is_empty());
    }
}
