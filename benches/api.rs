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

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use strongroom::identity::sigv4::{ALGORITHM, SigningKey};
use strongroom::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long one measurement takes.
const SPAN: Duration = Duration::from_secs(3);
const CLIENTS: [usize; 4] = [1, 4, 16, 64];
const PROGRAM: &str = env!("CARGO_BIN_EXE_strongroom");
const REGION: &str = "us-east-1";

/// A throw-away appliance that runs.
struct Appliance {
    child: Child,
    _out: BufReader<ChildStdout>,
    address: String,
    id: String,
    secret: Secret,
}

impl Appliance {
    fn start(dir: &Path, token: &Token) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["dev", "--json", "--token", &token.kind, "--dir"]).arg(dir);
        command.args(token.module.iter().flat_map(|module| ["--token-module", module]));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("ready");
        let text = |name: &str| ready[name].as_str().expect("there").to_owned();
        let address = text("endpoint").trim_start_matches("http://").to_owned();
        let secret = Secret::new(text("secret_access_key").into_bytes());
        Self { child, _out: out, address, id: text("access_key_id"), secret }
    }

    /// A signed request, as it goes over the wire: AWS JSON 1.1, Signature Version 4.
    fn request(&self, service: &str, operation: &str, body: &Value) -> Vec<u8> {
        let (body, host) = (body.to_string(), &self.address);
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let (day, target) = (&stamp[..8], format!("{service}.{operation}"));
        let prefix = if service == "TrentService" { "kms" } else { service };
        let scope = format!("{day}/{REGION}/{prefix}/aws4_request");
        let names = "host;x-amz-date;x-amz-target";
        let canonical = format!(
            "POST\n/\n\nhost:{host}\nx-amz-date:{stamp}\nx-amz-target:{target}\n\n{names}\n{}",
            hex(digest(&SHA256, body.as_bytes()).as_ref())
        );
        let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let key = SigningKey::derive(&self.secret, day, REGION, prefix).expect("a key");
        let text = format!("{ALGORITHM}\n{stamp}\n{scope}\n{hashed}");
        let signature = hex(key.sign(text.as_bytes()).as_ref());
        let id = &self.id;
        format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\nx-amz-date: {stamp}\r\nx-amz-target: {target}\r\n\
             content-type: application/x-amz-json-1.1\r\nauthorization: {ALGORITHM} \
             Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// One request, and what is answered.
    fn ask(&self, service: &str, operation: &str, body: &Value) -> Value {
        let request = self.request(service, operation, body);
        let answer =
            on_one_thread(async { Client::new(&self.address).await.exchange(&request).await });
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// Processor time of the server's processes so far.
    fn cpu(&self) -> Duration {
        cpu(&self.child.id().to_string())
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        // SIGTERM, by the shell's own command: it ends what it has started.
        let pid = self.child.id().to_string();
        drop(Command::new("sh").args(["-c", "kill \"$1\"", "sh", &pid]).status());
        drop(self.child.wait());
    }
}

/// Of this process and those of our program that it has started (proc_pid_stat: utime and stime in
/// hundredths of a second).
fn cpu(pid: &str) -> Duration {
    let folder = Path::new("/proc").join(pid);
    let ours = std::fs::read_link(folder.join("exe")).is_ok_and(|exe| exe == Path::new(PROGRAM));
    let Ok(stat) = std::fs::read_to_string(folder.join("stat")) else { return Duration::ZERO };
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    let tasks = std::fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
    let children =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let of_children: Duration =
        children.map(|text| text.split_whitespace().map(cpu).sum::<Duration>()).sum();
    of_children + if ours { Duration::from_millis(ticks * 10) } else { Duration::ZERO }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One connection.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Self { stream, buffer: vec![0; 16 * 1024] }
    }

    /// The body of the answer, whose status must be 200.
    async fn exchange(&mut self, request: &[u8]) -> Vec<u8> {
        self.stream.write_all(request).await.expect("sent");
        let mut have = 0;
        loop {
            have += self.stream.read(&mut self.buffer[have..]).await.expect("an answer");
            let got = &self.buffer[..have];
            let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).expect("a length");
            let length = length.split("\r\n").next().and_then(|text| text.parse::<usize>().ok());
            let whole = end + 4 + length.expect("a length");
            if have >= whole {
                let body = &got[end + 4..whole];
                assert!(head.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(body));
                return body.to_vec();
            }
        }
    }
}

/// All clients are on one thread.
fn on_one_thread<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

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
        drop(Appliance::start(&dir, token));
        configure(&dir, "\nprofile = ", &format!("scheme = \"{scheme}\""));
    }
    let appliance = Appliance::start(&dir, token);
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
    let appliance = Appliance::start(&dir, token);
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
    let appliance = Appliance::start(&dir, token);
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
