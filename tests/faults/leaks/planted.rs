//! What is looked for, in every form in which it might have been written.

use crate::client::{base64, hex};
use std::collections::{BTreeSet, HashMap};

/// By how many bytes a form is recognized at first.
const HEAD: usize = 8;

/// What must be found nowhere, and what it is.
#[derive(Default)]
pub(super) struct Planted(Vec<(String, Vec<u8>)>);

impl Planted {
    /// A new text of a kind that cannot be there by chance.
    pub(super) fn plant(&mut self, what: &str) -> String {
        let text = format!("planted-{}-{}-{}", self.0.len(), what, "q8Zt".repeat(5));
        self.0.push((what.to_owned(), text.clone().into_bytes()));
        text
    }

    pub(super) fn add(&mut self, what: &str, bytes: Vec<u8>) {
        assert!(bytes.len() >= 16, "{what} is too short to be looked for");
        self.0.push((what.to_owned(), bytes));
    }

    /// Which of them are in these bytes, in which form. Goes through the bytes once, however many
    /// are looked for: a log at trace level is long.
    pub(super) fn found(&self, bytes: &[u8]) -> Vec<String> {
        let mut beginnings: HashMap<[u8; HEAD], Vec<(String, Vec<u8>)>> = HashMap::new();
        let mut firsts = [false; 256];
        for (what, secret) in &self.0 {
            for (form, text) in forms(secret) {
                firsts[usize::from(text[0])] = true;
                let head = *text.first_chunk().expect("long enough");
                beginnings.entry(head).or_default().push((format!("{what} ({form})"), text));
            }
        }
        let mut found = BTreeSet::new();
        for (at, window) in bytes.windows(HEAD).enumerate() {
            let head = window.first_chunk().filter(|_| firsts[usize::from(window[0])]);
            for (name, text) in head.and_then(|head| beginnings.get(head)).into_iter().flatten() {
                if bytes[at..].starts_with(text) {
                    found.insert(name.clone());
                }
            }
        }
        found.into_iter().collect()
    }
}

/// A value as it stands, in hexadecimal, and in base64 at each of its three alignments (without
/// the characters that depend on the neighbours).
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let lower = hex(secret);
    let mut forms = vec![
        ("raw", secret.to_vec()),
        ("hex", lower.to_uppercase().into_bytes()),
        ("hex", lower.into_bytes()),
    ];
    let digits: Vec<String> = secret.iter().map(u8::to_string).collect();
    forms.push(("a list of numbers", digits.join(", ").into_bytes()));
    for skip in 0..3 {
        let whole = base64(&[&vec![0; skip], secret].concat());
        let whole = whole.trim_end_matches('=');
        forms.push(("base64", whole.as_bytes()[4 * skip.min(1)..whole.len() - 2].to_vec()));
    }
    forms
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let mut planted = Planted::default();
    let text = planted.plant("sample");
    let around = |inner: &[u8]| [b"before ", inner, b" after"].concat();
    for (form, bytes) in forms(text.as_bytes()) {
        assert_eq!(planted.found(&around(&bytes)).len(), 1, "{form}");
    }
    for skip in 0..4 {
        let whole = base64(format!("{}{text} and more", "x".repeat(skip)).as_bytes());
        assert_eq!(planted.found(whole.as_bytes()).len(), 1, "base64 at {skip}");
    }
    assert!(planted.found(b"nothing").is_empty());
}
