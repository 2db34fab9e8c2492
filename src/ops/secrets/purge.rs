//! What happens when a secret's recovery window ends: it goes, with all its versions.

use crate::clock::Time;
use crate::name::{Service, secret_arn};
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::event::Event;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::records::{Records, RowMac};
    use crate::store::sqlite::{Options, Sqlite};

    fn secret(uid: i64, due: Option<i64>) -> Secret {
        serde_json::from_value(serde_json::json!({
            "uid": uid, "account": "111122223333", "name": "db", "suffix": "AbCdEf", "created": 1,
            "changed": 1, "deleted": due.map(|_| 1), "due": due, "stages": [], "versions": 0,
            "prune_after": 0, "revision": 1,
        }))
        .expect("a secret")
    }

    /// What becomes of the stored secret if `found` is purged at 100.
    async fn left(stored: Secret, found: Secret) -> (bool, Option<i64>) {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Sqlite::open(Options::new(dir.path().join("data"))).expect("a database");
        let records = Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10);
        records.write(move |rows| rows.put_secret(&stored)).await.expect("written");
        let purged = records.write(move |rows| take_away(rows, &found, Time(100))).await;
        let kept = records.secret("111122223333", "db").expect("read");
        (purged.is_ok(), kept.map(|s| s.uid))
    }

    #[tokio::test]
    async fn a_secret_goes_when_its_window_ends_and_not_before() {
        assert_eq!(left(secret(7, Some(100)), secret(7, Some(100))).await, (true, None));
        assert_eq!(left(secret(7, Some(101)), secret(7, Some(100))).await, (false, Some(7)));
    }

    #[tokio::test]
    async fn a_restored_secret_and_a_new_one_of_the_same_name_stay() {
        assert_eq!(left(secret(7, None), secret(7, Some(100))).await, (false, Some(7)));
        assert_eq!(left(secret(8, Some(50)), secret(7, Some(50))).await, (false, Some(8)));
    }
}
