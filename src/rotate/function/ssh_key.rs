//! `strongroom-ssh-key`: an account gets a new key pair, and the old key goes once the new one is
//! current.

use super::{Event, Failure, begun, promote, refused};
use crate::ops::shape::SecretText;
use crate::rotate::inside::{Held, Inside};
use crate::rotate::login;
use crate::rotate::secret_json::SecretJson;
use crate::rotate::target::ssh::{self, Account};
use crate::store::rotations::Step;

/// Does a step.
pub(in crate::rotate) async fn invoke(
    inside: &Inside<'_>,
    event: &Event<'_>,
) -> Result<(), Failure> {
    let token = event.client_request_token;
    match event.step {
        Step::Create => create(inside, token).await,
        Step::Set => set(inside, token).await,
        Step::Test => {
            let tested = ssh::test(&pending(inside, token).await?.1).await;
            tested.map_err(|refusal| refused("the new key", &refusal))
        }
        Step::Finish => {
            promote(inside, token).await?;
            remove_old(inside, token).await
        }
    }
}

async fn create(inside: &Inside<'_>, token: &str) -> Result<(), Failure> {
    if begun(inside, token).await? {
        return Ok(());
    }
    let (mut secret, _) = current(inside).await?;
    let random = &*inside.services.world.random;
    let made = ssh::generate(random).map_err(crate::ops::error::Error::from)?;
    let (private, public) = made;
    secret.set("private_key", private.expose_str().unwrap_or_default());
    secret.set("public_key", &public.to_string());
    let value = SecretText(secret.write()?);
    Ok(inside.put_pending(token, (Some(value), None)).await?)
}

async fn set(inside: &Inside<'_>, token: &str) -> Result<(), Failure> {
    let (_, pending) = pending(inside, token).await?;
    match ssh::test(&pending).await {
        Ok(()) => return Ok(()),
        Err(refusal) if refusal.is_transient() => return Err(refused("the new key", &refusal)),
        Err(_) => {}
    }
    let (_, current) = current(inside).await?;
    if !same_account(&pending, &current) {
        return Err(Failure::lasting("AWSPENDING and AWSCURRENT name different accounts"));
    }
    let new = ssh::public_key(&pending.private_key).await;
    let new = new.map_err(|refusal| refused("the new key", &refusal))?;
    let installed = ssh::install(&current, &new).await;
    installed.map_err(|refusal| refused("the login with AWSCURRENT", &refusal))
}

/// The key that was current before goes; while it was, it had to stay.
async fn remove_old(inside: &Inside<'_>, token: &str) -> Result<(), Failure> {
    let Some(previous) = inside.value("AWSPREVIOUS", None).await? else { return Ok(()) };
    let new = inside.value("AWSCURRENT", Some(token)).await?;
    let new = new.ok_or_else(|| Failure::passing("the new key has no value"))?;
    let (_, new) = opened(&new)?;
    // What is no key, or one that nobody can read, has not opened the account either.
    let Ok((_, old)) = opened(&previous) else { return Ok(()) };
    let old = match ssh::public_key(&old.private_key).await {
        Ok(key) if same_account(&new, &old) => key,
        Err(refusal) if refusal.is_transient() => return Err(refused("the old key", &refusal)),
        _ => return Ok(()),
    };
    let own = ssh::public_key(&new.private_key).await;
    if own.map_err(|refusal| refused("the new key", &refusal))? == old {
        return Ok(());
    }
    let removed = ssh::remove(&new, &old).await;
    removed.map_err(|refusal| refused("the removal of the old key", &refusal))
}

async fn current(inside: &Inside<'_>) -> Result<(SecretJson, Account), Failure> {
    let value = inside.value("AWSCURRENT", None).await?;
    opened(&value.ok_or_else(|| Failure::lasting("the secret has no value"))?)
}

async fn pending(inside: &Inside<'_>, token: &str) -> Result<(SecretJson, Account), Failure> {
    let value = inside.value("AWSPENDING", Some(token)).await?;
    opened(&value.ok_or_else(|| Failure::passing("AWSPENDING has no value"))?)
}

fn opened(value: &Held) -> Result<(SecretJson, Account), Failure> {
    let secret = login::read(value)?;
    let account = secret.account()?;
    Ok((secret, account))
}

fn same_account(one: &Account, two: &Account) -> bool {
    one.port == two.port && one.username == two.username && one.host.eq_ignore_ascii_case(&two.host)
}
