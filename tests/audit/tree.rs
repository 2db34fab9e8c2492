//! The tree through crashes, absences of the token, and tampering with a log that is in use.

use crate::appliance::{Appliance, Lots, files, until};
use crate::{Copy, audit, lines, recorded, requests, signed, until_signed};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

fn text(appliance: &Appliance, name: &str) -> String {
    fs::read_to_string(appliance.path(name)).expect("a file")
}

#[test]
fn killed_under_load_the_tree_goes_on_and_is_consistent_with_every_earlier_checkpoint() {
    let seed = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    println!("seed {seed}");
    let mut lots = Lots(seed);
    let mut appliance = Appliance::start();
    let key = text(&appliance, "audit/checkpoint.pub");
    let kept = tempfile::tempdir().expect("a folder");
    let mut checkpoints = Vec::new();
    for round in 0..6 {
        let count = usize::try_from(200 + lots.below(150)).expect("small");
        requests(&mut appliance.client(), count);
        std::thread::sleep(Duration::from_millis(lots.below(1500)));
        if let Ok(note) = fs::read(appliance.path("audit/checkpoint")) {
            let path = kept.path().join(round.to_string());
            fs::write(&path, note).expect("kept");
            checkpoints.push(path.display().to_string());
        }
        appliance.kill();
        appliance.resume();
    }
    until_signed(&appliance);
    appliance.stop();
    assert_eq!(text(&appliance, "audit/checkpoint.pub"), key, "the key stays");
    let copy = Copy::of(&appliance);
    assert!(checkpoints.len() > 2);
    let words: Vec<&str> = checkpoints.iter().flat_map(|path| ["--checkpoint", path]).collect();
    let (code, report) = copy.verify(&words);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["records"], lines(&appliance));
    assert_eq!(report["unvouched"], 0);
}

#[test]
fn requests_do_not_wait_for_a_token_that_is_away_and_checkpoints_catch_up() {
    let mut appliance = Appliance::start();
    let mut client = appliance.client();
    requests(&mut client, 5);
    until_signed(&appliance);
    let before = signed(&appliance);
    fs::rename(appliance.path("tokens"), appliance.path("away")).expect("moved");
    requests(&mut client, 300);
    std::thread::sleep(Duration::from_millis(2500));
    requests(&mut client, 5);
    assert_eq!(signed(&appliance), before, "nothing is signed");
    assert!(appliance.log().contains("no checkpoint could be made"), "{}", appliance.log());
    // What is there so far is good, and says how little is vouched for.
    let (code, report) = Copy::of(&appliance).verify(&[]);
    assert_eq!((code, &report["vouched"]), (0, &before.into()), "{report}");
    assert!(report["unvouched"].as_u64().expect("a number") >= 300, "{report}");
    fs::rename(appliance.path("away"), appliance.path("tokens")).expect("moved back");
    until_signed(&appliance);
    until("the good news", Duration::from_secs(5), || {
        appliance.log().contains("checkpoints are made again")
    });
    appliance.stop();
    assert_eq!(Copy::of(&appliance).verify(&[]).0, 0);
}

#[test]
fn a_log_that_was_tampered_with_is_not_served_on() {
    let mut appliance = Appliance::start();
    requests(&mut appliance.client(), 300);
    until_signed(&appliance);
    appliance.stop();
    let log = appliance.path("audit.jsonl");
    let whole = fs::read(&log).expect("a log");
    type Harm = fn(&mut Vec<u8>);
    let cases: [(&str, Harm); 3] = [
        ("not those that were signed", |bytes| {
            let at = bytes.len() - 100;
            bytes[at] ^= 1;
        }),
        ("are gone", |bytes| {
            bytes.pop();
            let end = bytes.iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
            bytes.truncate(end);
        }),
        ("shorter than it was", |bytes| bytes.truncate(100)),
    ];
    for (what, how) in cases {
        let mut changed = whole.clone();
        how(&mut changed);
        fs::write(&log, changed).expect("written");
        let said = appliance.refused();
        assert!(
            said.contains("the audit log was changed") && said.contains(what),
            "{what}: {said}"
        );
    }
    // Without its checkpoint too: the database knows what was signed.
    let note = text(&appliance, "audit/checkpoint");
    fs::remove_file(appliance.path("audit/checkpoint")).expect("removed");
    for (what, how) in cases {
        let mut changed = whole.clone();
        how(&mut changed);
        fs::write(&log, changed).expect("written");
        let said = appliance.refused();
        assert!(said.contains(what), "{what}: {said}");
    }
    fs::write(appliance.path("audit/checkpoint"), note).expect("put back");
    fs::write(&log, &whole).expect("put back");
    let note = text(&appliance, "audit/checkpoint");
    fs::write(appliance.path("audit/checkpoint"), note.replace("time 2", "time 1"))
        .expect("written");
    let said = appliance.refused();
    assert!(said.contains("not a checkpoint that this appliance"), "{said}");
    fs::write(appliance.path("audit/checkpoint"), note).expect("put back");
    appliance.resume();
    requests(&mut appliance.client(), 1);
    appliance.stop();
    assert_eq!(Copy::of(&appliance).verify(&[]).0, 0);
}

#[test]
fn a_record_that_is_changed_before_it_is_in_the_tree_stops_the_service() {
    let appliance = Appliance::start();
    let mut client = appliance.client();
    requests(&mut client, 3);
    until_signed(&appliance);
    // A hand that is quicker than the tree.
    let log = appliance.path("audit.jsonl");
    until("a refusal", Duration::from_secs(20), || {
        let reply = client.ask("kms:ListAliases", &json!({}));
        if reply.status != 200 {
            return true;
        }
        let mut bytes = fs::read(&log).expect("a log");
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(&log).expect("the log");
        file.write_all_at(&[bytes[at]], at as u64).expect("written");
        std::thread::sleep(Duration::from_millis(400));
        false
    });
    assert!(appliance.log().contains("was changed after it was written"), "{}", appliance.log());
    assert_eq!(client.look("/readyz").status, 503);
}

#[test]
fn a_log_that_was_put_away_goes_on_in_the_same_tree() {
    let mut appliance = Appliance::start();
    requests(&mut appliance.client(), 300);
    appliance.stop();
    let before = Copy::of(&appliance);
    let away = lines(&appliance);
    fs::rename(appliance.path("audit.jsonl"), appliance.path("old.jsonl")).expect("moved");
    appliance.resume();
    requests(&mut appliance.client(), 300);
    until("a checkpoint", Duration::from_secs(10), || {
        signed(&appliance) == away + lines(&appliance)
    });
    appliance.kill();
    appliance.resume();
    requests(&mut appliance.client(), 1);
    appliance.stop();
    let copy = Copy::of(&appliance);
    let (code, report) = copy.verify_with(&before.file("kept"));
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["records"], away + lines(&appliance));
    let (code, report) = Copy::of(&appliance).verify(&[]);
    assert_eq!((code, &report["unvouched"]), (0, &0.into()), "{report}");
}

#[test]
fn a_tree_that_is_gone_is_told_and_another_one_has_another_name() {
    let mut appliance = Appliance::start();
    requests(&mut appliance.client(), 3);
    appliance.stop();
    let before = Copy::of(&appliance);
    fs::remove_dir_all(appliance.path("audit")).expect("removed");
    fs::remove_file(appliance.path("audit.jsonl")).expect("removed");
    appliance.resume();
    assert!(appliance.log().contains("is gone"), "{}", appliance.log());
    requests(&mut appliance.client(), 10);
    until_signed(&appliance);
    appliance.stop();
    let after = Copy::of(&appliance);
    assert_eq!(after.verify(&[]).0, 0);
    // Who kept the key of the old one is not deceived.
    fs::copy(before.file("key"), after.file("key")).expect("copied");
    assert_eq!(after.verify_with(&before.file("kept")).0, 1);
}

#[test]
fn a_data_directory_of_before_the_tree_gets_one() {
    let mut appliance = Appliance::start();
    requests(&mut appliance.client(), 3);
    appliance.stop();
    fs::remove_dir_all(appliance.path("audit")).expect("removed");
    let database = appliance.database();
    database.execute("DELETE FROM meta WHERE name LIKE 'audit%'", []).expect("deleted");
    drop(database);
    let old = lines(&appliance);
    appliance.resume();
    requests(&mut appliance.client(), 10);
    until("a checkpoint", Duration::from_secs(10), || {
        signed(&appliance) > 0 && signed(&appliance) + old == lines(&appliance)
    });
    appliance.stop();
    let (code, report) = Copy::of(&appliance).verify(&[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["records"], lines(&appliance) - old, "what was there before is outside");
    // A tree that the database does not know is no tree of this appliance.
    let database = appliance.database();
    database.execute("DELETE FROM meta WHERE name LIKE 'audit%'", []).expect("deleted");
    drop(database);
    let said = appliance.refused();
    assert!(said.contains("the database knows no tree there"), "{said}");
}

#[test]
fn strangers_are_recorded_one_by_one_and_above_a_rate_summed_up() {
    let mut appliance = Appliance::start();
    let mut client = appliance.client();
    requests(&mut client, 1);
    let before = lines(&appliance);
    for _ in 0..3000 {
        assert_ne!(client.look("/").status, 200);
    }
    appliance.stop();
    let (records, _) = appliance.audit();
    let fresh = &records[usize::try_from(before).expect("small")..];
    let sums: Vec<&Value> =
        fresh.iter().filter(|record| record["eventName"] == "RefusedRequests").collect();
    let counted: u64 = sums
        .iter()
        .map(|sum| sum["additionalEventData"]["count"].as_u64().expect("a number"))
        .sum();
    let refused = fresh.iter().filter(|record| !record["errorCode"].is_null()).count();
    let own = refused - sums.len();
    assert!((1000..3000).contains(&own), "{own}");
    assert_eq!(own as u64 + counted, 3000, "each of them is accounted for");
    let sum = sums[0];
    assert_eq!(sum["additionalEventData"]["addresses"], 1);
    assert_eq!(sum["errorCode"], fresh[0]["errorCode"]);
    assert_eq!(Copy::of(&appliance).verify(&[]).0, 0);
}

#[test]
fn the_files_are_private_and_of_the_layout() {
    use std::os::unix::fs::PermissionsExt;
    let copy = recorded();
    let all = files(&copy.tree(""));
    for path in &all {
        let mode = fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    let there = |name: &str| all.contains(&copy.tree(name));
    assert!(there("checkpoint") && there("checkpoint.pub") && there("journal"));
    assert!(there("tile/0/000") && there("tile/0/001") && there("tile/entries/001"));
    assert_eq!(fs::metadata(copy.tree("tile/0/001")).expect("there").len(), 8192);
    let odd = all.iter().find(|path| path.display().to_string().ends_with(".new"));
    assert_eq!(odd, None, "nothing half-written");
    let (code, _) = audit(&["verify", "--key", "x"]);
    assert_eq!(code, 2);
}
