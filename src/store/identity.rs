//! Accounts and access keys.

use super::records::{Document, Records, Rows, belongs};
use super::{Result, Value, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An account (a tenant).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    /// 12 digits.
    pub id: String,
    /// When it was made.
    pub created: Time,
}

impl Document for Account {
    const TABLE: &'static str = "account";
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// An access key; its secret is sealed under a key of the store key's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessKey {
    /// `AKIA` and 16 characters.
    pub id: String,
    /// The account it belongs to.
    pub account: String,
    /// Its principal's ARN.
    pub principal: String,
    /// Its principal's unique id.
    pub principal_id: String,
    /// Whether it is the root's or a user's.
    pub kind: Principal,
    /// Whether it may be used.
    pub active: bool,
    /// When it was made.
    pub created: Time,
    /// base64(nonce (32 bytes) || AES-256-GCM ciphertext || tag (16 bytes)).
    pub sealed_secret: String,
}

/// The principals that hold access keys.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Principal {
    /// The account itself.
    Root,
    /// A user in it.
    User,
}

impl Document for AccessKey {
    const TABLE: &'static str = "access_key";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Records {
    /// The access key with this id.
    pub fn access_key(&self, id: &str) -> Result<Option<Arc<AccessKey>>> {
        self.cached(id, |rows| rows.access_key(id))
    }
}

impl Rows<'_> {
    /// The access key with this id.
    pub fn access_key(&mut self, id: &str) -> Result<Option<AccessKey>> {
        let found = self.load("SELECT doc, mac FROM access_key WHERE id = ?1", &[id.into()])?;
        belongs(found, |key: &AccessKey| key.id == id)
    }

    /// Writes an access key.
    pub fn put_access_key(&mut self, key: &AccessKey) -> Result<()> {
        self.save(
            key,
            "INSERT INTO access_key (doc, mac, id, account, principal) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET doc = ?1, mac = ?2, principal = ?5",
            &[(&key.id).into(), (&key.account).into(), (&key.principal_id).into()],
        )?;
        Ok(())
    }

    /// Takes an access key away.
    pub fn delete_access_key(&mut self, id: &str) -> Result<()> {
        self.touch::<AccessKey>(id);
        self.tx().execute("DELETE FROM access_key WHERE id = ?1", &[id.into()])?;
        Ok(())
    }

    /// The access keys of one principal, by id.
    pub fn access_keys_of(&mut self, account: &str, principal_id: &str) -> Result<Vec<AccessKey>> {
        let sql =
            "SELECT doc, mac FROM access_key WHERE account = ?1 AND principal = ?2 ORDER BY id";
        self.access_keys(sql, &[account.into(), principal_id.into()])
    }

    /// Access keys that were made before there were principals to hold them: their rows do not name
    /// one.
    pub fn access_keys_of_nobody(&mut self) -> Result<Vec<AccessKey>> {
        self.access_keys("SELECT doc, mac FROM access_key WHERE principal = '' ORDER BY id", &[])
    }

    fn access_keys(&mut self, sql: &'static str, args: &[Value<'_>]) -> Result<Vec<AccessKey>> {
        let mut found = Vec::new();
        self.each(sql, args, |key: AccessKey, _| {
            found.push(key);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Notes that an access key was used, for which service. A use is no document: it grants nothing.
    pub fn note_use(&mut self, id: &str, at: Time, service: &str) -> Result<()> {
        let sql = "UPDATE access_key SET used = ?2, used_for = ?3 WHERE id = ?1";
        self.tx().execute(sql, &[id.into(), at.0.into(), service.into()])?;
        Ok(())
    }

    /// When an access key was last used, and for which service.
    pub fn last_use(&mut self, id: &str) -> Result<Option<(Time, String)>> {
        let sql = "SELECT used, used_for FROM access_key WHERE id = ?1 AND used IS NOT NULL";
        one(self.tx(), sql, &[id.into()], |row| Ok((Time(row.int(0)?), row.text(1)?.to_owned())))
    }

    /// Every account, by id.
    pub fn accounts(&mut self) -> Result<Vec<Account>> {
        let mut found = Vec::new();
        self.each("SELECT doc, mac FROM account ORDER BY id", &[], |account: Account, _| {
            found.push(account);
            Ok(true)
        })?;
        Ok(found)
    }

    /// The account with this id.
    pub fn account(&mut self, id: &str) -> Result<Option<Account>> {
        let found = self.load("SELECT doc, mac FROM account WHERE id = ?1", &[id.into()])?;
        belongs(found, |account: &Account| account.id == id)
    }

    /// Writes an account.
    pub fn put_account(&mut self, account: &Account) -> Result<()> {
        self.save(
            account,
            "INSERT INTO account (doc, mac, id) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET doc = ?1, mac = ?2",
            &[(&account.id).into()],
        )?;
        Ok(())
    }
}
