//! What a card tells of itself before its PIN is given.

use super::card::Card;
use super::directory::{self, Directory};
use super::{Fault, setup};
use crate::custody::probe::Survey;
use crate::custody::profile::Profile;
use crate::custody::{Locator, Result, TokenInfo};

/// The reader that a virtual card is in, as PC/SC calls it.
const VIRTUAL: &str = "Virtual PCD";

/// Looks at the card of this serial number, or else the only one that there is; changes nothing, and
/// uses up no try of its PIN.
pub(in crate::custody) fn survey(profile: &Profile, token: &Locator) -> Result<Survey> {
    let mut card = setup::the_card(token)?;
    let serial = card.serial().to_string();
    let seen = look(&mut card, profile);
    card.leave();
    seen.map_err(|fault| fault.told(&serial))
}

fn look(card: &mut Card, profile: &Profile) -> std::result::Result<Survey, Fault> {
    let directory = card.directory()?;
    let version = card.version();
    let token = TokenInfo {
        label: directory.as_ref().map(|found| found.label.clone()).unwrap_or_default(),
        serial: card.serial().to_string(),
        manufacturer: card.reader().to_owned(),
        model: format!("{}, firmware {version}", profile.title),
    };
    let fits = fits(card.reader(), (version.major, version.minor));
    let closed = directory.is_none().then(|| "the card was not set up by `strongroom init`".into());
    Ok(Survey { token, told: told(card, directory.as_ref())?, fits: Some(fits), closed })
}

fn told(
    card: &mut Card,
    directory: Option<&Directory>,
) -> std::result::Result<Vec<(&'static str, String)>, Fault> {
    let tries = card.tries()?;
    let management = match card.management_key_is_triple_des()? {
        Some(true) => "of triple DES",
        Some(false) => "of AES: not usable here",
        None => "of a kind that this firmware does not tell: of triple DES",
    };
    let mut used = 0_usize;
    for slot in directory::slots() {
        used = used.saturating_add(usize::from(card.is_occupied(slot)?));
    }
    let (slots, ours) = (directory::slots().count(), directory.map_or(0, |d| d.entries.len()));
    let free = slots.saturating_sub(ours);
    Ok(vec![
        ("firmware", card.version().to_string()),
        ("PIN", format!("{tries} tries left; none was used")),
        ("management key", management.to_owned()),
        ("slots", format!("{free} of {slots} free for keys; in {used} of all is one")),
    ])
}

/// The profile for a card of this firmware in this reader.
fn fits(reader: &str, version: (u8, u8)) -> &'static str {
    match version {
        _ if reader.starts_with(VIRTUAL) => "virtual-piv",
        newer if newer >= (5, 7) => "yubikey-5-7",
        _ => "yubikey",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firmware_tells_which_profile() {
        assert_eq!(fits("Yubico YubiKey OTP+FIDO+CCID 00 00", (5, 4)), "yubikey");
        assert_eq!(fits("Yubico YubiKey OTP+FIDO+CCID 00 00", (4, 3)), "yubikey");
        assert_eq!(fits("Yubico YubiKey OTP+FIDO+CCID 00 00", (5, 7)), "yubikey-5-7");
        assert_eq!(fits("Virtual PCD 00 00", (5, 4)), "virtual-piv");
    }
}
