//! Custom key stores: which token besides the default one an account's KMS keys may be made in.

use super::records::{Document, Records, Rows, belongs};
use super::{Result, one};
use crate::clock::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A custom key store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStore {
    /// `cks-` and 17 hex digits.
    pub id: String,
    /// The account that owns it.
    pub account: String,
    /// Its name, 1 to 256 characters; no other one of the account has it.
    pub name: String,
    /// The serial number of its token; no other one of the account has it.
    pub token: String,
    /// The certificate that came with it, as it was given; nobody looks inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_anchor: Option<String>,
    /// When it was made.
    pub created: Time,
    /// Whether its keys may be used.
    pub connection: Connection,
}

/// Whether a custom key store is connected to its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connection {
    /// Keys may be made and used.
    Connected,
    /// By request, or never connected yet.
    Disconnected,
    /// The last attempt to connect it failed.
    Failed(ConnectionError),
}

/// Why a custom key store could not be connected, by the names of AWS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionError {
    /// The configuration names no such token.
    ClusterNotFound,
    /// The token is not there.
    InsufficientCloudhsmHsms,
    /// The token refuses its PIN.
    InvalidCredentials,
    /// The token does not answer in time.
    NetworkErrors,
    /// Anything else.
    InternalError,
}

impl Document for KeyStore {
    const TABLE: &'static str = "key_store";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Records {
    /// The custom key store with this id.
    pub fn key_store(&self, id: &str) -> Result<Option<Arc<KeyStore>>> {
        self.cached(id, |rows| rows.key_store(id))
    }
}

impl Rows<'_> {
    /// The custom key store with this id.
    pub fn key_store(&mut self, id: &str) -> Result<Option<KeyStore>> {
        let found = self.load("SELECT doc, mac FROM key_store WHERE id = ?1", &[id.into()])?;
        belongs(found, |store: &KeyStore| store.id == id)
    }

    /// The custom key store with this name in this account.
    pub fn key_store_named(&mut self, account: &str, name: &str) -> Result<Option<KeyStore>> {
        let sql = "SELECT doc, mac FROM key_store WHERE account = ?1 AND name = ?2";
        let found = self.load(sql, &[account.into(), name.into()])?;
        belongs(found, |store: &KeyStore| store.account == account && store.name == name)
    }

    /// The custom key store over the token of this serial number in this account.
    pub fn key_store_over(&mut self, account: &str, token: &str) -> Result<Option<KeyStore>> {
        let sql = "SELECT doc, mac FROM key_store WHERE account = ?1 AND token = ?2";
        let found = self.load(sql, &[account.into(), token.into()])?;
        belongs(found, |store: &KeyStore| store.account == account && store.token == token)
    }

    /// Up to `limit` custom key stores of an account whose ids come after `after`, by id.
    pub fn key_stores(&mut self, account: &str, after: &str, limit: i64) -> Result<Vec<KeyStore>> {
        let mut found = Vec::new();
        self.each(
            "SELECT doc, mac FROM key_store WHERE account = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            &[account.into(), after.into(), limit.into()],
            |store: KeyStore, _| {
                found.push(store);
                Ok(true)
            },
        )?;
        Ok(found)
    }

    /// How many custom key stores an account has.
    pub fn count_key_stores(&mut self, account: &str) -> Result<i64> {
        let sql = "SELECT count(*) FROM key_store WHERE account = ?1";
        Ok(one(self.tx(), sql, &[account.into()], |row| row.int(0))?.unwrap_or(0))
    }

    /// Writes a custom key store.
    pub fn put_key_store(&mut self, store: &KeyStore) -> Result<()> {
        self.save(
            store,
            "INSERT INTO key_store (doc, mac, id, account, name, token)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET doc = ?1, mac = ?2, name = ?5, token = ?6",
            &[
                (&store.id).into(),
                (&store.account).into(),
                (&store.name).into(),
                (&store.token).into(),
            ],
        )?;
        Ok(())
    }

    /// Takes a custom key store away. Who calls this has seen that no key is in it.
    pub fn delete_key_store(&mut self, id: &str) -> Result<()> {
        self.touch::<KeyStore>(id);
        self.tx().execute("DELETE FROM key_store WHERE id = ?1", &[id.into()])?;
        Ok(())
    }

    /// Whether any KMS key is in this custom key store.
    pub fn key_store_has_keys(&mut self, id: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM kms_key WHERE store = ?1 LIMIT 1";
        Ok(one(self.tx(), sql, &[id.into()], |row| row.int(0))?.is_some())
    }
}
