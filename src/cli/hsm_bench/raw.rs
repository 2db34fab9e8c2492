//! The driver alone, in this process: what the token does when nothing stands before it.

use super::work::{Keys, Work};
use super::{STOPPED, Seen, count};
use crate::cli::{runtime, shutdown};
use crate::custody::profile::Profile;
use crate::custody::{self, Driver, Request};
use crate::server::Error;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What one kind of request came to with so many threads, each in a call all the time.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Raw {
    pub(super) operation: String,
    pub(super) callers: usize,
    pub(super) per_second: f64,
    /// Processor time of this process for one, in microseconds. What a device or its stand-in takes
    /// is not in it.
    pub(super) cpu_micros: f64,
}

/// Measures every kind of request with so many threads, or as many as the token has sessions for. The
/// keys are destroyed also if the person has had enough.
pub(super) fn measure(
    token: &Arc<dyn Driver>,
    profile: &Profile,
    each: Duration,
    callers: &[usize],
) -> Result<Vec<Raw>, Error> {
    let reactor = runtime()?;
    let stopped = stopped(&reactor)?;
    let mut worker = Arc::clone(token).worker();
    let keys = Keys::new()?;
    let made = Work::all(profile, &keys, async |request| worker.serve(&request));
    let measured = reactor.block_on(made).and_then(|works| {
        let sessions = profile.limits.sessions;
        let goes_on = |start: Instant| start.elapsed() < each && !stopped.load(Ordering::Relaxed);
        let all = works.iter().flat_map(|work| callers.iter().map(move |n| (work, *n)));
        let all = all
            .map(|(work, callers)| under_load(token, work, (callers, sessions), goes_on))
            .collect();
        if stopped.load(Ordering::Relaxed) { Err(Error::Refused(STOPPED.into())) } else { Ok(all) }
    });
    for id in [keys.holder, keys.signer] {
        match worker.serve(&Request::Destroy { id }) {
            Ok(_) | Err(custody::Error::KeyNotFound(_)) => {}
            Err(error) => {
                tracing::error!(key = %id, %error, "a key of this command was left in the token");
            }
        }
    }
    measured
}

/// Set when the person has had enough, heard from now on.
fn stopped(reactor: &Runtime) -> Result<Arc<AtomicBool>, Error> {
    let _inside = reactor.enter();
    let (stop, stopped) = (shutdown()?, Arc::<AtomicBool>::default());
    let heard = Arc::clone(&stopped);
    reactor.spawn(async move {
        stop.await;
        heard.store(true, Ordering::Relaxed);
    });
    Ok(stopped)
}

fn under_load(
    token: &Arc<dyn Driver>,
    work: &Work,
    (callers, sessions): (usize, usize),
    goes_on: impl Fn(Instant) -> bool + Sync,
) -> Raw {
    let (start, before) = (Instant::now(), cpu());
    let done: usize = std::thread::scope(|scope| {
        let call = || {
            let mut worker = Arc::clone(token).worker();
            let mut seen = Seen::default();
            while goes_on(start) {
                seen.note(Instant::now(), worker.serve(&(work.request)()).map(drop));
            }
            seen.times.len()
        };
        let threads: Vec<_> = (0..callers.min(sessions)).map(|_| scope.spawn(call)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    });
    let spent = cpu().saturating_sub(before).as_secs_f64();
    let done = count(done);
    Raw {
        operation: work.name.clone(),
        callers,
        per_second: done / start.elapsed().as_secs_f64(),
        cpu_micros: if done > 0.0 { spent * 1e6 / done } else { 0.0 },
    }
}

/// Processor time of this process so far (proc_pid_stat: utime and stime, in hundredths of a second on
/// every Linux that this program runs on).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::{
        BackingKeyId, Evidence, Health, KeyCheck, Made, NewSigner, Response, Token, TokenInfo,
        Worker,
    };
    use crate::secret::Secret;
    use parking_lot::Mutex;
    use rustix::process::{Signal, getpid, kill_process};

    /// A token whose user has had enough as soon as it is used; and its keys, those that were destroyed
    /// after the others.
    #[derive(Default)]
    struct Stopped(Mutex<(Vec<BackingKeyId>, Vec<BackingKeyId>)>);

    struct Thread(Arc<Stopped>);

    impl Driver for Stopped {
        fn worker(self: Arc<Self>) -> Box<dyn Worker> {
            Box::new(Thread(self))
        }
    }

    impl Token for Stopped {
        fn info(&self) -> &TokenInfo {
            panic!("nobody asks")
        }

        fn health(&self) -> Health {
            panic!("nobody asks")
        }
    }

    impl Worker for Thread {
        fn serve(&mut self, request: &Request) -> custody::Result<Response> {
            let mut keys = self.0.0.lock();
            Ok(match request {
                Request::Generate { id, .. } => {
                    keys.0.push(*id);
                    let evidence = Evidence {
                        sensitive: true,
                        extractable: false,
                        never_extractable: true,
                        always_sensitive: true,
                        local: true,
                        mechanisms: Vec::new(),
                        check: KeyCheck([0; 8]),
                    };
                    Response::Made(Made { evidence, wrapped: None, public: None })
                }
                Request::GenerateSigner { id, .. } => {
                    keys.0.push(*id);
                    Response::Signer(NewSigner { public: Vec::new(), wrapped: None })
                }
                Request::Destroy { id } => {
                    keys.1.push(*id);
                    Response::Destroyed
                }
                _ => {
                    kill_process(getpid(), Signal::INT).expect("sent");
                    Response::Random(Secret::new(Vec::new()))
                }
            })
        }
    }

    /// They once stayed in the token.
    #[test]
    fn who_stops_it_leaves_no_keys_behind() {
        let stopped = Arc::new(Stopped::default());
        let (token, profile): (Arc<dyn Driver>, _) =
            (stopped.clone(), Profile::built_in("softhsm2").expect("sound"));
        let measured = measure(&token, &profile, Duration::from_secs(600), &[1, 4]);
        assert!(matches!(measured, Err(Error::Refused(why)) if why == STOPPED));
        let keys = stopped.0.lock();
        assert_eq!((keys.0.len(), &keys.0), (2, &keys.1));
    }
}
