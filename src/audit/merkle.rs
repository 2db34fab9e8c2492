//! The Merkle tree of RFC 6962 section 2.1, over SHA-256.
//!
//! ```text
//! leaf(d)    = SHA-256(0x00 || d)
//! node(l, r) = SHA-256(0x01 || l || r)
//! ```
//!
//! A tree of n leaves splits at the largest power of two below n. [`Edge`] is all of a growing tree
//! that must be kept: for each tile level (c2sp.org/tlog-tiles, 256 hashes a tile) the hashes of its
//! last, unfinished tile.

use aws_lc_rs::digest::{self, Context, SHA256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Hashes in a full tile.
pub const TILE: usize = 256;

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    to_hash(&context.finish())
}

fn to_hash(digest: &digest::Digest) -> Hash {
    let mut out = [0; 32];
    out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// The hash of one entry.
pub fn leaf(entry: &[u8]) -> Hash {
    hash(&[&[0], entry])
}

/// The hash over two neighbours.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

/// The hash over neighbouring subtrees of one size, of which the last may be smaller; of none, the
/// hash of the empty tree.
pub fn root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => hash(&[]),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(split(more.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `n`, for `n` of at least 2.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// The largest power of two below `n`, for `n` of at least 2.
pub(super) fn split_at(n: u64) -> u64 {
    n.checked_next_power_of_two().map_or(1 << 63, |power| power / 2)
}

/// A full tile: its level, its index within the level, its hashes.
pub struct Tile {
    /// 0 for the tiles of leaves.
    pub level: usize,
    /// Counted from 0 within the level.
    pub index: u64,
    /// 256 of them.
    pub hashes: Vec<Hash>,
}

/// The right edge of a growing tree.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves, from the hashes of the unfinished tile of each level.
    /// `None` if their numbers are not those of a tree of this size.
    pub fn new(size: u64, levels: Vec<Vec<Hash>>) -> Option<Self> {
        let mut rest = size;
        for level in &levels {
            if level.len() as u64 != rest % TILE as u64 {
                return None;
            }
            rest /= TILE as u64;
        }
        (rest == 0).then_some(Self { size, levels })
    }

    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the unfinished tile of each level, level 0 first.
    pub fn levels(&self) -> &[Vec<Hash>] {
        &self.levels
    }

    /// Adds a leaf; `full` gets each tile that it completes.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(Tile)) {
        self.size += 1;
        let (mut carry, mut count) = (Some(leaf), self.size);
        for (level, hashes) in self.levels.iter_mut().enumerate() {
            let Some(hash) = carry.take() else { return };
            hashes.push(hash);
            if hashes.len() < TILE {
                return;
            }
            count /= TILE as u64;
            carry = Some(root(hashes));
            full(Tile { level, index: count.saturating_sub(1), hashes: std::mem::take(hashes) });
        }
        if let Some(hash) = carry {
            self.levels.push(vec![hash]);
        }
    }

    /// The root of the tree.
    ///
    /// The subtrees of one level and whatever is left below them split as a tree of leaves does,
    /// since only the last of them is smaller than the others.
    pub fn root(&self) -> Hash {
        let mut below: Option<Hash> = None;
        for level in &self.levels {
            let hashes: Vec<Hash> = level.iter().copied().chain(below).collect();
            if !hashes.is_empty() {
                below = Some(root(&hashes));
            }
        }
        below.unwrap_or_else(|| root(&[]))
    }
}

/// The root of a tree of `size` leaves that has `leaf` at `index`, by an inclusion proof from the
/// leaf's sibling up (RFC 9162 section 2.1.3.2). `None` if the proof has not the length that it
/// must have.
pub fn root_of_proof(index: u64, size: u64, leaf: Hash, proof: &[Hash]) -> Option<Hash> {
    let mut last = size.checked_sub(1).filter(|last| index <= *last)?;
    let (mut at, mut root) = (index, leaf);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            root = node(sibling, &root);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            root = node(&root, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(n: u64) -> Vec<Hash> {
        (0..n).map(|i| leaf(&i.to_be_bytes())).collect()
    }

    fn hex(hash: Hash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// MTH as RFC 6962 section 2.1 writes it, leaf by leaf.
    fn by_the_book(leaves: &[Hash]) -> Hash {
        match leaves.len() {
            0 => hash(&[]),
            1 => leaves[0],
            n => {
                let mut k = 1;
                while k * 2 < n {
                    k *= 2;
                }
                node(&by_the_book(&leaves[..k]), &by_the_book(&leaves[k..]))
            }
        }
    }

    /// PATH as RFC 6962 section 2.1.1 writes it.
    fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() <= 1 {
            return Vec::new();
        }
        let k = split(leaves.len());
        let (mut proof, other) = if m < k {
            (path(m, &leaves[..k]), by_the_book(&leaves[k..]))
        } else {
            (path(m - k, &leaves[k..]), by_the_book(&leaves[..k]))
        };
        proof.push(other);
        proof
    }

    #[test]
    fn known_values() {
        // The empty tree, and the tree over the eight inputs that certificate-transparency's own
        // tests use.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(root(&[])), empty);
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let leaves: Vec<Hash> = inputs.iter().map(|input| leaf(input)).collect();
        let one = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        let eight = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";
        assert_eq!(hex(root(&leaves[..1])), one);
        assert_eq!(hex(root(&leaves)), eight);
    }

    #[test]
    fn an_edge_has_the_root_of_all_its_leaves_and_gives_every_full_tile_once() {
        let all = leaves(70_000);
        let (mut edge, mut tiles) = (Edge::default(), Vec::new());
        for (n, leaf) in all.iter().enumerate() {
            edge.push(*leaf, |tile| tiles.push((tile.level, tile.index, root(&tile.hashes))));
            if [1, 2, 3, 255, 256, 257, 511, 65_535, 65_536, 65_537, 65_793].contains(&(n + 1)) {
                assert_eq!(edge.root(), by_the_book(&all[..=n]), "{}", n + 1);
            }
        }
        assert_eq!(edge.root(), by_the_book(&all));
        // c2sp.org/tlog-tiles gives the numbers for this very size.
        assert_eq!(tiles.iter().filter(|(level, ..)| *level == 0).count(), 273);
        assert_eq!(tiles.iter().filter(|(level, ..)| *level == 1).count(), 1);
        assert_eq!(edge.levels().iter().map(Vec::len).collect::<Vec<_>>(), [112, 17, 1]);
        for (n, (_, index, hash)) in tiles.iter().filter(|(level, ..)| *level == 0).enumerate() {
            assert_eq!(*index, n as u64);
            assert_eq!(*hash, by_the_book(&all[n * 256..(n + 1) * 256]));
        }
        let again = Edge::new(70_000, edge.levels().to_vec()).expect("the same");
        assert_eq!(again.root(), edge.root());
        assert!(Edge::new(70_001, edge.levels().to_vec()).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_proof_leads_to_the_root_and_no_other_leaf_or_index_does(
            n in 1_u64..600, at in any::<u64>(), other in any::<u64>()
        ) {
            let (all, at) = (leaves(n), at % n);
            let here = usize::try_from(at).expect("small");
            let proof = path(here, &all);
            let root = by_the_book(&all);
            prop_assert_eq!(root_of_proof(at, n, all[here], &proof), Some(root));
            prop_assert_ne!(root_of_proof(at, n, leaf(b"another"), &proof), Some(root));
            let other = other % n;
            if other != at {
                prop_assert_ne!(root_of_proof(other, n, all[here], &proof), Some(root));
            }
            let longer: Vec<Hash> = proof.iter().copied().chain([root]).collect();
            prop_assert_eq!(root_of_proof(at, n, all[here], &longer), None);
        }
    }
}
