//! Programs that do what a function does, kept in bounds: what they may call, how long they run, how
//! much they may say, and that nothing of them is left.
//!
//! The server starts this program again ([`host`]), which starts the other one. All that comes of it is
//! one group of processes, which none of them can leave (`filter.rs`). It is killed as a whole when the
//! program has ended, when its time is over, when the server loses interest or dies; and before the
//! process at its head is waited for, since the group's number is free from then on.

mod filter;
pub mod host;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The most that is kept of what a program says on its standard error: the last of it, in bytes.
const SAYING: usize = 64 * 1024;
/// How long a group that was killed may take to be gone.
const GOING: Duration = Duration::from_secs(3);
/// The longest report of a host's, in bytes.
const REPORT: u64 = 4096;

/// What is to be run.
pub struct Task<'a> {
    /// The program that [`host::run`] runs in: this one.
    pub host: &'a Path,
    /// The program and its arguments.
    pub program: Vec<OsString>,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder that it starts in.
    pub folder: &'a Path,
    /// What it finds on its standard input.
    pub input: &'a [u8],
    /// How long it may run.
    pub deadline: Duration,
    /// The most bytes of its standard output; none: what it prints goes nowhere.
    pub answer: Option<usize>,
    /// Whether its standard error is kept; else it goes where the server's goes.
    pub listen: bool,
}

/// What became of it.
#[derive(Debug)]
pub struct Ended {
    /// How it has ended.
    pub how: How,
    /// Its standard output. One byte more than was allowed says that there was more.
    pub answer: Vec<u8>,
    /// The end of its standard error.
    pub says: Vec<u8>,
}

/// How a program has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It was never there.
    NotStarted(String),
    /// Its time was over.
    Late,
}

/// This program, even if its file has been replaced meanwhile.
pub fn this_program() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// Runs a program to its end, or to that of its time. Whoever drops this kills it.
///
/// # Errors
/// The system's, before anything ran.
pub async fn run(task: Task<'_>) -> io::Result<Ended> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    let mut group = Group(command(&task, theirs).spawn()?);
    let (stdout, stderr) = (group.0.stdout.take(), group.0.stderr.take());
    let (mut answer, mut says, mut report) = (Vec::new(), Vec::new(), Vec::new());
    let late = {
        let all = async {
            let told = async {
                exchange(ours, task.input, &mut report).await;
                // If the host has not done so: whoever is left may hold what is read below.
                group.kill();
            };
            let most = task.answer.unwrap_or_default().saturating_add(1);
            tokio::join!(told, beginning(stdout, &mut answer, most), end(stderr, &mut says));
        };
        let mut all = std::pin::pin!(all);
        let first = timeout(task.deadline, &mut all).await;
        group.kill();
        if first.is_err() {
            // What it has said is in the pipes.
            drop(timeout(GOING, all).await);
        }
        first.err().map(|_| How::Late)
    };
    drop(timeout(GOING, group.0.wait()).await);
    let how = late.or_else(|| serde_json::from_slice(&report).ok());
    let how = how.unwrap_or_else(|| How::NotStarted("what was to start it has ended".to_owned()));
    Ok(Ended { how, answer, says })
}

fn command(task: &Task<'_>, socket: std::os::unix::net::UnixStream) -> Command {
    let mut command = Command::new(task.host);
    command
        .arg0("strongroom")
        .args(["function-host", "--"])
        .args(&task.program)
        .env_clear()
        .envs(task.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(task.folder)
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(if task.answer.is_some() { Stdio::piped() } else { Stdio::null() })
        .stderr(if task.listen { Stdio::piped() } else { Stdio::inherit() });
    command
}

/// Tells the host the input, and hears how the program has ended, which is when the host's end of the
/// socket closes.
async fn exchange(mut host: UnixStream, input: &[u8], report: &mut Vec<u8>) {
    let length = u64::try_from(input.len()).unwrap_or(u64::MAX).to_be_bytes();
    let told = async {
        host.write_all(&length).await?;
        host.write_all(input).await
    };
    // A host that can't begin reads nothing and reports nothing.
    drop::<io::Result<()>>(told.await);
    drop(host.take(REPORT).read_to_end(report).await);
}

/// The beginning of what comes; the rest goes by.
async fn beginning(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, most: usize) {
    let Some(mut from) = from else { return };
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    if (&mut from).take(most).read_to_end(kept).await.is_ok() {
        drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await);
    }
}

/// The end of what comes.
async fn end(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    while let Ok(1..) = from.read_buf(kept).await {
        if kept.len() > 2 * SAYING {
            kept.drain(..kept.len() - SAYING);
        }
    }
    kept.drain(..kept.len().saturating_sub(SAYING));
}

/// A group of processes by the one at its head, which was not waited for yet.
struct Group(Child);

impl Group {
    /// Kills all of it. A process that forks at this moment is killed with what it forks.
    fn kill(&self) {
        let head = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(head) = head {
            let _none_is_left = kill_process_group(head, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
