//! The TPM 2.0 driver: one TPM behind one ESAPI context, kept usable while it comes and goes.
//!
//! **Where keys are.** A TPM has room for three keys or so. Each key is a child of the storage
//! primary: when it is made, the TPM hands it out encrypted under a secret that never leaves it
//! (`blob`), and whoever asks for the key's use brings that along. It is loaded then, and stays
//! until another needs the place (`slots`). The TPM itself keeps nothing, so that there is nothing
//! in it to lose, and nothing to destroy: what destroys a key is that its wrapped form is deleted.
//!
//! **One owner.** A context is one command at a time, and several contexts starve each other and
//! take each other's places: the lane has one worker.
//!
//! **Healing.** A TPM that was restarted has forgotten what was loaded, and the context of old never
//! works again. Another is opened, at most every `BACKOFF`, when a request comes. No command changes
//! what the TPM keeps, so that each request may be made again, and is. What is done about which
//! response code stands in `errors`.

mod blob;
mod enrol;
mod errors;
mod link;
mod policy;
mod sealed;
mod seat;
mod shape;
mod slots;
mod survey;

use super::profile::Profile;
use super::{
    Access, BackingKeyId, Error, Health, Locator, Request, Response, Result, Scheme, Token,
    TokenInfo, Worker,
};
use crate::secret::Secret;
use aws_lc_rs::hkdf;
pub(super) use enrol::{answer, identity};
use errors::Action;
use link::Link;
use parking_lot::{Mutex, RwLock};
pub(super) use policy::current;
pub(super) use sealed::{seal, unseal};
use seat::Epoch;
use std::sync::Arc;
use std::time::{Duration, Instant};
pub(super) use survey::survey;
use tss_esapi::Error as Tss;
use tss_esapi::structures::Auth;
use zeroize::Zeroize;

/// The shortest time between two attempts to reach a TPM that is gone.
const BACKOFF: Duration = Duration::from_millis(200);

/// How long a TPM is left alone that takes no authorisations for a while.
const LOCKOUT_PAUSE: Duration = Duration::from_secs(10);

/// How long a TPM is left alone that asks for a moment.
const MOMENT: Duration = Duration::from_millis(20);

/// How often one request is tried.
const ATTEMPTS: usize = 3;

/// The shortest PIN, in bytes: nothing counts wrong ones, so that it must not be guessed.
const SHORTEST_PIN: usize = 16;

/// What the authorisation value of keys is derived for.
const AUTHORISATION: &[u8] = b"strongroom tpm authorisation v1";

/// Where the kernel's own resource manager is, which gives each of its users places of its own.
const DEVICE: &str = "device:/dev/tpmrm0";

/// What went wrong with one attempt.
enum Fault {
    /// This is the answer: the TPM is well.
    Answer(Error),
    /// The TPM or the way to it.
    Device(Tss),
    /// The TPM would not, or could not, work on what it was given. If it is well, this is the answer.
    Input(Tss, Error),
    /// This key does not take what is derived from the PIN.
    Unauthorised(Tss, BackingKeyId),
    /// The TPM is well, and does not do this for us.
    Unable(&'static str),
}

impl Fault {
    /// The TPM answered what no TPM should.
    const UNREADABLE: Self =
        Self::Device(Tss::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm));

    /// A key that the TPM won't load is not to be trusted: there is nothing else in that command that
    /// it could refuse.
    fn of_key(self, id: BackingKeyId) -> Self {
        let Self::Device(error) = &self else { return self };
        let why = match errors::action(error) {
            Action::Rejected => "this TPM has not made it, or it was altered since".to_owned(),
            Action::Refused => format!("this TPM can't read it: {}", errors::told(error)),
            _ => return self,
        };
        Self::Answer(Error::KeyRejected { id, why })
    }

    /// Of a command that uses this key: an authorisation that is refused is the key's.
    fn of_use(self, id: BackingKeyId) -> Self {
        match self {
            Self::Device(error) if errors::action(&error) == Action::Unauthorised => {
                Self::Unauthorised(error, id)
            }
            other => other,
        }
    }

    /// What the TPM refuses is the fault of what was given to it. Of a ciphertext that is none it
    /// may say no more than that it has failed.
    fn of_input(error: Tss, answer: Error) -> Self {
        match errors::action(&error) {
            Action::Refused | Action::Suspect => Self::Input(error, answer),
            _ => Self::Device(error),
        }
    }
}

impl From<Tss> for Fault {
    fn from(error: Tss) -> Self {
        Self::Device(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

enum State {
    Up(Box<Epoch>),
    Down {
        why: String,
        /// The earliest time of the next attempt.
        next: Option<Instant>,
    },
    /// The PIN was shown wrong: nothing is tried again in this process.
    Locked {
        why: String,
    },
}

/// What is known of the PIN. The TPM has nothing to try it on but the keys, each of which may have been
/// made under another.
#[derive(Clone, Copy)]
enum Pin {
    Untried,
    /// One key did not take it. When a second one doesn't, it is wrong.
    Doubted(BackingKeyId),
    /// A key took it: it is right, and one that does not take it is another's.
    Right,
}

/// One TPM.
pub(crate) struct Driver {
    device: String,
    profile: Profile,
    info: TokenInfo,
    auth: Auth,
    state: Mutex<State>,
    /// Outlives the ways to the TPM. Locked for moments, by who has the state.
    pin: Mutex<Pin>,
    /// A copy of what is known of the state, for who must not wait: why it is not up, and how many
    /// ways have been opened so far.
    told: RwLock<(Option<String>, u64)>,
}

impl Driver {
    /// Opens the way to the TPM, and makes sure that it is the one that `access` names. Whether the
    /// PIN is right shows at the first use of a key: the TPM holds nothing to try it on.
    pub(crate) fn open(profile: Profile, access: Access) -> Result<Self> {
        let (link, info) = reach(&profile, &access)?;
        if let Locator::Serial(serial) = &access.token
            && *serial != info.serial
        {
            return Err(unavailable(serial, ANOTHER));
        }
        let auth = authorisation(&access.pin, &link.name).ok_or(Error::BadRequest("a bad PIN"))?;
        let epoch = Epoch::new(link, auth.clone(), profile.boot.as_ref());
        let epoch = epoch.map_err(|e| unavailable(&info.label, &errors::told(&e)))?;
        let (state, told) = (Mutex::new(State::Up(Box::new(epoch))), RwLock::new((None, 1)));
        let device = access.device.unwrap_or_else(|| DEVICE.to_owned());
        let pin = Mutex::new(Pin::Untried);
        Ok(Self { device, profile, info, auth, state, pin, told })
    }

    /// Does one request, with what healing it takes.
    fn serve(&self, request: &Request) -> Result<Response> {
        self.able(request)?;
        let mut state = self.state.lock();
        self.certain(request)?;
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let epoch = self.reach(&mut state)?;
            let fault = match epoch.serve(request) {
                Ok(response) => {
                    self.taken(&response);
                    return Ok(response);
                }
                Err(fault) => fault,
            };
            last = self.remedy(&mut state, fault)?;
        }
        Err(self.unavailable(&last))
    }

    /// Refuses to make what the profile says that it can't make.
    fn able(&self, request: &Request) -> Result<()> {
        let Profile { name, schemes, signing, .. } = &self.profile;
        let why = match request {
            Request::Generate { scheme, .. } if !schemes.contains(scheme) => {
                format!("no scheme {scheme}")
            }
            Request::Import { scheme, .. } if *scheme != Scheme::HmacKdf => {
                format!("no import for scheme {scheme}")
            }
            Request::GenerateSigner { scheme, .. } if !signing.contains(scheme) => {
                format!("no signing by {scheme:?}")
            }
            _ => return Ok(()),
        };
        Err(Error::Unsupported { profile: name.clone(), why })
    }

    /// Makes no key under a PIN that is in doubt: under a wrong one it would work until the right one
    /// is back.
    fn certain(&self, request: &Request) -> Result<()> {
        use Request::{Generate, GenerateSigner, Import};
        match (request, *self.pin.lock()) {
            (Generate { .. } | Import { .. } | GenerateSigner { .. }, Pin::Doubted(id)) => {
                Err(self.unavailable(&format!("backing key {id} does not take the PIN")))
            }
            _ => Ok(()),
        }
    }

    /// Notes that the PIN is right, if this could not be answered by another.
    fn taken(&self, response: &Response) {
        if matches!(
            response,
            Response::MessageSecret(_) | Response::Signature(_) | Response::Proof(_)
        ) {
            *self.pin.lock() = Pin::Right;
        }
    }

    /// A key did not take the PIN.
    fn unauthorised(&self, state: &mut State, id: BackingKeyId, why: &str) -> Error {
        let mut pin = self.pin.lock();
        let whose = match *pin {
            Pin::Doubted(other) if other != id => return self.lock(state, why),
            Pin::Right => "other keys take it",
            Pin::Untried | Pin::Doubted(_) => {
                *pin = Pin::Doubted(id);
                "the PIN is wrong, or that key was made under another"
            }
        };
        Error::KeyRejected { id, why: format!("it does not take the PIN: {whose} ({why})") }
    }

    /// The PIN is wrong.
    fn lock(&self, state: &mut State, why: &str) -> Error {
        *state = State::Locked { why: why.to_owned() };
        self.told.write().0 = Some(why.to_owned());
        self.locked(why)
    }

    /// The way to the TPM, opened anew if there is none.
    fn reach<'a>(&self, state: &'a mut State) -> Result<&'a mut Epoch> {
        if let State::Down { why, next } = state {
            if next.is_some_and(|next| Instant::now() < next) {
                return Err(self.unavailable(why));
            }
            tracing::warn!(token = self.info.label, why, "reaching for the TPM again");
            match self.again() {
                Ok(epoch) => {
                    tracing::info!(token = self.info.label, "the TPM is back");
                    *state = State::Up(Box::new(epoch));
                    let mut told = self.told.write();
                    *told = (None, told.1.saturating_add(1));
                }
                Err(why) => self.down(state, &why, BACKOFF),
            }
        }
        match state {
            State::Up(epoch) => Ok(epoch),
            State::Down { why, .. } => Err(self.unavailable(why)),
            State::Locked { why } => Err(self.locked(why)),
        }
    }

    fn again(&self) -> std::result::Result<Epoch, String> {
        let link = Link::open(&self.device, self.profile.encrypt_bus).map_err(|e| unreached(&e))?;
        if link::serial(&link.name) != self.info.serial {
            return Err(ANOTHER.to_owned());
        }
        let boot = self.profile.boot.as_ref();
        Epoch::new(link, self.auth.clone(), boot).map_err(|e| unreached(&e))
    }

    /// Does what the table says. `Ok`: the request may be tried again.
    fn remedy(&self, state: &mut State, fault: Fault) -> Result<String> {
        let (error, answer) = match fault {
            Fault::Answer(error) => return Err(error),
            Fault::Device(error) => (error, None),
            Fault::Input(error, answer) => (error, Some(answer)),
            Fault::Unauthorised(error, id) => {
                return Err(self.unauthorised(state, id, &errors::told(&error)));
            }
            Fault::Unable(why) => {
                let profile = self.profile.name.clone();
                return Err(Error::Unsupported { profile, why: why.to_owned() });
            }
        };
        let why = errors::told(&error);
        match errors::action(&error) {
            Action::Again => std::thread::park_timeout(MOMENT),
            // There was nothing of ours to flush: somebody else holds the places.
            Action::Reconnect | Action::MakeRoom => self.broken(state, &why),
            Action::Suspect if answers(state) => {
                return Err(answer.unwrap_or_else(|| self.unavailable(&why)));
            }
            Action::Suspect => self.broken(state, &why),
            Action::Lockout => {
                self.down(state, &why, LOCKOUT_PAUSE);
                return Err(self.unavailable(&why));
            }
            Action::Pin => return Err(self.lock(state, &why)),
            Action::Busy => return Err(Error::Overloaded(self.info.label.clone())),
            // Not a key of ours: the storage key has a password.
            Action::Stop | Action::Unauthorised => return Err(self.unavailable(&why)),
            Action::Refused | Action::Rejected => {
                let profile = self.profile.name.clone();
                return Err(answer.unwrap_or(Error::Unsupported { profile, why }));
            }
        }
        Ok(why)
    }

    /// The way to the TPM has ended; the next attempt opens another at once.
    fn broken(&self, state: &mut State, why: &str) {
        *state = State::Down { why: why.to_owned(), next: None };
        self.told.write().0 = Some(why.to_owned());
    }

    fn down(&self, state: &mut State, why: &str, pause: Duration) {
        *state = State::Down { why: why.to_owned(), next: Instant::now().checked_add(pause) };
        self.told.write().0 = Some(why.to_owned());
    }

    fn unavailable(&self, why: &str) -> Error {
        unavailable(&self.info.label, why)
    }

    fn locked(&self, why: &str) -> Error {
        Error::Pin { token: self.info.label.clone(), why: why.to_owned() }
    }
}

/// Looks at the TPM that an appliance is to be made on; there is nothing in it to be made ready.
///
/// # Errors
/// [`Error::Unavailable`] if it can't be reached, [`Error::BadRequest`] for a PIN that is too short.
pub(super) fn look(profile: &Profile, access: &Access) -> Result<TokenInfo> {
    reach(profile, access).map(|(_, info)| info)
}

/// The way to the TPM and what it says of itself.
fn reach(profile: &Profile, access: &Access) -> Result<(Link, TokenInfo)> {
    if access.pin.len() < SHORTEST_PIN {
        return Err(Error::BadRequest("the PIN for a TPM's keys has at least 16 bytes"));
    }
    let device = access.device.as_deref().unwrap_or(DEVICE);
    let missing = |error| unavailable(device, &unreached(&error));
    let mut link = Link::open(device, profile.encrypt_bus).map_err(missing)?;
    let info = info(&mut link).map_err(missing)?;
    Ok((link, info))
}

const ANOTHER: &str = "this is another TPM, or it was cleared: its storage key is another";

fn answers(state: &mut State) -> bool {
    match state {
        State::Up(epoch) => epoch.answers(),
        State::Down { .. } | State::Locked { .. } => false,
    }
}

fn unavailable(token: &str, why: &str) -> Error {
    Error::Unavailable { token: token.to_owned(), why: why.to_owned() }
}

/// Why there is no way to the TPM.
fn unreached(error: &Tss) -> String {
    let why = errors::told(error);
    match errors::action(error) {
        Action::Unauthorised | Action::Pin => format!(
            "the owner hierarchy has a password; keep the storage key at {:#x} (docs/hardware.md): \
             {why}",
            link::KEPT_PRIMARY
        ),
        _ => why,
    }
}

fn info(link: &mut Link) -> std::result::Result<TokenInfo, Tss> {
    let serial = link::serial(&link.name);
    let (manufacturer, model) = link.maker()?;
    Ok(TokenInfo { label: format!("tpm-{serial}"), serial, manufacturer, model })
}

/// HKDF-SHA-256(secret = PIN, salt = the storage primary's name, info = [`AUTHORISATION`]), 32 bytes
/// (RFC 5869): what keys of this TPM are authorised by. The last byte is odd, since a TPM cuts zeros
/// off the end.
fn authorisation(pin: &Secret, primary: &[u8]) -> Option<Auth> {
    let mut value = [0; 32];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, primary).extract(pin.expose());
    extracted.expand(&[AUTHORISATION], hkdf::HKDF_SHA256).ok()?.fill(&mut value).ok()?;
    if let Some(last) = value.last_mut() {
        *last |= 1;
    }
    let auth = Auth::try_from(value.as_slice()).ok();
    value.zeroize();
    auth
}

impl super::Driver for Driver {
    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(Seat(self))
    }
}

impl Token for Driver {
    fn info(&self) -> &TokenInfo {
        &self.info
    }

    fn health(&self) -> Health {
        let (why, epoch) = self.told.read().clone();
        Health { up: why.is_none(), why, epoch, waiting: 0, seated: 0 }
    }
}

/// The lane's one thread at the TPM.
struct Seat(Arc<Driver>);

impl Worker for Seat {
    fn serve(&mut self, request: &Request) -> Result<Response> {
        self.0.serve(request)
    }
}
