//! Hashes of a tree out of its files.
//!
//! Only full tiles and records themselves are relied on: what is above a full tile follows from it,
//! and an unfinished tile may be older than the records are.

use super::Error;
use super::merkle::{self, Edge, Hash, TILE, split_at};
use super::tiles;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

const WIDTH: u64 = TILE as u64;

/// Full tiles kept in memory.
const KEPT: usize = 64;

/// The files of one tree, and the hashes of the records behind its last full tile.
pub struct Reader {
    dir: PathBuf,
    tail: (u64, Vec<Hash>),
    kept: RefCell<Vec<Kept>>,
}

/// A full tile: its level and index, and its hashes.
type Kept = ((usize, u64), Vec<Hash>);

impl Reader {
    /// Of the tree in `dir`; `tail` are the hashes of the records of an unfinished tile of leaves,
    /// and that tile's index.
    pub fn new(dir: &Path, tail: (u64, Vec<Hash>)) -> Self {
        Self { dir: dir.to_owned(), tail, kept: RefCell::new(Vec::new()) }
    }

    /// The edge of the first `size` records.
    ///
    /// # Errors
    /// [`Error::Missing`] if the files don't hold it, [`Error::Io`] if they can't be read.
    pub fn edge(&self, size: u64) -> Result<Edge, Error> {
        let (mut levels, mut rest) = (Vec::new(), size);
        while rest > 0 {
            levels.push(self.hashes(levels.len(), rest / WIDTH, rest % WIDTH)?);
            rest /= WIDTH;
        }
        Edge::new(size, levels).ok_or(Error::Missing { what: format!("a tree of size {size}") })
    }

    /// The root over the records from `start` up to `end`, which is a subtree of some tree.
    ///
    /// # Errors
    /// As [`Self::edge`].
    pub fn range(&self, start: u64, end: u64) -> Result<Hash, Error> {
        let count = end.saturating_sub(start);
        if count == 0 {
            return Ok(merkle::root(&[]));
        }
        // The largest tile level of which this range is a run of whole hashes within one tile.
        let mut level = 0;
        let mut size = 1_u64;
        while count.is_multiple_of(size.saturating_mul(WIDTH)) {
            (level, size) = (level + 1, size.saturating_mul(WIDTH));
        }
        let (first, hashes) = (start / size, count / size);
        if first % WIDTH + hashes <= WIDTH {
            let all = self.hashes(level, first / WIDTH, first % WIDTH + hashes)?;
            let skipped = usize::try_from(first % WIDTH).unwrap_or(TILE);
            return Ok(merkle::root(all.get(skipped..).unwrap_or_default()));
        }
        let middle = start + split_at(count);
        Ok(merkle::node(&self.range(start, middle)?, &self.range(middle, end)?))
    }

    /// The inclusion proof of a record in the tree of the first `size` records (RFC 6962 section
    /// 2.1.1).
    ///
    /// # Errors
    /// As [`Self::edge`]; [`Error::Missing`] if `index` is not below `size`.
    pub fn proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
        if index >= size {
            return Err(Error::Missing { what: format!("record {index} of {size}") });
        }
        let (mut start, mut end, mut proof) = (0, size, Vec::new());
        while end - start > 1 {
            let middle = start + split_at(end - start);
            if index < middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                start = middle;
            }
        }
        proof.reverse();
        Ok(proof)
    }

    /// The first `width` hashes of a tile, finished or not.
    fn hashes(&self, level: usize, index: u64, width: u64) -> Result<Vec<Hash>, Error> {
        if width == 0 {
            return Ok(Vec::new());
        }
        let short = usize::try_from(width).unwrap_or(TILE);
        let mut hashes = match self.full(level, index)? {
            Some(hashes) => hashes,
            None if level == 0 && index == self.tail.0 => self.tail.1.clone(),
            None if level == 0 => Vec::new(),
            None => self.made_from_below(level, index, width)?,
        };
        if hashes.len() < short {
            let what = tiles::tile(level, index, None).display().to_string();
            return Err(Error::Missing { what });
        }
        hashes.truncate(short);
        Ok(hashes)
    }

    fn made_from_below(&self, level: usize, index: u64, width: u64) -> Result<Vec<Hash>, Error> {
        let below = level.saturating_sub(1);
        let from = index * WIDTH;
        let root = |tile| Ok(merkle::root(&self.hashes(below, tile, WIDTH)?));
        (from..from + width).map(root).collect()
    }

    fn full(&self, level: usize, index: u64) -> Result<Option<Vec<Hash>>, Error> {
        let known = self.kept.borrow().iter().find(|(of, _)| *of == (level, index)).cloned();
        if let Some((_, hashes)) = known {
            return Ok(Some(hashes));
        }
        let bytes = tiles::read(&self.dir.join(tiles::tile(level, index, None)))?;
        let hashes = bytes.and_then(|bytes| tiles::decode_tile(&bytes));
        let hashes = hashes.filter(|hashes| hashes.len() == TILE);
        if let Some(hashes) = &hashes {
            let mut kept = self.kept.borrow_mut();
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push(((level, index), hashes.clone()));
        }
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::merkle::{leaf, root_of_proof};

    /// The files of a tree of `size` leaves, and what reads them.
    fn tree(dir: &Path, size: u64) -> (Reader, Vec<Hash>, Edge) {
        let leaves: Vec<Hash> = (0..size).map(|n| leaf(&n.to_be_bytes())).collect();
        let mut edge = Edge::default();
        for leaf in &leaves {
            edge.push(*leaf, |tile| {
                let path = dir.join(tiles::tile(tile.level, tile.index, None));
                tiles::write(&path, &tiles::encode_tile(&tile.hashes), false).expect("written");
            });
        }
        let tail = edge.levels().first().cloned().unwrap_or_default();
        (Reader::new(dir, (size / WIDTH, tail)), leaves, edge)
    }

    #[test]
    fn edges_ranges_and_proofs_of_every_size_come_out_of_the_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let (reader, leaves, edge) = tree(dir.path(), 66_000);
        assert_eq!(reader.edge(66_000).expect("there").root(), edge.root());
        for size in [1, 2, 255, 256, 257, 300, 512, 4097, 65_535, 65_536, 65_537, 65_999] {
            let root = reader.edge(size).expect("there").root();
            let all = usize::try_from(size).expect("small");
            assert_eq!(root, merkle::root(&leaves[..all]), "{size}");
            assert_eq!(reader.range(0, size).expect("there"), root, "{size}");
            for index in [0, size / 3, size / 2, size - 1] {
                let proof = reader.proof(index, size).expect("a proof");
                let leaf = leaves[usize::try_from(index).expect("small")];
                assert_eq!(root_of_proof(index, size, leaf, &proof), Some(root), "{index}/{size}");
            }
        }
        assert!(matches!(reader.edge(66_001), Err(Error::Missing { .. })));
        assert!(matches!(reader.proof(5, 5), Err(Error::Missing { .. })));
    }
}
