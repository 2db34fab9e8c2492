//! The process that holds a token: it opens it, and answers what comes on each socket that it is given.
//!
//! Its first socket is its standard input. On that it is told which token to open, and then, a byte
//! at a time, to take another socket and a pipe for what it answers there (`SEAT`, which they come
//! with) or to say how the token is (`PING`). When that socket ends it lets go of the token and ends.
//! One that is told to open a sealed PIN ends when it has.

use super::message::{
    Opening, Task, read_requests, read_task, write_answers, write_health, write_opened,
    write_unsealed,
};
use super::wire::{Channel, Frames};
use crate::custody::{self, Driver, Health};
use crossbeam_channel::Sender;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io::{self, ErrorKind, IoSliceMut, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Comes with a socket that requests will come on, and a pipe for their answers.
pub(super) const SEAT: u8 = b's';

/// Asks how the token is.
pub(super) const PING: u8 = b'?';

/// How long the end waits for calls in flight, a little less than the server waits for the process to be
/// gone. Whoever asked has stopped waiting before.
const ENDING: Duration = Duration::from_millis(2500);

/// Runs this process's whole life: `strongroom token-host`, which the server starts.
///
/// # Errors
/// The standard input is no socket of the server's, or the system refuses what it takes.
pub fn run() -> io::Result<()> {
    let control = inherited("token-host")?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    leave_signals_to_the_server()?;
    let mut channel = Channel::new(control.try_clone()?);
    let Opening { profile, access, blank } = match channel.receive(read_task)? {
        Task::Token(opening) => *opening,
        Task::Pin(opener) => return channel.send(|w| write_unsealed(w, &opener.open())),
    };
    if let Some((so_pin, label)) = blank {
        let made = custody::provision(&profile, &access, &so_pin, &label);
        let health = Health { up: true, why: None, epoch: 0, waiting: 0, seated: 0 };
        return channel.send(|w| write_opened(w, &made.map(|info| (info, health))));
    }
    let token = match custody::driver(profile, access) {
        Ok(token) => token,
        Err(error) => return channel.send(|w| write_opened(w, &Err(error))),
    };
    channel.send(|w| write_opened(w, &Ok((token.info().clone(), token.health()))))?;
    let (running, ended) = crossbeam_channel::bounded::<()>(0);
    let served = serve(&control, &mut channel, &token, &running);
    drop(running);
    // Nothing is ever sent. A library is not torn down under a call.
    if ended.recv_timeout(ENDING) == Err(crossbeam_channel::RecvTimeoutError::Disconnected) {
        drop(token);
    }
    served
}

/// The socket that is the standard input of a process that runs `command`; it is then empty for whoever
/// reads it.
///
/// # Errors
/// It is no socket: somebody else than the server has started the process.
pub fn inherited(command: &str) -> io::Result<UnixStream> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr().map_err(|_| {
        let text = format!("`{command}` is started by the server alone");
        io::Error::new(ErrorKind::InvalidInput, text)
    })?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(socket)
}

/// A terminal and a service manager send theirs to every process of a service; this one must serve
/// until the server has drained. Tokio takes a signal over for as long as the process lives.
fn leave_signals_to_the_server() -> io::Result<()> {
    let reactor = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = reactor.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    Ok(())
}

/// Does as it is told until the server ends it, or itself.
fn serve(
    control: &UnixStream,
    channel: &mut Channel,
    token: &Arc<dyn Driver>,
    running: &Sender<()>,
) -> io::Result<()> {
    loop {
        match told(control)? {
            None => return Ok(()),
            Some((SEAT, [Some(requests), Some(answers)])) => {
                let (token, running) = (Arc::clone(token), running.clone());
                let name = std::thread::Builder::new().name("token".into());
                name.spawn(move || answer((requests.into(), answers.into()), token, running))?;
            }
            Some((PING, [None, None])) => channel.send(|w| write_health(w, &token.health()))?,
            Some(_) => return Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// The next byte and what came with it; `None` at the end.
fn told(control: &UnixStream) -> io::Result<Option<(u8, [Option<OwnedFd>; 2])>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut besides = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = loop {
        match recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut besides, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut ends = besides.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(ends) => ends.collect(),
        _ => Vec::new(),
    });
    let [byte] = byte;
    Ok((got.bytes > 0).then(|| (byte, [ends.next(), ends.next()])))
}

/// Answers what comes on one socket until it ends. `running` is let go of after the worker, which
/// tells that the token is free.
fn answer(
    (requests, mut answers): (UnixStream, PipeWriter),
    token: Arc<dyn Driver>,
    running: Sender<()>,
) {
    let (mut worker, mut frames) = (Arc::clone(&token).worker(), Frames::new());
    while let Ok(asked) = frames.receive(&requests, read_requests) {
        let made: Vec<_> = asked.iter().map(|request| worker.serve(request)).collect();
        drop(asked);
        if frames.send(&mut answers, |w| write_answers(w, &token.health(), &made)).is_err() {
            break;
        }
    }
    drop((worker, token));
    drop(running);
}
