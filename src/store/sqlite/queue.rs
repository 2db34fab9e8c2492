//! Jobs on their way to the writer: bounded, and closed only once.

use crate::store::{Error, Job};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Many senders, one writer.
pub(super) struct Queue {
    bound: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    jobs: VecDeque<Box<dyn Job>>,
    closed: bool,
    /// The writer sleeps: only then is a wake-up, a system call, worth making.
    asleep: bool,
}

/// What the writer finds when it looks.
pub(super) enum Found {
    /// At least one job.
    Jobs(VecDeque<Box<dyn Job>>),
    /// Nothing for as long as it was willing to wait.
    Nothing,
    /// Nothing, and nothing will come.
    Closed,
}

impl Queue {
    pub(super) fn new(bound: usize) -> Self {
        let state = State { jobs: VecDeque::new(), closed: false, asleep: false };
        Self { bound, state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Adds a job, or tells it at once why not.
    pub(super) fn push(&self, job: Box<dyn Job>) {
        let mut state = self.state();
        let refusal = if state.closed {
            Error::Unusable("the database is closed".to_owned())
        } else if state.jobs.len() >= self.bound {
            Error::Busy
        } else {
            state.jobs.push_back(job);
            let wake = std::mem::take(&mut state.asleep);
            drop(state);
            if wake {
                self.arrived.notify_one();
            }
            return;
        };
        drop(state);
        job.done(Err(refusal));
    }

    /// Waits up to `patience` for jobs and takes at most `most` of them.
    pub(super) fn wait(&self, most: usize, patience: Duration) -> Found {
        let mut state = self.state();
        if state.jobs.is_empty() && !state.closed {
            state.asleep = true;
            state = self
                .arrived
                .wait_timeout_while(state, patience, |state| state.jobs.is_empty() && !state.closed)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.asleep = false;
        }
        match (state.jobs.is_empty(), state.closed) {
            (false, _) => Found::Jobs(take(&mut state.jobs, most)),
            (true, true) => Found::Closed,
            (true, false) => Found::Nothing,
        }
    }

    /// At most `most` of the jobs that are there now.
    pub(super) fn more(&self, most: usize) -> VecDeque<Box<dyn Job>> {
        take(&mut self.state().jobs, most)
    }

    /// No job enters from now on; those inside still run.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.arrived.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(jobs: &mut VecDeque<Box<dyn Job>>, most: usize) -> VecDeque<Box<dyn Job>> {
    let rest = jobs.split_off(most.min(jobs.len()));
    std::mem::replace(jobs, rest)
}
