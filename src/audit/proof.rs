//! Proofs that one record is in the log (c2sp.org/tlog-proof), which need nothing but the key.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <the record, base64>
//! index <its index>
//! <hashes from the leaf's sibling up, base64, a line each>
//!
//! <the checkpoint>
//! ```
//!
//! The record is the proof's extra data; it is worth what the proof is, since it is what is hashed.

use super::Error;
use super::checkpoint::{CHECKPOINT, Checkpoint};
use super::merkle::{self, Hash, TILE, root_of_proof};
use super::note::Verifier;
use super::outbox::event_id;
use super::reader::Reader;
use super::tiles;
use super::tree::Cursor;
use super::verify::read_note;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// The largest proof that is read, in bytes.
pub const MAX_PROOF: usize = 256 * 1024;
const WIDTH: u64 = TILE as u64;

/// A record that is in a log, as a proof shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// Its index.
    pub index: u64,
    /// The record.
    pub record: Vec<u8>,
    /// The checkpoint that vouches for it.
    pub checkpoint: Checkpoint,
}

/// Checks a proof. `None` if it proves nothing under this key.
pub fn check(proof: &[u8], key: &Verifier) -> Option<Proved> {
    let text = std::str::from_utf8(proof).ok().filter(|text| text.len() <= MAX_PROOF)?;
    let (head, note) = text.split_once("\n\n")?;
    let mut lines = head.split('\n');
    if lines.next()? != HEADER {
        return None;
    }
    let record = STANDARD.decode(lines.next()?.strip_prefix("extra ")?).ok()?;
    let number = lines.next()?.strip_prefix("index ")?;
    let index: u64 = number.parse().ok().filter(|index: &u64| index.to_string() == number)?;
    let hashes: Option<Vec<Hash>> =
        lines.map(|line| STANDARD.decode(line).ok()?.try_into().ok()).collect();
    let checkpoint = Checkpoint::parse(note.as_bytes()).filter(|c| c.is_by(key))?;
    let root = root_of_proof(index, checkpoint.head.size, merkle::leaf(&record), &hashes?)?;
    (root == checkpoint.head.root).then_some(Proved { index, record, checkpoint })
}

/// Writes the proof that the record of an event is in the log in `dir`.
///
/// # Errors
/// [`Error::Missing`] if there is no such record, or no checkpoint vouches for it yet;
/// [`Error::Io`].
pub fn prove(dir: &Path, log: Option<&Path>, event: &str) -> Result<String, Error> {
    let missing = |what: &str| Error::Missing { what: what.to_owned() };
    let note = read_note(&dir.join(CHECKPOINT))?.ok_or_else(|| missing("a checkpoint"))?;
    let checkpoint = Checkpoint::parse(&note).ok_or_else(|| missing("a sound checkpoint"))?;
    let size = checkpoint.head.size;
    let found = find(dir, log, size, event)?;
    let (index, record, tail) =
        found.ok_or_else(|| missing("the record of this event, or a checkpoint that covers it"))?;
    let proof = Reader::new(dir, tail).proof(index, size)?;
    let mut text = format!("{HEADER}\nextra {}\nindex {index}\n", STANDARD.encode(record));
    for hash in proof {
        writeln!(text, "{}", STANDARD.encode(hash)).map_err(|_| missing("memory"))?;
    }
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&note));
    Ok(text)
}

/// The unfinished tile of leaves: its index and hashes.
type Tail = (u64, Vec<Hash>);

/// Looks for a record among the first `size`.
fn find(
    dir: &Path,
    log: Option<&Path>,
    size: u64,
    event: &str,
) -> Result<Option<(u64, Vec<u8>, Tail)>, Error> {
    let mut found = None;
    let mut look = |first: u64, records: &[&[u8]]| {
        // Read as JSON is only what has the id in it somewhere.
        let named = |record: &&[u8]| std::str::from_utf8(record).is_ok_and(|r| r.contains(event));
        let is_it = |record: &&[u8]| event_id(record).as_deref() == Some(event);
        let at = records.iter().position(|record| named(record) && is_it(record));
        if let Some((at, record)) = at.and_then(|at| Some((at, records.get(at)?))) {
            found.get_or_insert((first + at as u64, record.to_vec()));
        }
    };
    let mut bundle = 0;
    while let Some(bytes) = tiles::read(&dir.join(tiles::bundle(bundle, None)))? {
        look(bundle * WIDTH, &tiles::entries(&bytes).0);
        bundle += 1;
    }
    let rest = rest(dir, log, bundle, size)?;
    let rest: Vec<&[u8]> = rest.iter().map(Vec::as_slice).collect();
    look(bundle * WIDTH, &rest);
    let tail = rest.iter().take(TILE).map(|record| merkle::leaf(record)).collect();
    let found = found.filter(|(index, _)| *index < size);
    Ok(found.map(|(index, record)| (index, record, (bundle, tail))))
}

/// The records behind the last full bundle, as far as the first `size` go: from the log file, or the
/// unfinished bundle.
fn rest(dir: &Path, log: Option<&Path>, bundle: u64, size: u64) -> Result<Vec<Vec<u8>>, Error> {
    let first = bundle * WIDTH;
    let wanted = usize::try_from(size.saturating_sub(first)).unwrap_or(0).min(TILE);
    let full = tiles::bundle(bundle, None);
    if let Some(width) = tiles::widths(dir, &full).into_iter().find(|width| *width >= wanted) {
        let bytes = tiles::read(&dir.join(tiles::bundle(bundle, Some(width))))?;
        let bytes = bytes.unwrap_or_default();
        return Ok(tiles::entries(&bytes).0.into_iter().take(wanted).map(<[u8]>::to_vec).collect());
    }
    let (Some(log), Some(cursor)) = (log, Cursor::read(dir)?) else { return Ok(Vec::new()) };
    let read = || {
        let mut lines = BufReader::new(File::open(log)?);
        let later = cursor.index <= first;
        let (at, offset) = if later {
            (cursor.index, cursor.offset)
        } else {
            (cursor.first_index, cursor.first_offset)
        };
        lines.seek(SeekFrom::Start(offset))?;
        let skipped = usize::try_from(first.saturating_sub(at)).unwrap_or(usize::MAX);
        lines.split(b'\n').skip(skipped).take(wanted).collect::<std::io::Result<Vec<_>>>()
    };
    read().map_err(|e| Error::io(log, &e))
}
