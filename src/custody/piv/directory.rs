//! Which key is in which slot: a small object on the card itself.
//!
//! It is written before a key is made and after one is destroyed, so that a slot which may hold a key
//! of ours is never taken for a free one. Who has not got the management key can't write it; it is
//! not secret.
//!
//! ```text
//! version (1) | length of label (1) | label | number of entries (1) | entries
//! entry: slot (1) | use (1) | id (16)
//! ```

use crate::custody::BackingKeyId;
use yubikey::piv::{RetiredSlotId, SlotId};

/// Its place: one that neither NIST nor Yubico uses ("SR", after the prefix of PIV objects).
pub(super) const OBJECT: yubikey::ObjectId = 0x5f_5352;

const VERSION: u8 = 1;

/// The longest label, in bytes.
pub(super) const MAX_LABEL: usize = 32;

/// The slots that take keys, in the order in which they are used up: 82 to 95 first, whose PIN and
/// touch policies no other program expects to be something else.
pub(super) fn slots() -> impl Iterator<Item = SlotId> {
    let retired = (0x82..=0x95).filter_map(|n| RetiredSlotId::try_from(n).ok());
    let first = [SlotId::KeyManagement, SlotId::Authentication, SlotId::Signature];
    retired.map(SlotId::Retired).chain(first).chain([SlotId::CardAuthentication])
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Ecdh,
    RsaOaep,
    EcdsaP256,
}

impl Use {
    const ALL: [(Self, u8); 3] = [(Self::Ecdh, 1), (Self::RsaOaep, 2), (Self::EcdsaP256, 3)];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) slot: SlotId,
    pub(super) used: Use,
    pub(super) id: BackingKeyId,
}

/// The object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// What the token is called.
    pub(super) label: String,
    pub(super) entries: Vec<Entry>,
}

impl Directory {
    pub(super) fn find(&self, id: BackingKeyId) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.id == id).copied()
    }

    /// The first slot that no key of ours is in.
    pub(super) fn free(&self) -> Option<SlotId> {
        slots().find(|slot| self.entries.iter().all(|entry| entry.slot != *slot))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let length = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let mut bytes = vec![VERSION, length(self.label.len())];
        bytes.extend_from_slice(self.label.as_bytes());
        bytes.push(length(self.entries.len()));
        for Entry { slot, used, id } in &self.entries {
            let used = Use::ALL.into_iter().find(|(one, _)| one == used).map_or(0, |(_, n)| n);
            bytes.extend_from_slice(&[u8::from(*slot), used]);
            bytes.extend_from_slice(&id.0);
        }
        bytes
    }

    /// What `to_bytes` wrote; nothing if it is anything else, down to a slot that is named twice.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [VERSION, length, rest @ ..] = bytes else { return None };
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        let label = str::from_utf8(label).ok().filter(|label| label.len() <= MAX_LABEL)?;
        let (count, rest) = rest.split_first()?;
        let (entries, rest) = rest.as_chunks::<18>();
        if !rest.is_empty() || entries.len() != usize::from(*count) {
            return None;
        }
        let mut directory = Self { label: label.to_owned(), entries: Vec::new() };
        for entry in entries {
            let entry = Entry::read(entry)?;
            let twice = |other: &Entry| other.slot == entry.slot || other.id == entry.id;
            if directory.entries.iter().any(twice) {
                return None;
            }
            directory.entries.push(entry);
        }
        Some(directory)
    }
}

impl Entry {
    fn read([slot, used, id @ ..]: &[u8; 18]) -> Option<Self> {
        let slot = slots().find(|known| u8::from(*known) == *slot)?;
        let (used, _) = Use::ALL.into_iter().find(|(_, n)| n == used)?;
        Some(Self { slot, used, id: BackingKeyId(*id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Directory {
        let mut directory = Directory { label: "strongroom".into(), entries: Vec::new() };
        while let Some(slot) = directory.free() {
            let n = u8::try_from(directory.entries.len()).expect("few");
            let (used, _) = Use::ALL[usize::from(n) % 3];
            directory.entries.push(Entry { slot, used, id: BackingKeyId([n; 16]) });
        }
        directory
    }

    #[test]
    fn there_is_room_for_24_keys_and_all_are_found_again() {
        let directory = full();
        assert_eq!(directory.entries.len(), 24);
        let again = Directory::read(&directory.to_bytes()).expect("well-formed");
        assert_eq!(again, directory);
        assert_eq!(again.find(BackingKeyId([7; 16])), Some(directory.entries[7]));
        assert_eq!(again.find(BackingKeyId([24; 16])), None);
        // On the smallest card an object has room for 2 KiB.
        assert!(directory.to_bytes().len() < 512);
    }

    #[test]
    fn a_slot_that_is_given_up_is_the_next_to_be_used() {
        let mut directory = full();
        let gone = directory.entries.remove(5);
        assert_eq!(directory.free(), Some(gone.slot));
    }

    #[test]
    fn anything_else_is_refused() {
        let whole = full().to_bytes();
        for length in 0..whole.len() {
            assert_eq!(Directory::read(&whole[..length]), None);
        }
        let with = |at: usize, value: u8| {
            let mut bytes = whole.clone();
            bytes[at] = value;
            Directory::read(&bytes)
        };
        let entries = 3 + "strongroom".len();
        assert_eq!(with(0, 2), None, "a version to come");
        assert_eq!(with(entries, 0x9b), None, "no slot for keys");
        assert_eq!(with(entries, whole[entries + 18]), None, "a slot that is named twice");
        assert_eq!(with(entries + 1, 9), None, "an unknown use");
        assert_eq!(Directory::read(&[whole.as_slice(), &[0]].concat()), None, "more than it says");
    }
}
