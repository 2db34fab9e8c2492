//! The token's module fails at random under load: no wrong answer, no acknowledged change lost, no
//! restart. And it ends the process while it makes a key.

use crate::appliance::{Appliance, Lots, until};
use crate::client::{Client, Reply, base64};
use crate::crash::{Trail, keys_are_whole};
use crate::shim::{self, Shim};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Faults that must strike: 200, or as many as `STRIKES` in the environment says, for a long night.
fn strikes() -> usize {
    std::env::var("STRIKES").map_or(200, |number| number.parse().expect("a number"))
}

const CLIENTS: usize = 6;

/// What a fault of the token's may come to. Each is an error of the service or of the moment: none
/// says that something is not there, not allowed, or not what was sealed.
pub(crate) const CLEAR: [&str; 5] = [
    "DependencyTimeoutException",
    "InternalServiceError",
    "KMSInternalException",
    "KeyUnavailableException",
    "ThrottlingException",
];

/// Functions that requests call, and those that are called to reach the token again.
const SERVING: [&str; 10] = [
    "C_SignInit",
    "C_Sign",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_GetAttributeValue",
    "C_GenerateKey",
    "C_GenerateRandom",
    "C_DestroyObject",
    "C_OpenSession",
    "C_CloseSession",
];
const HEALING: [&str; 6] =
    ["C_Finalize", "C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_Login"];

/// An appliance whose token is reached through the shim, no data key is kept open.
pub(crate) fn behind_the_shim(folder: &Path, isolation: &str) -> Appliance {
    let mut appliance = Appliance::start();
    appliance.stop();
    let path = appliance.path("strongroom.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let module = shim::module().display();
    let module = format!("module = \"{module}\"\nisolation = \"{isolation}\"");
    let changed = ["[token]", "[data_key_cache]"]
        .iter()
        .zip([module.as_str(), "entries = 0"])
        .fold(text, |text, (section, line)| {
            assert!(text.contains(section), "{section}");
            text.replacen(section, &format!("{section}\n{line}"), 1)
        });
    fs::write(&path, changed).expect("written");
    appliance.wrapper = vec!["env".to_owned()];
    for (name, value) in shim::environment(folder) {
        appliance.wrapper.push(format!("{name}={}", value.to_str().expect("text")));
    }
    appliance.resume();
    appliance
}

/// One client, and what it knows to be there.
pub(crate) struct Caller {
    number: usize,
    client: Client,
    lots: Lots,
    steps: u64,
    key: String,
    /// Secrets that were acknowledged, and those that were refused.
    secrets: Vec<(String, String)>,
    refused: Vec<(String, String)>,
    /// Plaintexts and what became of them.
    sealed: Vec<(String, String)>,
    /// Keys that were acknowledged.
    keys: Vec<String>,
    /// The `User-Agent`s of acknowledged changes.
    acknowledged: Vec<String>,
    /// How often which answer came.
    codes: BTreeMap<String, usize>,
}

impl Caller {
    pub(crate) fn new(number: usize, appliance: &Appliance, key: &str, lots: Lots) -> Self {
        Self {
            number,
            client: appliance.client(),
            lots,
            steps: 0,
            key: key.to_owned(),
            secrets: Vec::new(),
            refused: Vec::new(),
            sealed: Vec::new(),
            keys: Vec::new(),
            acknowledged: Vec::new(),
            codes: BTreeMap::new(),
        }
    }

    pub(crate) fn work(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.steps += 1;
            self.client.agent = format!("caller-{}-{}", self.number, self.steps);
            match self.lots.below(20) {
                0..=3 => self.create(),
                4..=8 => self.encrypt(),
                9..=13 => self.decrypt(),
                14..=17 => self.read(),
                18 => drop(self.asked("kms:GenerateRandom", &json!({"NumberOfBytes": 16}))),
                _ => self.create_key(),
            }
        }
    }

    /// An answer that was no error; an error must be a clear one.
    fn asked(&mut self, operation: &str, input: &serde_json::Value) -> Option<Reply> {
        let reply = self.client.ask(operation, input);
        *self.codes.entry(reply.code()).or_default() += 1;
        if reply.status == 200 {
            return Some(reply);
        }
        let code = reply.code();
        assert!(CLEAR.contains(&code.as_str()), "{operation}: {} {}", reply.status, reply.text());
        None
    }

    fn create(&mut self) {
        let name = format!("storm/{}/{}", self.number, self.steps);
        let value = format!("value {:x}", self.lots.draw());
        let input = json!({"Name": name, "SecretString": value});
        match self.asked("secretsmanager:CreateSecret", &input) {
            Some(_) => {
                self.acknowledged.push(self.client.agent.clone());
                self.secrets.push((name, value));
            }
            None => self.refused.push((name, value)),
        }
    }

    fn read(&mut self) {
        let Some((name, value)) = self.one_of(&self.secrets.clone()) else { return };
        let input = json!({"SecretId": name});
        if let Some(reply) = self.asked("secretsmanager:GetSecretValue", &input) {
            assert_eq!(reply.member("SecretString"), value, "{name}");
        }
    }

    fn encrypt(&mut self) {
        let plaintext = base64(&self.lots.draw().to_be_bytes());
        let input = json!({"KeyId": self.key, "Plaintext": plaintext});
        if let Some(reply) = self.asked("kms:Encrypt", &input) {
            self.sealed.push((plaintext, reply.member("CiphertextBlob")));
        }
    }

    fn decrypt(&mut self) {
        let Some((plaintext, blob)) = self.one_of(&self.sealed.clone()) else { return };
        if let Some(reply) = self.asked("kms:Decrypt", &json!({"CiphertextBlob": blob})) {
            assert_eq!(reply.member("Plaintext"), plaintext, "a wrong answer");
        }
    }

    fn create_key(&mut self) {
        if let Some(reply) = self.asked("kms:CreateKey", &json!({})) {
            self.acknowledged.push(self.client.agent.clone());
            let id = reply.json()["KeyMetadata"]["KeyId"].as_str().expect("an id").to_owned();
            self.keys.push(id);
        }
    }

    fn one_of(&mut self, of: &[(String, String)]) -> Option<(String, String)> {
        let n = self.lots.below(u64::try_from(of.len()).expect("few").max(1));
        of.get(usize::try_from(n).expect("few")).cloned()
    }

    /// Requests that were answered without an error.
    pub(crate) fn succeeded(&self) -> usize {
        self.codes.get("").copied().unwrap_or_default()
    }

    /// With no fault about: all that was acknowledged is there, what was refused is not there or
    /// whole.
    pub(crate) fn check(&mut self, appliance: &Appliance) {
        let mut client = appliance.client();
        for (name, value) in &self.secrets {
            let read = client.ask("secretsmanager:GetSecretValue", &json!({"SecretId": name}));
            assert_eq!(read.member("SecretString"), *value, "{name}");
        }
        for (name, value) in &self.refused {
            let read = client.ask("secretsmanager:GetSecretValue", &json!({"SecretId": name}));
            let there = read.code() != "ResourceNotFoundException";
            assert!(!there || read.member("SecretString") == *value, "{name}: half of it");
        }
        for (plaintext, blob) in &self.sealed {
            let opened = client.ask("kms:Decrypt", &json!({"CiphertextBlob": blob}));
            assert_eq!(opened.member("Plaintext"), *plaintext);
        }
    }
}

/// One fault at a call that requests make and, each second time, another at one that heals.
fn draw(lots: &mut Lots) -> Vec<String> {
    let mut faults = vec![fault(lots, &SERVING)];
    if lots.below(2) == 0 {
        faults.push(fault(lots, &HEALING));
    }
    faults
}

fn fault(lots: &mut Lots, functions: &[&str]) -> String {
    let function = one(lots, functions);
    let times = 1 + lots.below(3);
    let effect = match lots.below(10) {
        0 => format!("delay {}", 1 + lots.below(150)),
        n => {
            let words = if n < 3 { "done" } else { "answer" };
            format!("{words} {}", value(lots, function))
        }
    };
    format!("{function} 0 {times} {effect}")
}

/// A value that this function may answer.
fn value(lots: &mut Lots, function: &str) -> &'static str {
    // Where the server logs in these end all logins, by promise, until it is started again.
    let pin = !HEALING.contains(&function);
    // An answer without the lengths of the attributes is none that a module may give.
    let partly = ["CKR_ATTRIBUTE_SENSITIVE", "CKR_ATTRIBUTE_TYPE_INVALID", "CKR_BUFFER_TOO_SMALL"];
    let mut rows = shim::rows();
    rows.retain(|(action, _)| pin || *action != "Pin");
    let n = usize::try_from(lots.below(rows.len() as u64)).expect("few");
    let values = &mut rows[n].1;
    values.retain(|value| function != "C_GetAttributeValue" || !partly.contains(value));
    one(lots, values)
}

fn one<'a>(lots: &mut Lots, of: &[&'a str]) -> &'a str {
    of[usize::try_from(lots.below(of.len() as u64)).expect("few")]
}

/// Faults until enough have struck; each twenty, how long the service takes to be back.
fn storm(shim: &Shim, appliance: &Appliance, key: &str, lots: &mut Lots) -> (usize, Duration) {
    let mut client = appliance.client();
    let (mut struck, mut rounds, mut longest) = (0, 0, Duration::ZERO);
    let began = Instant::now();
    let (wanted, each) = (strikes(), Duration::from_millis(600));
    while struck < wanted {
        let patience = each * u32::try_from(wanted).expect("a time");
        assert!(began.elapsed() < patience, "{struck} faults have struck");
        shim.set(draw(lots));
        let set = Instant::now();
        let before = struck;
        while struck == before && set.elapsed() < Duration::from_millis(60) {
            std::thread::sleep(Duration::from_millis(2));
            struck += shim.calls().struck();
        }
        std::thread::sleep(Duration::from_millis(lots.below(20)));
        struck += shim.calls().struck();
        if struck / 20 > rounds {
            rounds = struck / 20;
            shim.clear();
            let input = json!({"KeyId": key, "Plaintext": "AAAA"});
            longest = longest.max(until("the service", Duration::from_secs(2), || {
                client.ask("kms:Encrypt", &input).status == 200
            }));
        }
    }
    shim.clear();
    (struck, longest)
}

#[test]
fn random_faults_of_the_token_s_module_under_load_spoil_nothing() {
    let seed = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    println!("seed {seed}");
    let mut lots = Lots(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let shim = Shim::new(folder.path());
    let mut appliance = behind_the_shim(folder.path(), "process");
    let made = appliance.client().ask("kms:CreateKey", &json!({})).output();
    let key = made["KeyMetadata"]["KeyId"].as_str().expect("an id").to_owned();
    let mut callers: Vec<_> =
        (0..CLIENTS).map(|n| Caller::new(n, &appliance, &key, Lots(lots.draw()))).collect();
    drop(shim.calls());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for caller in &mut callers {
            scope.spawn(|| caller.work(&stop));
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            storm(&shim, &appliance, &key, &mut lots)
        }));
        stop.store(true, Ordering::Relaxed);
        let (struck, longest) = ended.unwrap_or_else(|e| std::panic::resume_unwind(e));
        println!("{struck} faults struck; back after {longest:?} at most");
    });
    let mut client = appliance.client();
    until("readiness", Duration::from_secs(2), || client.look("/readyz").status == 200);
    let mut codes = BTreeMap::new();
    for (code, times) in callers.iter().flat_map(|caller| &caller.codes) {
        *codes.entry(code.as_str()).or_insert(0) += times;
    }
    println!("answers: {codes:?}");
    assert!(codes[""] > strikes(), "the load was none: {codes:?}");
    for caller in &mut callers {
        caller.check(&appliance);
    }
    assert!(!appliance.log().contains("panicked"));
    appliance.stop();
    let mut trail = Trail::default();
    trail.read(&appliance);
    for agent in callers.iter().flat_map(|caller| &caller.acknowledged) {
        assert_eq!(trail.successes.get(agent), Some(&1), "{agent} was acknowledged: its record");
    }
    appliance.resume();
    for caller in &mut callers {
        caller.check(&appliance);
    }
    keys_are_whole(&mut appliance, callers.iter().flat_map(|caller| &caller.keys));
}

#[test]
fn callers_are_told_whose_matter_a_fault_is_and_not_in_the_module_s_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let shim = Shim::new(folder.path());
    let appliance = behind_the_shim(folder.path(), "process");
    let mut client = appliance.client();
    let made = client.ask("kms:CreateKey", &json!({})).output();
    let encrypt = json!({"KeyId": made["KeyMetadata"]["KeyId"], "Plaintext": "AAAA"});
    let create = |action: &str| json!({"Name": action, "SecretString": "hunter2"});
    for (action, values) in shim::rows() {
        let (kms, secrets) = match action {
            "Refused" | "Suspect" | "Pin" | "Stop" => {
                ((500, "KeyUnavailableException"), (500, "InternalServiceError"))
            }
            "Busy" => ((400, "ThrottlingException"), (400, "ThrottlingException")),
            _ => ((200, ""), (200, "")),
        };
        let times = if kms.0 == 200 { "1" } else { "*" };
        for (operation, input, told) in [
            ("kms:Encrypt", &encrypt, kms),
            ("secretsmanager:CreateSecret", &create(action), secrets),
        ] {
            shim.set([format!("C_SignInit 0 {times} answer {}", values[0])]);
            let reply = client.ask(operation, input);
            let code = reply.code();
            assert_eq!((reply.status, code.as_str()), told, "{action}: {operation}");
            assert!(!reply.text().contains("PKCS11"), "{action}: {}", reply.text());
            shim.clear();
            until("the service", Duration::from_secs(2), || {
                client.ask("kms:Encrypt", &encrypt).status == 200
            });
            // The shortest time between two logins.
            std::thread::sleep(Duration::from_millis(210));
        }
    }
}

#[test]
fn a_module_that_ends_the_process_while_it_makes_a_key_leaves_nothing_half_done() {
    ended_while_it_makes_a_key("none");
}

#[test]
fn nor_does_one_that_ends_its_own_process_and_the_server_goes_on() {
    ended_while_it_makes_a_key("process");
}

fn ended_while_it_makes_a_key(isolation: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let shim = Shim::new(folder.path());
    let mut appliance = behind_the_shim(folder.path(), isolation);
    let mut client = appliance.client();
    let input = json!({"Name": "kept", "SecretString": "hunter2"});
    client.ask("secretsmanager:CreateSecret", &input).output();
    let made = client.ask("kms:CreateKey", &json!({})).output();
    let encrypt = json!({"KeyId": made["KeyMetadata"]["KeyId"], "Plaintext": "AAAA"});
    let keys = client.ask("kms:ListKeys", &json!({})).output()["Keys"].clone();
    let before = appliance.token_objects();
    // Before the key is there, and when it has been made and is to be looked at.
    for fault in ["C_GenerateKey 0 1 crash", "C_GetAttributeValue 0 1 crash"] {
        shim.set([fault]);
        let mut client = appliance.client();
        let told = client.call("kms:CreateKey", &json!({}));
        shim.clear();
        if isolation == "none" {
            assert!(told.is_err(), "{fault}: {told:?}");
            appliance.died();
            appliance.resume();
            client = appliance.client();
        } else {
            let told = told.expect("an answer");
            assert_eq!((told.status, &*told.code()), (500, "KMSInternalException"), "{fault}");
            until("the service", Duration::from_secs(2), || {
                client.ask("kms:Encrypt", &encrypt).status == 200
            });
        }
        let read = client.ask("secretsmanager:GetSecretValue", &json!({"SecretId": "kept"}));
        assert_eq!(read.member("SecretString"), "hunter2", "{fault}");
        client.ask("kms:Encrypt", &encrypt).output();
        let now = client.ask("kms:ListKeys", &json!({})).output()["Keys"].clone();
        assert_eq!(now, keys, "{fault}: a key that nobody was told of");
    }
    // What the second one had made stands until its intent is an hour old. A server that lives tries
    // four times, and the module ends each new process anew.
    let made = if isolation == "none" { 1 } else { 4 };
    assert!(appliance.token_objects().len() <= before.len() + made);
    appliance.stop();
    let intents = "SELECT count(*) FROM intent";
    let intents = appliance.database().query_row(intents, [], |row| row.get::<_, i64>(0));
    // The server itself tries again under another id.
    let tries = if isolation == "none" { 2..=2 } else { 2..=20 };
    assert!(tries.contains(&intents.expect("counted")), "each is noted");
}
