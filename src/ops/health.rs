//! How the appliance is.

use super::call::Services;
use super::error::Result;
use super::keys::holders::store_key;
use crate::custody::tokens::Member;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

/// How one token is, without asking it.
pub struct TokenHealth {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it answered when it was last spoken to.
    pub up: bool,
    /// Why not.
    pub why: Option<String>,
    /// Logins since the start.
    pub logins: u64,
    /// Requests that wait for it.
    pub waiting: usize,
    /// Threads that have a session.
    pub seated: usize,
}

/// All tokens, the default one first. Cheap.
pub fn tokens(services: &Services) -> Vec<TokenHealth> {
    services.tokens.all().iter().map(health).collect()
}

fn health(member: &Member) -> TokenHealth {
    let name = member.name.clone();
    match member.lane() {
        Ok(lane) => {
            let health = lane.health();
            let (logins, waiting, seated) = (health.epoch, health.waiting, health.seated);
            TokenHealth { name, up: health.up, why: health.why, logins, waiting, seated }
        }
        Err(error) => {
            let why = Some(error.to_string());
            TokenHealth { name, up: false, why, logins: 0, waiting: 0, seated: 0 }
        }
    }
}

/// Whether a request could be served now: the store key opened by a token, a read of the database, a
/// log that takes records.
///
/// # Errors
/// Those of what can't be used.
pub async fn ready(services: &Services) -> Result<()> {
    services.recorder.ready()?;
    services.records.read(|rows| rows.intents())?;
    services.envelopes.probe(&store_key::stored(services)?).await?;
    Ok(())
}

/// How a receiver of events gets on. Its own task writes it.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Its name in the configuration.
    pub name: String,
    /// Whether the last attempt failed.
    pub failing: AtomicBool,
    /// Events that it has taken.
    pub taken: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// When it last took one, in seconds since 1970; 0 if it took none.
    pub last: AtomicI64,
    /// Records of the audit log that were read for it.
    pub read: AtomicU64,
    /// When the event happened that it is to take next, in milliseconds since 1970; 0 if none waits.
    pub waiting: AtomicI64,
}
