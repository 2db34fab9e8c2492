//! The embedded engine: SQLite with a write-ahead log, one writer, several readers.
//!
//! Readers run on the caller's thread, each on a connection of its own, and never wait for the
//! writer. The writer is one thread that puts all waiting jobs into one transaction, so that they
//! share one `fsync`. Nothing is acknowledged before COMMIT has reached the disk
//! (`synchronous=FULL`); after a crash SQLite replays the log when the database is opened.

mod connection;
mod files;
mod queue;
mod readers;
mod statement;
mod writer;

use crate::store::migrate::{self, Migration};
use crate::store::{Engine, Error, Job, Result, Tx};
use queue::Queue;
use readers::Readers;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use writer::{Settings, Writer};

/// Smallest [`Options::max_bytes`].
const LEAST_BYTES: u64 = 1 << 20;

/// How to open the database.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory: mode 0700, made if missing; this process alone may use it.
    pub dir: PathBuf,
    /// Connections that read. At least the threads that call [`Engine::read`] plus `scans`, or a
    /// reader may have to wait for another.
    pub readers: usize,
    /// Of these, how many long reads may hold at once.
    pub scans: usize,
    /// Most jobs in one transaction.
    pub group: usize,
    /// Most jobs that wait; one more is answered [`Error::Busy`].
    pub queue: usize,
    /// Most bytes of the database file (the log, up to `wal_bytes`, comes on top); `None`: as many
    /// as the disk holds. A write beyond answers [`Error::Full`].
    pub max_bytes: Option<u64>,
    /// Length of the write-ahead log at which it is copied into the database even under load.
    /// It may exceed this while somebody reads an old snapshot, and by one group.
    pub wal_bytes: u64,
}

impl Options {
    /// What suits this machine.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let threads = std::thread::available_parallelism().map_or(4, usize::from);
        let scans = 4;
        Self {
            dir: dir.into(),
            readers: threads + scans + 2,
            scans,
            group: 256,
            queue: 4096,
            max_bytes: None,
            wal_bytes: 32 << 20,
        }
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::Unusable(what.to_owned()));
        if self.readers == 0 || self.group == 0 || self.queue == 0 {
            return refuse(
                "the store needs at least one reader, one job a group, one in the queue",
            );
        }
        if self.scans == 0 || self.scans > self.readers {
            return refuse("the store's scans must be between one and its readers");
        }
        if self.wal_bytes < LEAST_BYTES {
            return refuse("the store's log needs at least 1 MiB");
        }
        if self.max_bytes.is_some_and(|bytes| bytes < LEAST_BYTES) {
            return refuse("the store's size limit must be at least 1 MiB");
        }
        Ok(())
    }
}

/// An open database. Dropping it does what [`Sqlite::close`] does.
pub struct Sqlite {
    readers: Readers,
    scans: usize,
    queue: Arc<Queue>,
    commits: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
    // Last, so that the directory is free only once every connection is closed; the writer's
    // thread holds it too.
    _held: Arc<files::Held>,
}

impl Sqlite {
    /// Opens the database, brings its schema up to date and starts the writer.
    ///
    /// # Errors
    /// [`Error::Unusable`]: the directory is open to others or held by another process, the schema
    /// is newer than this program, or the options make no sense. [`Error::Corrupt`]: the file is
    /// no database.
    pub fn open(options: Options) -> Result<Self> {
        Self::open_with(options, migrate::MIGRATIONS)
    }

    fn open_with(options: Options, migrations: &'static [Migration]) -> Result<Self> {
        options.check()?;
        let held = Arc::new(files::hold(&options.dir)?);
        let settings = Settings {
            file: held.database.clone(),
            group: options.group,
            max_pages: options.max_bytes.map(|bytes| bytes / connection::PAGE_BYTES),
            wal_bytes: options.wal_bytes,
        };
        let queue = Arc::new(Queue::new(options.queue));
        let commits = Arc::new(AtomicU64::new(0));
        let mut writer = Writer::open(settings, Arc::clone(&queue), Arc::clone(&commits))?;
        connection::migrate(writer.connection()?, migrations)?;
        let holding = Arc::clone(&held);
        let serve = move || {
            writer.serve();
            drop(holding);
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(serve)
            .map_err(|error| Error::Io(error.to_string()))?;
        Ok(Self {
            readers: Readers::new(held.database.clone(), options.readers),
            scans: options.scans,
            queue,
            commits,
            thread: Mutex::new(Some(thread)),
            _held: held,
        })
    }

    /// Finishes the jobs already taken, refuses new ones, empties the log into the database and
    /// closes it. Blocks until done, but for the writer's own thread, which a job may be the last
    /// to keep the database open on; a second call does nothing.
    pub fn close(&self) {
        self.queue.close();
        self.readers.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let current = std::thread::current().id();
        let others = thread.filter(|thread| thread.thread().id() != current);
        if others.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the database's writer died");
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

impl Engine for Sqlite {
    fn read(&self, f: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()> {
        self.readers.read(f)
    }

    fn submit(&self, job: Box<dyn Job>) {
        self.queue.push(job);
    }

    fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    fn scans(&self) -> usize {
        self.scans
    }

    fn exclusive(&self) -> bool {
        // The folder's lock sees to it.
        true
    }
}

#[cfg(test)]
mod tests;
