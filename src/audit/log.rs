//! The log file: appended by many, synced by one.
//!
//! An append is one write(2) to a file opened with O_APPEND, without a lock of ours: the kernel
//! orders the lines. A short or failed write (a full disk) fails that request and closes the log to
//! others until the file ends in a line feed again, so a torn line never swallows the next one.

use super::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
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
    /// A torn line stands at the end of the file.
    torn: AtomicBool,
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
        let torn = !ends_in_line_feed(&file).map_err(fail)?;
        let log = Self(Arc::new(Inner {
            path: path.to_owned(),
            file,
            sync,
            appended: AtomicU64::new(0),
            synced: watch::Sender::new(0),
            torn: AtomicBool::new(torn),
            wanted: Notify::new(),
        }));
        log.mend()?;
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

    /// Appends whole lines; answers a number to wait for with [`Self::durable`].
    pub fn append_lines(&self, lines: &[u8]) -> Result<u64, Error> {
        if self.0.torn.load(Ordering::Acquire) {
            self.mend()?;
        }
        match (&self.0.file).write(lines) {
            Ok(n) if n == lines.len() => {}
            outcome => {
                self.0.torn.store(true, Ordering::Release);
                let why = outcome.err().unwrap_or_else(|| std::io::ErrorKind::StorageFull.into());
                return Err(failed(&self.0.path, &why));
            }
        }
        let number = self.0.appended.fetch_add(1, Ordering::AcqRel) + 1;
        self.0.wanted.notify_one();
        Ok(number)
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

    /// Ends a torn line, so that the next record starts on a line of its own.
    fn mend(&self) -> Result<(), Error> {
        if !self.0.torn.load(Ordering::Acquire) {
            return Ok(());
        }
        (&self.0.file).write_all(b"\n").map_err(|e| failed(&self.0.path, &e))?;
        self.0.torn.store(false, Ordering::Release);
        Ok(())
    }

    /// Bytes of the log.
    pub fn size(&self) -> Result<u64, Error> {
        let metadata = self.0.file.metadata();
        Ok(metadata.map_err(|e| failed(&self.0.path, &e))?.len())
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

fn ends_in_line_feed(mut file: &File) -> std::io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn failed(path: &Path, why: &std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), why: why.to_string() }
}
