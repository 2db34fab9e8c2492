//! The Security Token Service: who somebody is, and credentials that end by themselves.

pub mod anywhere;
pub mod assume;
pub mod decode;
pub mod identity;
pub mod key_info;
pub mod role;
pub mod session;
pub mod terms;
pub mod token;
pub mod web;

use super::call::{Call, Target};
use super::scene::iso;
use super::shape::SecretText;
use crate::clock::Time;
use crate::envelope::session as sealed;
use crate::ops::error::{Condition, Error, Result};
use crate::policy::PrincipalKind;
use schemars::JsonSchema;
use serde::Serialize;

/// What everybody may ask, whatever the policies say: who they are.
pub struct Oneself {
    account: String,
}

impl Oneself {
    fn of(call: &Call) -> Self {
        Self { account: call.caller.account.clone() }
    }
}

impl Target for Oneself {
    fn arn(&self) -> &str {
        super::call::NO_RESOURCE
    }
    fn owner(&self) -> &str {
        &self.account
    }
    fn free(&self) -> bool {
        true
    }
}

/// Temporary credentials in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: SecretText,
    session_token: SecretText,
    expiration: String,
}

impl Credentials {
    /// Makes credentials for a session.
    fn make(call: &Call, session: &sealed::Session) -> Result<Self> {
        let made = call.sessions.make(&*call.world.random, session);
        let made = made.map_err(|error| match error {
            crate::envelope::Error::TooLong => too_long(),
            other => other.into(),
        })?;
        Ok(Self {
            access_key_id: made.access_key_id,
            secret_access_key: SecretText(made.secret_access_key),
            session_token: SecretText(made.token),
            expiration: iso(session.expires),
        })
    }
}

/// Refuses the sessions that users and roots get by GetSessionToken, which may call nothing of STS
/// but AssumeRole and GetCallerIdentity.
/// Source: <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>.
fn no_session_token(call: &Call) -> Result<()> {
    if call.caller.session.is_none() || call.caller.kind == PrincipalKind::AssumedRole {
        return Ok(());
    }
    Err(with_session(call))
}

fn with_session(call: &Call) -> Error {
    let text = format!("Cannot call {} with session credentials", call.row.name);
    Error::new(Condition::AccessDenied, text)
}

/// The end of a session that begins now.
fn end(now: Time, seconds: i64) -> Time {
    Time(now.0.saturating_add(seconds.saturating_mul(1000)))
}

fn too_long() -> Error {
    let text = "Serialized token too large for session";
    Error::new(Condition::PackedPolicyTooLarge, text)
}
