//! Proof of what was done: one JSON record per request, in CloudTrail's field names, in the log
//! before the answer leaves.
//!
//! A change's record commits in the same transaction as the change and is moved to the log from
//! there ([`outbox`]); every other record is appended before the answer and on disk within 100 ms,
//! or before the answer too with `sync = "always"`. No record, no answer.

pub mod log;
pub mod outbox;
mod record;

pub use record::{OWN_SOURCE, Record, Source, Tls};

/// The log and the outbox together.
#[derive(Clone)]
pub struct Recorder {
    log: log::Log,
    progress: outbox::Progress,
}

impl Recorder {
    /// Opens the log, moves there what an earlier process left in the outbox, and keeps moving.
    pub async fn start(
        path: &std::path::Path,
        sync: log::Sync,
        records: crate::store::records::Records,
    ) -> Result<Self, Error> {
        let log = log::Log::open(path, sync)?;
        let progress = outbox::start(records, log.clone()).await?;
        Ok(Self { log, progress })
    }

    /// Appends a record that goes with no change.
    pub async fn append(&self, record: &Record<'_>) -> Result<(), Error> {
        self.append_line(&record.encode()).await
    }

    /// The same without waiting for the disk, for records of requests that were refused at the
    /// door: they had no effect.
    pub fn append_now(&self, record: &Record<'_>) -> Result<(), Error> {
        self.progress.ready()?;
        self.log.append_lines(&record.encode())?;
        Ok(())
    }

    /// The same with a record that is encoded already.
    pub async fn append_line(&self, line: &[u8]) -> Result<(), Error> {
        self.progress.ready()?;
        self.log.append(line).await
    }

    /// Puts what was appended on disk.
    pub async fn flush(&self) -> Result<(), Error> {
        self.log.flush().await
    }

    /// Fails if records of changes pile up in the outbox.
    pub fn ready(&self) -> Result<(), Error> {
        self.progress.ready()
    }
}

/// What can go wrong with the log. Each of them means that the request gets no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The log can't be written.
    #[error("the audit log `{path}` can't be written: {why}")]
    Io {
        /// Which file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// Records of changes pile up in the database because the log does not take them.
    #[error("too many audit records wait in the database for the audit log")]
    Behind,
}
