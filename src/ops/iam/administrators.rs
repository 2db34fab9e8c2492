//! The administrators and root keys that accounts begin with, that let somebody in again, and the
//! administrators that data directories of before had without a user: what the appliance makes by
//! itself.

use super::quota;
use crate::clock::Time;
use crate::envelope::access_key::{Holder, random_id};
use crate::name::Service;
use crate::ops::authority::last_part;
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::event::Event;
use crate::policy::managed;
use crate::secret::Secret;
use crate::store::identity::{AccessKey, Account, Principal};
use crate::store::principals::User;
use crate::store::records::Rows;

/// What an account's first administrator is called.
const FIRST: &str = "administrator";

/// Who gets the access key that lets somebody into an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A new user with every right, whom policies bound like any other.
    Administrator,
    /// The account's root.
    Root,
}

/// A new access key; the secret is told here and never again.
pub struct NewKey {
    /// Whose it is: a user's ARN, or the root's.
    pub arn: String,
    /// `AKIA...`.
    pub access_key_id: String,
    /// 40 characters.
    pub secret_access_key: Secret,
    /// Ids of the keys of the same root that it took the place of.
    pub replaced: Vec<String>,
}

/// Makes an account and an access key for it.
///
/// # Errors
/// [`Condition::AlreadyExists`]; those of the database and of the audit log.
pub async fn found_account(services: &Services, account: &str, who: Who) -> Result<NewKey> {
    let (made, told) = Made::new(services, account, who, FIRST)?;
    let row = Account { id: account.to_owned(), created: made.key.created };
    let event = event("CreateAccount", account, &told.arn);
    services
        .commit_event(&event, move |rows| {
            if rows.account(&row.id)?.is_some() {
                let text = format!("There is an account {} already", row.id);
                return Err(Error::new(Condition::AlreadyExists, text));
            }
            rows.put_account(&row)?;
            made.put(rows)
        })
        .await?;
    Ok(told)
}

/// Makes one more access key, for an account into which nobody gets any more. A root that has as many
/// as it may loses the oldest: nobody else could delete keys that were lost.
///
/// # Errors
/// [`Condition::NotFound`]; those of the database and of the audit log.
pub async fn recover(services: &Services, account: &str, who: Who) -> Result<NewKey> {
    let name = random_id(&*services.world.random, "recovery-")?;
    let (made, told) = Made::new(services, account, who, &name)?;
    let event = event("RecoverAccount", account, &told.arn);
    let replaced = services
        .commit_event(&event, move |rows| {
            if rows.account(&made.key.account)?.is_none() {
                let text = format!("There is no account {}", made.key.account);
                return Err(Error::new(Condition::NotFound, text));
            }
            let replaced = made.make_room(rows)?;
            made.put(rows)?;
            Ok(replaced)
        })
        .await?;
    Ok(NewKey { replaced, ..told })
}

fn event(name: &'static str, account: &str, arn: &str) -> Event {
    let (account, resources) = (account.to_owned(), vec![arn.to_owned()]);
    Event { service: Service::Iam, name, account, resources }
}

/// An access key that was made and is not stored yet.
struct Made {
    key: AccessKey,
    /// Whose it is; none for the root, which is no document.
    user: Option<User>,
}

impl Made {
    /// `name`: what a new user is called.
    fn new(services: &Services, account: &str, who: Who, name: &str) -> Result<(Self, NewKey)> {
        let (random, now) = (&*services.world.random, services.world.clock.now());
        let user = match who {
            Who::Administrator => Some(user(account, name, random_id(random, "AIDA")?, now)),
            Who::Root => None,
        };
        let (arn, id, kind) = match &user {
            Some(user) => (user.arn(), user.id.as_str(), Principal::User),
            None => (["arn:aws:iam::", account, ":root"].concat(), account, Principal::Root),
        };
        let holder = Holder { account, arn: &arn, id, kind };
        let (key, secret_access_key) = services.mint.make(random, now, holder)?;
        let access_key_id = key.id.clone();
        let told = NewKey { arn, access_key_id, secret_access_key, replaced: Vec::new() };
        Ok((Self { key, user }, told))
    }

    /// Deletes the oldest keys of the same holder, so that with this one it has no more than it may.
    /// Answers which.
    fn make_room(&self, rows: &mut Rows<'_>) -> Result<Vec<String>> {
        let mut held = rows.access_keys_of(&self.key.account, &self.key.principal_id)?;
        held.sort_by_key(|key| key.created);
        let kept = quota::ACCESS_KEYS.saturating_sub(1);
        held.truncate(held.len().saturating_sub(kept));
        held.iter().try_for_each(|key| rows.delete_access_key(&key.id))?;
        Ok(held.into_iter().map(|key| key.id).collect())
    }

    fn put(&self, rows: &mut Rows<'_>) -> Result<()> {
        if let Some(user) = &self.user {
            rows.put_named(user)?;
        }
        Ok(rows.put_access_key(&self.key)?)
    }
}

/// A user with every right.
fn user(account: &str, name: &str, id: String, created: Time) -> User {
    User {
        account: account.to_owned(),
        name: name.to_owned(),
        path: "/".to_owned(),
        id,
        created,
        tags: Vec::new(),
        inline: Vec::new(),
        attached: vec![[managed::PREFIX, "AdministratorAccess"].concat()],
        groups: Vec::new(),
        boundary: None,
        revision: 1,
    }
}

/// Gives every access key that names no principal the user that it was made for, with the rights that
/// it had: all of them. Once; an event in the audit log. Answers how many there were.
///
/// # Errors
/// Those of the database and of the audit log.
pub async fn adopt(services: &Services) -> Result<usize> {
    let orphans = services.records.read(|rows| rows.access_keys_of_nobody())?;
    for key in &orphans {
        take_in(services, key).await?;
    }
    Ok(orphans.len())
}

async fn take_in(services: &Services, key: &AccessKey) -> Result<()> {
    let mut key = key.clone();
    if key.principal_id.is_empty() {
        key.principal_id = random_id(&*services.world.random, "AIDA")?;
    }
    let name = last_part(&key.principal);
    let user = user(&key.account, name, key.principal_id.clone(), key.created);
    let event = event("CreateUser", &key.account, &user.arn());
    services
        .commit_event(&event, move |rows| {
            if let Principal::User = key.kind
                && rows.named::<User>(&user.account, &user.name)?.is_none()
            {
                rows.put_named(&user)?;
            }
            rows.put_access_key(&key)?;
            Ok::<_, Error>(())
        })
        .await
}
