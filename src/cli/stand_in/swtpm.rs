//! A TPM's stand-in: swtpm, started for `strongroom dev --token swtpm` and ended with it.

use crate::server::Error;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long swtpm has to listen, and how long to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long is waited between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// How often two free ports are looked for: somebody else may take one meanwhile.
const TRIES: usize = 5;

/// swtpm, running. Its state is in a folder, so that the keys are there again the next time.
pub struct Swtpm {
    child: Child,
    port: u16,
}

impl Swtpm {
    /// Starts it with its state in `folder`, which is made if it is not there.
    ///
    /// It listens on the loopback address, where every user of this machine can talk to it: that is
    /// one more reason why it is for development alone.
    pub fn start(folder: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| Error::io(folder, e))?;
        let mut last = None;
        for _ in 0..TRIES {
            let port = two_free_ports()?;
            let mut tpm = Self { child: spawn(folder, port)?, port };
            match tpm.listens() {
                Ok(()) => return Ok(tpm),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| Error::Refused("no two free ports for swtpm".into())))
    }

    /// How it is reached, as the configuration has it.
    pub fn device(&self) -> String {
        format!("swtpm:host={},port={}", Ipv4Addr::LOCALHOST, self.port)
    }

    fn listens(&mut self) -> Result<(), Error> {
        let (address, end) = (SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), Instant::now());
        while end.elapsed() < PATIENCE {
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::Refused(format!("swtpm did not start: {status}")));
            }
            std::thread::park_timeout(LOOK);
        }
        Err(Error::Refused("swtpm does not listen".into()))
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let told = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0))
            .is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let begun = Instant::now();
        while told && begun.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::park_timeout(LOOK);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// It is told to end when this process does, however that ends: else it would hold its state's lock
/// against the next.
fn spawn(folder: &Path, port: u16) -> Result<Child, Error> {
    let control = port.saturating_add(1);
    let listen = |port: u16| format!("type=tcp,port={port},bindaddr={}", Ipv4Addr::LOCALHOST);
    let swtpm = ["--pdeathsig", "TERM", "swtpm", "socket", "--tpm2", "--tpmstate"];
    Command::new("setpriv")
        .args(swtpm)
        .arg(format!("dir={}", folder.display()))
        .args(["--server", &format!("{},disconnect", listen(port)), "--ctrl", &listen(control)])
        .args(["--flags", "not-need-init,startup-clear"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Error::Refused(format!("swtpm can't be started (apt install swtpm): {e}")))
}

/// A port that is free and has a free neighbour above, where the TSS looks for swtpm's controls.
fn two_free_ports() -> Result<u16, Error> {
    for _ in 0..TRIES {
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let first = bind(0).map_err(|e| Error::io(Path::new("a free port"), e))?;
        let address = first.local_addr().map_err(|e| Error::io(Path::new("a free port"), e))?;
        let next = address.port().checked_add(1);
        if next.is_some_and(|next| bind(next).is_ok()) {
            return Ok(address.port());
        }
    }
    Err(Error::Refused("no two free ports for swtpm".into()))
}
