//! Seeds: keys and secrets that are to be there from the start (`strongroom dev --seed`).
//!
//! A thing that is there already is left as it is, whatever its seed says: the state of an appliance
//! outlives its starts. Where the two differ, [`Planted`] says in what.

use crate::store::keys::Tag;

/// What became of the seed of one thing.
#[derive(Debug, Default)]
pub struct Planted {
    /// Whether it was made now; else it was there.
    pub made: bool,
    /// In what it differs from its seed: each completes the sentence "it ...".
    pub differences: Vec<String>,
}

/// Tags have no order that matters.
pub(super) fn same_tags(one: &[Tag], other: &[Tag]) -> bool {
    one.len() == other.len() && one.iter().all(|tag| other.contains(tag))
}
