//! Secrets and their versions.

use super::grants::Holder;
use super::keys::{Tag, due};
use super::probes::Probe;
use super::records::{Document, Made, Records, Rows, belongs};
use super::rotations::Rotation;
use super::{Error, Result, Row, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A secret: everything of it but its values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// The row: a random positive number, never used again.
    pub uid: i64,
    /// The account that owns it.
    pub account: String,
    /// The name.
    pub name: String,
    /// The six random characters at the end of its ARN.
    pub suffix: String,
    /// What its owner wrote about it.
    pub description: Option<String>,
    /// The KMS key as its owner named it; none means the default key.
    pub kms_key_id: Option<String>,
    /// When it was made.
    pub created: Time,
    /// When it last changed.
    pub changed: Time,
    /// When its deletion was asked for.
    pub deleted: Option<Time>,
    /// When the recovery window ends.
    pub due: Option<Time>,
    /// Tags; none until first tagged.
    pub tags: Option<Vec<Tag>>,
    /// The resource policy, as it was written.
    pub policy: Option<String>,
    /// Whom it means by the principals that it names, as far as they are of accounts here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_holders: Vec<Holder>,
    /// Staging labels and the version each is on, in the labels' order.
    pub stages: Vec<Stage>,
    /// How many versions there are.
    pub versions: u32,
    /// No version without labels is old enough to go before this moment.
    pub prune_after: Time,
    /// Rises with every change.
    pub revision: u64,
    /// The deadline that its tags name, and how far notice was given of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Expiry>,
    /// How often a login with its value is tried, in milliseconds; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<i64>,
    /// The compiled resource policy.
    #[serde(skip)]
    pub made: Made,
}

/// A secret's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// The deadline.
    pub deadline: Time,
    /// The last moment of which notice was given: those before it are past.
    pub told: Option<Time>,
    /// The moment of which notice is to be given next; none after the deadline's own.
    pub notice: Option<Time>,
}

/// How many secrets have deadlines, but for those that wait for their deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expiring {
    /// Whose deadline is past.
    pub expired: u64,
    /// Whose deadline is before one moment, and before another, and not past.
    pub before: [u64; 2],
}

/// The label of the version in force.
const CURRENT: &str = "AWSCURRENT";

/// A staging label on a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// `AWSCURRENT`, `AWSPREVIOUS`, `AWSPENDING` or a label of the owner's.
    pub label: String,
    /// The version id.
    pub version: String,
}

impl Secret {
    /// The version that carries a label.
    pub fn version_with(&self, label: &str) -> Option<&str> {
        self.stages.iter().find(|s| s.label == label).map(|s| s.version.as_str())
    }

    /// The labels of a version, in their order.
    pub fn labels_of<'a>(&'a self, version: &'a str) -> impl Iterator<Item = &'a str> {
        self.stages.iter().filter(move |s| s.version == version).map(|s| s.label.as_str())
    }
}

impl Document for Secret {
    const TABLE: &'static str = "secret";
    fn key(&self) -> String {
        cache_key(&self.account, &self.name)
    }
}

fn cache_key(account: &str, name: &str) -> String {
    [account, ":", name].concat()
}

/// A version of a secret, as ciphertext.
#[derive(Clone, Debug)]
pub struct Version {
    /// The version id (its ClientRequestToken), 32 to 64 characters.
    pub id: String,
    /// When it was made.
    pub created: Time,
    /// The day of its last read, days since 1970.
    pub accessed: Option<i64>,
    /// The data key, as an envelope under the secret's KMS key.
    pub data_key: Vec<u8>,
    /// The value, sealed under the data key.
    pub value: Vec<u8>,
}

/// A version without its value.
#[derive(Clone, Debug)]
pub struct VersionInfo {
    /// The version id.
    pub id: String,
    /// When it was made.
    pub created: Time,
    /// The day of its last read, days since 1970.
    pub accessed: Option<i64>,
    /// The data key, as an envelope under the KMS key that it was sealed with.
    pub data_key: Vec<u8>,
    /// Its place among the versions: later ones have higher numbers.
    pub row: i64,
}

/// What a transaction has done to a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The account that owns it.
    pub account: String,
    /// The name.
    pub name: String,
    /// The six random characters at the end of its ARN.
    pub suffix: String,
    /// Higher than that of every earlier change of this secret.
    pub revision: u64,
    /// The version that carries AWSCURRENT now.
    pub current: Option<String>,
    /// Whether that was another one before.
    pub moved: bool,
    /// Whether the secret is gone.
    pub gone: bool,
}

/// What a transaction has read and written of the secret that it is about: no transaction changes two.
#[derive(Default)]
pub(super) struct Trace {
    /// The version that carried AWSCURRENT when it was read last.
    before: Option<String>,
    change: Option<Change>,
}

impl Trace {
    fn note(&mut self, secret: &Secret, gone: bool) {
        let current = secret.version_with(CURRENT).filter(|_| !gone).map(str::to_owned);
        let moved = !gone && current != self.before;
        let moved = moved || self.change.as_ref().is_some_and(|change| change.moved);
        self.change = Some(Change {
            account: secret.account.clone(),
            name: secret.name.clone(),
            suffix: secret.suffix.clone(),
            // A deletion is the last change.
            revision: secret.revision.saturating_add(u64::from(gone)),
            current,
            moved,
            gone,
        });
    }
}

impl Records {
    /// The secret with this name.
    pub fn secret(&self, account: &str, name: &str) -> Result<Option<Arc<Secret>>> {
        self.cached(&cache_key(account, name), |rows| rows.secret(account, name))
    }
}

const VERSION: &str =
    "SELECT id, created, accessed, data_key, value FROM version WHERE secret = ?1 AND id = ?2";
const VERSIONS: &str = "SELECT id, created, accessed, data_key, row FROM version
     WHERE secret = ?1 AND row > ?2 ORDER BY row";

impl Rows<'_> {
    /// The secret with this name.
    pub fn secret(&mut self, account: &str, name: &str) -> Result<Option<Secret>> {
        let found = self.load(
            "SELECT doc, mac FROM secret WHERE account = ?1 AND name = ?2",
            &[account.into(), name.into()],
        )?;
        let found = belongs(found, |s: &Secret| s.account == account && s.name == name)?;
        self.secret.before =
            found.as_ref().and_then(|s| s.version_with(CURRENT)).map(str::to_owned);
        Ok(found)
    }

    /// What the transaction has done to a secret so far; none if it has written none.
    pub fn secret_change(&self) -> Option<&Change> {
        self.secret.change.as_ref()
    }

    /// Writes a secret.
    pub fn put_secret(&mut self, secret: &Secret) -> Result<()> {
        self.secret.note(secret, false);
        self.save(
            secret,
            "INSERT INTO secret (doc, mac, uid, account, name, created, changed, due, expires, notice,
             probe)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (uid) DO UPDATE SET doc = ?1, mac = ?2, changed = ?7, due = ?8, expires = ?9,
             notice = ?10, probe = ?11",
            &[
                secret.uid.into(),
                (&secret.account).into(),
                (&secret.name).into(),
                secret.created.0.into(),
                secret.changed.0.into(),
                due(secret.due),
                due(secret.expiry.map(|expiry| expiry.deadline)),
                due(secret.expiry.and_then(|expiry| expiry.notice)),
                due(secret.probe.map(Time)),
            ],
        )?;
        Ok(())
    }

    /// Takes a secret away with all its versions.
    pub fn delete_secret(&mut self, secret: &Secret) -> Result<()> {
        self.secret.note(secret, true);
        self.touch::<Secret>(&secret.key());
        self.touch::<Rotation>(&secret.uid.to_string());
        self.touch::<Probe>(&secret.uid.to_string());
        self.touch_versions(secret.uid);
        self.tx().execute("DELETE FROM rotation WHERE secret = ?1", &[secret.uid.into()])?;
        self.tx().execute("DELETE FROM probe WHERE secret = ?1", &[secret.uid.into()])?;
        self.tx().execute("DELETE FROM version WHERE secret = ?1", &[secret.uid.into()])?;
        self.tx().execute("DELETE FROM secret WHERE uid = ?1", &[secret.uid.into()])?;
        Ok(())
    }

    /// Secrets whose recovery window has ended.
    pub fn secrets_due(&mut self, now: Time, limit: i64) -> Result<Vec<Secret>> {
        let mut found = Vec::new();
        self.each(
            "SELECT doc, mac FROM secret WHERE due IS NOT NULL AND due <= ?1 LIMIT ?2",
            &[now.0.into(), limit.into()],
            |secret, _| {
                found.push(secret);
                Ok(true)
            },
        )?;
        Ok(found)
    }

    /// Secrets of whose deadlines notice is to be given; not of those that wait for their deletion.
    pub fn notices_due(&mut self, now: Time, limit: i64) -> Result<Vec<Secret>> {
        let mut found = Vec::new();
        self.each(
            "SELECT doc, mac FROM secret WHERE notice IS NOT NULL AND notice <= ?1 AND due IS NULL
             ORDER BY notice LIMIT ?2",
            &[now.0.into(), limit.into()],
            |secret, _| {
                found.push(secret);
                Ok(true)
            },
        )?;
        Ok(found)
    }

    /// How many secrets have deadlines, of those not past which are before either moment.
    pub fn expiring(&mut self, now: Time, before: [Time; 2]) -> Result<Expiring> {
        let mut count = |from: i64, to: i64| {
            let sql = "SELECT count(*) FROM secret
                 WHERE expires IS NOT NULL AND expires > ?1 AND expires <= ?2 AND due IS NULL";
            let found = one(self.tx(), sql, &[from.into(), to.into()], |row| row.int(0))?;
            Ok::<_, Error>(found.and_then(|found| u64::try_from(found).ok()).unwrap_or(0))
        };
        let [first, second] = before;
        Ok(Expiring {
            expired: count(i64::MIN, now.0)?,
            before: [count(now.0, first.0)?, count(now.0, second.0)?],
        })
    }

    /// The day of a secret's last read, days since 1970.
    pub fn accessed(&mut self, secret: &Secret) -> Result<Option<i64>> {
        let sql = "SELECT accessed FROM secret WHERE uid = ?1";
        Ok(one(self.tx(), sql, &[secret.uid.into()], |row| optional_int(row, 0))?.flatten())
    }

    /// Notes the day of a read of a secret and one of its versions.
    pub fn note_access(&mut self, uid: i64, version: &str, day: i64) -> Result<()> {
        self.touch_versions(uid);
        self.tx().execute(
            "UPDATE secret SET accessed = ?2 WHERE uid = ?1 AND coalesce(accessed, 0) < ?2",
            &[uid.into(), day.into()],
        )?;
        self.tx().execute(
            "UPDATE version SET accessed = ?3
             WHERE secret = ?1 AND id = ?2 AND coalesce(accessed, 0) < ?3",
            &[uid.into(), version.into(), day.into()],
        )?;
        Ok(())
    }

    /// One version with its ciphertext.
    pub fn version(&mut self, uid: i64, id: &str) -> Result<Option<Version>> {
        one(self.tx(), VERSION, &[uid.into(), id.into()], |row| {
            Ok(Version {
                id: row.text(0)?.to_owned(),
                created: Time(row.int(1)?),
                accessed: optional_int(row, 2)?,
                data_key: row.blob(3)?.to_vec(),
                value: row.blob(4)?.to_vec(),
            })
        })
    }

    /// Hands the versions of a secret that come after the place `after` to `each`, oldest first,
    /// until it answers `false`.
    pub fn each_version(
        &mut self,
        uid: i64,
        after: i64,
        mut each: impl FnMut(VersionInfo) -> bool,
    ) -> Result<()> {
        self.tx().query(VERSIONS, &[uid.into(), after.into()], &mut |row| {
            Ok(each(VersionInfo {
                id: row.text(0)?.to_owned(),
                created: Time(row.int(1)?),
                accessed: optional_int(row, 2)?,
                data_key: row.blob(3)?.to_vec(),
                row: row.int(4)?,
            }))
        })
    }

    /// Every version of a secret, oldest first, without values.
    pub fn versions(&mut self, uid: i64) -> Result<Vec<VersionInfo>> {
        let mut found = Vec::new();
        self.each_version(uid, 0, |version| {
            found.push(version);
            true
        })?;
        Ok(found)
    }

    /// Whether a version is there.
    pub fn has_version(&mut self, uid: i64, id: &str) -> Result<bool> {
        let sql = "SELECT row FROM version WHERE secret = ?1 AND id = ?2";
        Ok(one(self.tx(), sql, &[uid.into(), id.into()], |_| Ok(()))?.is_some())
    }

    /// Adds a version; that one of this id is there already is a fault of the caller's.
    pub fn add_version(&mut self, uid: i64, version: &Version) -> Result<()> {
        self.touch_versions(uid);
        let added = self.tx().execute(
            "INSERT INTO version (secret, id, created, data_key, value)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (secret, id) DO NOTHING",
            &[
                uid.into(),
                (&version.id).into(),
                version.created.0.into(),
                (&version.data_key).into(),
                (&version.value).into(),
            ],
        )?;
        if added == 1 { Ok(()) } else { Err(Error::Internal("a version that is there already")) }
    }

    /// Replaces a version's sealed data key (after a change of the KMS key); the value stays as it
    /// is, under the same data key.
    pub fn reseal_version(&mut self, uid: i64, id: &str, data_key: &[u8]) -> Result<()> {
        self.touch_versions(uid);
        self.tx().execute(
            "UPDATE version SET data_key = ?3 WHERE secret = ?1 AND id = ?2",
            &[uid.into(), id.into(), data_key.into()],
        )?;
        Ok(())
    }

    /// Hands up to `limit` versions of all secrets, in the order of their places after `after`, to
    /// `each`: secret, version id, sealed data key, place.
    pub fn data_keys(
        &mut self,
        after: i64,
        limit: i64,
        mut each: impl FnMut(Secret, String, Vec<u8>, i64),
    ) -> Result<()> {
        self.each(
            "SELECT secret.doc, secret.mac, version.id, version.data_key, version.row
             FROM version JOIN secret ON secret.uid = version.secret
             WHERE version.row > ?1 ORDER BY version.row LIMIT ?2",
            &[after.into(), limit.into()],
            |secret, row| {
                each(secret, row.text(2)?.to_owned(), row.blob(3)?.to_vec(), row.int(4)?);
                Ok(true)
            },
        )
    }

    /// The place of the latest version of all secrets; none where there is none.
    pub fn last_version(&mut self) -> Result<Option<i64>> {
        let sql = "SELECT row FROM version ORDER BY row DESC LIMIT 1";
        one(self.tx(), sql, &[], |row| row.int(0))
    }

    /// Replaces a version's sealed data key, if it is `known` still; answers whether it was.
    pub fn replace_data_key(
        &mut self,
        uid: i64,
        id: &str,
        known: &[u8],
        fresh: &[u8],
    ) -> Result<bool> {
        self.touch_versions(uid);
        let replaced = self.tx().execute(
            "UPDATE version SET data_key = ?4 WHERE secret = ?1 AND id = ?2 AND data_key = ?3",
            &[uid.into(), id.into(), known.into(), fresh.into()],
        )?;
        Ok(replaced == 1)
    }

    /// Takes a version away.
    pub fn delete_version(&mut self, uid: i64, id: &str) -> Result<()> {
        self.touch_versions(uid);
        self.tx().execute(
            "DELETE FROM version WHERE secret = ?1 AND id = ?2",
            &[uid.into(), id.into()],
        )?;
        Ok(())
    }
}

fn optional_int(row: &dyn Row, column: usize) -> Result<Option<i64>> {
    if row.is_null(column)? { Ok(None) } else { row.int(column).map(Some) }
}
