//! The look-up index: which records of the last 90 days speak of what, and where in the log they
//! stand.
//!
//! A thread of its own reads the log behind those who append to it; no request waits for the index.
//! It holds nothing that the log does not hold: if it is missing, damaged or of another log it is
//! made anew.

mod event;
mod lines;
mod tables;

pub use event::{Event, Kind, Resource};
pub use lines::whole_lines;

use super::log::Log;
use crate::clock::{Clock, Time};
use lines::Lines;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tables::{Progress, Reader, Writer};
use tokio::sync::watch;

/// For how many days records can be looked up.
pub const KEPT: i64 = 90;
/// How often the log is looked at while nothing comes.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the index is left alone after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How often what is too old is dropped.
const PRUNING: Duration = Duration::from_secs(3600);
/// Below requests: the thread gets what processors they leave (nice(2)).
const NICE: i32 = 10;

/// What can go wrong with the index. No request but a look-up minds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The index's database.
    #[error("the audit log's look-up index: {0}")]
    Database(#[from] rusqlite::Error),
    /// The index's or the log's file.
    #[error("the audit log's look-up index: `{path}`: {why}")]
    Io {
        /// Which file.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
}

impl Error {
    fn io(path: &Path, why: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), why }
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When its request came.
    pub time: Time,
    /// Bytes from the start of the log.
    pub at: u64,
}

/// Which records are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Whose.
    pub account: &'a str,
    /// Of which kind is what they speak of.
    pub kind: Kind,
    /// What they speak of.
    pub value: &'a str,
    /// Not before this moment.
    pub from: Time,
    /// Before this moment.
    pub until: Time,
    /// Before this place, where a list goes on.
    pub before: Option<Place>,
    /// At most so many.
    pub limit: usize,
}

/// The index of a log.
pub struct Index(Arc<Inner>);

struct Inner {
    path: PathBuf,
    log: Log,
    clock: Arc<dyn Clock>,
    /// Bytes of the log that are in the index.
    indexed: watch::Sender<u64>,
    stopped: AtomicBool,
}

impl Index {
    /// The index of `log` in the file `path`, kept up from now on.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn start(path: &Path, log: Log, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let inner = Arc::new(Inner {
            path: path.to_owned(),
            log,
            clock,
            indexed: watch::Sender::new(0),
            stopped: AtomicBool::new(false),
        });
        let keeping = inner.clone();
        std::thread::Builder::new()
            .name("audit-index".to_owned())
            .spawn(move || keeping.keep_up())
            .map_err(|e| Error::io(path, e))?;
        Ok(Self(inner))
    }

    /// Waits until all that is in the log now is in the index, for at most so long; answers whether
    /// it is.
    pub async fn caught_up(&self, patience: Duration) -> bool {
        let end = self.0.log.size();
        let mut indexed = self.0.indexed.subscribe();
        matches!(
            tokio::time::timeout(patience, indexed.wait_for(|position| *position >= end)).await,
            Ok(Ok(_))
        )
    }

    /// Bytes of the log that are not in the index yet.
    pub fn behind(&self) -> u64 {
        self.0.log.size().saturating_sub(*self.0.indexed.borrow())
    }

    /// The places of records, newest first. Blocks.
    ///
    /// # Errors
    /// Those of the database.
    pub fn places(&self, query: &Query<'_>) -> Result<Vec<Place>, Error> {
        Reader::open(&self.0.path)?.places(query)
    }

    /// Records that may have this id, as an event's or as a request's, newest first. Blocks.
    ///
    /// # Errors
    /// Those of the database and of the log.
    pub fn of_id(&self, id: &str) -> Result<Vec<Vec<u8>>, Error> {
        let places = Reader::open(&self.0.path)?.of_id(id, self.0.clock.now())?;
        self.records(places)
    }

    /// The records at these places, without their line feeds. Blocks.
    ///
    /// # Errors
    /// Those of the log.
    pub fn records(&self, places: impl IntoIterator<Item = u64>) -> Result<Vec<Vec<u8>>, Error> {
        let lines = Lines::open(self.0.log.path())?;
        places.into_iter().map(|place| lines.at(place)).collect()
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
    }
}

impl Inner {
    fn keep_up(&self) {
        if let Err(why) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE)
        {
            tracing::debug!(%why, "the look-up index works at the priority of requests");
        }
        while !self.stopped() {
            if let Err(error) = self.follow() {
                tracing::warn!(%error, "look-ups in the audit log lag behind; trying again");
                std::thread::sleep(RETRY);
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Follows the log until it is told to stop.
    fn follow(&self) -> Result<(), Error> {
        let lines = Lines::open(self.log.path())?;
        let mut writer = self.writer(&lines)?;
        let mut position = writer.progress()?.position;
        self.indexed.send_replace(position);
        let mut pruned: Option<Instant> = None;
        while !self.stopped() {
            if pruned.is_none_or(|at| at.elapsed() >= PRUNING) {
                writer.prune(self.clock.now())?;
                pruned = Some(Instant::now());
            }
            let end = self.log.size();
            if position >= end {
                std::thread::sleep(PAUSE);
                continue;
            }
            let batch = lines.batch(position, end)?;
            position = batch.end();
            let (last, line) = batch.last();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, line);
            let progress = Progress { position, last, digest: digest.as_ref().to_vec() };
            writer.add(batch.lines(), &progress)?;
            self.indexed.send_replace(position);
        }
        Ok(())
    }

    /// The tables, if they are of this log; else new ones.
    fn writer(&self, lines: &Lines) -> Result<Writer, Error> {
        match Writer::open(&self.path) {
            Ok(Some(writer)) if self.fits(&writer, lines)? => return Ok(writer),
            Ok(_) => tracing::info!("the audit log's look-up index is of another log: made anew"),
            Err(error) => tracing::warn!(%error, "the look-up index is damaged: made anew"),
        }
        for end in ["", "-wal", "-shm"] {
            let mut path = self.path.clone().into_os_string();
            path.push(end);
            match std::fs::remove_file(&path) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&self.path, why));
                }
                _ => {}
            }
        }
        let made = Writer::open(&self.path)?;
        let unusable = || Error::io(&self.path, std::io::ErrorKind::InvalidData.into());
        made.ok_or_else(unusable)
    }

    /// Whether the last line that the tables know stands in the log where they say.
    fn fits(&self, writer: &Writer, lines: &Lines) -> Result<bool, Error> {
        let progress = writer.progress()?;
        if progress.position == 0 {
            return Ok(true);
        }
        if progress.position > self.log.size() {
            return Ok(false);
        }
        let line = lines.at(progress.last)?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &line);
        let ends = progress.last + line.len() as u64 + 1 == progress.position;
        Ok(ends && digest.as_ref() == progress.digest)
    }
}

#[cfg(test)]
mod tests;
