//! What a core image of the server would hold: secrets of every kind go in and out by every door,
//! and once the load is over they are looked for in all of the process's writable memory.

mod image;

use crate::appliance::{Lots, copy, root, send, token_host, until};
use crate::client::{Client, Credentials, Stream, base64, sign, signing_keys, unbase64};
use crate::drain::{Served, serve_tls};
use image::{Found, Image, Planted};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::time::Duration;

/// Between two looks at the memory.
const PAUSE: Duration = Duration::from_secs(1);
/// Looks until it must be clean.
const TRIES: usize = 15;

/// What may be in memory after the load, and why. Nothing else may.
const HELD: [(&str, &str); 1] = [("PIN", "held, to log in again after the token was away")];

/// What besides may be in the read buffers of connections that stay open, of their last requests.
const SENT: [(&str, &str); 6] = [
    ("Plaintext", "hyper's and rustls' read buffers"),
    ("SecretString", "the same"),
    ("SecretBinary", "the same"),
    ("updated SecretString", "the same"),
    ("refused SecretString", "the same"),
    ("session token", "the same: it comes with each request"),
];

#[test]
fn after_the_load_a_core_image_holds_the_pin_and_no_secret_of_a_request() {
    memory("entries = 0", false);
}

#[test]
fn with_the_cache_a_core_image_holds_data_keys_besides() {
    memory("entries = 1000", true);
}

#[expect(clippy::print_stderr, reason = "what is not checked is said")]
fn memory(cache: &str, cached: bool) {
    if !root() {
        eprintln!(
            "NOT CHECKED: the server's memory (only root may read that of an undumpable process)"
        );
        return;
    }
    let served = serve_tls(&[("[data_key_cache]", &format!("[data_key_cache]\n{cache}"))]);
    let pid = served.child.id();
    let mut planted = Planted::default();
    let pin = fs::read_to_string(served.path("hsm-pin")).expect("a PIN");
    planted.add("PIN", pin.trim_end());
    let so_pin = fs::read_to_string(served.path("hsm-so-pin")).expect("a PIN");
    planted.add("security officer's PIN", so_pin.trim_end());
    planted.add("administrator's secret access key", &*served.credentials.secret);
    let (key, idle) = drive(&served, &mut planted);
    let begun = begin(&served, &mut planted);
    let known = [&HELD[..], &SENT].concat();
    let begins = |found: &[Found]| beyond(found, &known) == ["begun request"];
    let (_, found) = settled(pid, &planted, begins);
    let told_open = told(&found);
    assert!(begins(&found), "more, or the search is blind: {told_open:#?}");
    drop((idle, begun));

    let (image, found) = settled(pid, &planted, |found| beyond(found, &HELD).is_empty());
    println!("of {}, with connections open: {told_open:#?}", planted.len());
    println!("after the load: {:#?}", told(&found));
    assert_eq!(beyond(&found, &HELD), Vec::<&str>::new(), "{:#?}", told(&found));
    let [held] = &*found else { panic!("the PIN is {}", HELD[0].1) };
    assert_eq!(held.pieces, image::pieces(pin.trim_end().len()), "one PIN: {}", held.told);
    // The process that holds the token; the PIN went there when it was started, twice.
    let host = token_host(pid);
    let (host_image, found) = settled(host, &planted, |found| beyond(found, &HELD).is_empty());
    println!("the token's process: {:#?}", told(&found));
    assert_eq!(beyond(&found, &HELD), Vec::<&str>::new(), "{:#?}", told(&found));
    let [held] = &*found else { panic!("the PIN is {}", HELD[0].1) };
    assert_eq!(held.pieces, image::pieces(pin.trim_end().len()), "one PIN: {}", held.told);
    let data_keys = data_keys(&served, &key);
    assert!(host_image.search(&data_keys).is_empty(), "data keys are none of its business");
    let found = image.search(&data_keys);
    assert_eq!(!found.is_empty(), cached, "{:?}", found.first().map(|f| &f.told));
    if may_lock(pid) {
        assert_eq!(image.unlocked(), Vec::<&str>::new(), "could be swapped to disk");
        assert_eq!(host_image.unlocked(), Vec::<&str>::new(), "could be swapped to disk");
    } else {
        eprintln!("NOT CHECKED: that memory is locked (no right to lock it)");
    }
}

/// Memory once it is as it should be, else as it is after a while: a busy server takes its time to let
/// go of connections that are closed.
fn settled(pid: u32, planted: &Planted, right: impl Fn(&[Found]) -> bool) -> (Image, Vec<Found>) {
    let mut tries = 0;
    loop {
        std::thread::sleep(PAUSE);
        let image = Image::of(pid);
        let found = image.search(planted);
        tries += 1;
        if right(&found) || tries == TRIES {
            return (image, found);
        }
    }
}

/// Whether a process may lock all of its memory: CAP_IPC_LOCK, number 14 in capabilities(7).
fn may_lock(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.expect("capabilities").trim(), 16);
    effective.expect("a number") >> 14 & 1 == 1
}

fn told(found: &[Found]) -> Vec<String> {
    found.iter().map(|found| format!("{}: {}", found.what, found.told)).collect()
}

/// What was found and is not among these.
fn beyond<'a>(found: &'a [Found], known: &[(&str, &str)]) -> Vec<&'a str> {
    let names = found.iter().map(|found| &*found.what);
    names.filter(|name| known.iter().all(|(known, _)| known != name)).collect()
}

/// A text with characters that JSON escapes, unlike any other.
fn text(lots: &mut Lots, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        text += &format!("{}\"\\\n", base64(&lots.draw().to_le_bytes()));
        text += &lots.uuid();
    }
    text.truncate(length);
    text
}

/// Everything in one go, then the same from several clients at once. Answers the KMS key that all of
/// it is under, and the clients, whose connections are open still.
fn drive(served: &Served, planted: &mut Planted) -> (String, Vec<Client>) {
    let mut admin = served.client(&served.credentials);
    let made = admin.ask("kms:CreateKey", &json!({})).output();
    let key = made["KeyMetadata"]["KeyId"].as_str().expect("an id").to_owned();
    let user = user(&mut admin, served, planted);
    let session = session(served, &user, planted);
    for (whose, service) in [(&user, "secretsmanager"), (&session, "kms")] {
        let keys = signing_keys(whose, service);
        keys.into_iter().for_each(|key| planted.add("signing key", key));
    }
    by_rest(&mut served.client(&user), &key, planted);
    outage(served, &mut admin, &key, planted);
    by_http_2(served, &key, planted);
    let load = |number: usize| {
        let mut planted = Planted::default();
        let credentials = if number.is_multiple_of(2) { &user } else { &session };
        let mut client = served.client(credentials);
        for round in 0..12 {
            let seed = (number * 1000 + round) as u64;
            let mut lots = Lots(u64::from(served.child.id()) << 32 | seed);
            let name = format!("memory/{number}/{round}");
            let length = [40, 200, 3000, 20_000, 60_000][round % 5];
            secrets(&mut client, &name, &key, (&mut lots, length), &mut planted);
            keys(&mut client, &key, (&mut lots, length.min(4000)), &mut planted);
        }
        (client, planted)
    };
    let mut idle = Vec::new();
    std::thread::scope(|scope| {
        let load = &load;
        let threads: Vec<_> = (0..6).map(|number| scope.spawn(move || load(number))).collect();
        for thread in threads {
            let (client, brought) = thread.join().expect("a client");
            planted.extend(brought);
            idle.push(client);
        }
    });
    (key, idle)
}

/// A user who may do everything, with an access key.
fn user(admin: &mut Client, served: &Served, planted: &mut Planted) -> Credentials {
    let named = ("UserName", "memory");
    let all = ("PolicyArn", "arn:aws:iam::aws:policy/AdministratorAccess");
    for (name, members) in [("CreateUser", &[named][..]), ("AttachUserPolicy", &[named, all])] {
        assert_eq!(admin.form("iam", name, members).status, 200);
    }
    let made = admin.form("iam", "CreateAccessKey", &[named]).text();
    let credentials = credentials(&made, served);
    planted.add("secret access key", &*credentials.secret);
    credentials
}

fn session(served: &Served, user: &Credentials, planted: &mut Planted) -> Credentials {
    let made = served.client(user).form("sts", "GetSessionToken", &[]).text();
    let mut session = credentials(&made, served);
    session.token = element(&made, "SessionToken");
    planted.add("session's secret access key", &*session.secret);
    planted.add("session token", &*session.token);
    session
}

fn credentials(xml: &str, served: &Served) -> Credentials {
    let [id, secret] = ["AccessKeyId", "SecretAccessKey"].map(|name| element(xml, name));
    Credentials { id, secret, ..served.credentials.clone() }
}

/// What stands in an element of an XML answer.
fn element(xml: &str, name: &str) -> String {
    let found = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<'));
    found.unwrap_or_else(|| panic!("no {name}: {xml}")).0.to_owned()
}

/// The token goes away with requests on their way to it, and comes back; so does the process that
/// holds it. The server logs in again.
fn outage(served: &Served, client: &mut Client, key: &str, planted: &mut Planted) {
    let value = text(&mut Lots(u64::from(served.child.id()) << 16), 500);
    planted.add("Plaintext without a token", &*value);
    let input = json!({"KeyId": key, "Plaintext": base64(value.as_bytes())});
    fs::rename(served.path("tokens"), served.path("away")).expect("moved");
    let status = client.ask("kms:Encrypt", &input).status;
    fs::rename(served.path("away"), served.path("tokens")).expect("moved back");
    assert!(status >= 500, "{status}");
    let mut back = || client.ask("kms:Encrypt", &input).status == 200;
    until("the token", Duration::from_secs(20), &mut back);
    send("KILL", token_host(served.child.id()));
    until("the token's process", Duration::from_secs(20), back);
}

fn by_http_2(served: &Served, key: &str, planted: &mut Planted) {
    let value = text(&mut Lots(u64::from(served.child.id()) << 8), 30_000);
    planted.add("SecretString by HTTP/2", &*value);
    let input = json!({"Name": "http2", "KmsKeyId": key, "SecretString": value,
        "ClientRequestToken": Lots(8).uuid()});
    served.over_http_2("secretsmanager:CreateSecret", &input);
    let input = json!({"SecretId": "http2"});
    let read = served.over_http_2("secretsmanager:GetSecretValue", &input);
    assert_eq!(read["SecretString"], value.as_str());
}

fn by_rest(client: &mut Client, key: &str, planted: &mut Planted) {
    let value = text(&mut Lots(u64::from(std::process::id())), 500);
    planted.add("SecretString by REST", &*value);
    let token = Lots(7).uuid();
    let input = json!({"Name": "rest", "KmsKeyId": key, "SecretString": value,
        "ClientRequestToken": token});
    let mut ask = |line, input| client.rest("secretsmanager", line, &input).output();
    ask(("POST", "/v1/secrets"), input);
    let read = ask(("GET", "/v1/secrets/rest/value"), Value::Null);
    assert_eq!(read["SecretString"], value.as_str());
}

fn secrets(
    client: &mut Client,
    name: &str,
    key: &str,
    (lots, length): (&mut Lots, usize),
    planted: &mut Planted,
) {
    let mut ask = |name: &str, input: Value| client.ask(&format!("secretsmanager:{name}"), &input);
    let value = text(lots, length);
    planted.add("SecretString", &*value);
    ask("CreateSecret", json!({"Name": name, "KmsKeyId": key, "SecretString": value})).output();
    let read = ask("GetSecretValue", json!({"SecretId": name}));
    assert_eq!(read.member("SecretString"), value);
    let value = text(lots, length).into_bytes();
    planted.add("SecretBinary", &*value);
    let value = base64(&value);
    ask("PutSecretValue", json!({"SecretId": name, "SecretBinary": value})).output();
    assert_eq!(ask("GetSecretValue", json!({"SecretId": name})).member("SecretBinary"), value);
    let value = text(lots, length);
    planted.add("updated SecretString", &*value);
    ask("UpdateSecret", json!({"SecretId": name, "SecretString": value})).output();
    ask("BatchGetSecretValue", json!({"SecretIdList": [name]})).output();
    let refused = text(lots, length);
    planted.add("refused SecretString", &*refused);
    let input = json!({"SecretId": name, "SecretString": refused, "SecretBinary": "AAAA"});
    assert_eq!(ask("PutSecretValue", input).status, 400);
    let made = ask("GetRandomPassword", json!({"PasswordLength": 64})).member("RandomPassword");
    planted.add("RandomPassword", made);
}

fn keys(client: &mut Client, key: &str, (lots, length): (&mut Lots, usize), planted: &mut Planted) {
    let mut ask = |name: &str, input: Value| client.ask(&format!("kms:{name}"), &input);
    let plaintext = text(lots, length).into_bytes();
    planted.add("Plaintext", &*plaintext);
    let plaintext = base64(&plaintext);
    let sealed = ask("Encrypt", json!({"KeyId": key, "Plaintext": plaintext}));
    let sealed = sealed.member("CiphertextBlob");
    let opened = ask("Decrypt", json!({"CiphertextBlob": sealed})).member("Plaintext");
    assert_eq!(opened, plaintext);
    ask("ReEncrypt", json!({"CiphertextBlob": sealed, "DestinationKeyId": key})).output();
    let made = ask("GenerateDataKey", json!({"KeyId": key, "KeySpec": "AES_256"}));
    planted.add("data key", unbase64(&made.member("Plaintext")));
    let made = ask("GenerateRandom", json!({"NumberOfBytes": 64}));
    planted.add("random bytes", unbase64(&made.member("Plaintext")));
}

/// A request that is not sent to its end.
fn begin(served: &Served, planted: &mut Planted) -> Box<dyn Stream> {
    let value = text(&mut Lots(u64::from(served.child.id())), 300);
    planted.add("begun request", &*value);
    let body = json!({"Name": "begun", "SecretString": value}).to_string();
    let mut request = "POST / HTTP/1.1\r\n".to_owned();
    let operation = "secretsmanager:CreateSecret";
    for (name, field) in sign(&served.credentials, "localhost", operation, body.as_bytes()) {
        request += &format!("{name}: {field}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{body}", body.len() + 1);
    let mut stream = served.connect();
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).expect("sent");
    stream
}

/// The data keys of all versions of secrets, which are under a key that the administrator may use.
fn data_keys(served: &Served, key: &str) -> Planted {
    // The server has its database for itself.
    copy(&served.path("store"), &served.path("copy"));
    let database = rusqlite::Connection::open(served.path("copy/strongroom.db")).expect("a copy");
    let mut all = database.prepare("SELECT id, data_key FROM version").expect("a table");
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    let rows: Vec<(String, Vec<u8>)> = rows.map(|row| row.expect("a row")).collect();
    let mut client = served.client(&served.credentials);
    let mut planted = Planted::default();
    let listed = client.ask("secretsmanager:ListSecrets", &json!({"MaxResults": 100})).output();
    for secret in listed["SecretList"].as_array().expect("secrets") {
        for version in secret["SecretVersionsToStages"].as_object().expect("versions").keys() {
            let (_, sealed) = rows.iter().find(|(id, _)| id == version).expect("its row");
            let context = json!({"SecretARN": secret["ARN"], "SecretVersionId": version});
            let input = json!({"CiphertextBlob": base64(sealed), "EncryptionContext": context,
                "KeyId": key});
            let opened = client.ask("kms:Decrypt", &input).member("Plaintext");
            planted.add("data key of a secret", unbase64(&opened));
        }
    }
    assert!(planted.len() > 70, "{}", planted.len());
    planted
}
