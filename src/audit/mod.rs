//! Proof of what was done: one JSON record per request, in CloudTrail's field names, in the log
//! before the answer leaves.
//!
//! A change's record commits in the same transaction as the change and is moved to the log from
//! there ([`outbox`]); every other record is appended before the answer and on disk within 100 ms,
//! or before the answer too with `sync = "always"`. No record, no answer.
//!
//! The log is kept as a Merkle tree ([`tree`]) with checkpoints that a key in the token signs
//! ([`checkpoint`]), so that what was changed, dropped or moved in it shows. docs/audit.md has the
//! formats.

pub mod checkpoint;
mod delegate;
mod fit;
mod follow;
mod gather;
pub mod index;
pub mod log;
pub mod merkle;
pub mod note;
mod options;
pub mod outbox;
pub mod proof;
pub mod reader;
mod record;
mod recorder;
mod signer;
pub mod sink;
pub mod statement;
mod strangers;
pub mod tiles;
pub mod tree;
pub mod verify;

pub use follow::{Follower, NOTE, Position};
pub use options::Options;
pub use record::{OWN_SOURCE, Record, Source, Tls, with_details};
pub use recorder::{Parts, Recorder, Status};

use std::path::Path;

/// What can go wrong with the log. Each of them means that the request gets no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The log can't be written.
    #[error("the audit log `{path}` can't be written: {why}")]
    Io {
        /// Which file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// Records of changes pile up in the database because the log does not take them.
    #[error("too many audit records wait in the database for the audit log")]
    Behind,
    /// Records pile up in the log because the tree does not take them.
    #[error("too many audit records wait in the audit log for its tree")]
    Unsealed,
    /// A record that no tree takes.
    #[error("an audit record of more than 65535 bytes")]
    TooLong,
    /// The log, or what belongs to it, is not what the server made of it.
    #[error("the audit log was changed: `{path}`: {why}; see `strongroom audit verify`")]
    Altered {
        /// Which file.
        path: String,
        /// In which way.
        why: String,
    },
    /// A part of the tree is not there.
    #[error("the audit log's tree lacks {what}; see `strongroom audit verify`")]
    Missing {
        /// Which part.
        what: String,
    },
    /// No signature for a checkpoint.
    #[error("the audit log's tree can't be signed for: {why}")]
    Signing {
        /// Why not.
        why: String,
    },
    /// A sink that must take every record does not.
    #[error("the audit sink `{name}` fails: {why}")]
    Sink {
        /// Which one.
        name: String,
        /// In which way.
        why: String,
    },
}

impl Error {
    fn io(path: &Path, why: &std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), why: why.to_string() }
    }

    fn altered(path: &Path, why: &str) -> Self {
        Self::Altered { path: path.display().to_string(), why: why.to_owned() }
    }

    fn database(why: &crate::store::Error) -> Self {
        Self::Io { path: "the database".into(), why: why.to_string() }
    }

    fn signing(why: &str) -> Self {
        Self::Signing { why: why.to_owned() }
    }
}
