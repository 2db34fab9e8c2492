//! The driver alone, in this process: what the token does when nothing stands before it.

use super::work::{Keys, Work};
use super::{Seen, count};
use crate::cli::runtime;
use crate::custody::profile::Profile;
use crate::custody::{self, Request, Token};
use crate::server::Error;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Measures every kind of request with so many threads, or as many as the token has sessions for.
pub(super) fn measure(
    token: &Arc<dyn Token>,
    profile: &Profile,
    each: Duration,
    callers: &[usize],
) -> Result<Vec<Raw>, Error> {
    let mut worker = Arc::clone(token).worker();
    let keys = Keys::new()?;
    let made = Work::all(profile, &keys, async |request| worker.serve(&request));
    let measured = runtime()?.block_on(made).map(|works| {
        let sessions = profile.limits.sessions;
        let all = works.iter().flat_map(|work| callers.iter().map(move |n| (work, *n)));
        all.map(|(work, callers)| under_load(token, work, (callers, sessions), each)).collect()
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

fn under_load(
    token: &Arc<dyn Token>,
    work: &Work,
    (callers, sessions): (usize, usize),
    each: Duration,
) -> Raw {
    let (start, before) = (Instant::now(), cpu());
    let done: usize = std::thread::scope(|scope| {
        let call = || {
            let mut worker = Arc::clone(token).worker();
            let mut seen = Seen::default();
            while start.elapsed() < each {
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
