//! A process's writable memory, and what is looked for in it.

use crate::client::{base64, hex};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// What is looked for are pieces of this many bytes.
const PIECE: usize = 16;
/// A piece begins every so many bytes: 23 bytes in a row of a secret are found wherever they begin.
const STEP: usize = 8;
/// Of a long secret its beginning, its middle and its end are looked for, this much of each.
const PART: usize = 128;
/// Memory is read and kept by pages; those of zeros are left out.
const PAGE: usize = 4096;

/// Secrets by what they are: what must not be found.
#[derive(Clone, Default)]
pub(super) struct Planted(Vec<(String, Vec<u8>)>);

impl Planted {
    pub(super) fn add(&mut self, what: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        assert!(bytes.len() >= PIECE, "{what} is too short to be looked for");
        self.0.push((what.to_owned(), bytes));
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A stretch of writable memory without a page of zeros in it.
struct Stretch {
    mapping: usize,
    bytes: Vec<u8>,
}

/// A mapping, as `/proc/PID/smaps` describes it.
struct Mapping {
    name: String,
    locked: bool,
}

/// The writable memory of a process.
pub(super) struct Image {
    mappings: Vec<Mapping>,
    stretches: Vec<Stretch>,
}

/// Something that was found.
pub(super) struct Found {
    /// What was planted.
    pub(super) what: String,
    /// Its forms, the mappings that it is in, and how many pieces there are.
    pub(super) told: String,
    /// How many pieces there are in all.
    pub(super) pieces: usize,
}

impl Image {
    /// Reads a process's memory; whoever can't has no business with saying that it is clean.
    pub(super) fn of(pid: u32) -> Self {
        let mut image = Self { mappings: Vec::new(), stretches: Vec::new() };
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps are readable");
        let memory = File::open(format!("/proc/{pid}/mem")).expect("memory is readable");
        let mut range = None;
        for line in smaps.lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                let Some((from, to, name)) = range.take() else { continue };
                let locked = flags.split_whitespace().any(|flag| flag == "lo");
                image.mappings.push(Mapping { name, locked });
                image.read(&memory, from, to);
            } else if let Some(found) = writable(line) {
                range = Some(found);
            }
        }
        let size: usize = image.stretches.iter().map(|stretch| stretch.bytes.len()).sum();
        assert!(size > 1 << 20, "{size} bytes are no server's memory");
        image
    }

    fn read(&mut self, memory: &File, from: u64, to: u64) {
        let mapping = self.mappings.len() - 1;
        let mut page = vec![0; PAGE];
        let mut last: Option<Stretch> = None;
        for address in (from..to).step_by(PAGE) {
            if let Err(error) = memory.read_exact_at(&mut page, address) {
                panic!("{address:x} of {}: {error}", self.mappings[mapping].name);
            }
            if page == [0; PAGE] {
                self.stretches.extend(last.take());
                continue;
            }
            let fresh = || Stretch { mapping, bytes: Vec::new() };
            last.get_or_insert_with(fresh).bytes.extend_from_slice(&page);
        }
        self.stretches.extend(last);
    }

    /// What of this is in the image.
    pub(super) fn search(&self, planted: &Planted) -> Vec<Found> {
        let pieces = Pieces::of(planted);
        let mut found: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
        for stretch in &self.stretches {
            let name = &self.mappings[stretch.mapping].name;
            pieces.each_in(&stretch.bytes, |number, form| {
                let told = found.entry(&planted.0[number].0).or_default();
                *told.entry(format!("{form} in {name}")).or_default() += 1;
            });
        }
        let of = |(what, told): (&str, BTreeMap<String, usize>)| Found {
            what: what.to_owned(),
            told: format!("{told:?}"),
            pieces: told.values().sum(),
        };
        found.into_iter().map(of).collect()
    }

    /// The mappings that are not locked against swap.
    pub(super) fn unlocked(&self) -> Vec<&str> {
        let unlocked = self.mappings.iter().filter(|mapping| !mapping.locked);
        unlocked.map(|mapping| &*mapping.name).collect()
    }
}

/// The pieces of one copy of so many bytes.
pub(super) fn pieces(length: usize) -> usize {
    (length - PIECE) / STEP + 1
}

/// The range and the name of a mapping, if this line of smaps is the head of a writable one.
fn writable(line: &str) -> Option<(u64, u64, String)> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).ok());
    let rights = words.next().filter(|rights| rights.starts_with("rw"))?;
    let name = words.nth(3).unwrap_or("anonymous");
    Some((from?, to?, format!("{name} ({rights})")))
}

/// Pieces of secrets, by their first half.
struct Pieces {
    /// Which halves there may be at all: most bytes are passed over by one look.
    sieve: Vec<bool>,
    by_head: HashMap<u64, Vec<Piece>>,
}

struct Piece {
    number: usize,
    form: &'static str,
    tail: [u8; PIECE / 2],
}

impl Pieces {
    fn of(planted: &Planted) -> Self {
        let mut pieces = Self { sieve: vec![false; 1 << 20], by_head: HashMap::new() };
        for (number, (_, secret)) in planted.0.iter().enumerate() {
            for (form, text) in forms(secret) {
                for piece in text.windows(PIECE).step_by(STEP) {
                    let (head, tail) = piece.split_at(PIECE / 2);
                    let head = u64::from_le_bytes(head.try_into().expect("half"));
                    let tail = tail.try_into().expect("half");
                    pieces.sieve[sieved(head)] = true;
                    let same = pieces.by_head.entry(head).or_default();
                    same.push(Piece { number, form, tail });
                }
            }
        }
        pieces
    }

    fn each_in(&self, bytes: &[u8], mut found: impl FnMut(usize, &'static str)) {
        let mut head = 0;
        for (end, byte) in bytes.iter().enumerate() {
            head = head >> 8 | u64::from(*byte) << 56;
            if !self.sieve[sieved(head)] {
                continue;
            }
            for piece in self.by_head.get(&head).into_iter().flatten() {
                if bytes[end + 1..].starts_with(&piece.tail) {
                    found(piece.number, piece.form);
                }
            }
        }
    }
}

fn sieved(head: u64) -> usize {
    usize::try_from(head.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44).expect("20 bits")
}

/// A secret as it stands, as a JSON string escapes it, in hexadecimal, and
/// in base64 at each of its three alignments (without the characters that depend on neighbours).
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = Vec::new();
    let long = secret.len() > 3 * PART;
    let middle = secret.len() / 2;
    let starts = if long { vec![0, middle, secret.len() - PART] } else { vec![0] };
    for start in starts {
        let part = if long { &secret[start..start + PART] } else { secret };
        forms.push(("raw", part.to_vec()));
        if let Ok(text) = std::str::from_utf8(part) {
            let json = serde_json::to_string(text).expect("JSON");
            let escaped = json.as_bytes()[1..json.len() - 1].to_vec();
            forms.extend((escaped != part).then_some(("JSON", escaped)));
        }
        forms.push(("hex", hex(part).into_bytes()));
        for skip in 0..3 {
            let whole = base64(&[&vec![0; skip], part].concat());
            let whole = whole.trim_end_matches('=');
            forms.push(("base64", whole.as_bytes()[4 * skip.min(1)..whole.len() - 2].to_vec()));
        }
    }
    forms
}

#[test]
fn the_search_finds_pieces_in_every_form() {
    let secret = (0..64).map(|n| char::from(33 + n)).collect::<String>();
    let mut planted = Planted::default();
    planted.add("sample", secret.as_bytes());
    let pieces = Pieces::of(&planted);
    let count = |bytes: &[u8]| {
        let mut count = 0;
        pieces.each_in(bytes, |_, _| count += 1);
        count
    };
    for (form, bytes) in forms(secret.as_bytes()) {
        assert!(count(&[b"before ", &*bytes, b" after"].concat()) >= 5, "{form}");
        assert!(count(&bytes[3..26]) >= 1, "{form}: 23 bytes in a row");
    }
    assert_eq!(count(&secret.as_bytes()[1..15]), 0);
}
