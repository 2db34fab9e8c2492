//! The log file: appended by many, synced by one.
//!
//! An append is one write(2), of one record or of those that came together (`gather.rs`). A short or
//! failed one (a full disk) is cut off again, so the log holds whole lines only and none of a request
//! that failed. The lock around it keeps the length known; it is held for a copy into the page cache,
//! never for the disk.
//!
//! The log is the journal of the tree ([`super::tree`]): what a record hashes to is noted while the
//! record is still in memory, and what is read back from the file later must hash to the same.

use super::Error;
use super::gather::{self, Gather};
use super::merkle::{self, Hash};
use super::tiles::MAX_ENTRY;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// When a record that is no change is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Within 100 ms of the answer.
    #[default]
    Interval,
    /// Before the answer.
    Always,
}

/// How long a record may wait for the disk under [`Sync::Interval`].
const INTERVAL: Duration = Duration::from_millis(100);

/// Records that may wait for the tree; one more waits itself.
const MAX_WAITING: usize = 65_536;
/// How long it does: then the tree is not behind, but out of order.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// The log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    path: PathBuf,
    file: File,
    sync: Sync,
    tail: Mutex<Tail>,
    /// How many records are on disk.
    synced: watch::Sender<u64>,
    /// How many records are in the file, told only while somebody listens.
    appended: watch::Sender<u64>,
    /// Nothing is appended any more; the tail says why.
    stopped: AtomicBool,
    /// What gathers for the next write.
    gather: Gather,
    /// Half a line stands behind the end.
    uncut: AtomicBool,
    /// Something waits for the disk.
    wanted: Notify,
}

/// The end of the log.
#[derive(Default)]
struct Tail {
    /// How long the log is, in bytes: every line of it whole.
    end: u64,
    /// How many records the tree will have when it has all that are in the log.
    records: u64,
    /// The leaf hashes of those that the tree does not have yet.
    waiting: VecDeque<Hash>,
    /// Why nothing is appended any more: the file is not what was written.
    broken: Option<Error>,
}

impl Log {
    /// Opens the log, mode 0600, making it if need be. What is in it is on disk then.
    pub fn open(path: &Path, sync: Sync) -> Result<Self, Error> {
        let fail = |e: std::io::Error| Error::io(path, &e);
        let mut options = OpenOptions::new();
        let file =
            options.append(true).read(true).create(true).mode(0o600).open(path).map_err(fail)?;
        let end = whole_lines(&file).map_err(fail)?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            file,
            sync,
            tail: Mutex::new(Tail { end, ..Tail::default() }),
            synced: watch::Sender::new(0),
            appended: watch::Sender::new(0),
            stopped: AtomicBool::new(false),
            gather: Gather::default(),
            uncut: AtomicBool::new(false),
            wanted: Notify::new(),
        })))
    }

    /// Says that the tree has everything that is in the log: `size` records. Starts the task that
    /// syncs the log.
    pub fn begin(&self, size: u64) {
        self.0.tail.lock().records = size;
        self.0.synced.send_replace(size);
        tokio::spawn(keep_synced(self.clone()));
    }

    /// Appends one line, together with what others append at the same time; on disk as [`Sync`]
    /// says. Answers how many records there are with it. Where the tree is far behind, whoever appends is
    /// slowed down to its pace.
    pub async fn append(&self, line: &[u8]) -> Result<u64, Error> {
        let until = Instant::now() + PATIENCE;
        let number = loop {
            match gather::append(self, line).await {
                Err(Error::Unsealed) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                appended => break appended?,
            }
        };
        if self.0.sync == Sync::Always {
            self.durable(number).await?;
        }
        Ok(number)
    }

    /// Appends whole lines, all or none; answers a number to wait for with [`Self::durable`]: how
    /// many records there are with these.
    pub fn append_lines(&self, lines: &[u8]) -> Result<u64, Error> {
        self.append_hashed(lines, leaves(lines)?)
    }

    /// The same for lines that hash to these leaves.
    pub(super) fn append_hashed(&self, lines: &[u8], leaves: Vec<Hash>) -> Result<u64, Error> {
        let mut tail = self.0.tail.lock();
        if let Some(error) = &tail.broken {
            return Err(error.clone());
        }
        if tail.waiting.len() + leaves.len() > MAX_WAITING {
            return Err(Error::Unsealed);
        }
        if self.0.uncut.swap(false, Ordering::AcqRel) {
            self.cut(tail.end)?;
        }
        let appended = (&self.0.file).write(lines);
        if !matches!(appended, Ok(n) if n == lines.len()) {
            let why = appended.err().unwrap_or_else(|| std::io::ErrorKind::StorageFull.into());
            self.cut(tail.end)?;
            return Err(Error::io(&self.0.path, &why));
        }
        tail.end += lines.len() as u64;
        tail.records += leaves.len() as u64;
        let number = tail.records;
        tail.waiting.extend(leaves);
        drop(tail);
        if self.0.appended.receiver_count() > 0 {
            self.tell(number);
        }
        self.0.wanted.notify_one();
        Ok(number)
    }

    /// What gathers for the next write.
    pub(super) fn gather(&self) -> &Gather {
        &self.0.gather
    }

    /// Cuts off what a failed write left behind its last whole line; what can't be cut now is cut
    /// before the next append.
    fn cut(&self, end: u64) -> Result<(), Error> {
        self.0.file.set_len(end).map_err(|e| {
            self.0.uncut.store(true, Ordering::Release);
            Error::io(&self.0.path, &e)
        })
    }

    /// Tells that there are `number` records or more.
    fn tell(&self, number: u64) {
        self.0.appended.send_if_modified(|last| {
            let later = number > *last;
            *last = number.max(*last);
            later
        });
    }

    /// Fails if nothing is appended any more. Every request asks, so it takes no lock.
    pub fn ready(&self) -> Result<(), Error> {
        if !self.0.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        self.0.tail.lock().broken.clone().map_or(Ok(()), Err)
    }

    /// Appends nothing any more: the file is not what was written.
    pub(super) fn stop(&self, why: Error) {
        self.0.tail.lock().broken = Some(why);
        self.0.stopped.store(true, Ordering::Release);
    }

    /// Waits until everything up to `number` is on disk.
    pub async fn durable(&self, number: u64) -> Result<(), Error> {
        let mut synced = self.0.synced.subscribe();
        let reached =
            tokio::time::timeout(Duration::from_secs(10), synced.wait_for(|done| *done >= number));
        match reached.await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::io(&self.0.path, &std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Waits until everything so far is on disk.
    pub async fn flush(&self) -> Result<(), Error> {
        self.durable(self.records()).await
    }

    /// Bytes of the log.
    pub fn size(&self) -> u64 {
        self.0.tail.lock().end
    }

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.0.tail.lock().records
    }

    /// Tells how many records are on disk whenever there are more.
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.0.synced.subscribe()
    }

    /// Tells how many records are in the file whenever there are more.
    pub(super) fn appended(&self) -> watch::Receiver<u64> {
        let appended = self.0.appended.subscribe();
        self.tell(self.records());
        appended
    }

    /// The leaf hashes of the next records for the tree: those on disk, at most `most`.
    pub(super) fn waiting(&self, most: usize) -> Vec<Hash> {
        let tail = self.0.tail.lock();
        let sealed = tail.records - tail.waiting.len() as u64;
        let ready = self.0.synced.borrow().saturating_sub(sealed);
        let ready = usize::try_from(ready).unwrap_or(usize::MAX).min(most);
        tail.waiting.iter().take(ready).copied().collect()
    }

    /// Says that the tree has so many more of them.
    pub(super) fn sealed(&self, count: usize) {
        let waiting = &mut self.0.tail.lock().waiting;
        waiting.drain(..count.min(waiting.len()));
    }

    fn sync_now(&self) -> Result<(), Error> {
        let number = self.records();
        self.0.file.sync_data().map_err(|e| Error::io(&self.0.path, &e))?;
        self.0.synced.send_replace(number);
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// What each of these lines hashes to, without its line feed.
fn leaves(lines: &[u8]) -> Result<Vec<Hash>, Error> {
    let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
    lines.split(|byte| *byte == b'\n').map(leaf).collect()
}

/// What a record hashes to.
pub(super) fn leaf(record: &[u8]) -> Result<Hash, Error> {
    if record.len() > MAX_ENTRY { Err(Error::TooLong) } else { Ok(merkle::leaf(record)) }
}

async fn keep_synced(log: Log) {
    loop {
        log.0.wanted.notified().await;
        if log.0.sync == Sync::Interval {
            // Half the bound for gathering, half for the disk.
            tokio::time::sleep(INTERVAL / 2).await;
        }
        let syncing = log.clone();
        let outcome = tokio::task::spawn_blocking(move || syncing.sync_now()).await;
        if let Ok(Err(error)) = outcome {
            tracing::error!(%error, "the audit log could not be synced; trying again");
            tokio::time::sleep(INTERVAL).await;
            log.0.wanted.notify_one();
        }
    }
}

/// Ends the line that a crash may have left torn, so that the next record starts on one of its own;
/// answers the length, all of it on disk.
fn whole_lines(mut file: &File) -> std::io::Result<u64> {
    let len = file.metadata()?.len();
    if len == 0 {
        return Ok(0);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, len - 1)?;
    let torn = last != *b"\n";
    if torn {
        file.write_all(b"\n")?;
    }
    file.sync_all()?;
    Ok(len + u64::from(torn))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More load than the tree takes is slowed down, not refused.
    #[tokio::test]
    async fn who_appends_waits_for_a_tree_that_is_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::open(&folder.path().join("log"), Sync::Interval).expect("a log");
        log.begin(0);
        log.append_lines(&b"{}\n".repeat(MAX_WAITING)).expect("room");
        assert!(matches!(log.append_lines(b"{}\n"), Err(Error::Unsealed)));
        let waiting = log.clone();
        let waiting = tokio::spawn(async move { waiting.append(b"{\"late\":1}\n").await });
        tokio::time::sleep(10 * LOOK).await;
        assert!(!waiting.is_finished());
        log.sealed(1);
        let number = waiting.await.expect("no panic").expect("room");
        assert_eq!(number, MAX_WAITING as u64 + 1);
    }
}
