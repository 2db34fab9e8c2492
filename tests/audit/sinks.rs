//! Sinks: what arrives there, and what becomes of requests when one fails.

use crate::appliance::{Appliance, until};
use crate::{lines, requests};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server that keeps what it is sent.
struct Taker {
    port: u16,
    records: Arc<Mutex<Vec<Value>>>,
    /// Whether it refuses what it is sent.
    refuses: Arc<AtomicBool>,
}

impl Taker {
    fn start(serve: fn(TcpStream, &Mutex<Vec<Value>>, &AtomicBool)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let (records, refuses) = (Arc::default(), Arc::<AtomicBool>::default());
        let made = Self { port, records: Arc::clone(&records), refuses: Arc::clone(&refuses) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (records, refuses) = (Arc::clone(&records), Arc::clone(&refuses));
                std::thread::spawn(move || serve(stream, &records, &refuses));
            }
        });
        made
    }

    fn ids(&self) -> Vec<String> {
        ids(&self.records)
    }
}

/// The ids of what arrived.
pub(crate) fn ids(records: &Mutex<Vec<Value>>) -> Vec<String> {
    let records = records.lock().expect("records");
    records.iter().map(|r| r["eventID"].as_str().expect("an id").to_owned()).collect()
}

/// Octet counting (RFC 6587), RFC 5424 messages.
pub(crate) fn syslog(stream: impl Read, records: &Mutex<Vec<Value>>, refuses: &AtomicBool) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = Vec::new();
        if stream.read_until(b' ', &mut length).unwrap_or(0) == 0 || refuses.load(Ordering::SeqCst)
        {
            return;
        }
        let length = String::from_utf8(length).expect("digits");
        let mut message = vec![0; length.trim().parse().expect("a length")];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        let message = String::from_utf8(message).expect("text");
        let fields: Vec<&str> = message.splitn(8, ' ').collect();
        assert_eq!((fields[0], fields[3], fields[6]), ("<110>1", "strongroom", "-"), "{message}");
        let record: Value = serde_json::from_str(fields[7]).expect("a record");
        assert_eq!(record["eventTime"], fields[1]);
        records.lock().expect("records").push(record);
    }
}

/// HTTP/1.1 with a content length.
fn http(stream: TcpStream, records: &Mutex<Vec<Value>>, refuses: &AtomicBool) {
    let mut answer = stream.try_clone().expect("a stream");
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).expect("a body");
        let refused = refuses.load(Ordering::SeqCst);
        let status = if refused { "503 Busy" } else { "204 Taken" };
        if !refused {
            let taken = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
            let taken = taken.map(|line| serde_json::from_slice(line).expect("a record"));
            records.lock().expect("records").extend(taken);
        }
        let answered = write!(answer, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        if answered.is_err() {
            return;
        }
    }
}

pub(crate) fn configure(appliance: &Appliance, sinks: &str) {
    let path = appliance.path("strongroom.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    fs::write(&path, format!("{text}\n{sinks}")).expect("written");
}

/// The ids in the log file, from a line on.
pub(crate) fn logged(appliance: &Appliance, from: u64) -> Vec<String> {
    let (records, _) = appliance.audit();
    let records = records.iter().skip(usize::try_from(from).expect("small"));
    records.map(|r| r["eventID"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn syslog_and_http_get_every_record_in_order() {
    let (log, web) = (Taker::start(syslog), Taker::start(http));
    let mut appliance = Appliance::start();
    appliance.stop();
    let before = lines(&appliance);
    configure(
        &appliance,
        &format!(
            "[[audit.sink]]\nname = 'siem'\nkind = 'syslog'\nurl = 'tcp://127.0.0.1:{}'\n\
             [[audit.sink]]\nname = 'web'\nkind = 'http'\nmandatory = true\n\
             url = 'http://127.0.0.1:{}/in?x=1'\n",
            log.port, web.port
        ),
    );
    appliance.resume();
    let mut client = appliance.client();
    client.ask("secretsmanager:CreateSecret", &json!({"Name": "a", "SecretString": "b"})).output();
    requests(&mut client, 50);
    // A request's record is with a mandatory sink before its answer.
    let (all, _) = appliance.audit();
    let last = all.iter().rfind(|r| r["eventName"] == "ListKeys").expect("one");
    assert!(web.ids().contains(&last["eventID"].as_str().expect("an id").to_owned()));
    until("every record", Duration::from_secs(10), || {
        let logged = logged(&appliance, before);
        logged.len() > 50 && log.ids() == logged && web.ids() == logged
    });
}

#[test]
fn a_mandatory_sink_that_fails_makes_requests_fail_and_loses_nothing() {
    let web = Taker::start(http);
    let mut appliance = Appliance::start();
    appliance.stop();
    let before = lines(&appliance);
    configure(
        &appliance,
        &format!(
            "[[audit.sink]]\nname = 'web'\nkind = 'http'\nmandatory = true\ndeadline_ms = 500\n\
             url = 'http://127.0.0.1:{}'\n",
            web.port
        ),
    );
    appliance.resume();
    let mut client = appliance.client();
    requests(&mut client, 3);
    web.refuses.store(true, Ordering::SeqCst);
    for n in 0..4 {
        let reply = client.ask("kms:ListKeys", &json!({}));
        assert_eq!((reply.status, reply.code().as_str()), (500, "KMSInternalException"), "{n}");
    }
    let secret = json!({"Name": "a", "SecretString": "b"});
    assert_eq!(client.ask("secretsmanager:CreateSecret", &secret).status, 500);
    assert_eq!(client.look("/readyz").status, 503);
    assert!(appliance.log().contains("the audit sink fails"), "{}", appliance.log());
    // What it missed is sent after a restart too.
    appliance.kill();
    web.refuses.store(false, Ordering::SeqCst);
    appliance.resume();
    let mut client = appliance.client();
    until("the service", Duration::from_secs(10), || {
        client.ask("kms:ListKeys", &json!({})).status == 200
    });
    client.ask("secretsmanager:CreateSecret", &secret).output();
    until("every record", Duration::from_secs(10), || {
        let (logged, mut taken) = (logged(&appliance, before), web.ids());
        // What was sent in the second before the end may come twice.
        let mut seen = std::collections::HashSet::new();
        taken.retain(|id| seen.insert(id.clone()));
        taken == logged
    });
}

#[test]
fn a_best_effort_sink_that_is_not_there_blocks_nobody() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("a port").port();
    drop(closed);
    let mut appliance = Appliance::start();
    appliance.stop();
    configure(
        &appliance,
        &format!(
            "[[audit.sink]]\nname = 'siem'\nkind = 'syslog'\nurl = 'tcp://127.0.0.1:{port}'\n\
             lag = 1000\n"
        ),
    );
    appliance.resume();
    requests(&mut appliance.client(), 1500);
    until("the loss to be told", Duration::from_secs(20), || {
        appliance.log().contains("it misses records")
    });
    assert_eq!(appliance.client().look("/readyz").status, 200);
}

#[test]
fn settings_that_can_not_be_used_are_refused() {
    let mut appliance = Appliance::start();
    appliance.stop();
    let path = appliance.path("strongroom.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let cases = [
        ("name = 'a'\nkind = 'http'\nurl = 'tcp://h:1'", "begins with `http://` or `https://`"),
        ("name = 'a'\nkind = 'syslog'\nurl = 'tls://h:1'", "TLS needs `ca`"),
        ("name = 'A b'\nkind = 'http'\nurl = 'http://h'", "1 to 32 lower-case letters"),
        ("name = 'a'\nkind = 'http'\nurl = 'http://h'\nlag = 1", "lag is from 1000"),
        ("name = 'a'\nkind = 'http'\nurl = 'https://h'\nca = 'none.pem'", "none.pem"),
    ];
    for (sink, why) in cases {
        fs::write(&path, format!("{text}\n[[audit.sink]]\n{sink}\n")).expect("written");
        let said = appliance.refused();
        assert!(said.contains("the audit sink `") && said.contains(why), "{why}: {said}");
    }
}
