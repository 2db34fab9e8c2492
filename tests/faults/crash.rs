//! SIGKILL at any moment under load: what was acknowledged is there, what was not is there wholly
//! or not at all, and the audit log says the same.

use crate::appliance::{Appliance, Lots};
use crate::load::Worker;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const KILLS: usize = 60;
const WORKERS: usize = 6;

#[test]
fn killed_sixty_times_under_load_it_loses_and_halves_nothing() {
    let seed = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    println!("seed {seed}");
    let mut lots = Lots(seed);
    let mut appliance = Appliance::start();
    let mut workers: Vec<_> =
        (0..WORKERS).map(|n| Worker::new(n, &appliance, Lots(lots.draw()))).collect();
    let mut trail = Trail::default();
    let mut changes = 0;
    for round in 0..KILLS {
        let alive = Duration::from_millis(5 + lots.below(150));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| worker.work(&stop));
            }
            std::thread::sleep(alive);
            appliance.kill();
        });
        assert!(workers.iter().all(|w| w.broke.is_some()), "round {round}");
        changes += workers.iter().map(|w| w.acknowledged.len()).sum::<usize>();
        appliance.resume();
        trail.read(&appliance);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| worker.check(&appliance, &trail.successes, true));
            }
        });
    }
    println!("{changes} acknowledged requests");
    assert!(changes > KILLS * WORKERS, "the load was none: {changes}");
    trail.read(&appliance);
    assert!(trail.torn <= KILLS, "{} torn lines", trail.torn);
    keys_are_whole(&mut appliance, workers.iter().flat_map(|w| &w.keys));
}

/// The audit log, as far as it has been read.
#[derive(Default)]
pub(crate) struct Trail {
    seen: usize,
    events: HashSet<String>,
    /// Records without an error, by `User-Agent`.
    pub(crate) successes: HashMap<String, usize>,
    /// Lines that are no records.
    pub(crate) torn: usize,
}

impl Trail {
    pub(crate) fn read(&mut self, appliance: &Appliance) {
        let (records, torn) = appliance.audit();
        for record in &records[self.seen..] {
            let event = record["eventID"].as_str().expect("an event id").to_owned();
            assert!(self.events.insert(event), "twice in the log: {record}");
            if record["errorCode"].is_null() {
                let agent = record["userAgent"].as_str().expect("a user agent");
                *self.successes.entry(agent.to_owned()).or_default() += 1;
            }
        }
        (self.seen, self.torn) = (records.len(), torn);
    }
}

/// Every acknowledged key works; the token holds no key besides those of rows, the store's own and
/// those that a standing intent will clear away.
pub(crate) fn keys_are_whole<'a>(
    appliance: &mut Appliance,
    keys: impl IntoIterator<Item = &'a String>,
) {
    let mut client = appliance.client();
    for id in keys {
        let input = json!({"KeyId": id, "Plaintext": "AAAA"});
        let sealed = client.ask("kms:Encrypt", &input).member("CiphertextBlob");
        assert!(!sealed.is_empty());
    }
    appliance.stop();
    let database = appliance.database();
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
    let mut statement = database.prepare("SELECT doc FROM kms_key").expect("keys");
    let documents = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("keys");
    let named = documents
        .map(|doc| {
            let doc: Value = serde_json::from_slice(&doc.expect("a row")).expect("JSON");
            doc["backing"].as_array().expect("backing keys").len()
        })
        .sum::<usize>();
    let named = i64::try_from(named).expect("few");
    let there = i64::try_from(appliance.token_objects().len()).expect("few");
    let intents = count("SELECT count(*) FROM intent");
    println!("{there} keys in the token, {named} named, {intents} intents");
    assert!(there > named, "a key without its material");
    assert!(there <= named + 1 + intents, "material that nothing names");
    let orphans = "SELECT count(*) FROM version WHERE secret NOT IN (SELECT uid FROM secret)";
    assert_eq!(count(orphans), 0, "versions without a secret");
    let sound: String =
        database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(sound, "ok");
}
