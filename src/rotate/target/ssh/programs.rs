//! OpenSSH's programs, run so that they know nothing of this process's surroundings.

use super::Refusal;
use std::io;
use std::process::{Output, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The most that is read of what a program says, in bytes of each stream.
const MAX_OUTPUT: u64 = 64 * 1024;

/// A program of the system's, with an environment of its own. It dies with the value that runs it.
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a program to its end with this on its standard input.
pub(super) async fn run(mut command: Command, input: &[u8]) -> Result<Output, Refusal> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(cant_run)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that ends early does not read it all.
            drop(stdin.write_all(input).await);
        }
    };
    let ((), stdout, stderr, status) =
        tokio::join!(write, read(stdout), read(stderr), child.wait());
    Ok(Output {
        status: status.map_err(cant_run)?,
        stdout: stdout.map_err(cant_run)?,
        stderr: stderr.map_err(cant_run)?,
    })
}

/// The beginning of what is said; the rest goes by.
async fn read(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(MAX_OUTPUT).read_to_end(&mut said).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(said)
}

pub(super) fn cant_run(why: io::Error) -> Refusal {
    match why.kind() {
        io::ErrorKind::NotFound => Refusal::other("OpenSSH's client is not installed here"),
        _ => Refusal::Unreachable(format!("can't run OpenSSH's client: {why}")),
    }
}
