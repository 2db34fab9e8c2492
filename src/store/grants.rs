//! Grants on KMS keys.
//!
//! Whatever makes or ends a grant also changes what is [`derived`](super::records::Records::derived)
//! of [`GRANTS`] for its key: a decision made afterwards knows it.

use super::records::{Document, Rows, belongs};
use super::{Result, Value, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What views of a key's grants are derived under; the scope is the key's id.
pub const GRANTS: &str = "grants";

/// A grant. It never changes: it is made and it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// 64 hex digits.
    pub id: String,
    /// The id of the KMS key.
    pub key: String,
    /// The account that owns the key.
    pub account: String,
    /// The account of whoever made the grant.
    pub issuer: String,
    /// Its name, which need not be unique.
    pub name: Option<String>,
    /// When it was made.
    pub created: Time,
    /// Who may do what it allows.
    pub grantee: Holder,
    /// Who may end it.
    pub retiring: Option<Holder>,
    /// What it allows, by the names of the API: `Decrypt`, `ReEncryptFrom`, ...
    pub operations: Vec<String>,
    /// When it allows it.
    pub constraints: Constraints,
}

/// A principal that a grant or a resource's policy names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its ARN when it was named.
    pub arn: String,
    /// Its unique id, as `aws:userid` has it: `AIDA...` of a user, `AROA...` of a role,
    /// `AROA...:NAME` of a role session, the number of an account; the ARN for a principal of an
    /// account that is not of this appliance.
    pub id: String,
}

/// What has to be so before a grant allows something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraints {
    /// Pairs that the encryption context must have; empty for none.
    pub subset: BTreeMap<String, String>,
    /// The pairs that the encryption context must have, and no others; empty for no constraint.
    pub equals: BTreeMap<String, String>,
    /// The resource on whose behalf the request must be made.
    pub source_arn: Option<String>,
}

impl Document for Grant {
    const TABLE: &'static str = "kms_grant";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Rows<'_> {
    /// The grant with this id.
    pub fn grant(&mut self, id: &str) -> Result<Option<Grant>> {
        let found = self.load("SELECT doc, mac FROM kms_grant WHERE id = ?1", &[id.into()])?;
        belongs(found, |grant: &Grant| grant.id == id)
    }

    /// Writes a new grant.
    pub fn put_grant(&mut self, grant: &Grant) -> Result<()> {
        self.touch_derived(GRANTS, &grant.key);
        self.save(
            grant,
            "INSERT INTO kms_grant (doc, mac, id, key, grantee, retiring, name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            &[
                (&grant.id).into(),
                (&grant.key).into(),
                (&grant.grantee.id).into(),
                grant.retiring.as_ref().map(|holder| holder.id.as_str()).into(),
                grant.name.as_deref().into(),
            ],
        )?;
        Ok(())
    }

    /// Ends a grant.
    pub fn delete_grant(&mut self, grant: &Grant) -> Result<()> {
        self.touch_derived(GRANTS, &grant.key);
        self.touch::<Grant>(&grant.id);
        self.tx().execute("DELETE FROM kms_grant WHERE id = ?1", &[(&grant.id).into()])?;
        Ok(())
    }

    /// Ends every grant on a key.
    pub fn delete_grants_on(&mut self, key: &str) -> Result<()> {
        self.touch_derived(GRANTS, key);
        self.tx().execute("DELETE FROM kms_grant WHERE key = ?1", &[key.into()])?;
        Ok(())
    }

    /// How many grants there are on a key.
    pub fn count_grants(&mut self, key: &str) -> Result<i64> {
        let sql = "SELECT count(*) FROM kms_grant WHERE key = ?1";
        Ok(one(self.tx(), sql, &[key.into()], |row| row.int(0))?.unwrap_or(0))
    }

    /// The grants on a key that have this name.
    pub fn grants_named(&mut self, key: &str, name: &str) -> Result<Vec<Grant>> {
        let sql = "SELECT doc, mac FROM kms_grant WHERE key = ?1 AND name = ?2 ORDER BY id";
        self.grants(sql, &[key.into(), name.into()], |grant| {
            grant.key == key && grant.name.as_deref() == Some(name)
        })
    }

    /// Up to `limit` grants on a key whose ids come after `after`, by id; of one grantee's if it is
    /// given, by its unique id.
    pub fn grants_on(
        &mut self,
        key: &str,
        grantee: Option<&str>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Grant>> {
        let Some(grantee) = grantee else {
            let sql = "SELECT doc, mac FROM kms_grant WHERE key = ?1 AND id > ?2
                       ORDER BY id LIMIT ?3";
            let args: [Value<'_>; 3] = [key.into(), after.into(), limit.into()];
            return self.grants(sql, &args, |grant| grant.key == key);
        };
        let sql = "SELECT doc, mac FROM kms_grant WHERE key = ?1 AND grantee = ?2 AND id > ?3
                   ORDER BY id LIMIT ?4";
        let args: [Value<'_>; 4] = [key.into(), grantee.into(), after.into(), limit.into()];
        self.grants(sql, &args, |grant| grant.key == key && grant.grantee.id == grantee)
    }

    /// Up to `limit` grants that this principal may retire, by its unique id, whose ids come after
    /// `after`, by id.
    pub fn grants_retired_by(
        &mut self,
        retiring: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Grant>> {
        let sql = "SELECT doc, mac FROM kms_grant WHERE retiring = ?1 AND id > ?2
                   ORDER BY id LIMIT ?3";
        let args: [Value<'_>; 3] = [retiring.into(), after.into(), limit.into()];
        self.grants(sql, &args, |grant| {
            grant.retiring.as_ref().is_some_and(|holder| holder.id == retiring)
        })
    }

    /// The grants that `sql` finds, each of which must say of itself what it was found by: a grant
    /// gives power, so that a row moved to another key or principal is never taken for one.
    fn grants(
        &mut self,
        sql: &'static str,
        args: &[Value<'_>],
        here: impl Fn(&Grant) -> bool,
    ) -> Result<Vec<Grant>> {
        let mut found = Vec::new();
        self.each(sql, args, |grant: Grant, _| {
            found.extend(belongs(Some(grant), &here)?);
            Ok(true)
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Key;
    use super::super::records::{Records, RowMac};
    use super::super::sqlite::{Options, Sqlite};
    use super::super::{Error, Store};
    use super::*;
    use std::sync::Arc;

    fn records(dir: &std::path::Path) -> Records {
        let engine = Sqlite::open(Options::new(dir.join("data"))).expect("a database");
        Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10)
    }

    fn grant(id: &str, key: &str, grantee: &str, retiring: Option<&str>) -> Grant {
        let holder = |id: &str| Holder { arn: format!("arn of {id}"), id: id.to_owned() };
        Grant {
            id: id.to_owned(),
            key: key.to_owned(),
            account: "111122223333".to_owned(),
            issuer: "111122223333".to_owned(),
            name: Some("a name".to_owned()),
            created: Time(0),
            grantee: holder(grantee),
            retiring: retiring.map(holder),
            operations: vec!["Decrypt".to_owned()],
            constraints: Constraints::default(),
        }
    }

    fn ids(grants: Vec<Grant>) -> String {
        grants.into_iter().map(|grant| grant.id).collect()
    }

    #[tokio::test]
    async fn grants_are_found_by_key_grantee_name_and_retiring_principal() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path());
        let written = records.write(|rows| {
            rows.put_grant(&grant("a", "k", "U", Some("R")))?;
            rows.put_grant(&grant("b", "k", "V", None))?;
            rows.put_grant(&grant("c", "k", "U", Some("S")))?;
            rows.put_grant(&grant("d", "l", "U", Some("R")))
        });
        written.await.expect("written");
        let read = records.read(|rows| {
            assert_eq!(ids(rows.grants_on("k", None, "", 10)?), "abc");
            assert_eq!(ids(rows.grants_on("k", None, "a", 1)?), "b");
            assert_eq!(ids(rows.grants_on("k", Some("U"), "", 10)?), "ac");
            assert_eq!(ids(rows.grants_on("k", Some("U"), "a", 10)?), "c");
            assert_eq!(ids(rows.grants_retired_by("R", "", 10)?), "ad");
            assert_eq!(ids(rows.grants_named("k", "a name")?), "abc");
            assert_eq!(ids(rows.grants_named("k", "A name")?), "");
            assert_eq!(rows.count_grants("k")?, 3);
            Ok::<_, Error>(())
        });
        read.expect("read");
    }

    #[tokio::test]
    async fn a_derived_view_of_a_key_s_grants_ends_with_each_of_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path());
        let view = || {
            let load = |rows: &mut Rows<'_>| rows.grants_on("k", Some("U"), "", 10);
            let seen = records.derived::<_, Error>((GRANTS, "k"), "k/U", load).expect("a view");
            ids(Vec::clone(&seen))
        };
        assert_eq!(view(), "");
        let (a, b) = (grant("a", "k", "U", None), grant("b", "k", "U", None));
        let put = records.write(move |rows| {
            rows.put_grant(&a)?;
            rows.put_grant(&b)
        });
        put.await.expect("written");
        assert_eq!(view(), "ab");
        let a = grant("a", "k", "U", None);
        records.write(move |rows| rows.delete_grant(&a)).await.expect("deleted");
        assert_eq!(view(), "b");
        records.write(|rows| rows.delete_grants_on("k")).await.expect("deleted");
        assert_eq!(view(), "");
    }

    #[tokio::test]
    async fn the_grants_on_a_key_go_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path());
        let key: Key = serde_json::from_value(serde_json::json!({
            "id": "k", "account": "111122223333", "description": "", "state": "PendingDeletion",
            "manager": "CUSTOMER", "created": 0, "policy": "", "tags": [], "backing": [],
            "revision": 1,
        }))
        .expect("a key");
        let done = records.write(move |rows| {
            rows.put_key(&key)?;
            rows.put_grant(&grant("a", "k", "U", None))?;
            rows.put_grant(&grant("b", "l", "U", None))?;
            rows.delete_key(&key)
        });
        done.await.expect("written");
        let left = records.read(|rows| Ok::<_, Error>((rows.grant("a")?, rows.grant("b")?)));
        assert!(matches!(left, Ok((None, Some(_)))));
    }

    #[tokio::test]
    async fn a_grant_that_was_moved_to_another_principal_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path());
        let moved = records.write(|rows| {
            rows.put_grant(&grant("a", "k", "U", None))?;
            rows.tx().execute("UPDATE kms_grant SET grantee = 'V'", &[])?;
            Ok::<_, Error>(())
        });
        moved.await.expect("written");
        let read = records.read(|rows| rows.grants_on("k", Some("V"), "", 10));
        assert!(matches!(read, Err(Error::Corrupt(_))));
    }
}
