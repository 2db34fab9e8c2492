//! Making a token: what `strongroom init` does once on a blank one.

use super::library::Library;
use crate::custody::profile::Profile;
use crate::custody::{Error, Locator, Result, TokenInfo};
use crate::secret::Secret;
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use std::path::Path;

/// The longest label that PKCS#11 has room for, in bytes.
const MAX_LABEL: usize = 32;

/// Initialises a blank token: gives it a label, a security officer's PIN and a user PIN, and tells
/// its serial number. Blocks. The module is finalised when this returns, whatever happened.
///
/// # Errors
/// [`Error::BadRequest`] for a label or PIN that no token takes, [`Error::Pin`] if this token does
/// not take them, [`Error::Unavailable`] if a token of this label is there already, if there is no
/// blank one, or if the module can't be used.
pub fn init_token(
    profile: &Profile,
    module: Option<&Path>,
    label: &str,
    so_pin: &Secret,
    user_pin: &Secret,
) -> Result<TokenInfo> {
    if !(1..=MAX_LABEL).contains(&label.len()) || label.trim_end() != label {
        return Err(Error::BadRequest("a token's label has 1 to 32 bytes and no space at its end"));
    }
    let (so_pin, user_pin) = (text(so_pin)?, text(user_pin)?);
    let library = Library::load(profile, module, label.to_owned())?;
    library.initialize()?;
    let made = make(&library, label, &so_pin, &user_pin);
    library.finalize();
    made
}

fn make(library: &Library, label: &str, so: &AuthPin, user: &AuthPin) -> Result<TokenInfo> {
    let locator = Locator::Label(label.to_owned());
    if library.find(&locator).is_ok() {
        return Err(library.unavailable("a token of this label is there already"));
    }
    let failed = |e| library.failed(&e);
    library.module().init_token(library.blank_slot()?, so, label).map_err(failed)?;
    // The slot's number has changed.
    let (slot, info) = library.find(&locator)?;
    let session = library.session(slot).map_err(failed)?;
    session.login(UserType::So, Some(so)).map_err(failed)?;
    session.init_pin(user).map_err(failed)?;
    session.close().map_err(failed)?;
    Ok(info)
}

fn text(pin: &Secret) -> Result<AuthPin> {
    let text = pin.expose_str().filter(|text| !text.is_empty());
    text.map(|text| AuthPin::new(text.into())).ok_or(Error::BadRequest("a PIN is text, not empty"))
}
