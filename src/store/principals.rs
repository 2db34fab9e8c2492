//! Principals and managed policies: users, groups, roles, as IAM keeps them.
//!
//! Whatever changes one of them also changes what is [`derived`](Records::derived) of the account's
//! [`STANDING`]: a decision made after the change knows it.

use super::grants::Holder;
use super::keys::Tag;
use super::records::{Document, Made, Records, Rows, belongs};
use super::{Result, Value, one};
use crate::clock::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What views of an account's principals are derived under.
pub const STANDING: &str = "standing";

/// An inline policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inline {
    /// Its name.
    pub name: String,
    /// The document as it was written.
    pub document: String,
}

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    /// The account.
    pub account: String,
    /// The name, unique in the account but for letter case.
    pub name: String,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// `AIDA` and 16 characters.
    pub id: String,
    /// When it was made.
    pub created: Time,
    /// Tags, in the order in which they were put.
    pub tags: Vec<Tag>,
    /// Inline policies, by name.
    pub inline: Vec<Inline>,
    /// ARNs of attached managed policies, in the order of attaching.
    pub attached: Vec<String>,
    /// Names of the groups that it is in, in the order of joining.
    pub groups: Vec<String>,
    /// The ARN of the managed policy that is its permissions boundary.
    pub boundary: Option<String>,
    /// Rises with every change.
    pub revision: u64,
}

/// A group of users.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// The account.
    pub account: String,
    /// The name.
    pub name: String,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// `AGPA` and 16 characters.
    pub id: String,
    /// When it was made.
    pub created: Time,
    /// Inline policies, by name.
    pub inline: Vec<Inline>,
    /// ARNs of attached managed policies.
    pub attached: Vec<String>,
    /// Rises with every change.
    pub revision: u64,
}

/// A role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Role {
    /// The account.
    pub account: String,
    /// The name.
    pub name: String,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// `AROA` and 16 characters.
    pub id: String,
    /// What its owner wrote about it.
    pub description: Option<String>,
    /// When it was made.
    pub created: Time,
    /// The longest session, in seconds: 3,600 to 43,200.
    pub max_session: i64,
    /// The trust policy as it was written.
    pub trust: String,
    /// Whom it means by the principals that it names, as far as they are of accounts here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust_holders: Vec<Holder>,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Inline policies, by name.
    pub inline: Vec<Inline>,
    /// ARNs of attached managed policies.
    pub attached: Vec<String>,
    /// The ARN of the managed policy that is its permissions boundary.
    pub boundary: Option<String>,
    /// Rises with every change.
    pub revision: u64,
    /// The compiled trust policy.
    #[serde(skip)]
    pub made: Made,
}

/// A customer's managed policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ManagedPolicy {
    /// The account.
    pub account: String,
    /// The name.
    pub name: String,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// `ANPA` and 16 characters.
    pub id: String,
    /// What its owner wrote about it.
    pub description: Option<String>,
    /// When it was made.
    pub created: Time,
    /// When a version was last added or made the default.
    pub updated: Time,
    /// One to five versions, oldest first.
    pub versions: Vec<PolicyVersion>,
    /// The id of the version that counts.
    pub default: String,
    /// The number of the next version.
    pub next: u32,
    /// Tags.
    pub tags: Vec<Tag>,
    /// Rises with every change.
    pub revision: u64,
}

/// A version of a managed policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// `v1`, `v2`, ...
    pub id: String,
    /// The document as it was written.
    pub document: String,
    /// When it was made.
    pub created: Time,
}

impl ManagedPolicy {
    /// The document that counts.
    pub fn document(&self) -> Option<&str> {
        self.versions.iter().find(|v| v.id == self.default).map(|v| v.document.as_str())
    }
}

/// `arn:aws:iam::ACCOUNT:KIND/PATH/NAME`; `kind` is `user`, `group`, `role` or `policy`.
pub fn arn(kind: &str, account: &str, path: &str, name: &str) -> String {
    ["arn:aws:iam::", account, ":", kind, path, name].concat()
}

impl User {
    /// Its ARN.
    pub fn arn(&self) -> String {
        arn("user", &self.account, &self.path, &self.name)
    }
}

impl Group {
    /// Its ARN.
    pub fn arn(&self) -> String {
        arn("group", &self.account, &self.path, &self.name)
    }
}

impl Role {
    /// Its ARN.
    pub fn arn(&self) -> String {
        arn("role", &self.account, &self.path, &self.name)
    }
}

impl ManagedPolicy {
    /// Its ARN.
    pub fn arn(&self) -> String {
        arn("policy", &self.account, &self.path, &self.name)
    }
}

fn cache_key(account: &str, name: &str) -> String {
    [account, ":", &name.to_ascii_lowercase()].concat()
}

/// A document that is found by its account and its name, whatever the letter case.
pub trait Named: Document {
    /// The account.
    fn account(&self) -> &str;
    /// The name.
    fn name(&self) -> &str;
    /// The unique id.
    fn id(&self) -> &str;
    /// `SELECT doc, mac ... WHERE account = ?1 AND folded = ?2`.
    const LOAD: &'static str;
    /// Inserts or replaces: `?1` doc, `?2` mac, `?3` account, `?4` folded, `?5` id.
    const SAVE: &'static str;
    /// Deletes: `?1` account, `?2` folded.
    const DELETE: &'static str;
    /// How many there are in account `?1`.
    const COUNT: &'static str;
    /// Up to `?3` whose folded names come after `?2` in account `?1`, by name.
    const LIST: &'static str;
}

macro_rules! named {
    ($document:ty, $table:literal) => {
        impl Document for $document {
            const TABLE: &'static str = $table;
            fn key(&self) -> String {
                cache_key(&self.account, &self.name)
            }
        }
        impl Named for $document {
            fn account(&self) -> &str {
                &self.account
            }
            fn name(&self) -> &str {
                &self.name
            }
            fn id(&self) -> &str {
                &self.id
            }
            const LOAD: &'static str =
                concat!("SELECT doc, mac FROM ", $table, " WHERE account = ?1 AND folded = ?2");
            const SAVE: &'static str = concat!(
                "INSERT INTO ",
                $table,
                " (doc, mac, account, folded, id) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (account, folded) DO UPDATE SET doc = ?1, mac = ?2, id = ?5"
            );
            const DELETE: &'static str =
                concat!("DELETE FROM ", $table, " WHERE account = ?1 AND folded = ?2");
            const COUNT: &'static str =
                concat!("SELECT count(*) FROM ", $table, " WHERE account = ?1");
            const LIST: &'static str = concat!(
                "SELECT doc, mac FROM ",
                $table,
                " WHERE account = ?1 AND folded > ?2 ORDER BY folded LIMIT ?3"
            );
        }
    };
}

named!(User, "iam_user");
named!(Group, "iam_group");
named!(Role, "iam_role");
named!(ManagedPolicy, "iam_policy");

impl Records {
    /// The principal or policy of this kind with this name, whatever the letter case.
    pub fn named<D: Named>(&self, account: &str, name: &str) -> Result<Option<Arc<D>>> {
        self.cached(&cache_key(account, name), |rows| rows.named::<D>(account, name))
    }
}

impl Rows<'_> {
    /// The principal or policy of this kind with this name, whatever the letter case.
    pub fn named<D: Named>(&mut self, account: &str, name: &str) -> Result<Option<D>> {
        let folded = name.to_ascii_lowercase();
        let found = self.load(D::LOAD, &[account.into(), (&folded).into()])?;
        belongs(found, |d: &D| d.account() == account && d.name().eq_ignore_ascii_case(name))
    }

    /// The user with this unique id. There is no index for it: this is for the rare case that it has
    /// another name than the one that is known.
    pub fn user_with_id(&mut self, account: &str, id: &str) -> Result<Option<User>> {
        let sql = "SELECT doc, mac FROM iam_user WHERE account = ?1 AND id = ?2";
        let found = self.load(sql, &[account.into(), id.into()])?;
        belongs(found, |user: &User| user.account == account && user.id == id)
    }

    /// Writes a principal or policy.
    pub fn put_named<D: Named>(&mut self, document: &D) -> Result<()> {
        self.touch_derived(STANDING, document.account());
        let folded = document.name().to_ascii_lowercase();
        self.save(
            document,
            D::SAVE,
            &[document.account().into(), (&folded).into(), document.id().into()],
        )?;
        Ok(())
    }

    /// Takes a principal or policy away.
    pub fn delete_named<D: Named>(&mut self, account: &str, name: &str) -> Result<()> {
        self.touch_derived(STANDING, account);
        self.touch::<D>(&cache_key(account, name));
        let folded = name.to_ascii_lowercase();
        self.tx().execute(D::DELETE, &[account.into(), (&folded).into()])?;
        Ok(())
    }

    /// How many documents of this kind an account has.
    pub fn count_named<D: Named>(&mut self, account: &str) -> Result<i64> {
        let count = one(self.tx(), D::COUNT, &[account.into()], |row| row.int(0))?;
        Ok(count.unwrap_or(0))
    }

    /// All of an account's documents of this kind, by name.
    pub fn all_named<D: Named>(&mut self, account: &str) -> Result<Vec<D>> {
        self.list_named(account, "", i64::MAX)
    }

    /// Up to `limit` of an account's documents of this kind whose names come after `after`, by name
    /// in lower case.
    pub fn list_named<D: Named>(
        &mut self,
        account: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<D>> {
        let mut found = Vec::new();
        let args: [Value<'_>; 3] = [account.into(), after.into(), limit.into()];
        self.each(D::LIST, &args, |document, _| {
            found.push(document);
            Ok(true)
        })?;
        Ok(found)
    }
}
