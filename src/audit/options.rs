//! The audit log's settings.

use super::log::Sync;
use super::sink;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The audit log, as written in the configuration.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The log file: the journal of the tree.
    pub path: PathBuf,
    /// The folder of the tree.
    pub dir: PathBuf,
    /// `interval`: reads are on disk within 100 ms; `always`: before the answer.
    pub sync: Sync,
    /// Whether an index is kept for `LookupEvents` and `strongroom policy`.
    pub lookup: bool,
    /// Where else records go.
    pub sink: Vec<sink::Options>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: "audit.jsonl".into(),
            dir: "audit".into(),
            sync: Sync::default(),
            lookup: true,
            sink: Vec::new(),
        }
    }
}

impl Options {
    /// Makes paths count from `base`.
    pub fn resolve(&mut self, base: &Path) {
        let files = self.sink.iter_mut().filter_map(|sink| sink.ca.as_mut());
        for path in [&mut self.path, &mut self.dir].into_iter().chain(files) {
            *path = base.join(&*path);
        }
    }
}
