//! `strongroom-single-user` and `strongroom-alternating-users`: passwords of the systems in
//! [`target`](crate::rotate::target), by secrets in AWS's documented structure.
//!
//! Whoever may write a secret must not get more by it than the secret gives: the administrator's
//! credentials (`masterarn`) go to the system that their own secret names, and only for a user whose
//! own password was just let in there.

use super::{Event, Failure, begun, promote, refused};
use crate::ops::shape::SecretText;
use crate::rotate::inside::Inside;
use crate::rotate::login;
use crate::rotate::rules::new_password;
use crate::rotate::secret_json::SecretJson;
use crate::rotate::target::{Login, Refusal, System, checked_password};
use crate::store::rotations::Step;

/// How many users a secret goes through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::rotate) enum Users {
    /// One, whose password changes.
    Single,
    /// Two, of which one is always left as it is.
    Alternating,
}

/// A secret in hand.
pub(in crate::rotate) struct Database<'a> {
    pub(in crate::rotate) inside: Inside<'a>,
    /// The secret's name.
    pub(in crate::rotate) name: &'a str,
    /// The secret of the administrator that whoever set up the rotation may read.
    pub(in crate::rotate) master: Option<&'a str>,
    pub(in crate::rotate) users: Users,
}

/// A value, and what it opens.
struct Opened {
    secret: SecretJson,
    system: System,
    login: Login,
}

impl Database<'_> {
    /// Does a step.
    pub(in crate::rotate) async fn invoke(&self, event: &Event<'_>) -> Result<(), Failure> {
        let token = event.client_request_token;
        match event.step {
            Step::Create => self.create(token).await,
            Step::Set => self.set(token).await,
            Step::Test => {
                let pending = self.pending(token).await?;
                pending.test().await.map_err(|refusal| refused("the new password", &refusal))
            }
            Step::Finish => promote(&self.inside, token).await,
        }
    }

    async fn create(&self, token: &str) -> Result<(), Failure> {
        if begun(&self.inside, token).await? {
            return Ok(());
        }
        let mut current = self.current().await?;
        if self.users == Users::Alternating {
            self.administrator(&current).await?;
            let other = current.system.other_user(&current.login.username);
            let other = other.map_err(|e| refused("the other user", &e))?;
            current.secret.set("username", &other);
        }
        let password = new_password(&self.inside, self.name).await?;
        // What no system takes is not even tried.
        let text = checked_password(&password.0);
        current.secret.set("password", text.map_err(|e| refused("the secret's rules", &e))?);
        let value = SecretText(current.secret.write()?);
        Ok(self.inside.put_pending(token, (Some(value), None)).await?)
    }

    async fn set(&self, token: &str) -> Result<(), Failure> {
        let pending = self.pending(token).await?;
        match pending.test().await {
            // An earlier attempt was heard.
            Ok(()) => return Ok(()),
            Err(refusal) if refusal.is_transient() => {
                return Err(refused("the new password", &refusal));
            }
            Err(_) => {}
        }
        let current = self.current().await?;
        if !pending.is_beside(&current) {
            let text = "AWSPENDING and AWSCURRENT name different systems";
            return Err(Failure::lasting(text));
        }
        match self.users {
            Users::Single => self.set_own(&pending, current).await,
            Users::Alternating => self.set_other(&pending, current).await,
        }
    }

    /// A user's password is changed by itself or, if the secret names one, by an administrator.
    async fn set_own(&self, pending: &Opened, current: Opened) -> Result<(), Failure> {
        let user = &pending.login.username;
        if *user != current.login.username {
            return Err(Failure::lasting("AWSPENDING and AWSCURRENT name different users"));
        }
        let admin = match current.secret.master_arn()? {
            Some(_) => Some(self.administrator(&current).await?),
            None => None,
        };
        let own = self.one_that_opens(current, admin.as_ref()).await?;
        let admin = admin.unwrap_or(own);
        let set = admin.system.set_password(&admin.login, user, &pending.login.password).await;
        set.map_err(|refusal| refused("the change of the password", &refusal))
    }

    /// The user that is not in use is made or refreshed after the one that is.
    async fn set_other(&self, pending: &Opened, current: Opened) -> Result<(), Failure> {
        let (system, user) = (current.system, current.login.username.clone());
        let other = system.other_user(&user).map_err(|e| refused("the other user", &e))?;
        if pending.login.username != other {
            let text = "AWSPENDING does not name the other one of AWSCURRENT's two users";
            return Err(Failure::lasting(text));
        }
        let admin = self.administrator(&current).await?;
        // A value that names somebody else must not lend out that one's rights.
        let tested = current.by_way_of(&admin).test().await;
        tested.map_err(|refusal| refused("the login with AWSCURRENT", &refusal))?;
        let password = &pending.login.password;
        let made = system.clone_user(&admin.login, &user, &other, password).await;
        made.map_err(|refusal| refused("the change of the other user", &refusal))
    }

    /// AWSCURRENT or, if it does not open any more, AWSPREVIOUS: a rotation that somebody broke off
    /// may have left that one in force.
    async fn one_that_opens(
        &self,
        current: Opened,
        admin: Option<&Opened>,
    ) -> Result<Opened, Failure> {
        let on_its_way = |opened: Opened| match admin {
            Some(admin) => opened.by_way_of(admin),
            None => opened,
        };
        let current = on_its_way(current);
        let refusal = match current.test().await {
            Ok(()) => return Ok(current),
            Err(refusal) => refused("the login with AWSCURRENT", &refusal),
        };
        if let Some(value) =
            self.inside.value("AWSPREVIOUS", None).await?.filter(|_| !refusal.again)
            && let Ok(previous) = login::read(&value).and_then(Opened::of)
            && previous.is_beside(&current)
            && previous.login.username == current.login.username
        {
            let previous = on_its_way(previous);
            if previous.test().await.is_ok() {
                return Ok(previous);
            }
        }
        Err(refusal)
    }

    /// The login of the administrator, to the system that a secret opens.
    async fn administrator(&self, of: &Opened) -> Result<Opened, Failure> {
        let named = of.secret.master_arn()?;
        let named = named.ok_or_else(|| Failure::lasting("the secret names no `masterarn`"))?;
        if self.master != Some(named.as_str()) {
            return Err(Failure::lasting(
                "the secret's `masterarn` is not the one that RotateSecret was called with: call it \
                 again, as somebody who may read that secret",
            ));
        }
        let inside = Inside { arn: &named, ..self.inside };
        let value = inside.value("AWSCURRENT", None).await?;
        let value = value.ok_or_else(|| Failure::lasting("the secret `masterarn` has no value"))?;
        let opened = login::read(&value).and_then(Opened::of);
        let admin = opened.map_err(|fault| {
            Failure::lasting(format!("the secret that `masterarn` names can't be used: {fault}"))
        })?;
        if !admin.is_beside(of) {
            let text = "the secret that `masterarn` names opens another system";
            return Err(Failure::lasting(text));
        }
        Ok(admin)
    }

    async fn current(&self) -> Result<Opened, Failure> {
        let value = self.inside.value("AWSCURRENT", None).await?;
        let value = value.ok_or_else(|| Failure::lasting("the secret has no value"))?;
        Ok(Opened::of(login::read(&value)?)?)
    }

    async fn pending(&self, token: &str) -> Result<Opened, Failure> {
        let value = self.inside.value("AWSPENDING", Some(token)).await?;
        let value = value.ok_or_else(|| Failure::passing("AWSPENDING has no value"))?;
        Ok(Opened::of(login::read(&value)?)?)
    }
}

impl Opened {
    fn of(secret: SecretJson) -> Result<Self, crate::rotate::secret_json::Fault> {
        Ok(Self { system: secret.system()?, login: secret.login()?, secret })
    }

    /// The same login over a connection as the administrator's: whoever wrote this secret has no say in
    /// what is believed of the server before the administrator's rights are lent out.
    fn by_way_of(mut self, admin: &Self) -> Self {
        self.login.tls.clone_from(&admin.login.tls);
        self
    }

    async fn test(&self) -> Result<(), Refusal> {
        self.system.test(&self.login).await
    }

    /// Whether both are of one and the same system.
    fn is_beside(&self, other: &Self) -> bool {
        let (one, two) = (&self.login, &other.login);
        self.system == other.system
            && one.port == two.port
            && one.host.eq_ignore_ascii_case(&two.host)
    }
}
