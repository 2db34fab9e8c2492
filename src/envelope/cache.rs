//! Opened data keys, kept for a while so that not every read of a secret goes to the token.
//!
//! Bounded by number, time and uses. An entry is good for the very envelope that was opened: one
//! bit changed is a miss. An envelope that was moved to another secret or version gains nobody
//! anything: the value under the data key is bound to its place by itself. A hit says nothing of whether the KMS key
//! may still be used; whoever asks has checked that on the key's row, read with the request.

use crate::secret::Key;
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How much is kept, and for how long.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Data keys kept; 0 turns the cache off, so that every read touches the hardware.
    pub entries: usize,
    /// Seconds for which one is kept.
    pub seconds: u64,
    /// Reads that one may serve.
    pub uses: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { entries: 100_000, seconds: 300, uses: 100_000 }
    }
}

struct Entry {
    key: Key,
    sealed: Box<[u8]>,
    until: Instant,
    uses: AtomicU32,
}

/// The cache.
pub struct DataKeys {
    options: Options,
    entries: Option<Cache<[u8; 32], Arc<Entry>>>,
}

/// A data key that was found in the cache; wiped when the last holder lets go.
pub struct Hit(Arc<Entry>);

impl Hit {
    /// The key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }
}

/// Where the entry of an envelope stands: the envelope's end, which is ciphertext and tag and so as
/// good as random.
fn place(sealed: &[u8]) -> [u8; 32] {
    sealed.last_chunk().copied().unwrap_or_default()
}

impl DataKeys {
    /// An empty cache.
    pub fn new(options: Options) -> Self {
        let entries = (options.entries > 0).then(|| Cache::new(options.entries));
        Self { options, entries }
    }

    /// The data key in this envelope, if it is kept and not used up.
    pub fn find(&self, sealed: &[u8]) -> Option<Hit> {
        let cache = self.entries.as_ref()?;
        let entry = cache.get(&place(sealed)).filter(|entry| *entry.sealed == *sealed)?;
        let used = entry.uses.fetch_add(1, Ordering::Relaxed);
        if used >= self.options.uses || Instant::now() >= entry.until {
            cache.remove(&place(sealed));
            return None;
        }
        Some(Hit(entry))
    }

    /// Keeps a data key; hands it back as a hit.
    pub fn keep(&self, sealed: &[u8], key: Key) -> Hit {
        let until = Instant::now() + Duration::from_secs(self.options.seconds);
        let entry = Arc::new(Entry { key, sealed: sealed.into(), until, uses: AtomicU32::new(0) });
        if let Some(cache) = &self.entries {
            cache.insert(place(sealed), entry.clone());
        }
        Hit(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED: [u8; 147] = [7; 147];

    fn with(entries: usize, seconds: u64, uses: u32) -> DataKeys {
        DataKeys::new(Options { entries, seconds, uses })
    }

    #[test]
    fn a_key_is_found_until_its_uses_are_up() {
        let cache = with(10, 300, 2);
        cache.keep(&SEALED, Key::take(&mut [1; 32]));
        assert_eq!(cache.find(&SEALED).map(|h| *h.key().expose()), Some([1; 32]));
        assert!(cache.find(&SEALED).is_some());
        assert!(cache.find(&SEALED).is_none(), "used up");
    }

    #[test]
    fn a_key_is_not_found_after_its_time_or_when_the_cache_is_off() {
        for cache in [with(10, 0, 9), with(0, 300, 9)] {
            cache.keep(&SEALED, Key::take(&mut [1; 32]));
            assert!(cache.find(&SEALED).is_none());
        }
    }

    #[test]
    fn one_altered_byte_is_a_miss() {
        let cache = with(10, 300, 9);
        cache.keep(&SEALED, Key::take(&mut [1; 32]));
        for at in [0, 70, 146] {
            let mut altered = SEALED;
            altered[at] ^= 1;
            assert!(cache.find(&altered).is_none());
        }
    }
}
