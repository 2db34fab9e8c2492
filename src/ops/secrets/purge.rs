//! What happens when a secret's recovery window ends: it goes, with all its versions.

use crate::clock::Time;
use crate::name::{Service, secret_arn};
use crate::ops::call::{Event, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::store::records::Rows;
use crate::store::secrets::Secret;
use std::sync::Arc;

/// Secrets looked up at once.
const BATCH: i64 = 100;

/// Deletes the secrets whose recovery window has ended; answers how many. Each goes in a
/// transaction of its own together with its audit record, which bears the name that CloudTrail
/// gives to this event.
///
/// # Errors
/// Those of the database. A secret that can't be deleted now is logged, and tried again the next
/// time.
pub async fn purge_due(services: &Arc<Services>) -> Result<usize> {
    let now = services.world.clock.now();
    let mut gone = 0;
    loop {
        let due = services.records.scan(move |rows| rows.secrets_due(now, BATCH)).await;
        let due = due.map_err(Error::from)?;
        let more = i64::try_from(due.len()).unwrap_or(0) == BATCH;
        let purged = purge(services, due, now).await;
        gone += purged;
        // Where nothing of a whole batch could be deleted, the next one would be the same.
        if !more || purged == 0 {
            return Ok(gone);
        }
    }
}

async fn purge(services: &Services, due: Vec<Secret>, now: Time) -> usize {
    let mut gone = 0;
    for secret in due {
        let arn = secret_arn(&services.region, &secret.account, &secret.name, &secret.suffix);
        match delete(services, secret, arn.clone(), now).await {
            Ok(()) => gone += 1,
            Err(error) if error.condition == Condition::Conflict => {}
            Err(error) => tracing::error!(%error, "{arn} is due and could not be deleted"),
        }
    }
    gone
}

async fn delete(services: &Services, secret: Secret, arn: String, now: Time) -> Result<()> {
    let event = Event {
        service: Service::SecretsManager,
        name: "EndSecretVersionDelete",
        account: secret.account.clone(),
        resources: vec![arn],
    };
    services.commit_event(&event, move |rows| take_away(rows, &secret, now)).await
}

/// Deletes a secret, unless somebody restored or deleted it meanwhile.
fn take_away(rows: &mut Rows<'_>, found: &Secret, now: Time) -> Result<()> {
    let secret = rows.secret(&found.account, &found.name)?;
    let due = secret.filter(|s| s.uid == found.uid && s.due.is_some_and(|due| due <= now));
    let saved = || Error::new(Condition::Conflict, "the secret is not due any more");
    Ok(rows.delete_secret(&due.ok_or_else(saved)?)?)
}
