//! The tamper-evident log, from outside: the real program over a real SoftHSM token keeps it, and
//! `strongroom audit verify` looks at copies that were tampered with in every way.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]
#![expect(clippy::print_stdout, reason = "shown with a failure")]
#![expect(clippy::disallowed_methods, reason = "tests wait and draw lots as they like")]

#[expect(dead_code, reason = "the fault tests use more of it")]
#[path = "faults/appliance.rs"]
mod appliance;
#[path = "audit/sinks.rs"]
mod sinks;
#[path = "audit/slow.rs"]
mod slow;
#[path = "audit/tamper.rs"]
mod tamper;
#[path = "audit/tls.rs"]
mod tls;
#[path = "audit/tree.rs"]
mod tree;

#[expect(dead_code, reason = "the fault tests use more of it")]
#[path = "faults/client.rs"]
mod client;

use appliance::{Appliance, PROGRAM, copy};
use client::Client;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A copy of a log, and the key that was kept elsewhere.
pub(crate) struct Copy {
    folder: TempDir,
}

impl Copy {
    /// Of what an appliance has.
    pub(crate) fn of(appliance: &Appliance) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("data")).expect("a folder");
        for what in ["audit", "audit.jsonl"] {
            copy(&appliance.path(what), &folder.path().join("data").join(what));
        }
        copy(&appliance.path("audit/checkpoint.pub"), &folder.path().join("key"));
        copy(&appliance.path("audit/checkpoint"), &folder.path().join("kept"));
        Self { folder }
    }

    /// Another one of the same.
    pub(crate) fn again(&self) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for what in ["data", "key", "kept"] {
            copy(&self.folder.path().join(what), &folder.path().join(what));
        }
        Self { folder }
    }

    /// A file of the tree's.
    pub(crate) fn tree(&self, name: &str) -> PathBuf {
        self.folder.path().join("data/audit").join(name)
    }

    /// The log file.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("data/audit.jsonl")
    }

    /// A file beside the copied data.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `strongroom audit verify` says: its exit code and its JSON.
    pub(crate) fn verify(&self, more: &[&str]) -> (i32, Value) {
        let key = self.file("key").display().to_string();
        let data = self.file("data").display().to_string();
        let mut words = vec!["verify", "--json", "--dir", &data, "--key", &key];
        words.extend(more);
        let (code, out) = audit(&words);
        (code, serde_json::from_str(&out).unwrap_or_default())
    }

    /// The same with a checkpoint that was kept elsewhere.
    pub(crate) fn verify_with(&self, checkpoint: &Path) -> (i32, Value) {
        self.verify(&["--checkpoint", &checkpoint.display().to_string()])
    }
}

/// `strongroom audit ...`: its exit code and what it prints. No server, token or PIN is near.
pub(crate) fn audit(words: &[&str]) -> (i32, String) {
    let ran = Command::new(PROGRAM).arg("audit").args(words).env_clear().output().expect("ran");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!said.contains("panicked"), "{said}");
    (ran.status.code().expect("an exit code"), String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// So many requests that each leave one record.
pub(crate) fn requests(client: &mut Client, count: usize) {
    for _ in 0..count {
        let reply = client.ask("kms:ListKeys", &json!({}));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

/// How many records a checkpoint vouches for.
pub(crate) fn signed(appliance: &Appliance) -> u64 {
    let note = std::fs::read_to_string(appliance.path("audit/checkpoint")).unwrap_or_default();
    note.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
}

/// Lines of the log file.
pub(crate) fn lines(appliance: &Appliance) -> u64 {
    let log = std::fs::read(appliance.path("audit.jsonl")).expect("a log");
    log.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Waits until a checkpoint vouches for the whole log.
pub(crate) fn until_signed(appliance: &Appliance) {
    appliance::until("a checkpoint", Duration::from_secs(10), || {
        signed(appliance) == lines(appliance)
    });
}

/// A stopped appliance with a log of some bundles, made once for all tests.
pub(crate) fn recorded() -> &'static Copy {
    static RECORDED: std::sync::OnceLock<Copy> = std::sync::OnceLock::new();
    RECORDED.get_or_init(|| {
        let mut appliance = Appliance::start();
        requests(&mut appliance.client(), 600);
        until_signed(&appliance);
        appliance.stop();
        Copy::of(&appliance)
    })
}
