//! The fault shim (`tests/shim`) from a test's side: it is built, told to fail, and asked what was
//! called.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Carries the table of return values, to which a test holds the driver's own.
const DOCUMENTATION: &str = include_str!("../../docs/hardware.md");

/// The module that it stands before.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The shim, built once a process.
pub(crate) fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shim/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .output()
            .expect("cargo");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        target.join("debug/libfaultshim.so")
    })
}

/// The table of return values: each action, and the values that lead to it.
pub(crate) fn rows() -> Vec<(&'static str, Vec<&'static str>)> {
    let table = DOCUMENTATION.lines().skip_while(|line| !line.starts_with("| action |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows
        .map(|line| {
            let cells: Vec<_> = line.trim_matches(['|', ' ']).split(" | ").collect();
            let values = cells[2].split(", ").map(|value| match value.trim_matches('`') {
                "CKR_VENDOR_DEFINED" => "0x80000001",
                "CKR_UNKNOWN_ERROR_CODE" => "0x7fffffff",
                name => name,
            });
            (cells[0], values.collect())
        })
        .collect();
    assert_eq!(rows.len(), 11, "the table of the documentation");
    rows
}

/// What a process needs in its environment so that the shim in it looks into `directory`.
pub(crate) fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
    vec![
        ("STRONGROOM_SHIM_DIRECTORY", directory.into()),
        ("STRONGROOM_SHIM_MODULE", SOFTHSM.into()),
    ]
}

/// The shim of one process.
pub(crate) struct Shim {
    directory: PathBuf,
    /// Bytes of the list of calls that have been looked at.
    seen: AtomicUsize,
}

/// How often each function was called, and how often a fault struck.
#[derive(Default)]
pub(crate) struct Calls(String);

impl Calls {
    pub(crate) fn extend(&mut self, more: Self) {
        self.0 += &more.0;
    }

    pub(crate) fn of(&self, function: &str) -> usize {
        self.0.lines().filter(|line| line.split(' ').next() == Some(function)).count()
    }

    pub(crate) fn struck(&self) -> usize {
        self.0.lines().filter(|line| line.ends_with(" *")).count()
    }
}

impl Shim {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), seen: AtomicUsize::new(0) }
    }

    /// From now on these faults and no others: `C_Sign 0 1 answer CKR_DEVICE_ERROR`.
    pub(crate) fn set<S: AsRef<str>>(&self, faults: impl IntoIterator<Item = S>) {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        // The same faults set again strike again.
        let mut text = format!("# {}\n", SERIAL.fetch_add(1, Ordering::Relaxed));
        for fault in faults {
            text += fault.as_ref();
            text.push('\n');
        }
        let new = self.directory.join("faults.new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.directory.join("faults")).expect("in place");
    }

    pub(crate) fn clear(&self) {
        self.set::<&str>([]);
    }

    /// The calls since the last time that this was asked.
    pub(crate) fn calls(&self) -> Calls {
        let text = std::fs::read_to_string(self.directory.join("calls")).unwrap_or_default();
        let seen = self.seen.swap(text.len(), Ordering::Relaxed);
        Calls(text.get(seen..).unwrap_or_default().to_owned())
    }
}
