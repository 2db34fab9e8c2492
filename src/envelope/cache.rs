//! Opened data keys, kept for a while so that not every read of a secret goes to the token.
//!
//! Bounded by number, time and uses. An entry is found by SHA-256 over the whole sealed data key
//! and what it is bound to: one bit changed is a miss. A hit says nothing of whether the KMS key
//! may still be used; whoever asks has checked that on the key's row, read with the request.

use crate::secret::Key;
use aws_lc_rs::digest;
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
        Self { entries: 10_000, seconds: 300, uses: 100_000 }
    }
}

struct Entry {
    key: Key,
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

/// The name of a sealed data key in the cache.
#[derive(Clone, Copy)]
pub struct Name([u8; 32]);

impl Name {
    /// Over the sealed data key, the KMS key's revision-independent id in it, and what it is bound to.
    pub fn of(sealed: &[u8], bound_to: &[&str]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        for text in bound_to {
            hash.update(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(sealed);
        let mut name = [0; 32];
        name.copy_from_slice(hash.finish().as_ref());
        Self(name)
    }
}

impl DataKeys {
    /// An empty cache.
    pub fn new(options: Options) -> Self {
        let entries = (options.entries > 0).then(|| Cache::new(options.entries));
        Self { options, entries }
    }

    /// The data key of this name, if it is kept and not used up.
    pub fn find(&self, name: &Name) -> Option<Hit> {
        let cache = self.entries.as_ref()?;
        let entry = cache.get(&name.0)?;
        let used = entry.uses.fetch_add(1, Ordering::Relaxed);
        if used >= self.options.uses || Instant::now() >= entry.until {
            cache.remove(&name.0);
            return None;
        }
        Some(Hit(entry))
    }

    /// Keeps a data key; hands it back as a hit.
    pub fn keep(&self, name: &Name, key: Key) -> Hit {
        let until = Instant::now() + Duration::from_secs(self.options.seconds);
        let entry = Arc::new(Entry { key, until, uses: AtomicU32::new(0) });
        if let Some(cache) = &self.entries {
            cache.insert(name.0, entry.clone());
        }
        Hit(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(entries: usize, seconds: u64, uses: u32) -> (DataKeys, Name) {
        (DataKeys::new(Options { entries, seconds, uses }), Name::of(b"blob", &["arn", "v1"]))
    }

    #[test]
    fn a_key_is_found_until_its_uses_are_up() {
        let (cache, name) = with(10, 300, 2);
        cache.keep(&name, Key::take(&mut [1; 32]));
        assert_eq!(cache.find(&name).map(|h| *h.key().expose()), Some([1; 32]));
        assert!(cache.find(&name).is_some());
        assert!(cache.find(&name).is_none(), "used up");
    }

    #[test]
    fn a_key_is_not_found_after_its_time_or_when_the_cache_is_off() {
        for (cache, name) in [with(10, 0, 9), with(0, 300, 9)] {
            cache.keep(&name, Key::take(&mut [1; 32]));
            assert!(cache.find(&name).is_none());
        }
    }

    #[test]
    fn another_place_or_another_blob_has_another_name() {
        let name = |blob: &[u8], bound: &[&str]| Name::of(blob, bound).0;
        assert_ne!(name(b"blob", &["arn", "v1"]), name(b"blob", &["arn", "v2"]));
        assert_ne!(name(b"blob", &["arn", "v1"]), name(b"blob", &["arnv", "1"]));
        assert_ne!(name(b"blob", &["arn", "v1"]), name(b"blab", &["arn", "v1"]));
    }
}
