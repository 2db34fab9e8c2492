//! `strongroom dev` as a benchmark drives it, and the plainest client there is.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use strongroom::identity::sigv4::{ALGORITHM, SigningKey};
use strongroom::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_strongroom");
const REGION: &str = "us-east-1";

/// A throw-away appliance that runs.
pub(crate) struct Appliance {
    child: Child,
    _out: BufReader<ChildStdout>,
    pub(crate) address: String,
    id: String,
    secret: Secret,
}

impl Appliance {
    /// Starts one of this kind of token in a folder; the module is the profile's own if none is named.
    pub(crate) fn start(dir: &Path, kind: &str, module: Option<&str>) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["dev", "--json", "--token", kind, "--dir"]).arg(dir);
        command.args(module.into_iter().flat_map(|module| ["--token-module", module]));
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
    pub(crate) fn request(&self, service: &str, operation: &str, body: &Value) -> Vec<u8> {
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
    pub(crate) fn ask(&self, service: &str, operation: &str, body: &Value) -> Value {
        let request = self.request(service, operation, body);
        let answer =
            on_one_thread(async { Client::new(&self.address).await.exchange(&request).await });
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// Processor time of the server's processes so far.
    pub(crate) fn cpu(&self) -> Duration {
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
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Self { stream, buffer: vec![0; 16 * 1024] }
    }

    /// The body of the answer, whose status must be 200.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Vec<u8> {
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
pub(crate) fn on_one_thread<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}
