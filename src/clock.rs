//! Time and randomness, as things that are handed in, so that tests can choose both.

use crate::name::Uuid;
use crate::secret::Key;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub i64);

/// Milliseconds in a day.
pub const DAY: i64 = 86_400_000;

impl Time {
    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Days since the epoch, rounded down (UTC).
    pub fn day(self) -> i64 {
        self.0.div_euclid(DAY)
    }

    /// This moment plus `days` of 24 hours.
    pub fn plus_days(self, days: i64) -> Self {
        Self(self.0.saturating_add(days.saturating_mul(DAY)))
    }
}

/// The wall clock.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Time;
}

/// The machine's own clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Unpredictable bytes. A failure means no answer: nothing is made from weak randomness.
pub trait Random: Send + Sync + 'static {
    /// Fills `out` or fails.
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The generator could not deliver.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random generator failed")]
pub struct NoRandomness;

/// The operating system's generator (getrandom(2) through AWS-LC's DRBG).
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the generator")]
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        aws_lc_rs::rand::fill(out).map_err(|_| NoRandomness)
    }
}

/// `N` random bytes.
pub fn random_bytes<const N: usize>(random: &dyn Random) -> Result<[u8; N], NoRandomness> {
    let mut out = [0; N];
    random.fill(&mut out)?;
    Ok(out)
}

/// A random 256-bit key.
pub fn random_key(random: &dyn Random) -> Result<Key, NoRandomness> {
    Key::fill(|out| random.fill(out))
}

/// A random UUID (version 4, RFC 9562) in its 36-character lower-case form.
pub fn random_uuid(random: &dyn Random) -> Result<String, NoRandomness> {
    Ok(uuid::Builder::from_random_bytes(random_bytes(random)?).into_uuid().to_string())
}

/// A random UUID out of a supply that each thread keeps: one call to the generator for many ids.
/// For ids of requests and records, which are unique but no secret.
pub fn quick_uuid(random: &dyn Random) -> Result<Uuid, NoRandomness> {
    const SUPPLY: usize = 128;
    thread_local! {
        static LEFT: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
    }
    LEFT.with_borrow_mut(|left| {
        if left.is_empty() {
            left.resize(SUPPLY, [0; 16]);
            if let Err(error) = random.fill(left.as_flattened_mut()) {
                left.clear();
                return Err(error);
            }
        }
        left.pop().map(Uuid::from_random).ok_or(NoRandomness)
    })
}

/// The clock and the generator that the whole process shares.
#[derive(Clone)]
pub struct World {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub random: Arc<dyn Random>,
}

impl World {
    /// The machine's own clock and generator.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_days_round_down_before_the_epoch_too() {
        assert_eq!(Time(-1).seconds(), -1);
        assert_eq!(Time(-1).day(), -1);
        assert_eq!(Time(DAY).day(), 1);
        assert_eq!(Time(0).plus_days(7), Time(7 * DAY));
    }

    #[test]
    fn no_identifier_is_made_from_failed_randomness_and_none_comes_twice() {
        struct Broken;
        impl Random for Broken {
            fn fill(&self, _: &mut [u8]) -> Result<(), NoRandomness> {
                Err(NoRandomness)
            }
        }
        assert!(quick_uuid(&Broken).is_err());
        let made: std::collections::HashSet<Uuid> =
            (0..1000).filter_map(|_| quick_uuid(&SystemRandom).ok()).collect();
        assert_eq!(made.len(), 1000);
    }

    #[test]
    fn two_random_identifiers_differ() {
        let random = SystemRandom;
        assert_ne!(random_uuid(&random).ok(), random_uuid(&random).ok());
    }
}
