//! Servers that a test starts and ends, certificates for them, their logs.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::{self, File, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The administrator of every server.
pub(crate) const ADMIN: &str = "admin";
pub(crate) const ADMIN_PASSWORD: &str = "Admin-9 pass";
/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that a server lives in, and as whom.
pub(crate) struct Home {
    folder: TempDir,
    owner: Option<(u32, u32)>,
}

impl Home {
    /// For a server that runs as the tests do.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), owner: None }
    }

    /// For a server that refuses to run as root: as this user, if the tests run as root.
    pub(crate) fn of(user: &str) -> Self {
        let mut home = Self::new();
        if is_root() {
            home.owner = Some(ids(user));
            home.give("");
        }
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Writes a file that the server can read, and nobody else.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("permissions");
        self.give(name);
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).expect(name)).into_owned()
    }

    fn give(&self, name: &str) {
        if let Some((user, group)) = self.owner {
            chown(self.path(name), Some(user), Some(group)).expect("another owner");
        }
    }

    /// A program that runs as the server does, here.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.current_dir(self.folder.path()).env("TMPDIR", self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, command: &mut Command) {
        let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    }

    /// Starts a server that listens at this port in the end. What it says goes to the file `log`.
    pub(crate) fn start(&self, command: &mut Command, port: u16) -> Server {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let both = log.try_clone().expect("a log");
        command.stdout(log).stderr(both).process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut server = Server { child };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait().expect("a child");
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "{command:?} does not listen at {port} ({ended:?}): {}",
                self.read("log")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// A certificate for 127.0.0.1 and its key, as `server.pem` and `server.key`.
    pub(crate) fn certify(&self, authority: &Authority) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &authority.issuer).expect("a certificate");
        self.write("server.pem", &certificate.pem());
        self.write("server.key", &key.serialize_pem());
        self.write("ca.pem", &authority.pem);
    }
}

/// A server; it ends with this value.
pub(crate) struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The whole group: what it started itself goes with it.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if group.is_some_and(|group| kill_process_group(group, Signal::KILL).is_ok()) {
            drop(self.child.wait());
        }
    }
}

/// What may issue certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A listener that takes connections and never says a word, and a port where nobody listens.
pub(crate) struct Silent(TcpListener);

impl Silent {
    pub(crate) fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().expect("an address").port()
    }

    pub(crate) fn closed_port(&self) -> u16 {
        free_port()
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user and group ids of a user of this machine.
fn ids(user: &str) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let line = users.lines().find(|line| line.split(':').next() == Some(user));
    let fields: Vec<&str> = line.unwrap_or_else(|| panic!("no user {user}")).split(':').collect();
    (fields[2].parse().expect("a number"), fields[3].parse().expect("a number"))
}

/// Where Debian puts the newest of a server's programs: `/usr/lib/postgresql/15/bin`.
pub(crate) fn newest(parent: &str, below: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(parent)
        .unwrap_or_else(|e| panic!("{parent}: {e}; run scripts/setup test"))
        .map(|entry| entry.expect("an entry").path().join(below))
        .filter(|path| Path::exists(path))
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("nothing in {parent}"))
}
