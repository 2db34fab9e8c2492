//! The tree on disk, made from the log behind the requests' backs.
//!
//! The log ([`super::log`]) is what a record is safe in; the tree's files follow from it. In memory
//! is the right edge alone: less than 256 hashes for each level, and the records of the unfinished
//! bundle. A [`Cursor`] says from which byte of the log on the files may lack something; after a
//! crash they are made again from there, and the result must agree with the last signed
//! checkpoint.

use super::Error;
use super::log::Log;
use super::merkle::{self, Edge, Hash, TILE};
use super::reader::Reader;
use super::tiles;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the cursor is.
pub const CURSOR: &str = "journal";
/// Records taken from the log at once.
const BATCH: usize = 1024;
/// How long records may gather before they are put into the tree.
const PAUSE: Duration = Duration::from_millis(200);
/// Records after which the files are put on the disk and the cursor moves.
const SETTLE: u64 = 8192;
/// How often an unfinished bundle of records is written.
const PARTIAL: Duration = Duration::from_secs(60);

/// How log and tree belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The files of the records below this index are on disk.
    pub index: u64,
    /// Where the record of that index begins in the log.
    pub offset: u64,
    /// The first record of the tree that is in the log.
    pub first_index: u64,
    /// Where that one begins.
    pub first_offset: u64,
}

impl Cursor {
    /// Reads the cursor of the tree in `dir`, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Altered`] if it is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(CURSOR);
        let Some(bytes) = tiles::read(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| Error::altered(&path, "it is damaged"))
    }

    fn write(&self, dir: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        tiles::write(&dir.join(CURSOR), &bytes, true)?;
        tiles::sync(dir, &[CURSOR.into()])
    }
}

/// A size of the tree and the root that it must have had then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Records.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// The tree of one log.
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    state: Mutex<State>,
}

struct State {
    journal: BufReader<File>,
    cursor: Cursor,
    edge: Edge,
    /// The records of the unfinished bundle, as it will be written.
    bundle: Vec<u8>,
    /// Where the record behind the last one of the tree begins in the log.
    offset: u64,
    /// The same for the last whole bundle: its end as index and offset.
    boundary: (u64, u64),
    /// Files that are to be written.
    unwritten: Vec<(PathBuf, Vec<u8>)>,
    /// Files that may not be on the disk yet.
    unsynced: Vec<PathBuf>,
    /// When the unfinished bundle was last written, and how many records it had.
    partial: (Option<Instant>, u64),
}

impl Tree {
    /// Whether there is a tree in `dir`.
    ///
    /// # Errors
    /// As [`Cursor::read`].
    pub fn exists(dir: &Path) -> Result<bool, Error> {
        Ok(Cursor::read(dir)?.is_some())
    }

    /// Opens the tree of a log, or begins one behind what the log holds already, and brings it up to
    /// the log's end. `signed` are heads that were signed.
    ///
    /// # Errors
    /// [`Error::Altered`] if log, files and signed head don't agree; [`Error::Missing`] if a file is
    /// gone; [`Error::Io`].
    pub fn open(dir: &Path, log: &Log, signed: &[Head]) -> Result<Self, Error> {
        tiles::make_folder(dir).map_err(|e| Error::io(dir, &e))?;
        let mut state = State::load(dir, log)?;
        let reader = Reader::new(dir, (state.edge.size() / TILE as u64, state.tail()));
        for head in signed.iter().filter(|head| head.size <= state.edge.size()) {
            agree(log.path(), *head, reader.edge(head.size)?.root())?;
        }
        while state.offset < log.size() {
            let record = state.next(log.path())?;
            state.push(&record, merkle::leaf(&record))?;
            state.write(dir)?;
            for head in signed.iter().filter(|head| head.size == state.edge.size()) {
                agree(log.path(), *head, state.edge.root())?;
            }
        }
        let lost = signed.iter().map(|head| head.size.saturating_sub(state.edge.size())).max();
        if let Some(lost) = lost.filter(|lost| *lost > 0) {
            let why = format!("its last {lost} records, which a checkpoint vouches for, are gone");
            return Err(Error::altered(log.path(), &why));
        }
        state.renew_unfinished(dir)?;
        log.begin(state.edge.size());
        Ok(Self(Arc::new(Inner { dir: dir.to_owned(), state: Mutex::new(state) })))
    }

    /// Puts what is on disk in the log into the tree.
    ///
    /// # Errors
    /// [`Error::Altered`] if a record in the log is not what was appended; [`Error::Io`]. It may be
    /// tried again.
    pub fn seal(&self, log: &Log) -> Result<(), Error> {
        let mut state = self.0.state.lock();
        loop {
            state.write(&self.0.dir)?;
            let waiting = log.waiting(BATCH);
            if waiting.is_empty() {
                return state.settle(&self.0.dir, SETTLE);
            }
            let (taken, outcome) = state.take(&waiting, log.path());
            // Once for all: requests wait for this lock.
            log.sealed(taken);
            outcome?;
        }
    }

    /// Size and edge, for a checkpoint.
    pub fn edge(&self) -> Edge {
        self.0.state.lock().edge.clone()
    }

    /// Where the tree's files are.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Writes the unfinished tiles of `edge`, and from time to time the unfinished bundle.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_unfinished(&self, edge: &Edge) -> Result<(), Error> {
        write_edge(&self.0.dir, edge)?;
        let mut state = self.0.state.lock();
        if state.partial.0.is_none_or(|last| last.elapsed() >= PARTIAL) {
            state.write_bundle(&self.0.dir)?;
        }
        Ok(())
    }

    /// Writes everything there is and puts it on the disk: nothing of the log is needed to open the
    /// tree then.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn settle(&self) -> Result<(), Error> {
        let mut state = self.0.state.lock();
        state.write(&self.0.dir)?;
        state.write_bundle(&self.0.dir)?;
        state.settle(&self.0.dir, 1)?;
        let unsynced = std::mem::take(&mut state.unsynced);
        tiles::sync(&self.0.dir, &unsynced)
    }
}

fn write_edge(dir: &Path, edge: &Edge) -> Result<(), Error> {
    for (path, hashes) in unfinished_tiles(edge) {
        let path = dir.join(tiles::partials(&path)).join(hashes.len().to_string());
        // What is there already is the same: a tile's first hashes never change.
        if !path.exists() {
            tiles::write(&path, &tiles::encode_tile(hashes), false)?;
        }
    }
    Ok(())
}

/// The unfinished tiles of an edge: the path that each will have when it is finished, and its
/// hashes.
fn unfinished_tiles(edge: &Edge) -> Vec<(PathBuf, &[Hash])> {
    let (mut tiles, mut rest) = (Vec::new(), edge.size());
    for (level, hashes) in edge.levels().iter().enumerate() {
        rest /= TILE as u64;
        if !hashes.is_empty() {
            tiles.push((tiles::tile(level, rest, None), hashes.as_slice()));
        }
    }
    tiles
}

/// Refuses a log that does not agree with what was signed of it.
fn agree(log: &Path, head: Head, root: Hash) -> Result<(), Error> {
    if root != head.root {
        let why = format!("its first {} records are not those that were signed", head.size);
        return Err(Error::altered(log, &why));
    }
    Ok(())
}

impl State {
    fn load(dir: &Path, log: &Log) -> Result<Self, Error> {
        let end = log.size();
        let mut cursor = match Cursor::read(dir)? {
            Some(cursor) => cursor,
            // What was logged before there was a tree stays outside it.
            None => {
                let cursor = Cursor { offset: end, first_offset: end, ..Cursor::default() };
                cursor.write(dir)?;
                cursor
            }
        };
        let mut width = usize::try_from(cursor.index % TILE as u64).unwrap_or(0);
        let index = cursor.index / TILE as u64;
        if end == 0 && cursor.offset > 0 {
            // The log was put away: the tree goes on from its own files.
            width = tiles::widths(dir, &tiles::bundle(index, None)).first().copied().unwrap_or(0);
            let index = index * TILE as u64 + width as u64;
            cursor = Cursor { index, offset: 0, first_index: index, first_offset: 0 };
            cursor.write(dir)?;
        }
        if end < cursor.offset {
            return Err(Error::altered(log.path(), "it is shorter than it was"));
        }
        let bundle = unfinished(dir, index, width)?;
        let leaves = tiles::entries(&bundle).0.into_iter().map(merkle::leaf).collect();
        let edge = Reader::new(dir, (index, leaves)).edge(cursor.index)?;
        let mut state = Self {
            journal: BufReader::with_capacity(1 << 18, open(log.path())?),
            cursor,
            edge,
            bundle,
            offset: cursor.offset,
            boundary: (cursor.index, cursor.offset),
            unwritten: Vec::new(),
            unsynced: Vec::new(),
            partial: (None, 0),
        };
        state.rewind(log.path())?;
        Ok(state)
    }

    /// The leaf hashes of the unfinished tile.
    fn tail(&self) -> Vec<Hash> {
        self.edge.levels().first().cloned().unwrap_or_default()
    }

    /// Reads on from where the tree ends.
    fn rewind(&mut self, log: &Path) -> Result<(), Error> {
        self.journal.seek(SeekFrom::Start(self.offset)).map_err(|e| Error::io(log, &e))?;
        Ok(())
    }

    /// The next line of the log.
    fn next(&mut self, log: &Path) -> Result<Vec<u8>, Error> {
        let mut line = Vec::with_capacity(1024);
        self.journal.read_until(b'\n', &mut line).map_err(|e| Error::io(log, &e))?;
        if line.pop() == Some(b'\n') {
            return Ok(line);
        }
        self.rewind(log)?;
        Err(Error::altered(log, "it is shorter than it was"))
    }

    /// Takes the next records, which must have these leaf hashes, into the tree; answers how many it
    /// has taken.
    fn take(&mut self, leaves: &[Hash], log: &Path) -> (usize, Result<(), Error>) {
        for (taken, leaf) in leaves.iter().enumerate() {
            let outcome = self.next(log).and_then(|record| {
                if merkle::leaf(&record) == *leaf {
                    return self.push(&record, *leaf);
                }
                self.rewind(log)?;
                let index = self.edge.size();
                let why = format!("record {index} was changed after it was written");
                Err(Error::altered(log, &why))
            });
            if outcome.is_err() {
                return (taken, outcome);
            }
        }
        (leaves.len(), Ok(()))
    }

    /// Takes a record that was just read into the tree.
    fn push(&mut self, record: &[u8], leaf: Hash) -> Result<(), Error> {
        tiles::push_entry(&mut self.bundle, record).ok_or(Error::TooLong)?;
        self.offset += record.len() as u64 + 1;
        let Self { edge, bundle, unwritten, .. } = self;
        edge.push(leaf, |tile| {
            if tile.level == 0 {
                let records = std::mem::take(bundle);
                unwritten.push((tiles::bundle(tile.index, None), records));
            }
            let path = tiles::tile(tile.level, tile.index, None);
            unwritten.push((path, tiles::encode_tile(&tile.hashes)));
        });
        if self.edge.size().is_multiple_of(TILE as u64) {
            self.boundary = (self.edge.size(), self.offset);
            self.partial.1 = 0;
        }
        Ok(())
    }

    /// Writes the finished files, each in place of its unfinished ones.
    fn write(&mut self, dir: &Path) -> Result<(), Error> {
        while let Some((path, bytes)) = self.unwritten.first() {
            tiles::write(&dir.join(path), bytes, false)?;
            remove_folder(&dir.join(tiles::partials(path)))?;
            let (path, _) = self.unwritten.remove(0);
            self.unsynced.push(path);
        }
        Ok(())
    }

    /// Writes the records of the unfinished bundle.
    fn write_bundle(&mut self, dir: &Path) -> Result<(), Error> {
        let width = self.edge.size() % TILE as u64;
        if width > self.partial.1 {
            let short = usize::try_from(width).unwrap_or(0);
            let path = tiles::bundle(self.edge.size() / TILE as u64, Some(short));
            tiles::write(&dir.join(&path), &self.bundle, false)?;
            self.unsynced.push(path);
        }
        self.partial = (Some(Instant::now()), width);
        Ok(())
    }

    /// Writes the unfinished files anew: after a crash of the machine they may be anything, since
    /// nobody waits for them to be on the disk.
    fn renew_unfinished(&mut self, dir: &Path) -> Result<(), Error> {
        self.write(dir)?;
        self.write_bundle(dir)?;
        tiles::sync(dir, &std::mem::take(&mut self.unsynced))?;
        let kept = usize::try_from(self.edge.size() % TILE as u64).unwrap_or(0);
        let bundle = tiles::bundle(self.edge.size() / TILE as u64, None);
        for width in tiles::widths(dir, &bundle).into_iter().filter(|width| *width != kept) {
            let path = dir.join(tiles::partials(&bundle)).join(width.to_string());
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
        }
        for (path, _) in unfinished_tiles(&self.edge) {
            remove_folder(&dir.join(tiles::partials(&path)))?;
        }
        write_edge(dir, &self.edge)
    }

    /// Puts the finished files on the disk and moves the cursor behind them, if they have `most`
    /// records or more.
    fn settle(&mut self, dir: &Path, most: u64) -> Result<(), Error> {
        let (index, offset) = self.boundary;
        if index.saturating_sub(self.cursor.index) < most {
            return Ok(());
        }
        tiles::sync(dir, &self.unsynced)?;
        self.unsynced.clear();
        let cursor = Cursor { index, offset, ..self.cursor };
        cursor.write(dir)?;
        self.cursor = cursor;
        Ok(())
    }
}

/// The first `width` records of a bundle that may be unfinished.
fn unfinished(dir: &Path, index: u64, width: usize) -> Result<Vec<u8>, Error> {
    if width == 0 {
        return Ok(Vec::new());
    }
    let full = tiles::bundle(index, None);
    let partial = tiles::widths(dir, &full).into_iter().map(|w| tiles::bundle(index, Some(w)));
    let candidates = partial.chain([full.clone()]);
    for path in candidates {
        let Some(bytes) = tiles::read(&dir.join(path))? else { continue };
        let (records, _) = tiles::entries(&bytes);
        if let Some(first) = records.get(..width) {
            let length = first.iter().map(|record| record.len() + 2).sum();
            return Ok(bytes.get(..length).unwrap_or_default().to_vec());
        }
    }
    Err(Error::Missing { what: full.display().to_string() })
}

/// Removes a folder with what is in it, if it is there.
fn remove_folder(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, &e)),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| Error::io(path, &e))
}

/// Puts records into the tree as they come.
pub(super) async fn keep_sealing(tree: Tree, log: Log) {
    let mut synced = log.synced();
    let mut failing = false;
    // Some may have come before this.
    synced.mark_changed();
    while synced.changed().await.is_ok() {
        tokio::time::sleep(PAUSE).await;
        let (sealing, from) = (tree.clone(), log.clone());
        let outcome = tokio::task::spawn_blocking(move || sealing.seal(&from)).await;
        let Ok(Err(error)) = outcome else {
            failing = false;
            continue;
        };
        if matches!(error, Error::Altered { .. }) {
            log.stop(error.clone());
        }
        if !std::mem::replace(&mut failing, true) {
            tracing::error!(%error, "audit records wait for their tree; trying again");
        }
        tokio::time::sleep(PAUSE * 4).await;
        synced.mark_changed();
    }
}
