//! One process that holds a token: starting it, having it open the token, ending it.

use super::Program;
use super::wire::{Channel, Reader, Writer};
use crate::custody::{Error, Result};
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long opening the token may take.
const OPENING: Duration = Duration::from_secs(30);

/// How long its answer to that may take, which waits for no hardware: a machine may be busy.
pub(super) const PONG: Duration = Duration::from_secs(5);

/// How long a process may take to let go of the token, and one that was killed to be gone.
const GOING: Duration = Duration::from_secs(3);

/// Between two looks at a process that is going.
const LOOK: Duration = Duration::from_millis(2);

/// Whether a variable of the environment holds a PIN (`STRONGROOM_PIN`, and `STRONGROOM_PIN_NAME` of
/// each further token) or says where one lies: a vendor's library has no business with them, least of
/// all with those of other tokens.
fn is_of_pins(name: &OsStr) -> bool {
    name == "CREDENTIALS_DIRECTORY" || name.as_encoded_bytes().starts_with(b"STRONGROOM_PIN")
}

/// A process, and the socket that it is spoken to on.
pub(super) struct Process {
    child: Child,
    pub(super) channel: Channel,
}

impl Process {
    /// Starts one. The system ends it with the thread that calls this.
    pub(super) fn spawn(program: &Program) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program.path);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_pins(name)) {
            command.env_remove(name);
        }
        let child = command
            .arg0("strongroom")
            .arg("token-host")
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // What a library prints is no answer of the server's.
            .stdout(io::stderr())
            .spawn()?;
        Ok(Self { child, channel: Channel::new(ours) })
    }

    /// Has it open `token`, or make it, as `write` tells it to; `read` reads what it answers. One that
    /// has not is gone afterwards.
    pub(super) fn open<T>(
        mut self,
        token: &str,
        write: impl FnOnce(&mut Writer<'_>),
        read: impl FnOnce(&mut Reader<'_>) -> Option<Result<T>>,
    ) -> Result<(Self, T)> {
        let unavailable = |why| Error::Unavailable { token: token.to_owned(), why };
        match self.asked(write, read) {
            Ok(Ok(opened)) => Ok((self, opened)),
            Ok(Err(error)) => {
                self.end();
                Err(error)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let ended = self.kill();
                Err(unavailable(format!("it was not open within {OPENING:?} ({ended})")))
            }
            Err(error) => {
                let ended = self.end();
                Err(unavailable(format!("its process has not opened it ({error}; {ended})")))
            }
        }
    }

    fn asked<T>(
        &mut self,
        write: impl FnOnce(&mut Writer<'_>),
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> io::Result<T> {
        self.channel.stream().set_read_timeout(Some(OPENING))?;
        self.channel.stream().set_write_timeout(Some(PONG))?;
        self.channel.send(write)?;
        self.channel.receive(read)
    }

    /// Waits for a process that should be ending, a while; tells how it has ended.
    pub(super) fn end(mut self) -> String {
        drop(self.channel.stream().shutdown(Shutdown::Both));
        match self.gone() {
            Some(how) => how,
            None => self.kill(),
        }
    }

    /// Ends it.
    pub(super) fn kill(mut self) -> String {
        drop(self.child.kill());
        self.gone().unwrap_or_else(|| "it can't even be killed, and is left behind".to_owned())
    }

    fn gone(&mut self) -> Option<String> {
        let until = Instant::now() + GOING;
        let (_never, wait) = crossbeam_channel::bounded::<()>(0);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status.to_string()),
                Ok(None) if Instant::now() < until => drop(wait.recv_timeout(LOOK)),
                Ok(None) => return None,
                Err(error) => return Some(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_of_all_tokens_stay_here_and_what_libraries_read_does_not() {
        for name in ["STRONGROOM_PIN", "STRONGROOM_PIN_SAFE_SPARE", "CREDENTIALS_DIRECTORY"] {
            assert!(is_of_pins(OsStr::new(name)), "{name}");
        }
        for name in ["SOFTHSM2_CONF", "ChrystokiConfigurationPath", "STRONGROOM_LOG", "PATH"] {
            assert!(!is_of_pins(OsStr::new(name)), "{name}");
        }
    }
}
