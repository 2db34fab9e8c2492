//! The real program in a folder of its own: started, stopped, killed, and gone at the end.

use crate::client::{Client, Credentials};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_strongroom");

/// How long a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// An appliance of `strongroom dev`.
pub(crate) struct Appliance {
    folder: TempDir,
    child: Option<Child>,
    /// What stands before the program on its command line: a wrapper that sets limits, say.
    pub(crate) wrapper: Vec<String>,
    pub(crate) program: String,
    pub(crate) log_filter: &'static str,
    pub(crate) address: String,
    pub(crate) credentials: Credentials,
}

impl Appliance {
    /// A new one, running.
    pub(crate) fn start() -> Self {
        let mut made = Self::prepare();
        made.resume();
        made
    }

    /// A folder for one.
    pub(crate) fn prepare() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            child: None,
            wrapper: Vec::new(),
            program: PROGRAM.to_owned(),
            log_filter: "warn,strongroom=info",
            address: String::new(),
            credentials: Credentials::default(),
        }
    }

    /// The folder of the appliance.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("appliance")
    }

    /// A file or folder of the appliance's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// What the server has logged so far, over all starts.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.clone();
        words.push(self.program.clone());
        let mut command = Command::new(&words[0]);
        let log = OpenOptions::new().create(true).append(true).open(self.log_file());
        command
            .args(&words[1..])
            .args(["dev", "--json", "--listen", "127.0.0.1:0", "--dir"])
            .arg(self.dir())
            .env("STRONGROOM_LOG", self.log_filter)
            .stdin(Stdio::null())
            .stderr(log.expect("a log"));
        command
    }

    /// Starts it (again) and waits until it is ready.
    pub(crate) fn resume(&mut self) {
        assert!(self.starts(), "not ready:\n{}", self.log());
    }

    /// Starts it (again); whether it is ready or has refused.
    pub(crate) fn starts(&mut self) -> bool {
        let mut child = self.command().stdout(Stdio::piped()).spawn().expect("started");
        let out = child.stdout.take().expect("piped");
        self.child = Some(child);
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            drop(BufReader::new(out).read_line(&mut line));
            drop(tell.send(line));
        });
        let line = told.recv_timeout(PATIENCE).unwrap_or_default();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let status = end(self.child.take().expect("started"));
            let refused = matches!(status.code(), Some(1 | 78));
            assert!(refused, "{status:?} {line:?}\n{}", self.log());
            return false;
        };
        let text = |name: &str| ready[name].as_str().expect("text").to_owned();
        self.address = text("endpoint").trim_start_matches("http://").to_owned();
        self.credentials = Credentials {
            id: text("access_key_id"),
            secret: text("secret_access_key"),
            token: String::new(),
            region: text("region"),
        };
        true
    }

    /// Starts it where it must refuse; answers what it said.
    pub(crate) fn refused(&mut self) -> String {
        assert!(self.child.is_none(), "the server runs");
        self.second()
    }

    /// The same while the first one runs.
    pub(crate) fn second(&mut self) -> String {
        let before = self.log().len();
        let child = self.command().stdout(Stdio::null()).spawn().expect("started");
        let status = end(child);
        let said = self.log()[before..].to_owned();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.address, &self.credentials)
    }

    pub(crate) fn signal(&self, name: &str) {
        send(name, self.pid());
    }

    /// SIGTERM; it must end in order.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        self.ended();
    }

    /// Waits for its end in order.
    pub(crate) fn ended(&mut self) {
        let status = end(self.child.take().expect("running"));
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Waits for its end by SIGABRT, which nobody sent.
    pub(crate) fn died(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        let status = end(self.child.take().expect("running"));
        assert_eq!(status.signal(), Some(6), "{status}\n{}", self.log());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    /// The database; to be opened with the server stopped.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        assert!(self.child.is_none(), "the server runs");
        let connection = rusqlite::Connection::open(self.path("store/strongroom.db"));
        let connection = connection.expect("a database");
        connection.execute_batch("PRAGMA foreign_keys = OFF").expect("set");
        connection
    }

    /// The JSON records of the audit log, and how many lines are none: what a write that was cut
    /// short left behind.
    pub(crate) fn audit(&self) -> (Vec<Value>, usize) {
        let text = fs::read(self.path("audit.jsonl")).expect("an audit log");
        let lines: Vec<_> = text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
        let records: Vec<Value> =
            lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let torn = lines.len() - records.len();
        (records, torn)
    }

    /// The files of the token's objects (keys); SoftHSM keeps one file an object.
    pub(crate) fn token_objects(&self) -> Vec<PathBuf> {
        let mut found = files(&self.path("tokens"));
        found.retain(|path| {
            path.extension().is_some_and(|e| e == "object") && !path.ends_with("token.object")
        });
        found
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("the end of the log:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The processes that a process has started and that are there still.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all = texts.collect::<Vec<_>>().join(" ");
    all.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

/// The one that holds the token of a server.
pub(crate) fn token_host(pid: u32) -> u32 {
    let [one] = *children(pid) else { panic!("not one process: {:?}", children(pid)) };
    one
}

/// Whether a process is there.
pub(crate) fn there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Sends a process a signal.
pub(crate) fn send(signal: &str, pid: u32) {
    let sent = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
    assert!(sent.expect("kill").success());
}

/// Waits for a process to end, not for ever.
pub(crate) fn end(mut child: Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if began.elapsed() > PATIENCE {
            drop(child.kill());
            drop(child.wait());
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every file below a folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Copies a folder with what is in it, modes included.
pub(crate) fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(done.success());
}

/// Until `what` holds, at most `patience`; answers how long that took.
pub(crate) fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// Whether this test runs as root.
pub(crate) fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Sets the mode of a file or folder.
pub(crate) fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Draws lots that can be drawn again: SplitMix64.
pub(crate) struct Lots(pub u64);

impl Lots {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    /// A UUID that no one else draws.
    pub(crate) fn uuid(&mut self) -> String {
        let (a, b) = (self.draw(), self.draw());
        uuid::Builder::from_random_bytes((u128::from(a) << 64 | u128::from(b)).to_be_bytes())
            .into_uuid()
            .to_string()
    }
}
