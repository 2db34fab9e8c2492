//! Rotation functions that accounts have registered.

use super::records::{Document, Records, Rows, belongs};
use super::rotations::Rotation;
use super::{Result, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A function behind a Lambda Invoke endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The account that has registered it.
    pub account: String,
    /// Its name, which no other one of the account has.
    pub name: String,
    /// The URL of the endpoint.
    pub endpoint: String,
    /// The authorities to trust there (PEM); none: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// How long a step may take, in seconds.
    pub deadline: u64,
    /// Whether it is given credentials.
    pub credentials: bool,
    /// When it was registered.
    pub created: Time,
}

impl Document for Registered {
    const TABLE: &'static str = "function";
    fn key(&self) -> String {
        key(&self.account, &self.name)
    }
}

/// No account's id has a colon in it.
fn key(account: &str, name: &str) -> String {
    [account, ":", name].concat()
}

impl Records {
    /// What an account has registered under a name.
    pub fn function(&self, account: &str, name: &str) -> Result<Option<Arc<Registered>>> {
        self.cached(&key(account, name), |rows| rows.function(account, name))
    }
}

impl Rows<'_> {
    /// What an account has registered under a name.
    pub fn function(&mut self, account: &str, name: &str) -> Result<Option<Registered>> {
        let sql = "SELECT doc, mac FROM function WHERE account = ?1 AND name = ?2";
        let found = self.load(sql, &[account.into(), name.into()])?;
        belongs(found, |function: &Registered| function.account == account && function.name == name)
    }

    /// All that an account has registered, by name.
    pub fn functions(&mut self, account: &str) -> Result<Vec<Registered>> {
        let mut found = Vec::new();
        let sql = "SELECT doc, mac FROM function WHERE account = ?1 ORDER BY name";
        self.each(sql, &[account.into()], |function: Registered, _| {
            found.push(function);
            Ok(true)
        })?;
        Ok(found)
    }

    /// How many functions an account has registered.
    pub fn count_functions(&mut self, account: &str) -> Result<i64> {
        let sql = "SELECT count(*) FROM function WHERE account = ?1";
        Ok(one(self.tx(), sql, &[account.into()], |row| row.int(0))?.unwrap_or(0))
    }

    /// Registers a function, or changes it.
    pub fn put_function(&mut self, function: &Registered) -> Result<()> {
        self.save(
            function,
            "INSERT INTO function (doc, mac, account, name) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (account, name) DO UPDATE SET doc = ?1, mac = ?2",
            &[(&function.account).into(), (&function.name).into()],
        )?;
        Ok(())
    }

    /// Takes a function away.
    pub fn delete_function(&mut self, account: &str, name: &str) -> Result<()> {
        self.touch::<Registered>(&key(account, name));
        let sql = "DELETE FROM function WHERE account = ?1 AND name = ?2";
        self.tx().execute(sql, &[account.into(), name.into()])?;
        Ok(())
    }

    /// A secret of the account that the function of this ARN, or a version of it, rotates or is
    /// rotating; by its name.
    pub fn rotated_by(&mut self, account: &str, function: &str) -> Result<Option<String>> {
        let mut found = None;
        // A qualifier comes after a colon, and a semicolon is the next character.
        let sql = "SELECT doc, mac FROM rotation
             WHERE function = ?1 OR (function > ?1 || ':' AND function < ?1 || ';')";
        self.each(sql, &[function.into()], |rotation: Rotation, _| {
            let uses = rotation.enabled || rotation.progress.is_some();
            if uses && rotation.account == account {
                found = Some(rotation.name);
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }
}
