//! The driver of a YubiKey's PIV application: one card through PC/SC, kept usable while it is pulled
//! and put back.
//!
//! **One owner.** Whoever lets go of a card through this binding resets it under all others, so this
//! process has one connection, and one thread at a time uses it.
//!
//! **Epochs.** An epoch begins when the card is opened and its PIN verified, and ends with the first
//! call that the table in `errors` says needs another. Which key is in which slot is read from the
//! card then, and what a slot holds is looked at when it is first used.
//!
//! **The PIN** is sent once an epoch, or before each use if the profile says so; never when the card
//! has one try left, and never again in this process once it was refused.

mod card;
mod directory;
mod errors;
mod keys;
mod oaep;
mod setup;
mod survey;

pub(super) use setup::provision;
pub(super) use survey::survey;

use super::profile::Profile;
use super::{Access, Error, Health, Locator, Request, Response, Result, Token, TokenInfo, Worker};
use crate::secret::Secret;
use card::Card;
use errors::Action;
use keys::{Call, Epoch};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a card is left alone after an attempt to reach it that failed.
const BACKOFF: Duration = Duration::from_millis(200);

/// What went wrong with one attempt.
enum Fault {
    /// This is the answer: the card is well.
    Answer(Error),
    /// The card or the way to it; `halfway` if the call may have changed the card, so that it must
    /// not be made again unseen.
    Device { error: yubikey::Error, halfway: bool },
}

impl Fault {
    fn halfway(error: yubikey::Error) -> Self {
        Self::Device { error, halfway: true }
    }

    fn also_halfway(self) -> Self {
        match self {
            Self::Device { error, .. } => Self::halfway(error),
            Self::Answer(_) => self,
        }
    }

    /// As an error of custody's, where nothing is tried again.
    fn told(self, token: &str) -> Error {
        match self {
            Self::Answer(error) => error,
            Self::Device { error, .. } => {
                Error::Unavailable { token: token.to_owned(), why: error.to_string() }
            }
        }
    }
}

impl From<yubikey::Error> for Fault {
    fn from(error: yubikey::Error) -> Self {
        Self::Device { error, halfway: false }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

/// The one connection.
struct Seat {
    epoch: Option<Epoch>,
    /// The earliest time of the next attempt to reach the card.
    next: Option<Instant>,
}

/// What is told of the card without asking it.
struct Known {
    why: Option<String>,
    /// The card refused the PIN: nothing is tried again in this process.
    locked: bool,
    epochs: u64,
}

/// One card.
pub(crate) struct Driver {
    profile: Profile,
    info: TokenInfo,
    pin: Secret,
    seat: Mutex<Seat>,
    known: Mutex<Known>,
}

impl Driver {
    /// Finds the card and verifies the PIN.
    pub(crate) fn open(profile: Profile, access: Access) -> Result<Self> {
        let name = access.token.to_string();
        let epoch = begin(&access.token, &access.pin).map_err(|fault| fault.told(&name))?;
        Ok(Self {
            info: info(&profile, &epoch),
            profile,
            pin: access.pin,
            seat: Mutex::new(Seat { epoch: Some(epoch), next: None }),
            known: Mutex::new(Known { why: None, locked: false, epochs: 1 }),
        })
    }

    fn serve(&self, request: &Request) -> Result<Response> {
        let mut seat = self.seat.lock();
        let mut last = false;
        loop {
            let fresh = seat.epoch.is_none();
            let epoch = self.epoch(&mut seat)?;
            let mut call = Call { profile: &self.profile, pin: &self.pin, epoch };
            let (error, halfway) = match call.serve(request) {
                Ok(response) => return Ok(response),
                Err(Fault::Answer(error)) => return Err(self.noted(error)),
                Err(Fault::Device { error, halfway }) => (error, halfway),
            };
            // What fails on a new connection, too, has failed.
            last |= fresh;
            self.remedy(&mut seat, error, last || halfway)?;
            last = true;
        }
    }

    /// Does what the table says. `Ok`: the request may be made again.
    fn remedy(&self, seat: &mut Seat, error: yubikey::Error, last: bool) -> Result<()> {
        let why = error.to_string();
        match errors::action(error) {
            Action::Refused => Err(Error::Unsupported { profile: self.profile.name.clone(), why }),
            Action::Pin => Err(self.noted(self.locked(&why))),
            Action::Busy => Err(Error::Overloaded(self.info.label.clone())),
            // The connection is a new one: it stays.
            Action::Suspect if last && seat.epoch.is_some() => Err(self.unavailable(&why)),
            Action::Suspect | Action::Reopen => {
                seat.epoch = None;
                self.known.lock().why = Some(why.clone());
                if last { Err(self.unavailable(&why)) } else { Ok(()) }
            }
        }
    }

    /// The connection, opened anew if there is none; none once the card refused the PIN, which what
    /// needs it on a connection that is open would send again.
    fn epoch<'a>(&self, seat: &'a mut Seat) -> Result<&'a mut Epoch> {
        if self.known.lock().locked {
            seat.epoch = None;
        }
        if seat.epoch.is_none() {
            self.reach(seat)?;
        }
        seat.epoch.as_mut().ok_or_else(|| self.unavailable("it is not there"))
    }

    fn reach(&self, seat: &mut Seat) -> Result<()> {
        let known = self.known.lock();
        let why = known.why.clone().unwrap_or_default();
        if known.locked {
            return Err(self.locked(&why));
        }
        drop(known);
        if seat.next.is_some_and(|next| Instant::now() < next) {
            return Err(self.unavailable(&why));
        }
        tracing::warn!(token = self.info.label, why, "reaching for the card again");
        let begun = begin(&Locator::Serial(self.info.serial.clone()), &self.pin);
        match begun {
            Ok(epoch) => {
                seat.epoch = Some(epoch);
                let mut known = self.known.lock();
                (known.why, known.epochs) = (None, known.epochs.saturating_add(1));
                tracing::info!(token = self.info.label, "the card is back");
                Ok(())
            }
            Err(fault) => {
                seat.next = Instant::now().checked_add(BACKOFF);
                let error = self.noted(fault.told(&self.info.label));
                if let Error::Unavailable { why, .. } = &error {
                    self.known.lock().why = Some(why.clone());
                }
                Err(error)
            }
        }
    }

    /// Remembers that the PIN was refused.
    fn noted(&self, error: Error) -> Error {
        if let Error::Pin { why, .. } = &error {
            let mut known = self.known.lock();
            (known.locked, known.why) = (true, Some(why.clone()));
        }
        error
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::Unavailable { token: self.info.label.clone(), why: why.to_owned() }
    }

    fn locked(&self, why: &str) -> Error {
        Error::Pin { token: self.info.label.clone(), why: why.to_owned() }
    }
}

/// Opens the card and verifies the PIN, which is sent to no card that was not set up by us: one that
/// was reset has another.
fn begin(token: &Locator, pin: &Secret) -> std::result::Result<Epoch, Fault> {
    let (mut card, directory) = Card::open(token)?;
    let Some(directory) = directory else {
        let why = "this card was not set up for Strongroom, or was reset since".to_owned();
        card.leave();
        return Err(Error::Unavailable { token: token.to_string(), why }.into());
    };
    card.prove(pin)?;
    Ok(Epoch { card, directory, known: std::collections::HashMap::new() })
}

fn info(profile: &Profile, epoch: &Epoch) -> TokenInfo {
    TokenInfo {
        label: epoch.directory.label.clone(),
        serial: epoch.card.serial().to_string(),
        manufacturer: epoch.card.reader().to_owned(),
        model: format!("{}, firmware {}", profile.title, epoch.card.version()),
    }
}

/// One thread's way to the card.
struct Turn(Arc<Driver>);

impl Worker for Turn {
    fn serve(&mut self, request: &Request) -> Result<Response> {
        self.0.serve(request)
    }
}

impl super::Driver for Driver {
    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(Turn(self))
    }
}

impl Token for Driver {
    fn info(&self) -> &TokenInfo {
        &self.info
    }

    fn health(&self) -> Health {
        let known = self.known.lock();
        Health {
            up: known.why.is_none(),
            why: known.why.clone(),
            epoch: known.epochs,
            waiting: 0,
            seated: 0,
        }
    }
}
