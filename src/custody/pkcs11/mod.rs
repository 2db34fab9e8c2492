//! The PKCS#11 driver: one token behind one module, kept usable while it comes and goes.
//!
//! **Epochs.** An epoch begins with a login and ends when the library is finalised. Handles,
//! sessions and the set of verified keys belong to it and are forgotten with it.
//!
//! **The barrier.** Every call into the module is made under a read guard of `Driver::gate`;
//! finalising takes the write guard, so that no call is in flight then. Read guards don't exclude
//! each other: in the normal path no call waits for another in our code. Besides healing, only
//! destroying a key takes the write guard, so that no thread can be using its handle when the token
//! may give the same number to another key. Neither waits for ever: a call that hangs must not stop
//! those that could go on.
//!
//! **Healing.** One thread at a time heals, at most every `BACKOFF`; meanwhile all others fail at
//! once. What is done about which return value stands in `errors`.

mod agreement;
mod errors;
mod keys;
mod library;
mod pairs;
pub mod probe;
mod seat;
mod setup;
mod signer;
mod transport;

pub use setup::init_token;

use super::profile::Profile;
use super::{
    Access, BackingKeyId, Error, Health, KeyCheck, Locator, Request, Result, Scheme, Token,
    TokenInfo, Worker,
};
use crate::secret::Secret;
use cryptoki::error::Error as Cryptoki;
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use library::Library;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest time between two attempts to reach a token that is gone.
const BACKOFF: Duration = Duration::from_millis(200);

/// How long healing waits for calls in flight, and how long it then leaves alone a token with one
/// that does not end. Longer than an ordinary call of a slow token takes, or nothing would heal it
/// under load.
const HEALING_WAITS: Duration = Duration::from_secs(3);

/// How long destroying a key waits for them: all other requests wait with it, so not as long.
const DESTROYING_WAITS: Duration = Duration::from_secs(2);

/// In how many epochs in what time one key may be the reason to reach for the token again, if no
/// request for it succeeds meanwhile: all others wait with each attempt.
const STALE: (u32, Duration) = (3, Duration::from_secs(10));

const REACHING: &str = "it is being reached for again";

/// What went wrong with one attempt.
enum Fault {
    /// This is the answer: the token is well.
    Answer(Error),
    /// The token or the way to it; `halfway` if the call may have changed the token, so that it
    /// must not be made again unseen.
    Device { error: Cryptoki, halfway: bool },
    /// The token is not in its slot any more.
    Gone,
    /// The token is well, and does not do this for us.
    Unable(String),
}

impl Fault {
    fn halfway(error: Cryptoki) -> Self {
        Self::Device { error, halfway: true }
    }
}

impl From<Cryptoki> for Fault {
    fn from(error: Cryptoki) -> Self {
        Self::Device { error, halfway: false }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

/// A key that was found and verified in this epoch.
#[derive(Clone, Copy)]
struct Verified {
    handle: ObjectHandle,
    scheme: Scheme,
    check: KeyCheck,
}

/// One login and what belongs to it.
struct Epoch {
    number: u64,
    slot: Slot,
    /// Closing a process's last session logs it out, so this one stays open and unused.
    _anchor: Mutex<Session>,
    keys: RwLock<HashMap<BackingKeyId, Verified>>,
    /// Private keys that sign, by the same rule.
    signers: RwLock<HashMap<BackingKeyId, ObjectHandle>>,
}

impl Epoch {
    fn forget(&self, id: BackingKeyId) {
        self.keys.write().remove(&id);
        self.signers.write().remove(&id);
    }
}

/// A key whose handle the token did not know: in how many epochs, the last of them, and since when.
struct Stale {
    epochs: u32,
    last: Option<u64>,
    since: Instant,
}

enum State {
    Up(Epoch),
    Down {
        why: String,
    },
    /// The token refused the PIN: nothing is tried again in this process.
    Locked {
        why: String,
    },
}

impl State {
    fn epoch(&self, driver: &Driver) -> std::result::Result<&Epoch, (u64, Fault)> {
        match self {
            Self::Up(epoch) => Ok(epoch),
            Self::Down { .. } => Err((0, Fault::Gone)),
            Self::Locked { why } => Err((0, driver.locked(why).into())),
        }
    }
}

/// One token behind one module.
pub(crate) struct Driver {
    library: Library,
    profile: Profile,
    info: TokenInfo,
    pin: Secret,
    gate: RwLock<State>,
    /// Held by the one thread that heals; the earliest time of the next attempt.
    healing: Mutex<Option<Instant>>,
    /// Epochs so far.
    epochs: AtomicU64,
    /// Set while somebody waits for the write guard, or holds it, in order to heal.
    away: AtomicBool,
    /// Keys whose handles the token did not know; and whether there are any.
    stale: Mutex<HashMap<BackingKeyId, Stale>>,
    any_stale: AtomicBool,
}

impl Driver {
    /// Loads the module, finds the token, logs in, and checks that the token has what its profile
    /// promises.
    pub(crate) fn open(profile: Profile, access: Access) -> Result<Self> {
        let name = access.token.to_string();
        let library = Library::load(&profile, access.module.as_deref(), name)?;
        library.initialize()?;
        match begin(&library, &access.token, &access.pin, 1, Some(&profile)) {
            Ok((epoch, info)) => Ok(Self {
                library,
                profile,
                info,
                pin: access.pin,
                gate: RwLock::new(State::Up(epoch)),
                healing: Mutex::new(None),
                epochs: AtomicU64::new(1),
                away: AtomicBool::new(false),
                stale: Mutex::default(),
                any_stale: AtomicBool::new(false),
            }),
            Err(e) => {
                library.finalize();
                Err(e)
            }
        }
    }

    /// The read guard that every call into the module is made under.
    fn enter(&self) -> Result<RwLockReadGuard<'_, State>> {
        match self.gate.try_read() {
            Some(guard) => Ok(guard),
            None if self.away.load(Ordering::Acquire) => Err(self.unavailable(REACHING)),
            // A key is being destroyed: one short call, after those in flight.
            None => {
                let guard = self.gate.try_read_for(HEALING_WAITS);
                guard.ok_or_else(|| self.unavailable("a key's destruction does not end"))
            }
        }
    }

    /// Makes a new epoch in the place of epoch `seen` (0: of none), unless somebody has done so
    /// since, or is doing so, or did so a moment ago.
    fn heal(&self, seen: u64, why: &str) -> Result<()> {
        let Some(mut next) = self.healing.try_lock() else { return Err(self.unavailable(why)) };
        match &*self.enter()? {
            State::Up(epoch) if epoch.number != seen => return Ok(()),
            State::Locked { why } => return Err(self.locked(why)),
            State::Up(_) | State::Down { .. } => {}
        }
        if next.is_some_and(|next| Instant::now() < next) {
            return Err(self.unavailable(why));
        }
        tracing::warn!(token = self.info.label, why, "reaching for the token again");
        self.away.store(true, Ordering::Release);
        let state = self.gate.try_write_for(HEALING_WAITS);
        let (outcome, pause) = match state {
            Some(mut state) => (self.begin_again(&mut state), BACKOFF),
            None => (Err(self.unavailable("a call to it does not end")), HEALING_WAITS),
        };
        self.away.store(false, Ordering::Release);
        *next = Instant::now().checked_add(pause);
        if outcome.is_ok() {
            tracing::info!(token = self.info.label, "the token is back");
        }
        outcome
    }

    /// Behind the barrier: ends the epoch, and begins the next if the token is there.
    fn begin_again(&self, state: &mut State) -> Result<()> {
        *state = State::Down { why: REACHING.to_owned() };
        let number = self.epochs.load(Ordering::Acquire).saturating_add(1);
        self.library.finalize();
        let serial = Locator::Serial(self.info.serial.clone());
        let begun = self
            .library
            .initialize()
            .and_then(|()| begin(&self.library, &serial, &self.pin, number, None));
        match begun {
            Ok((epoch, _)) => {
                *state = State::Up(epoch);
                self.epochs.store(number, Ordering::Release);
                Ok(())
            }
            Err(Error::Pin { token, why }) => {
                *state = State::Locked { why: why.clone() };
                Err(Error::Pin { token, why })
            }
            Err(e) => {
                let why = match &e {
                    Error::Unavailable { why, .. } => why.clone(),
                    other => other.to_string(),
                };
                *state = State::Down { why: why.clone() };
                Err(self.unavailable(&why))
            }
        }
    }

    /// Whether the token of epoch `seen` still answers with its serial number.
    fn answers(&self, seen: u64) -> bool {
        self.enter().is_ok_and(|state| match &*state {
            State::Up(epoch) => epoch.number == seen && self.present(epoch),
            State::Down { .. } | State::Locked { .. } => false,
        })
    }

    /// Forgets the handle of a request's key, so that the next one searches for it: of a key that
    /// somebody else has destroyed Kryoptic says no more than that the call has failed.
    fn forget(&self, seen: u64, request: &Request) {
        let (Request::Derive { key, .. }
        | Request::Agree { key, .. }
        | Request::Unwrap { key, .. }
        | Request::Sign { key, .. }) = request
        else {
            return;
        };
        let Ok(state) = self.enter() else { return };
        if let State::Up(epoch) = &*state
            && epoch.number == seen
        {
            epoch.forget(key.id);
        }
    }

    /// Notes that the token did not know the handle of a request's key in epoch `seen`; answers whether
    /// that has been so in too many epochs for another one to help.
    fn is_chronic(&self, seen: u64, request: &Request) -> bool {
        let Some(id) = key_of(request) else { return false };
        let (now, (most, time)) = (Instant::now(), STALE);
        let mut stale = self.stale.lock();
        stale.retain(|_, key| now.saturating_duration_since(key.since) < time);
        let key = stale.entry(id).or_insert(Stale { epochs: 0, last: None, since: now });
        // Many threads find out at once: that is once.
        if key.last != Some(seen) {
            key.epochs = key.epochs.saturating_add(1);
            key.last = Some(seen);
        }
        self.any_stale.store(true, Ordering::Release);
        key.epochs > most
    }

    /// Forgets that, after a request that succeeded.
    fn is_well(&self, request: &Request) {
        if !self.any_stale.load(Ordering::Acquire) {
            return;
        }
        let mut stale = self.stale.lock();
        key_of(request).map(|id| stale.remove(&id));
        self.any_stale.store(!stale.is_empty(), Ordering::Release);
    }

    fn present(&self, epoch: &Epoch) -> bool {
        self.library.token_info(epoch.slot).is_some_and(|info| info.serial == self.info.serial)
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::Unavailable { token: self.info.label.clone(), why: why.to_owned() }
    }

    fn unable(&self, why: String) -> Error {
        Error::Unsupported { profile: self.profile.name.clone(), why }
    }

    fn locked(&self, why: &str) -> Error {
        Error::Pin { token: self.info.label.clone(), why: why.to_owned() }
    }
}

/// The key that a request uses.
fn key_of(request: &Request) -> Option<BackingKeyId> {
    match request {
        Request::Derive { key, .. }
        | Request::Agree { key, .. }
        | Request::Unwrap { key, .. }
        | Request::Attest { key, .. }
        | Request::Inspect { key }
        | Request::Sign { key, .. } => Some(key.id),
        Request::Destroy { id }
        | Request::Generate { id, .. }
        | Request::GenerateSigner { id, .. }
        | Request::Import { id, .. } => Some(*id),
        Request::Random { .. } => None,
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.library.finalize();
    }
}

/// Finds the token and logs in. With a profile, also checks the token against it.
fn begin(
    library: &Library,
    locator: &Locator,
    pin: &Secret,
    number: u64,
    promised: Option<&Profile>,
) -> Result<(Epoch, TokenInfo)> {
    let (slot, info) = library.find(locator)?;
    if let Some(profile) = promised {
        let needed: Vec<_> = profile.needed().collect();
        let missing = library.missing(slot, &needed)?;
        if !missing.is_empty() {
            let why = format!("this token lacks {}", missing.join(", "));
            return Err(Error::Unsupported { profile: profile.name.clone(), why });
        }
    }
    let anchor = library.login(slot, UserType::User, pin)?;
    let (keys, signers) = (RwLock::default(), RwLock::default());
    Ok((Epoch { number, slot, _anchor: Mutex::new(anchor), keys, signers }, info))
}

impl super::Driver for Driver {
    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(seat::Seat::new(self))
    }
}

impl Token for Driver {
    fn info(&self) -> &TokenInfo {
        &self.info
    }

    fn health(&self) -> Health {
        let why = match self.gate.try_read().as_deref() {
            Some(State::Up(_)) => None,
            Some(State::Down { why } | State::Locked { why }) => Some(why.clone()),
            None => self.away.load(Ordering::Acquire).then(|| REACHING.to_owned()),
        };
        let epoch = self.epochs.load(Ordering::Acquire);
        Health { up: why.is_none(), why, epoch, waiting: 0, seated: 0 }
    }
}
