//! Every way of tampering with a copied log, and what the verification says of it.

use crate::appliance::{Lots, files};
use crate::{Copy, audit, recorded};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs;
use std::path::Path;
use strongroom::audit::merkle::{Edge, leaf};
use strongroom::audit::note::Verifier;
use strongroom::audit::tiles;
use strongroom::audit::verify::{Question, Verdict};
use strongroom::name::SigningScheme;

fn records(bundle: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(bundle).expect("a bundle");
    tiles::entries(&bytes).0.into_iter().map(<[u8]>::to_vec).collect()
}

fn put(bundle: &Path, records: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| tiles::push_entry(&mut bytes, record).expect("short"));
    fs::write(bundle, bytes).expect("written");
}

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    how(&mut bytes);
    fs::write(path, bytes).expect("written");
}

fn change_lines(copy: &Copy, how: impl FnOnce(&mut Vec<Vec<u8>>)) {
    change(&copy.log(), |bytes| {
        let text = bytes.strip_suffix(b"\n").expect("lines");
        let mut lines: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        how(&mut lines);
        *bytes = lines.join(&b'\n');
        bytes.push(b'\n');
    });
}

/// What is found on a copy that `how` was done to.
fn found(what: &str, how: impl FnOnce(&Copy)) -> Value {
    let copy = recorded().again();
    how(&copy);
    let (code, report) = copy.verify(&[]);
    assert_eq!((code, &report["verdict"]), (1, &"tampered".into()), "{what}: {report}");
    report
}

/// The records that are named in findings.
fn named(report: &Value) -> Vec<(u64, u64)> {
    let findings = report["findings"].as_array().expect("findings");
    let spans = findings.iter().filter_map(|f| Some((f["first"].as_u64()?, f["last"].as_u64()?)));
    spans.collect()
}

#[test]
fn a_log_that_was_left_alone_is_good_and_vouched_for_to_its_end() {
    let (code, report) = recorded().verify(&[]);
    assert_eq!(code, 0, "{report}");
    assert!(report["records"].as_u64().expect("a number") > 600);
    assert_eq!(report["vouched"], report["records"]);
    assert_eq!(report["unvouched"], 0);
    assert!(report["origin"].as_str().expect("a name").starts_with("strongroom/us-east-1/"));
    assert!(report["time"].as_str().expect("a time").ends_with('Z'));
    // The tree alone, without the log file, says the same: it was written out at the stop.
    let copy = recorded().again();
    fs::remove_file(copy.log()).expect("removed");
    assert_eq!(copy.verify(&[]).1, report);
    // For people.
    let (key, data) = (copy.file("key"), copy.file("data"));
    let words =
        ["verify", "--dir", &data.display().to_string(), "--key", &key.display().to_string()];
    let (code, text) = audit(&words);
    assert!(code == 0 && text.contains("not vouched for 0"), "{text}");
}

#[test]
fn a_changed_record_is_named() {
    for at in [0, 7, 255] {
        let report = found("a byte of a record", |copy| {
            let bundle = copy.tree("tile/entries/001");
            let mut all = records(&bundle);
            let middle = all[at].len() / 2;
            all[at][middle] ^= 1;
            put(&bundle, &all);
        });
        let index = 256 + at as u64;
        assert!(named(&report).contains(&(index, index)), "{report}");
    }
    let report = found("a name in a record, of another length", |copy| {
        let bundle = copy.tree("tile/entries/000");
        let mut all = records(&bundle);
        let text = String::from_utf8(all[100].clone()).expect("text");
        all[100] = text.replace("ListKeys", "Nothing").into_bytes();
        assert_ne!(all[100], text.as_bytes());
        put(&bundle, &all);
    });
    assert!(named(&report).contains(&(100, 100)), "{report}");
}

#[test]
fn dropped_swapped_inserted_and_cut_records_are_named() {
    let bundle = "tile/entries/001";
    let report = found("a dropped record", |copy| {
        let mut all = records(&copy.tree(bundle));
        all.remove(44);
        put(&copy.tree(bundle), &all);
    });
    assert_eq!(named(&report)[0], (300, 300), "{report}");
    let report = found("two swapped records", |copy| {
        let mut all = records(&copy.tree(bundle));
        all.swap(10, 20);
        put(&copy.tree(bundle), &all);
    });
    let swapped = named(&report);
    assert!(swapped.contains(&(266, 266)) && swapped.contains(&(276, 276)), "{report}");
    let report = found("an inserted record", |copy| {
        let mut all = records(&copy.tree(bundle));
        let again = all[3].clone();
        all.insert(4, again);
        put(&copy.tree(bundle), &all);
    });
    assert_eq!(named(&report)[0], (260, 260), "{report}");
    let report = found("one put in the place of another", |copy| {
        let mut all = records(&copy.tree(bundle));
        all[5] = all[4].clone();
        put(&copy.tree(bundle), &all);
    });
    assert!(named(&report).contains(&(261, 261)), "{report}");
    let report = found("a cut bundle", |copy| {
        change(&copy.tree(bundle), |bytes| bytes.truncate(bytes.len() - 1));
    });
    assert!(named(&report).contains(&(256, 511)), "{report}");
    let report = found("a length that is another", |copy| {
        change(&copy.tree(bundle), |bytes| bytes[0] ^= 1);
    });
    assert!(named(&report).contains(&(256, 511)), "{report}");
    let report = found("a bundle that is gone", |copy| {
        fs::remove_file(copy.tree(bundle)).expect("removed");
    });
    assert!(named(&report).contains(&(256, 511)), "{report}");
    let report = found("a bundle that is gone with its tile", |copy| {
        fs::remove_file(copy.tree(bundle)).expect("removed");
        fs::remove_file(copy.tree("tile/0/001")).expect("removed");
        fs::remove_file(copy.log()).expect("removed");
    });
    assert_eq!(named(&report)[0].0, 256, "{report}");
}

#[test]
fn tiles_and_checkpoints_are_watched_too() {
    for tile in ["tile/0/000", "tile/0/001"] {
        found("a flipped tile", |copy| change(&copy.tree(tile), |bytes| bytes[40] ^= 1));
        found("a missing tile", |copy| fs::remove_file(copy.tree(tile)).expect("removed"));
    }
    found("an unfinished tile", |copy| {
        let partial = files(&copy.tree("tile/1")).pop().expect("one");
        change(&partial, |bytes| bytes[0] ^= 1);
    });
    found("another size", |copy| {
        change(&copy.tree("checkpoint"), |bytes| {
            let text = String::from_utf8(bytes.clone()).expect("text");
            let size = text.lines().nth(1).expect("a size").to_owned();
            *bytes = text.replacen(&size, "5", 1).into_bytes();
        });
    });
    for at in [3, 40, 90, 200] {
        found("a flipped checkpoint", |copy| {
            change(&copy.tree("checkpoint"), |bytes| {
                let at = at.min(bytes.len() - 3);
                bytes[at] ^= 1;
            });
        });
    }
    let copy = recorded().again();
    fs::remove_file(copy.tree("checkpoint")).expect("removed");
    assert_eq!(copy.verify(&[]).0, 2, "nothing vouches for anything");
    assert_eq!(copy.verify_with(&copy.file("kept")).0, 0, "but for what was kept elsewhere");
}

#[test]
fn the_log_file_is_compared_with_the_tree() {
    let report = found("a changed line", |copy| change_lines(copy, |lines| lines[77][30] ^= 1));
    assert_eq!(named(&report), [(77, 77)]);
    let report = found("a dropped line", |copy| {
        change_lines(copy, |lines| drop(lines.remove(300)));
    });
    assert_eq!(named(&report)[0], (300, 300));
    let report = found("swapped lines", |copy| change_lines(copy, |lines| lines.swap(5, 6)));
    assert_eq!(named(&report), [(5, 5), (6, 6)]);
    let report = found("an inserted line", |copy| {
        change_lines(copy, |lines| lines.insert(9, b"{\"eventName\":\"Nothing\"}".to_vec()));
    });
    assert_eq!(named(&report)[0], (9, 9));
    found("a cut log file", |copy| change_lines(copy, |lines| lines.truncate(400)));
    found("no way from log file to tree", |copy| {
        fs::remove_file(copy.tree("journal")).expect("removed");
    });
}

/// Sets numbers in the file that joins log file and tree.
fn set_journal(copy: &Copy, numbers: &[(&str, u64)]) {
    let path = copy.tree("journal");
    let mut journal: Value =
        serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    for (name, number) in numbers {
        assert!(journal[*name].is_u64());
        journal[*name] = (*number).into();
    }
    fs::write(&path, journal.to_string()).expect("written");
}

#[test]
fn a_journal_that_was_changed_hides_no_line_of_the_log_file() {
    let (_, good) = recorded().verify(&[]);
    let all = good["records"].as_u64().expect("a number");
    let whole = fs::metadata(recorded().log()).expect("a log").len();
    assert_eq!(good["outside"], 0);
    for (index, offset) in [(1 << 40, 0), (all + 1, 0), (all, whole), (7, 7)] {
        found("a changed line that the journal leads away from", |copy| {
            change_lines(copy, |lines| lines[77][30] ^= 1);
            set_journal(copy, &[("first_index", index), ("first_offset", offset)]);
        });
    }
    // The log file may begin with lines that are of before the tree: they are told apart.
    let copy = recorded().again();
    change_lines(&copy, |lines| lines.insert(0, b"{\"eventName\":\"Nothing\"}".to_vec()));
    set_journal(&copy, &[("first_offset", 24)]);
    let (code, report) = copy.verify(&[]);
    assert_eq!((code, &report["outside"]), (0, &24.into()), "{report}");
    assert_eq!(report["records"], all);
    let report = found("a line that no record is as long as", |copy| {
        change_lines(copy, |lines| lines.push(vec![b' '; 70_000]));
    });
    assert_eq!(named(&report), [(all, all)]);
}

#[test]
fn every_bundle_and_tile_is_looked_at_also_where_the_journal_says_that_it_may_be_missing() {
    let missing = |copy: &Copy| {
        fs::remove_file(copy.tree("tile/entries/000")).expect("removed");
        set_journal(copy, &[("index", 0), ("offset", 0)]);
    };
    // As in the copy of a running appliance.
    let copy = recorded().again();
    missing(&copy);
    assert_eq!(copy.verify(&[]), recorded().verify(&[]));
    let report = found("a record behind a bundle that is not there", |copy| {
        missing(copy);
        fs::remove_file(copy.tree("tile/0/000")).expect("removed");
        let bundle = copy.tree("tile/entries/001");
        let mut all = records(&bundle);
        all[5][30] ^= 1;
        put(&bundle, &all);
    });
    assert!(named(&report).contains(&(261, 261)), "{report}");
    found("a tile that does not agree with the log file", |copy| {
        missing(copy);
        change(&copy.tree("tile/0/000"), |bytes| bytes[0] ^= 1);
    });
    found("a tile that is too long", |copy| {
        set_journal(copy, &[("index", 0), ("offset", 0)]);
        change(&copy.tree("tile/0/000"), |bytes| bytes.push(0));
    });
    for (flip, code) in [(0, 0), (1, 1)] {
        let copy = recorded().again();
        let partial = files(&copy.tree("tile/entries/002.p")).pop().expect("one");
        let mut first = records(&partial)[..1].to_vec();
        first[0][30] ^= flip;
        put(&copy.tree("tile/entries/002.p/1"), &first);
        assert_eq!(copy.verify(&[]).0, code, "a shorter version of an unfinished bundle");
    }
}

/// Writes a tree anew over these records, as somebody does who wants to hide a change.
fn rewrite(copy: &Copy, all: &[Vec<u8>]) -> Edge {
    fs::remove_dir_all(copy.tree("tile")).expect("removed");
    let (mut edge, mut tree) = (Edge::default(), Vec::new());
    for record in all {
        edge.push(leaf(record), |tile| {
            tree.push((
                tiles::tile(tile.level, tile.index, None),
                tiles::encode_tile(&tile.hashes),
            ));
        });
    }
    for (n, records) in all.chunks(256).enumerate() {
        let width = Some(records.len()).filter(|width| *width < 256);
        let mut bytes = Vec::new();
        records.iter().for_each(|record| tiles::push_entry(&mut bytes, record).expect("short"));
        tree.push((tiles::bundle(n as u64, width), bytes));
    }
    for (path, bytes) in tree {
        let path = copy.tree(&path.display().to_string());
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    let mut lines = all.join(&b'\n');
    lines.push(b'\n');
    fs::write(copy.log(), lines).expect("written");
    edge
}

fn all_records(copy: &Copy) -> Vec<Vec<u8>> {
    let text = fs::read(copy.log()).expect("a log");
    let text = text.strip_suffix(b"\n").expect("lines");
    text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn a_log_that_was_written_anew_is_not_what_was_signed() {
    let report = found("everything but the checkpoint", |copy| {
        let mut all = all_records(copy);
        all[50][30] ^= 1;
        rewrite(copy, &all);
    });
    let size = report["records"].as_u64().expect("a number");
    assert_eq!(named(&report), [(0, size - 1)], "nothing tells where");
    assert_eq!(report["vouched"], 0);

    let forge = |copy: &Copy, origin: &str, key: &Ed25519KeyPair| {
        let mut all = all_records(copy);
        all.truncate(500);
        let edge = rewrite(copy, &all);
        let root = STANDARD.encode(edge.root());
        let text = format!("{origin}\n500\n{root}\ntime 2026-01-01T00:00:00Z\n");
        let verifier = Verifier::new(origin, SigningScheme::Ed25519, key.public_key().as_ref());
        let verifier = verifier.expect("a key");
        let line = verifier.line(key.sign(text.as_bytes()).as_ref());
        fs::write(copy.tree("checkpoint"), format!("{text}\n{line}")).expect("written");
        verifier
    };
    let key = Ed25519KeyPair::generate().expect("a key");
    let origin = recorded().verify(&[]).1["origin"].as_str().expect("a name").to_owned();
    found("a checkpoint by another key", |copy| drop(forge(copy, &origin, &key)));
    found("a checkpoint of another tree", |copy| drop(forge(copy, "strongroom/x/1", &key)));

    // Whoever had the token's key could write a history of his own. A checkpoint that was kept
    // elsewhere still tells, and one that a key signed for another tree is none of this one.
    let copy = recorded().again();
    let verifier = forge(&copy, &origin, &key);
    fs::write(copy.file("key"), verifier.to_string()).expect("written");
    assert_eq!(copy.verify(&[]).0, 0, "consistent in itself");
    let longer = recorded().again();
    let text = fs::read_to_string(longer.tree("checkpoint")).expect("a checkpoint");
    let text = text.split("\n\n").next().expect("a text").to_owned() + "\n";
    let line = verifier.line(key.sign(text.as_bytes()).as_ref());
    fs::write(copy.file("later"), format!("{text}\n{line}")).expect("written");
    let (code, report) = copy.verify_with(&copy.file("later"));
    assert_eq!((code, named(&report)[0].0), (1, 500), "{report}");
    let (code, report) = copy.verify_with(&copy.file("kept"));
    assert_eq!(code, 2, "the kept one is by the token's key, not by this one: {report}");
}

#[test]
fn a_cut_tail_and_a_rolled_back_folder_show_against_a_later_checkpoint() {
    let report = found("a cut tail", |copy| {
        let mut all = all_records(copy);
        all.truncate(550);
        rewrite(copy, &all);
    });
    assert_eq!(named(&report)[0].0, 550);

    let mut appliance = crate::Appliance::start();
    crate::requests(&mut appliance.client(), 20);
    crate::until_signed(&appliance);
    appliance.stop();
    let earlier = Copy::of(&appliance);
    appliance.resume();
    crate::requests(&mut appliance.client(), 300);
    crate::until_signed(&appliance);
    appliance.stop();
    let later = Copy::of(&appliance);
    assert_eq!(earlier.verify(&[]).0, 0, "in itself it is good");
    let (code, report) = earlier.verify_with(&later.file("kept"));
    assert_eq!(code, 1, "{report}");
    assert_eq!(named(&report)[0].0, report["records"].as_u64().expect("a number"));
    // And the other way round: an earlier checkpoint is part of the later log, across the restart.
    let (code, report) = later.verify_with(&earlier.file("kept"));
    assert_eq!(code, 0, "{report}");
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let seed = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    println!("seed {seed}");
    let mut lots = Lots(seed);
    let copy = recorded().again();
    let key = fs::read_to_string(copy.file("key")).expect("a key");
    let question = |kept: Vec<u8>| Question {
        dir: copy.tree(""),
        log: Some(copy.log()),
        key: Verifier::parse(&key).expect("a key"),
        witnesses: Vec::new(),
        checkpoints: vec![("kept".into(), kept)],
    };
    let kept = fs::read(copy.file("kept")).expect("a checkpoint");
    let verdict = || question(kept.clone()).answer().expect("readable").verdict();
    assert_eq!(verdict(), Verdict::Good);
    let mut all = files(&copy.tree(""));
    // These two are not part of the log: a copy of the key, and a hint for the server.
    all.retain(|path| !path.ends_with("checkpoint.pub") && !path.ends_with("journal"));
    all.push(copy.log());
    for _ in 0..150 {
        let path = &all[usize::try_from(lots.below(all.len() as u64)).expect("small")];
        let before = fs::read(path).expect("a file");
        let at = usize::try_from(lots.below(before.len() as u64)).expect("small");
        let bit = 1 << lots.below(8);
        change(path, |bytes| bytes[at] ^= bit);
        assert_eq!(verdict(), Verdict::Tampered, "{} at {at}, {bit}", path.display());
        fs::write(path, before).expect("put back");
    }
    assert_eq!(verdict(), Verdict::Good);
}

#[test]
fn a_proof_of_one_record_needs_the_key_alone() {
    let copy = recorded();
    let all = all_records(copy);
    let data = copy.file("data").display().to_string();
    let key = copy.file("key").display().to_string();
    let proof = copy.file("proof");
    let check =
        || audit(&["verify", "--json", "--key", &key, "--proof", &proof.display().to_string()]);
    for index in [0, 255, 256, 400, all.len() - 1] {
        let record: Value = serde_json::from_slice(&all[index]).expect("JSON");
        let event = record["eventID"].as_str().expect("an id");
        let (code, text) = audit(&["prove", "--dir", &data, "--event", event]);
        assert_eq!(code, 0, "{index}: {text}");
        fs::write(&proof, &text).expect("written");
        let (code, told) = check();
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!((code, &told["index"]), (0, &index.into()), "{told}");
        let shown: Value =
            serde_json::from_str(told["record"].as_str().expect("text")).expect("JSON");
        assert_eq!(shown, record);
    }
    let text = fs::read(&proof).expect("a proof");
    for at in (0..text.len()).step_by(text.len() / 40) {
        let mut flipped = text.clone();
        flipped[at] ^= 2;
        fs::write(&proof, flipped).expect("written");
        assert_eq!(check().0, 1, "{at}");
    }
    let (code, _) = audit(&["prove", "--dir", &data, "--event", "00000000-no-such-event"]);
    assert_eq!(code, 2);
}

#[test]
fn a_witness_is_heard() {
    let copy = recorded().again();
    let witness = Ed25519KeyPair::generate().expect("a key");
    let key = [&[4], witness.public_key().as_ref()].concat();
    let name = "witness.example/w1";
    let hash = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        &[name.as_bytes(), b"\n", &key].concat(),
    );
    let id = &hash.as_ref()[..4];
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(copy.file("w1"), format!("{name}+{hex}+{}\n", STANDARD.encode(&key)))
        .expect("written");
    let note = fs::read_to_string(copy.file("kept")).expect("a checkpoint");
    let text = note.split("\n\n").next().expect("a text").to_owned() + "\n";
    let cosign = |time: u64, told: u64| {
        let signed = witness.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
        let bytes = [id, &told.to_be_bytes(), signed.as_ref()].concat();
        let line = format!("\u{2014} {name} {}\n", STANDARD.encode(bytes));
        fs::write(copy.file("cosigned"), format!("{note}{line}")).expect("written");
    };
    let cosigned = copy.file("cosigned").display().to_string();
    let w1 = copy.file("w1").display().to_string();
    cosign(1_800_000_000, 1_800_000_000);
    let (code, report) = copy.verify(&["--checkpoint", &cosigned, "--witness-key", &w1]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["witnessed"][0]["time"], 1_800_000_000);
    assert_eq!(report["witnessed"][0]["records"], report["records"]);
    cosign(1_800_000_000, 1_800_000_001);
    assert_eq!(copy.verify(&["--checkpoint", &cosigned, "--witness-key", &w1]).0, 1, "forged");
    assert_eq!(copy.verify(&["--witness-key", &w1]).0, 2, "not witnessed");
}

#[test]
fn what_can_not_be_told_is_not_called_good() {
    let copy = recorded().again();
    let key = copy.file("key").display().to_string();
    assert_eq!(audit(&["verify", "--dir", "/nowhere/at/all", "--key", &key]).0, 2);
    let nothing = tempfile::tempdir().expect("a folder");
    let nothing = nothing.path().display().to_string();
    let (code, _) = audit(&["verify", "--dir", &nothing, "--key", &key]);
    assert_ne!(code, 0, "an empty folder");
    fs::write(copy.file("key"), "not a key").expect("written");
    assert_eq!(copy.verify(&[]).0, 2);
    fs::remove_file(copy.file("key")).expect("removed");
    assert_eq!(copy.verify(&[]).0, 2);
}
