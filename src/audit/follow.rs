//! What reads the log from a place that is kept on the disk: for a sink, or for whoever tells of events.

use super::Error;
use super::log::Log;
use super::merkle::TILE;
use super::tiles;
use super::tree::Cursor;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Records in a batch, and bytes after which it ends.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;
/// How often the position is written.
pub const NOTE: Duration = Duration::from_secs(1);

/// Who follows the log: what the name of the file with its position begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A sink of the log's own.
    Sink,
    /// A receiver of events.
    Events,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Sink, Self::Events];

    fn prefix(self) -> &'static str {
        match self {
            Self::Sink => "sink-",
            Self::Events => "events-",
        }
    }
}

/// A place in the log: before the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The index of the next record.
    index: u64,
    /// Where it begins in the log.
    offset: u64,
    /// The first record of the log that the offset is of.
    first_index: u64,
}

impl Position {
    fn read(file: &Path) -> Result<Option<Self>, Error> {
        let Some(bytes) = tiles::read(file)? else { return Ok(None) };
        let position = serde_json::from_slice(&bytes);
        position.map(Some).map_err(|_| Error::altered(file, "it is no position in the log"))
    }

    fn write(&self, file: &Path) -> Result<(), Error> {
        tiles::write(file, &serde_json::to_vec(self).unwrap_or_default(), true)
    }
}

/// Takes the followers' positions along to another tree in `dir`, which begins behind what the log holds,
/// from the one that was set aside. What one of them has not got yet stands in the log before the tree.
/// May be repeated.
pub(super) fn take_along(aside: &Path, dir: &Path) -> Result<(), Error> {
    let journal = Cursor::read(aside)?.unwrap_or_default();
    tiles::make_folder(dir).map_err(|e| Error::io(dir, &e))?;
    for entry in std::fs::read_dir(aside).map_err(|e| Error::io(aside, &e))? {
        let name = entry.map_err(|e| Error::io(aside, &e))?.file_name();
        // One that was being written at a crash has a full stop in its name.
        let is_position = name.to_str().is_some_and(|name| {
            Kind::ALL.iter().any(|kind| name.starts_with(kind.prefix())) && !name.contains('.')
        });
        let Some(old) = is_position.then(|| Position::read(&aside.join(&name))).transpose()? else {
            continue;
        };
        let Some(Position { index, mut offset, first_index }) = old else { continue };
        if first_index != journal.first_index {
            offset = journal.first_offset;
        }
        if index < journal.first_index {
            let (file, left, aside) =
                (name.display(), journal.first_index - index, aside.display());
            tracing::error!("`{file}` was {left} records behind that are in `{aside}` alone");
        }
        Position { index: 0, offset, first_index: 0 }.write(&dir.join(name))?;
    }
    Ok(())
}

/// Forgets the places of followers of a kind that are not among `names`.
pub(super) fn forget_others(dir: &Path, kind: Kind, names: &[&str]) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, &e))? {
        let path = entry.map_err(|e| Error::io(dir, &e))?.path();
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if file.strip_prefix(kind.prefix()).is_some_and(|name| !names.contains(&name)) {
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
        }
    }
    Ok(())
}

/// Reads the log from a position on.
pub struct Follower {
    file: PathBuf,
    dir: PathBuf,
    log: BufReader<File>,
    journal: Cursor,
    position: Position,
    /// The index and the offset that were last written, and when.
    noted: ((u64, u64), Instant),
}

impl Follower {
    /// At the position that is on the disk, or at the end of the log.
    pub(super) fn open(
        (kind, name): (Kind, &str),
        log: &Log,
        dir: &Path,
        journal: Cursor,
    ) -> Result<Self, Error> {
        let file = dir.join(format!("{}{name}", kind.prefix()));
        let first_index = journal.first_index;
        let end = Position { index: log.records(), offset: log.size(), first_index };
        let mut position = match Position::read(&file)? {
            Some(position) => position,
            None => {
                // At once: what comes from now on is the follower's, whatever happens.
                end.write(&file)?;
                end
            }
        };
        if position.first_index != first_index {
            // The log was put away since: what is not in the new one is in the tree.
            position.offset = journal.first_offset;
            position.first_index = first_index;
        }
        if position.index > end.index || position.offset > end.offset {
            // The log lost its end at a crash, after the follower had it.
            position = end;
        }
        let opened = File::open(log.path()).map_err(|e| Error::io(log.path(), &e))?;
        let noted = ((position.index, position.offset), Instant::now());
        let log = BufReader::with_capacity(1 << 17, opened);
        let dir = dir.to_owned();
        Ok(Self { file, dir, log, journal, position, noted })
    }

    /// The index of the next record.
    pub fn index(&self) -> u64 {
        self.position.index
    }

    /// Moves on to a position that a batch named.
    pub fn advance(&mut self, to: Position) {
        self.position = to;
    }

    /// The next records, of those below `size`, each with the position behind it; the follower's own
    /// stays.
    ///
    /// # Errors
    /// If the log or its tree can't be read.
    pub fn batch(&mut self, size: u64) -> Result<Vec<(Vec<u8>, Position)>, Error> {
        let (mut records, mut at, mut bytes) = (Vec::new(), self.position, 0);
        let seek = self.log.seek(SeekFrom::Start(at.offset));
        seek.map_err(|e| Error::io(&self.file, &e))?;
        while records.len() < BATCH && bytes < BATCH_BYTES {
            // A line before the tree has no index: see `take_along`.
            let outside = at.offset < self.journal.first_offset;
            if !outside && at.index >= size {
                break;
            }
            let record = if at.index < self.journal.first_index {
                self.out_of_tree(at.index)?
            } else {
                let mut line = Vec::with_capacity(1024);
                let read = self.log.read_until(b'\n', &mut line);
                read.map_err(|e| Error::io(&self.file, &e))?;
                if line.pop() != Some(b'\n') {
                    break;
                }
                at.offset += line.len() as u64 + 1;
                line
            };
            bytes += record.len();
            at.index += u64::from(!outside);
            records.push((record, at));
        }
        Ok(records)
    }

    /// A record that is in the log no more.
    fn out_of_tree(&self, index: u64) -> Result<Vec<u8>, Error> {
        let (bundle, at) = (index / TILE as u64, usize::try_from(index % TILE as u64).unwrap_or(0));
        let full = tiles::bundle(bundle, None);
        let partial = tiles::widths(&self.dir, &full).first().copied();
        for path in [Some(full), partial.map(|width| tiles::bundle(bundle, Some(width)))] {
            let Some(path) = path else { continue };
            let bytes = tiles::read(&self.dir.join(path))?.unwrap_or_default();
            if let Some(record) = tiles::entries(&bytes).0.get(at) {
                return Ok(record.to_vec());
            }
        }
        Err(Error::Missing { what: format!("record {index}") })
    }

    /// Writes the position, from time to time.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn note(&mut self) -> Result<(), Error> {
        let (noted, last) = self.noted;
        let now = (self.position.index, self.position.offset);
        if now == noted || last.elapsed() < NOTE {
            return Ok(());
        }
        self.noted = (now, Instant::now());
        self.position.write(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside one no appliance could begin another tree.
    #[test]
    fn a_position_that_was_being_written_at_a_crash_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let (aside, dir) = (folder.path().join("audit-lost"), folder.path().join("audit"));
        let position = Position { index: 3, offset: 30, first_index: 0 };
        for name in ["sink-web", "events-web"] {
            position.write(&aside.join(name)).expect("written");
        }
        position.write(&aside.join("sink-web")).expect("written");
        std::fs::write(aside.join("sink-web.new"), "").expect("written");
        take_along(&aside, &dir).expect("taken along");
        let taken = Position::read(&dir.join("sink-web")).expect("read").expect("there");
        assert_eq!((taken.index, taken.offset), (0, 30));
        assert_eq!(std::fs::read_dir(&dir).expect("listed").count(), 2);
    }

    #[test]
    fn the_places_of_those_who_are_gone_are_forgotten_and_no_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["events-a", "events-b", "sink-b", "journal"];
        for name in names {
            std::fs::write(folder.path().join(name), "{}").expect("written");
        }
        forget_others(folder.path(), Kind::Events, &["a"]).expect("forgotten");
        let left = names.map(|name| folder.path().join(name).exists());
        assert_eq!(left, [true, false, true, true]);
    }
}
