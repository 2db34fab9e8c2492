//! Rows and transactions: ciphertext and metadata, never a secret type.
//!
//! SQL is written once, per aggregate, over the small [`Tx`]; an engine supplies connections,
//! transactions, locks and retry. Parameters are written `?1`, `?2`, ...
//!
//! A write closure may run again after a conflict, and many run inside one transaction
//! (group commit), so it never calls hardware and never blocks: wrap first, write after.

pub mod audit;
pub mod functions;
pub mod grants;
pub mod identity;
pub mod key_stores;
pub mod keys;
pub mod listing;
pub mod meta;
pub mod migrate;
pub mod outbox;
pub mod principals;
pub mod probes;
pub mod records;
pub mod revoked;
pub mod rotations;
pub mod secrets;
pub mod sqlite;

use std::sync::Arc;
use tokio::sync::Semaphore;

/// A value handed to a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(v: i64) -> Self {
        Value::Int(v)
    }
}
impl<'a> From<&'a str> for Value<'a> {
    fn from(v: &'a str) -> Self {
        Value::Text(v)
    }
}
impl<'a> From<&'a String> for Value<'a> {
    fn from(v: &'a String) -> Self {
        Value::Text(v)
    }
}
impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(v: &'a [u8]) -> Self {
        Value::Blob(v)
    }
}
impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(v: &'a Vec<u8>) -> Self {
        Value::Blob(v)
    }
}
impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}

/// One row of a result; columns count from 0. A column of another type is [`Error::Corrupt`].
pub trait Row {
    /// An integer column.
    fn int(&self, column: usize) -> Result<i64>;
    /// A text column, borrowed for as long as the row.
    fn text(&self, column: usize) -> Result<&str>;
    /// A blob column, borrowed for as long as the row.
    fn blob(&self, column: usize) -> Result<&[u8]>;
    /// Whether the column is NULL.
    fn is_null(&self, column: usize) -> Result<bool>;
}

/// Statements inside one transaction (for a reader: one snapshot).
pub trait Tx {
    /// Runs a statement; answers how many rows it changed.
    fn execute(&mut self, sql: &'static str, args: &[Value<'_>]) -> Result<usize>;
    /// Runs a query and hands each row to `each`, until it answers `Ok(false)` or fails.
    fn query(
        &mut self,
        sql: &'static str,
        args: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<bool>,
    ) -> Result<()>;
}

/// The first row of a query, if there is one.
pub fn one<T>(
    tx: &mut dyn Tx,
    sql: &'static str,
    args: &[Value<'_>],
    mut map: impl FnMut(&dyn Row) -> Result<T>,
) -> Result<Option<T>> {
    let mut found = None;
    tx.query(sql, args, &mut |row| {
        found = Some(map(row)?);
        Ok(false)
    })?;
    Ok(found)
}

/// All rows of a query.
pub fn many<T>(
    tx: &mut dyn Tx,
    sql: &'static str,
    args: &[Value<'_>],
    mut map: impl FnMut(&dyn Row) -> Result<T>,
) -> Result<Vec<T>> {
    let mut found = Vec::new();
    tx.query(sql, args, &mut |row| {
        found.push(map(row)?);
        Ok(true)
    })?;
    Ok(found)
}

/// What a write job says of itself once it has run inside the open transaction.
pub enum Verdict {
    /// Keep the changes.
    Keep,
    /// Undo this job's changes alone; the others in the group stand.
    Undo,
    /// The statement failed for a reason of the database's (full disk, I/O): undo the whole group.
    Abort(Error),
}

/// One caller's changes, on their way through the group commit.
pub trait Job: Send {
    /// Makes the changes; may run again if the group has to be repeated.
    fn run(&mut self, tx: &mut dyn Tx) -> Verdict;
    /// Called exactly once: after the group's COMMIT is durable, or with what prevented it.
    fn done(self: Box<Self>, outcome: Result<()>);
}

/// A storage engine.
pub trait Engine: Send + Sync + 'static {
    /// Runs `f` on one snapshot, on the calling thread.
    fn read(&self, f: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()>;
    /// Hands a job to the writer. A full queue answers [`Error::Busy`] through `done` at once.
    fn submit(&self, job: Box<dyn Job>);
    /// Commits since the start that tried to change something, counted once they are durable and
    /// before any of their jobs is told; a reader's snapshot is at least as new as the
    /// number seen before it began.
    fn commits(&self) -> u64;
    /// How many long reads may run at once, so that short ones always find a connection free.
    fn scans(&self) -> usize;
    /// Whether no other process can have the database open: what one that is gone was at is then
    /// nobody's.
    fn exclusive(&self) -> bool;
}

/// The store: an engine with typed reads and writes over it.
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
    scans: Arc<Semaphore>,
}

impl Store {
    /// A store over this engine.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        let scans = Arc::new(Semaphore::new(engine.scans()));
        Self { engine, scans }
    }

    /// Point reads on one snapshot, on this thread: for a handful of rows by key.
    pub fn read<T, E: From<Error>>(
        &self,
        mut f: impl FnMut(&mut dyn Tx) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut out = None;
        self.engine.read(&mut |tx| {
            out = Some(f(tx));
            Ok(())
        })?;
        out.ok_or(Error::Internal("a read that did not run"))?
    }

    /// The same for long reads (lists, scans): on a thread that may block. Waits its turn if
    /// [`Engine::scans`] of them run already.
    pub async fn scan<T, E>(
        &self,
        f: impl FnMut(&mut dyn Tx) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let store = self.clone();
        let turn = Arc::clone(&self.scans).acquire_owned().await;
        let turn = turn.map_err(|_| E::from(Error::Internal("scans that were shut")))?;
        // The turn moves into the read: a caller who hangs up does not end it.
        let read = move || {
            let _turn = turn;
            store.read(f)
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| E::from(Error::Internal("a scan that panicked")))?
    }

    /// Changes, all or none; answers once they are on disk. An `Err` from `f` undoes them.
    pub async fn write<T, E>(
        &self,
        f: impl FnMut(&mut dyn Tx) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + AsStoreError + Send + 'static,
    {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.engine.submit(Box::new(Pending { f, result: None, tell }));
        told.await.map_err(|_| E::from(Error::Internal("a writer that went away")))?
    }

    /// See [`Engine::exclusive`].
    pub fn exclusive(&self) -> bool {
        self.engine.exclusive()
    }

    /// See [`Engine::commits`].
    pub fn commits(&self) -> u64 {
        self.engine.commits()
    }
}

/// Lets the writer tell a caller's own refusal from a failure of the database.
pub trait AsStoreError {
    /// The database's error inside, if that is what this is; leaves the rest alone.
    fn take_store_error(self) -> std::result::Result<Error, Self>
    where
        Self: Sized;
}

impl AsStoreError for Error {
    fn take_store_error(self) -> std::result::Result<Error, Self> {
        Ok(self)
    }
}

struct Pending<F, T, E> {
    f: F,
    result: Option<std::result::Result<T, E>>,
    tell: tokio::sync::oneshot::Sender<std::result::Result<T, E>>,
}

impl<F, T, E> Job for Pending<F, T, E>
where
    F: FnMut(&mut dyn Tx) -> std::result::Result<T, E> + Send,
    T: Send,
    E: From<Error> + AsStoreError + Send,
{
    fn run(&mut self, tx: &mut dyn Tx) -> Verdict {
        match (self.f)(tx) {
            Ok(value) => {
                self.result = Some(Ok(value));
                Verdict::Keep
            }
            Err(error) => match error.take_store_error() {
                Ok(error @ (Error::Full | Error::Io(_))) => Verdict::Abort(error),
                Ok(error) => {
                    self.result = Some(Err(E::from(error)));
                    Verdict::Undo
                }
                Err(refusal) => {
                    self.result = Some(Err(refusal));
                    Verdict::Undo
                }
            },
        }
    }

    fn done(self: Box<Self>, outcome: Result<()>) {
        let Self { f, result, tell } = *self;
        let answer = match outcome {
            Ok(()) => {
                result.unwrap_or_else(|| Err(E::from(Error::Internal("a job that did not run"))))
            }
            Err(error) => Err(E::from(error)),
        };
        // Whoever has the answer may let go of the database: a job that still held it would leave
        // the writer's thread to close it, at a time of its own.
        drop(f);
        // Whoever waited may have hung up; the change stands all the same.
        drop(tell.send(answer));
    }
}

/// What can go wrong in the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No room on the disk; nothing of the write is kept. Free some space; no restart is needed.
    #[error("the disk that holds the database is full")]
    Full,
    /// Too many jobs wait for the writer, or too many threads for a reader.
    #[error("too many callers are waiting for the database")]
    Busy,
    /// A row is not what this program wrote: wrong type, wrong MAC, undecodable.
    #[error("a row of the database is damaged or was altered: {0}")]
    Corrupt(String),
    /// The database can't be read or written.
    #[error("the database failed: {0}")]
    Io(String),
    /// Set-up: wrong permissions, a newer schema.
    #[error("{0}")]
    Unusable(String),
    /// Another process has the database in this folder.
    #[error("`{0}` is in use by another strongroom process")]
    InUse(String),
    /// A fault of ours.
    #[error("internal fault in the store: {0}")]
    Internal(&'static str),
}

/// A result of the store's.
pub type Result<T> = std::result::Result<T, Error>;
