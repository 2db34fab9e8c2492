//! The tokens of an appliance: each has a name in the configuration and is known by its serial number.
//!
//! A token that is not there when the appliance starts is reached for until it comes; what the others
//! hold works meanwhile.

use super::lane::Lane;
use super::{Error, Result};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

/// Reaches a token. Blocks.
pub type Reach = Box<dyn Fn() -> Result<Lane> + Send + Sync>;

/// One token of the configuration.
pub struct Member {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it holds every new key whose scheme lets several tokens do so, besides the default
    /// token.
    pub holds_new_keys: bool,
    serial: String,
    lane: OnceLock<Lane>,
    /// How it is reached, and what came of the last attempt. Held during an attempt.
    reach: Mutex<(Reach, Option<Error>)>,
    /// The same, for those who don't wait.
    why: Mutex<String>,
}

impl Member {
    /// A token that nobody has reached for yet.
    pub fn new(name: &str, serial: &str, reach: Reach) -> Self {
        let (name, serial) = (name.to_owned(), serial.to_owned());
        let why = Mutex::new("it has not been reached yet".to_owned());
        Self {
            name,
            holds_new_keys: false,
            serial,
            lane: OnceLock::new(),
            reach: Mutex::new((reach, None)),
            why,
        }
    }

    /// A token that is there.
    pub fn reached(name: &str, lane: Lane) -> Self {
        let serial = lane.info().serial.clone();
        let member = Self::new(
            name,
            &serial,
            Box::new({
                let lane = lane.clone();
                move || Ok(lane.clone())
            }),
        );
        drop(member.lane.set(lane));
        member
    }

    /// The way to it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while it has not been reached.
    pub fn lane(&self) -> Result<&Lane> {
        self.lane.get().ok_or_else(|| Error::Unavailable {
            token: self.name.clone(),
            why: self.why.lock().clone(),
        })
    }

    /// Its serial number.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Reaches for it, unless it has been reached or has refused its PIN. Blocks.
    ///
    /// # Errors
    /// Those of reaching.
    pub fn reach(&self) -> Result<&Lane> {
        let mut attempt = self.reach.lock();
        if let Some(lane) = self.lane.get() {
            return Ok(lane);
        }
        // A PIN that was refused is not tried again: a token counts.
        if let Some(refused @ Error::Pin { .. }) = &attempt.1 {
            return Err(refused.clone());
        }
        match (attempt.0)() {
            Ok(lane) => Ok(self.lane.get_or_init(|| lane)),
            Err(error) => {
                *self.why.lock() = error.to_string();
                attempt.1 = Some(error.clone());
                Err(error)
            }
        }
    }
}

/// All tokens of an appliance; clones share them.
#[derive(Clone)]
pub struct Tokens(Arc<[Member]>);

impl Tokens {
    /// The most tokens of one appliance.
    pub const MOST: usize = 16;

    /// From one to [`Self::MOST`] tokens, the default one first, of different names and serial
    /// numbers; `None` if they are not.
    pub fn new(members: Vec<Member>) -> Option<Self> {
        let differ = members.iter().enumerate().all(|(at, one)| {
            let others = members.iter().skip(at.saturating_add(1));
            !others.clone().any(|other| other.name == one.name || other.serial == one.serial)
        });
        let right = (1..=Self::MOST).contains(&members.len()) && differ;
        right.then(|| Self(members.into()))
    }

    /// An appliance of one token.
    pub fn one(lane: Lane) -> Self {
        Self([Member::reached("main", lane)].into())
    }

    /// All of them, the default one first.
    pub fn all(&self) -> &[Member] {
        &self.0
    }

    /// The default one: new keys are made there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while it has not been reached.
    pub fn main(&self) -> Result<&Lane> {
        match self.0.first() {
            Some(first) => first.lane(),
            None => Err(unknown("")),
        }
    }

    /// The one of this serial number; the default one if that is empty.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the configuration has none, or while it has not been reached.
    pub fn of(&self, serial: &str) -> Result<&Lane> {
        let wanted = |member: &&Member| serial.is_empty() || member.serial == serial;
        let member = self.0.iter().find(wanted);
        member.ok_or_else(|| unknown(serial))?.lane()
    }

    /// Whether the configuration has one of this serial number.
    pub fn knows(&self, serial: &str) -> bool {
        serial.is_empty() || self.0.iter().any(|member| member.serial == serial)
    }

    /// Reaches for those that are missing. Blocks.
    pub fn reach_missing(&self) {
        for member in self.0.iter().filter(|member| member.lane.get().is_none()) {
            match member.reach() {
                Ok(_) => tracing::info!(token = member.name, "the token is there now"),
                Err(error) => tracing::debug!(token = member.name, %error, "not there yet"),
            }
        }
    }

    /// Whether all have been reached.
    pub fn complete(&self) -> bool {
        self.0.iter().all(|member| member.lane.get().is_some())
    }
}

fn unknown(serial: &str) -> Error {
    let why = "the configuration names no token of this serial number".into();
    Error::Unavailable { token: serial.to_owned(), why }
}
