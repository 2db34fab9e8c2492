//! Ending sessions before their time.
//!
//! AWS has no call for that: there one writes a policy that denies whatever was issued before now
//! (`aws:TokenIssueTime`), which works here too and ends all of a role's sessions. This ends one.

use crate::clock::Time;
use crate::envelope::session::account_of;
use crate::name::Service;
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::event::Event;
use crate::store::revoked::RevokedSession;

/// No session is longer, in milliseconds: GetSessionToken's 36 hours.
const LONGEST: i64 = 129_600_000;

impl Services {
    /// Ends the session of a temporary access key, from the next request on. The audit log says so.
    ///
    /// # Errors
    /// [`Condition::Validation`] for what is no temporary access key id; those of the database.
    pub async fn end_session(&self, access_key_id: &str) -> Result<()> {
        let account = account_of(access_key_id).ok_or_else(|| {
            let text = format!("`{access_key_id}` is no id of a temporary access key");
            Error::new(Condition::Validation, text)
        })?;
        let event = Event {
            service: Service::Sts,
            name: "RevokeSession",
            account: account.clone(),
            resources: vec![access_key_id.to_owned()],
        };
        let now = self.world.clock.now();
        let session = RevokedSession {
            id: access_key_id.to_owned(),
            account,
            revoked: now,
            expires: Time(now.0.saturating_add(LONGEST)),
        };
        self.commit_event(&event, move |rows| Ok(rows.put_revoked_session(&session)?)).await
    }
}

/// Forgets ended sessions that would have ended by themselves by now; answers how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_ended(services: &Services) -> Result<usize> {
    let now = services.world.clock.now();
    services.records.write(move |rows| Ok(rows.forget_revoked_sessions(now)?)).await
}
