//! The data directory: who may see it, and the one process that holds it.

use crate::store::{Error, Result};
use rustix::fs::{FlockOperation, OFlags};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The database's name within its directory; SQLite appends `-wal` to it.
const DATABASE: &str = "strongroom.db";
/// What SQLite may put beside the database.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
const LOCK: &str = "lock";

/// A data directory that this process alone holds, until this value is dropped.
pub(super) struct Held {
    /// The database file; it exists, and SQLite creates its companions with the same mode.
    pub(super) database: PathBuf,
    /// The kernel releases the lock with the last descriptor, so also after SIGKILL.
    lock: File,
}

impl Drop for Held {
    /// Says so rather than leave it to the descriptor's end: a program that another thread is just
    /// starting (a rotation's, a token's child) has a copy of it between fork and exec, and would
    /// keep the directory for that long.
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            tracing::debug!(%error, "the data directory's lock goes with its descriptor");
        }
    }
}

/// Takes hold of `directory` (made with mode 0700 if it is missing, its parent not) and makes an
/// empty 0600 database file in it if there is none.
///
/// # Errors
/// [`Error::Unusable`] if others can reach the directory or a file of the database, [`Error::InUse`]
/// if another process holds it.
pub(super) fn hold(directory: &Path) -> Result<Held> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(refused("create", directory, &error));
        }
        _ => {}
    }
    // SQLite refuses any link in the path of a database that it may not follow.
    let directory = directory.canonicalize().map_err(|error| refused("find", directory, &error))?;
    private(&directory, 0o077, "700")?;
    let lock = lock(&directory)?;
    let database = directory.join(DATABASE);
    create_private(&database)?;
    private(&database, 0o077, "600")?;
    for suffix in COMPANIONS {
        private(&directory.join(format!("{DATABASE}{suffix}")), 0o077, "600")?;
    }
    Ok(Held { database, lock })
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let file = options(0o600)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| refused("open", &path, &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::InUse(directory.display().to_string())),
        Err(errno) => Err(refused("lock", &path, &errno.into())),
    }
}

fn create_private(path: &Path) -> Result<()> {
    match options(0o600).create_new(true).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(refused("create", path, &error))
        }
        _ => Ok(()),
    }
}

fn options(mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(mode);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Checks that `path`, if it exists, grants nothing of `forbidden` (permission bits).
fn private(path: &Path, forbidden: u32, wanted: &str) -> Result<()> {
    let mode = match path.symlink_metadata() {
        Ok(found) => found.mode(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("examine", path, &error)),
    };
    if mode & forbidden == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(Error::Unusable(format!(
        "`{path}` is open to other users (mode {:03o}): run `chmod {wanted} {path}`",
        mode & 0o777
    )))
}

fn refused(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Unusable(format!("can't {what} `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_free_at_once_though_a_process_that_is_being_started_has_the_lock_s_descriptor_too() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("data");
        let held = hold(&dir).unwrap();
        let _forked = held.lock.try_clone().unwrap();
        assert!(matches!(hold(&dir), Err(Error::InUse(_))));
        drop(held);
        assert!(hold(&dir).is_ok());
    }
}
