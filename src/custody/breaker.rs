//! A circuit breaker: a token that has stopped answering is left alone for a moment, so that those who
//! come meanwhile fail at once instead of waiting for their deadlines.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a token is left alone; then one request tries it.
const OPEN: Duration = Duration::from_secs(1);

/// Opens after so many deadlines while every thread was in a call and none had an answer for as long
/// as a deadline: a token that answers, but not all who ask, is slow or overrun, and goes on.
pub(super) struct Breaker {
    missed: AtomicU32,
    trips_at: u32,
    deadline: Duration,
    begin: Instant,
    /// Servers that are in a call.
    busy: AtomicUsize,
    /// When the last answer came, milliseconds after the beginning.
    answered: AtomicU64,
    /// When the next request may try, while it is open.
    next: Mutex<Option<Instant>>,
}

impl Breaker {
    pub(super) fn new(trips_at: u32, deadline: Duration) -> Self {
        let (missed, answered) = (AtomicU32::new(0), AtomicU64::new(0));
        let (begin, busy, next) = (Instant::now(), AtomicUsize::new(0), Mutex::default());
        Self { missed, trips_at, deadline, begin, busy, answered, next }
    }

    /// Whether a request may try the token at `now`.
    pub(super) fn admits(&self, now: Instant) -> bool {
        if self.missed.load(Ordering::Relaxed) < self.trips_at {
            return true;
        }
        let mut next = self.next.lock();
        let admitted = next.is_none_or(|next| now >= next);
        if admitted {
            *next = now.checked_add(OPEN);
        }
        admitted
    }

    /// A server goes into a call.
    pub(super) fn asked(&self) -> Call<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Call(self)
    }

    /// The token has answered, whatever it was, at `now`.
    fn answered(&self, now: Instant) {
        self.answered.store(self.since_begin(now), Ordering::Relaxed);
        // Not written to by every answer: the line is shared by all who ask.
        if self.missed.load(Ordering::Relaxed) > 0 {
            self.missed.store(0, Ordering::Relaxed);
        }
    }

    /// A deadline has passed without an answer, at `now`, with so many threads.
    pub(super) fn missed(&self, now: Instant, threads: usize) {
        let silent = self.since_begin(now).saturating_sub(self.answered.load(Ordering::Relaxed));
        let idle = self.busy.load(Ordering::Relaxed) < threads;
        if idle || Duration::from_millis(silent) < self.deadline {
            return;
        }
        let before = self.missed.fetch_add(1, Ordering::Relaxed);
        if before.saturating_add(1) == self.trips_at {
            *self.next.lock() = now.checked_add(OPEN);
        }
    }

    fn since_begin(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begin).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

/// A call that a server is in; over when it is dropped.
pub(super) struct Call<'a>(&'a Breaker);

impl Call<'_> {
    /// The token has answered, whatever it was, at `now`.
    pub(super) fn answered(self, now: Instant) {
        self.0.answered(now);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(3, DEADLINE), Instant::now())
    }

    #[test]
    fn it_opens_after_so_many_deadlines_without_an_answer_and_then_lets_one_try() {
        let (breaker, begin) = breaker();
        let call = breaker.asked();
        let late = begin + DEADLINE * 2;
        for _ in 0..3 {
            assert!(breaker.admits(late));
            breaker.missed(late, 1);
        }
        assert!(!breaker.admits(late));
        let later = late + OPEN;
        assert!(breaker.admits(later), "one tries");
        assert!(!breaker.admits(later), "and the others wait for what comes of it");
        call.answered(later);
        assert!(breaker.admits(later) && breaker.admits(later));
    }

    #[test]
    fn a_token_that_answers_some_or_has_a_thread_free_is_not_left_alone() {
        let (breaker, begin) = breaker();
        let mut call = breaker.asked();
        for second in 1..60 {
            let now = begin + Duration::from_secs(second);
            breaker.missed(now, 1);
            call.answered(now);
            breaker.missed(now + DEADLINE * 2, 1);
            call = breaker.asked();
            breaker.missed(now + DEADLINE * 2, 2);
            assert!(breaker.admits(now));
        }
    }
}
