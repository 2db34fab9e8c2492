//! Every record of a copied log, in order, each held against what else tells of it: its tile, and
//! the line in the log file.

use super::report::Report;
use crate::audit::Error;
use crate::audit::merkle::{self, Hash, TILE, Tile};
use crate::audit::tiles::{self, MAX_ENTRY, TILE_BYTES};
use crate::audit::tree::Cursor;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const WIDTH: u64 = TILE as u64;
/// The largest bundle, in bytes: 256 entries of the longest kind.
const MAX_BUNDLE: usize = TILE * (MAX_ENTRY + 2);
/// Lines that differ, after which the log file is no longer compared.
const TOLD: u64 = 20;

/// The log file, read line by line.
struct Lines {
    path: PathBuf,
    log: BufReader<File>,
    /// The index of the next line.
    next: u64,
    differing: u64,
}

impl Lines {
    fn open(path: &Path, cursor: Cursor) -> Result<Self, Error> {
        let open = || {
            let mut log = BufReader::with_capacity(1 << 18, File::open(path)?);
            log.seek(SeekFrom::Start(cursor.first_offset))?;
            Ok(log)
        };
        let log = open().map_err(|e: std::io::Error| Error::io(path, &e))?;
        Ok(Self { path: path.to_owned(), log, next: cursor.first_index, differing: 0 })
    }

    /// The next line, or the start of one that is longer than any record; nothing at the end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut line = Vec::with_capacity(1024);
        let mut bounded = self.log.by_ref().take(MAX_ENTRY as u64 + 1);
        bounded.read_until(b'\n', &mut line).map_err(|e| Error::io(&self.path, &e))?;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() <= MAX_ENTRY {
            // It may still be written.
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(line))
    }
}

/// Walks through a log.
pub(super) struct Walk<'a> {
    dir: &'a Path,
    cursor: Cursor,
    lines: Option<Lines>,
    report: &'a mut Report,
}

impl<'a> Walk<'a> {
    /// Through the tree in `dir` and, if it is there, the log file.
    pub(super) fn new(
        dir: &'a Path,
        log: Option<&Path>,
        report: &'a mut Report,
    ) -> Result<Self, Error> {
        let cursor = match Cursor::read(dir) {
            Ok(Some(cursor)) => cursor,
            Ok(None) | Err(Error::Altered { .. }) => {
                report
                    .wrong("the file `journal`, which joins log file and tree, is gone or damaged");
                Cursor::default()
            }
            Err(error) => return Err(error),
        };
        let Cursor { first_index, first_offset, .. } = cursor;
        if first_index > 0 && first_offset > 0 {
            report.wrong("the file `journal` lets the log file begin in its middle");
        }
        let lines = log.map(|log| Lines::open(log, cursor)).transpose()?;
        report.outside = lines.as_ref().map_or(0, |_| first_offset);
        Ok(Self { dir, cursor, lines, report })
    }

    /// Hands every leaf hash to `each`, and every full tile that they make to be compared.
    pub(super) fn through(
        mut self,
        mut each: impl FnMut(&mut Report, u64, Hash, &mut dyn FnMut(Tile)),
    ) -> Result<(), Error> {
        let mut index = 0_u64;
        loop {
            let bundle =
                if index.is_multiple_of(WIDTH) { self.bundle(index / WIDTH)? } else { None };
            let leaves = bundle.map_or_else(|| self.tail(index), Ok)?;
            if leaves.is_empty() {
                break;
            }
            self.hand_on(&mut index, leaves, &mut each)?;
        }
        if self.cursor.first_index > index {
            self.report.wrong("the file `journal` lets the log file begin behind the last record");
        }
        Ok(())
    }

    fn hand_on(
        &mut self,
        index: &mut u64,
        leaves: Vec<Hash>,
        each: &mut impl FnMut(&mut Report, u64, Hash, &mut dyn FnMut(Tile)),
    ) -> Result<(), Error> {
        let mut full = Vec::new();
        for leaf in leaves {
            each(self.report, *index, leaf, &mut |tile| full.push(tile));
            *index += 1;
        }
        full.iter().try_for_each(|tile| self.compare_tile(tile))
    }

    /// The leaf hashes of a full bundle; nothing if there is none of this index, and the log file
    /// may have its records.
    fn bundle(&mut self, index: u64) -> Result<Option<Vec<Hash>>, Error> {
        let path = tiles::bundle(index, None);
        let tile = tiles::read_most(&self.dir.join(tiles::tile(0, index, None)), TILE_BYTES)?;
        let tile = tile.and_then(|bytes| tiles::decode_tile(&bytes));
        let tile = tile.filter(|hashes| hashes.len() == TILE);
        let first = index * WIDTH;
        let last = first + WIDTH - 1;
        let Some(bytes) = tiles::read_most(&self.dir.join(&path), MAX_BUNDLE)? else {
            // A copy of a running appliance may have a tile without the bundle of that moment.
            let logged = self.lines.as_ref().is_some_and(|lines| lines.next == first);
            let due = first + WIDTH <= self.cursor.index;
            if let Some(tile) = tile.filter(|_| due || !logged) {
                let what = format!("they are gone: `{}` is missing", path.display());
                self.report.found(first, last, what);
                self.skip_lines(first + WIDTH)?;
                return Ok(Some(tile));
            }
            return Ok(None);
        };
        let (records, whole) = tiles::entries(&bytes);
        let leaves: Vec<Hash> = records.iter().map(|record| merkle::leaf(record)).collect();
        if let Some(tile) = &tile {
            self.compare(first, &leaves, tile);
        }
        if !whole || leaves.len() != TILE {
            let what = format!("`{}` is not a bundle of 256 records", path.display());
            self.report.found(first, last, what);
            self.skip_lines(first + WIDTH)?;
            return Ok(tile);
        }
        for (index, leaf) in (first..).zip(&leaves) {
            self.compare_line(index, leaf)?;
        }
        Ok(Some(leaves))
    }

    /// Holds leaves against their tile.
    fn compare(&mut self, first: u64, leaves: &[Hash], tile: &[Hash]) {
        let pairs = (first..).zip(leaves.iter().zip(tile));
        let differing: Vec<u64> =
            pairs.filter(|(_, (leaf, hash))| leaf != hash).map(|(index, _)| index).collect();
        for index in &differing {
            self.report.found(*index, *index, "it is not the record that its tile was made from");
        }
    }

    /// Holds a record against its line in the log file.
    fn compare_line(&mut self, index: u64, leaf: &Hash) -> Result<(), Error> {
        let Some(lines) = self.lines.as_mut().filter(|lines| lines.next == index) else {
            return Ok(());
        };
        let line = lines.next()?;
        if line.as_ref().is_some_and(|line| merkle::leaf(line) == *leaf) {
            return Ok(());
        }
        lines.differing += 1;
        let path = lines.path.display().to_string();
        let over = line.is_none() || lines.differing == TOLD;
        if over {
            self.lines = None;
        }
        let what = match line {
            Some(_) => format!("its line in `{path}` is another"),
            None => format!("`{path}` ends before it"),
        };
        self.report.found(index, index, what);
        Ok(())
    }

    /// Goes on in the log file behind records that are not there.
    fn skip_lines(&mut self, index: u64) -> Result<(), Error> {
        while let Some(lines) = self.lines.as_mut().filter(|lines| lines.next < index) {
            if lines.next()?.is_none() {
                self.lines = None;
            }
        }
        Ok(())
    }

    /// The leaf hashes of what comes from `from` on, where there is no full bundle: out of the
    /// unfinished bundle, then out of the log file. At most a bundle's.
    fn tail(&mut self, from: u64) -> Result<Vec<Hash>, Error> {
        let mut leaves = Vec::new();
        if from.is_multiple_of(WIDTH) {
            leaves = self.unfinished(from)?;
            for (index, leaf) in (from..).zip(&leaves) {
                self.compare_line(index, leaf)?;
            }
        }
        let Some(lines) = &mut self.lines else { return Ok(leaves) };
        let mut next = from + leaves.len() as u64;
        while lines.next == next && leaves.len() < TILE {
            let Some(line) = lines.next()? else { break };
            if line.len() > MAX_ENTRY {
                self.report.found(next, next, "its line in the log file is longer than any record");
                self.lines = None;
                break;
            }
            leaves.push(merkle::leaf(&line));
            next += 1;
        }
        Ok(leaves)
    }

    fn unfinished(&mut self, from: u64) -> Result<Vec<Hash>, Error> {
        let full = tiles::bundle(from / WIDTH, None);
        let mut widest: Option<Vec<Hash>> = None;
        for width in tiles::widths(self.dir, &full) {
            let path = tiles::bundle(from / WIDTH, Some(width));
            let bytes = tiles::read_most(&self.dir.join(&path), MAX_BUNDLE)?.unwrap_or_default();
            let (records, whole) = tiles::entries(&bytes);
            let leaves: Vec<Hash> = records.into_iter().take(width + 1).map(merkle::leaf).collect();
            let sound = whole && leaves.len() == width;
            if !sound || widest.as_ref().is_some_and(|widest| !widest.starts_with(&leaves)) {
                let path = path.display();
                let what = format!("`{path}` is not a bundle of these {width} records");
                self.report.found(from, from + width as u64 - 1, what);
            }
            widest.get_or_insert(leaves);
        }
        let mut leaves = widest.unwrap_or_default();
        leaves.truncate(TILE);
        Ok(leaves)
    }

    /// Holds a full tile against its file. One that the server has not put on the disk yet may be
    /// missing.
    fn compare_tile(&mut self, tile: &Tile) -> Result<(), Error> {
        let path = tiles::tile(tile.level, tile.index, None);
        let bytes = tiles::read_most(&self.dir.join(&path), TILE_BYTES)?;
        let span = u32::try_from(tile.level + 1).ok().and_then(|level| WIDTH.checked_pow(level));
        let end = span.and_then(|span| span.checked_mul(tile.index + 1)).unwrap_or(u64::MAX);
        match bytes {
            Some(bytes) if bytes == tiles::encode_tile(&tile.hashes) => {}
            None if end > self.cursor.index => {}
            Some(_) => self
                .report
                .wrong(format!("`{}` is not what follows from the records", path.display())),
            None => self.report.wrong(format!("`{}` is gone", path.display())),
        }
        Ok(())
    }
}
