//! What the API makes of a token: Encrypt, Decrypt, GenerateDataKey, and GetSecretValue with and without
//! the cache of data keys, by 1, 4, 16 and 64 clients, beside what the token's driver does alone in the
//! same run. Run with `cargo bench --bench api --features tpm,yubikey -- softhsm2 swtpm swtpm:rsa-oaep piv`,
//! and with `kryoptic=MODULE`; without a name SoftHSM alone. It prints the tables of docs/hardware.md.
//!
//! Server and load share the machine: compare ratios, and processor time for each request, which is that
//! of the server's processes and not of what stands in for hardware.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]
#![expect(clippy::indexing_slicing, clippy::string_slice, reason = "a benchmark may panic")]
#![expect(clippy::disallowed_methods, reason = "the server's clock is the system's")]

mod dev;

use dev::{Appliance, Client, PROGRAM, on_one_thread};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long one measurement takes.
const SPAN: Duration = Duration::from_secs(3);
const CLIENTS: [usize; 4] = [1, 4, 16, 64];

/// What one measurement has found.
struct Found {
    per_second: f64,
    /// Microseconds from the question to the answer: the median, and of 99 in 100.
    median: f64,
    slow: f64,
    /// Microseconds of processor time for one request.
    cpu: f64,
}

fn under_load(appliance: &Appliance, request: &[u8], clients: usize) -> Found {
    let (begin, before) = (Instant::now(), appliance.cpu());
    let mut each: Vec<f64> = on_one_thread(async {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let (address, request) = (appliance.address.clone(), request.to_vec());
            all.spawn(async move {
                let (mut client, mut each) = (Client::new(&address).await, Vec::new());
                while begin.elapsed() < SPAN {
                    let start = Instant::now();
                    client.exchange(&request).await;
                    each.push(start.elapsed().as_secs_f64() * 1e6);
                }
                each
            });
        }
        all.join_all().await.concat()
    });
    let (wall, spent) = (begin.elapsed().as_secs_f64(), appliance.cpu() - before);
    each.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| each.get(each.len() * share / 100).copied().unwrap_or_default();
    let count = each.len() as f64;
    let cpu = spent.as_secs_f64() * 1e6 / count;
    Found { per_second: count / wall, median: at(50), slow: at(99), cpu }
}

/// What `strongroom hsm bench` finds the token's driver to do alone: the kind of request, and for each
/// number of clients how many a second and the processor time of one.
fn alone(dir: &Path) -> (String, Vec<(f64, f64)>) {
    let seconds = SPAN.as_secs().to_string();
    let mut command = Command::new(PROGRAM);
    command.args(["hsm", "bench", "--json", "--seconds", &seconds, "--dir"]).arg(dir);
    let ran = command.stderr(Stdio::inherit()).output().expect("ran");
    let told: Value = serde_json::from_slice(&ran.stdout).expect("figures");
    let figures = told["Tokens"][0]["Figures"].as_array().expect("figures");
    let first = &figures[0]["Operation"];
    let same = figures.iter().filter(|figure| figure["Operation"] == *first);
    let raw = same.map(|figure| &figure["Raw"]);
    let number = |raw: &Value, name: &str| raw[name].as_f64().expect("a number");
    let found = raw.map(|raw| (number(raw, "PerSecond"), number(raw, "CpuMicros")));
    (first.as_str().expect("a name").to_owned(), found.collect())
}

/// What kind of token is measured: `KIND`, `KIND:SCHEME`, `KIND=MODULE`.
struct Token {
    kind: String,
    scheme: Option<String>,
    module: Option<String>,
}

impl Token {
    fn named(word: &str) -> Option<Self> {
        let split = |word: &str, at| {
            let (first, rest) = word.split_once(at).unwrap_or((word, ""));
            (first.to_owned(), Some(rest.to_owned()).filter(|rest| !rest.is_empty()))
        };
        let (word, module) = split(word, '=');
        let (kind, scheme) = split(&word, ':');
        let known = ["softhsm2", "kryoptic", "swtpm", "piv"].contains(&kind.as_str());
        known.then_some(Self { kind, scheme, module })
    }
}

fn start(dir: &Path, token: &Token) -> Appliance {
    Appliance::start(dir, &token.kind, token.module.as_deref())
}

/// Adds a line to an appliance's configuration, behind one that `strongroom dev` has written.
fn configure(dir: &Path, behind: &str, line: &str) {
    let file = dir.join("strongroom.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let at = text.find(behind).expect("there") + behind.len();
    let at = at + text[at..].find('\n').expect("a line");
    let (before, after) = text.split_at(at);
    std::fs::write(&file, format!("{before}\n{line}{after}")).expect("written");
}

fn row(name: &str, clients: usize, found: &Found, bare: f64, raw: Option<(f64, f64)>) {
    let ratios = raw.map_or_else(
        || format!("| | {:.1}", found.cpu / bare),
        |(rate, cpu)| format!("| {:.2} | {:.1}", found.per_second / rate, found.cpu / (bare + cpu)),
    );
    println!(
        "| {name} | {clients} | {:.0} | {:.0} | {:.0} | {:.0} {ratios} |",
        found.per_second, found.median, found.slow, found.cpu
    );
}

fn measured(token: &Token) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir: PathBuf = folder.path().join("a");
    if let Some(scheme) = &token.scheme {
        drop(start(&dir, token));
        configure(&dir, "\nprofile = ", &format!("scheme = \"{scheme}\""));
    }
    let appliance = start(&dir, token);
    let created = appliance.ask("TrentService", "CreateKey", &json!({}));
    let key = created["KeyMetadata"]["KeyId"].as_str().expect("a key").to_owned();
    let secret = json!({ "Name": "s", "SecretString": "x".repeat(64), "ClientRequestToken": "t".repeat(32) });
    appliance.ask("secretsmanager", "CreateSecret", &secret);
    drop(appliance);
    let (operation, raw) = alone(&dir);
    println!("\n{}, {operation} alone:\n", token.kind);
    println!("| clients | a second | CPU, µs |\n|---|---|---|");
    for (clients, (rate, cpu)) in CLIENTS.iter().zip(&raw) {
        println!("| {clients} | {rate:.0} | {cpu:.0} |");
    }
    println!(
        "\n| request | clients | a second | median, µs | 99 %, µs | CPU, µs | to the driver alone \
         | CPU to that of a bare answer and the driver |\n|---|---|---|---|---|---|---|---|"
    );
    let appliance = start(&dir, token);
    let bare_request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", appliance.address);
    let bare = CLIENTS.map(|clients| under_load(&appliance, bare_request.as_bytes(), clients));
    let rows = |name: &str, appliance: &Appliance, request: &[u8], asks: bool| {
        for ((clients, bare), raw) in CLIENTS.into_iter().zip(&bare).zip(&raw) {
            let found = under_load(appliance, request, clients);
            row(name, clients, &found, bare.cpu, asks.then_some(*raw));
        }
    };
    for (clients, bare) in CLIENTS.into_iter().zip(&bare) {
        row("a bare answer", clients, bare, bare.cpu, None);
    }
    let plain = json!({ "KeyId": key, "Plaintext": "c2VjcmV0" });
    let blob = appliance.ask("TrentService", "Encrypt", &plain)["CiphertextBlob"].clone();
    let data_key = json!({ "KeyId": key, "KeySpec": "AES_256" });
    let kms = [
        ("Encrypt", plain),
        ("Decrypt", json!({ "CiphertextBlob": blob })),
        ("GenerateDataKey", data_key),
    ];
    for (name, body) in kms {
        rows(name, &appliance, &appliance.request("TrentService", name, &body), true);
    }
    let body = json!({ "SecretId": "s" });
    let read = |appliance: &Appliance| appliance.request("secretsmanager", "GetSecretValue", &body);
    rows("GetSecretValue, cached", &appliance, &read(&appliance), false);
    drop(appliance);
    // Every read asks the token.
    configure(&dir, "\n[data_key_cache]", "entries = 0");
    let appliance = start(&dir, token);
    rows("GetSecretValue, not cached", &appliance, &read(&appliance), true);
}

fn main() {
    let mut tokens: Vec<_> =
        std::env::args().skip(1).filter_map(|word| Token::named(&word)).collect();
    if tokens.is_empty() {
        tokens.extend(Token::named("softhsm2"));
    }
    tokens.iter().for_each(measured);
}
