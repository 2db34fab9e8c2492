//! Which tokens hold a KMS key of a scheme with public keys: any one of them opens what was sealed to
//! all. docs/hardware.md ("Several holders") has what that is good for and what it can't do.
//!
//! A change makes or gives up one key in the token for each generation of the KMS key, seals their
//! authenticators to the new holders, and marks the KMS key: `secrets::reseal` then goes through the
//! data keys that are stored. Ciphertexts that callers keep stay sealed to the holders of their day.

use super::material::{adopt, discard, event, make_holder, random_id};
use crate::envelope;
use crate::name::key_arn;
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::store::keys::{Backing, Intent, IntentKind, Key, KeyHolder};
use crate::store::records::Rows;

/// Has a token hold a KMS key, all generations of it; answers how many it did not hold before.
///
/// # Errors
/// [`Condition::Unsupported`] if the key's scheme has one holder, or the token not this scheme;
/// [`Condition::LimitExceeded`] if an envelope for one more would be too long, or the token is full;
/// [`Condition::Conflict`] if somebody changed the key meanwhile; those of token and database. Then
/// nothing is changed.
pub async fn add(services: &Services, id: &str, token: &str) -> Result<usize> {
    let key = known(services, id)?;
    if key.store.is_some() {
        let text = "a key in a custom key store is held by that one's token alone";
        return Err(Error::new(Condition::Unsupported, text));
    }
    let mut made = Vec::new();
    let added = async {
        let mut changed = Vec::with_capacity(key.backing.len());
        for backing in &key.backing {
            changed.push(with_holder(services, backing, token, &mut made).await?);
        }
        let (count, new) = (made.len(), made.clone());
        if count > 0 {
            commit(services, "AddKeyHolder", &key, changed, move |rows| adopt(rows, &new)).await?;
        }
        Ok(count)
    };
    let added = added.await;
    if added.is_err() {
        discard(services, &made).await;
    }
    added
}

/// The generation with one holder more, which is noted in `made`; the same if the token holds it.
async fn with_holder(
    services: &Services,
    backing: &Backing,
    token: &str,
    made: &mut Vec<KeyHolder>,
) -> Result<Backing> {
    if !backing.scheme.has_holders() {
        let text = format!("a key of scheme {} is held by one token", backing.scheme);
        return Err(Error::new(Condition::Unsupported, text));
    }
    let mut changed = backing.clone();
    if backing.holders.iter().all(|holder| holder.token != token) {
        let id = random_id(services)?;
        let holder = make_holder(services, token, (id, backing.scheme)).await?;
        made.push(holder.clone());
        changed.holders.push(holder);
        resealed(services, backing, &mut changed).await?;
    }
    Ok(changed)
}

/// Has a token hold a KMS key no more; answers how many generations it held. A token that is `lost`
/// keeps its keys: nobody asks it to destroy them.
///
/// # Errors
/// [`Condition::InvalidState`] if it is the only holder; [`Condition::Conflict`] if stored data keys may
/// be sealed to it alone, because another holder was added and the server has not sealed them to that
/// one yet; else as [`add`].
pub async fn remove(services: &Services, id: &str, token: &str, lost: bool) -> Result<usize> {
    let key = known(services, id)?;
    let mut changed = Vec::with_capacity(key.backing.len());
    let mut gone = Vec::new();
    for backing in &key.backing {
        let mut left = backing.clone();
        left.holders.retain(|holder| holder.token != token);
        if left.holders.is_empty() {
            let text = format!("`{token}` is the only token that holds {}", backing.id);
            return Err(Error::new(Condition::InvalidState, text));
        }
        if left.holders.len() < backing.holders.len() {
            gone.extend(backing.holders.iter().filter(|holder| holder.token == token).cloned());
            resealed(services, backing, &mut left).await?;
        }
        changed.push(left);
    }
    if key.resealing && !lost && !gone.is_empty() {
        let text = format!(
            "stored data keys of `{id}` are not yet sealed to all its holders: let the server finish \
             that (strongroom_reseal_pending in /metrics is 0) before one is removed"
        );
        return Err(Error::new(Condition::Conflict, text));
    }
    let doomed = if lost { Vec::new() } else { gone.clone() };
    let noted = services.world.clock.now();
    if !gone.is_empty() {
        let intents = doomed.clone();
        commit(services, "RemoveKeyHolder", &key, changed, move |rows| {
            for KeyHolder { key, token, .. } in &intents {
                let (backing_key, token) = (*key, token.clone());
                rows.put_intent(&Intent { backing_key, token, what: IntentKind::Destroy, noted })?;
            }
            Ok(())
        })
        .await?;
    }
    for holder in &doomed {
        if let Err(error) = super::material::destroy(services, holder.key, &holder.token).await {
            tracing::warn!(%error, "backing key {} is left to the next reconciliation", holder.key);
        }
    }
    Ok(gone.len())
}

/// Gives up what was left to be done in a token that is gone for good; answers how many keys it was
/// about.
///
/// # Errors
/// Those of the database.
pub async fn forget(services: &Services, token: &str) -> Result<usize> {
    let token = token.to_owned();
    let forgotten = services.records.write(move |rows| {
        let theirs = rows.intents()?.into_iter().filter(|intent| intent.token == token);
        let keys: Vec<_> = theirs.map(|intent| intent.backing_key).collect();
        keys.iter().try_for_each(|key| rows.delete_intent(*key))?;
        Ok::<_, Error>(keys.len())
    });
    forgotten.await
}

fn known(services: &Services, id: &str) -> Result<Key> {
    let key = services.records.key(id)?;
    let key = key.ok_or_else(|| Error::new(Condition::NotFound, format!("there is no key `{id}`")));
    Ok((*key?).clone())
}

/// Seals a generation's authenticator to its new holders.
async fn resealed(services: &Services, before: &Backing, changed: &mut Backing) -> Result<()> {
    let sealed = services.envelopes.reseal_authenticator(before, changed).await;
    changed.authenticator = Some(sealed.map_err(|error| match error {
        envelope::Error::TooLong => {
            Error::new(Condition::LimitExceeded, "an envelope has no room for another holder")
        }
        other => other.into(),
    })?);
    Ok(())
}

/// Writes the key with other holders, unless somebody else has changed it since it was read.
async fn commit(
    services: &Services,
    name: &'static str,
    known: &Key,
    changed: Vec<Backing>,
    mut beside: impl FnMut(&mut Rows<'_>) -> Result<()> + Send + 'static,
) -> Result<()> {
    let arn = key_arn(&services.region, &known.account, &known.id);
    let event = event(name, &known.account, arn.clone());
    let (id, revision) = (known.id.clone(), known.revision);
    let committed = services.commit_event(&event, move |rows| {
        let same = rows.key(&id)?.filter(|key| key.revision == revision);
        let mut key = same.ok_or_else(|| {
            Error::new(Condition::Conflict, format!("{arn} was changed meanwhile; try again"))
        })?;
        beside(rows)?;
        key.backing.clone_from(&changed);
        key.resealing = true;
        key.revision += 1;
        rows.put_key(&key)?;
        Ok(())
    });
    committed.await
}
