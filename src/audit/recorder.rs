//! What requests hand their records to.

use super::checkpoint::{self, Notary};
use super::follow::{self, Follower};
use super::log::Log;
use super::options::Options;
use super::signer::Signer;
use super::sink::{self, Sinks};
use super::strangers::Strangers;
use super::tree::{self, Cursor, Tree};
use super::{Error, Record, fit, outbox};
use crate::clock::World;
use crate::custody::{self, tokens::Tokens};
use crate::store::records::Records;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How long the last checkpoint of a process may take.
const LAST: Duration = Duration::from_secs(3);
/// How often records of many strangers' requests are written.
const SUMMARY: Duration = Duration::from_secs(1);

/// What a log works with.
pub struct Parts<'a> {
    /// The settings.
    pub options: &'a Options,
    /// The region, part of the tree's name.
    pub region: &'a str,
    /// The tokens, the default one of which signs.
    pub tokens: &'a Tokens,
    /// The database, whose outbox holds the records of changes.
    pub records: Records,
    /// Clock and randomness.
    pub world: &'a World,
}

/// The log, its tree, its sinks, and the outbox.
#[derive(Clone)]
pub struct Recorder {
    log: Log,
    tree: Tree,
    notary: Option<Arc<Notary>>,
    sinks: Sinks,
    strangers: Arc<Mutex<Strangers>>,
    progress: outbox::Progress,
    world: World,
}

/// How the log is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// Records in the log.
    pub records: u64,
    /// Those of them that the last checkpoint vouches for.
    pub signed: u64,
    /// The sinks.
    pub sinks: Vec<sink::Health>,
}

impl Recorder {
    /// Opens the log and its tree, moves there what an earlier process left in the outbox, and keeps
    /// moving, sealing, signing and sending.
    ///
    /// # Errors
    /// [`Error::Altered`] if the log is not what was signed of it; else that of a part.
    pub async fn start(parts: Parts<'_>) -> Result<Self, Error> {
        let Parts { options, region, tokens, records, world } = parts;
        let log = Log::open(&options.path, options.sync)?;
        let random = &world.random;
        let signer = Signer::open(tokens, &records, random, (region, &options.dir)).await?;
        let key = signer.as_ref().map(Signer::key);
        let signed = key.map(|key| checkpoint::last(&options.dir, key)).transpose()?.flatten();
        let noted = signer.as_ref().and_then(Signer::noted);
        let heads: Vec<_> = signed.into_iter().chain(noted).collect();
        let tree = Tree::open(&options.dir, &log, &heads)?;
        let name = key.map_or(region, |key| key.name());
        let sinks = Sinks::start(&options.sink, (&log, &options.dir, name))?;
        let progress = outbox::start(records, log.clone()).await?;
        tokio::spawn(tree::keep_sealing(tree.clone(), log.clone()));
        let size = signed.map_or(0, |head| head.size);
        let clock = world.clock.clone();
        let notary = signer.map(|signer| Notary::new(tree.clone(), signer, clock, size));
        let notary = notary.map(Arc::new);
        notary
            .iter()
            .for_each(|notary| drop(tokio::spawn(checkpoint::keep_signing(notary.clone()))));
        let strangers = Arc::new(Mutex::new(Strangers::new(world.clock.now())));
        let recorder = Self { log, tree, notary, sinks, strangers, progress, world: world.clone() };
        tokio::spawn(keep_summing(recorder.clone()));
        Ok(recorder)
    }

    /// Appends a record that goes with no change.
    pub async fn append(&self, record: &Record<'_>) -> Result<(), Error> {
        self.append_line(&record.encode()).await
    }

    /// The same without waiting for the disk, for records of requests that were refused at the
    /// door: they had no effect. Above a rate they are counted instead.
    pub fn append_now(&self, record: &Record<'_>) -> Result<(), Error> {
        self.ready()?;
        if self.strangers.lock().admit(record) {
            self.log.append_lines(&fit::to(&record.encode(), fit::MAX_STRANGER))?;
        }
        Ok(())
    }

    /// The same as [`Self::append`] with a record that is encoded already.
    pub async fn append_line(&self, line: &[u8]) -> Result<(), Error> {
        self.ready()?;
        let number = self.log.append(&fit::fit(line)).await?;
        self.sinks.taken(number).await
    }

    /// Puts what was appended on disk and into the tree, and signs for it if the token can: for the
    /// end of a process.
    pub async fn flush(&self) -> Result<(), Error> {
        self.sum_up()?;
        self.log.flush().await?;
        let (tree, log) = (self.tree.clone(), self.log.clone());
        let sealed =
            tokio::task::spawn_blocking(move || tree.seal(&log).and_then(|()| tree.settle()));
        sealed.await.map_err(|_| Error::signing("a thread panicked"))??;
        if let Some(notary) = &self.notary {
            let signed = tokio::time::timeout(LAST, notary.sign_last()).await;
            if let Ok(Err(error)) = signed {
                tracing::warn!(%error, "the last records have no checkpoint yet");
            }
        }
        Ok(())
    }

    /// Signs a statement with the key that signs checkpoints: the note that
    /// [`statement::check`](super::statement::check) takes. Nothing if the token can't sign.
    ///
    /// # Errors
    /// The token's.
    pub async fn state(&self, statement: &str) -> Result<Option<String>, custody::Error> {
        match &self.notary {
            Some(notary) => notary.state(statement).await.map(Some),
            None => Ok(None),
        }
    }

    /// The name of the tree that the log is in, if the token can sign for one.
    pub fn tree(&self) -> Option<&str> {
        self.notary.as_ref().map(|notary| notary.name())
    }

    /// What reads the log for the receivers of events of these names, each from where it has stopped; one
    /// that is new begins with the next record, the places of all others are forgotten.
    ///
    /// # Errors
    /// If a place can't be read or written.
    pub fn followers(&self, names: &[&str]) -> Result<Vec<Follower>, Error> {
        let (dir, kind) = (self.tree.dir(), follow::Kind::Events);
        follow::forget_others(dir, kind, names)?;
        let journal = Cursor::read(dir)?.unwrap_or_default();
        let open = |name: &&str| Follower::open((kind, name), &self.log, dir, journal);
        names.iter().map(open).collect()
    }

    /// The log, to be read.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Fails if records of changes pile up in the outbox, or a mandatory sink fails.
    pub fn ready(&self) -> Result<(), Error> {
        self.progress.ready()?;
        self.log.ready()?;
        self.sinks.ready()
    }

    /// How the log is doing.
    pub fn status(&self) -> Status {
        Status {
            records: self.log.records(),
            signed: self.notary.as_ref().map_or(0, |notary| notary.signed()),
            sinks: self.sinks.health(),
        }
    }

    /// Writes what strangers' requests were counted.
    fn sum_up(&self) -> Result<(), Error> {
        let lines = self.strangers.lock().summaries(self.world.clock.now());
        if lines.is_empty() {
            return Ok(());
        }
        self.log.append_lines(&lines.concat())?;
        Ok(())
    }
}

async fn keep_summing(recorder: Recorder) {
    loop {
        tokio::time::sleep(SUMMARY).await;
        if let Err(error) = recorder.sum_up() {
            tracing::error!(%error, "refused requests that were counted could not be recorded");
        }
    }
}
