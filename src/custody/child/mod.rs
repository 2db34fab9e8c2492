//! A token whose driver runs in a process of its own, so that a vendor's library that crashes or
//! hangs is a restart of that process and not of the service.
//!
//! The process is this program again (see [`host`]): it opens the token with the same driver and
//! answers on local sockets, one for each of the lane's threads. What the driver heals it heals
//! there; what only a new process heals is healed here: one that has ended, does not answer, or has
//! a call in it that does not come back is killed and another one started (see `keeper`).
//!
//! **The PIN** goes to it through the socket, never by its arguments or its environment. Once the
//! token has refused it no other process is started, so that nothing locks it.
//!
//! **Requests in flight** when the process ends are asked once more of the next one if they change
//! nothing; of the others nobody knows whether they were done, and their callers are told so.

pub mod host;
mod keeper;
pub mod message;
mod process;
#[cfg(test)]
mod tests;
mod wire;

use super::lane::{self, Lane};
use super::profile::Profile;
use super::sealed::Opener;
use super::{Access, Error, Health, Request, Response, Result, Token, TokenInfo, Worker};
use crate::secret::Secret;
use message::{
    MOST, read_answers, read_opened, read_unsealed, write_opening, write_requests, write_unsealing,
};
use parking_lot::{Condvar, Mutex};
use process::Process;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use wire::{Channel, Writer};

/// How much longer than a caller waits a call may take before it counts as one that hangs.
const HANG_MARGIN: Duration = Duration::from_secs(2);

/// How long a request that may be asked once more waits for the next process.
const RETRY_WAITS: Duration = Duration::from_secs(1);

/// What is asked of a software token in one message takes no longer than this, going by those before:
/// so that nobody waits long for the others' answers. There a message costs as much as what it asks. A
/// device takes longer and does several things at a time: it is asked by as many threads as it has
/// sessions.
const TOGETHER: Duration = Duration::from_millis(1);

const STARTING: &str = "its process is being started";

/// Where a token's driver runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// In a process of its own.
    #[default]
    Process,
    /// In the server's process.
    None,
}

/// The program that holds tokens, and what it finds in its environment besides the server's.
pub struct Program {
    path: PathBuf,
    environment: Vec<(String, PathBuf)>,
}

impl Program {
    /// This program, even if its file has been replaced meanwhile: both sides must be of one version.
    pub fn this(environment: Vec<(String, PathBuf)>) -> Self {
        Self::at(Path::new("/proc/self/exe"), environment)
    }

    /// The program in this file.
    pub fn at(path: &Path, environment: Vec<(String, PathBuf)>) -> Self {
        Self { path: path.to_owned(), environment }
    }
}

/// As [`custody::open`](super::open), with the driver in a process of its own.
///
/// # Errors
/// As there; [`Error::Unavailable`] if the process can't be started.
pub fn open(
    profile: Profile,
    access: Access,
    options: &lane::Options,
    program: Program,
) -> Result<Lane> {
    let settings = options.check(&profile)?;
    let patience = Duration::from_millis(options.deadline_ms).saturating_add(HANG_MARGIN);
    let token = Remote::start(profile, access, program, patience)?;
    Lane::start(Arc::new(token), settings)
}

/// As [`custody::provision`](super::provision), in a process of its own. Blocks.
///
/// # Errors
/// As there; [`Error::Unavailable`] if the process can't be started, or ends.
pub fn provision(
    profile: &Profile,
    access: &Access,
    so_pin: &Secret,
    label: &str,
    program: &Program,
) -> Result<TokenInfo> {
    let process = Process::spawn(program).map_err(|e| Error::Unavailable {
        token: label.to_owned(),
        why: format!("its process can't be started: {e}"),
    })?;
    let blank = Some((so_pin, label));
    let write = |w: &mut Writer<'_>| write_opening(w, profile, access, blank);
    let (process, (info, _)) = process.open(label, write, read_opened)?;
    process.end();
    Ok(info)
}

/// As [`Opener::open`], in a process of its own, which ends with it. Blocks.
///
/// # Errors
/// As there; [`Error::Unavailable`] if the process can't be started, or ends, or takes too long.
pub fn unseal(opener: &Opener, program: &Program) -> Result<Secret> {
    let tpm = opener.device.as_deref().unwrap_or("the TPM");
    let process = Process::spawn(program).map_err(|e| Error::Unavailable {
        token: tpm.to_owned(),
        why: format!("its process can't be started: {e}"),
    })?;
    let write = |w: &mut Writer<'_>| write_unsealing(w, opener);
    let (process, pin) = process.open(tpm, write, read_unsealed)?;
    process.end();
    Ok(pin)
}

/// The token's driver, as the server sees it.
struct Remote {
    shared: Arc<Shared>,
    info: TokenInfo,
    software: bool,
    keeper: Option<std::thread::JoinHandle<()>>,
}

/// What the keeper and the lane's threads share.
struct Shared {
    /// How the token is known before it has told its label.
    locator: String,
    label: OnceLock<String>,
    /// How long a call may take.
    patience: Duration,
    /// The number of the process that serves, counted from 1; 0 while none does.
    serving: AtomicU64,
    kept: Mutex<Kept>,
    /// Told of every change of `kept`.
    changed: Condvar,
}

/// What is known of the process.
struct Kept {
    /// Its first socket, from its start to its end.
    control: Option<UnixStream>,
    /// Why it is to be ended.
    verdict: Option<String>,
    /// The token is let go of.
    ending: bool,
    /// The token has refused the PIN: no other process is started.
    refused: Option<String>,
    health: Health,
    /// Logins of the processes before this one.
    before: u64,
}

impl Remote {
    /// Starts a process and waits for it to open the token.
    fn start(
        profile: Profile,
        access: Access,
        program: Program,
        patience: Duration,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(access.token.to_string(), patience));
        let software = profile.software;
        let (tell, told) = crossbeam_channel::bounded(1);
        let kept = Arc::clone(&shared);
        // The system ends the process with the thread that started it: always the same one.
        let keeper = std::thread::Builder::new().name("token-keeper".into());
        let keeper = keeper
            .spawn(move || keeper::Keeper::new(kept, profile, access, program).keep(&tell))
            .map_err(|e| shared.unavailable(&format!("no thread: {e}")))?;
        let opened = told.recv().unwrap_or_else(|_| Err(shared.unavailable("its thread ended")));
        Ok(Self { info: opened?, shared, software, keeper: Some(keeper) })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        {
            let mut kept = self.shared.kept.lock();
            kept.ending = true;
            // It lets go of the token and ends. One that is opening it may never hear of that.
            let serves = self.shared.serving.load(Ordering::Acquire) > 0;
            let how = if serves { Shutdown::Write } else { Shutdown::Both };
            kept.control.as_ref().map(|control| control.shutdown(how));
            self.shared.changed.notify_all();
        }
        if self.keeper.take().is_some_and(|keeper| keeper.join().is_err()) {
            tracing::error!("the thread that kept the token's process has panicked");
        }
    }
}

impl Token for Remote {
    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        let (shared, software) = (Arc::clone(&self.shared), self.software);
        Box::new(Seat { shared, place: None, software, pace: TOGETHER })
    }

    fn info(&self) -> &TokenInfo {
        &self.info
    }

    fn health(&self) -> Health {
        self.shared.kept.lock().health.clone()
    }
}

impl Shared {
    fn new(locator: String, patience: Duration) -> Self {
        let health =
            Health { up: false, why: Some(STARTING.to_owned()), epoch: 0, waiting: 0, seated: 0 };
        let kept =
            Kept { control: None, verdict: None, ending: false, refused: None, health, before: 0 };
        let (label, serving) = (OnceLock::new(), AtomicU64::new(0));
        let (kept, changed) = (Mutex::new(kept), Condvar::new());
        Self { locator, label, patience, serving, kept, changed }
    }

    /// The token in messages.
    fn name(&self) -> String {
        self.label.get().unwrap_or(&self.locator).clone()
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::Unavailable { token: self.name(), why: why.to_owned() }
    }

    /// Has this process ended, if it serves still.
    fn condemn(&self, process: u64, why: &str) {
        let mut kept = self.kept.lock();
        if self.serving.load(Ordering::Acquire) == process && kept.verdict.is_none() {
            kept.verdict = Some(why.to_owned());
            // The keeper waits for what comes on it.
            kept.control.as_ref().map(|control| control.shutdown(Shutdown::Both));
        }
    }

    /// Takes down what this process says of the token.
    fn note(&self, process: u64, told: Health) {
        let mut kept = self.kept.lock();
        let epoch = kept.before.saturating_add(told.epoch);
        // What came late must not hide what is known by now.
        if self.serving.load(Ordering::Acquire) == process && epoch >= kept.health.epoch {
            kept.health = Health { epoch, ..told };
        }
    }

    /// No other process logs in with this PIN.
    fn refused(&self, why: &str) {
        self.kept.lock().refused.get_or_insert_with(|| why.to_owned());
    }

    /// Waits until another process than this one serves; whether it does.
    fn replaced(&self, process: u64) -> bool {
        let until = Instant::now() + RETRY_WAITS;
        let mut kept = self.kept.lock();
        loop {
            if ![0, process].contains(&self.serving.load(Ordering::Acquire)) {
                return true;
            }
            if kept.ending || self.changed.wait_until(&mut kept, until).timed_out() {
                return false;
            }
        }
    }
}

/// One of the lane's threads: its socket to the process that serves.
struct Seat {
    shared: Arc<Shared>,
    place: Option<Place>,
    /// Whether the token is software.
    software: bool,
    /// How long a request takes: the least that was seen lately, since a busy machine makes any of them
    /// take longer.
    pace: Duration,
}

struct Place {
    process: u64,
    channel: Channel,
    /// What was last heard of the token here.
    told: Option<Health>,
}

/// Why there is no answer.
enum Lost {
    /// There is no process to ask.
    Unasked(Error),
    /// This one has ended, perhaps when it had begun.
    Ended { process: u64, begun: bool },
    /// It does not answer, or not in a way that makes sense.
    Broken(String),
}

impl Worker for Seat {
    fn serve(&mut self, request: &Request) -> Result<Response> {
        let outcome = match self.ask_one(request) {
            Err(Lost::Ended { process, begun })
                if (!begun || repeatable(request)) && self.shared.replaced(process) =>
            {
                self.ask_one(request)
            }
            first => first,
        };
        outcome.unwrap_or_else(|lost| Err(self.explain(&lost, request)))
    }

    fn serve_all(&mut self, requests: &[&Request]) -> Vec<Result<Response>> {
        match self.ask(requests) {
            Ok(answers) => answers,
            // Now one by one: what the library does not survive takes nothing else with it.
            Err(Lost::Ended { process, .. }) if self.shared.replaced(process) => {
                requests.iter().map(|request| self.serve(request)).collect()
            }
            Err(lost) => requests.iter().map(|it| Err(self.explain(&lost, it))).collect(),
        }
    }

    fn at_a_time(&self) -> usize {
        if !self.software {
            return 1;
        }
        let fit = TOGETHER.as_micros() / self.pace.as_micros().max(1);
        usize::try_from(fit).unwrap_or(MOST).clamp(1, MOST)
    }
}

impl Seat {
    fn ask_one(&mut self, request: &Request) -> std::result::Result<Result<Response>, Lost> {
        // There are as many answers as requests.
        self.ask(&[request])?.pop().ok_or_else(|| Lost::Broken(String::new()))
    }

    /// One attempt; the answers are in the order of the requests.
    fn ask(&mut self, requests: &[&Request]) -> std::result::Result<Vec<Result<Response>>, Lost> {
        let place = match self.place.take() {
            Some(place) if place.process == self.shared.serving.load(Ordering::Acquire) => place,
            _ => Place::at(&self.shared)?,
        };
        let place = self.place.insert(place);
        let begin = Instant::now();
        if let Err(error) = place.channel.send(|w| write_requests(w, requests)) {
            return Err(self.lost(&error, false));
        }
        let (health, answers) = match place.channel.receive(read_answers) {
            Ok((_, answers)) if answers.len() != requests.len() => {
                return Err(self.lost(&ErrorKind::InvalidData.into(), true));
            }
            Ok(told) => told,
            Err(error) => return Err(self.lost(&error, true)),
        };
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX).max(1);
        let lately = self.pace.saturating_add(self.pace / 16);
        self.pace = lately.min(begin.elapsed() / count);
        if place.told.as_ref() != Some(&health) {
            self.shared.note(place.process, health.clone());
            place.told = Some(health);
        }
        for answer in &answers {
            if let Err(Error::Pin { why, .. }) = answer {
                self.shared.refused(why);
            }
        }
        Ok(answers)
    }

    /// Gives the place up.
    fn lost(&mut self, error: &io::Error, begun: bool) -> Lost {
        let process = self.place.take().map_or(0, |place| place.process);
        let why = match error.kind() {
            _ if ended(error) => return Lost::Ended { process, begun },
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("a call to it has not come back within {:?}", self.shared.patience)
            }
            _ => format!("its process and the server don't understand each other: {error}"),
        };
        self.shared.condemn(process, &why);
        Lost::Broken(why)
    }

    /// What the caller is told.
    fn explain(&self, lost: &Lost, request: &Request) -> Error {
        let (why, begun) = match lost {
            Lost::Unasked(error) => return error.clone(),
            Lost::Ended { begun, .. } => ("its process has ended", *begun),
            Lost::Broken(why) => (why.as_str(), true),
        };
        let open = if begun && !repeatable(request) { WHETHER } else { "" };
        self.shared.unavailable(&format!("{why}{open}"))
    }
}

const WHETHER: &str = "; whether the key was changed is to be looked up";

/// Whether a request may be asked twice: it changes nothing.
fn repeatable(request: &Request) -> bool {
    match request {
        Request::Derive { .. }
        | Request::Agree { .. }
        | Request::Unwrap { .. }
        | Request::Inspect { .. }
        | Request::Random { .. }
        | Request::Sign { .. }
        | Request::Attest { .. } => true,
        Request::Generate { .. }
        | Request::Import { .. }
        | Request::Destroy { .. }
        | Request::GenerateSigner { .. } => false,
    }
}

impl Place {
    /// A socket to the process that serves.
    fn at(shared: &Shared) -> std::result::Result<Self, Lost> {
        let kept = shared.kept.lock();
        let process = shared.serving.load(Ordering::Acquire);
        let control = kept.control.as_ref().filter(|_| process > 0);
        let Some(control) = control else {
            let why = kept.health.why.as_deref().unwrap_or(STARTING);
            return Err(Lost::Unasked(match &kept.refused {
                Some(why) => Error::Pin { token: shared.name(), why: why.clone() },
                None => shared.unavailable(why),
            }));
        };
        let stream = connect(control, shared.patience).map_err(|error| {
            if ended(&error) {
                return Lost::Ended { process, begun: false };
            }
            Lost::Unasked(shared.unavailable(&format!("no way to its process: {error}")))
        })?;
        Ok(Self { process, channel: Channel::new(stream), told: None })
    }
}

/// Whether the other side of a socket is gone.
fn ended(error: &io::Error) -> bool {
    use ErrorKind as K;
    matches!(error.kind(), K::UnexpectedEof | K::BrokenPipe | K::ConnectionReset)
}

/// Makes a pair of sockets and hands one of them over.
fn connect(control: &UnixStream, patience: Duration) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(patience))?;
    ours.set_write_timeout(Some(patience))?;
    let sockets = [theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut besides = SendAncillaryBuffer::new(&mut space);
    if !besides.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    sendmsg(control, &[IoSlice::new(&[host::SOCKET])], &mut besides, SendFlags::NOSIGNAL)?;
    Ok(ours)
}
