//! The administrators that accounts begin with, that come back when nobody can get in, and that data
//! directories of before had without a user: what the appliance makes by itself.

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
use crate::store::principals::{User, arn};

/// What an account's first administrator is called.
const FIRST: &str = "administrator";

/// A new administrator's access key; the secret is told here and never again.
pub struct Administrator {
    /// The user.
    pub user_name: String,
    /// `AKIA...`.
    pub access_key_id: String,
    /// 40 characters.
    pub secret_access_key: Secret,
}

/// Makes an account with its first administrator.
///
/// # Errors
/// [`Condition::AlreadyExists`]; those of the database and of the audit log.
pub async fn found_account(services: &Services, account: &str) -> Result<Administrator> {
    let (user, key, administrator) = administrator(services, account, FIRST)?;
    let made = Account { id: account.to_owned(), created: user.created };
    let event = event("CreateAccount", account, &user);
    services
        .commit_event(&event, move |rows| {
            if rows.account(&made.id)?.is_some() {
                let text = format!("There is an account {} already", made.id);
                return Err(Error::new(Condition::AlreadyExists, text));
            }
            rows.put_account(&made)?;
            rows.put_named(&user)?;
            Ok(rows.put_access_key(&key)?)
        })
        .await?;
    Ok(administrator)
}

/// Makes one more administrator, for an account into which nobody gets any more.
///
/// # Errors
/// [`Condition::NotFound`]; those of the database and of the audit log.
pub async fn recover(services: &Services, account: &str) -> Result<Administrator> {
    let name = random_id(&*services.world.random, "recovery-")?;
    let (user, key, administrator) = administrator(services, account, &name)?;
    let event = event("RecoverAccount", account, &user);
    services
        .commit_event(&event, move |rows| {
            if rows.account(&user.account)?.is_none() {
                let text = format!("There is no account {}", user.account);
                return Err(Error::new(Condition::NotFound, text));
            }
            rows.put_named(&user)?;
            Ok(rows.put_access_key(&key)?)
        })
        .await?;
    Ok(administrator)
}

fn event(name: &'static str, account: &str, user: &User) -> Event {
    let (account, resources) = (account.to_owned(), vec![user.arn()]);
    Event { service: Service::Iam, name, account, resources }
}

fn administrator(
    services: &Services,
    account: &str,
    name: &str,
) -> Result<(User, AccessKey, Administrator)> {
    let (random, now) = (&*services.world.random, services.world.clock.now());
    let id = random_id(random, "AIDA")?;
    let arn = arn("user", account, "/", name);
    let holder = Holder { account, arn: &arn, id: &id, kind: Principal::User };
    let (key, secret_access_key) = services.mint.make(random, now, holder)?;
    let access_key_id = key.id.clone();
    let user = user(account, name, id, now);
    let administrator =
        Administrator { user_name: name.to_owned(), access_key_id, secret_access_key };
    Ok((user, key, administrator))
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
    let event = event("CreateUser", &key.account, &user);
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
