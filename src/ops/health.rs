//! How the appliance is.

use super::call::Services;
use super::error::Result;
use crate::custody::tokens::Member;

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
    services.envelopes.probe().await?;
    Ok(())
}
