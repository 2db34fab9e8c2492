//! Seals stored data keys to the holders that their KMS keys have now, after holders were added or
//! removed. In the background, some at a time; what is done stays done, so that it goes on after a
//! restart where it was.
//!
//! Which KMS keys it is about their rows say (`resealing`), in the transaction that changes holders. Who
//! writes a version sees to it in the same way that its data key is for the holders of that moment
//! (`seal::for_its_holders`): none is written behind a pass's back.
//!
//! What only tokens can open that are away is passed over. A pass asks each of them once. While nothing
//! has changed, the next one looks at one data key of each kind that waits, and at no others.

use super::seal::version_context;
use crate::envelope::holders::Away;
use crate::envelope::{Envelope, Resealed};
use crate::name::{BackingKeyId, secret_arn};
use crate::ops::call::Services;
use crate::ops::error::{Error, Result};
use crate::store::keys::Key;
use crate::store::secrets::Secret;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Versions that are looked at in one go.
const BATCH: i64 = 256;

/// What tells those apart that wait: the backing key, and the serial numbers of the tokens one of which
/// has to open them.
type Kind = (BackingKeyId, Vec<String>);

/// KMS keys as a pass found them, by their ids.
type Keys = HashMap<String, Arc<Key>>;

/// Data keys of one kind that wait.
struct Waiting {
    /// The place of the first one.
    first: i64,
    /// How many they were when all were last gone through.
    keys: u64,
}

/// How far it is.
#[derive(Default)]
pub struct Progress {
    /// Versions that were looked at.
    pub looked_at: AtomicU64,
    /// Data keys that were sealed anew.
    pub resealed: AtomicU64,
    latest: Mutex<Latest>,
    changed: Notify,
}

/// The pass through all that goes on, or the last one.
#[derive(Default)]
struct Latest {
    /// The KMS keys that it is for; those that it has left, when it is through.
    keys: Keys,
    /// How far it is; 100 when it is through.
    percent: u8,
    waiting: BTreeMap<Kind, Waiting>,
}

impl Progress {
    /// Says that the holders of a KMS key have changed.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits for that, but no longer than `most`.
    pub async fn pause(&self, most: Duration) {
        let _woken_or_not = timeout(most, self.changed.notified()).await;
    }

    /// How far a KMS key is, from 0 to 100; at 100 something waits for a token.
    pub fn percent(&self, key: &Key) -> u8 {
        let latest = self.latest.lock();
        let for_it = latest.keys.get(&key.id).is_some_and(|known| key.held_as(known));
        if for_it { latest.percent } else { 0 }
    }
}

/// Whether there may be data keys for holders of before: as the database says, so from the moment in
/// which holders have changed.
///
/// # Errors
/// Those of the database.
pub fn pending(services: &Services) -> Result<bool> {
    Ok(services.records.read(|rows| rows.any_key_resealing())?)
}

/// How many data keys wait for each token, by its name, or by its serial number if the configuration has
/// it no more. One that several could open is counted for each of them.
pub fn waiting(services: &Services) -> BTreeMap<String, u64> {
    let members = services.tokens.all();
    let mut waiting: BTreeMap<_, _> = members.iter().map(|one| (one.name.clone(), 0)).collect();
    add_waiting(services, &mut waiting, |_| true);
    waiting
}

/// The same of one KMS key, with the tokens alone for which something waits.
pub fn waiting_of(services: &Services, key: &Key) -> BTreeMap<String, u64> {
    let mut waiting = BTreeMap::new();
    add_waiting(services, &mut waiting, |id| key.backing.iter().any(|backing| backing.id == id));
    waiting
}

fn add_waiting(
    services: &Services,
    waiting: &mut BTreeMap<String, u64>,
    counts: impl Fn(BackingKeyId) -> bool,
) {
    let members = services.tokens.all();
    let latest = services.resealing.latest.lock();
    for ((_, serials), kind) in latest.waiting.iter().filter(|((backing, _), _)| counts(*backing)) {
        for serial in serials {
            let member = members.iter().find(|member| member.serial() == serial);
            let name = member.map_or(serial, |member| &member.name);
            let sum: &mut u64 = waiting.entry(name.clone()).or_default();
            *sum = sum.saturating_add(kind.keys);
        }
    }
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
    /// The KMS keys whose holders have changed.
    keys: Keys,
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
            keys: keys.into_iter().map(|key| (key.id.clone(), Arc::new(key))).collect(),
            away: Away::default(),
            resealed: 0,
            waiting: BTreeMap::new(),
            left: HashSet::new(),
        })
    }

    /// Whether there is something that the last pass did not go through, or one of those that waited
    /// does so no longer: there may be others then.
    async fn worthwhile(&mut self) -> Result<bool> {
        if self.keys.is_empty() {
            *self.services.resealing.latest.lock() = Latest::default();
            return Ok(false);
        }
        let Some(firsts) = self.left_by_the_last() else { return Ok(true) };
        let mut moves = false;
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

    /// The places of the first data keys that wait, if the last pass went through the same KMS keys and
    /// all its work was done but for those.
    fn left_by_the_last(&self) -> Option<Vec<i64>> {
        let latest = self.services.resealing.latest.lock();
        let known = |key: &Arc<Key>| latest.keys.get(&key.id).is_some_and(|it| key.held_as(it));
        let same = latest.percent == DONE && self.keys.values().all(known);
        let firsts: Vec<_> = latest.waiting.values().map(|kind| kind.first).collect();
        (same && !firsts.is_empty()).then_some(firsts)
    }

    async fn go_through(&mut self) -> Result<()> {
        let progress = &self.services.resealing;
        {
            let mut latest = progress.latest.lock();
            (latest.keys, latest.percent) = (self.keys.clone(), 0);
        }
        let last = self.services.records.read(|rows| rows.last_version())?.unwrap_or(0);
        let mut after = 0;
        loop {
            let batch = self.read(after, BATCH).await?;
            let Some(end) = batch.last().map(|stored| stored.row) else { return Ok(()) };
            for stored in batch {
                let row = stored.row;
                self.look(stored).await?;
                progress.latest.lock().percent = percent(row, last);
            }
            after = end;
        }
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
        let mut left = Keys::new();
        for (id, key) in std::mem::take(&mut self.keys) {
            if self.left.contains(&id) || !finish(self.services, key.clone()).await? {
                left.insert(id, key);
            }
        }
        let latest =
            Latest { keys: left, percent: DONE, waiting: std::mem::take(&mut self.waiting) };
        *self.services.resealing.latest.lock() = latest;
        for (token, keys) in waiting(self.services).into_iter().filter(|(_, keys)| *keys > 0) {
            tracing::warn!(token, keys, "data keys for holders of before wait for a token");
        }
        Ok(())
    }
}

/// The percentage of a pass that is through.
const DONE: u8 = 100;

/// How far it is at the place `at` of `last`; never [`DONE`], for new ones come behind.
fn percent(at: i64, last: i64) -> u8 {
    let share = at.saturating_mul(100).checked_div(last).unwrap_or(0);
    u8::try_from(share.clamp(0, 99)).unwrap_or(0)
}

/// Takes the mark off a key, if its holders are still those that were sealed to.
async fn finish(services: &Services, sealed_for: Arc<Key>) -> Result<bool> {
    let finished = services.records.write(move |rows| {
        let now = rows.key(&sealed_for.id)?;
        let Some(mut key) = now.filter(|key| key.held_as(&sealed_for)) else {
            return Ok::<_, Error>(false);
        };
        key.resealing = false;
        rows.put_key(&key)?;
        Ok(true)
    });
    finished.await
}
