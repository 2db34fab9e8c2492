//! Lines of the log, by where they begin.

use super::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes read at once; a longer line is read whole all the same.
pub(super) const CHUNK: usize = 4 * 1024 * 1024;
/// Bytes read at once for one line.
const LINE: usize = 4096;

/// A log that is read while it is written.
pub(super) struct Lines {
    file: File,
    path: PathBuf,
}

/// Whole lines that follow on each other, at least one.
pub(super) struct Batch {
    start: u64,
    bytes: Vec<u8>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The line that begins at `place`, without its line feed.
    pub(super) fn at(&self, place: u64) -> Result<Vec<u8>, Error> {
        let mut line = Vec::new();
        loop {
            let known = line.len();
            self.more(&mut line, place, LINE)?;
            let fresh = line.get(known..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|b| *b == b'\n') {
                line.truncate(known + end);
                return Ok(line);
            }
        }
    }

    /// The lines from `start`, which is before `end`; a line ends at `end`.
    pub(super) fn batch(&self, start: u64, end: u64) -> Result<Batch, Error> {
        let mut bytes = Vec::new();
        loop {
            let left = end.saturating_sub(start).saturating_sub(bytes.len() as u64);
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            if most == 0 {
                return Err(self.ended());
            }
            self.more(&mut bytes, start, most)?;
            if let Some(last) = bytes.iter().rposition(|b| *b == b'\n') {
                bytes.truncate(last + 1);
                return Ok(Batch { start, bytes });
            }
        }
    }

    /// Reads on behind what is read already from `start`.
    fn more(&self, bytes: &mut Vec<u8>, start: u64, most: usize) -> Result<(), Error> {
        let known = bytes.len();
        bytes.resize(known + most, 0);
        let fresh = bytes.get_mut(known..).unwrap_or_default();
        let read = self.file.read_at(fresh, start + known as u64);
        let read = read.map_err(|e| Error::io(&self.path, e))?;
        if read == 0 {
            return Err(self.ended());
        }
        bytes.truncate(known + read);
        Ok(())
    }

    fn ended(&self) -> Error {
        Error::io(&self.path, std::io::ErrorKind::UnexpectedEof.into())
    }
}

impl Batch {
    /// Where the next batch begins.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Each line and where it begins, without its line feed.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut place = self.start;
        let whole = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        whole.split(|b| *b == b'\n').map(move |line| {
            let begin = place;
            place += line.len() as u64 + 1;
            (begin, line)
        })
    }

    /// The last line.
    pub(super) fn last(&self) -> (u64, &[u8]) {
        self.lines().last().unwrap_or((self.start, b""))
    }
}

/// Reads a log from its start, line by line, until `look` has seen enough.
///
/// # Errors
/// If the file can't be read.
pub fn whole_lines(path: &Path, mut look: impl FnMut(&[u8]) -> bool) -> Result<(), Error> {
    let fail = |e| Error::io(path, e);
    let mut log = BufReader::with_capacity(1 << 18, File::open(path).map_err(fail)?);
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line).map_err(fail)? > 0 {
        if !look(line.strip_suffix(b"\n").unwrap_or(&line)) {
            break;
        }
        line.clear();
    }
    Ok(())
}
