//! Checkpoints (c2sp.org/tlog-checkpoint): what the tree was at a moment, signed in the token.
//!
//! ```text
//! strongroom/<region>/<tree>
//! <records>
//! <root, base64>
//! time <RFC 3339>
//!
//! — strongroom/<region>/<tree> <signature>
//! ```
//!
//! A token that is slow to sign has keys sign for it, which it certifies (`delegate`).
//!
//! No request waits for one. While the token is away they lag; when it is back the next one covers
//! everything.

use super::Error;
use super::delegate;
use super::note::{Note, Signed, Verifier};
use super::signer::Signer;
use super::tiles;
use super::tree::{Head, Tree};
use crate::clock::Clock;
use crate::custody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// The file of the newest checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// The file with the key that checks it.
pub const PUBLIC_KEY: &str = "checkpoint.pub";
/// How often one is made, if there is anything new.
const PACE: Duration = Duration::from_secs(1);
/// How often the database gets to know what was signed for.
const NOTED: Duration = Duration::from_secs(60);

/// A checkpoint that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which tree.
    pub origin: String,
    /// Its size and root.
    pub head: Head,
    /// When it was signed, as the signer says (RFC 3339).
    pub time: Option<String>,
    /// The note that it stands in.
    pub note: Note,
}

impl Checkpoint {
    /// Reads a checkpoint; its signatures are not checked. `None` if it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let note = Note::parse(bytes)?;
        let mut lines = note.text.split_terminator('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty())?.to_owned();
        let number = lines.next()?;
        let size: u64 = number.parse().ok()?;
        let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let plain = size.to_string() == number;
        let time = lines.find_map(|line| line.strip_prefix("time ")).map(ToOwned::to_owned);
        plain.then_some(Self { origin, head: Head { size, root }, time, note })
    }

    /// Whether this key, or one that it has certified, has signed it, for the tree of its own name.
    pub fn is_by(&self, key: &Verifier) -> bool {
        self.origin == key.name()
            && match key.check(&self.note) {
                Signed::Good(_) => true,
                Signed::Bad => false,
                Signed::Absent => delegate::vouches(key, self),
            }
    }
}

/// The text that is signed.
fn text(origin: &str, head: Head, seconds: i64) -> String {
    let (root, time) = (STANDARD.encode(head.root), rfc3339(seconds));
    format!("{origin}\n{}\n{root}\ntime {time}\n", head.size)
}

/// A moment in seconds since the epoch, as `2026-01-31T12:00:00Z`.
pub(super) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// The last checkpoint in a tree's folder, which must be by this key.
///
/// # Errors
/// [`Error::Altered`] if it is not, [`Error::Io`].
pub(super) fn last(dir: &Path, key: &Verifier) -> Result<Option<Head>, Error> {
    let path = dir.join(CHECKPOINT);
    let Some(bytes) = tiles::read(&path)? else { return Ok(None) };
    let checkpoint = Checkpoint::parse(&bytes).filter(|checkpoint| checkpoint.is_by(key));
    let checkpoint = checkpoint.ok_or_else(|| {
        Error::altered(&path, "it is not a checkpoint that this appliance's token has signed")
    })?;
    Ok(Some(checkpoint.head))
}

/// Makes checkpoints of one tree.
pub(super) struct Notary {
    tree: Tree,
    signer: Signer,
    clock: Arc<dyn Clock>,
    /// How many records are signed for.
    signed: watch::Sender<u64>,
    /// Held while a checkpoint is made: one after the other. When the database last got to know of
    /// one.
    noted: tokio::sync::Mutex<Option<Instant>>,
}

impl Notary {
    /// Of a tree of which `signed` records are signed for.
    pub(super) fn new(tree: Tree, signer: Signer, clock: Arc<dyn Clock>, signed: u64) -> Self {
        let (signed, noted) = (watch::Sender::new(signed), tokio::sync::Mutex::default());
        Self { tree, signer, clock, signed, noted }
    }

    /// The tree's name.
    pub(super) fn name(&self) -> &str {
        self.signer.key().name()
    }

    /// How many records are signed for.
    pub(super) fn signed(&self) -> u64 {
        *self.signed.borrow()
    }

    /// The note of a statement.
    ///
    /// # Errors
    /// The token's.
    pub(super) async fn state(&self, statement: &str) -> Result<String, custody::Error> {
        self.signer.state(statement).await
    }

    /// Signs for what is in the tree, if that is more than before.
    ///
    /// # Errors
    /// The token's, the disk's or the database's.
    async fn sign(&self) -> Result<(), Error> {
        let mut noted = self.noted.lock().await;
        let Some(head) = self.signed_head(noted.is_some()).await? else { return Ok(()) };
        if noted.is_none_or(|last| last.elapsed() >= NOTED) {
            self.signer.note_head(head).await?;
            *noted = Some(Instant::now());
        }
        Ok(())
    }

    /// The same at the end of a process; the database gets to know of it.
    ///
    /// # Errors
    /// The token's, the disk's or the database's.
    pub(super) async fn sign_last(&self) -> Result<(), Error> {
        *self.noted.lock().await = None;
        self.sign().await
    }

    /// Signs for what is in the tree; not for what is signed for already, unless nobody `noted` it.
    async fn signed_head(&self, noted: bool) -> Result<Option<Head>, Error> {
        let tree = self.tree.clone();
        let edge = blocking(move || Ok(tree.edge())).await?;
        let size = edge.size();
        let signed = self.signed();
        if size == 0 || size < signed || size == signed && noted {
            return Ok(None);
        }
        let (tree, unfinished) = (self.tree.clone(), edge.clone());
        blocking(move || tree.write_unfinished(&unfinished)).await?;
        let key = self.signer.key();
        let head = Head { size, root: edge.root() };
        let now = self.clock.now().seconds();
        let note = self.signer.note(text(key.name(), head, now), now).await?;
        let path = self.tree.dir().join(CHECKPOINT);
        blocking(move || tiles::write(&path, note.as_bytes(), true)).await?;
        self.signed.send_replace(size);
        Ok(Some(head))
    }
}

/// Makes checkpoints at the pace that the token can sign.
pub(super) async fn keep_signing(notary: Arc<Notary>) {
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        match notary.sign().await {
            Ok(()) => {
                if std::mem::replace(&mut failing, false) {
                    tracing::info!(signed = notary.signed(), "checkpoints are made again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    let signed = notary.signed();
                    tracing::error!(%error, signed, "no checkpoint could be made; trying again");
                }
            }
        }
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::Signing { why: "a thread panicked".into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::merkle;

    #[test]
    fn a_checkpoint_reads_back() {
        let head = Head { size: 7, root: merkle::leaf(b"x") };
        let text = text("strongroom/eu-central-1/1", head, 1_767_225_600);
        let note = format!("{text}\n\u{2014} k AAAAAAAA\n");
        let read = Checkpoint::parse(note.as_bytes()).expect("a checkpoint");
        assert_eq!((read.head, read.origin.as_str()), (head, "strongroom/eu-central-1/1"));
        assert_eq!(read.time.as_deref(), Some("2026-01-01T00:00:00Z"));
        for wrong in [
            note.replace("\n7\n", "\n07\n"),
            note.replace("\n7\n", "\n-7\n"),
            note.replace("strongroom/eu-central-1/1\n7", "7"),
            note.replace("time", ""),
        ] {
            let read = Checkpoint::parse(wrong.as_bytes());
            assert!(read.is_none_or(|read| read.time.is_none()), "{wrong}");
        }
    }
}
