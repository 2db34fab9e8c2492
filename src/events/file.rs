//! A file of events, one line of JSON each.

use super::event::Event;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// How far back the beginning of a torn line is looked for: no event is longer.
const LINE: u64 = 128 * 1024;

/// Appends events; they are on disk when this returns well. The file is opened anew each time and made,
/// with mode 0600, if it is missing, so that it may be moved away at any moment. Blocks.
pub(super) fn append(path: &Path, events: &[Event]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.append(true).read(true).create(true).mode(0o600).open(path)?;
    let end = cut_torn(&file)?;
    let mut lines = Vec::new();
    for event in events {
        lines.extend_from_slice(&event.encode());
        lines.push(b'\n');
    }
    let written = (&file).write_all(&lines).and_then(|()| file.sync_data());
    let written = written.and_then(|()| if end == 0 { sync_folder(path) } else { Ok(()) });
    // They come again, whole.
    written.inspect_err(|_| drop(file.set_len(end)))
}

/// Puts a new file's name on the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Cuts off a line that a crash has torn; its event comes again. Answers the length.
fn cut_torn(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LINE);
    let mut tail = vec![0; usize::try_from(length - from).unwrap_or(0)];
    file.read_exact_at(&mut tail, from)?;
    if tail.last().is_none_or(|last| *last == b'\n') {
        return Ok(length);
    }
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let end = from + u64::try_from(whole).unwrap_or(0);
    file.set_len(end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_cut_off_and_whole_ones_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        for (before, after) in [("", ""), ("a\n", "a\n"), ("a\nto", "a\n"), ("to", "")] {
            std::fs::write(&path, before).expect("written");
            append(&path, &[]).expect("appended");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), after);
        }
    }
}
