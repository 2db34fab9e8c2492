//! The servers of a lane, and where they meet those who ask: threads or tasks that take requests from the
//! queue to the token until the lane ends.

use super::Settings;
use crate::custody::breaker::Breaker;
use crate::custody::queue::{Caller, Queue};
use crate::custody::{Driver, Error, Request, Response, Result, Token, Worker};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// After so many requests in a row that came alone, a server no longer looks whether others come along,
/// which costs a turn of the reactor.
const LONELY: u32 = 4;

/// Of those after that, one in so many waits all the same, to see whether others come again.
const PROBE: u32 = 16;

/// How long a server for which there was no session waits before it asks for one again.
const STEPS_BACK: Duration = Duration::from_secs(10);

/// Where callers and servers meet.
pub(super) struct Hall {
    pub(super) queue: Queue<Job>,
    pub(super) breaker: Breaker,
    /// Servers that have a session, as far as is known.
    pub(super) seated: AtomicUsize,
}

/// What takes requests to the token: one of the lane's servers.
pub(in crate::custody) trait Server: Send + 'static {
    /// Does requests, however long the hardware takes, and answers them in their order. Several only
    /// if they do nothing but use keys.
    fn serve(
        &mut self,
        requests: &[&Request],
    ) -> impl Future<Output = Vec<Result<Response>>> + Send;

    /// How many it is best given at a time, if as many wait.
    fn at_a_time(&self) -> usize;
}

/// A worker on a thread of its own.
struct Blocking(Box<dyn Worker>);

impl Server for Blocking {
    async fn serve(&mut self, requests: &[&Request]) -> Vec<Result<Response>> {
        requests.iter().map(|request| self.0.serve(request)).collect()
    }

    fn at_a_time(&self) -> usize {
        1
    }
}

/// Makes a task of a server.
type Hire = Box<dyn Fn(AtWork) + Send + Sync>;

/// The servers: their beginning and their end.
pub(super) struct Staff {
    pub(super) hall: Arc<Hall>,
    /// Of those that are tasks, how many there are to be and how one is made.
    tasks: Option<(usize, Hire)>,
    at_work: Arc<AtomicUsize>,
    /// Those that are threads hold the other end of this channel.
    ended: Receiver<()>,
    /// Held here too, so that the last reference is let go of on the thread that drops the lane.
    token: Option<Arc<dyn Token>>,
    patience: Duration,
}

impl Staff {
    /// A thread for each worker of a token in this process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the system gives none.
    pub(super) fn threads(token: &Arc<dyn Driver>, settings: &Settings) -> Result<Self> {
        let hall = Hall::new(settings);
        let (running, ended) = crossbeam_channel::bounded(0);
        let failed = |e| {
            let (token, why) = (token.info().label.clone(), format!("no thread: {e}"));
            Error::Unavailable { token, why }
        };
        for n in 0..settings.workers {
            let (worker, hall) = (Blocking(Arc::clone(token).worker()), Arc::clone(&hall));
            let running = running.clone();
            let reactor = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let reactor = reactor.map_err(failed)?;
            let work = move || {
                reactor.block_on(serve(worker, &hall));
                // Let go of after the worker: it tells that the token is free.
                drop(running);
            };
            let thread = std::thread::Builder::new().name(format!("token-{n}")).spawn(work);
            thread.map_err(failed)?;
        }
        Ok(Self::new(hall, Arc::<dyn Driver>::clone(token), settings, (None, ended)))
    }

    /// Tasks, which begin with the first request.
    pub(super) fn tasks<S: Server>(
        token: Arc<dyn Token>,
        server: impl Fn() -> S + Send + Sync + 'static,
        settings: &Settings,
    ) -> Self {
        let hall = Hall::new(settings);
        let place = Arc::clone(&hall);
        let hire = move |at_work: AtWork| {
            let (server, hall) = (server(), Arc::clone(&place));
            tokio::spawn(async move {
                serve(server, &hall).await;
                drop(at_work);
            });
        };
        let tasks: (_, Hire) = (settings.workers, Box::new(hire));
        // Nobody holds the other end: what is in flight elsewhere is waited for there.
        let (_, ended) = crossbeam_channel::bounded(0);
        Self::new(hall, token, settings, (Some(tasks), ended))
    }

    fn new(
        hall: Arc<Hall>,
        token: Arc<dyn Token>,
        settings: &Settings,
        (tasks, ended): (Option<(usize, Hire)>, Receiver<()>),
    ) -> Self {
        let (token, patience) = (Some(token), settings.deadline);
        Self { hall, tasks, at_work: Arc::default(), ended, token, patience }
    }

    /// Sees to it that all tasks are at work: at first none is, and a reactor that ends takes its own
    /// along.
    pub(super) fn begin(&self) {
        let Some((count, hire)) = &self.tasks else { return };
        let one_more = |at_work: usize| (at_work < *count).then(|| at_work.saturating_add(1));
        while self.at_work.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok() {
            hire(AtWork(Arc::clone(&self.at_work)));
        }
    }
}

/// A task that is at work, until it is dropped.
struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Staff {
    fn drop(&mut self) {
        self.hall.queue.close();
        // Nothing is ever sent: this ends when every thread has, or after a deadline.
        if self.ended.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a call to the token has not come back; its thread is left behind");
        }
        self.token = None;
    }
}

/// A request that waits, or that a server has taken.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Response>>,
    /// Of one that makes or destroys a key. Who asked may give up before the token is through with it.
    pub(super) _turn: Option<Turn>,
}

/// The turn of whoever makes or destroys a key.
pub(super) type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Hall {
    fn new(settings: &Settings) -> Arc<Self> {
        let trips_at = u32::try_from(settings.workers.max(4)).unwrap_or(u32::MAX);
        Arc::new(Self {
            queue: Queue::new(settings.queue),
            breaker: Breaker::new(trips_at, settings.deadline),
            seated: AtomicUsize::new(settings.workers),
        })
    }

    /// Whether a server may leave its work to others: the last one may not.
    fn steps_back(&self) -> bool {
        let others = |seated: usize| (seated > 1).then(|| seated.saturating_sub(1));
        self.seated.fetch_update(Ordering::Relaxed, Ordering::Relaxed, others).is_ok()
    }
}

/// Serves until the queue is closed. A job that nobody waits for any more is skipped.
async fn serve(mut server: impl Server, hall: &Hall) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut jobs, mut alone) = (Vec::new(), 0_u32);
    loop {
        // As much as keeps the others busy too, but no more of them than there are processors.
        let shares = hall.seated.load(Ordering::Relaxed).min(processors);
        let fits = |job: &Job| job.request.only_uses();
        let most = server.at_a_time();
        let gathers = most > 1 && (alone < LONELY || alone.is_multiple_of(PROBE));
        hall.queue.pop((shares, most, gathers), fits, &mut jobs).await;
        alone = if jobs.len() > 1 { 0 } else { alone.wrapping_add(1) };
        if jobs.is_empty() {
            break;
        }
        let now = Instant::now();
        jobs.retain(|(_, job)| !job.reply.is_closed() && now < job.deadline);
        if jobs.is_empty() {
            continue;
        }
        let call = hall.breaker.asked();
        let requests: Vec<_> = jobs.iter().map(|(_, job)| &job.request).collect();
        let answers = server.serve(&requests).await;
        call.answered(Instant::now());
        let homeless = reply(&mut jobs, answers);
        if homeless.is_empty() {
            continue;
        }
        if hall.steps_back() {
            homeless
                .into_iter()
                .rev()
                .for_each(|(caller, job, _)| hall.queue.put_back(caller, job));
            hall.queue.rest(STEPS_BACK).await;
            hall.seated.fetch_add(1, Ordering::Relaxed);
        } else {
            for (_, job, token) in homeless {
                drop(job.reply.send(Err(Error::Overloaded(token))));
            }
        }
    }
}

/// Gives the answers to those who wait for them; back come jobs for which there was no session, and
/// the token's name.
fn reply(
    jobs: &mut Vec<(Caller, Job)>,
    answers: Vec<Result<Response>>,
) -> Vec<(Caller, Job, String)> {
    let mut homeless = Vec::new();
    for ((caller, job), answer) in jobs.drain(..).zip(answers) {
        match answer {
            Err(Error::NoSession(token)) => homeless.push((caller, job, token)),
            // The caller may have given up meanwhile: then the answer is dropped, and wiped.
            answer => drop(job.reply.send(answer)),
        }
    }
    homeless
}
