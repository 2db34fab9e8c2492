//! Accounts and access keys.

use super::Result;
use super::records::{Document, Records, Rows, belongs};
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
    /// nonce (12 bytes) || AES-256-GCM ciphertext || tag (16 bytes), in hexadecimal.
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
             ON CONFLICT (id) DO UPDATE SET doc = ?1, mac = ?2",
            &[(&key.id).into(), (&key.account).into(), (&key.principal_id).into()],
        )?;
        Ok(())
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
