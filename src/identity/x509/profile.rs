//! Profiles: which roles a session of CreateSession may have, and what bounds it.

use super::options::{OptionsError, is_uuid, role_account};
use crate::name::{Arn, is_account};
use crate::policy::document::{self, Kind};
use serde::Deserialize;

/// The shortest, the longest and the usual session, in seconds; AWS's own.
const SHORTEST: u32 = 900;
const LONGEST: u32 = 43_200;
const USUAL: u32 = 3600;
/// The most roles and managed policies of a profile; AWS's own.
const MOST_ROLES: usize = 250;
const MOST_POLICIES: usize = 50;

/// A profile as it is written: `[[identity.profile]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileOptions {
    /// A UUID in lower case; part of its ARN.
    pub id: String,
    /// Its account.
    pub account: String,
    /// A name for people.
    pub name: String,
    /// The roles that may be asked for with it: of its account.
    pub role_arns: Vec<String>,
    /// A policy (JSON) that bounds every session.
    pub session_policy: Option<String>,
    /// Managed policies that bound every session.
    #[serde(default)]
    pub managed_policy_arns: Vec<String>,
    /// How long a session lasts, in seconds (900 to 43,200; default 3,600).
    pub duration_seconds: Option<u32>,
    /// Whether a request may choose the session's name (default: no).
    #[serde(default)]
    pub accept_role_session_name: bool,
}

/// A profile that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its id.
    pub id: String,
    /// Its account.
    pub account: String,
    /// Its name.
    pub name: String,
    /// The roles that may be asked for with it.
    pub role_arns: Vec<String>,
    /// A policy that bounds every session.
    pub session_policy: Option<String>,
    /// Managed policies that bound every session.
    pub managed_policy_arns: Vec<String>,
    /// How long a session lasts, in seconds.
    pub duration_seconds: u32,
    /// Whether a request may choose the session's name.
    pub accept_role_session_name: bool,
}

impl ProfileOptions {
    /// Checks what is written.
    pub fn check(self) -> Result<Profile, OptionsError> {
        if !is_uuid(&self.id) {
            return Err(OptionsError::Id(self.id));
        }
        if !is_account(&self.account) {
            return Err(OptionsError::Account(self.account));
        }
        let foreign = |role: &&String| role_account(role) != Some(self.account.as_str());
        if let Some(role) = self.role_arns.iter().find(foreign) {
            return Err(OptionsError::Role { role: role.clone(), account: self.account });
        }
        let policies = &self.managed_policy_arns;
        let duration_seconds = self.duration_seconds.unwrap_or(USUAL);
        let fault = if !(1..=MOST_ROLES).contains(&self.role_arns.len()) {
            Some(format!("from 1 to {MOST_ROLES} roles are needed"))
        } else if policies.len() > MOST_POLICIES || !policies.iter().all(|arn| is_policy(arn)) {
            Some(format!("managed policies: ARNs of policies, {MOST_POLICIES} at most"))
        } else if !(SHORTEST..=LONGEST).contains(&duration_seconds) {
            Some(format!("`duration_seconds` must be from {SHORTEST} to {LONGEST}"))
        } else {
            let written = self.session_policy.as_deref();
            let fault = written.and_then(|text| document::parse(text, Kind::Session).err());
            fault.map(|why| format!("`session_policy`: {why}"))
        };
        if let Some(why) = fault {
            return Err(OptionsError::Profile { id: self.id, why });
        }
        Ok(Profile {
            id: self.id,
            account: self.account,
            name: self.name,
            role_arns: self.role_arns,
            session_policy: self.session_policy,
            managed_policy_arns: self.managed_policy_arns,
            duration_seconds,
            accept_role_session_name: self.accept_role_session_name,
        })
    }
}

impl Profile {
    /// `arn:aws:rolesanywhere:REGION:ACCOUNT:profile/ID`.
    pub fn arn(&self, region: &str) -> String {
        format!("arn:aws:rolesanywhere:{region}:{}:profile/{}", self.account, self.id)
    }
}

fn is_policy(text: &str) -> bool {
    Arn::parse(text).is_some_and(|arn| arn.service == "iam" && arn.resource.starts_with("policy/"))
}
