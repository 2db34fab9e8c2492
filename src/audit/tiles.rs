//! The files of a tree, laid out as c2sp.org/tlog-tiles says.
//!
//! ```text
//! tile/<L>/<N>             256 hashes of level L, 8,192 bytes
//! tile/<L>/<N>.p/<W>       the first W of them, while there are no more
//! tile/entries/<N>         256 records, each behind its length (uint16, big-endian)
//! tile/entries/<N>.p/<W>   the first W of them
//! ```
//!
//! `<N>` is written in groups of three digits, of which all but the last begin with an `x`.

use super::Error;
use super::merkle::{Hash, TILE};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a full tile.
pub(super) const TILE_BYTES: usize = TILE * size_of::<Hash>();
/// The most bytes that the layout gives an entry.
pub const MAX_ENTRY: usize = 65_535;

/// An index as the layout writes it: 1234067 is `x001/x234/067`.
fn index_path(mut index: u64) -> String {
    let mut text = format!("{:03}", index % 1000);
    while index >= 1000 {
        index /= 1000;
        text = format!("x{:03}/{text}", index % 1000);
    }
    text
}

/// Where a tile of hashes is, within the tree's folder; a full one without a width.
pub fn tile(level: usize, index: u64, width: Option<usize>) -> PathBuf {
    path(&level.to_string(), index, width)
}

/// Where a bundle of records is.
pub fn bundle(index: u64, width: Option<usize>) -> PathBuf {
    path("entries", index, width)
}

fn path(kind: &str, index: u64, width: Option<usize>) -> PathBuf {
    let index = index_path(index);
    match width {
        None => format!("tile/{kind}/{index}"),
        Some(width) => format!("tile/{kind}/{index}.p/{width}"),
    }
    .into()
}

/// The folder of the unfinished versions of a tile or bundle.
pub(super) fn partials(full: &Path) -> PathBuf {
    let mut name = full.as_os_str().to_owned();
    name.push(".p");
    name.into()
}

/// The unfinished versions that are there: widths, the widest first.
pub(super) fn widths(dir: &Path, full: &Path) -> Vec<usize> {
    let entries = std::fs::read_dir(dir.join(partials(full))).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut widths: Vec<usize> = named.filter(|width| (1..TILE).contains(width)).collect();
    widths.sort_unstable_by(|a, b| b.cmp(a));
    widths
}

/// A tile's bytes.
pub fn encode_tile(hashes: &[Hash]) -> Vec<u8> {
    hashes.as_flattened().to_vec()
}

/// A tile's hashes; `None` if it is not of whole hashes, or more than a tile has.
pub fn decode_tile(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && hashes.len() <= TILE).then(|| hashes.to_vec())
}

/// Puts a record at the end of a bundle.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Option<()> {
    let length = u16::try_from(entry.len()).ok()?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Some(())
}

/// The records of a bundle, as far as they can be told apart, and whether nothing was left over.
pub fn entries(bundle: &[u8]) -> (Vec<&[u8]>, bool) {
    let (mut rest, mut found) = (bundle, Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((entry, after)) = after.split_at_checked(length) else { break };
        found.push(entry);
        rest = after;
    }
    (found, rest.is_empty())
}

/// Writes a file of mode 0600 under a name that it has only once it is whole. With `durable` its
/// bytes are on the disk before it has the name.
pub(super) fn write(path: &Path, bytes: &[u8], durable: bool) -> Result<(), Error> {
    let attempt = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let unfinished = folder.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = match options.open(&unfinished) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                make_folder(folder)?;
                options.open(&unfinished)?
            }
            other => other?,
        };
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&unfinished, path)
    };
    attempt().map_err(|e| Error::io(path, &e))
}

/// Makes a folder, and those that it is in, mode 0700.
pub(super) fn make_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Puts files of the tree's folder on the disk, and the folders that name them.
pub(super) fn sync(dir: &Path, files: &[PathBuf]) -> Result<(), Error> {
    let mut folders: Vec<&Path> = files.iter().flat_map(|file| file.ancestors().skip(1)).collect();
    folders.sort_unstable();
    folders.dedup();
    files.iter().map(PathBuf::as_path).chain(folders).try_for_each(|path| {
        let path = dir.join(path);
        match File::open(&path).and_then(|file| file.sync_all()) {
            // An unfinished tile goes when the finished one comes.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| Error::io(&path, &e)),
        }
    })
}

/// Reads a file; nothing if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, &e)),
    }
}

/// Reads a file that anybody may have made: of one with more than `most` bytes these and one more.
pub(super) fn read_most(path: &Path, most: usize) -> Result<Option<Vec<u8>>, Error> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_the_layout_says() {
        assert_eq!(tile(0, 1_234_067, None), Path::new("tile/0/x001/x234/067"));
        assert_eq!(tile(2, 0, Some(17)), Path::new("tile/2/000.p/17"));
        assert_eq!(bundle(999, None), Path::new("tile/entries/999"));
        assert_eq!(bundle(1000, Some(1)), Path::new("tile/entries/x001/000.p/1"));
    }

    #[test]
    fn a_bundle_reads_back_and_a_cut_one_says_so() {
        let mut bytes = Vec::new();
        for entry in [&b"one"[..], b"", &[7; MAX_ENTRY]] {
            push_entry(&mut bytes, entry).expect("short enough");
        }
        assert!(push_entry(&mut bytes, &[0; MAX_ENTRY + 1]).is_none());
        let (found, whole) = entries(&bytes);
        assert_eq!((found.len(), whole), (3, true));
        assert_eq!(found[0], b"one");
        let (found, whole) = entries(&bytes[..bytes.len() - 1]);
        assert_eq!((found.len(), whole), (2, false));
    }
}
