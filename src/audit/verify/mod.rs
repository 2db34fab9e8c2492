//! Verification of a copied log: offline, with the public key alone.
//!
//! Everything is computed again from the records. What a checkpoint vouches for is compared with it;
//! tiles and log file are compared with the records, which tells *where* something is wrong. Records
//! behind the last checkpoint are vouched for by nobody.

mod report;
mod walk;

pub use report::{Finding, Report, Verdict, Witnessed};

use super::Error;
use super::checkpoint::{CHECKPOINT, Checkpoint};
use super::merkle::Edge;
use super::note::{MAX_NOTE, Signed, Verifier};
use super::tiles::{self, TILE_BYTES};
use std::path::{Path, PathBuf};

/// What is to be verified, and by what.
pub struct Question {
    /// The tree's folder.
    pub dir: PathBuf,
    /// The log file, if there is one.
    pub log: Option<PathBuf>,
    /// The key of the token, under the tree's name.
    pub key: Verifier,
    /// Keys of witnesses that must have seen the tree.
    pub witnesses: Vec<Verifier>,
    /// Checkpoints that were kept elsewhere: where each is from, and its bytes.
    pub checkpoints: Vec<(String, Vec<u8>)>,
}

impl Question {
    /// Verifies.
    ///
    /// # Errors
    /// [`Error::Io`] if a file can't be read.
    pub fn answer(&self) -> Result<Report, Error> {
        let mut report = Report { origin: self.key.name().to_owned(), ..Report::default() };
        let checkpoints = self.checkpoints(&mut report)?;
        let mut edge = Edge::default();
        let mut pending = checkpoints.iter().peekable();
        while pending.next_if(|checkpoint| checkpoint.head.size == 0).is_some() {}
        let walk = walk::Walk::new(&self.dir, self.log.as_deref(), &mut report)?;
        walk.through(|report, index, leaf, full| {
            edge.push(leaf, full);
            while let Some(checkpoint) =
                pending.next_if(|checkpoint| checkpoint.head.size == index + 1)
            {
                hold_against(report, checkpoint, &edge);
            }
        })?;
        report.records = edge.size();
        for checkpoint in pending {
            let (size, at) = (checkpoint.head.size, when(checkpoint));
            let what = format!("they are gone: a checkpoint{at} vouches for {size} records");
            report.found(edge.size(), size - 1, what);
        }
        compare_unfinished(&mut report, &self.dir, &edge)?;
        self.ask_witnesses(&mut report, &checkpoints);
        if report.time.is_none() && report.vouched == 0 && report.doubts.is_empty() {
            report.doubts.push("no checkpoint vouches for anything".into());
        }
        Ok(report)
    }

    /// The checkpoints by the key, the smallest first.
    fn checkpoints(&self, report: &mut Report) -> Result<Vec<Checkpoint>, Error> {
        let mut found = Vec::new();
        let own = read_note(&self.dir.join(CHECKPOINT))?;
        if let Some(bytes) = own {
            match Checkpoint::parse(&bytes).filter(|checkpoint| checkpoint.is_by(&self.key)) {
                Some(checkpoint) => found.push(checkpoint),
                None => report.wrong(
                    "the log's own checkpoint is not signed by this key, or is another tree's",
                ),
            }
        }
        for (from, bytes) in &self.checkpoints {
            match Checkpoint::parse(bytes).filter(|checkpoint| checkpoint.is_by(&self.key)) {
                Some(checkpoint) => found.push(checkpoint),
                None => report.doubts.push(format!(
                    "`{from}` is no checkpoint of `{}` that this key has signed",
                    self.key.name()
                )),
            }
        }
        found.sort_by_key(|checkpoint| checkpoint.head.size);
        Ok(found)
    }

    fn ask_witnesses(&self, report: &mut Report, checkpoints: &[Checkpoint]) {
        for witness in &self.witnesses {
            let mut newest = None;
            for checkpoint in checkpoints {
                match witness.check(&checkpoint.note) {
                    Signed::Good(time) => {
                        newest = Some((checkpoint.head.size, time.unwrap_or_default()));
                    }
                    Signed::Bad => {
                        let name = witness.name();
                        report.wrong(format!("a cosignature in the name of `{name}` is forged"));
                    }
                    Signed::Absent => {}
                }
            }
            let name = witness.name().to_owned();
            match newest {
                Some((records, time)) => {
                    report.witnessed.push(Witnessed { witness: name, records, time });
                }
                None => report.doubts.push(format!("`{name}` has witnessed no checkpoint")),
            }
        }
    }
}

/// Compares the tree of the records so far with a checkpoint of its size.
fn hold_against(report: &mut Report, checkpoint: &Checkpoint, edge: &Edge) {
    let size = checkpoint.head.size;
    if edge.root() == checkpoint.head.root {
        report.vouched = size;
        report.time.clone_from(&checkpoint.time);
        return;
    }
    let at = when(checkpoint);
    let what = format!("among them is one that is not as the checkpoint{at} vouches for");
    report.found(report.vouched, size - 1, what);
}

fn when(checkpoint: &Checkpoint) -> String {
    checkpoint.time.as_ref().map(|time| format!(" of {time}")).unwrap_or_default()
}

/// Compares the unfinished tiles of this very size with their files, as far as those are there.
fn compare_unfinished(report: &mut Report, dir: &Path, edge: &Edge) -> Result<(), Error> {
    let mut rest = edge.size();
    for (level, hashes) in edge.levels().iter().enumerate() {
        let width = hashes.len();
        rest /= super::merkle::TILE as u64;
        for there in tiles::widths(dir, &tiles::tile(level, rest, None)) {
            let path = tiles::tile(level, rest, Some(there));
            let wanted = hashes.get(..there.min(width)).unwrap_or_default();
            let found = tiles::read_most(&dir.join(&path), TILE_BYTES)?.unwrap_or_default();
            if there > width || found != tiles::encode_tile(wanted) {
                let path = path.display();
                report.wrong(format!("`{path}` is not what follows from the records"));
            }
        }
    }
    Ok(())
}

/// Reads a note, or what is too long to be one; nothing if there is none.
///
/// # Errors
/// [`Error::Io`].
pub fn read_note(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    tiles::read_most(path, MAX_NOTE)
}
