//! The log file: appended by many, synced by one.
//!
//! An append is one write(2). A short or failed one (a full disk) is cut off again, so the log holds
//! whole lines only and none of a request that failed. The lock around it keeps the length known; it
//! is held for a copy into the page cache, never for the disk.

use super::Error;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
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

/// The log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    path: PathBuf,
    file: File,
    sync: Sync,
    /// Records appended so far.
    appended: AtomicU64,
    /// Records that are on disk; an error text once the disk has failed to sync.
    synced: watch::Sender<u64>,
    /// How long the log is, in bytes: every line of it whole.
    end: Mutex<u64>,
    /// Half a line stands behind the end.
    uncut: AtomicBool,
    /// Something waits for the disk.
    wanted: Notify,
}

impl Log {
    /// Opens the log, mode 0600, making it if need be; starts the task that syncs it.
    pub fn open(path: &Path, sync: Sync) -> Result<Self, Error> {
        let fail = |e: std::io::Error| failed(path, &e);
        let mut options = OpenOptions::new();
        let file =
            options.append(true).read(true).create(true).mode(0o600).open(path).map_err(fail)?;
        let end = whole_lines(&file).map_err(fail)?;
        let log = Self(Arc::new(Inner {
            path: path.to_owned(),
            file,
            sync,
            appended: AtomicU64::new(0),
            synced: watch::Sender::new(0),
            end: Mutex::new(end),
            uncut: AtomicBool::new(false),
            wanted: Notify::new(),
        }));
        tokio::spawn(keep_synced(log.clone()));
        Ok(log)
    }

    /// Appends one line; on disk as [`Sync`] says.
    pub async fn append(&self, line: &[u8]) -> Result<(), Error> {
        let number = self.append_lines(line)?;
        if self.0.sync == Sync::Always {
            self.durable(number).await?;
        }
        Ok(())
    }

    /// Appends whole lines, all or none; answers a number to wait for with [`Self::durable`].
    pub fn append_lines(&self, lines: &[u8]) -> Result<u64, Error> {
        let mut end = self.0.end.lock();
        if self.0.uncut.swap(false, Ordering::AcqRel) {
            self.cut(*end)?;
        }
        let appended = (&self.0.file).write(lines);
        if !matches!(appended, Ok(n) if n == lines.len()) {
            let why = appended.err().unwrap_or_else(|| std::io::ErrorKind::StorageFull.into());
            self.cut(*end)?;
            return Err(failed(&self.0.path, &why));
        }
        *end += lines.len() as u64;
        let number = self.0.appended.fetch_add(1, Ordering::AcqRel) + 1;
        drop(end);
        self.0.wanted.notify_one();
        Ok(number)
    }

    /// Cuts off what a failed write left behind its last whole line; what can't be cut now is cut
    /// before the next append.
    fn cut(&self, end: u64) -> Result<(), Error> {
        self.0.file.set_len(end).map_err(|e| {
            self.0.uncut.store(true, Ordering::Release);
            failed(&self.0.path, &e)
        })
    }

    /// Waits until everything up to `number` is on disk.
    pub async fn durable(&self, number: u64) -> Result<(), Error> {
        let mut synced = self.0.synced.subscribe();
        let reached =
            tokio::time::timeout(Duration::from_secs(10), synced.wait_for(|done| *done >= number));
        match reached.await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(failed(&self.0.path, &std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Waits until everything so far is on disk.
    pub async fn flush(&self) -> Result<(), Error> {
        self.durable(self.0.appended.load(Ordering::Acquire)).await
    }

    /// Bytes of the log.
    pub fn size(&self) -> u64 {
        *self.0.end.lock()
    }

    fn sync_now(&self) -> Result<(), Error> {
        let number = self.0.appended.load(Ordering::Acquire);
        self.0.file.sync_data().map_err(|e| failed(&self.0.path, &e))?;
        self.0.synced.send_replace(number);
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
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
/// answers the length.
fn whole_lines(mut file: &File) -> std::io::Result<u64> {
    let len = file.metadata()?.len();
    if len == 0 {
        return Ok(0);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, len - 1)?;
    if last == *b"\n" {
        return Ok(len);
    }
    file.write_all(b"\n")?;
    Ok(len + 1)
}

fn failed(path: &Path, why: &std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), why: why.to_string() }
}
