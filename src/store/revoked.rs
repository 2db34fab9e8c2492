//! Sessions that were ended before their time.
//!
//! Session tokens hold everything of a session, so what ends one early must be kept: until it would
//! have ended by itself.

use super::records::{Document, Records, Rows};
use super::{Result, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;

/// What an account's set of ended sessions is derived under.
const REVOKED: &str = "revoked";

/// A session that was ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevokedSession {
    /// Its access key id (`ASIA...`).
    pub id: String,
    /// The account.
    pub account: String,
    /// When it was ended.
    pub revoked: Time,
    /// When it would have ended by itself, or later.
    pub expires: Time,
}

impl Document for RevokedSession {
    const TABLE: &'static str = "revoked_session";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Records {
    /// The access key ids of an account's ended sessions; from memory while there are no new ones.
    pub fn revoked_sessions(&self, account: &str) -> Result<Arc<HashSet<String>>> {
        self.derived((REVOKED, account), account, |rows| rows.revoked_sessions(account))
    }
}

impl Rows<'_> {
    fn revoked_sessions(&mut self, account: &str) -> Result<HashSet<String>> {
        let mut found = HashSet::new();
        let sql = "SELECT doc, mac FROM revoked_session WHERE account = ?1";
        self.each(sql, &[account.into()], |session: RevokedSession, _| {
            found.insert(session.id);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Ends a session.
    pub fn put_revoked_session(&mut self, session: &RevokedSession) -> Result<()> {
        self.touch_derived(REVOKED, &session.account);
        self.save(
            session,
            "INSERT INTO revoked_session (doc, mac, id, account, expires)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET doc = ?1, mac = ?2, account = ?4, expires = ?5",
            &[(&session.id).into(), (&session.account).into(), session.expires.0.into()],
        )?;
        Ok(())
    }

    /// Whether any ended session would have ended by itself before `now`.
    pub fn has_revoked_sessions(&mut self, now: Time) -> Result<bool> {
        let sql = "SELECT 1 FROM revoked_session WHERE expires < ?1 LIMIT 1";
        Ok(one(self.tx(), sql, &[now.0.into()], |row| row.int(0))?.is_some())
    }

    /// Forgets ended sessions that would have ended by themselves before `now`; answers how many.
    pub fn forget_revoked_sessions(&mut self, now: Time) -> Result<usize> {
        self.tx().execute("DELETE FROM revoked_session WHERE expires < ?1", &[now.0.into()])
    }
}
