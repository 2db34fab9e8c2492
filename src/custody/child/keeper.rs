//! The thread that keeps a process with the token in it: starts it, watches it, starts another.

use super::message::{read_health, read_opened, write_opening};
use super::process::{PONG, Process};
use super::wire::{Channel, Writer};
use super::{Program, Shared, ended, host};
use crate::custody::profile::Profile;
use crate::custody::{Access, Error, Health, Locator, Result, TokenInfo};
use crossbeam_channel::Sender;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the process is asked how the token is.
const PING: Duration = Duration::from_millis(200);

/// The pauses before a process is started again: none after one that has served for a while, then
/// from the first to the last, each twice as long as the one before.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(400)];

/// How long a process must have served.
const A_WHILE: Duration = Duration::from_secs(10);

/// What the thread has.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    profile: Profile,
    access: Access,
    program: Program,
    started: u64,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        profile: Profile,
        access: Access,
        program: Program,
    ) -> Self {
        Self { shared, profile, access, program, started: 0 }
    }

    /// Keeps a process until the token is let go of. Tells `first` how the first one fared; if that
    /// did not open the token there is no second one.
    pub(super) fn keep(mut self, first: &Sender<Result<TokenInfo>>) {
        let mut pause = Duration::ZERO;
        loop {
            let began = Instant::now();
            let why = match self.start() {
                Ok((process, info, health)) => {
                    self.access.token = Locator::Serial(info.serial.clone());
                    self.shared.label.get_or_init(|| info.label.clone());
                    self.serve(health);
                    drop(first.try_send(Ok(info)));
                    let why = self.watch(process);
                    if began.elapsed() > A_WHILE {
                        pause = Duration::ZERO;
                    }
                    why
                }
                Err(error) => match self.failed(error, first) {
                    Some(why) => why,
                    None => return,
                },
            };
            if !self.goes_on(&why, pause) {
                return;
            }
            pause = pause.saturating_mul(2).clamp(PAUSES[0], PAUSES[1]);
        }
    }

    /// Why the token could not be opened; `None` if that ends the thread.
    fn failed(&self, error: Error, first: &Sender<Result<TokenInfo>>) -> Option<String> {
        self.shared.kept.lock().control = None;
        if let Error::Pin { why, .. } = &error {
            self.shared.refused(why);
        }
        let why = match &error {
            Error::Unavailable { why, .. } => why.clone(),
            other => other.to_string(),
        };
        if self.started > 1 {
            return Some(why);
        }
        drop(first.try_send(Err(error)));
        None
    }

    /// Takes down that there is no process, and waits; whether another one is to be started.
    fn goes_on(&self, why: &str, pause: Duration) -> bool {
        let mut kept = self.shared.kept.lock();
        let served = self.shared.serving.send_replace(0) > 0;
        kept.control = None;
        kept.seats.clear();
        kept.verdict = None;
        kept.before = kept.health.epoch;
        let why = kept.refused.clone().unwrap_or_else(|| why.to_owned());
        let said = !served && kept.health.why.as_ref() == Some(&why);
        kept.health = Health { up: false, why: Some(why.clone()), ..kept.health.clone() };
        self.shared.changed.notify_all();
        if kept.ending {
            return false;
        }
        // A token that is away for a day is tried twice a second.
        if !said {
            tracing::warn!(token = self.shared.name(), why, "the token's process is gone");
        }
        let until = Instant::now() + pause;
        while !kept.ending && !self.shared.changed.wait_until(&mut kept, until).timed_out() {}
        !kept.ending && kept.refused.is_none()
    }

    /// Starts a process and has it open the token.
    fn start(&mut self) -> Result<(Process, TokenInfo, Health)> {
        self.started += 1;
        let failed = |e| self.shared.unavailable(&format!("its process can't be started: {e}"));
        let process = Process::spawn(&self.program).map_err(failed)?;
        let control = process.channel.stream().try_clone().map_err(failed)?;
        let ending = {
            let mut kept = self.shared.kept.lock();
            kept.control = Some(control);
            kept.ending
        };
        if ending {
            process.end();
            return Err(self.shared.unavailable("it is let go of"));
        }
        let write = |w: &mut Writer<'_>| write_opening(w, &self.profile, &self.access, None);
        let (process, (info, health)) = process.open(&self.shared.name(), write, read_opened)?;
        Ok((process, info, health))
    }

    /// From now on requests go to this process.
    fn serve(&self, health: Health) {
        let mut kept = self.shared.kept.lock();
        kept.health = Health { epoch: kept.before.saturating_add(health.epoch), ..health };
        self.shared.serving.send_replace(self.started);
        self.shared.changed.notify_all();
        if self.started > 1 {
            tracing::info!(token = self.shared.name(), "a new process has opened the token");
        }
    }

    /// Asks it how it is until it has ended or is to be ended; answers why.
    fn watch(&self, mut process: Process) -> String {
        let failure = loop {
            if let Err(error) = self.ping(&mut process.channel) {
                break error;
            }
        };
        let verdict = self.shared.kept.lock().verdict.take();
        let why = match failure.kind() {
            _ if verdict.is_some() => verdict.unwrap_or_default(),
            ErrorKind::WouldBlock => format!("its process has not answered within {PONG:?}"),
            _ if ended(&failure) => return format!("its process has ended ({})", process.end()),
            _ => format!("its process is broken: {failure}"),
        };
        format!("{why} ({})", process.kill())
    }

    /// One question and its answer, after a pause in which nothing may come.
    fn ping(&self, channel: &mut Channel) -> io::Result<()> {
        if !self.shared.kept.lock().ending {
            channel.stream().set_read_timeout(Some(PING))?;
            match channel.receive(|_| None::<()>) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(()) => return Err(ErrorKind::InvalidData.into()),
            }
        }
        channel.stream().set_read_timeout(Some(PONG))?;
        if !self.shared.kept.lock().ending {
            channel.stream().write_all(&[host::PING])?;
        }
        let health = channel.receive(read_health)?;
        self.shared.note(self.started, health);
        Ok(())
    }
}
