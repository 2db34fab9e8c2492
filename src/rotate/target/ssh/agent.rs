//! An ssh-agent that holds one key for one login.

use super::programs::{cant_run, command, run};
use super::{PublicKey, Refusal};
use crate::secret::Secret;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

/// How long an agent keeps its key, in seconds: longer than a login may take.
const KEEPS: &str = "60";
/// What the agent lives as long as (ssh-agent(1)): it says which process the agent is, and ends with its
/// standard input, which ends with this process, however that does. Then the folder goes, too.
const LIFE: &str = "echo $SSH_AGENT_PID; cat; exec rm -rf -- \"$1\"";
/// Tries at a name for a folder that nobody has yet.
const TRIES: u32 = 100;

/// The agent, and the folder that its socket is in. Both end with this value; with a crash of this
/// process they do so within some seconds.
pub(super) struct Agent {
    agent: Option<Pid>,
    /// The agent's parent, without which it ends.
    _life: Child,
    folder: Folder,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It would end by itself, but up to ten seconds later.
        self.agent.map(|agent| kill_process(agent, Signal::KILL));
    }
}

impl Agent {
    /// Starts an agent and hands it the key.
    pub(super) async fn start(private_key: &Secret) -> Result<Self, Refusal> {
        let folder = Folder::new().map_err(cant_run)?;
        let mut program = command("ssh-agent");
        program.args(["-t", KEEPS, "-a"]).arg(folder.0.join("agent"));
        program.args(["/bin/sh", "-c", LIFE, "sh"]).arg(&folder.0);
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut life = program.spawn().map_err(cant_run)?;
        let said = life.stdout.take();
        let mut agent = Self { agent: None, _life: life, folder };
        let Some(said) = said else { return Err(Refusal::other("ssh-agent has no output")) };
        // It listens before it starts anything.
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).await.map_err(cant_run)?;
        agent.agent = line.trim().parse().ok().and_then(Pid::from_raw);
        if agent.agent.is_none() {
            return Err(Refusal::unreachable("ssh-agent ends at once"));
        }
        agent.add(private_key).await.map(|()| agent)
    }

    async fn add(&self, private_key: &Secret) -> Result<(), Refusal> {
        let mut key = Secret::new(Vec::with_capacity(private_key.len() + 1));
        key.expose_mut().extend_from_slice(private_key.expose());
        if !key.expose().ends_with(b"\n") {
            // What a console's text field took off, OpenSSH wants.
            key.expose_mut().push(b'\n');
        }
        let output = self.ask(&["-q", "-"], key.expose()).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(Refusal::other("`private_key` is no private key of SSH, or an encrypted one"))
    }

    /// The public key of the one that it holds.
    pub(super) async fn public_key(&self) -> Result<PublicKey, Refusal> {
        let output = self.ask(&["-L"], b"").await?;
        let line = std::str::from_utf8(&output.stdout).ok().and_then(|said| said.lines().next());
        let key = line.and_then(PublicKey::read);
        key.ok_or_else(|| Refusal::other("ssh-add shows no public key"))
    }

    async fn ask(&self, arguments: &[&str], input: &[u8]) -> Result<std::process::Output, Refusal> {
        let mut program = command("ssh-add");
        program.args(arguments).env("SSH_AUTH_SOCK", self.socket());
        // A passphrase is asked of nobody.
        program.env("SSH_ASKPASS_REQUIRE", "force").env("SSH_ASKPASS", "/bin/false");
        run(program, input).await
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.0.join("agent")
    }

    /// A file beside the socket, for what is no secret.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<PathBuf, Refusal> {
        let path = self.folder.0.join(name);
        fs::write(&path, content).map_err(cant_run)?;
        Ok(path)
    }
}

/// A folder that nobody else can look into.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let (parent, own) = (std::env::temp_dir(), std::process::id());
        for _ in 0..TRIES {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("strongroom-ssh-{own}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                Err(why) => return Err(why),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a temporary folder"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(why) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %Path::display(&self.0), %why, "can't remove a temporary folder");
        }
    }
}
