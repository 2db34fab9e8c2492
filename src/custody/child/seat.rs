//! One of the lane's servers: its way to the process that serves.

use super::message::{MOST, read_answers, write_requests};
use super::wire::{Frames, Reader, Writer};
use super::{STARTING, Shared, ended, host};
use crate::custody::lane::Server;
use crate::custody::{Error, Health, Request, Response, Result};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// What is asked of a software token in one message takes no longer than this, going by those before:
/// so that nobody waits long for the others' answers. There a message costs as much as what it asks. A
/// device takes longer and does several things at a time: it is asked on as many sockets as it has
/// sessions.
const TOGETHER: Duration = Duration::from_millis(1);

/// A server's seat at whatever process serves.
pub(super) struct Seat {
    shared: Arc<Shared>,
    place: Option<Place>,
    /// Whether the token is software.
    software: bool,
    /// How long a request takes: the least that was seen lately, since a busy machine makes any of them
    /// take longer.
    pace: Duration,
}

/// A seat at one process.
struct Place {
    process: u64,
    line: Line,
    /// What was last heard of the token here.
    told: Option<Health>,
}

/// Why there is no answer.
enum Lost {
    /// There is no process to ask.
    Unasked(Error),
    /// This one has ended, perhaps when it had begun.
    Ended { process: u64, begun: bool },
    /// It does not answer, or not in a way that makes sense.
    Broken(String),
}

impl Server for Seat {
    async fn serve(&mut self, requests: &[&Request]) -> Vec<Result<Response>> {
        if let [request] = requests {
            return vec![self.serve_one(request).await];
        }
        let lost = match self.ask(requests).await {
            Ok(answers) => return answers,
            Err(lost) => lost,
        };
        let mut answers = Vec::with_capacity(requests.len());
        match lost {
            // Now one by one: what the library does not survive takes nothing else with it.
            Lost::Ended { process, .. } if self.shared.replaced(process).await => {
                for request in requests {
                    answers.push(self.serve_one(request).await);
                }
            }
            lost => answers.extend(requests.iter().map(|it| Err(self.explain(&lost, it)))),
        }
        answers
    }

    fn at_a_time(&self) -> usize {
        if !self.software {
            return 1;
        }
        let fit = TOGETHER.as_micros() / self.pace.as_micros().max(1);
        usize::try_from(fit).unwrap_or(MOST).clamp(1, MOST)
    }
}

impl Seat {
    pub(super) fn new(shared: Arc<Shared>, software: bool) -> Self {
        Self { shared, place: None, software, pace: TOGETHER }
    }

    /// Two attempts, if the process ends in the first and the request may be made twice.
    async fn serve_one(&mut self, request: &Request) -> Result<Response> {
        let outcome = match self.ask_one(request).await {
            Err(Lost::Ended { process, begun })
                if (!begun || repeatable(request)) && self.shared.replaced(process).await =>
            {
                self.ask_one(request).await
            }
            first => first,
        };
        outcome.unwrap_or_else(|lost| Err(self.explain(&lost, request)))
    }

    async fn ask_one(&mut self, request: &Request) -> std::result::Result<Result<Response>, Lost> {
        // There are as many answers as requests.
        self.ask(&[request]).await?.pop().ok_or_else(|| Lost::Broken(String::new()))
    }

    /// One attempt; the answers are in the order of the requests.
    async fn ask(
        &mut self,
        requests: &[&Request],
    ) -> std::result::Result<Vec<Result<Response>>, Lost> {
        let place = match self.place.take() {
            Some(place) if place.process == self.shared.serving() => place,
            _ => Place::at(&self.shared)?,
        };
        let patience = self.shared.patience;
        let place = self.place.insert(place);
        let begin = Instant::now();
        if let Err(error) = place.line.send(|w| write_requests(w, requests)) {
            return Err(self.lost(&error, false));
        }
        let (health, answers) = match place.line.receive(patience, read_answers).await {
            Ok((_, answers)) if answers.len() != requests.len() => {
                return Err(self.lost(&ErrorKind::InvalidData.into(), true));
            }
            Ok(told) => told,
            Err(error) => return Err(self.lost(&error, true)),
        };
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX).max(1);
        let lately = self.pace.saturating_add(self.pace / 16);
        self.pace = lately.min(begin.elapsed() / count);
        if place.told.as_ref() != Some(&health) {
            self.shared.note(place.process, health.clone());
            place.told = Some(health);
        }
        for answer in &answers {
            if let Err(Error::Pin { why, .. }) = answer {
                self.shared.refused(why);
            }
        }
        Ok(answers)
    }

    /// Gives the place up.
    fn lost(&mut self, error: &io::Error, begun: bool) -> Lost {
        let process = self.place.take().map_or(0, |place| place.process);
        let why = match error.kind() {
            _ if ended(error) => return Lost::Ended { process, begun },
            ErrorKind::TimedOut => {
                format!("a call to it has not come back within {:?}", self.shared.patience)
            }
            _ => format!("its process and the server don't understand each other: {error}"),
        };
        self.shared.condemn(process, &why);
        Lost::Broken(why)
    }

    /// What the caller is told.
    fn explain(&self, lost: &Lost, request: &Request) -> Error {
        let (why, begun) = match lost {
            Lost::Unasked(error) => return error.clone(),
            Lost::Ended { begun, .. } => ("its process has ended", *begun),
            Lost::Broken(why) => (why.as_str(), true),
        };
        let open = if begun && !repeatable(request) { WHETHER } else { "" };
        self.shared.unavailable(&format!("{why}{open}"))
    }
}

const WHETHER: &str = "; whether the key was changed is to be looked up";

/// Whether a request may be asked twice: it changes nothing.
fn repeatable(request: &Request) -> bool {
    match request {
        Request::Derive { .. }
        | Request::Agree { .. }
        | Request::Unwrap { .. }
        | Request::Inspect { .. }
        | Request::Random { .. }
        | Request::Sign { .. }
        | Request::Attest { .. } => true,
        Request::Generate { .. }
        | Request::Import { .. }
        | Request::Destroy { .. }
        | Request::GenerateSigner { .. } => false,
    }
}

impl Place {
    /// One at the process that serves.
    fn at(shared: &Shared) -> std::result::Result<Self, Lost> {
        let mut kept = shared.kept.lock();
        let process = shared.serving();
        let control = kept.control.as_ref().filter(|_| process > 0);
        let Some(control) = control else {
            let why = kept.health.why.as_deref().unwrap_or(STARTING);
            return Err(Lost::Unasked(match &kept.refused {
                Some(why) => Error::Pin { token: shared.name(), why: why.clone() },
                None => shared.unavailable(why),
            }));
        };
        let (line, socket) = Line::to(control).map_err(|error| {
            if ended(&error) {
                return Lost::Ended { process, begun: false };
            }
            Lost::Unasked(shared.unavailable(&format!("no way to its process: {error}")))
        })?;
        kept.seats.push(socket);
        Ok(Self { process, line, told: None })
    }
}

/// The way to a process with its buffers, for a task: requests go by a socket, which can be shut down,
/// and answers come by a pipe. Whoever waits on a socket is woken not only when something comes, but
/// also when the other side has read what was sent: on both sides once more for every request.
struct Line {
    requests: UnixStream,
    answers: pipe::Receiver,
    frames: Frames,
}

impl Line {
    /// Makes one and hands the other ends over. The socket comes back besides.
    fn to(control: &UnixStream) -> io::Result<(Self, UnixStream)> {
        let (requests, theirs) = UnixStream::pair()?;
        let (answers, to_answer) = io::pipe()?;
        let ends = [theirs.as_fd(), to_answer.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut besides = SendAncillaryBuffer::new(&mut space);
        if !besides.push(SendAncillaryMessage::ScmRights(&ends)) {
            return Err(ErrorKind::InvalidInput.into());
        }
        sendmsg(control, &[IoSlice::new(&[host::SEAT])], &mut besides, SendFlags::NOSIGNAL)?;
        requests.set_nonblocking(true)?;
        let answers = pipe::Receiver::from_owned_fd(answers.into())?;
        let besides = requests.try_clone()?;
        Ok((Self { requests, answers, frames: Frames::new() }, besides))
    }

    /// Sends what `write` writes as one frame. There is room for it: all before it was answered.
    fn send(&mut self, write: impl FnOnce(&mut Writer<'_>)) -> io::Result<()> {
        self.frames.send(&self.requests, write)
    }

    /// Waits for a frame and reads it by `read`, which must take all of it.
    ///
    /// # Errors
    /// `UnexpectedEof` if the other side is gone, `TimedOut` if the frame is not whole in time,
    /// `InvalidData` for anything but one whole frame that `read` understands.
    async fn receive<T>(
        &mut self,
        patience: Duration,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> io::Result<T> {
        tokio::time::timeout(patience, self.fill()).await.map_err(|_| ErrorKind::TimedOut)??;
        self.frames.read(read)
    }

    async fn fill(&mut self) -> io::Result<()> {
        loop {
            let more = self.answers.read(self.frames.room()).await?;
            if self.frames.came(more)? {
                return Ok(());
            }
        }
    }
}
