//! Opened data keys, kept for a while so that not every read of a secret goes to the token.
//!
//! Bounded by number, in all and for each KMS key, by time and uses. An entry is good for the very envelope that was opened: one
//! bit changed is a miss. An envelope that was moved to another secret or version gains nobody
//! anything: the value under the data key is bound to its place by itself. A hit says nothing of
//! whether the KMS key may still be used; whoever asks has checked that on the key's row, read with
//! the request.
//!
//! Many who miss the same data key at once (a restart, a popular secret) cost the token one call.

use crate::secret::Key;
use parking_lot::Mutex;
use quick_cache::sync::{Cache, GuardResult};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How much is kept, and for how long.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Data keys kept; 0 turns the cache off, so that every read touches the hardware.
    pub entries: usize,
    /// Data keys kept of one KMS key, so that none takes the room of all others.
    pub entries_per_key: usize,
    /// Seconds for which one is kept; by default what the profile of its key's token proposes, else
    /// 300.
    pub seconds: Option<u32>,
    /// Reads that one may serve.
    pub uses: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { entries: 100_000, entries_per_key: 25_000, seconds: None, uses: 100_000 }
    }
}

/// How long a data key is kept if neither the configuration nor a profile says, in seconds.
const SECONDS: u32 = 300;

/// How often entries are gone through for those that are too old.
const SWEEP: Duration = Duration::from_secs(1);

struct Entry {
    key: Key,
    sealed: Box<[u8]>,
    until: Instant,
    uses: AtomicU32,
    /// Given back with the entry, whichever way it goes.
    _room: Option<Room>,
}

/// Room for one data key among those of its KMS key.
struct Room(Arc<AtomicUsize>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The cache.
pub struct DataKeys {
    options: Options,
    entries: Option<Entries>,
    /// How many data keys of each KMS key are kept. Looked at by those who miss alone.
    kept: Mutex<HashMap<String, Arc<AtomicUsize>>>,
    /// When what is too old was last let go of for want of room.
    swept: Mutex<Option<Instant>>,
}

type Entries = Cache<[u8; 32], Arc<Entry>>;

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
        Self { options, entries, kept: Mutex::default(), swept: Mutex::default() }
    }

    /// The data key in this envelope under this KMS key: as it is kept, else as `open` opens it, which
    /// is kept then, if there is room, for as many seconds as the configuration says, or else `proposed`. Who misses what another is opening waits for that one, and opens it too if that one failed: not in
    /// turn, or a token that hangs would make a queue of them.
    ///
    /// # Errors
    /// Those of `open`.
    pub async fn find_or_open<E>(
        &self,
        kms_key: &str,
        sealed: &[u8],
        proposed: impl FnOnce() -> Option<u32>,
        open: impl Future<Output = Result<Key, E>>,
    ) -> Result<Hit, E> {
        let entry = |key, room| self.entry(sealed, key, room, proposed);
        let Some(cache) = &self.entries else {
            return Ok(Hit(entry(open.await?, None)));
        };
        if let Some(hit) = self.find(cache, sealed) {
            return Ok(hit);
        }
        match cache.get_value_or_guard(&place(sealed), Some(Duration::ZERO)) {
            GuardResult::Guard(first) => {
                let key = open.await?;
                let Some(room) = self.room(kms_key) else {
                    return Ok(Hit(entry(key, None)));
                };
                let entry = entry(key, Some(room));
                // Refused if it was removed meanwhile: then it is not kept.
                drop(first.insert(entry.clone()));
                return Ok(Hit(entry));
            }
            GuardResult::Timeout => drop(cache.get_value_or_guard_async(&place(sealed)).await),
            // An envelope with the same end, or one that came this moment.
            GuardResult::Value(_) => {}
        }
        if let Some(hit) = self.find(cache, sealed) {
            return Ok(hit);
        }
        let key = open.await?;
        let room = self.room(kms_key);
        let kept = room.is_some();
        let entry = entry(key, room);
        if kept {
            cache.insert(place(sealed), entry.clone());
        }
        Ok(Hit(entry))
    }

    /// Room for one more data key of this KMS key.
    fn room(&self, kms_key: &str) -> Option<Room> {
        let count = {
            let mut kept = self.kept.lock();
            match kept.get(kms_key) {
                Some(count) => count.clone(),
                None => kept.entry(kms_key.to_owned()).or_default().clone(),
            }
        };
        let more = |kept: usize| (kept < self.options.entries_per_key).then_some(kept + 1);
        let take = || count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        (take() || self.sweep() && take()).then(|| Room(count.clone()))
    }

    /// Lets go of what is too old, at most once a second; answers whether it did.
    fn sweep(&self) -> bool {
        let (Some(cache), now) = (&self.entries, Instant::now()) else { return false };
        let Some(mut last) = self.swept.try_lock() else { return false };
        if last.is_some_and(|last| now.saturating_duration_since(last) < SWEEP) {
            return false;
        }
        *last = Some(now);
        cache.retain(|_, entry| now < entry.until);
        true
    }

    /// The data key in this envelope, if it is kept and not used up.
    fn find(&self, cache: &Entries, sealed: &[u8]) -> Option<Hit> {
        let entry = cache.get(&place(sealed)).filter(|entry| *entry.sealed == *sealed)?;
        let used = entry.uses.fetch_add(1, Ordering::Relaxed);
        if used >= self.options.uses || Instant::now() >= entry.until {
            cache.remove(&place(sealed));
            return None;
        }
        Some(Hit(entry))
    }

    fn entry(
        &self,
        sealed: &[u8],
        key: Key,
        room: Option<Room>,
        proposed: impl FnOnce() -> Option<u32>,
    ) -> Arc<Entry> {
        let seconds = self.options.seconds.or_else(proposed).unwrap_or(SECONDS);
        let until = Instant::now() + Duration::from_secs(seconds.into());
        let uses = AtomicU32::new(0);
        Arc::new(Entry { key, sealed: sealed.into(), until, uses, _room: room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED: [u8; 147] = [7; 147];

    fn with(entries: usize, seconds: u32, uses: u32) -> DataKeys {
        DataKeys::new(Options { entries, seconds: Some(seconds), uses, ..Options::default() })
    }

    /// Whether the token is asked for the data key of this envelope.
    async fn is_asked(cache: &DataKeys, sealed: &[u8]) -> bool {
        let mut asked = false;
        let hit = cache.find_or_open("key", sealed, || None, async {
            asked = true;
            Ok::<_, ()>(Key::take(&mut [1; 32]))
        });
        assert_eq!(hit.await.map(|hit| *hit.key().expose()), Ok([1; 32]));
        asked
    }

    #[tokio::test]
    async fn a_key_is_found_until_its_uses_are_up() {
        let cache = with(10, 300, 2);
        for asked in [true, false, false, true, false] {
            assert_eq!(is_asked(&cache, &SEALED).await, asked);
        }
    }

    /// A moment that no clock has was a panic at every read.
    #[tokio::test]
    async fn the_longest_time_that_can_be_written_is_one() {
        let cache = with(10, u32::MAX, 2);
        for asked in [true, false] {
            assert_eq!(is_asked(&cache, &SEALED).await, asked);
        }
        let longer = serde_json::from_str::<Options>(r#"{"seconds": 4294967296}"#);
        assert!(longer.is_err());
    }

    #[tokio::test]
    async fn a_key_is_not_found_after_its_time_or_when_the_cache_is_off() {
        for cache in [with(10, 0, 9), with(0, 300, 9)] {
            assert!(is_asked(&cache, &SEALED).await);
            assert!(is_asked(&cache, &SEALED).await);
        }
    }

    #[tokio::test]
    async fn the_configuration_goes_before_what_a_profile_proposes() {
        for (said, proposed, kept) in
            [(None, Some(0), false), (None, None, true), (Some(300), Some(0), true)]
        {
            let cache = DataKeys::new(Options { seconds: said, ..Options::default() });
            let mut asked = 0;
            for _ in 0..2 {
                let open = async {
                    asked += 1;
                    Ok::<_, ()>(Key::take(&mut [1; 32]))
                };
                drop(cache.find_or_open("key", &SEALED, || proposed, open).await);
            }
            assert_eq!(asked == 1, kept, "{said:?} {proposed:?}");
        }
    }

    #[tokio::test]
    async fn one_kms_key_does_not_take_the_room_of_the_others() {
        let cache = DataKeys::new(Options { entries_per_key: 2, ..Options::default() });
        let ask = async |kms_key: &str, n: u8| {
            let (mut asked, sealed) = (false, [n; 147]);
            let hit = cache.find_or_open(kms_key, &sealed, || None, async {
                asked = true;
                Ok::<_, ()>(Key::take(&mut [1; 32]))
            });
            assert!(hit.await.is_ok());
            asked
        };
        for n in 0..5 {
            assert!(ask("greedy", n).await);
        }
        for (n, asked) in [(0, false), (1, false), (2, true), (4, true)] {
            assert_eq!(ask("greedy", n).await, asked, "{n}");
        }
        assert!(ask("other", 9).await);
        assert!(!ask("other", 9).await);
    }

    #[tokio::test]
    async fn what_is_too_old_takes_no_room() {
        let options = Options { entries_per_key: 1, seconds: Some(0), ..Options::default() };
        let cache = DataKeys::new(options);
        for n in 0..2 {
            let open = async { Ok::<_, ()>(Key::take(&mut [1; 32])) };
            drop(cache.find_or_open("key", &[n; 147], || None, open).await);
        }
        let kept = cache.entries.as_ref().expect("on").get(&[1; 32]);
        assert!(kept.is_some(), "the first was let go of");
    }

    #[tokio::test]
    async fn one_altered_byte_is_a_miss() {
        let cache = with(10, 300, 9);
        assert!(is_asked(&cache, &SEALED).await);
        for at in [0, 70, 146] {
            let mut altered = SEALED;
            altered[at] ^= 1;
            assert!(is_asked(&cache, &altered).await);
        }
    }

    /// Reads of one secret by 50 tasks; the token is asked with the number of calls before. Answers how
    /// many calls there were, and how many tasks failed.
    async fn herd<F>(cache: DataKeys, token: impl Fn(usize) -> F) -> (usize, usize)
    where
        F: Future<Output = Result<Key, ()>> + Send + 'static,
    {
        let (cache, calls) = (Arc::new(cache), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..50 {
            let (cache, answer) = (cache.clone(), [token(0), token(1)]);
            let calls = calls.clone();
            tasks.push(tokio::spawn(async move {
                let [first, later] = answer;
                let open = async {
                    let before = calls.fetch_add(1, Ordering::SeqCst);
                    if before == 0 { first.await } else { later.await }
                };
                cache.find_or_open("key", &SEALED, || None, open).await.is_ok()
            }));
        }
        let mut failed = 0;
        for task in tasks {
            failed += usize::from(!task.await.expect("no panic"));
        }
        (calls.load(Ordering::SeqCst), failed)
    }

    /// A token call that all others have time to come during.
    async fn call(outcome: Result<(), ()>) -> Result<Key, ()> {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        outcome.map(|()| Key::take(&mut [1; 32]))
    }

    #[tokio::test]
    async fn many_who_miss_the_same_key_ask_the_token_once() {
        assert_eq!(herd(with(10, 300, 100), |_| call(Ok(()))).await, (1, 0));
        assert_eq!(herd(with(0, 300, 100), |_| call(Ok(()))).await, (50, 0), "no cache");
    }

    #[tokio::test]
    async fn those_who_waited_for_one_that_failed_do_not_wait_for_each_other() {
        let all = Arc::new(tokio::sync::Barrier::new(49));
        let token = |before| {
            let all = all.clone();
            async move {
                if before > 0 {
                    all.wait().await;
                }
                call(Err(())).await
            }
        };
        let herd = herd(with(10, 300, 100), token);
        let outcome = tokio::time::timeout(Duration::from_secs(20), herd).await;
        assert_eq!(outcome.expect("all at once"), (50, 50));
    }

    #[tokio::test]
    async fn one_that_is_given_up_holds_up_nobody() {
        let cache = Arc::new(with(10, 300, 100));
        let first = cache.clone();
        let hanging = tokio::spawn(async move {
            first
                .find_or_open("key", &SEALED, || None, std::future::pending::<Result<Key, ()>>())
                .await
                .is_ok()
        });
        tokio::task::yield_now().await;
        let waiting = cache.clone();
        let waiting = tokio::spawn(async move { is_asked(&waiting, &SEALED).await });
        tokio::task::yield_now().await;
        hanging.abort();
        assert!(waiting.await.expect("no panic"));
        assert!(!is_asked(&cache, &SEALED).await);
    }
}
