//! The connections that read, lent out one at a time.

use super::connection;
use super::statement::{self, ReadTx};
use crate::store::{Error, Result, Tx};
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a reader waits for a connection. It only comes to that if more threads read than
/// there are connections.
const PATIENCE: Duration = Duration::from_secs(5);

/// A bounded pool, opened on demand. The last one returned goes out first: its pages are warm.
pub(super) struct Readers {
    file: PathBuf,
    limit: usize,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    idle: Vec<Box<Connection>>,
    /// Idle ones and those lent out.
    open: usize,
    waiting: usize,
    closed: bool,
}

impl Readers {
    pub(super) fn new(file: PathBuf, limit: usize) -> Self {
        let state = State { idle: Vec::with_capacity(limit), open: 0, waiting: 0, closed: false };
        Self { file, limit, state: Mutex::new(state), returned: Condvar::new() }
    }

    /// Runs `f` on one snapshot.
    pub(super) fn read(&self, f: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()> {
        let lent = self.lend()?;
        let Some(connection) = lent.connection.as_deref() else {
            return Err(Error::Internal("a loan without a connection"));
        };
        let mut tx = ReadTx::new(connection);
        let outcome = f(&mut tx);
        let ended = tx.end();
        outcome.and(ended)
    }

    /// Closes the idle connections, and those lent out as they come back.
    pub(super) fn close(&self) {
        let idle = {
            let mut state = self.state();
            state.closed = true;
            state.open -= state.idle.len();
            std::mem::take(&mut state.idle)
        };
        drop(idle);
        self.returned.notify_all();
    }

    fn lend(&self) -> Result<Lent<'_>> {
        let mut state = self.state();
        loop {
            if state.closed {
                return Err(Error::Unusable("the database is closed".to_owned()));
            }
            if let Some(connection) = state.idle.pop() {
                return Ok(Lent { readers: self, connection: Some(connection) });
            }
            if state.open < self.limit {
                state.open += 1;
                drop(state);
                let mut lent = Lent { readers: self, connection: None };
                lent.connection = Some(Box::new(connection::reader(&self.file)?));
                return Ok(lent);
            }
            state.waiting += 1;
            let (locked, waited) =
                self.returned.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            state = locked;
            state.waiting -= 1;
            if waited.timed_out() && state.idle.is_empty() {
                return Err(Error::Busy);
            }
        }
    }

    fn give_back(&self, connection: Option<Box<Connection>>) {
        let mut state = self.state();
        let unwanted = match connection {
            Some(connection) if !state.closed => {
                state.idle.push(connection);
                None
            }
            other => {
                state.open -= 1;
                other
            }
        };
        // Waking is a system call: only if somebody sleeps.
        let wake = state.waiting > 0;
        drop(state);
        drop(unwanted);
        if wake {
            self.returned.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan; comes back by itself, also from a panic.
struct Lent<'p> {
    readers: &'p Readers,
    connection: Option<Box<Connection>>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // After a panic the snapshot is still open: it would hold up every checkpoint.
        let sound = self.connection.take().filter(|connection| {
            connection.is_autocommit() || statement::run(connection, "ROLLBACK").is_ok()
        });
        self.readers.give_back(sound);
    }
}
