//! Ending sessions before their time.
//!
//! AWS has no call for that: there one writes a policy that denies whatever was issued before now
//! (`aws:TokenIssueTime`), which works here too and ends all of a role's sessions. This ends one.

use crate::clock::Time;
use crate::envelope::session::account_of;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::revoked::RevokedSession;
use schemars::JsonSchema;
use serde::Deserialize;

/// No session is longer, in milliseconds: GetSessionToken's 36 hours.
const LONGEST: i64 = 129_600_000;

/// RevokeSession, which is Strongroom's own: ends the session of a temporary access key of the
/// caller's account, from the next request on.
pub struct RevokeSession;

/// What [`RevokeSession`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RevokeSessionInput {
    access_key_id: Option<String>,
}

impl Input for RevokeSessionInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("accessKeyId", &self.access_key_id);
        checks.length("accessKeyId", self.access_key_id.as_deref(), 16, 128);
    }
}

impl Operation for RevokeSession {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "RevokeSession";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/sts/sessions/{AccessKeyId}" };
    type Input = RevokeSessionInput;
    type Target = OwnAccount;
    type Output = Empty;

    async fn locate(call: &Call, _: &RevokeSessionInput) -> Result<OwnAccount> {
        super::no_session_token(call)?;
        Ok(OwnAccount::of(call))
    }

    async fn run(call: &Call, _: Allowed<OwnAccount>, input: RevokeSessionInput) -> Result<Empty> {
        let id = given(&input.access_key_id, "accessKeyId")?;
        let account = account_of(id).filter(|account| *account == call.caller.account);
        let account = account.ok_or_else(|| {
            let text = format!("{id} is no temporary access key of this account");
            Error::new(Condition::Validation, text)
        })?;
        let session = RevokedSession {
            id: id.clone(),
            account,
            revoked: call.now,
            expires: Time(call.now.0.saturating_add(LONGEST)),
        };
        call.commit(move |rows| Ok(rows.put_revoked_session(&session)?)).await?;
        Ok(Empty {})
    }
}

/// Forgets ended sessions that would have ended by themselves by now; answers how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_ended(services: &Services) -> Result<usize> {
    let now = services.world.clock.now();
    if !services.records.read(|rows| rows.has_revoked_sessions(now))? {
        return Ok(0);
    }
    services.records.write(move |rows| Ok(rows.forget_revoked_sessions(now)?)).await
}
