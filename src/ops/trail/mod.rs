//! What was done: events of the audit log looked up as with CloudTrail, and what decided them.

mod changes;
pub mod explain;
pub mod explanation;
mod holders;
pub mod lookup;
mod proposal;
mod recorded;
mod rehearsal;
pub mod replay;
pub mod replayed;

use super::call::Call;
use super::error::{Condition, Error, Result};
use crate::audit::index::{self, Index};

/// Asks the look-up index, on a thread that may block.
async fn search<T: Send + 'static>(
    call: &Call,
    ask: impl FnOnce(&Index) -> Result<T> + Send + 'static,
) -> Result<T> {
    let Some(index) = call.index.clone() else {
        let text = "look-ups in the audit log are switched off here (`lookup` of `[audit]`)";
        return Err(Error::new(Condition::Unsupported, text));
    };
    let asked = tokio::task::spawn_blocking(move || ask(&index)).await;
    asked.unwrap_or_else(|_| Err(Error::internal("a thread that looked something up panicked")))
}

impl From<index::Error> for Error {
    fn from(error: index::Error) -> Self {
        Self::new(Condition::Unavailable, "the audit log's look-up index is not available")
            .logged(error.to_string())
    }
}
