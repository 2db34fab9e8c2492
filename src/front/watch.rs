//! Watches over a connection's time: one lazy timer each, whatever the number of requests.
//!
//! hyper's own header timer counts idle time as header time and makes a new timer per request.
//! Here a request costs one reading of the clock and a few atomic loads: the timer is only moved
//! when a deadline comes nearer than the one it is set to, and looks again when it fires.

use super::options::Limits;
use http::Version;
use hyper_util::server::graceful::GracefulConnection;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long a connection that is being closed may take to notice.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection is doing, as seen by its stream and by its requests.
///
/// Relaxed atomics are enough: each is a hint for a deadline, and the task that reads them is
/// woken by the very events that change them.
pub(super) struct Pulse {
    /// Requests whose answer is not made yet.
    in_flight: AtomicU32,
    /// Requests ever answered, wrapping.
    answered: AtomicU32,
    /// The beginning of a head has arrived, or the connection is new.
    head_begun: AtomicBool,
    /// HTTP/2, where bytes between requests need not be the beginning of one.
    multiplexed: AtomicBool,
    /// An answer went out ahead of its request's end: nothing more is expected.
    lingering: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Busy,
    Idle,
    Closing,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            head_begun: AtomicBool::new(true),
            multiplexed: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
        }
    }

    /// Notes that a request's head is complete; the request lasts as long as what is returned.
    pub(super) fn begin(&self, version: Version) -> Busy<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        self.head_begun.store(false, Relaxed);
        if version == Version::HTTP_2 {
            self.multiplexed.store(true, Relaxed);
        }
        Busy(self)
    }

    /// Notes that the connection ends after this answer though its request is not read to the end.
    pub(super) fn linger(&self) {
        if !self.multiplexed.load(Relaxed) {
            self.lingering.store(true, Relaxed);
        }
    }

    fn received(&self) {
        if self.in_flight.load(Relaxed) == 0 && !self.multiplexed.load(Relaxed) {
            self.head_begun.store(true, Relaxed);
        }
    }

    fn phase(&self) -> Phase {
        if self.in_flight.load(Relaxed) > 0 {
            Phase::Busy
        } else if self.lingering.load(Relaxed) {
            Phase::Closing
        } else if self.head_begun.load(Relaxed) {
            Phase::Head
        } else {
            Phase::Idle
        }
    }
}

/// A request in flight.
pub(super) struct Busy<'a>(&'a Pulse);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Relaxed);
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A stream that tells its [`Pulse`] when bytes come in, and that closes without losing an answer.
pub(super) struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
    shut: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, shut: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.pulse.received();
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends our side; after an early refusal also waits for the client to end its own.
    ///
    /// Closing a socket with unread bytes makes the kernel send a reset, which can overtake the
    /// answer and destroy it. What still comes is discarded; [`drive`] bounds the time.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
        }
        while self.pulse.lingering.load(Relaxed) {
            let mut scrap = [0; 4096];
            let mut buf = ReadBuf::new(&mut scrap);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Since when the connection is in which phase.
struct Meter {
    phase: Phase,
    answered: u32,
    since: Instant,
}

impl Meter {
    /// When the connection's time is up, if nothing changes until then.
    fn due(&mut self, pulse: &Pulse, limits: &Limits, now: Instant) -> Instant {
        let answered = pulse.answered.load(Relaxed);
        let phase = pulse.phase();
        if self.phase == Phase::Closing {
            // A request may have been on its way when the connection was found idle.
            if phase == Phase::Busy {
                self.since = now;
            }
        } else if phase != self.phase || answered != self.answered {
            *self = Self { phase, answered, since: now };
        }
        match self.phase {
            Phase::Head => self.since + limits.header_read_timeout,
            Phase::Idle => self.since + limits.idle_timeout,
            Phase::Closing => self.since + LINGER,
            // A request has deadlines of its own; look again later.
            Phase::Busy => now + limits.idle_timeout,
        }
    }
}

/// Runs a connection to its end, cuts it off when its time is up, and lets it finish what is in
/// flight once `stop` changes.
pub(super) async fn drive<C: GracefulConnection>(
    connection: C,
    pulse: &Pulse,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
) {
    let seen = stop.clone();
    let mut connection = pin!(connection);
    let mut stopped = pin!(async move {
        drop(stop.wait_for(|stop| *stop).await);
    });
    let mut meter = Meter { phase: Phase::Head, answered: 0, since: Instant::now() };
    let mut timer = pin!(sleep(limits.header_read_timeout));
    let mut armed = false;
    let mut stopping = false;
    poll_fn(|cx| {
        loop {
            // Polled once to leave a waker, then only when there is news: polling takes a lock
            // that all connections share.
            if !stopping && (!armed || seen.has_changed().unwrap_or(true)) {
                stopping = stopped.as_mut().poll(cx).is_ready();
                if stopping {
                    connection.as_mut().graceful_shutdown();
                }
            }
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let now = Instant::now();
            let due = meter.due(pulse, limits, now);
            if due <= now {
                if meter.phase != Phase::Idle {
                    return Poll::Ready(());
                }
                connection.as_mut().graceful_shutdown();
                meter.phase = Phase::Closing;
                meter.since = now;
                continue;
            }
            if armed && due >= timer.deadline() && !timer.is_elapsed() {
                return Poll::Pending;
            }
            armed = true;
            timer.as_mut().reset(due);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::default()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn fresh(start: Instant) -> (Pulse, Meter) {
        (Pulse::new(), Meter { phase: Phase::Head, answered: 0, since: start })
    }

    #[test]
    fn a_head_is_timed_from_its_first_byte_and_not_from_the_last_one() {
        let start = Instant::now();
        let (pulse, mut meter) = fresh(start);
        assert_eq!(meter.due(&pulse, &limits(), at(start, 1)), at(start, 10));
        drop(pulse.begin(Version::HTTP_11));
        assert_eq!(meter.due(&pulse, &limits(), at(start, 2)), at(start, 77));
        pulse.received();
        assert_eq!(meter.due(&pulse, &limits(), at(start, 50)), at(start, 60));
        pulse.received();
        assert_eq!(meter.due(&pulse, &limits(), at(start, 55)), at(start, 60));
    }

    #[test]
    fn idle_time_starts_anew_after_every_answer_even_if_nobody_looked_in_between() {
        let start = Instant::now();
        let (pulse, mut meter) = fresh(start);
        for second in [3, 30, 60] {
            drop(pulse.begin(Version::HTTP_11));
            assert_eq!(meter.due(&pulse, &limits(), at(start, second)), at(start, second + 75));
        }
    }

    #[test]
    fn a_request_that_crosses_with_the_closing_is_waited_for() {
        let start = Instant::now();
        let (pulse, mut meter) = fresh(start);
        meter.phase = Phase::Closing;
        let late = pulse.begin(Version::HTTP_2);
        assert_eq!(meter.due(&pulse, &limits(), at(start, 5)), at(start, 5) + LINGER);
        drop(late);
        assert_eq!(meter.due(&pulse, &limits(), at(start, 6)), at(start, 5) + LINGER);
    }
}
