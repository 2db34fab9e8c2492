//! One receiver: reads the log from its place, and tells what is an event, in the log's order. What is not
//! taken is told again until it is.

use super::event::Event;
use super::file;
use super::options::{Filter, Receiver};
use super::webhook::{Refusal, Webhook};
use crate::audit::{self, Follower, NOTE, Position, Recorder};
use crate::clock::{Random, World, random_bytes};
use crate::ops::health::Delivery;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The wait after a failure: it doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// How a receiver is told.
pub(super) enum Way {
    Webhook(Webhook),
    File(PathBuf),
}

/// Tells receivers of events for as long as the set is kept.
///
/// # Errors
/// If a receiver's place in the log can't be read or written.
pub fn follow(
    receivers: Vec<Receiver>,
    recorder: &Recorder,
    world: &World,
) -> Result<JoinSet<()>, audit::Error> {
    let names: Vec<_> = receivers.iter().map(|receiver| receiver.delivery.name.clone()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let followers = recorder.followers(&names)?;
    let mut telling = JoinSet::new();
    for (receiver, follower) in receivers.into_iter().zip(followers) {
        let Receiver { filter, way, delivery } = receiver;
        delivery.read.store(follower.index(), Relaxed);
        let (durable, world) = (recorder.log().synced(), world.clone());
        let follower = Some(follower);
        telling.spawn(Subscription { filter, way, delivery, durable, world, follower }.run());
    }
    Ok(telling)
}

struct Subscription {
    filter: Filter,
    way: Way,
    delivery: Arc<Delivery>,
    /// How many records of the log are on disk. No event is told before its record is there.
    durable: watch::Receiver<u64>,
    world: World,
    follower: Option<Follower>,
}

/// An event, and the place behind its record.
type Placed = (Event, Position);

impl Subscription {
    async fn run(mut self) {
        let mut pause = BACKOFF.0;
        loop {
            match self.step().await {
                Ok(true) => pause = BACKOFF.0,
                // Woken from time to time too, to note the place.
                Ok(false) => drop(tokio::time::timeout(NOTE, self.durable.changed()).await),
                Err(why) => {
                    self.failed(&why.into());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Tells what is in the next records; answers whether there were any.
    async fn step(&mut self) -> Result<bool, String> {
        let size = *self.durable.borrow_and_update();
        let batch = self.reading(move |follower| {
            follower.note()?;
            follower.batch(size)
        });
        let batch = batch.await?;
        let Some((_, end)) = batch.last() else { return Ok(false) };
        let end = *end;
        let wanted = batch.iter().filter_map(|(record, behind)| {
            let event = Event::of(record).filter(|event| self.filter.wants(event))?;
            Some((event, *behind))
        });
        let mut events: Vec<Placed> = wanted.collect();
        while !events.is_empty() {
            let taken = self.tell(&events).await;
            if let Some((_, behind)) = events.drain(..taken).next_back() {
                self.move_on(behind).await?;
            }
        }
        self.delivery.waiting.store(0, Relaxed);
        self.move_on(end).await?;
        Ok(true)
    }

    /// Tells the first of these events, or all, until that is taken; answers how many were.
    async fn tell(&mut self, events: &[Placed]) -> usize {
        let first = events.first().and_then(|(event, _)| event.time());
        self.delivery.waiting.store(first.map_or(0, |time| time.0), Relaxed);
        let mut pause = BACKOFF.0;
        loop {
            match self.attempt(events).await {
                Ok(taken) => {
                    self.succeeded(taken);
                    return taken;
                }
                Err(refusal) => {
                    self.failed(&refusal);
                    if refusal.gone {
                        pause = BACKOFF.1;
                    }
                    tokio::time::sleep(jittered(pause, &*self.world.random)).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    async fn attempt(&mut self, events: &[Placed]) -> Result<usize, Refusal> {
        match &mut self.way {
            Way::Webhook(webhook) => {
                let Some((event, _)) = events.first() else { return Ok(0) };
                webhook.send(event, self.world.clock.now()).await.map(|()| 1)
            }
            Way::File(path) => {
                let (path, shown) = (path.clone(), path.display().to_string());
                let events: Vec<Event> = events.iter().map(|(event, _)| event.clone()).collect();
                let count = events.len();
                let append = move || file::append(&path, &events);
                let appended = tokio::task::spawn_blocking(append).await;
                let appended = appended.map_err(|e| e.to_string())?;
                appended.map_err(|e| format!("`{shown}`: {e}"))?;
                Ok(count)
            }
        }
    }

    fn succeeded(&self, taken: usize) {
        let delivery = &self.delivery;
        delivery.taken.fetch_add(u64::try_from(taken).unwrap_or(0), Relaxed);
        delivery.last.store(self.world.clock.now().seconds(), Relaxed);
        if delivery.failing.swap(false, Relaxed) {
            tracing::info!(receiver = delivery.name, "events are taken again");
        }
    }

    fn failed(&self, refusal: &Refusal) {
        self.delivery.failures.fetch_add(1, Relaxed);
        if !self.delivery.failing.swap(true, Relaxed) {
            let (receiver, why) = (&self.delivery.name, &refusal.why);
            tracing::error!(receiver, why, "events are not taken; trying again");
        }
    }

    async fn move_on(&mut self, to: Position) -> Result<(), String> {
        let delivery = self.delivery.clone();
        self.reading(move |follower| {
            follower.advance(to);
            delivery.read.store(follower.index(), Relaxed);
            follower.note()
        })
        .await
    }

    /// Has the follower do what may block.
    async fn reading<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Follower) -> Result<T, audit::Error> + Send + 'static,
    ) -> Result<T, String> {
        let mut follower = self.follower.take().ok_or("its reader has failed")?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut follower);
            (follower, done)
        });
        let (follower, done) = done.await.map_err(|e| e.to_string())?;
        self.follower = Some(follower);
        done.map_err(|e| e.to_string())
    }
}

/// Half to all of a pause, so that receivers that failed together are not tried together.
fn jittered(pause: Duration, random: &dyn Random) -> Duration {
    let [byte] = random_bytes::<1>(random).unwrap_or([0]);
    pause * (256 + u32::from(byte)) / 512
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;

    #[test]
    fn a_pause_is_half_of_it_at_least_and_never_more() {
        let pause = Duration::from_secs(60);
        let drawn: Vec<_> = (0..200).map(|_| jittered(pause, &SystemRandom)).collect();
        assert!(drawn.iter().all(|drawn| (pause / 2..pause).contains(drawn)));
        assert!(drawn.iter().any(|one| Some(one) != drawn.first()));
    }
}
