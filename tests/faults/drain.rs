//! SIGTERM under load: what was begun is finished, what was acknowledged stands. And the same
//! service over TLS, as `strongroom serve` gives it.

use crate::appliance::{Appliance, Lots, PROGRAM, chmod};
use crate::client::{Client, Credentials, Stream, sign};
use crate::crash::Trail;
use crate::load::Worker;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs,
};

#[test]
fn told_to_end_under_load_it_answers_what_it_has_begun() {
    let mut appliance = Appliance::start();
    let mut trail = Trail::default();
    let mut workers: Vec<_> = (0..6).map(|n| Worker::new(n, &appliance, Lots(n as u64))).collect();
    for round in 0..5 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| worker.work(&stop));
            }
            std::thread::sleep(Duration::from_millis(150));
            appliance.signal("TERM");
        });
        appliance.ended();
        for worker in &workers {
            let error = worker.broke.as_ref().expect("it ended");
            // A new connection after the end is refused. A request that crosses with the end of an
            // idle connection finds it closed, and its client may send it again: it was not begun.
            let unbegun = [
                ErrorKind::ConnectionRefused,
                ErrorKind::UnexpectedEof,
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
            ];
            assert!(unbegun.contains(&error.kind()), "round {round}: {error}");
        }
        appliance.resume();
        trail.read(&appliance);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| worker.check(&appliance, &trail.successes, false));
            }
        });
    }
    assert_eq!(trail.torn, 0);
}

/// `strongroom serve` with TLS, and what a client needs.
pub(crate) struct Served {
    folder: tempfile::TempDir,
    pub(crate) child: Child,
    address: String,
    pub(crate) credentials: Credentials,
    tls: ClientConfig,
}

impl Served {
    /// A file or folder of the appliance's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("site").join(name)
    }

    /// A new TLS connection.
    pub(crate) fn connect(&self) -> Box<dyn Stream> {
        let host = ServerName::try_from("localhost").expect("a name");
        let tcp = TcpStream::connect(&self.address).expect("connected");
        let session = ClientConnection::new(Arc::new(self.tls.clone()), host).expect("TLS");
        Box::new(StreamOwned::new(session, tcp))
    }

    /// The output of a request over HTTP/2, on a connection of its own.
    pub(crate) fn over_http_2(&self, operation: &str, input: &Value) -> Value {
        let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build();
        reactor.expect("a reactor").block_on(over_http_2(self, operation, input))
    }

    /// A client on a new TLS connection.
    pub(crate) fn client(&self, credentials: &Credentials) -> Client {
        Client::over(self.connect(), &self.address, credentials)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A new one, some of whose configuration is replaced.
pub(crate) fn serve_tls(settings: &[(&str, &str)]) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("site");
    let made = Command::new(PROGRAM)
        .args(["init", "--region", "eu-central-1", "--dir"])
        .arg(&dir)
        .output()
        .expect("init");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let told = String::from_utf8(made.stdout).expect("text");
    let exported = |name: &str| {
        let at = told.find(&format!("export {name}=")).unwrap_or_else(|| panic!("{name}: {told}"));
        told[at..].lines().next().and_then(|l| l.split_once('=')).expect("a value").1.to_owned()
    };
    let credentials = Credentials {
        id: exported("AWS_ACCESS_KEY_ID"),
        secret: exported("AWS_SECRET_ACCESS_KEY"),
        token: String::new(),
        region: exported("AWS_DEFAULT_REGION"),
    };
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(dir.join("chain.pem"), key.cert.pem()).expect("written");
    fs::write(dir.join("key.pem"), key.signing_key.serialize_pem()).expect("written");
    chmod(&dir.join("key.pem"), 0o600);
    let path = dir.join("strongroom.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let text = text.replace(
        "listen_plain = [\"127.0.0.1:8200\"]",
        "listen = [\"127.0.0.1:0\"]\ntls = { certificate = \"chain.pem\", key = \"key.pem\" }",
    );
    let text = settings.iter().fold(text, |text, (from, to)| text.replace(from, to));
    fs::write(&path, text).expect("written");
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(&path)
        .env("STRONGROOM_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    out.read_line(&mut line).expect("a line");
    // It goes on writing; nobody need read it.
    std::thread::spawn(move || drop(std::io::copy(&mut out, &mut std::io::sink())));
    let address =
        line.strip_prefix("serving https://127.0.0.1:").unwrap_or_else(|| panic!("{line}"));
    let port = address.split(' ').next().expect("a port");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(key.cert.der().to_vec())).expect("a root");
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Served { folder, child, address: format!("localhost:{port}"), credentials, tls }
}

#[test]
fn serve_speaks_http_1_and_2_over_tls() {
    let mut served = serve_tls(&[]);
    let mut client = served.client(&served.credentials);
    let input = json!({"Name": "over TLS", "SecretString": "hunter2"});
    let refused = client.ask("secretsmanager:CreateSecret", &input);
    assert_eq!(refused.code(), "ValidationException", "spaces are not for names");
    let input = json!({"Name": "over-tls", "SecretString": "hunter2"});
    client.ask("secretsmanager:CreateSecret", &input).output();

    let input = json!({"SecretId": "over-tls"});
    let value = served.over_http_2("secretsmanager:GetSecretValue", &input);
    assert_eq!(value["SecretString"], "hunter2");

    let pid = served.child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
    assert!(served.child.wait().expect("ended").success());
    assert!(served.path("audit.jsonl").exists());
}

async fn over_http_2(served: &Served, operation: &str, input: &Value) -> Value {
    let host = ServerName::try_from("localhost").expect("a name");
    let tcp = tokio::net::TcpStream::connect(&served.address).await.expect("connected");
    let mut tls = served.tls.clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(host, tcp).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let io = TokioIo::new(stream);
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let body = input.to_string();
    let uri = format!("https://{}/", served.address);
    let mut request = http::Request::post(uri);
    for (name, value) in sign(&served.credentials, &served.address, operation, body.as_bytes()) {
        // In HTTP/2 the host is `:authority`, and signed as `host` all the same.
        if name != "host" {
            request = request.header(name, value);
        }
    }
    let request = request.body(Full::new(bytes::Bytes::from(body))).expect("a request");
    let answer = send.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}
