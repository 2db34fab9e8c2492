//! Logins with what is stored, from time to time, for the secrets whose tags ask for it.

use super::inside::Inside;
use super::login::{Entry, Opens};
use crate::json::Object;
use crate::name::{Service, secret_arn};
use crate::ops::call::Services;
use crate::ops::error::{Condition, Result};
use crate::ops::event::Event;
use crate::ops::secrets::probe::{Begun, News, begin, end, news};
use crate::store::probes::{Due, Found, Outcome};
use crate::store::records::Rows;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};

/// Logins at once.
const MOST: usize = 4;
/// Secrets looked up at once.
const BATCH: i64 = 100;
/// How often what is due is looked for.
const PAUSE: Duration = Duration::from_secs(5);

/// Probes what is due, for ever.
pub async fn keep_probing(services: Arc<Services>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let now = services.world.clock.now();
        match services.records.scan(move |rows| rows.probes_due(now, BATCH)).await {
            Ok(due) => probe_all(&services, due).await,
            Err(error) => tracing::error!(%error, "probes wait"),
        }
    }
}

async fn probe_all(services: &Arc<Services>, due: Vec<Due>) {
    let mut running = JoinSet::new();
    for due in due {
        if running.len() >= MOST {
            ended(running.join_next().await);
        }
        let services = services.clone();
        running.spawn(async move {
            match probe(&services, &due).await {
                // The secret has changed meanwhile, or is gone.
                Err(error) if error.condition == Condition::Conflict => {}
                Err(error) => tracing::error!(%error, secret = due.name, "a probe broke off"),
                Ok(()) => {}
            }
        });
    }
    while !running.is_empty() {
        ended(running.join_next().await);
    }
}

/// One that panics must not be the end of all others.
fn ended(probe: Option<std::result::Result<(), JoinError>>) {
    if let Some(Err(error)) = probe {
        tracing::error!(%error, "a probe broke off");
    }
}

async fn probe(services: &Arc<Services>, due: &Due) -> Result<()> {
    let now = services.world.clock.now();
    let (account, name, uid) = (due.account.clone(), due.name.clone(), due.secret);
    let claim = move |rows: &mut Rows<'_>| begin(rows, (&account, &name, uid), now);
    let Some(begun) = services.records.write(claim).await? else { return Ok(()) };
    let arn = secret_arn(&services.region, &due.account, &due.name, &begun.suffix);
    let found = look(services, &due.account, &arn).await?;
    services.rotations.probes.count(found.outcome);
    note(services, due, (begun, arn), found).await
}

/// Logs in with what is current.
async fn look(services: &Arc<Services>, account: &str, arn: &str) -> Result<Found> {
    let value = Inside { services, account, arn }.value("AWSCURRENT", None).await?;
    let opens = match &value {
        Some(value) => Opens::of(value).map_err(|fault| fault.to_string()),
        None => Err("the secret has no value".to_owned()),
    };
    let (outcome, why) = match opens {
        Err(why) => (Outcome::Unusable, Some(why)),
        Ok(opens) => match opens.enter().await {
            Entry::Open => (Outcome::LetIn, None),
            Entry::Refused(refusal) if refusal.is_of_credentials() => {
                (Outcome::Refused, Some(refusal.to_string()))
            }
            // What else is refused says nothing of what is stored.
            Entry::Refused(refusal) | Entry::Unknown(refusal) => {
                (Outcome::Unreachable, Some(refusal.to_string()))
            }
        },
    };
    Ok(Found { outcome, why, at: services.world.clock.now() })
}

/// Writes what was found; that something has turned out stands in the audit log.
async fn note(
    services: &Services,
    due: &Due,
    (begun, arn): (Begun, String),
    found: Found,
) -> Result<()> {
    let turned_out = news(&begun.probe, found.outcome);
    let mut particulars = Vec::new();
    let mut object = Object::begin(&mut particulars);
    if let Some(why) = &found.why {
        object.text("reason", why);
    }
    object.end();
    let (account, name) = (due.account.clone(), due.name.clone());
    let change = move |rows: &mut Rows<'_>| end(rows, &begun, (&account, &name), &found);
    let told = match turned_out {
        None => return services.records.write(change).await,
        Some(News::Drifted) => "SecretDrifted",
        Some(News::Recovered) => "SecretProbeRecovered",
    };
    tracing::warn!(secret = arn, "{told}");
    let event = Event {
        service: Service::SecretsManager,
        name: told,
        account: due.account.clone(),
        resources: vec![arn],
    };
    services.commit_event_with(&event, &particulars, change).await
}
