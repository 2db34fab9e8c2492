//! Setting up a card: what `strongroom init` does once on one that nobody uses.

use super::Fault;
use super::card::Card;
use super::directory::{self, Directory};
use crate::custody::profile::Profile;
use crate::custody::{Access, Error, Locator, Result, TokenInfo};
use crate::secret::Secret;
use yubikey::MgmKey;

/// What every YubiKey comes with.
const FACTORY_PIN: &[u8] = b"123456";
const FACTORY_PUK: &[u8] = b"12345678";

/// The length of a PIN and of a PUK, in bytes (NIST SP 800-73-4, part 2, section 3.2.1).
const PIN: std::ops::RangeInclusive<usize> = 6..=8;

/// Sets a card up that is as it came from the factory: gives it a PIN, a PUK, a random management key
/// that is kept on it behind the PIN, and a label. Without a serial number in `access.token` there
/// must be one card alone. A card that bears this label already is left as it is. Blocks.
///
/// # Errors
/// [`Error::BadRequest`] for a label, PIN or PUK that no card takes, [`Error::Unavailable`] if there is
/// no card, or more than one, or one that is in use, [`Error::Unsupported`] if its management key is
/// not of triple DES.
pub(in crate::custody) fn provision(
    profile: &Profile,
    access: &Access,
    puk: &Secret,
    label: &str,
) -> Result<TokenInfo> {
    if !(1..=directory::MAX_LABEL).contains(&label.len()) {
        return Err(Error::BadRequest("a token's label has 1 to 32 bytes"));
    }
    if !PIN.contains(&access.pin.len()) || puk.len() != *PIN.end() {
        return Err(Error::BadRequest("a card's PIN has 6 to 8 bytes, its PUK 8"));
    }
    let mut card = the_card(&access.token)?;
    let serial = card.serial().to_string();
    let told = |fault: Fault| fault.told(&serial);
    match state(&mut card, profile, label).map_err(told) {
        Ok(State::Ours) => {}
        Ok(State::Factory) => furnish(&mut card, &access.pin, puk, label).map_err(told)?,
        Err(error) => {
            card.leave();
            return Err(error);
        }
    }
    // One connection at a time: the end of this one resets the card.
    drop(card);
    let epoch = super::begin(&Locator::Serial(serial.clone()), &access.pin).map_err(told)?;
    Ok(super::info(profile, &epoch))
}

/// What may be set up.
enum State {
    /// As it came from the factory.
    Factory,
    /// Set up for this appliance already, by an `init` that broke off afterwards.
    Ours,
}

/// The card of this serial number, or else the only one that there is.
pub(super) fn the_card(token: &Locator) -> Result<Card> {
    let unavailable = |why: String| Error::Unavailable { token: token.to_string(), why };
    if matches!(token, Locator::Serial(_)) {
        let (card, _) = Card::open(token).map_err(|fault| fault.told(&token.to_string()))?;
        return Ok(card);
    }
    let mut cards = Card::all().map_err(|fault| fault.told(&token.to_string()))?;
    let serials: Vec<_> = cards.iter().map(|card| card.serial().to_string()).collect();
    match (cards.pop(), cards.is_empty()) {
        (Some(card), true) => Ok(card),
        (None, _) => Err(unavailable("no YubiKey is in a reader".to_owned())),
        (Some(last), false) => {
            cards.into_iter().chain([last]).for_each(Card::leave);
            let serials = serials.join(", ");
            Err(unavailable(format!("there is more than one card ({serials}): leave one in")))
        }
    }
}

/// Whether the card may be set up; looks and changes nothing.
fn state(card: &mut Card, profile: &Profile, label: &str) -> std::result::Result<State, Fault> {
    let serial = card.serial().to_string();
    let refused = |why: String| Fault::from(Error::Unavailable { token: serial.clone(), why });
    if let Some(directory) = card.directory()? {
        let theirs = directory.label;
        return if theirs == label {
            Ok(State::Ours)
        } else {
            Err(refused(format!("it is the token `{theirs}` already; {RESET}")))
        };
    }
    if card.management_key_is_triple_des()? == Some(false) {
        let profile = profile.name.clone();
        return Err(Error::Unsupported { profile, why: AES.to_owned() }.into());
    }
    for slot in directory::slots() {
        if card.is_occupied(slot)? {
            let slot = u8::from(slot);
            return Err(refused(format!("slot {slot:02x} holds a key; {RESET}")));
        }
    }
    if !card.has_factory_pins()? {
        return Err(refused(format!("its PIN or PUK is not the factory's; {RESET}")));
    }
    Ok(State::Factory)
}

const RESET: &str = "`ykman piv reset` makes it as new and destroys every key in it";

const AES: &str = "the card's management key is of AES, as firmware 5.7 has it from the factory, and \
this program can use one of triple DES alone; `ykman piv access change-management-key --algorithm \
TDES --new-management-key 010203040506070801020304050607080102030405060708` makes it one, which is \
then replaced by a random one";

/// The directory comes last: a card without one is not used.
fn furnish(
    card: &mut Card,
    pin: &Secret,
    puk: &Secret,
    label: &str,
) -> std::result::Result<(), Fault> {
    match card.authenticate(MgmKey::default()) {
        Err(Fault::Device { error: yubikey::Error::AuthenticationError, .. }) => {
            let why = format!("its management key is not the factory's; {RESET}");
            return Err(Error::Unavailable { token: card.serial().to_string(), why }.into());
        }
        other => other?,
    }
    card.change_puk(FACTORY_PUK, puk)?;
    card.change_pin(FACTORY_PIN, pin)?;
    card.protect(&MgmKey::generate())?;
    card.save(&Directory { label: label.to_owned(), entries: Vec::new() })
}
