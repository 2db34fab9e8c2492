//! The token, a key in it, the disk, the audit log: each goes away, requests fail closed, and when it
//! is back so is the service, without a restart.

use crate::appliance::{Appliance, root, until};
use crate::client::{Client, Reply};
use serde_json::json;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const READ: &str = "secretsmanager:GetSecretValue";
const CREATE: &str = "secretsmanager:CreateSecret";

fn create(client: &mut Client, name: &str, value: &str) -> Reply {
    client.ask(CREATE, &json!({"Name": name, "SecretString": value}))
}

fn read(client: &mut Client, name: &str) -> Reply {
    client.ask(READ, &json!({"SecretId": name}))
}

fn encrypt(client: &mut Client, key: &str) -> Reply {
    client.ask("kms:Encrypt", &json!({"KeyId": key, "Plaintext": "AAAA"}))
}

fn new_key(client: &mut Client) -> String {
    let made = client.ask("kms:CreateKey", &json!({})).output();
    made["KeyMetadata"]["KeyId"].as_str().expect("a key id").to_owned()
}

#[test]
fn a_token_that_is_gone_at_the_start_is_named() {
    let mut appliance = Appliance::start();
    let key = new_key(&mut appliance.client());
    appliance.stop();
    fs::rename(appliance.path("tokens"), appliance.path("away")).expect("moved");
    let said = appliance.refused();
    let last = said.lines().last().expect("a line");
    assert!(last.starts_with("strongroom: token `serial "), "{said}");
    assert!(last.contains("is unavailable"), "{said}");
    fs::rename(appliance.path("away"), appliance.path("tokens")).expect("moved back");
    appliance.resume();
    let mut client = appliance.client();
    assert_eq!(encrypt(&mut client, &key).status, 200);
}

#[test]
fn a_token_that_goes_away_in_flight_is_missed_and_found_again_without_a_restart() {
    let mut appliance = Appliance::start();
    let mut client = appliance.client();
    create(&mut client, "kept", "hunter2").output();
    let key = new_key(&mut client);
    // So that no data key is open any more.
    appliance.stop();
    appliance.resume();
    let mut client = appliance.client();
    assert_eq!(client.look("/readyz").status, 200);

    fs::rename(appliance.path("tokens"), appliance.path("away")).expect("moved");
    let mut seen = HashMap::new();
    for _ in 0..3 {
        for (what, reply) in [
            ("encrypt", encrypt(&mut client, &key)),
            ("read", read(&mut client, "kept")),
            ("make a key", client.ask("kms:CreateKey", &json!({}))),
            ("make a secret", create(&mut client, "new", "hunter2")),
        ] {
            assert!(!reply.text().contains("hunter2"), "{what}");
            assert_eq!(reply.status, 500, "{what}: {}", reply.text());
            seen.insert(what, reply.code());
        }
    }
    assert_eq!(seen["encrypt"], "KeyUnavailableException");
    assert_eq!(seen["make a key"], "KMSInternalException");
    assert_eq!(seen["read"], "InternalServiceError");
    assert_eq!(seen["make a secret"], "InternalServiceError");
    // An answer of /readyz is good for half a second.
    until("unreadiness", Duration::from_secs(2), || client.look("/readyz").status == 503);
    let ready = client.look("/readyz");
    assert!(ready.text().contains("token `strongroom-"), "which one: {}", ready.text());
    assert_eq!(client.look("/healthz").status, 200);
    // What needs no token goes on.
    let described = client.ask("kms:DescribeKey", &json!({"KeyId": key}));
    assert_eq!(described.status, 200);

    fs::rename(appliance.path("away"), appliance.path("tokens")).expect("moved back");
    until("the token's return", Duration::from_secs(1), || {
        encrypt(&mut client, &key).status == 200
    });
    assert_eq!(read(&mut client, "kept").member("SecretString"), "hunter2");
    until("readiness", Duration::from_secs(2), || client.look("/readyz").status == 200);
    assert_eq!(
        create(&mut client, "new", "hunter2").status,
        200,
        "nothing half-made is in the way"
    );
}

#[test]
fn a_backing_key_deleted_behind_our_back_is_an_alarm_and_no_reason_to_act() {
    let mut appliance = Appliance::start();
    let mut client = appliance.client();
    let other = new_key(&mut client);
    let before = appliance.token_objects();
    let key = new_key(&mut client);
    let made = appliance.token_objects();
    let made: Vec<_> = made.iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(made.len(), 1);
    assert_eq!(encrypt(&mut client, &key).status, 200);
    create(&mut client, "under-another", "hunter2").output();
    client
        .ask(
            "secretsmanager:CreateSecret",
            &json!({"Name": "other", "KmsKeyId": key, "SecretString": "hunter2"}),
        )
        .output();
    fs::remove_file(made[0]).expect("removed");

    for round in ["running", "started again"] {
        let reply = encrypt(&mut client, &key);
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "KMSInvalidStateException"),
            "{round}"
        );
        assert_eq!(encrypt(&mut client, &other).status, 200, "{round}");
        let described = client.ask("kms:DescribeKey", &json!({"KeyId": key})).output();
        assert_eq!(described["KeyMetadata"]["KeyState"], "Enabled", "{round}: the row stands");
        assert_eq!(appliance.token_objects(), before, "{round}: it is not made anew");
        assert_eq!(read(&mut client, "under-another").status, 200, "{round}: others are served");
        if round == "running" {
            appliance.stop();
            appliance.resume();
            client = appliance.client();
        } else {
            let reply = read(&mut client, "other");
            assert_eq!((reply.status, reply.code().as_str()), (400, "InvalidRequestException"));
        }
    }
    let log = appliance.log();
    let alarm = log.lines().any(|l| l.contains("ERROR") && l.contains("is not in its token"));
    assert!(alarm, "no alarm:\n{log}");
}

/// Creates secrets of 40 KiB until the server has refused some; answers those it took.
fn fill(client: &mut Client, prefix: &str, refusals: usize) -> Vec<(String, String)> {
    let (mut taken, mut refused) = (Vec::new(), 0);
    for n in 0..400 {
        let name = format!("{prefix}/{n}");
        let value = format!("{name} {}", "x".repeat(40 << 10));
        let reply = create(client, &name, &value);
        match reply.status {
            200 => taken.push((name, value)),
            500 => {
                assert_eq!(reply.code(), "InternalServiceError", "{}", reply.text());
                assert!(!reply.text().contains("xxxx"), "the value is not told");
                refused += 1;
                if refused == refusals {
                    return taken;
                }
            }
            other => panic!("{other}: {}", reply.text()),
        }
    }
    panic!("the disk was never full");
}

fn all_there(client: &mut Client, secrets: &[(String, String)]) {
    for (name, value) in secrets {
        let reply = read(client, name);
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        assert_eq!(reply.member("SecretString"), *value, "{name}");
    }
}

/// Every request of these `User-Agent`s stands in the log, once, as having succeeded.
fn recorded_once(appliance: &Appliance, agents: &[String]) {
    let (records, _) = appliance.audit();
    let mut events = HashMap::new();
    let mut done: HashMap<&str, usize> = HashMap::new();
    for record in &records {
        let Some(event) = record["eventID"].as_str() else { continue };
        assert_eq!(events.insert(event.to_owned(), ()), None, "twice: {record}");
        if record["errorCode"].is_null() {
            *done.entry(record["userAgent"].as_str().expect("an agent")).or_default() += 1;
        }
    }
    for agent in agents {
        assert_eq!(done.get(agent.as_str()), Some(&1), "{agent}");
    }
}

#[test]
fn a_database_at_its_limit_refuses_and_goes_on_once_something_is_deleted() {
    let mut appliance = Appliance::start();
    appliance.stop();
    let path = appliance.path("strongroom.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    fs::write(&path, text.replace("# max_bytes = 107374182400", "max_bytes = 2097152"))
        .expect("written");
    appliance.resume();
    let mut client = appliance.client();
    let mut taken = fill(&mut client, "full", 3);
    assert!(taken.len() > 10, "{}", taken.len());
    all_there(&mut client, &taken);
    // A key's row is small, so it may still fit; if not, none is half-made.
    for _ in 0..3 {
        let reply = client.ask("kms:CreateKey", &json!({}));
        assert!(reply.status == 200 || reply.code() == "KMSInternalException", "{}", reply.text());
    }
    let (gone, _) = taken.pop().expect("some");
    let input = json!({"SecretId": gone, "ForceDeleteWithoutRecovery": true});
    client.ask("secretsmanager:DeleteSecret", &input).output();
    create(&mut client, "after", "there is room").output();
    all_there(&mut client, &taken);
    let listed = client.ask("secretsmanager:ListSecrets", &json!({"MaxResults": 100})).output();
    let listed = listed["SecretList"].as_array().expect("a list").len();
    assert_eq!(listed, taken.len() + 1, "nothing of what was refused");
}

/// Whether this machine lets the test mount a file system of its own.
fn may_mount() -> bool {
    let mount = ["-m", "sh", "-c", "mount -t tmpfs none /mnt"];
    root() && Command::new("unshare").args(mount).output().is_ok_and(|o| o.status.success())
}

#[test]
fn a_full_disk_fails_requests_closed_and_service_returns_with_room() {
    if !may_mount() {
        eprintln!("NOT CHECKED: a full disk (no right to mount one)");
        return;
    }
    let mut appliance = Appliance::prepare();
    let dir = appliance.dir();
    fs::create_dir(&dir).expect("a folder");
    let mount = format!("mount -t tmpfs -o size=12m none '{}' && exec \"$@\"", dir.display());
    appliance.wrapper = ["unshare", "-m", "sh", "-c", &mount, "sh"].map(str::to_owned).to_vec();
    appliance.resume();
    // The same folder as the server sees it.
    let inside = Path::new("/proc").join(appliance.pid().to_string()).join("root");
    let inside = inside.join(dir.strip_prefix("/").expect("absolute"));
    let mut client = appliance.client();
    create(&mut client, "before", "hunter2").output();
    let key = new_key(&mut client);
    let mut agents = Vec::new();
    // What an administrator will delete in order to make room.
    fs::write(inside.join("room"), vec![0; 7 << 20]).expect("written");
    let taken = fill(&mut client, "full", 2);
    take_all_room(&inside.join("ballast"));

    // Small records may fit into the last page; then nothing does.
    for n in 0..40 {
        client.agent = format!("full-{n}");
        let reply = match n % 4 {
            0 => read(&mut client, "before"),
            1 => encrypt(&mut client, &key),
            2 => create(&mut client, &format!("small/{n}"), "hunter2"),
            _ => client.ask("kms:CreateKey", &json!({})),
        };
        if reply.status == 200 {
            agents.push(client.agent.clone());
        } else {
            let code = reply.code();
            assert!(
                ["InternalServiceError", "KMSInternalException"].contains(&code.as_str()),
                "{code}"
            );
            assert!(!reply.text().contains("hunter2"));
        }
    }
    for (what, reply) in [
        ("read", read(&mut client, "before")),
        ("encrypt", encrypt(&mut client, &key)),
        ("create", create(&mut client, "last", "hunter2")),
    ] {
        assert_eq!(reply.status, 500, "{what}: no record, no answer: {}", reply.text());
    }
    until("unreadiness", Duration::from_secs(2), || client.look("/readyz").status == 503);

    fs::remove_file(inside.join("room")).expect("removed");
    client.agent = "after".to_owned();
    until("the service", Duration::from_secs(2), || read(&mut client, "before").status == 200);
    create(&mut client, "last", "hunter2").output();
    all_there(&mut client, &taken);
    until("readiness", Duration::from_secs(2), || client.look("/readyz").status == 200);
    // Taken out before the file system goes with the server.
    appliance.signal("TERM");
    let log = fs::File::open(inside.join("audit.jsonl")).expect("the log");
    appliance.ended();
    let mut log = log;
    let mut copy = fs::File::create(appliance.path("audit.jsonl")).expect("a copy");
    std::io::copy(&mut log, &mut copy).expect("copied");
    recorded_once(&appliance, &agents);
    assert!(!appliance.log().contains("panicked"));
}

/// Fills the file system to the last byte.
fn take_all_room(path: &Path) {
    let mut file = fs::File::create(path).expect("a file");
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// Sets the largest size of a file for a running process.
fn limit_files(pid: u32, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let set = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(set.expect("prlimit").success());
}

#[test]
fn an_audit_log_that_takes_no_more_fails_requests_closed_until_it_does() {
    let mut appliance = Appliance::start();
    create(&mut appliance.client(), "kept", "hunter2").output();
    appliance.stop();
    // Larger than the database ever gets here, so that the limit on files meets the log alone.
    let log = appliance.path("audit.jsonl");
    let mut file = OpenOptions::new().append(true).open(&log).expect("the log");
    let line = format!("{{\"padding\":\"{}\"}}\n", "x".repeat(1000));
    file.write_all(line.repeat(16 << 10).as_bytes()).expect("padded");
    appliance.wrapper = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    appliance.resume();
    let mut client = appliance.client();
    assert_eq!(read(&mut client, "kept").status, 200);
    let key = new_key(&mut client);

    let mut agents = Vec::new();
    for (round, slack) in [0, 100, 2000].into_iter().enumerate() {
        let size = fs::metadata(&log).expect("the log").len() + slack;
        limit_files(appliance.pid(), &size.to_string());
        let mut refused = 0;
        for n in 0..12 {
            client.agent = format!("limited-{round}-{n}");
            let name = format!("made/{round}/{n}");
            let reply = match n % 3 {
                0 => create(&mut client, &name, "hunter2"),
                1 => read(&mut client, "kept"),
                _ => encrypt(&mut client, &key),
            };
            if reply.status == 200 {
                agents.push(client.agent.clone());
            } else {
                refused += 1;
                assert!(!reply.text().contains("hunter2"), "{}", reply.text());
                let code = reply.code();
                assert!(
                    ["InternalServiceError", "KMSInternalException"].contains(&code.as_str()),
                    "{code}"
                );
            }
        }
        assert!(refused > 0, "round {round}");
        assert_eq!(
            read(&mut client, "kept").code(),
            "InternalServiceError",
            "no record, no answer"
        );
        let unsigned = client.look("/nothing");
        assert_ne!(unsigned.status, 200, "refusals are recorded too");
        limit_files(appliance.pid(), "unlimited");
        until("the service", Duration::from_secs(2), || read(&mut client, "kept").status == 200);
    }
    // Changes reach the log a moment after their answers.
    appliance.stop();
    recorded_once(&appliance, &agents);
    let (_, torn) = appliance.audit();
    assert!(torn <= 3, "{torn} torn lines");
    assert!(!agents.is_empty());
}
