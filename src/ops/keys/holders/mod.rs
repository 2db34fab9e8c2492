//! Which tokens hold a KMS key of a scheme with public keys: any one of them opens what was sealed to
//! all. Strongroom's own operations. docs/holders.md has what that is good for and what it can't do.

pub mod add;
mod change;
pub mod list;
pub mod remove;
pub mod store_key;

use super::{KeyTarget, locate};
use crate::ops::call::{Call, OwnPolicy, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::policy::Values;
use crate::store::keys::KeyManager;

/// A KMS key of the caller's own account, for its holders to be looked at or changed.
pub struct HeldKey(KeyTarget);

impl HeldKey {
    /// The key that a request names by id, ARN or alias. Another account's is as good as none.
    fn locate(call: &Call, named: &str) -> Result<Self> {
        let target = locate(call, named)?;
        let own = target.owner == call.caller.account;
        Ok(Self(KeyTarget { key: target.key.filter(|_| own), ..target }))
    }
}

impl Target for HeldKey {
    fn arn(&self) -> &str {
        self.0.arn()
    }
    fn owner(&self) -> &str {
        self.0.owner()
    }
    /// That of an AWS-managed key is the service's and speaks of its use alone: who has a token hold it
    /// is for the IAM policies of its account.
    fn policy(&self) -> Result<OwnPolicy> {
        match &self.0.key {
            Some(key) if key.manager == KeyManager::Aws => Ok(OwnPolicy::None),
            _ => self.0.policy(),
        }
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        self.0.fact(call, key)
    }
}

/// The bounds of a token's name or serial number that must be there.
fn check_token(checks: &mut Checks, token: &Option<String>) {
    checks.required("token", token);
    checks.length("token", token.as_deref(), 1, 128);
}

/// The serial number of a token that the configuration names.
///
/// # Errors
/// [`Condition::NotFound`].
fn serial_of(call: &Call, name: &str) -> Result<String> {
    let member = call.tokens.all().iter().find(|member| member.name == name);
    let unknown = || Error::new(Condition::NotFound, format!("no token is named `{name}`"));
    member.map(|member| member.serial().to_owned()).ok_or_else(unknown)
}

/// The same of one that may be gone for good: then the serial number itself, if the configuration has it
/// no more.
fn serial_of_lost(call: &Call, name: &str, lost: bool) -> Result<String> {
    match serial_of(call, name) {
        Err(_) if lost => Ok(name.to_owned()),
        known => known,
    }
}

/// What the configuration calls the token of this serial number, if it has it.
fn name_of<'a>(call: &'a Call, serial: &str) -> Option<&'a str> {
    // Rows of before there were several name none: it is the default one.
    let is_it =
        |member: &&crate::custody::tokens::Member| serial.is_empty() || member.serial() == serial;
    call.tokens.all().iter().find(is_it).map(|member| member.name.as_str())
}
