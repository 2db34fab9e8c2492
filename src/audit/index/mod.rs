//! The look-up index: which records of the last 90 days speak of what, and where in the log they
//! stand.
//!
//! A thread of its own reads the log behind those who append to it; no request waits for the index.
//! What it has read stays in memory until many records can go into the tables together; look-ups
//! see both.
//! It holds nothing that the log does not hold: if it is missing, damaged or of another log it is
//! made anew.

mod event;
mod fresh;
mod lines;
mod packed;
mod tables;

pub use event::{Event, Kind, Resource};
pub use lines::whole_lines;

use super::log::Log;
use crate::clock::{Clock, Time};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use fresh::Fresh;
use lines::Lines;
use parking_lot::RwLock;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tables::{Progress, Reader, Writer};
use tokio::sync::watch;

/// For how many days records can be looked up.
pub const KEPT: i64 = 90;
/// How often the log is looked at, unless a whole batch waits.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes of the log after which what was read of them goes into the tables. In memory it is about a
/// third of that.
const FRESH: u64 = 32 * 1024 * 1024;
/// How long it stays in memory at most: what a start reads again is no more than that.
const SETTLE: Duration = Duration::from_secs(30);
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

    /// Whether the index's file is not what was written.
    fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let Self::Database(why) = self else { return false };
        matches!(why.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
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

impl Query<'_> {
    /// What is wanted is before this.
    fn end(&self) -> Place {
        self.before.unwrap_or(Place { time: self.until, at: 0 })
    }

    fn wants(&self, place: Place) -> bool {
        let end = self.end();
        self.from <= place.time && (place.time, place.at) < (end.time, end.at)
    }
}

/// The index of a log.
pub struct Index {
    inner: Arc<Inner>,
    /// The thread, and that whose end it stops for.
    keeping: Option<(Sender<Infallible>, JoinHandle<()>)>,
}

impl Drop for Index {
    /// Waits until what was in memory is in the tables.
    fn drop(&mut self) {
        if let Some((holding, thread)) = self.keeping.take() {
            drop(holding);
            drop(thread.join());
        }
    }
}

struct Inner {
    path: PathBuf,
    log: Log,
    clock: Arc<dyn Clock>,
    /// What is in the index and not in its tables yet.
    fresh: RwLock<Fresh>,
    /// Bytes of the log that are in the index.
    indexed: watch::Sender<u64>,
    held: Receiver<Infallible>,
}

impl Index {
    /// The index of `log` in the file `path`, kept up from now on.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn start(path: &Path, log: Log, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let (holding, held) = crossbeam_channel::bounded(0);
        let inner = Arc::new(Inner {
            path: path.to_owned(),
            log,
            clock,
            fresh: RwLock::default(),
            indexed: watch::Sender::new(0),
            held,
        });
        let kept = inner.clone();
        let thread = std::thread::Builder::new()
            .name("audit-index".to_owned())
            .spawn(move || kept.keep_up())
            .map_err(|e| Error::io(path, e))?;
        Ok(Self { inner, keeping: Some((holding, thread)) })
    }

    /// Waits until all that is in the log now is in the index, for at most so long; answers whether
    /// it is.
    pub async fn caught_up(&self, patience: Duration) -> bool {
        let end = self.inner.log.size();
        let mut indexed = self.inner.indexed.subscribe();
        matches!(
            tokio::time::timeout(patience, indexed.wait_for(|position| *position >= end)).await,
            Ok(Ok(_))
        )
    }

    /// Bytes of the log that are not in the index yet.
    pub fn behind(&self) -> u64 {
        self.inner.log.size().saturating_sub(*self.inner.indexed.borrow())
    }

    /// The places of records, newest first. Blocks.
    ///
    /// # Errors
    /// Those of the database.
    pub fn places(&self, query: &Query<'_>) -> Result<Vec<Place>, Error> {
        // Memory first: what goes into the tables meanwhile is seen twice, and not missed.
        let mut found = self.inner.fresh.read().places(query);
        found.extend(Reader::open(&self.inner.path)?.places(query)?);
        found.sort_unstable_by_key(|place| std::cmp::Reverse((place.time, place.at)));
        found.dedup();
        found.truncate(query.limit);
        Ok(found)
    }

    /// Records that may have this id, as an event's or as a request's, newest first. Blocks.
    ///
    /// # Errors
    /// Those of the database and of the log.
    pub fn of_id(&self, id: &str) -> Result<Vec<Vec<u8>>, Error> {
        let mut places = self.inner.fresh.read().of_id(id);
        places.extend(Reader::open(&self.inner.path)?.of_id(id)?);
        places.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
        places.dedup();
        self.records(places)
    }

    /// The records at these places, without their line feeds. Blocks.
    ///
    /// # Errors
    /// Those of the log.
    pub fn records(&self, places: impl IntoIterator<Item = u64>) -> Result<Vec<Vec<u8>>, Error> {
        let lines = Lines::open(self.inner.log.path())?;
        places.into_iter().map(|place| lines.at(place)).collect()
    }
}

impl Inner {
    fn keep_up(&self) {
        if let Err(why) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE)
        {
            tracing::debug!(%why, "the look-up index works at the priority of requests");
        }
        while let Err(error) = self.follow() {
            tracing::warn!(%error, "look-ups in the audit log lag behind; trying again");
            let removed = if error.is_damage() { self.remove() } else { Ok(()) };
            if let Err(error) = removed {
                tracing::warn!(%error, "the damaged look-up index can't be removed");
            }
            if self.stopped_within(RETRY) {
                break;
            }
        }
    }

    /// Waits, unless nobody holds the index any more.
    fn stopped_within(&self, pause: Duration) -> bool {
        self.held.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected)
    }

    /// Follows the log until nobody holds the index any more.
    fn follow(&self) -> Result<(), Error> {
        let lines = Lines::open(self.log.path())?;
        let mut writer = self.writer(&lines)?;
        let mut progress = writer.progress()?;
        *self.fresh.write() = Fresh::default();
        self.indexed.send_replace(progress.position);
        let mut pruned: Option<Instant> = None;
        let mut settled = (progress.position, Instant::now());
        let mut pause = Duration::ZERO;
        while !self.stopped_within(pause) {
            if pruned.is_none_or(|at| at.elapsed() >= PRUNING) {
                writer.prune(self.clock.now())?;
                pruned = Some(Instant::now());
            }
            self.read_on(&lines, &mut progress)?;
            let (position, last) = settled;
            if progress.position - position >= FRESH || last.elapsed() >= SETTLE {
                self.settle(&mut writer, &progress)?;
                settled = (progress.position, Instant::now());
            }
            let left = self.log.size().saturating_sub(progress.position);
            pause = if left < lines::CHUNK as u64 { PAUSE } else { Duration::ZERO };
        }
        self.settle(&mut writer, &progress)
    }

    /// Reads what came, a batch at most.
    fn read_on(&self, lines: &Lines, progress: &mut Progress) -> Result<(), Error> {
        let end = self.log.size();
        if progress.position >= end {
            return Ok(());
        }
        let batch = lines.batch(progress.position, end)?;
        let mut fresh = self.fresh.write();
        let unread = batch.lines().filter(|(place, line)| !fresh.add(line, *place)).count();
        drop(fresh);
        if unread > 0 {
            tracing::warn!(
                unread,
                "lines of the audit log are no records; look-ups pass over them"
            );
        }
        let (last, line) = batch.last();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, line);
        *progress = Progress { position: batch.end(), last, digest: digest.as_ref().to_vec() };
        self.indexed.send_replace(progress.position);
        Ok(())
    }

    /// Moves what is in memory into the tables.
    fn settle(&self, writer: &mut Writer, progress: &Progress) -> Result<(), Error> {
        // Look-ups read it too meanwhile; only this thread changes it.
        let fresh = self.fresh.read();
        if !fresh.is_empty() {
            writer.add(&fresh, progress)?;
        }
        drop(fresh);
        *self.fresh.write() = Fresh::default();
        Ok(())
    }

    /// The tables, if they are of this log; else new ones.
    fn writer(&self, lines: &Lines) -> Result<Writer, Error> {
        match Writer::open(&self.path) {
            Ok(Some(writer)) if self.fits(&writer, lines).unwrap_or(false) => return Ok(writer),
            Ok(_) => tracing::info!("the audit log's look-up index is of another log: made anew"),
            Err(error) => tracing::warn!(%error, "the look-up index is damaged: made anew"),
        }
        self.remove()?;
        let made = Writer::open(&self.path)?;
        let unusable = || Error::io(&self.path, std::io::ErrorKind::InvalidData.into());
        made.ok_or_else(unusable)
    }

    /// Removes the tables' file and those beside it.
    fn remove(&self) -> Result<(), Error> {
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
        Ok(())
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
