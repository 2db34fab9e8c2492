//! Where records go besides the disk: sinks.
//!
//! A sink reads the log behind the requests' backs, from a position that it keeps on the disk, so
//! nothing is queued in memory and nothing is lost at a restart; what was sent in the last second
//! before a crash is sent again. A best-effort sink that falls too far behind leaves records out,
//! and counts them. A mandatory one is waited for, and while it fails so do requests.

mod connection;
mod follow;
mod http;
mod syslog;

use super::Error;
use super::follow::{self as place, Follower};
use super::log::Log;
use super::tree::Cursor;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

const DEADLINE_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
const LAG: std::ops::RangeInclusive<u64> = 1000..=10_000_000;

/// A sink, as written in the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What tells it from the others: 1 to 32 lower-case letters, digits and hyphens.
    pub name: String,
    /// What it speaks.
    pub kind: Kind,
    /// Whether requests fail while it does.
    #[serde(default)]
    pub mandatory: bool,
    /// `tcp://HOST:PORT` or `tls://HOST:PORT` for syslog, `http://` or `https://` for http.
    pub url: String,
    /// Certificates (PEM) of the authorities that may have issued the other side's.
    pub ca: Option<PathBuf>,
    /// The longest that the other side may take for a batch, and a request waits for a mandatory
    /// sink, in milliseconds; from 100 to 60,000.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
    /// Records that a best-effort sink may be behind; from 1,000 to 10,000,000.
    #[serde(default = "lag")]
    pub lag: u64,
}

fn deadline_ms() -> u64 {
    5000
}

fn lag() -> u64 {
    100_000
}

/// What a sink speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// RFC 5424 messages over TCP or TLS, each behind its length (RFC 6587, RFC 5425).
    Syslog,
    /// Batches of JSON lines, posted.
    Http,
}

impl Options {
    /// Whether it may be used.
    ///
    /// # Errors
    /// A sentence that says why not.
    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=32).contains(&self.name.len()) || !self.name.chars().all(plain) {
            return Err("a name has 1 to 32 lower-case letters, digits and hyphens".into());
        }
        if !DEADLINE_MS.contains(&self.deadline_ms) {
            return Err("deadline_ms is from 100 to 60000".into());
        }
        if !LAG.contains(&self.lag) {
            return Err("lag is from 1000 to 10000000".into());
        }
        Ok(())
    }
}

/// What is known of a sink outside its own task.
struct Sink {
    name: String,
    mandatory: bool,
    deadline: Duration,
    lag: u64,
    /// Records that it has.
    taken: watch::Sender<u64>,
    /// The last attempt has failed.
    failing: AtomicBool,
    /// Records that it was not sent because it fell behind.
    dropped: AtomicU64,
}

/// The sinks of one log.
#[derive(Clone, Default)]
pub(super) struct Sinks(Arc<[Arc<Sink>]>);

/// How a sink is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its name.
    pub name: String,
    /// Whether the last attempt has failed.
    pub failing: bool,
    /// Records that it has or was spared.
    pub taken: u64,
    /// Records that it was not sent because it fell behind.
    pub dropped: u64,
}

impl Sinks {
    /// Starts the sinks; none is waited for. One that is new begins with the next record.
    ///
    /// # Errors
    /// [`Error::Sink`] if one can't be used as it is set up, [`Error::Io`].
    pub(super) fn start(
        options: &[Options],
        (log, dir, host): (&Log, &Path, &str),
    ) -> Result<Self, Error> {
        let journal = Cursor::read(dir)?.unwrap_or_default();
        let start = |options: &Options| {
            let wrong = |why| Error::Sink { name: options.name.clone(), why };
            options.check().map_err(wrong)?;
            let remote = connection::Remote::new(options, host).map_err(wrong)?;
            let whose = (place::Kind::Sink, options.name.as_str());
            let follower = Follower::open(whose, log, dir, journal)?;
            let sink = Arc::new(Sink {
                name: options.name.clone(),
                mandatory: options.mandatory,
                deadline: Duration::from_millis(options.deadline_ms),
                lag: options.lag,
                taken: watch::Sender::new(follower.index()),
                failing: AtomicBool::new(false),
                dropped: AtomicU64::new(0),
            });
            tokio::spawn(follow::keep_following(sink.clone(), follower, remote, log.clone()));
            Ok(sink)
        };
        let sinks: Result<Vec<_>, Error> = options.iter().map(start).collect();
        let sinks = sinks?;
        let mut names: Vec<_> = sinks.iter().map(|sink| &sink.name).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < sinks.len() {
            let why = "two sinks have one name".into();
            return Err(Error::Sink { name: names.into_iter().cloned().collect(), why });
        }
        Ok(Self(sinks.into()))
    }

    /// Fails while a mandatory sink does.
    pub(super) fn ready(&self) -> Result<(), Error> {
        let failing = |sink: &&Arc<Sink>| sink.mandatory && sink.failing.load(Ordering::Acquire);
        match self.0.iter().find(failing) {
            Some(sink) => Err(sink.error("the last attempt has failed")),
            None => Ok(()),
        }
    }

    /// Waits until every mandatory sink has the first `number` records.
    pub(super) async fn taken(&self, number: u64) -> Result<(), Error> {
        for sink in self.0.iter().filter(|sink| sink.mandatory) {
            let mut taken = sink.taken.subscribe();
            let reached = taken.wait_for(|done| *done >= number);
            if !matches!(tokio::time::timeout(sink.deadline, reached).await, Ok(Ok(_))) {
                return Err(sink.error("it did not take the record in time"));
            }
        }
        Ok(())
    }

    /// How they are doing.
    pub(super) fn health(&self) -> Vec<Health> {
        let health = |sink: &Arc<Sink>| Health {
            name: sink.name.clone(),
            failing: sink.failing.load(Ordering::Acquire),
            taken: *sink.taken.borrow(),
            dropped: sink.dropped.load(Ordering::Acquire),
        };
        self.0.iter().map(health).collect()
    }
}

impl Sink {
    fn error(&self, why: &str) -> Error {
        Error::Sink { name: self.name.clone(), why: why.to_owned() }
    }
}
