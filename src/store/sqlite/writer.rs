//! The one thread that writes: group commit, recovery, checkpoints.

use super::connection::{self, PAGE_BYTES, from_sqlite};
use super::queue::{Found, Queue};
use super::statement::{WriteTx, run};
use crate::store::{Error, Job, Result, Verdict};
use rusqlite::Connection;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long nobody has to write before the WAL is emptied into the database.
const IDLE: Duration = Duration::from_secs(1);
/// With nothing to do at all.
const ASLEEP: Duration = Duration::from_secs(3600);

/// What the writer is given.
pub(super) struct Settings {
    pub(super) file: PathBuf,
    /// Most jobs in one transaction.
    pub(super) group: usize,
    pub(super) max_pages: Option<u64>,
    /// Length of the WAL, in bytes, at which a checkpoint is made even under load.
    pub(super) wal_bytes: u64,
}

/// The writer's own state, moved into its thread.
pub(super) struct Writer {
    settings: Settings,
    queue: Arc<Queue>,
    commits: Arc<AtomicU64>,
    /// `None` after a failure that leaves the connection in doubt; the next group opens another.
    connection: Option<Connection>,
    /// Pages in the WAL after the last commit, as SQLite's hook reports them.
    wal_pages: Arc<AtomicU64>,
    /// The WAL's length at which the next checkpoint under load is due, in pages.
    checkpoint_at: u64,
}

/// A job that ran, and what it shall be told once the group is on disk.
type Ran = (Box<dyn Job>, Result<()>);

impl Writer {
    pub(super) fn open(
        settings: Settings,
        queue: Arc<Queue>,
        commits: Arc<AtomicU64>,
    ) -> Result<Self> {
        let mut writer = Self {
            checkpoint_at: settings.wal_bytes / PAGE_BYTES,
            settings,
            queue,
            commits,
            connection: None,
            // A process that was killed may have left a log: have it emptied when there is time.
            wal_pages: Arc::new(AtomicU64::new(1)),
        };
        writer.connection()?;
        Ok(writer)
    }

    /// The connection, opened anew if the last one was given up.
    pub(super) fn connection(&mut self) -> Result<&mut Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        Ok(self.connection.insert(connection))
    }

    fn connect(&self) -> Result<Connection> {
        let Settings { file, max_pages, wal_bytes, .. } = &self.settings;
        let mut connection = connection::writer(file, *max_pages, *wal_bytes)?;
        let wal_pages = Arc::clone(&self.wal_pages);
        connection
            .wal_hook(Some(move |_: &mut _, pages| {
                wal_pages.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(from_sqlite)?;
        Ok(connection)
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn serve(mut self) {
        loop {
            let unsaved = self.wal_pages.load(Ordering::Relaxed) > 0;
            match self.queue.wait(self.settings.group, if unsaved { IDLE } else { ASLEEP }) {
                Found::Jobs(jobs) => {
                    self.commit(jobs, true);
                    self.checkpoint_if_due();
                }
                Found::Nothing if unsaved => self.checkpoint_while_idle(),
                Found::Nothing => {}
                Found::Closed => break,
            }
        }
        self.checkpoint_while_idle();
    }

    /// One transaction for `jobs`, and with `join` for those that arrive while it is open.
    fn commit(&mut self, jobs: VecDeque<Box<dyn Job>>, join: bool) {
        let begun = self.connection().and_then(|connection| run(connection, "BEGIN IMMEDIATE"));
        if let Err(error) = begun {
            self.give_up(&error);
            return tell_all(jobs, &error);
        }
        let mut group = Group { waiting: jobs, ran: Vec::new(), changed: false };
        match self.run_group(&mut group, join) {
            Ok(()) => self.finish(group),
            Err((culprit, error)) => {
                self.roll_back(&error);
                tell(culprit, Err(error));
                self.repeat_one_by_one(group);
            }
        }
    }

    /// Runs the group's jobs; on a failure of the database's, answers the job that met it.
    fn run_group(
        &self,
        group: &mut Group,
        join: bool,
    ) -> std::result::Result<(), (Box<dyn Job>, Error)> {
        loop {
            let Some(mut job) = group.waiting.pop_front() else {
                let room = self.settings.group.saturating_sub(group.ran.len());
                if join && room > 0 {
                    group.waiting = self.queue.more(room);
                }
                if group.waiting.is_empty() {
                    return Ok(());
                }
                continue;
            };
            match self.run_job(job.as_mut()) {
                Ok(Outcome { changed, answer }) => {
                    group.changed |= changed;
                    group.ran.push((job, answer));
                }
                Err(error) => return Err((job, error)),
            }
        }
    }

    fn run_job(&self, job: &mut dyn Job) -> Result<Outcome> {
        let Some(connection) = &self.connection else {
            return Err(Error::Internal("a group without a connection"));
        };
        let mut tx = WriteTx::new(connection);
        let verdict = catch_unwind(AssertUnwindSafe(|| job.run(&mut tx)));
        if let Some(failure) = tx.take_failure() {
            return Err(failure);
        }
        match verdict {
            Ok(Verdict::Keep) => Ok(Outcome { changed: tx.keep()?, answer: Ok(()) }),
            Ok(Verdict::Undo) => {
                tx.undo()?;
                Ok(Outcome { changed: false, answer: Ok(()) })
            }
            Ok(Verdict::Abort(error)) => Err(error),
            Err(_) => {
                tx.undo()?;
                let answer = Err(Error::Internal("a write that panicked"));
                Ok(Outcome { changed: false, answer })
            }
        }
    }

    /// COMMIT, and only then the answers.
    fn finish(&mut self, group: Group) {
        let committed = self.connection().and_then(|connection| run(connection, "COMMIT"));
        if let Err(error) = committed {
            self.roll_back(&error);
            return tell_all(group.ran.into_iter().map(|(job, _)| job), &error);
        }
        if group.changed {
            self.commits.fetch_add(1, Ordering::Release);
        }
        for (job, answer) in group.ran {
            tell(job, answer);
        }
    }

    /// One poisoned job must not fail the others: each of them gets a transaction of its own.
    fn repeat_one_by_one(&mut self, group: Group) {
        let ran = group.ran.into_iter().map(|(job, _)| job);
        for job in ran.chain(group.waiting) {
            self.commit(VecDeque::from([job]), false);
        }
    }

    fn roll_back(&mut self, cause: &Error) {
        let clean = self.connection.as_ref().is_some_and(|connection| {
            connection.is_autocommit() || run(connection, "ROLLBACK").is_ok()
        });
        if !clean {
            self.connection = None;
        }
        self.give_up(cause);
    }

    /// After a failed read or write of the file nothing that the connection remembers is certain.
    fn give_up(&mut self, cause: &Error) {
        if matches!(cause, Error::Io(_)) {
            tracing::error!(error = %cause, "the database's writer is opened anew");
            self.connection = None;
        }
    }

    /// Under load: waits (not long) for readers of old pages, then starts the WAL over. A reader
    /// that stays longer puts it off until the WAL has grown by as much again.
    fn checkpoint_if_due(&mut self) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if pages < self.checkpoint_at {
            return;
        }
        let step = self.settings.wal_bytes / PAGE_BYTES;
        self.checkpoint_at = if self.checkpoint("RESTART") { step } else { pages + step };
    }

    fn checkpoint_while_idle(&mut self) {
        let wait = |writer: &Self, wait| {
            writer.connection.as_ref().is_some_and(|c| c.busy_timeout(wait).is_ok())
        };
        // A job that arrives meanwhile must not wait for somebody's long read.
        if wait(self, Duration::ZERO) && self.checkpoint("TRUNCATE") {
            self.checkpoint_at = self.settings.wal_bytes / PAGE_BYTES;
        }
        if !wait(self, connection::LOCK_WAIT) {
            self.connection = None;
        }
    }

    /// Whether the whole WAL went into the database and starts over.
    fn checkpoint(&mut self, mode: &str) -> bool {
        let Some(connection) = &self.connection else { return false };
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        match connection.query_row(&sql, [], |row| row.get::<_, i64>(0)) {
            Ok(busy) => {
                let whole = busy == 0;
                if whole {
                    self.wal_pages.store(0, Ordering::Relaxed);
                }
                whole
            }
            Err(error) => {
                tracing::warn!(%error, "a checkpoint of the database failed");
                false
            }
        }
    }
}

struct Group {
    waiting: VecDeque<Box<dyn Job>>,
    ran: Vec<Ran>,
    changed: bool,
}

struct Outcome {
    changed: bool,
    answer: Result<()>,
}

fn tell_all(jobs: impl IntoIterator<Item = Box<dyn Job>>, error: &Error) {
    for job in jobs {
        tell(job, Err(error.clone()));
    }
}

/// A panic in an answer is its caller's loss alone.
fn tell(job: Box<dyn Job>, answer: Result<()>) {
    if catch_unwind(AssertUnwindSafe(|| job.done(answer))).is_err() {
        tracing::error!("a writer's answer panicked");
    }
}
