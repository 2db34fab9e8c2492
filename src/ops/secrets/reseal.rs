//! Seals stored data keys to the holders that their KMS keys have now, after holders were added or
//! removed. In the background, some at a time; what is done stays done, so that it goes on after a
//! restart where it was.

use super::seal::version_context;
use crate::envelope::Envelope;
use crate::name::secret_arn;
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::store::secrets::Secret;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Versions that are looked at in one go.
const BATCH: i64 = 256;

/// How far it is.
pub struct Progress {
    /// Whether it is not known that all is done.
    pending: AtomicBool,
    /// Versions that were looked at.
    pub looked_at: AtomicU64,
    /// Data keys that were sealed anew.
    pub resealed: AtomicU64,
}

impl Default for Progress {
    /// At a start nobody knows what an earlier process left.
    fn default() -> Self {
        let (looked_at, resealed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { pending: AtomicBool::new(true), looked_at, resealed }
    }
}

impl Progress {
    /// Whether there may be data keys for holders of before.
    pub fn pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
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
/// Those of database and tokens: what is left is done the next time.
pub async fn reseal(services: &Services) -> Result<usize> {
    let progress = &services.resealing;
    if !progress.pending() {
        return Ok(0);
    }
    let keys = services.records.scan(|rows| Ok::<_, Error>(rows.keys_resealing()?)).await?;
    let wanted: HashSet<_> = keys.iter().map(|(id, _)| id.clone()).collect();
    let mut resealed = 0;
    let mut after = 0;
    while !wanted.is_empty() {
        let batch = read(services, after).await?;
        let Some(last) = batch.last().map(|stored| stored.row) else { break };
        for stored in batch {
            progress.looked_at.fetch_add(1, Ordering::Relaxed);
            if reseal_one(services, &wanted, stored).await? {
                progress.resealed.fetch_add(1, Ordering::Relaxed);
                resealed += 1;
            }
        }
        after = last;
    }
    for (id, revision) in keys {
        finish(services, id, revision).await?;
    }
    progress.pending.store(false, Ordering::Release);
    Ok(resealed)
}

async fn read(services: &Services, after: i64) -> Result<Vec<Stored>> {
    let read = services.records.scan(move |rows| {
        let mut found = Vec::new();
        rows.data_keys(after, BATCH, |secret, version, data_key, row| {
            found.push(Stored { secret, version, data_key, row });
        })?;
        Ok::<_, Error>(found)
    });
    read.await
}

/// Whether this one had to be sealed anew. One that can't be read stays as it is: reads of it fail
/// already.
async fn reseal_one(services: &Services, wanted: &HashSet<String>, stored: Stored) -> Result<bool> {
    let Ok(envelope) = Envelope::parse(&stored.data_key) else { return Ok(false) };
    if !wanted.contains(&envelope.key_id) {
        return Ok(false);
    }
    let Some(key) = services.records.key(&envelope.key_id)? else { return Ok(false) };
    let Stored { secret, version, data_key, .. } = stored;
    let arn = secret_arn(&services.region, &secret.account, &secret.name, &secret.suffix);
    let context = version_context(&arn, &version);
    let fresh = match services.envelopes.reseal(&key, &context, &envelope).await {
        Ok(Some(fresh)) => fresh,
        Ok(None) => return Ok(false),
        Err(crate::envelope::Error::Invalid) => {
            tracing::error!("version {version} of `{arn}` can't be opened and stays as it is");
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let written = services.records.write(move |rows| {
        Ok::<_, Error>(rows.replace_data_key(secret.uid, &version, &data_key, &fresh)?)
    });
    written.await
}

/// Takes the mark off a key whose holders are still those that were sealed to.
async fn finish(services: &Services, id: String, revision: u64) -> Result<()> {
    let finished = services.records.write(move |rows| {
        let Some(mut key) = rows.key(&id)?.filter(|key| key.revision == revision) else {
            return Err(Error::new(Condition::Conflict, "a key was changed meanwhile"));
        };
        key.resealing = false;
        rows.put_key(&key)?;
        Ok(())
    });
    finished.await
}
