//! What the value of a secret opens, and whether it lets in.

use super::inside::Held;
use super::secret_json::{Fault, SecretJson};
use super::target::ssh::{self, Account};
use super::target::{Login, Refusal, System};

/// What a secret opens.
pub(super) enum Opens {
    /// A system with users and passwords.
    System(System, Login),
    /// An account over SSH.
    Account(Account),
}

/// Whether somebody is let in, if it is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A login has just succeeded.
    Open,
    /// It was refused.
    Refused(Refusal),
    /// The system can't be asked now.
    Unknown(Refusal),
}

impl Opens {
    /// What a value opens.
    ///
    /// # Errors
    /// It is not of a structure that is known here.
    pub(super) fn of(value: &Held) -> Result<Self, Fault> {
        let secret = read(value)?;
        if secret.has("private_key") {
            return secret.account().map(Self::Account);
        }
        Ok(Self::System(secret.system()?, secret.login()?))
    }

    /// Logs in.
    pub(super) async fn enter(&self) -> Entry {
        let entered = match self {
            Self::System(system, login) => system.test(login).await,
            Self::Account(account) => ssh::test(account).await,
        };
        match entered {
            Ok(()) => Entry::Open,
            Err(refusal) if refusal.is_transient() => Entry::Unknown(refusal),
            Err(refusal) => Entry::Refused(refusal),
        }
    }
}

/// A value as the JSON object that it must be.
///
/// # Errors
/// [`Fault::NotAnObject`], [`Fault::Twice`].
pub(super) fn read(value: &Held) -> Result<SecretJson, Fault> {
    let text = value.secret_string.as_ref().ok_or(Fault::NotAnObject)?;
    SecretJson::read(text.0.expose())
}
