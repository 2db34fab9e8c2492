//! The process between the server and a program: `strongroom function-host`, which the server starts at
//! the head of a group of processes. It gives up what the program is not to have, starts it, and waits
//! for it.
//!
//! Its standard input is a socket. On that comes what the program is to find on its own standard input,
//! with its length before it (8 bytes, big-endian), and back goes how the program has ended ([`How`], in
//! JSON). When the program ends, or the server does, the whole group is killed, this process with it:
//! what a program leaves behind does no work.

use super::{How, filter};
use crate::custody::child::host::inherited;
use close_fds::CloseFdsBuilder;
use landlock::{Ruleset, RulesetAttr, Scope};
use rustix::fs::Mode;
use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group, umask};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;

/// The first descriptor that is nobody's standard input or output.
const FIRST: i32 = 3;

/// Runs this process's whole life.
///
/// # Errors
/// The standard input is no socket of the server's, or the system refuses what it takes. Nothing was
/// started then.
pub fn run(program: Vec<OsString>) -> io::Result<()> {
    let mut socket = inherited("function-host")?;
    if getpgrp() != getpid() {
        let text = "`function-host` is at the head of a group";
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let input = input(&mut socket)?;
    step_back()?;
    let how = match start(program) {
        Ok(child) => wait(child, input, &socket)?,
        Err(error) => How::NotStarted(error.to_string()),
    };
    serde_json::to_writer(&socket, &how)?;
    Ok(kill_current_process_group(Signal::KILL)?)
}

/// What the program is to read.
fn input(socket: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    socket.read_exact(&mut length)?;
    let mut input = Vec::new();
    let length = u64::from_be_bytes(length);
    let read = socket.take(length).read_to_end(&mut input)?;
    if u64::try_from(read) == Ok(length) { Ok(input) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Gives up what the program is not to have. What it starts has none of it either.
fn step_back() -> io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    CloseFdsBuilder::new().cloexecfrom(FIRST);
    // No signal to a process that is not of this program; kernels before 6.12 know no such thing.
    let scope = Ruleset::default().scope(Scope::Signal).and_then(Ruleset::create);
    scope.and_then(|scope| scope.restrict_self()).map_err(io::Error::other)?;
    for filter in filter::filters().map_err(io::Error::other)? {
        // Takes the way to new privileges too: a set-user-ID program runs as what started it.
        seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
    }
    Ok(())
}

fn start(program: Vec<OsString>) -> io::Result<Child> {
    let mut words = program.into_iter();
    let path = words.next().ok_or(ErrorKind::InvalidInput)?;
    Command::new(path).args(words).stdin(Stdio::piped()).spawn()
}

/// Waits for the program; one that does not read must keep neither its end nor the server's from being
/// noticed.
fn wait(mut child: Child, input: Vec<u8>, socket: &UnixStream) -> io::Result<How> {
    if let Some(stdin) = child.stdin.take() {
        thread::Builder::new().spawn(move || feed(stdin, &input))?;
    }
    let watched = socket.try_clone()?;
    thread::Builder::new().spawn(move || end_with(watched))?;
    Ok(child.wait()?.into())
}

fn feed(mut stdin: ChildStdin, input: &[u8]) {
    // A program need not read what it is told.
    drop(stdin.write_all(input));
}

/// Ends the program with the server, which says nothing more for as long as it lives.
fn end_with(mut server: UnixStream) {
    while let Err(error) = server.read(&mut [0])
        && error.kind() == ErrorKind::Interrupted
    {}
    let _not_reached = kill_current_process_group(Signal::KILL);
}

impl From<ExitStatus> for How {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Killed(signal.unwrap_or_default()),
        }
    }
}
