//! KMS.

pub mod cipher;

use super::call::{Call, Target};
use super::error::{Condition, Error, Result};
use crate::name::{Arn, KeyRef, Service, alias_arn, is_key_id, key_arn};
use crate::store::keys::{Key, KeyState};
use std::sync::Arc;

/// A KMS key that a request names, there or not.
pub struct KeyTarget {
    arn: String,
    owner: String,
    key: Option<Arc<Key>>,
}

impl Target for KeyTarget {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.owner
    }
}

impl KeyTarget {
    /// The key, or AWS's answer that there is none.
    pub fn key(&self) -> Result<&Arc<Key>> {
        self.key.as_ref().ok_or_else(|| {
            let kind = if self.arn.contains(":alias/") { "Alias" } else { "Key" };
            let verb = if kind == "Alias" { "is not found." } else { "does not exist" };
            let arn = &self.arn;
            Error::new(
                Condition::NotFound,
                if kind == "Alias" {
                    format!("{kind} {arn} {verb}")
                } else {
                    format!("{kind} '{arn}' {verb}")
                },
            )
        })
    }

    /// The key, if it may be used for cryptography now.
    pub fn usable(&self) -> Result<&Arc<Key>> {
        let key = self.key()?;
        usable(key, &self.arn_of_key(key))?;
        Ok(key)
    }

    /// The ARN of the key itself, where the request named an alias.
    pub fn arn_of_key(&self, key: &Key) -> String {
        if self.arn.contains(":alias/") { key_arn_like(&self.arn, key) } else { self.arn.clone() }
    }

    /// The target for a key that was found by other means.
    pub fn found(region: &str, key: Arc<Key>) -> Self {
        let arn = key_arn(region, &key.account, &key.id);
        Self { arn, owner: key.account.clone(), key: Some(key) }
    }
}

fn key_arn_like(alias_arn: &str, key: &Key) -> String {
    let region = Arn::parse(alias_arn).map_or("", |a| a.region);
    key_arn(region, &key.account, &key.id)
}

/// Refuses a key that may not be used for cryptography now.
pub fn usable(key: &Key, arn: &str) -> Result<()> {
    match key.state {
        KeyState::Enabled => Ok(()),
        KeyState::Disabled => Err(Error::new(Condition::Disabled, format!("{arn} is disabled."))),
        KeyState::PendingDeletion => {
            Err(Error::new(Condition::InvalidState, format!("{arn} is pending deletion.")))
        }
    }
}

/// Finds the key that `named` means: a key id, a key ARN, an alias name or an alias ARN.
pub fn locate(call: &Call, named: &str) -> Result<KeyTarget> {
    let bad = || Error::new(Condition::NotFound, format!("Invalid keyId '{named}'"));
    let reference = KeyRef::parse(named).ok_or_else(bad)?;
    let (KeyRef::Id { arn, .. } | KeyRef::Alias { arn, .. }) = reference;
    if let Some(arn) = arn {
        check_arn(call, &arn)?;
    }
    let account = arn.map_or(call.caller.account.as_str(), |arn| arn.account);
    match reference {
        KeyRef::Id { id, .. } => {
            if !is_key_id(id) {
                return Err(bad());
            }
            let key = call.records.key(id)?.filter(|key| key.account == account);
            let arn = key_arn(&call.region, account, id);
            Ok(KeyTarget { arn, owner: account.to_owned(), key })
        }
        KeyRef::Alias { name, .. } => {
            let alias = call.records.alias(account, name)?;
            let key = match alias {
                Some(alias) => call.records.key(&alias.target)?,
                None => None,
            };
            let arn = match &key {
                Some(key) => key_arn(&call.region, &key.account, &key.id),
                None => alias_arn(&call.region, account, name),
            };
            Ok(KeyTarget { arn, owner: account.to_owned(), key })
        }
    }
}

fn check_arn(call: &Call, arn: &Arn<'_>) -> Result<()> {
    if arn.partition != "aws" || arn.service != Service::Kms.prefix() {
        return Err(Error::new(Condition::NotFound, "Invalid arn"));
    }
    if arn.region != call.region {
        return Err(Error::new(Condition::NotFound, format!("Invalid arn {}", arn.region)));
    }
    Ok(())
}

/// TEMPORARY until the key lifecycle lands.
pub async fn create_service_key(services: &super::call::Services, account: &str) -> Result<()> {
    use crate::store::keys::*;
    let id = crate::name::BackingKeyId(crate::clock::random_bytes(&*services.world.random)?);
    let e = services.lane.generate(id, crate::name::Scheme::HmacKdf).await?;
    let now = services.world.clock.now();
    let key = Key {
        id: crate::clock::random_uuid(&*services.world.random)?,
        account: account.into(),
        description: String::new(),
        state: KeyState::Enabled,
        manager: KeyManager::Aws,
        created: now,
        due: None,
        window_days: None,
        policy: String::new(),
        tags: vec![],
        backing: vec![Backing {
            id,
            scheme: crate::name::Scheme::HmacKdf,
            check: e.check,
            created: now,
            material_id: String::new(),
            rotation: None,
        }],
        rotation: None,
        revision: 0,
    };
    let alias = Alias {
        account: account.into(),
        name: "alias/aws/secretsmanager".into(),
        target: key.id.clone(),
        created: now,
        updated: now,
    };
    services
        .records
        .write(move |rows| {
            rows.put_key(&key)?;
            rows.put_alias(&alias)?;
            Ok::<_, Error>(())
        })
        .await
}
