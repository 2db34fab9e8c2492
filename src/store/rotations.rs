//! Rotation of secrets: how each rotates, and how far a rotation that is under way has come.
//!
//! A document of its own beside the secret's: a rotation writes it at every step, which must not take
//! the secret out of the memory that reads are served from.

use super::keys::due;
use super::records::{Document, Records, Rows, belongs};
use super::{Result, Row, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a secret rotates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The secret's row.
    pub secret: i64,
    /// Its account.
    pub account: String,
    /// Its name.
    pub name: String,
    /// Whether it rotates by itself.
    pub enabled: bool,
    /// The ARN of the function that rotates it.
    pub function: String,
    /// The secret with an administrator's login that whoever set this up may read: its ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// When it rotates, as it was asked for; none: only when somebody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// When the rules were given.
    pub scheduled: Time,
    /// The last change of its value that counts as a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
    /// The window of the next rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Window>,
    /// The rotation that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Why the last rotation did not end well; none if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Who is at work on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// When it is to be looked at next.
    pub due: Option<Time>,
    /// Rises with every change.
    pub revision: u64,
}

/// RotationRules, as they were asked for and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// AutomaticallyAfterDays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_days: Option<i64>,
    /// Duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// ScheduleExpression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

/// From when to when a rotation may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first moment in it.
    pub opens: Time,
    /// The first moment after it.
    pub closes: Time,
}

/// A rotation that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The id of the version that it makes.
    pub token: String,
    /// Whether the function is only tried: testSecret alone, and nothing rotates.
    pub trial: bool,
    /// The step that is to be done next, or may have been done without a word of it.
    pub step: Step,
    /// Whether setSecret may have run: the pending value may be the only one that still logs in.
    pub set: bool,
    /// Failures so far.
    pub failures: u32,
    /// When it began.
    pub began: Time,
    /// From when on a failure ends it, as long as setSecret can't have run.
    pub until: Time,
    /// Whether its start stands in the audit log.
    pub noted: bool,
    /// Whether it was told already that its time is over.
    pub overdue: bool,
    /// Whether the last attempt failed so that another one can't go better, though AWSCURRENT is let in.
    #[serde(default)]
    pub hopeless: bool,
    /// Whether AWSCURRENT was let in, and AWSPENDING was not, since the last attempt.
    #[serde(default)]
    pub settling: bool,
}

/// The steps of AWS's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// createSecret: the new value becomes the version AWSPENDING.
    Create,
    /// setSecret: the target takes it.
    Set,
    /// testSecret: the target lets it in.
    Test,
    /// finishSecret: AWSCURRENT moves to it.
    Finish,
}

impl Step {
    /// Its name in a rotation function's event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "createSecret",
            Self::Set => "setSecret",
            Self::Test => "testSecret",
            Self::Finish => "finishSecret",
        }
    }

    /// The step that follows; none after the last one.
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Create => Some(Self::Set),
            Self::Set => Some(Self::Test),
            Self::Test => Some(Self::Finish),
            Self::Finish => None,
        }
    }
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In which step.
    pub step: Step,
    /// When.
    pub at: Time,
    /// In words, with nothing secret in them.
    pub why: String,
}

/// One process's right to work on a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The process.
    pub owner: String,
    /// The first moment at which another may take it.
    pub until: Time,
}

impl Document for Rotation {
    const TABLE: &'static str = "rotation";
    fn key(&self) -> String {
        self.secret.to_string()
    }
}

impl Records {
    /// How the secret in this row rotates; none if it never did.
    pub fn rotation(&self, secret: i64) -> Result<Option<Arc<Rotation>>> {
        self.cached(&secret.to_string(), |rows| rows.rotation(secret))
    }
}

impl Rows<'_> {
    /// How the secret in this row rotates; none if it never did.
    pub fn rotation(&mut self, secret: i64) -> Result<Option<Rotation>> {
        let sql = "SELECT doc, mac FROM rotation WHERE secret = ?1";
        let found = self.load(sql, &[secret.into()])?;
        belongs(found, |rotation: &Rotation| rotation.secret == secret)
    }

    /// Writes how a secret rotates.
    pub fn put_rotation(&mut self, rotation: &mut Rotation) -> Result<()> {
        rotation.revision = rotation.revision.saturating_add(1);
        let until = rotation.progress.as_ref().map(|progress| progress.until);
        self.save(
            rotation,
            "INSERT INTO rotation (doc, mac, secret, due, until, function)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (secret) DO UPDATE
             SET doc = ?1, mac = ?2, due = ?4, until = ?5, function = ?6",
            &[rotation.secret.into(), due(rotation.due), due(until), (&rotation.function).into()],
        )?;
        Ok(())
    }

    /// How many rotations are under way, and how many of these after their time.
    pub fn rotations_under_way(&mut self, now: Time) -> Result<(u64, u64)> {
        let sql = "SELECT count(*), coalesce(sum(until <= ?1), 0) FROM rotation
             WHERE until IS NOT NULL";
        let count = |row: &dyn Row, at| Ok(u64::try_from(row.int(at)?).unwrap_or(0));
        let found =
            one(self.tx(), sql, &[now.0.into()], |row| Ok((count(row, 0)?, count(row, 1)?)));
        Ok(found?.unwrap_or_default())
    }

    /// The secrets whose rotation is to be looked at, the longest overdue first.
    pub fn rotations_due(&mut self, now: Time, limit: i64) -> Result<Vec<i64>> {
        let mut found = Vec::new();
        let sql = "SELECT secret FROM rotation WHERE due IS NOT NULL AND due <= ?1
             ORDER BY due LIMIT ?2";
        self.tx().query(sql, &[now.0.into(), limit.into()], &mut |row| {
            found.push(row.int(0)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// When the next rotation is to be looked at.
    pub fn next_rotation(&mut self) -> Result<Option<Time>> {
        let sql = "SELECT due FROM rotation WHERE due IS NOT NULL ORDER BY due LIMIT 1";
        one(self.tx(), sql, &[], |row| row.int(0).map(Time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::records::RowMac;
    use crate::store::secrets::Secret;
    use crate::store::sqlite::{Options, Sqlite};

    #[tokio::test]
    async fn rotations_that_are_under_way_and_those_whose_time_is_over_are_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Sqlite::open(Options::new(dir.path().join("data"))).expect("a database");
        let records = Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10);
        for (uid, until) in [(1, None), (2, Some(100)), (3, Some(101))] {
            let name = format!("s{uid}");
            let secret: Secret = serde_json::from_value(serde_json::json!({
                "uid": uid, "account": "111122223333", "name": name, "suffix": "AbCdEf",
                "created": 1, "changed": 1, "stages": [], "versions": 0, "prune_after": 0,
                "revision": 1,
            }))
            .expect("a secret");
            let progress = until.map(|until| {
                serde_json::json!({"token": "t", "trial": false, "step": "Set", "set": true,
                    "failures": 1, "began": 1, "until": until, "noted": true, "overdue": false})
            });
            let mut rotation: Rotation = serde_json::from_value(serde_json::json!({
                "secret": uid, "account": "111122223333", "name": name, "enabled": true,
                "function": "f", "scheduled": 1, "due": 50, "progress": progress, "revision": 0,
            }))
            .expect("a rotation");
            let written = records.write(move |rows| {
                rows.put_secret(&secret)?;
                rows.put_rotation(&mut rotation)
            });
            written.await.expect("written");
        }
        let count = |now| records.read(|rows| rows.rotations_under_way(Time(now))).expect("read");
        assert_eq!([99, 100, 101].map(count), [(2, 0), (2, 1), (2, 2)]);
    }
}
