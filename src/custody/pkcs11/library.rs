//! The module itself: loading and initialising it, finding the token, logging in.

use super::errors::{Action, action};
use super::keys;
use crate::custody::profile::Profile;
use crate::custody::{Error, Locator, Result, TokenInfo};
use crate::secret::Secret;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;
use std::path::Path;

/// A loaded module, and the name of the token that it is loaded for (for messages).
pub(super) struct Library {
    module: Pkcs11,
    token: String,
}

impl Library {
    /// Loads `path`, or the first of the profile's paths that exists. Initialises nothing.
    pub(super) fn load(profile: &Profile, path: Option<&Path>, token: String) -> Result<Self> {
        let paths = || profile.module.iter().flat_map(|module| &module.paths);
        let known = || paths().map(AsRef::as_ref).find(|p: &&Path| p.exists());
        let Some(path) = path.or_else(known) else {
            let why = format!("no module of profile `{}` is installed", profile.name);
            return Err(Error::Unavailable { token, why });
        };
        match Pkcs11::new(path) {
            Ok(module) => Ok(Self { module, token }),
            Err(e) => {
                let why = format!("module `{}` can't be loaded: {e}", path.display());
                Err(Error::Unavailable { token, why })
            }
        }
    }

    /// C_Initialize. A module that somebody else in this process has initialised is refused: its
    /// state, and C_Finalize, belong to one owner. One that fails is finalised all the same: Kryoptic
    /// counts as initialised even then, and would refuse every further attempt.
    pub(super) fn initialize(&self) -> Result<()> {
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        self.module.initialize(arguments).map_err(|e| match e {
            Cryptoki::Pkcs11(RvError::CryptokiAlreadyInitialized, _) => {
                self.unavailable("its module is in use already in this process")
            }
            other => {
                self.finalize();
                self.failed(&other)
            }
        })
    }

    /// C_Finalize, which ends every session. A failure leaves nothing to do: C_Initialize will tell.
    pub(super) fn finalize(&self) {
        drop(self.module.clone().finalize());
    }

    /// The one initialised token that `locator` names.
    pub(super) fn find(&self, locator: &Locator) -> Result<(Slot, TokenInfo)> {
        let slots = self.module.get_slots_with_token().map_err(|e| self.failed(&e))?;
        let mut found = slots.into_iter().filter_map(|slot| {
            // A slot that can't be read is not the one that is looked for.
            let info = self.token_info(slot)?;
            let same = match locator {
                Locator::Serial(serial) => info.serial == *serial,
                Locator::Label(label) => info.label == *label,
            };
            same.then_some((slot, info))
        });
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(self.unavailable("more than one token answers to this name")),
            (None, _) => Err(self.unavailable("it is in no slot")),
        }
    }

    /// The one initialised token that the module has.
    pub(super) fn only(&self) -> Result<(Slot, TokenInfo)> {
        let slots = self.module.get_slots_with_token().map_err(|e| self.failed(&e))?;
        let mut found =
            slots.into_iter().filter_map(|slot| self.token_info(slot).map(|info| (slot, info)));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(self.unavailable("more than one is there: name one")),
            (None, _) => Err(self.unavailable("no slot has a token that was initialised")),
        }
    }

    /// What the token in `slot` says of itself, if there is an initialised one and it answers.
    pub(super) fn token_info(&self, slot: Slot) -> Option<TokenInfo> {
        let info = self.module.get_token_info(slot).ok().filter(|i| i.token_initialized())?;
        Some(TokenInfo {
            label: info.label().to_owned(),
            serial: info.serial_number().to_owned(),
            manufacturer: info.manufacturer_id().to_owned(),
            model: info.model().to_owned(),
        })
    }

    /// A slot whose token has never been initialised.
    pub(super) fn blank_slot(&self) -> Result<Slot> {
        let slots = self.module.get_slots_with_token().map_err(|e| self.failed(&e))?;
        let blank = |slot: &Slot| {
            self.module.get_token_info(*slot).is_ok_and(|info| !info.token_initialized())
        };
        slots.into_iter().find(blank).ok_or_else(|| self.unavailable("no slot has a blank token"))
    }

    /// The mechanisms of the token in `slot`, by their standard names.
    pub(super) fn mechanisms(&self, slot: Slot) -> Result<Vec<String>> {
        let have = self.module.get_mechanism_list(slot).map_err(|e| self.failed(&e))?;
        Ok(have.into_iter().map(keys::mechanism_name).collect())
    }

    /// The mechanisms among `wanted` that the token in `slot` does not have.
    pub(super) fn missing(&self, slot: Slot, wanted: &[&'static str]) -> Result<Vec<&'static str>> {
        let have = self.mechanisms(slot)?;
        Ok(wanted.iter().copied().filter(|want| !have.iter().any(|name| name == want)).collect())
    }

    /// A read-write session, which C_Finalize ends, not the drop of this value: a handle from
    /// before C_Finalize may be somebody else's session after it.
    pub(super) fn session(&self, slot: Slot) -> std::result::Result<Session, Cryptoki> {
        self.module.open_rw_session_no_drop(slot)
    }

    /// A session that is logged in, and with it every session of this process. The user's PIN is not
    /// sent while one try is left: a process that ends in its login is started again, and must not
    /// spend them all.
    pub(super) fn login(&self, slot: Slot, user: UserType, pin: &Secret) -> Result<Session> {
        let told = self.module.get_token_info(slot);
        let info = told.map_err(|e| self.unavailable(&e.to_string()))?;
        let spent = info.user_pin_final_try() || info.user_pin_locked();
        if matches!(user, UserType::User) && spent {
            let why = "one try is left for its PIN, or none; it was not sent: log in with the \
                       vendor's tool, which gives the tries back, or have the PIN set anew";
            return Err(Error::Pin { token: self.token.clone(), why: why.to_owned() });
        }
        let session = self.session(slot).map_err(|e| self.failed(&e))?;
        let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        session.login_with_raw(user, &pin).map_err(|e| self.failed(&e))?;
        Ok(session)
    }

    /// The binding's own handle, for setting up a token.
    pub(super) fn module(&self) -> &Pkcs11 {
        &self.module
    }

    /// An error in custody's words, for a call outside the normal path.
    pub(super) fn failed(&self, error: &Cryptoki) -> Error {
        let token = self.token.clone();
        let why = error.to_string();
        match action(error) {
            Action::Pin => Error::Pin { token, why },
            _ => Error::Unavailable { token, why },
        }
    }

    pub(super) fn unavailable(&self, why: &str) -> Error {
        Error::Unavailable { token: self.token.clone(), why: why.to_owned() }
    }
}
