//! Changes of a KMS key's holders.
//!
//! A change makes or gives up one key in the token for each generation of the KMS key, seals their
//! authenticators to the new holders, and marks the KMS key: `secrets::reseal` then goes through the
//! data keys that are stored. Ciphertexts that callers keep stay sealed to the holders of their day.

use super::name_of;
use crate::envelope;
use crate::name::key_arn;
use crate::ops::call::{Call, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::keys::material::{self, adopt, discard, make_holder, random_id, unable};
use crate::store::keys::{Backing, Intent, IntentKind, Key, KeyHolder};
use crate::store::records::Rows;
use serde::Serialize;

/// Has a token hold a KMS key, all generations of it; `answer` makes what is answered of how many it
/// did not hold before.
///
/// # Errors
/// [`Condition::Unsupported`] if the key's scheme has one holder, or the token not this scheme;
/// [`Condition::LimitExceeded`] if an envelope for one more would be too long, or the token is full;
/// [`Condition::Conflict`] if somebody changed the key's material or holders meanwhile; those of token
/// and database. Then nothing is changed.
pub(super) async fn add<T: Serialize>(
    call: &Call,
    key: &Key,
    token: &str,
    answer: impl FnOnce(usize) -> T,
) -> Result<T> {
    if key.store.is_some() {
        let text = "a key in a custom key store is held by that one's token alone";
        return Err(Error::new(Condition::Unsupported, text));
    }
    let mut made = Vec::new();
    let added = adding(call, key, token, &mut made).await;
    let done = match added {
        Ok(changed) => {
            let (answer, new) = (answer(made.len()), made.clone());
            let adopted = move |rows: &mut Rows<'_>| adopt(rows, &new);
            commit(call, key, (made.len(), changed), &answer, adopted).await.map(|()| answer)
        }
        Err(error) => Err(error),
    };
    if done.is_err() {
        discard(call, &made).await;
    }
    done
}

/// The generations with the token among their holders; what was made for that is noted in `made`.
async fn adding(
    call: &Call,
    key: &Key,
    token: &str,
    made: &mut Vec<KeyHolder>,
) -> Result<Vec<Backing>> {
    let mut changed = Vec::with_capacity(key.backing.len());
    for backing in &key.backing {
        changed.push(with_holder(call, backing, token, made).await?);
    }
    Ok(changed)
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
        let lane = services.tokens.of(token)?;
        if !lane.described().schemes.contains(&backing.scheme) {
            return Err(unable(lane, backing.scheme));
        }
        let id = random_id(services)?;
        let holder = make_holder(services, token, (id, backing.scheme)).await?;
        made.push(holder.clone());
        changed.holders.push(holder);
        resealed(services, backing, &mut changed).await?;
    }
    Ok(changed)
}

/// Has a token hold a KMS key no more; `answer` makes what is answered of how many generations it held.
/// A token that is `lost` keeps its keys: nobody asks it to destroy them.
///
/// # Errors
/// [`Condition::InvalidState`] if it is the only holder; [`Condition::Conflict`] if stored data keys may
/// be sealed to it alone, because another holder was added and they were not yet sealed to that one;
/// else as [`add`].
pub(super) async fn remove<T: Serialize>(
    call: &Call,
    key: &Key,
    (token, lost): (&str, bool),
    answer: impl FnOnce(usize) -> T,
) -> Result<T> {
    let mut gone = Vec::new();
    let changed = removing(call, key, token, &mut gone).await?;
    if key.resealing && !lost && !gone.is_empty() {
        return Err(unfinished(&key.id));
    }
    let answer = answer(gone.len());
    let doomed = if lost { Vec::new() } else { gone.clone() };
    let (intents, noted) = (doomed.clone(), call.now);
    let intend = move |rows: &mut Rows<'_>| {
        for KeyHolder { key, token, .. } in &intents {
            let (backing_key, token) = (*key, token.clone());
            rows.put_intent(&Intent { backing_key, token, what: IntentKind::Destroy, noted })?;
        }
        Ok(())
    };
    commit(call, key, (gone.len(), changed), &answer, intend).await?;
    for holder in &doomed {
        if let Err(error) = material::destroy(call, holder.key, &holder.token).await {
            tracing::warn!(%error, "backing key {} is left to the next reconciliation", holder.key);
        }
    }
    Ok(answer)
}

fn unfinished(id: &str) -> Error {
    let text = format!(
        "stored data keys of `{id}` are not yet sealed to all its holders: let the server finish that \
         (`strongroom hsm holder list` says how far it is) before one is removed"
    );
    Error::new(Condition::Conflict, text)
}

/// The generations without the token among their holders; what it held is noted in `gone`.
async fn removing(
    call: &Call,
    key: &Key,
    token: &str,
    gone: &mut Vec<KeyHolder>,
) -> Result<Vec<Backing>> {
    let mut changed = Vec::with_capacity(key.backing.len());
    for backing in &key.backing {
        let mut left = backing.clone();
        left.holders.retain(|holder| holder.token != token);
        if left.holders.is_empty() {
            let name = name_of(call, token).unwrap_or(token);
            let text = format!("`{name}` is the only token that holds {}", backing.id);
            return Err(Error::new(Condition::InvalidState, text));
        }
        if left.holders.len() < backing.holders.len() {
            gone.extend(backing.holders.iter().filter(|holder| holder.token == token).cloned());
            resealed(call, backing, &mut left).await?;
        }
        changed.push(left);
    }
    Ok(changed)
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

/// Writes the key with other holders, if there are any, unless somebody has changed its material or
/// holders since it was read; then has stored data keys sealed to them.
async fn commit<T: Serialize>(
    call: &Call,
    known: &Key,
    (count, changed): (usize, Vec<Backing>),
    answer: &T,
    mut beside: impl FnMut(&mut Rows<'_>) -> Result<()> + Send + 'static,
) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    call.answering(answer)?;
    let arn = key_arn(&call.region, &known.account, &known.id);
    let known = known.clone();
    let committed = call.commit(move |rows| {
        let same = rows.key(&known.id)?.filter(|key| key.same_material(&known));
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
    committed.await?;
    call.resealing.wake();
    Ok(())
}
