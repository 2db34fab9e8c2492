//! How a lane is set up.

use crate::custody::profile::Profile;
use crate::custody::{Error, Result};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

pub(super) const MAX_QUEUE: usize = 65_536;
const DEADLINE_MS: std::ops::RangeInclusive<u64> = 1..=120_000;

/// How a lane is set up, as written in the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Threads, each with a session; from 1 to the profile's limit. By default, within that limit,
    /// twice the processors, or as many as them if the token is software, which computes on them.
    pub workers: Option<usize>,
    /// Requests that may wait; from 1 to 65,536.
    pub queue: usize,
    /// The longest that a caller waits for an answer, in milliseconds; from 1 to 120,000.
    pub deadline_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: None, queue: 1024, deadline_ms: 5000 }
    }
}

/// Options that were checked against a profile.
pub(crate) struct Settings {
    pub(super) profile: Arc<Profile>,
    pub(super) workers: usize,
    pub(super) queue: usize,
    pub(super) deadline: Duration,
}

impl Options {
    pub(crate) fn check(&self, profile: &Profile) -> Result<Settings> {
        let most = profile.limits.sessions;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let each = if profile.software { 1 } else { 2 };
        let workers = self.workers.unwrap_or(processors.saturating_mul(each).min(most));
        if !(1..=most).contains(&workers) {
            return Err(Error::BadRequest("workers are from 1 to the profile's sessions"));
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            return Err(Error::BadRequest("a queue is from 1 to 65536 long"));
        }
        if !DEADLINE_MS.contains(&self.deadline_ms) {
            return Err(Error::BadRequest("a deadline is from 1 to 120000 milliseconds"));
        }
        let deadline = Duration::from_millis(self.deadline_ms);
        let profile = Arc::new(profile.clone());
        Ok(Settings { profile, workers, queue: self.queue, deadline })
    }
}
