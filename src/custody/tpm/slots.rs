//! Which keys are in the TPM: as many as it has places for, the one used longest ago goes first.

use crate::custody::BackingKeyId;

/// Keys in the TPM, the one that was used last at the end. A TPM has room for three to seven, so that
/// looking through them is quick.
pub(super) struct Slots<T> {
    loaded: Vec<(BackingKeyId, T)>,
    most: usize,
}

/// The most keys that are kept in a TPM, whatever it says of itself.
const MOST: usize = 64;

impl<T: Copy> Slots<T> {
    /// None loaded, and at most this many at a time: one at least.
    pub(super) fn new(most: usize) -> Self {
        Self { loaded: Vec::new(), most: most.clamp(1, MOST) }
    }

    /// A key that is loaded, which is the last used from now on.
    pub(super) fn find(&mut self, id: BackingKeyId) -> Option<T> {
        let at = self.loaded.iter().position(|(known, _)| *known == id)?;
        let found = self.loaded.remove(at);
        let key = found.1;
        self.loaded.push(found);
        Some(key)
    }

    /// Notes that a key was loaded.
    pub(super) fn note(&mut self, id: BackingKeyId, key: T) {
        self.loaded.push((id, key));
    }

    /// Forgets a key.
    pub(super) fn forget(&mut self, id: BackingKeyId) -> Option<T> {
        let at = self.loaded.iter().position(|(known, _)| *known == id)?;
        Some(self.loaded.remove(at).1)
    }

    /// Forgets the key that was used longest ago.
    pub(super) fn forget_oldest(&mut self) -> Option<T> {
        (!self.loaded.is_empty()).then(|| self.loaded.remove(0).1)
    }

    /// Whether the next key needs another's place.
    pub(super) fn full(&self) -> bool {
        self.loaded.len() >= self.most
    }

    /// The TPM had no room for one more than there are: so this is as many as it has room for.
    pub(super) fn learn(&mut self) {
        self.most = self.loaded.len().clamp(1, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> BackingKeyId {
        BackingKeyId([n; 16])
    }

    #[test]
    fn the_key_that_was_used_longest_ago_goes_first() {
        let mut slots = Slots::new(2);
        slots.note(id(1), 1);
        assert!(!slots.full());
        slots.note(id(2), 2);
        assert!(slots.full());
        assert_eq!(slots.find(id(1)), Some(1));
        assert_eq!(slots.forget_oldest(), Some(2));
        assert_eq!(slots.find(id(2)), None);
        assert_eq!(slots.forget(id(1)), Some(1));
        assert_eq!(slots.forget_oldest(), None);
    }

    #[test]
    fn there_is_room_for_one_at_least_and_what_was_learnt_holds() {
        assert!(!Slots::<u8>::new(0).full());
        let mut slots = Slots::new(7);
        slots.learn();
        slots.note(id(1), 1);
        assert!(slots.full());
    }
}
