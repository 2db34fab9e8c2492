//! Probes of secrets: whether what is stored logs in still.
//!
//! A document of its own beside the secret's, for the reason that rotations have one.

use super::records::{Document, Records, Rows, belongs};
use super::{Result, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the probes of a secret have found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The secret's row.
    pub secret: i64,
    /// When the last one began.
    pub at: Time,
    /// When the next one is to begin.
    pub due: Time,
    /// The pause between two that this was reckoned with, in milliseconds.
    pub every: i64,
    /// What the last one found; none before the first has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
    /// Since when what is stored is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drifted: Option<Time>,
    /// Rises with every change.
    pub revision: u64,
}

/// What a probe has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which it is.
    pub outcome: Outcome,
    /// In words, with nothing secret in them; none where somebody was let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When.
    pub at: Time,
}

/// How a probe ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The login succeeded.
    LetIn,
    /// It was refused.
    Refused,
    /// The system can't be asked, so nothing is known.
    Unreachable,
    /// The secret's value opens nothing that is known here.
    Unusable,
}

/// A secret whose probe is due.
pub struct Due {
    /// Its row.
    pub secret: i64,
    /// Its account.
    pub account: String,
    /// Its name.
    pub name: String,
}

impl Document for Probe {
    const TABLE: &'static str = "probe";
    fn key(&self) -> String {
        self.secret.to_string()
    }
}

impl Records {
    /// What the probes of the secret in this row have found; none before the first.
    pub fn probe(&self, secret: i64) -> Result<Option<Arc<Probe>>> {
        self.cached(&secret.to_string(), |rows| rows.probe(secret))
    }
}

impl Rows<'_> {
    /// What the probes of the secret in this row have found; none before the first.
    pub fn probe(&mut self, secret: i64) -> Result<Option<Probe>> {
        let sql = "SELECT doc, mac FROM probe WHERE secret = ?1";
        let found = self.load(sql, &[secret.into()])?;
        belongs(found, |probe: &Probe| probe.secret == secret)
    }

    /// Writes what probes have found.
    pub fn put_probe(&mut self, probe: &mut Probe) -> Result<()> {
        probe.revision = probe.revision.saturating_add(1);
        self.save(
            probe,
            "INSERT INTO probe (doc, mac, secret, at, due, every, drifted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (secret) DO UPDATE SET doc = ?1, mac = ?2, at = ?4, due = ?5, every = ?6,
             drifted = ?7",
            &[
                probe.secret.into(),
                probe.at.0.into(),
                probe.due.0.into(),
                probe.every.into(),
                super::keys::due(probe.drifted),
            ],
        )?;
        Ok(())
    }

    /// Secrets that are to be probed: never yet, or long ago, or the pause has become shorter, or the
    /// clock was set back since; not those that wait for their deletion, nor those that rotate, which may
    /// take as long as their targets are away.
    pub fn probes_due(&mut self, now: Time, limit: i64) -> Result<Vec<Due>> {
        let mut found = Vec::new();
        let sql =
            "SELECT s.uid, s.account, s.name FROM secret s LEFT JOIN probe p ON p.secret = s.uid
             WHERE s.probe IS NOT NULL AND s.due IS NULL
             AND (p.due IS NULL OR p.due <= ?1 OR p.every > s.probe OR p.at > ?1)
             AND NOT EXISTS (SELECT 1 FROM rotation r WHERE r.secret = s.uid AND r.until IS NOT NULL)
             LIMIT ?2";
        self.tx().query(sql, &[now.0.into(), limit.into()], &mut |row| {
            let (account, name) = (row.text(1)?.to_owned(), row.text(2)?.to_owned());
            found.push(Due { secret: row.int(0)?, account, name });
            Ok(true)
        })?;
        Ok(found)
    }

    /// How many secrets are stored with what is refused.
    pub fn drifted(&mut self) -> Result<u64> {
        let sql = "SELECT count(*) FROM probe p JOIN secret s ON s.uid = p.secret
             WHERE p.drifted IS NOT NULL AND s.probe IS NOT NULL AND s.due IS NULL";
        let count = one(self.tx(), sql, &[], |row| row.int(0))?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }
}
