//! An issuer's keys: read when needed, kept while they are fresh, kept longer while they can't be had.

use super::Error;
use super::fetch::{self, FetchError};
use super::keys::{KeySet, SetError};
use super::options::Jwks;
use crate::clock::Time;
use parking_lot::Mutex;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// For how long fetched keys are used without a question, in milliseconds.
pub(super) const FRESH: i64 = 600_000;
/// For how long they are used if they can't be fetched again.
pub(super) const KEPT: i64 = 86_400_000;
/// The least time between two attempts to fetch.
pub(super) const PAUSE: i64 = 30_000;
/// The same while there are no keys at all: nobody can be served before there are.
pub(super) const FIRST_PAUSE: i64 = 5_000;
/// How much later than its neighbours a request may have read the clock.
const JITTER: i64 = 60_000;

/// Where one issuer's keys come from, and those that were had last.
pub(super) struct Source {
    place: Jwks,
    known: Mutex<Known>,
    /// Held by the one who fetches; never by those who find what they need in `known`.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Known {
    keys: Option<Arc<KeySet>>,
    /// When `keys` were read.
    read: Option<Time>,
    /// When they were last tried to be read.
    tried: Option<Time>,
    /// The file as it was then; nothing if there was none.
    stamp: Option<Stamp>,
    /// Whether that attempt failed.
    failed: bool,
}

/// What tells one state of a file from another: modification time (seconds, nanoseconds), length,
/// inode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(i64, i64, u64, u64);

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Set(#[from] SetError),
}

impl Source {
    pub(super) fn new(place: Jwks) -> Self {
        let fetching = tokio::sync::Mutex::new(());
        Self { place, known: Mutex::default(), fetching }
    }

    /// The keys among which that of `id` is to be found, if it is anywhere. Keys that are known and
    /// fresh are had at once, whoever else is fetching.
    pub(super) async fn set_for(
        self: &Arc<Self>,
        id: Option<&str>,
        now: Time,
    ) -> Result<Arc<KeySet>, Error> {
        let file = matches!(self.place, Jwks::File(_));
        if !file && let Some(keys) = self.known.lock().fresh(id, now) {
            return Ok(keys);
        }
        let (source, id) = (self.clone(), id.map(ToOwned::to_owned));
        // A task of its own: a caller who leaves does not undo what others wait for.
        let task = tokio::spawn(async move { source.refresh(id.as_deref(), now).await });
        if task.await.is_err() {
            tracing::error!("a task that reads an issuer's keys panicked");
        }
        self.known.lock().usable(now).ok_or(Error::Unreachable)
    }

    /// Reads the keys again if that is due, one reader at a time.
    async fn refresh(&self, id: Option<&str>, now: Time) {
        let _one = self.fetching.lock().await;
        let stamp = match &self.place {
            Jwks::File(path) => stamp(path).await,
            Jwks::Url { .. } => None,
        };
        if !self.known.lock().is_due(id, stamp, now) {
            return;
        }
        let outcome = self.read().await;
        if let Err(error) = &outcome {
            self.warn(error);
        }
        let mut known = self.known.lock();
        (known.tried, known.stamp, known.failed) = (Some(now), stamp, outcome.is_err());
        if let Ok(keys) = outcome {
            (known.keys, known.read) = (Some(Arc::new(keys)), Some(now));
        }
    }

    async fn read(&self) -> Result<KeySet, ReadError> {
        Ok(KeySet::parse(&fetch::read(&self.place).await?)?)
    }

    fn warn(&self, error: &ReadError) {
        let kept = self.known.lock().keys.is_some();
        let place = match &self.place {
            Jwks::File(path) => path.display().to_string(),
            Jwks::Url { url, .. } => url.to_string(),
        };
        tracing::warn!(%error, place, kept, "an issuer's keys can't be read");
    }
}

impl Known {
    /// The keys, if nothing speaks for reading them again.
    fn fresh(&self, id: Option<&str>, now: Time) -> Option<Arc<KeySet>> {
        let keys = self.keys.as_ref().filter(|keys| keys.knows(id))?;
        within(self.read, now, FRESH).then(|| keys.clone())
    }

    /// The keys, if they are not too old to be used at all.
    fn usable(&self, now: Time) -> Option<Arc<KeySet>> {
        self.keys.clone().filter(|_| within(self.read, now, KEPT))
    }

    /// Whether the keys are to be read again. `stamp`: the file as it is, if they are in a file.
    fn is_due(&mut self, id: Option<&str>, stamp: Option<Stamp>, now: Time) -> bool {
        let pause = if self.keys.is_some() { PAUSE } else { FIRST_PAUSE };
        let paused = within(self.tried, now, pause) && self.stamp == stamp;
        if stamp.is_some() && self.stamp == stamp && !self.failed {
            // What has not changed is as good as read.
            self.read = Some(now);
            return false;
        }
        !paused && (stamp.is_some() || self.fresh(id, now).is_none())
    }
}

/// Whether `then` is less than `span` ago. What lies far ahead (the clock was set back) is not.
fn within(then: Option<Time>, now: Time, span: i64) -> bool {
    then.is_some_and(|then| (-JITTER..span).contains(&now.0.saturating_sub(then.0)))
}

async fn stamp(path: &Path) -> Option<Stamp> {
    let path = path.to_owned();
    let read = fetch::on_thread(move || {
        let found = std::fs::metadata(&path)?;
        Ok(Stamp(found.mtime(), found.mtime_nsec(), found.size(), found.ino()))
    });
    read.await.ok()
}
