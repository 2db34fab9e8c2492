//! The days of last reads, gathered and written together once a second: `LastAccessedDate`.
//!
//! A date is no answer that anybody waits for: what a crash loses is written with the next read.

use crate::store::records::Records;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

/// Most reads that wait to be noted; more are noted with a later read.
const MOST: usize = 10_000;
/// How often they are written.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads that wait to be noted: secret's row and version id, with the day.
#[derive(Default)]
pub struct Accesses(Mutex<HashMap<(i64, String), i64>>);

impl Accesses {
    /// Notes a read.
    pub fn note(&self, uid: i64, version: &str, day: i64) {
        let mut waiting = self.0.lock();
        if waiting.len() < MOST {
            waiting.insert((uid, version.to_owned()), day);
        }
    }

    /// Writes what waits.
    pub async fn write(&self, records: &Records) {
        let waiting = std::mem::take(&mut *self.0.lock());
        if waiting.is_empty() {
            return;
        }
        let noted = records
            .write(move |rows| {
                waiting.iter().try_for_each(|((uid, id), day)| rows.note_access(*uid, id, *day))
            })
            .await;
        if let Err(error) = noted {
            tracing::debug!(%error, "the days of some reads are not noted");
        }
    }

    /// Writes what waits, once a second, for ever.
    pub async fn keep_writing(&self, records: &Records) {
        loop {
            tokio::time::sleep(PAUSE).await;
            self.write(records).await;
        }
    }
}
