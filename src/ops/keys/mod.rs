//! KMS.

pub mod alias;
pub mod attest;
pub mod attestation;
pub mod cipher;
pub mod create;
pub mod datakey;
pub mod describe;
pub(in crate::ops) mod facts;
pub mod grants;
pub mod holders;
pub mod list;
pub mod material;
pub mod policy;
pub mod purge;
pub mod random;
pub mod rotate;
pub mod rotations;
pub mod seed;
mod source;
pub mod state;
pub mod tags;
mod terms;

use super::authority::compile;
use super::call::{Call, OwnPolicy, Target};
use super::error::{Condition, Error, Result};
use super::shape::Checks;
use crate::name::{Arn, KeyRef, Service, alias_arn, is_account, is_key_id, key_arn};
use crate::policy::document::Kind;
use crate::policy::{Request, Values};
use crate::store::keys::{Key, KeyManager, KeyState};
use std::sync::Arc;

/// A KMS key that a request names, there or not.
pub struct KeyTarget {
    arn: String,
    owner: String,
    key: Option<Arc<Key>>,
    /// The alias that the request named it by.
    alias: Option<String>,
}

impl Target for KeyTarget {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.owner
    }
    fn policy(&self) -> Result<OwnPolicy> {
        let Some(key) = &self.key else { return Ok(OwnPolicy::None) };
        let made =
            key.made.get_or(|| compile(&key.id, &key.policy, Kind::Key, &key.policy_holders))?;
        Ok(OwnPolicy::Rules(made))
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        if key == "kms:requestalias" {
            return self.alias.as_deref().map(Values::one);
        }
        facts::of_key(call, self.key.as_deref()?, key)
    }
    fn granted(&self, call: &Call, request: &Request<'_>) -> Result<Option<String>> {
        let Some(key) = &self.key else { return Ok(None) };
        grants::held::granted(call, &key.id, request, &|_| true)
    }
}

impl KeyTarget {
    /// The key, or AWS's answer that there is none.
    pub fn key(&self) -> Result<&Arc<Key>> {
        self.key.as_ref().ok_or_else(|| {
            let arn = &self.arn;
            let text = if self.arn.contains(":alias/") {
                alias_not_found(arn)
            } else {
                format!("Key '{arn}' does not exist")
            };
            Error::new(Condition::NotFound, text)
        })
    }

    /// The key, if it may be used for cryptography now.
    pub fn usable(&self) -> Result<&Arc<Key>> {
        let key = self.key()?;
        usable(key, &self.arn_of_key(key))?;
        Ok(key)
    }

    /// The key, if it is the customer's own. The key policies of AWS-managed keys let nobody but
    /// the service change them.
    pub fn customers(&self, call: &Call) -> Result<&Arc<Key>> {
        let key = self.key()?;
        if key.manager == KeyManager::Customer {
            return Ok(key);
        }
        let (caller, arn) = (&call.caller.arn, self.arn_of_key(key));
        let action = ["kms:", call.row.action].concat();
        let text = format!(
            "User: {caller} is not authorized to perform: {action} on resource: {arn} because no \
             resource-based policy allows the {action} action"
        );
        Err(Error::new(Condition::AccessDenied, text))
    }

    /// The ARN of the key itself, where the request named an alias.
    pub fn arn_of_key(&self, key: &Key) -> String {
        if self.arn.contains(":alias/") { key_arn_like(&self.arn, key) } else { self.arn.clone() }
    }

    /// The target for a key that was found by other means.
    pub fn found(region: &str, key: Arc<Key>) -> Self {
        let arn = key_arn(region, &key.account, &key.id);
        Self { arn, owner: key.account.clone(), key: Some(key), alias: None }
    }
}

fn key_arn_like(alias_arn: &str, key: &Key) -> String {
    let region = Arn::parse(alias_arn).map_or("", |a| a.region);
    key_arn(region, &key.account, &key.id)
}

fn alias_not_found(arn: &str) -> String {
    format!("Alias {arn} is not found.")
}

/// Refuses a key that may not be used for cryptography now.
pub fn usable(key: &Key, arn: &str) -> Result<()> {
    match key.state {
        KeyState::Disabled => Err(Error::new(Condition::Disabled, format!("{arn} is disabled."))),
        KeyState::Enabled | KeyState::PendingDeletion => not_pending(key, arn),
    }
}

/// Refuses a key that waits for its deletion.
fn not_pending(key: &Key, arn: &str) -> Result<()> {
    match key.state {
        KeyState::Enabled | KeyState::Disabled => Ok(()),
        KeyState::PendingDeletion => {
            Err(Error::new(Condition::InvalidState, format!("{arn} is pending deletion.")))
        }
    }
}

/// Finds the key that `named` means: a key id, a key ARN, an alias name or an alias ARN.
///
/// # Errors
/// [`Condition::NotFound`] for a text that is none of these, and for another region's ARN; those of
/// the database.
pub fn locate(call: &Call, named: &str) -> Result<KeyTarget> {
    locate_for(call, &call.caller.account, named)
}

/// The same where an id or alias without an ARN is one of this account's, whoever asks.
///
/// # Errors
/// Those of [`locate`].
pub fn locate_for(call: &Call, account: &str, named: &str) -> Result<KeyTarget> {
    match parse(call, account, named)? {
        Named::Key { account, id } => {
            let key = call.records.key(id)?.filter(|key| key.account == account);
            let arn = key_arn(&call.region, account, id);
            Ok(KeyTarget { arn, owner: account.to_owned(), key, alias: None })
        }
        Named::Alias { account, name } => {
            let key = match call.records.alias(account, name)? {
                Some(alias) => call.records.key(&alias.target)?,
                None => None,
            };
            let arn = match &key {
                Some(key) => key_arn(&call.region, &key.account, &key.id),
                None => alias_arn(&call.region, account, name),
            };
            Ok(KeyTarget { arn, owner: account.to_owned(), key, alias: Some(name.to_owned()) })
        }
    }
}

/// The same for operations that take key ids and key ARNs alone.
///
/// # Errors
/// Those of [`locate`], and [`Condition::InvalidArn`] for an alias.
pub fn locate_key(call: &Call, named: &str) -> Result<KeyTarget> {
    if let Named::Alias { .. } = parse(call, &call.caller.account, named)? {
        let text = "Key Aliases are not supported for this operation.";
        return Err(Error::new(Condition::InvalidArn, text));
    }
    locate(call, named)
}

/// The same for operations on keys of the caller's own account alone. Another account's key is as
/// good as none, whatever its policy says: there the right has no effect
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-modifying-external-accounts.html>).
///
/// # Errors
/// Those of [`locate_key`].
pub fn locate_own(call: &Call, named: &str) -> Result<KeyTarget> {
    let target = locate_key(call, named)?;
    let own = target.owner == call.caller.account;
    Ok(KeyTarget { key: target.key.filter(|_| own), ..target })
}

/// What a request names, well-formed and of this region.
enum Named<'a> {
    Key { account: &'a str, id: &'a str },
    Alias { account: &'a str, name: &'a str },
}

fn parse<'a>(call: &Call, home: &'a str, named: &'a str) -> Result<Named<'a>> {
    let bad = || Error::new(Condition::NotFound, format!("Invalid keyId '{named}'"));
    let reference = KeyRef::parse(named).ok_or_else(bad)?;
    let (KeyRef::Id { arn, .. } | KeyRef::Alias { arn, .. }) = reference;
    let account = match arn {
        None => home,
        Some(arn) if arn.partition != "aws" || arn.service != Service::Kms.prefix() => {
            return Err(bad());
        }
        Some(arn) if arn.region != call.region => {
            return Err(Error::new(Condition::NotFound, format!("Invalid arn {}", arn.region)));
        }
        Some(arn) if is_account(arn.account) => arn.account,
        Some(_) => return Err(bad()),
    };
    match reference {
        KeyRef::Id { id, .. } if is_key_id(id) => Ok(Named::Key { account, id }),
        KeyRef::Id { .. } => Err(bad()),
        KeyRef::Alias { name, .. } => Ok(Named::Alias { account, name }),
    }
}

/// Changes one key of the customer's. `f` is handed the key and its ARN, and says whether it changed
/// anything; it may run several times. A request that changes nothing writes nothing.
async fn change(
    call: &Call,
    target: &KeyTarget,
    mut f: impl FnMut(&mut Key, &str) -> Result<bool> + Send + 'static,
) -> Result<Key> {
    let known = target.customers(call)?;
    let arn = target.arn_of_key(known);
    let mut trial = Key::clone(known);
    if !f(&mut trial, &arn)? {
        return Ok(trial);
    }
    let id = trial.id;
    call.commit(move |rows| {
        let gone = || Error::new(Condition::NotFound, format!("Key '{arn}' does not exist"));
        let mut key = rows.key(&id)?.ok_or_else(gone)?;
        if f(&mut key, &arn)? {
            key.revision += 1;
            rows.put_key(&key)?;
        }
        Ok(key)
    })
    .await
}

/// The bounds of a KeyId that must be there.
fn check_key_id(checks: &mut Checks, key_id: &Option<String>) {
    checks.required("keyId", key_id);
    checks.length("keyId", key_id.as_deref(), 1, 2048);
}

/// The bounds of GrantTokens.
fn check_grant_tokens(checks: &mut Checks, tokens: Option<&[String]>) {
    checks.items("grantTokens", tokens.map(<[_]>::len), 0, 10);
    for (n, token) in (1..).zip(tokens.unwrap_or_default()) {
        checks.length(&format!("grantTokens.{n}.member"), Some(token), 1, 8192);
    }
}
