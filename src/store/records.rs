//! Documents with a MAC over them, and a cache that is never staler than the database.
//!
//! Each aggregate is one row: its document (JSON), its MAC, and columns to find it by. The MAC is
//! HMAC-SHA-256(row key, table || 0x00 || document); the document says which row it belongs to and
//! the reader checks that, so a row can't be moved, edited or loosened in the database unseen.

use super::secrets::{Trace, Version};
use super::{Error, Result, Store, Tx, Value};
use crate::store::{AsStoreError, one};
use aws_lc_rs::hmac;
use quick_cache::sync::Cache;
use serde::{Serialize, de::DeserializeOwned};
use std::any::Any;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Something that is stored as one row with a MAC.
pub trait Document: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The table, which the MAC covers too.
    const TABLE: &'static str;
    /// What tells this document from the others of its table, as the cache knows it.
    fn key(&self) -> String;
}

/// What a reader made of a document (a compiled policy, say): made once, gone with this reading of
/// the document. A copy of the document, which may be changed, starts without it.
#[derive(Default)]
pub struct Made(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Made {
    /// What was made, or what `make` makes now. A document has one kind of thing made of it.
    pub fn get_or<T: Any + Send + Sync, E>(
        &self,
        make: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<Arc<T>, E> {
        if let Some(made) = self.0.get().and_then(|made| made.clone().downcast::<T>().ok()) {
            return Ok(made);
        }
        let made = Arc::new(make()?);
        // Somebody else may have been quicker; both made the same.
        drop(self.0.set(made.clone()));
        Ok(made)
    }
}

impl Clone for Made {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Made")
    }
}

/// What makes the MACs: holds the row key, derived from the store key.
pub struct RowMac(hmac::Key);

impl RowMac {
    /// From 32 bytes of key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn context(&self, table: &str, document: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(table.as_bytes());
        context.update(&[0]);
        context.update(document);
        context
    }

    fn tag(&self, table: &str, document: &[u8]) -> hmac::Tag {
        self.context(table, document).sign()
    }

    fn check(&self, table: &str, document: &[u8], mac: &[u8]) -> Result<()> {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.tag(table, document).as_ref(), mac)
            .map_err(|_| {
                Error::Corrupt(format!("a row of table {table} fails its integrity check"))
            })
    }
}

/// How many change counters there are; documents share them by hash.
const BUCKETS: usize = 4096;
/// A change counter holds the writes under way in its low 16 bits, finished ones above.
const UNDER_WAY: u64 = 0xFFFF;

/// Change counters: an entry read under one value of its counter is good for as long as the
/// counter has that value and no write is under way.
struct Counters {
    hasher: RandomState,
    buckets: Vec<AtomicU64>,
}

impl Counters {
    fn of(&self, table: &str, key: &(impl Hash + ?Sized)) -> (usize, Option<&AtomicU64>) {
        let hash = self.hasher.hash_one((table, key));
        let index = usize::try_from(hash % BUCKETS as u64).unwrap_or(0);
        (index, self.buckets.get(index))
    }

    fn begin(&self, table: &str, key: &(impl Hash + ?Sized)) -> usize {
        let (index, counter) = self.of(table, key);
        counter.map(|c| c.fetch_add(1, Ordering::SeqCst));
        index
    }

    fn end(&self, index: usize) {
        self.buckets.get(index).map(|c| c.fetch_add(UNDER_WAY, Ordering::SeqCst));
    }
}

struct Cached {
    counter: u64,
    document: Arc<dyn Any + Send + Sync>,
}

struct Inner {
    store: Store,
    mac: RowMac,
    counters: Counters,
    cache: Cache<(&'static str, String), Arc<Cached>>,
    versions: Cache<(i64, Box<str>), CachedVersion>,
}

/// A version's row as it was under one value of its secret's counter.
#[derive(Clone)]
struct CachedVersion {
    counter: u64,
    version: Arc<Version>,
}

/// The largest version that is kept in memory, in bytes of ciphertext.
const CACHED_VERSION: usize = 8 * 1024;
/// What the change counters of versions go by: the table and the secret's row.
const VERSIONS: &str = "version";

/// The store with documents over it.
#[derive(Clone)]
pub struct Records(Arc<Inner>);

impl Records {
    /// Over this store, MACs under this key, at most `cached` documents kept in memory.
    pub fn new(store: Store, mac: RowMac, cached: usize) -> Self {
        let counters = Counters {
            hasher: RandomState::new(),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        };
        let (cache, versions) = (Cache::new(cached), Cache::new(cached));
        Self(Arc::new(Inner { store, mac, counters, cache, versions }))
    }

    /// Reads on one snapshot, on this thread: for a handful of rows by key.
    pub fn read<T, E: From<Error>>(
        &self,
        mut f: impl FnMut(&mut Rows<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.0.store.read(|tx| f(&mut Rows::new(tx, &self.0, None)))
    }

    /// Long reads, on a thread that may block.
    pub async fn scan<T, E>(
        &self,
        mut f: impl FnMut(&mut Rows<'_>) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let inner = self.0.clone();
        self.0.store.scan(move |tx| f(&mut Rows::new(tx, &inner, None))).await
    }

    /// Changes, all or none; answers once they are on disk.
    pub async fn write<T, E>(
        &self,
        mut f: impl FnMut(&mut Rows<'_>) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + AsStoreError + Send + 'static,
    {
        let mut touched = Touched { inner: self.0.clone(), buckets: Vec::new() };
        self.0
            .store
            .write(move |tx| {
                let inner = touched.inner.clone();
                f(&mut Rows::new(tx, &inner, Some(&mut touched.buckets)))
            })
            .await
    }

    /// See [`Engine::exclusive`](super::Engine::exclusive).
    pub fn exclusive(&self) -> bool {
        self.0.store.exclusive()
    }

    /// The document under `key`, from memory if it has not changed since it was read.
    pub fn cached<D: Document>(
        &self,
        key: &str,
        load: impl Fn(&mut Rows<'_>) -> Result<Option<D>>,
    ) -> Result<Option<Arc<D>>> {
        let inner = &*self.0;
        let counter = inner.counters.of(D::TABLE, key).1.map(|c| c.load(Ordering::SeqCst));
        let hit = inner.cache.get(&Lookup(D::TABLE, key));
        if let Some(hit) = hit.filter(|hit| Some(hit.counter) == counter)
            && let Ok(document) = hit.document.clone().downcast::<D>()
        {
            return Ok(Some(document));
        }
        let Some(document) = self.read(|rows| load(rows))?.map(Arc::new) else { return Ok(None) };
        if let Some(counter) = counter.filter(|c| c & UNDER_WAY == 0) {
            let entry = Cached { counter, document: document.clone() };
            inner.cache.insert((D::TABLE, key.to_owned()), Arc::new(entry));
        }
        Ok(Some(document))
    }
}

impl Records {
    /// What `load` makes of several documents, from memory as long as nobody has said
    /// [`touch_derived`](Rows::touch_derived) for `scope`: a name for the kind of thing, and what
    /// the documents have in common (an account, a key). `name` tells the things of a kind apart.
    pub fn derived<T: Any + Send + Sync, E: From<Error>>(
        &self,
        (kind, scope): (&'static str, &str),
        name: &str,
        load: impl Fn(&mut Rows<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<Arc<T>, E> {
        let inner = &*self.0;
        let counter = inner.counters.of(kind, scope).1.map(|c| c.load(Ordering::SeqCst));
        let hit = inner.cache.get(&Lookup(kind, name));
        if let Some(hit) = hit.filter(|hit| Some(hit.counter) == counter)
            && let Ok(thing) = hit.document.clone().downcast::<T>()
        {
            return Ok(thing);
        }
        let thing = Arc::new(self.read(|rows| load(rows))?);
        if let Some(counter) = counter.filter(|c| c & UNDER_WAY == 0) {
            let entry = Cached { counter, document: thing.clone() };
            inner.cache.insert((kind, name.to_owned()), Arc::new(entry));
        }
        Ok(thing)
    }

    /// One version of the secret in row `uid`, from memory if it has not changed since it was read.
    pub fn version(&self, uid: i64, id: &str) -> Result<Option<Arc<Version>>> {
        let inner = &*self.0;
        let counter = inner.counters.of(VERSIONS, &uid).1.map(|c| c.load(Ordering::SeqCst));
        let hit = inner.versions.get(&VersionKey(uid, id));
        if let Some(hit) = hit.filter(|hit| Some(hit.counter) == counter) {
            return Ok(Some(hit.version));
        }
        let version = self.read(|rows| rows.version(uid, id))?.map(Arc::new);
        let counter = counter.filter(|c| c & UNDER_WAY == 0);
        if let (Some(version), Some(counter)) = (&version, counter)
            && version.value.len() + version.data_key.len() <= CACHED_VERSION
        {
            let version = version.clone();
            inner.versions.insert((uid, id.into()), CachedVersion { counter, version });
        }
        Ok(version)
    }
}

/// A version's cache key, borrowed.
#[derive(Hash)]
struct VersionKey<'a>(i64, &'a str);

impl quick_cache::Equivalent<(i64, Box<str>)> for VersionKey<'_> {
    fn equivalent(&self, key: &(i64, Box<str>)) -> bool {
        self.0 == key.0 && self.1 == &*key.1
    }
}

/// A cache key, borrowed.
#[derive(Hash)]
struct Lookup<'a>(&'static str, &'a str);

impl quick_cache::Equivalent<(&'static str, String)> for Lookup<'_> {
    fn equivalent(&self, key: &(&'static str, String)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}

/// Ends the writes that a job began, after its COMMIT and before its answer; or when it is dropped.
struct Touched {
    inner: Arc<Inner>,
    buckets: Vec<usize>,
}

impl Drop for Touched {
    fn drop(&mut self) {
        for index in self.buckets.drain(..) {
            self.inner.counters.end(index);
        }
    }
}

/// Rows inside one transaction.
pub struct Rows<'a> {
    tx: &'a mut dyn Tx,
    inner: &'a Inner,
    touched: Option<&'a mut Vec<usize>>,
    /// What becomes of the secret that the transaction is about.
    pub(super) secret: Trace,
}

impl<'a> Rows<'a> {
    fn new(tx: &'a mut dyn Tx, inner: &'a Inner, touched: Option<&'a mut Vec<usize>>) -> Self {
        Self { tx, inner, touched, secret: Trace::default() }
    }
}

impl Rows<'_> {
    /// The transaction, for statements on rows that carry no document.
    pub fn tx(&mut self) -> &mut dyn Tx {
        self.tx
    }

    /// The document of the first row that `sql` finds; it selects `doc, mac`.
    pub fn load<D: Document>(
        &mut self,
        sql: &'static str,
        args: &[Value<'_>],
    ) -> Result<Option<D>> {
        let mac = &self.inner.mac;
        one(self.tx, sql, args, |row| decode(mac, row.blob(0)?, row.blob(1)?))
    }

    /// Hands every document that `sql` finds to `each`, until it answers `false`.
    pub fn each<D: Document>(
        &mut self,
        sql: &'static str,
        args: &[Value<'_>],
        mut each: impl FnMut(D, &dyn super::Row) -> Result<bool>,
    ) -> Result<()> {
        let mac = &self.inner.mac;
        self.tx.query(sql, args, &mut |row| each(decode(mac, row.blob(0)?, row.blob(1)?)?, row))
    }

    /// Writes a document: `sql` takes it as `?1`, its MAC as `?2`, and `args` from `?3` on.
    pub fn save<D: Document>(
        &mut self,
        document: &D,
        sql: &'static str,
        args: &[Value<'_>],
    ) -> Result<usize> {
        self.touch::<D>(&document.key());
        let bytes = serde_json::to_vec(document)
            .map_err(|_| Error::Internal("a document that can't be written"))?;
        let mac = self.inner.mac.tag(D::TABLE, &bytes);
        let mut all = Vec::with_capacity(args.len() + 2);
        all.extend([Value::Blob(&bytes), Value::Blob(mac.as_ref())]);
        all.extend_from_slice(args);
        self.tx.execute(sql, &all)
    }

    /// Says that the document under `key` is about to change or go away.
    pub fn touch<D: Document>(&mut self, key: &str) {
        if let Some(touched) = self.touched.as_deref_mut() {
            touched.push(self.inner.counters.begin(D::TABLE, key));
        }
    }
}

impl Rows<'_> {
    /// Says that what is [`derived`](Records::derived) of this kind and scope is about to change.
    pub fn touch_derived(&mut self, kind: &'static str, scope: &str) {
        if let Some(touched) = self.touched.as_deref_mut() {
            touched.push(self.inner.counters.begin(kind, scope));
        }
    }

    /// Says that a version of the secret in row `uid` is about to change or go away.
    pub(super) fn touch_versions(&mut self, uid: i64) {
        if let Some(touched) = self.touched.as_deref_mut() {
            touched.push(self.inner.counters.begin(VERSIONS, &uid));
        }
    }
}

fn decode<D: Document>(mac: &RowMac, document: &[u8], tag: &[u8]) -> Result<D> {
    mac.check(D::TABLE, document, tag)?;
    serde_json::from_slice(document)
        .map_err(|e| Error::Corrupt(format!("a document of table {}: {e}", D::TABLE)))
}

/// Refuses a document that stands in another row than its own.
pub fn belongs<D>(document: Option<D>, here: impl FnOnce(&D) -> bool) -> Result<Option<D>> {
    match document {
        Some(d) if !here(&d) => Err(Error::Corrupt("a document stands in a foreign row".into())),
        other => Ok(other),
    }
}
