//! Users for access keys that are older than users: those of data directories from before.

use crate::envelope::access_key::random_id;
use crate::name::Service;
use crate::ops::authority::last_part;
use crate::ops::call::Services;
use crate::ops::error::{Error, Result};
use crate::ops::event::Event;
use crate::policy::managed;
use crate::store::identity::{AccessKey, Principal};
use crate::store::principals::User;

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
    let event = Event {
        service: Service::Iam,
        name: "CreateUser",
        account: key.account.clone(),
        resources: vec![key.principal.clone()],
    };
    let mut key = key.clone();
    if key.principal_id.is_empty() {
        key.principal_id = random_id(&*services.world.random, "AIDA")?;
    }
    services
        .commit_event(&event, move |rows| {
            if let Principal::User = key.kind {
                let name = last_part(&key.principal);
                if rows.named::<User>(&key.account, name)?.is_none() {
                    rows.put_named(&administrator(&key, name))?;
                }
            }
            rows.put_access_key(&key)?;
            Ok::<_, Error>(())
        })
        .await
}

fn administrator(key: &AccessKey, name: &str) -> User {
    User {
        account: key.account.clone(),
        name: name.to_owned(),
        path: "/".to_owned(),
        id: key.principal_id.clone(),
        created: key.created,
        tags: Vec::new(),
        inline: Vec::new(),
        attached: vec![[managed::PREFIX, "AdministratorAccess"].concat()],
        groups: Vec::new(),
        boundary: None,
        revision: 1,
    }
}
