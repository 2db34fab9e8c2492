//! A YubiKey's stand-in: a PC/SC service of one's own, with a virtual reader and a virtual card.
//!
//! The service's socket has a fixed path, so the service gets a view of the file system of its own
//! (`unshare`), and is reached through a link to what it has under /run. It and the card end with the
//! thread that started them.

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The environment variable by which the PC/SC library finds the service; read when the process first
/// uses the library.
pub const SOCKET: &str = "PCSCLITE_CSOCK_NAME";

/// Set to this process's number once it has been started with [`SOCKET`].
const BEGUN: &str = "STRONGROOM_STAND_IN";

/// Where distributions put the driver of the virtual reader.
const READERS: [&str; 3] = [
    "/usr/lib/pcsc/drivers/serial/libifdvpcd.so",
    "/usr/lib64/pcsc/drivers/serial/libifdvpcd.so",
    "/usr/local/lib/pcsc/drivers/serial/libifdvpcd.so",
];

/// How long a service or a card may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest path of a socket (`sun_path` of unix(7)), in bytes.
const LONGEST_SOCKET: usize = 107;

/// A PC/SC service with two virtual readers.
pub struct Service {
    folder: PathBuf,
    /// The first reader waits for its card here, the second on the next port.
    port: u16,
    daemon: Child,
}

/// A card in a reader; dropping it pulls it.
pub struct Card(Child);

impl Service {
    /// Starts a service that keeps what it needs in `folder`. Started again in the same folder, it is
    /// reached as before.
    ///
    /// # Errors
    /// If a program or the reader's driver is missing, or the service does not answer.
    pub fn start(folder: &Path) -> Result<Self> {
        if socket(folder).as_os_str().len() > LONGEST_SOCKET {
            return Err(Error::new(ErrorKind::InvalidInput, "the folder's path is too long"));
        }
        let driver = READERS.into_iter().find(|path| Path::new(path).exists());
        let driver = driver.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no virtual reader: install vsmartcard-vpcd")
        })?;
        let (configuration, port) = (folder.join("reader.conf.d"), two_free_ports()?);
        fs::create_dir_all(&configuration)?;
        let text = format!(
            "FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:{port:#06X}\nLIBPATH {driver}\n\
             CHANNELID {port:#06X}\n"
        );
        fs::write(configuration.join("vpcd"), text)?;
        let daemon = daemon(&configuration, &folder.join("pcscd.log"))?;
        let service = Self { folder: folder.to_owned(), port, daemon };
        service.link()?;
        Ok(service)
    }

    /// Waits for the service and points the link at it.
    fn link(&self) -> Result<()> {
        let (inside, link) =
            (format!("/proc/{}/root/run/pcscd/pcscd.comm", self.daemon.id()), socket(&self.folder));
        until(|| UnixStream::connect(&inside).is_ok(), "pcscd")?;
        if link.is_symlink() {
            fs::remove_file(&link)?;
        }
        symlink(&inside, &link)
    }

    /// Puts a card into the first (0) or second (1) reader: the program `scripts/piv-card` builds,
    /// with its memory in a file.
    ///
    /// # Errors
    /// If the program can't be started.
    pub fn plug(&self, program: &Path, reader: u16, arguments: &[&str]) -> Result<Card> {
        let port = self.port.saturating_add(reader).to_string();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(["--port", &port]);
        let card = command.args(arguments).stdin(Stdio::null()).spawn()?;
        Ok(Card(card))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        end(&mut self.daemon);
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Starts a service and a card, both with all they need in `folder`, and this process anew with what
/// finds them in its environment; in the new one, waits for the card. Must be called on the main
/// thread, before there are others.
///
/// # Errors
/// If something can't be started, or the card does not answer.
pub fn attach(folder: &Path, program: Option<&Path>) -> Result<()> {
    let (link, me) = (socket(folder), std::process::id().to_string());
    if std::env::var_os(BEGUN).is_some_and(|begun| begun == *me) {
        return until(|| yubikey::YubiKey::open().is_ok(), "the virtual card");
    }
    let this = std::env::current_exe()?;
    let built = this.parent().and_then(Path::parent);
    let built = built.map(|target| target.join("piv-card/debug/piv-card"));
    let program = program.map(Path::to_owned).or(built).filter(|path| path.exists());
    let program = program.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "no virtual card: scripts/piv-card builds it")
    })?;
    let service = Service::start(folder)?;
    let memory = folder.join("card.json");
    let memory = memory.to_str().ok_or(ErrorKind::InvalidFilename)?;
    let _card = service.plug(&program, 0, &["--state", memory])?;
    let mut again = Command::new(this);
    again.args(std::env::args_os().skip(1)).env(SOCKET, link).env(BEGUN, me);
    // What was started belongs to this process still, and ends with it.
    Err(again.exec())
}

/// The socket of a service in this folder: the value of [`SOCKET`].
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("pcscd.comm")
}

/// `pcscd` in a mount namespace of its own; who is not root gets a user namespace with it.
fn daemon(configuration: &Path, log: &Path) -> Result<Child> {
    let root = rustix::process::geteuid().is_root();
    let log = fs::File::create(log)?;
    Command::new("unshare")
        .arg(if root { "-m" } else { "-rm" })
        .args(["setpriv", "--pdeathsig", "KILL", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs /run && exec pcscd --foreground --config \"$1\"")
        .arg("sh")
        .arg(configuration)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// A port that is free and whose next one is too.
fn two_free_ports() -> Result<u16> {
    for _ in 0..100 {
        let first = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = first.local_addr()?.port();
        let Some(next) = port.checked_add(1) else { continue };
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, next)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::new(ErrorKind::AddrInUse, "no two neighbouring ports are free"))
}

fn until(there: impl Fn() -> bool, what: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        if Instant::now() > deadline {
            return Err(Error::new(ErrorKind::TimedOut, format!("{what} does not answer")));
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// Ends a child of ours, if it has not ended.
fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}
