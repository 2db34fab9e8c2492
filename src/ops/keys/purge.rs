//! What happens when a key's deletion window ends: its row, its aliases and its material go.

use super::material::{self, event};
use crate::clock::Time;
use crate::name::key_arn;
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::store::keys::{Backing, Intent, IntentKind, Key, KeyState};
use crate::store::records::Rows;
use std::sync::Arc;

/// Keys deleted in one go; more wait for the next.
const BATCH: i64 = 100;

/// Deletes the KMS keys whose waiting period has ended; answers how many. In one transaction a
/// key's row and aliases go and intents to destroy its backing keys come; then the token destroys
/// them. What the token doesn't destroy now is left to [`material::reconcile`].
///
/// # Errors
/// Those of the database and the audit log. A key that can't be deleted now is logged, and tried
/// again the next time.
pub async fn purge_due(services: &Arc<Services>) -> Result<usize> {
    let now = services.world.clock.now();
    let due = services.records.scan(move |rows| Ok::<_, Error>(rows.keys_due(now, BATCH)?)).await?;
    let mut gone = 0;
    for key in due {
        let id = key.id.clone();
        match delete(services, key, now).await {
            Ok(true) => gone += 1,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "KMS key {id} is due and could not be deleted"),
        }
    }
    Ok(gone)
}

async fn delete(services: &Services, key: Key, now: Time) -> Result<bool> {
    let arn = key_arn(&services.region, &key.account, &key.id);
    let event = event("DeleteKey", &key.account, arn);
    let id = key.id;
    let backing = services.commit_event(&event, move |rows| take_away(rows, &id, now)).await;
    let backing = match backing {
        Err(error) if error.condition == Condition::Conflict => return Ok(false),
        other => other?,
    };
    for holder in backing.iter().flat_map(|backing| &backing.holders) {
        let id = holder.key;
        if let Err(error) = material::destroy(services, id, &holder.token).await {
            tracing::warn!(%error, "backing key {id} is left to the next reconciliation");
        }
    }
    Ok(true)
}

/// Replaces a key's row by intents to destroy its backing keys, unless somebody saved it meanwhile.
fn take_away(rows: &mut Rows<'_>, id: &str, now: Time) -> Result<Vec<Backing>> {
    let saved = || Error::new(Condition::Conflict, "the key is not due any more");
    let key = rows.key(id)?.filter(|key| is_due(key, now)).ok_or_else(saved)?;
    for (_, holder) in key.holders() {
        let (backing_key, token) = (holder.key, holder.token.clone());
        rows.put_intent(&Intent { backing_key, token, what: IntentKind::Destroy, noted: now })?;
    }
    rows.delete_key(&key)?;
    Ok(key.backing)
}

fn is_due(key: &Key, now: Time) -> bool {
    key.state == KeyState::PendingDeletion && key.due.is_some_and(|due| due <= now)
}
