//! What a verification has to say.

use serde::Serialize;

/// Findings that are told one by one; of more there is a number alone.
const TOLD: usize = 50;

/// What a verification comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything that is vouched for is as it was recorded.
    Good,
    /// Something was changed, dropped, inserted or moved.
    Tampered,
    /// What is there is too little to tell.
    Unknown,
}

/// Something that is not as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The first record that it concerns, counted from 0; none if it concerns none.
    pub first: Option<u64>,
    /// The last one.
    pub last: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a witness says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witnessed {
    /// Its name.
    pub witness: String,
    /// Of how many records.
    pub records: u64,
    /// When, in seconds since the epoch.
    pub time: u64,
}

/// A verification.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The tree's name: the key's.
    pub origin: String,
    /// Records that are there.
    pub records: u64,
    /// Bytes at the start of the log file that are in no tree: of before there was one.
    pub outside: u64,
    /// The first so many of them are vouched for by the newest checkpoint that holds.
    pub vouched: u64,
    /// When that one was signed.
    pub time: Option<String>,
    /// Witnesses that have seen the tree.
    pub witnessed: Vec<Witnessed>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Findings that are not told one by one.
    pub more: u64,
    /// Why nothing can be told.
    pub doubts: Vec<String>,
}

impl Report {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        if !self.findings.is_empty() {
            Verdict::Tampered
        } else if !self.doubts.is_empty() || self.time.is_none() && self.vouched == 0 {
            Verdict::Unknown
        } else {
            Verdict::Good
        }
    }

    /// Notes that record `first`, or all up to `last`, is wrong.
    pub(super) fn found(&mut self, first: u64, last: u64, what: impl Into<String>) {
        self.note(Finding { first: Some(first), last: Some(last), what: what.into() });
    }

    /// Notes that something besides the records is wrong.
    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.note(Finding { first: None, last: None, what: what.into() });
    }

    fn note(&mut self, finding: Finding) {
        if self.findings.len() < TOLD {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}
