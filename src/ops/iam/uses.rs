//! When access keys were last used, gathered and written together with the days of reads.
//!
//! A use is no answer that anybody waits for, and AWS tells it to the quarter of an hour: it is noted
//! once a minute for a key and service.

use crate::clock::Time;
use crate::name::Service;
use crate::store::records::Records;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::time::Duration;

/// Access keys whose last noted use is remembered; others are noted anew.
const KNOWN: usize = 4096;
/// Most keys whose use waits to be written.
const MOST: usize = 10_000;
/// Milliseconds for which a noted use is good enough.
const GRAIN: i64 = 60_000;
/// How often they are written.
const PAUSE: Duration = Duration::from_secs(60);

/// Uses that wait to be written, and what was noted last.
pub struct Uses {
    noted: Cache<String, (Time, Service)>,
    waiting: Mutex<HashMap<String, (Time, Service)>>,
}

impl Default for Uses {
    fn default() -> Self {
        Self { noted: Cache::new(KNOWN), waiting: Mutex::default() }
    }
}

impl Uses {
    /// Notes a use.
    pub fn note(&self, access_key_id: &str, now: Time, service: Service) {
        let known = self.noted.get(access_key_id);
        if known.is_some_and(|(at, what)| what == service && now.0 - at.0 < GRAIN) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() < MOST {
            waiting.insert(access_key_id.to_owned(), (now, service));
            self.noted.insert(access_key_id.to_owned(), (now, service));
        }
    }

    /// The use of a key that is not written yet.
    pub(super) fn waiting(&self, access_key_id: &str) -> Option<(Time, Service)> {
        self.waiting.lock().get(access_key_id).copied()
    }

    /// Writes what waits, once a minute, for ever.
    pub async fn keep_writing(&self, records: &Records) {
        loop {
            tokio::time::sleep(PAUSE).await;
            self.write(records).await;
        }
    }

    /// Writes what waits.
    pub async fn write(&self, records: &Records) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        if waiting.is_empty() {
            return;
        }
        let noted = records
            .write(move |rows| {
                waiting
                    .iter()
                    .try_for_each(|(id, (at, what))| rows.note_use(id, *at, what.prefix()))
            })
            .await;
        if let Err(error) = noted {
            tracing::debug!(%error, "the last uses of some access keys are not noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_noted_once_a_minute_for_a_service() {
        let uses = Uses::default();
        let waiting = || uses.waiting("AKIA").map(|(at, what)| (at.0, what));
        uses.note("AKIA", Time(0), Service::Kms);
        uses.note("AKIA", Time(59_999), Service::Kms);
        assert_eq!(waiting(), Some((0, Service::Kms)));
        uses.note("AKIA", Time(60_000), Service::Kms);
        assert_eq!(waiting(), Some((60_000, Service::Kms)));
        uses.note("AKIA", Time(60_001), Service::Iam);
        assert_eq!(waiting(), Some((60_001, Service::Iam)));
    }
}
