//! Secret bytes and text: types that wipe themselves and can't be printed, copied or serialized.
//!
//! A value of these types is read by one method, [`Secret::expose`], so that every place that
//! opens a secret can be found by searching for that word.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// How much room there is at least when more is read, in bytes.
const PIECE: usize = 512;

/// Why a file with a secret in it is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Others could.
    #[error("it can be read by others: its mode must be 0600 or 0400")]
    Exposed,
}

fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.starts_with(dir))
}

/// Secret bytes of any length (a PIN, a secret value, a plaintext). Wiped when dropped.
///
/// The buffer never grows in place: whoever fills it reserves first, so no unwiped copy stays
/// behind in freed memory.
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes over `bytes`, which are wiped when this value is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// A copy of `bytes`; the caller answers for the original.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// Reads a file, or whatever it is, to its end; nothing if that is more than `most` bytes away. No
    /// copy stays behind, however long it turns out to be.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(mut from: impl Read, most: usize) -> io::Result<Option<Self>> {
        let (mut secret, mut len) = (Self(Vec::new()), 0);
        while len <= most {
            secret.reserve(PIECE);
            let room = secret.0.capacity().min(most.saturating_add(1));
            secret.0.resize(room, 0);
            let read = from.read(secret.0.get_mut(len..).unwrap_or_default());
            let (more, end) = match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, false),
                read => read.map(|more| (more, more == 0))?,
            };
            len = len.saturating_add(more);
            secret.0.truncate(len);
            if end {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }

    /// Reads a file that nobody but its owner may read; nothing if it has more than `most` bytes.
    ///
    /// # Errors
    /// Those of reading; that others can read it.
    pub fn read_private(path: &Path, most: usize) -> Result<Option<Self>, FileError> {
        let file = File::open(path)?;
        // systemd hands credentials over with mode 0440, in a folder that no one else may enter.
        let open_to = if is_credential(path) { 0o007 } else { 0o077 };
        if file.metadata()?.mode() & open_to != 0 {
            return Err(FileError::Exposed);
        }
        Ok(Self::read(file, most)?)
    }

    /// The bytes themselves. The one way to read a secret.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, for a primitive that works in place.
    pub fn expose_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Makes room for `more` bytes; wipes the old place if the bytes have to move.
    pub fn reserve(&mut self, more: usize) {
        let needed = self.0.len().saturating_add(more);
        if needed > self.0.capacity() {
            let mut larger = Vec::with_capacity(needed.max(self.0.capacity() * 2));
            larger.extend_from_slice(&self.0);
            std::mem::swap(&mut self.0, &mut larger);
            wipe(&mut larger);
        }
    }

    /// The bytes as text, if they are UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Compares in time that depends on the lengths alone.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites bytes that are about to be freed. `zeroize` writes byte by byte, which for the values
/// and bodies of a busy server is a cost that shows; this is a memset that the optimizer can't see
/// through, over the whole capacity.
fn wipe(bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.resize(bytes.capacity(), 0);
    std::hint::black_box(bytes.as_mut_slice());
}

/// A 256-bit key or keying secret. Wiped when dropped.
///
/// The bytes have a place of their own: a key that is handed on is a pointer that is copied. Bytes
/// that moved with it would leave a copy on the stack at every step, which nobody wipes.
pub struct Key(Box<[u8; 32]>);

impl Key {
    /// Takes 32 bytes; the source is wiped.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let key = Self::copy_of(bytes);
        bytes.zeroize();
        key
    }

    /// Takes exactly 32 bytes out of a secret, or `None` if it has another length.
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        secret.expose().try_into().ok().map(Self::copy_of)
    }

    /// A key that `fill` writes in place.
    pub fn fill<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self(Box::new([0; 32]));
        fill(&mut key.0)?;
        Ok(key)
    }

    fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut key = Self(Box::new([0; 32]));
        key.0.copy_from_slice(bytes);
        key
    }

    /// The bytes themselves. The one way to read a key.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Shows the length and nothing else, so that a struct which holds a secret can say what it holds.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} secret bytes]", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a pipe gives it out.
    struct Pieces<'a>(&'a [u8]);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let len = into.len().min(7);
            self.0.read(into.get_mut(..len).expect("no more than that"))
        }
    }

    #[test]
    fn what_is_read_has_its_bound_and_is_whole() {
        let text: Vec<u8> = (0..2000_u32).map(|n| n.to_be_bytes()[3]).collect();
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, text.len()] {
            let whole = text.get(..len).expect("so many");
            let read = |most| Secret::read(Pieces(whole), most).expect("read");
            for most in [len, len + 1, usize::MAX] {
                assert_eq!(read(most).expect("not too long").expose(), whole);
            }
            if len > 0 {
                assert!(read(len - 1).is_none());
            }
        }
        let failed = Secret::read(File::open("/").expect("a folder"), 1);
        assert!(failed.is_err());
    }

    #[test]
    fn equality_needs_the_same_bytes_and_the_same_length() {
        assert!(Secret::copy_of(b"abc") == Secret::copy_of(b"abc"));
        assert!(Secret::copy_of(b"abc") != Secret::copy_of(b"abd"));
        assert!(Secret::copy_of(b"abc") != Secret::copy_of(b"abcd"));
    }

    #[test]
    fn a_key_is_taken_from_exactly_32_bytes_and_its_source_is_wiped() {
        assert!(Key::from_secret(&Secret::copy_of(&[7; 31])).is_none());
        assert!(Key::from_secret(&Secret::copy_of(&[7; 32])).is_some());
        let mut source = [9; 32];
        let key = Key::take(&mut source);
        assert_eq!(source, [0; 32]);
        assert_eq!(key.expose(), &[9; 32]);
    }

    #[test]
    fn a_secret_shows_its_length_and_no_byte() {
        assert_eq!(Secret::copy_of(b"hunter2").to_string(), "[7 secret bytes]");
    }
}
