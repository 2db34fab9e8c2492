//! What reads the log for a sink, and where it is in it.

use super::connection::Remote;
use super::{Options, Sink};
use crate::audit::Error;
use crate::audit::log::Log;
use crate::audit::merkle::TILE;
use crate::audit::tiles;
use crate::audit::tree::Cursor;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Records in a batch, and bytes after which it ends.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;
/// How often the position is written.
const NOTE: Duration = Duration::from_secs(1);
/// The wait after a failure: it doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Where a sink is in the log.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Position {
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

/// Takes the sinks' positions along to another tree in `dir`, which begins behind what the log holds,
/// from the one that was set aside. What a sink has not got yet stands in the log before the tree.
/// May be repeated.
pub(in crate::audit) fn take_along(aside: &Path, dir: &Path) -> Result<(), Error> {
    let journal = Cursor::read(aside)?.unwrap_or_default();
    tiles::make_folder(dir).map_err(|e| Error::io(dir, &e))?;
    for entry in std::fs::read_dir(aside).map_err(|e| Error::io(aside, &e))? {
        let name = entry.map_err(|e| Error::io(aside, &e))?.file_name();
        // One that was being written at a crash has a full stop in its name.
        let is_sink =
            name.to_str().is_some_and(|name| name.starts_with(FILE) && !name.contains('.'));
        let Some(old) = is_sink.then(|| Position::read(&aside.join(&name))).transpose()? else {
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

/// What the names of files with a position begin with.
const FILE: &str = "sink-";

/// Reads the log from a position on.
pub(super) struct Follower {
    file: PathBuf,
    dir: PathBuf,
    log: BufReader<File>,
    journal: Cursor,
    position: Position,
    /// The index and the offset that were last written, and when.
    noted: ((u64, u64), Instant),
    lag: u64,
}

impl Follower {
    /// At the position that is on the disk, or at the end of the log.
    pub(super) fn open(
        options: &Options,
        log: &Log,
        dir: &Path,
        journal: Cursor,
    ) -> Result<Self, Error> {
        let file = dir.join(format!("{FILE}{}", options.name));
        let first_index = journal.first_index;
        let end = Position { index: log.records(), offset: log.size(), first_index };
        let mut position = match Position::read(&file)? {
            Some(position) => position,
            None => {
                // At once: what comes from now on is the sink's, whatever happens.
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
            // The log lost its end at a crash, after the sink had it.
            position = end;
        }
        let opened = File::open(log.path()).map_err(|e| Error::io(log.path(), &e))?;
        let noted = ((position.index, position.offset), Instant::now());
        let log = BufReader::with_capacity(1 << 17, opened);
        let dir = dir.to_owned();
        Ok(Self { file, dir, log, journal, position, noted, lag: options.lag })
    }

    /// The index of the next record.
    pub(super) fn index(&self) -> u64 {
        self.position.index
    }

    /// The next records, of those below `size`; the position stays.
    fn batch(&mut self, size: u64) -> Result<(Vec<Vec<u8>>, Position), Error> {
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
            records.push(record);
        }
        Ok((records, at))
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
    fn note(&mut self) -> Result<(), Error> {
        let (noted, last) = self.noted;
        let now = (self.position.index, self.position.offset);
        if now == noted || last.elapsed() < NOTE {
            return Ok(());
        }
        self.noted = (now, Instant::now());
        self.position.write(&self.file)
    }
}

/// Sends what comes, for ever.
pub(super) async fn keep_following(
    sink: Arc<Sink>,
    follower: Follower,
    mut remote: Remote,
    log: Log,
) {
    let mut appended = log.appended();
    let mut pause = BACKOFF.0;
    let mut follower = Some(follower);
    loop {
        let size = *appended.borrow_and_update();
        match step(&sink, &mut follower, &mut remote, size).await {
            Ok(true) => {
                pause = BACKOFF.0;
                if sink.failing.swap(false, Ordering::AcqRel) {
                    tracing::info!(sink = sink.name, "the audit sink takes records again");
                }
            }
            Ok(false) => {
                // Woken from time to time too, to note the position.
                drop(tokio::time::timeout(NOTE, appended.changed()).await);
            }
            Err(why) => {
                if !sink.failing.swap(true, Ordering::AcqRel) {
                    let mandatory = sink.mandatory;
                    tracing::error!(sink = sink.name, mandatory, why, "the audit sink fails");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

/// Sends a batch; answers whether there was one.
async fn step(
    sink: &Sink,
    follower: &mut Option<Follower>,
    remote: &mut Remote,
    size: u64,
) -> Result<bool, String> {
    let Some(mut reading) = follower.take() else { return Err("its reader has failed".into()) };
    let read = tokio::task::spawn_blocking(move || {
        let noted = reading.note();
        let batch = noted.and_then(|()| reading.batch(size));
        (reading, batch)
    });
    let (reading, batch) = read.await.map_err(|e| e.to_string())?;
    let lag = reading.lag;
    let reading = follower.insert(reading);
    let (records, behind) = batch.map_err(|e| e.to_string())?;
    if records.is_empty() {
        return Ok(false);
    }
    let late = size.saturating_sub(reading.position.index);
    if !sink.mandatory && late > lag {
        let left_out = records.len() as u64;
        if sink.dropped.fetch_add(left_out, Ordering::AcqRel) == 0 {
            tracing::error!(
                sink = sink.name,
                late,
                "the audit sink is too late: it misses records"
            );
        }
    } else {
        match tokio::time::timeout(sink.deadline, remote.send(&records)).await {
            Ok(sent) => sent?,
            Err(_) => {
                remote.hang_up();
                return Err("it did not answer in time".into());
            }
        }
    }
    reading.position = behind;
    sink.taken.send_replace(behind.index);
    Ok(true)
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
        position.write(&aside.join("sink-web")).expect("written");
        std::fs::write(aside.join("sink-web.new"), "").expect("written");
        take_along(&aside, &dir).expect("taken along");
        let taken = Position::read(&dir.join("sink-web")).expect("read").expect("there");
        assert_eq!((taken.index, taken.offset), (0, 30));
        assert_eq!(std::fs::read_dir(&dir).expect("listed").count(), 1);
    }
}
