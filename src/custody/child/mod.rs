//! A token whose driver runs in a process of its own, so that a vendor's library that crashes or
//! hangs is a restart of that process and not of the service.
//!
//! The process is this program again (see [`host`]): it opens the token with the same driver and
//! answers on local sockets, one for each of the lane's servers (see `seat`). What the driver heals it
//! heals there; what only a new process heals is healed here: one that has ended, does not answer, or has
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
mod seat;
#[cfg(test)]
mod tests;
mod wire;

use super::lane::{self, Lane};
use super::profile::Profile;
use super::sealed::Opener;
use super::{Access, Error, Health, Result, Token, TokenInfo};
use crate::secret::Secret;
use message::{read_opened, read_unsealed, write_opening, write_unsealing};
use parking_lot::{Condvar, Mutex};
use process::Process;
use seat::Seat;
use serde::Deserialize;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use wire::Writer;

/// How much longer than a caller waits a call may take before it counts as one that hangs.
const HANG_MARGIN: Duration = Duration::from_secs(2);

/// How long a request that may be asked once more waits for the next process.
const RETRY_WAITS: Duration = Duration::from_secs(1);

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
    let software = profile.software;
    let token = Arc::new(Remote::start(profile, access, program, patience)?);
    let shared = Arc::clone(&token.shared);
    Ok(Lane::of_servers(token, move || Seat::new(Arc::clone(&shared), software), settings))
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
    keeper: Option<std::thread::JoinHandle<()>>,
}

/// What the keeper and the seats share.
struct Shared {
    /// How the token is known before it has told its label.
    locator: String,
    label: OnceLock<String>,
    /// How long a call may take.
    patience: Duration,
    /// The number of the process that serves, counted from 1; 0 while none does.
    serving: watch::Sender<u64>,
    kept: Mutex<Kept>,
    /// Told of every change of `kept`.
    changed: Condvar,
}

/// What is known of the process.
struct Kept {
    /// Its first socket, from its start to its end.
    control: Option<UnixStream>,
    /// The seats' sockets.
    seats: Vec<UnixStream>,
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
        let (tell, told) = crossbeam_channel::bounded(1);
        let kept = Arc::clone(&shared);
        // The system ends the process with the thread that started it: always the same one.
        let keeper = std::thread::Builder::new().name("token-keeper".into());
        let keeper = keeper
            .spawn(move || keeper::Keeper::new(kept, profile, access, program).keep(&tell))
            .map_err(|e| shared.unavailable(&format!("no thread: {e}")))?;
        let opened = told.recv().unwrap_or_else(|_| Err(shared.unavailable("its thread ended")));
        Ok(Self { info: opened?, shared, keeper: Some(keeper) })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        {
            let mut kept = self.shared.kept.lock();
            kept.ending = true;
            // It lets go of the token and ends. One that is opening it may never hear of that.
            let serves = self.shared.serving() > 0;
            let how = if serves { Shutdown::Write } else { Shutdown::Both };
            kept.control.as_ref().map(|control| control.shutdown(how));
            // Nobody waits on them any more: it need not wait for those that ask.
            kept.seats.iter().for_each(|seat| drop(seat.shutdown(Shutdown::Both)));
            self.shared.changed.notify_all();
        }
        if self.keeper.take().is_some_and(|keeper| keeper.join().is_err()) {
            tracing::error!("the thread that kept the token's process has panicked");
        }
    }
}

impl Token for Remote {
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
        let kept = Kept {
            control: None,
            seats: Vec::new(),
            verdict: None,
            ending: false,
            refused: None,
            health,
            before: 0,
        };
        let (label, serving) = (OnceLock::new(), watch::Sender::new(0));
        let (kept, changed) = (Mutex::new(kept), Condvar::new());
        Self { locator, label, patience, serving, kept, changed }
    }

    /// The token in messages.
    fn name(&self) -> String {
        self.label.get().unwrap_or(&self.locator).clone()
    }

    fn serving(&self) -> u64 {
        *self.serving.borrow()
    }

    fn unavailable(&self, why: &str) -> Error {
        Error::Unavailable { token: self.name(), why: why.to_owned() }
    }

    /// Has this process ended, if it serves still.
    fn condemn(&self, process: u64, why: &str) {
        let mut kept = self.kept.lock();
        if self.serving() == process && kept.verdict.is_none() {
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
        if self.serving() == process && epoch >= kept.health.epoch {
            kept.health = Health { epoch, ..told };
        }
    }

    /// No other process logs in with this PIN.
    fn refused(&self, why: &str) {
        self.kept.lock().refused.get_or_insert_with(|| why.to_owned());
    }

    /// Waits until another process than this one serves; whether it does.
    async fn replaced(&self, process: u64) -> bool {
        let mut serving = self.serving.subscribe();
        let other = serving.wait_for(|serving| ![0, process].contains(serving));
        tokio::time::timeout(RETRY_WAITS, other).await.is_ok_and(|other| other.is_ok())
    }
}

/// Whether the other side of a socket is gone.
fn ended(error: &io::Error) -> bool {
    use ErrorKind as K;
    matches!(error.kind(), K::UnexpectedEof | K::BrokenPipe | K::ConnectionReset)
}
