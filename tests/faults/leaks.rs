//! Planted secrets are looked for in everything that the server writes, at its most talkative, and
//! in everything that it answers to bad input.

mod identity;
mod planted;
mod sink;

use crate::appliance::{Appliance, PROGRAM, chmod, files, root, until};
use crate::client::{Client, Reply, base64, unbase64};
use identity::{Issuer, RECORDED, documents, identities};
use planted::Planted;
use serde_json::{Value, json};
use sink::Sink;
use std::fs;
use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

/// What was answered, and to what.
type Errors = Vec<(String, Vec<u8>)>;

#[test]
fn no_secret_is_in_a_log_a_file_or_an_error() {
    let mut appliance = Appliance::prepare();
    appliance.log_filter = "trace";
    appliance.resume();
    appliance.stop();
    let sink = Sink::listen();
    let (issuer, believed) = Issuer::publish(&appliance);
    let path = appliance.path("strongroom.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    fs::write(&path, format!("{text}\n{}{believed}", sink.configuration())).expect("written");
    appliance.resume();
    let mut planted = Planted::default();
    for file in ["hsm-pin", "hsm-so-pin"] {
        planted.add(file, fs::read(appliance.path(file)).expect(file));
    }
    let secret_access_key = appliance.credentials.secret.clone().into_bytes();
    planted.add("secret access key", secret_access_key);
    let mut client = appliance.client();
    secrets(&mut client, &mut planted);
    keys(&mut client, &mut planted);
    let mut errors = bad_input(&appliance, &mut planted);
    errors.extend(identities(&appliance, &issuer, &mut planted));
    errors.extend(outage(&appliance, &mut planted));
    errors.push(("LookupEvents".to_owned(), looked_up(&mut client)));
    let mut documented = Planted::default();
    let refusals = documents(&appliance, &mut documented);
    for (looked_for, told) in [(&documented, refusals), (&planted, errors)] {
        told.iter().for_each(|(what, bytes)| clean(looked_for, what, bytes));
    }
    clean(&documented, "a document in the log", appliance.log().as_bytes());
    search(&appliance, &planted, "running");
    appliance.kill();
    search(&appliance, &planted, "killed");
    appliance.resume();
    client = appliance.client();
    client.ask("secretsmanager:GetSecretValue", &json!({"SecretId": "leaks"})).output();
    appliance.stop();
    search(&appliance, &planted, "stopped");
    assert!(appliance.log().contains("reaching for the token"), "the log was written");
    let stream = sink.taken();
    clean(&planted, "a sink's stream", &stream);
    assert!(recorded(&stream), "the sink has the records");
}

/// Whether the records of what was done are in these bytes.
fn recorded(bytes: &[u8]) -> bool {
    bytes.windows(RECORDED.len()).any(|window| window == RECORDED.as_bytes())
}

/// Nothing that was planted is in these bytes.
fn clean(planted: &Planted, what: &str, bytes: &[u8]) {
    let found = planted.found(bytes);
    assert!(found.is_empty(), "{what}: {found:?} in {}", String::from_utf8_lossy(bytes));
}

/// What a look-up tells, once the index has the newest.
fn looked_up(client: &mut Client) -> Vec<u8> {
    let mut told = Vec::new();
    until("the index", Duration::from_secs(10), || {
        let reply = client.ask("cloudtrail:LookupEvents", &json!({"MaxResults": 50}));
        told = reply.whole();
        String::from_utf8_lossy(&told).contains("AssumeRoleWithWebIdentity")
    });
    told
}

/// Looks through everything that was written but the files that are there to hold a secret.
fn search(appliance: &Appliance, planted: &Planted, when: &str) {
    let kept = ["hsm-pin", "hsm-so-pin", "dev-credentials"];
    let mut looked = Vec::new();
    let mut all = files(&appliance.dir());
    all.push(appliance.log_file());
    for path in all {
        if kept.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let bytes = match fs::read(&path) {
            // A part of the tree is gone once it is a whole.
            Err(gone) if gone.kind() == ErrorKind::NotFound && when == "running" => continue,
            read => read.expect("read"),
        };
        let found = planted.found(&bytes);
        assert!(found.is_empty(), "{when}: {found:?} in {}", path.display());
        if !bytes.is_empty() {
            looked.push(path.display().to_string());
        }
    }
    // The configuration, the token's object, the server's log, and these.
    for name in [
        "/strongroom.toml",
        ".object",
        "/stderr",
        "/store/strongroom.db",
        "/audit.jsonl",
        "/audit/checkpoint",
        "/audit/journal",
        "/audit/sink-leaks",
        "/audit/tile/0/",
        "/audit-index.sqlite",
    ] {
        let seen = looked.iter().any(|path| path.contains(name));
        assert!(seen, "{when}: no {name} in {looked:?}");
    }
    if when == "running" {
        return;
    }
    if when == "stopped" {
        for name in ["/audit.jsonl", "/audit/tile/entries/", "/audit-index.sqlite"] {
            let mut files = looked.iter().filter(|path| path.contains(name));
            assert!(
                files.any(|path| recorded(&fs::read(path).expect("read"))),
                "nothing in {name}"
            );
        }
    }
    let database = fs::read(appliance.path("store/strongroom.db")).expect("a database");
    let wal = fs::read(appliance.path("store/strongroom.db-wal")).unwrap_or_default();
    let name = b"leaks";
    assert!([database, wal].concat().windows(5).any(|w| w == name), "the name is to be found");
}

fn secrets(client: &mut Client, planted: &mut Planted) {
    let mut ask = |name: &str, input: Value| client.ask(&format!("secretsmanager:{name}"), &input);
    let text = planted.plant("SecretString");
    ask("CreateSecret", json!({"Name": "leaks", "SecretString": text})).output();
    let bytes = planted.plant("SecretBinary");
    let input = json!({"SecretId": "leaks", "SecretBinary": base64(bytes.as_bytes())});
    ask("PutSecretValue", input).output();
    let text = planted.plant("updated SecretString");
    ask("UpdateSecret", json!({"SecretId": "leaks", "SecretString": text})).output();
    let read = ask("GetSecretValue", json!({"SecretId": "leaks"}));
    assert_eq!(read.member("SecretString"), text);
    let many = ask("BatchGetSecretValue", json!({"SecretIdList": ["leaks"]})).text();
    assert!(many.contains(&text), "{many}");
    let password = ask("GetRandomPassword", json!({"PasswordLength": 64}));
    planted.add("RandomPassword", password.member("RandomPassword").into_bytes());
    let stages = json!({"SecretId": "leaks", "IncludeDeprecated": true});
    ask("ListSecretVersionIds", stages).output();
}

fn keys(client: &mut Client, planted: &mut Planted) {
    let mut ask = |name: &str, input: Value| client.ask(&format!("kms:{name}"), &input);
    let made = ask("CreateKey", json!({})).output();
    let key = made["KeyMetadata"]["KeyId"].clone();
    let text = base64(planted.plant("Plaintext").as_bytes());
    let input = json!({"KeyId": key, "Plaintext": text, "EncryptionContext": {"a": "b"}});
    let sealed = ask("Encrypt", input).member("CiphertextBlob");
    let input = json!({"CiphertextBlob": sealed, "EncryptionContext": {"a": "b"}});
    assert_eq!(ask("Decrypt", input).member("Plaintext"), text);
    let input = json!({"CiphertextBlob": sealed, "SourceEncryptionContext": {"a": "b"},
        "DestinationKeyId": key});
    ask("ReEncrypt", input).output();
    let made = ask("GenerateDataKey", json!({"KeyId": key, "KeySpec": "AES_256"}));
    planted.add("data key", unbase64(&made.member("Plaintext")));
    let made = ask("GenerateRandom", json!({"NumberOfBytes": 64}));
    planted.add("random bytes", unbase64(&made.member("Plaintext")));
}

/// Requests that must fail, each with a secret in it; answers what came back.
fn bad_input(appliance: &Appliance, planted: &mut Planted) -> Errors {
    let mut client = appliance.client();
    let mut errors = Vec::new();
    let mut plant = |what: &str| planted.plant(what);
    let long = |text: String| text.repeat(65_536 / text.len() + 1);
    let cases = [
        ("CreateSecret", json!({"Name": "x", "SecretString": {"in": plant("an object")}})),
        ("CreateSecret", json!({"Name": "x", "SecretString": [plant("a list")]})),
        ("CreateSecret", json!({"Name": 7, "SecretString": plant("beside a wrong type")})),
        ("CreateSecret", json!({"Name": "a name?", "SecretString": plant("beside a wrong name")})),
        ("CreateSecret", json!({"Name": "x", "SecretBinary": plant("no base64!")})),
        (
            "CreateSecret",
            json!({"Name": "x", "SecretString": plant("one of two"), "SecretBinary": "AAAA"}),
        ),
        ("CreateSecret", json!({"Name": "x", "SecretString": long(plant("too long"))})),
        ("CreateSecret", json!({"Name": "leaks", "SecretString": plant("there already")})),
        (
            "CreateSecret",
            json!({"Name": "x", "KmsKeyId": "alias/none", "SecretString": plant("no key")}),
        ),
        ("PutSecretValue", json!({"SecretId": "none", "SecretString": plant("no such secret")})),
        (
            "PutSecretValue",
            json!({"SecretId": "leaks", "SecretString": plant("bad token"), "ClientRequestToken": "short"}),
        ),
        (
            "UpdateSecret",
            json!({"SecretId": "leaks", "SecretString": plant("bad key"), "KmsKeyId": 3}),
        ),
        ("NoSuchOperation", json!({"SecretString": plant("unknown operation")})),
    ];
    for (name, input) in cases {
        let reply = client.ask(&format!("secretsmanager:{name}"), &input);
        assert!((400..500).contains(&reply.status), "{name} {input}: {}", reply.status);
        errors.push((format!("{name} {input}"), reply.whole()));
    }
    let cases = [
        json!({"KeyId": "alias/aws/secretsmanager", "Plaintext": plant("no base64 for KMS!")}),
        json!({"KeyId": "alias/aws/secretsmanager", "Plaintext": {"a": plant("an object for KMS")}}),
        json!({"KeyId": "alias/none", "Plaintext": base64(plant("for no key").as_bytes())}),
        json!({"KeyId": "alias/aws/secretsmanager", "Plaintext": base64(long(plant("too long for KMS")).as_bytes())}),
    ];
    for input in cases {
        let reply = client.ask("kms:Encrypt", &input);
        assert!((400..500).contains(&reply.status), "{input}: {}", reply.status);
        errors.push((format!("Encrypt {input}"), reply.whole()));
    }
    for body in [
        format!("{{\"Name\": \"x\", \"SecretString\": \"{}", plant("cut short")),
        format!("{{\"Name\": \"x\", {}: 1}}", plant("no JSON")),
        format!("\"{}\"", plant("only a text")),
    ] {
        let reply = client.send("secretsmanager:CreateSecret", body.as_bytes()).expect("an answer");
        assert_eq!(reply.status, 400, "{body}");
        errors.push((body, reply.whole()));
    }
    let mut stranger = appliance.credentials.clone();
    stranger.secret = plant("a wrong secret access key");
    let mut stranger = Client::new(&appliance.address, &stranger);
    let input = json!({"Name": "x", "SecretString": plant("wrongly signed")});
    let reply = stranger.ask("secretsmanager:CreateSecret", &input);
    assert_eq!(reply.code(), "InvalidSignatureException");
    errors.push(("wrongly signed".to_owned(), reply.whole()));
    for path in ["/", "/v1/secrets", "/v1/keys", "/nothing"] {
        let body = json!({"Name": "x", "SecretString": plant("unsigned")}).to_string();
        let reply = unsigned(appliance, path, "application/x-amz-json-1.1", &body);
        assert!((400..500).contains(&reply.status), "{path}: {}", reply.text());
        errors.push((path.to_owned(), reply.whole()));
    }
    errors
}

/// Requests that fail because the token is away; answers what came back.
fn outage(appliance: &Appliance, planted: &mut Planted) -> Errors {
    let mut client = appliance.client();
    let key = client.ask("kms:CreateKey", &json!({})).output()["KeyMetadata"]["KeyId"].clone();
    fs::rename(appliance.path("tokens"), appliance.path("away")).expect("moved");
    let text = planted.plant("SecretString without a token");
    let input = json!({"SecretId": "leaks", "SecretString": text});
    let put = client.ask("secretsmanager:PutSecretValue", &input);
    let text = base64(planted.plant("Plaintext without a token").as_bytes());
    let input = json!({"KeyId": key, "Plaintext": text});
    let encrypt = client.ask("kms:Encrypt", &input);
    let ready = client.look("/readyz");
    fs::rename(appliance.path("away"), appliance.path("tokens")).expect("moved back");
    let all = [("put", put), ("encrypt", encrypt), ("readyz", ready)];
    all.into_iter()
        .map(|(what, reply)| {
            assert!(reply.status >= 500, "{what}: {}", reply.text());
            (format!("{what} without a token"), reply.whole())
        })
        .collect()
}

/// The answer to an unsigned POST.
fn unsigned(appliance: &Appliance, path: &str, kind: &str, body: &str) -> Reply {
    let target =
        if kind.ends_with("-1.1") { "x-amz-target: secretsmanager.CreateSecret\r\n" } else { "" };
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\n{target}\
         content-length: {}\r\n\r\n{body}",
        appliance.address,
        body.len()
    );
    appliance.client().exchange(request.as_bytes()).expect("an answer")
}

#[test]
fn it_leaves_no_core_and_its_memory_is_not_for_others() {
    let mut appliance = Appliance::prepare();
    let nobody = "65534";
    let wrapped = ["setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups"];
    let folder = tempfile::tempdir().expect("a folder");
    if root() {
        // As a user, so that the peer below is one with the same id and no privilege.
        let program = folder.path().join("strongroom");
        fs::copy(PROGRAM, &program).expect("copied");
        chmod(folder.path(), 0o755);
        let dir = appliance.dir();
        fs::create_dir(&dir).expect("made");
        std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).expect("given away");
        chmod(dir.parent().expect("a folder"), 0o755);
        appliance.wrapper = wrapped.map(str::to_owned).to_vec();
        appliance.program = program.display().to_string();
    }
    appliance.resume();
    let pid = appliance.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).expect("a limit");
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    for file in ["mem", "environ", "maps"] {
        let path = format!("/proc/{pid}/{file}");
        let mut peer = if root() {
            let mut command = Command::new(wrapped[0]);
            command.args(&wrapped[1..]).args(["head", "-c", "1", &path]);
            command
        } else {
            let mut command = Command::new("head");
            command.args(["-c", "1", &path]);
            command
        };
        let looked = peer.output().expect("head");
        let said = String::from_utf8_lossy(&looked.stderr).into_owned();
        assert!(!looked.status.success() && said.contains("Permission denied"), "{file}: {said}");
    }
    appliance.stop();
}
