//! The systems whose passwords and keys built-in rotation functions change.
//!
//! Every system has the same three functions: `test` logs in, `set_password` changes a password,
//! `clone_user` makes or refreshes the other one of two alternating users. SSH keys are of another
//! shape and have a file of their own.
//!
//! What a server says never leaves this folder: databases repeat the statement that failed, with
//! whatever stands in it. A [`Refusal`] has our own words and the server's code.

mod mysql;
mod postgres;
mod rabbitmq;
mod redis;
mod resp;
pub mod ssh;
mod stream;

use crate::roots::Roots;
use crate::secret::Secret;
use std::fmt::Display;
use std::time::Duration;

/// From the look-up of the name to the last answer of one step. A step that takes longer has
/// failed, and may or may not have had its effect.
const DEADLINE: Duration = Duration::from_secs(30);
/// The part of it that a TCP connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest password, in bytes: PostgreSQL's limit in a message of login, the least of them all.
const MAX_PASSWORD: usize = 1000;
/// The longest host name (RFC 1035 section 2.3.4), in bytes.
const MAX_HOST: usize = 255;
/// What AWS's functions append to the name of the first of two alternating users.
const CLONE: &str = "_clone";

/// How one logs in to a system.
pub struct Login {
    /// Name or address.
    pub host: String,
    /// TCP port; RabbitMQ's is that of its management plugin.
    pub port: u16,
    /// As whom.
    pub username: String,
    /// The password, UTF-8.
    pub password: Secret,
    /// The database that is opened, for the systems that have several.
    pub dbname: Option<String>,
    /// How the way there is protected.
    pub tls: Tls,
}

/// How a connection is protected. There is no "if the server likes": whoever sits between could
/// dislike it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    Off,
    /// TLS; the server's certificate leads to one of the machine's own roots and names the host.
    System,
    /// TLS; the server's certificate leads to one of these (PEM) and names the host.
    Roots(String),
}

impl Tls {
    /// Whom to trust; nothing without TLS.
    fn roots(&self) -> Option<Roots> {
        match self {
            Self::Off => None,
            Self::System => Some(Roots::System),
            Self::Roots(pem) => Some(Roots::Pem(pem.clone())),
        }
    }
}

/// Why a system did not do what it was asked. The texts hold no secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It can't be reached, is overloaded or going down: worth another try. Whether what was asked
    /// had its effect is not known.
    #[error("can't reach it: {0}")]
    Unreachable(String),
    /// The login is refused.
    #[error("it refuses the credentials ({0})")]
    Credentials(String),
    /// The new password is refused: too short, too simple, used before.
    #[error("it refuses the new password ({0})")]
    NewPassword(String),
    /// Anything else; no use in trying again as it stands.
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    /// Whether the same may work later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// Whether it is the login that was refused, and not what came after.
    pub fn is_of_credentials(&self) -> bool {
        matches!(self, Self::Credentials(_))
    }

    fn unreachable(why: impl Display) -> Self {
        Self::Unreachable(why.to_string())
    }

    fn other(why: impl Display) -> Self {
        Self::Other(why.to_string())
    }
}

/// A system with users and passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// Redis 6 or later: users of its ACL.
    Redis,
    /// RabbitMQ, through its management plugin.
    RabbitMq,
}

impl System {
    /// The system that `engine` of a secret names. AWS's names where AWS has one.
    pub fn named(engine: &str) -> Option<Self> {
        match engine {
            "postgres" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::Mysql),
            "redis" => Some(Self::Redis),
            "rabbitmq" => Some(Self::RabbitMq),
            _ => None,
        }
    }

    /// The port if the secret names none.
    pub fn port(self, tls: &Tls) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mysql => 3306,
            Self::Redis => 6379,
            Self::RabbitMq if *tls == Tls::Off => 15672,
            Self::RabbitMq => 15671,
        }
    }

    /// The other one of two alternating users: `app` and `app_clone`, as AWS's functions name them.
    ///
    /// # Errors
    /// The name would be longer than the system takes.
    pub fn other_user(self, user: &str) -> Result<String, Refusal> {
        let other = match user.strip_suffix(CLONE) {
            Some(first) => first.to_owned(),
            None => format!("{user}{CLONE}"),
        };
        self.check_user(&other).map(|()| other)
    }

    /// Logs in and asks for nothing of weight.
    ///
    /// # Errors
    /// As [`Refusal`] tells them apart.
    pub async fn test(self, login: &Login) -> Result<(), Refusal> {
        self.check_login(login)?;
        within(DEADLINE, async {
            match self {
                Self::Postgres => postgres::test(login).await,
                Self::Mysql => mysql::test(login).await,
                Self::Redis => redis::test(login).await,
                Self::RabbitMq => rabbitmq::test(login).await,
            }
        })
        .await
    }

    /// Gives `user` a new password, logged in as `admin`, which may be the same user.
    ///
    /// # Errors
    /// As [`Refusal`] tells them apart. After [`Refusal::Unreachable`] either password may hold.
    pub async fn set_password(
        self,
        admin: &Login,
        user: &str,
        new: &Secret,
    ) -> Result<(), Refusal> {
        self.check_login(admin)?;
        self.check_user(user)?;
        let new = checked_password(new)?;
        within(DEADLINE, async {
            match self {
                Self::Postgres => postgres::set_password(admin, user, new).await,
                Self::Mysql => mysql::set_password(admin, user, new).await,
                Self::Redis => redis::set_password(admin, user, new).await,
                Self::RabbitMq => rabbitmq::set_password(admin, user, new).await,
            }
        })
        .await
    }

    /// Makes sure that there is a user `clone` which may do what `user` may, and gives it the
    /// password `new`. The password is the last that changes: who can log in with it has the rights.
    ///
    /// # Errors
    /// As [`Refusal`] tells them apart. Calling it again after any of them is safe.
    pub async fn clone_user(
        self,
        admin: &Login,
        user: &str,
        clone: &str,
        new: &Secret,
    ) -> Result<(), Refusal> {
        self.check_login(admin)?;
        self.check_user(user)?;
        self.check_user(clone)?;
        let new = checked_password(new)?;
        if user == clone {
            return Err(Refusal::other("a user is no clone of itself"));
        }
        within(DEADLINE, async {
            match self {
                Self::Postgres => postgres::clone_user(admin, user, clone, new).await,
                Self::Mysql => mysql::clone_user(admin, user, clone, new).await,
                Self::Redis => redis::clone_user(admin, user, clone, new).await,
                Self::RabbitMq => rabbitmq::clone_user(admin, user, clone, new).await,
            }
        })
        .await
    }

    /// The longest name of a user, in bytes. PostgreSQL cuts longer ones off, and would change
    /// somebody else's password (NAMEDATALEN); MySQL has 32 characters, MariaDB 80.
    fn longest_user(self) -> usize {
        match self {
            Self::Postgres => 63,
            Self::Mysql => 80,
            Self::Redis | Self::RabbitMq => 255,
        }
    }

    fn check_user(self, user: &str) -> Result<(), Refusal> {
        let most = self.longest_user();
        if user.is_empty() || user.len() > most || user.contains('\0') {
            return Err(Refusal::other(format!("the user's name must have 1 to {most} bytes")));
        }
        let blank = |c: char| c.is_whitespace() || c.is_control();
        if self == Self::Redis && user.contains(blank) {
            return Err(Refusal::other("a user of Redis has no blank in its name"));
        }
        Ok(())
    }

    fn check_login(self, login: &Login) -> Result<(), Refusal> {
        self.check_user(&login.username)?;
        checked_password(&login.password)?;
        checked_host(&login.host)?;
        match &login.dbname {
            Some(name) if name.contains('\0') => Err(Refusal::other("`dbname` holds a NUL")),
            _ => Ok(()),
        }
    }
}

/// A password that systems take.
///
/// # Errors
/// It is none, or too long.
pub(in crate::rotate) fn checked_password(password: &Secret) -> Result<&str, Refusal> {
    let text = password.expose_str().filter(|text| !text.contains('\0'));
    text.filter(|text| (1..=MAX_PASSWORD).contains(&text.len()))
        .ok_or_else(|| Refusal::other(format!("a password is text of 1 to {MAX_PASSWORD} bytes")))
}

/// Names, IPv4 and IPv6 addresses; nothing that a program could take for an option.
fn checked_host(host: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".:-_".contains(c);
    if host.is_empty() || host.len() > MAX_HOST || host.starts_with('-') || !host.chars().all(fits)
    {
        return Err(Refusal::other("`host` is no name and no address"));
    }
    Ok(())
}

/// Bounds a step in time.
async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let late = || Refusal::Unreachable(format!("no answer within {} s", time.as_secs()));
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_users_alternate_and_a_name_that_would_be_cut_off_is_refused() {
        let system = System::Postgres;
        assert_eq!(system.other_user("app").as_deref(), Ok("app_clone"));
        assert_eq!(system.other_user("app_clone").as_deref(), Ok("app"));
        assert!(system.other_user(&"a".repeat(57)).is_ok());
        assert!(system.other_user(&"a".repeat(58)).is_err());
        assert!(system.other_user("_clone").is_err());
        assert!(system.check_user("a\0b").is_err());
        assert!(System::Redis.check_user("a b").is_err());
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_no_option() {
        for good in ["db.example.com", "127.0.0.1", "::1", "db_1"] {
            assert!(checked_host(good).is_ok(), "{good}");
        }
        for bad in ["", "-oProxyCommand=x", "a b", "a/b", "a@b", "ü", &"a".repeat(256)] {
            assert!(checked_host(bad).is_err(), "{bad}");
        }
    }
}
