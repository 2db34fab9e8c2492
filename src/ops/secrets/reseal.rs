//! Seals stored data keys to the holders that their KMS keys have now, after holders were added or
//! removed. In the background, some at a time; what is done stays done, so that it goes on after a
//! restart where it was.
//!
//! What only tokens can open that are away is passed over. A pass asks each of them once. While nothing
//! has changed, the next one looks at one data key of each kind that waits, and at no others.

use super::seal::version_context;
use crate::envelope::holders::Away;
use crate::envelope::{Envelope, Resealed};
use crate::name::{BackingKeyId, secret_arn};
use crate::ops::call::Services;
use crate::ops::error::{Error, Result};
use crate::store::secrets::Secret;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Versions that are looked at in one go.
const BATCH: i64 = 256;

/// What tells those apart that wait: the backing key, and the serial numbers of the tokens one of which
/// has to open them.
type Kind = (BackingKeyId, Vec<String>);

/// Data keys of one kind that wait.
struct Waiting {
    /// The place of the first one.
    first: i64,
    /// How many they were when all were last gone through.
    keys: u64,
}

/// How far it is.
pub struct Progress {
    /// Whether it is not known that all is done.
    pending: AtomicBool,
    /// Versions that were looked at.
    pub looked_at: AtomicU64,
    /// Data keys that were sealed anew.
    pub resealed: AtomicU64,
    waiting: Mutex<BTreeMap<Kind, Waiting>>,
}

impl Default for Progress {
    /// At a start nobody knows what an earlier process left.
    fn default() -> Self {
        let (looked_at, resealed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { pending: AtomicBool::new(true), looked_at, resealed, waiting: Mutex::default() }
    }
}

impl Progress {
    /// Whether there may be data keys for holders of before.
    pub fn pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }
}

/// How many data keys wait for each token, by its name, or by its serial number if the configuration has
/// it no more. One that several could open is counted for each of them.
pub fn waiting(services: &Services) -> BTreeMap<String, u64> {
    let members = services.tokens.all();
    let mut waiting: BTreeMap<_, _> = members.iter().map(|one| (one.name.clone(), 0)).collect();
    for ((_, serials), kind) in &*services.resealing.waiting.lock() {
        for serial in serials {
            let member = members.iter().find(|member| member.serial() == serial);
            let name = member.map_or(serial, |member| &member.name);
            let sum: &mut u64 = waiting.entry(name.clone()).or_default();
            *sum = sum.saturating_add(kind.keys);
        }
    }
    waiting
}

/// A version's data key as it is stored.
struct Stored {
    secret: Secret,
    version: String,
    data_key: Vec<u8>,
    row: i64,
}

/// Goes through what is stored under KMS keys whose holders have changed; answers how many data keys
/// it has sealed anew.
///
/// # Errors
/// Those of the database: what is left is done the next time.
pub async fn reseal(services: &Services) -> Result<usize> {
    if !services.resealing.pending() {
        return Ok(0);
    }
    let mut pass = Pass::begin(services).await?;
    if pass.worthwhile().await? {
        pass.go_through().await?;
        pass.end().await?;
    }
    Ok(pass.resealed)
}

/// One time through what is stored.
struct Pass<'a> {
    services: &'a Services,
    /// The KMS keys whose holders have changed, and their revisions.
    keys: HashMap<String, u64>,
    away: Away,
    resealed: usize,
    waiting: BTreeMap<Kind, Waiting>,
    /// KMS keys of which something waits.
    left: HashSet<String>,
}

impl<'a> Pass<'a> {
    async fn begin(services: &'a Services) -> Result<Self> {
        let keys = services.records.scan(|rows| Ok::<_, Error>(rows.keys_resealing()?)).await?;
        Ok(Self {
            services,
            keys: keys.into_iter().collect(),
            away: Away::default(),
            resealed: 0,
            waiting: BTreeMap::new(),
            left: HashSet::new(),
        })
    }

    /// Whether one of those that waited does so no longer: there may be others then.
    async fn worthwhile(&mut self) -> Result<bool> {
        let firsts: Vec<_> =
            self.services.resealing.waiting.lock().values().map(|kind| kind.first).collect();
        let mut moves = firsts.is_empty();
        for first in firsts {
            let waiting = self.waiting.len();
            match self.read(first.saturating_sub(1), 1).await?.pop() {
                Some(stored) if stored.row == first => self.look(stored).await?,
                _ => {}
            }
            moves |= self.waiting.len() == waiting;
        }
        self.waiting.clear();
        self.left.clear();
        Ok(moves)
    }

    async fn go_through(&mut self) -> Result<()> {
        let mut after = 0;
        while !self.keys.is_empty() {
            let batch = self.read(after, BATCH).await?;
            let Some(last) = batch.last().map(|stored| stored.row) else { break };
            for stored in batch {
                self.look(stored).await?;
            }
            after = last;
        }
        Ok(())
    }

    async fn read(&self, after: i64, limit: i64) -> Result<Vec<Stored>> {
        let read = self.services.records.scan(move |rows| {
            let mut found = Vec::new();
            rows.data_keys(after, limit, |secret, version, data_key, row| {
                found.push(Stored { secret, version, data_key, row });
            })?;
            Ok::<_, Error>(found)
        });
        read.await
    }

    /// Seals one anew if it has to be. One that can't be read stays as it is: reads of it fail already.
    async fn look(&mut self, stored: Stored) -> Result<()> {
        self.services.resealing.looked_at.fetch_add(1, Ordering::Relaxed);
        let Ok(envelope) = Envelope::parse(&stored.data_key) else { return Ok(()) };
        if !self.keys.contains_key(&envelope.key_id) {
            return Ok(());
        }
        let Some(key) = self.services.records.key(&envelope.key_id)? else { return Ok(()) };
        let Stored { secret, version, data_key, row } = stored;
        let region = &self.services.region;
        let arn = secret_arn(region, &secret.account, &secret.name, &secret.suffix);
        let context = version_context(&arn, &version);
        let envelopes = &self.services.envelopes;
        let fresh = match envelopes.reseal(&key, &context, &envelope, &mut self.away).await {
            Ok(Resealed::Fresh(fresh)) => fresh,
            Ok(Resealed::Already) => return Ok(()),
            Ok(Resealed::Waits(serials)) => {
                self.note((envelope.backing, serials), key.id.clone(), row);
                return Ok(());
            }
            Err(crate::envelope::Error::Invalid) => {
                tracing::error!("version {version} of `{arn}` can't be opened and stays as it is");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let written = self.services.records.write(move |rows| {
            Ok::<_, Error>(rows.replace_data_key(secret.uid, &version, &data_key, &fresh)?)
        });
        if written.await? {
            self.services.resealing.resealed.fetch_add(1, Ordering::Relaxed);
            self.resealed = self.resealed.saturating_add(1);
        }
        Ok(())
    }

    fn note(&mut self, kind: Kind, key: String, row: i64) {
        let waiting = self.waiting.entry(kind).or_insert(Waiting { first: row, keys: 0 });
        waiting.keys = waiting.keys.saturating_add(1);
        self.left.insert(key);
    }

    /// Takes the marks off the KMS keys that are done, and takes down what waits.
    async fn end(&mut self) -> Result<()> {
        let mut all = self.left.is_empty();
        for (id, revision) in std::mem::take(&mut self.keys) {
            if !self.left.contains(&id) {
                all &= finish(self.services, id, revision).await?;
            }
        }
        let progress = &self.services.resealing;
        *progress.waiting.lock() = std::mem::take(&mut self.waiting);
        for (token, keys) in waiting(self.services).into_iter().filter(|(_, keys)| *keys > 0) {
            tracing::warn!(token, keys, "data keys for holders of before wait for a token");
        }
        if all {
            progress.pending.store(false, Ordering::Release);
        }
        Ok(())
    }
}

/// Takes the mark off a key, if its holders are still those that were sealed to.
async fn finish(services: &Services, id: String, revision: u64) -> Result<bool> {
    let finished = services.records.write(move |rows| {
        let Some(mut key) = rows.key(&id)?.filter(|key| key.revision == revision) else {
            return Ok::<_, Error>(false);
        };
        key.resealing = false;
        rows.put_key(&key)?;
        Ok(true)
    });
    finished.await
}
