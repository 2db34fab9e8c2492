//! The front door over real sockets: limits, refusals, TLS, drain.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom::clock::{NoRandomness, Random, SystemRandom};
use strongroom::front::listen::{ListenError, Listener, open, serve};
use strongroom::front::message::{Handler, Head, Incoming, Outgoing, Refusal};
use strongroom::front::options::{Limits, Options};
use strongroom::front::tls::{Files, Tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Answers with what it received; `/slow` takes 300 ms, `/never` for ever, `/panic` panics.
struct Echo;

fn text(status: StatusCode, body: String) -> Outgoing {
    let content_type = HeaderValue::from_static("text/plain");
    Outgoing { status, content_type, body: body.into_bytes().into(), headers: Vec::new() }
}

impl Handler for Echo {
    async fn handle(&self, request: &Incoming) -> Outgoing {
        let head = &request.head;
        match head.uri.path() {
            "/slow" => tokio::time::sleep(Duration::from_millis(300)).await,
            "/never" => std::future::pending().await,
            "/panic" => panic!("on purpose"),
            _ => {}
        }
        let tls = head.tls.map_or(String::from("plain"), |t| format!("{} {}", t.version, t.cipher));
        let body = String::from_utf8_lossy(request.body.expose()).into_owned();
        text(StatusCode::OK, format!("{} {:?} {tls} [{body}]", head.method, head.version))
    }

    fn refuse(&self, refusal: Refusal, head: &Head) -> Outgoing {
        if head.uri.path() == "/panic-twice" {
            panic!("on purpose");
        }
        text(refusal.status(), format!("refused: {refusal}"))
    }
}

struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Running {
    fn start(listener: Listener, limits: Limits) -> Self {
        Self::with_random(listener, limits, Arc::new(SystemRandom))
    }

    fn with_random(listener: Listener, limits: Limits, random: Arc<dyn Random>) -> Self {
        let address = listener.address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            stopped.await.unwrap_or_default();
        };
        let served = tokio::spawn(serve(vec![listener], limits, random, Arc::new(Echo), shutdown));
        Self { address, stop: Some(stop), served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

fn plain(limits: Limits) -> Running {
    Running::start(Listener::plain("127.0.0.1:0".parse().unwrap()).unwrap(), limits)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// One HTTP/1.1 answer, read off a connection that may stay open.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head, body: String::new() };
    let length = answer.field("content-length").map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    answer.body = String::from_utf8(body).unwrap();
    answer
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(stream).await
}

/// Waits until the server has closed, and says how long that took.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection stayed open");
    assert!(rest.is_empty(), "unexpected bytes: {}", String::from_utf8_lossy(&rest));
    began.elapsed()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_is_reused_and_each_answer_has_a_date_and_an_identifier_of_its_own() {
    let server = plain(Limits::default());
    let mut stream = server.connect().await;
    let mut ids = HashSet::new();
    for n in 0..40 {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{n:02}");
        let answer = ask(&mut stream, &request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, format!("POST HTTP/1.1 plain [{n:02}]"));
        assert!(answer.field("date").unwrap().ends_with(" GMT"));
        assert!(ids.insert(answer.field("x-amzn-requestid").unwrap().to_owned()));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = plain(Limits::default());
    let mut stream = server.connect().await;
    let request = |n| format!("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{n}");
    let all: String = (0..5).map(request).collect();
    stream.write_all(all.as_bytes()).await.unwrap();
    for n in 0..5 {
        assert_eq!(read_answer(&mut stream).await.body, format!("PUT HTTP/1.1 plain [{n}]"));
    }
}

#[tokio::test]
async fn any_method_reaches_the_handler_but_connect() {
    let server = plain(Limits::default());
    for method in ["GET", "DELETE", "PATCH", "BREW"] {
        let mut stream = server.connect().await;
        let answer = ask(&mut stream, &format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(answer.body, format!("{method} HTTP/1.1 plain []"));
    }
    let mut stream = server.connect().await;
    let answer = ask(&mut stream, "CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n").await;
    assert_eq!((answer.status, &*answer.body), (400, "refused: the request is malformed"));
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let server = plain(Limits::default());
    let mut stream = server.connect().await;
    let request = "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 22\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_before_it_sends_the_body() {
    let server = plain(Limits::default());
    let mut stream = server.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    assert_eq!(ask(&mut stream, head).await.status, 100);
    assert_eq!(ask(&mut stream, "abc").await.body, "POST HTTP/1.1 plain [abc]");
}

#[tokio::test]
async fn a_client_that_closes_its_side_after_the_request_still_gets_the_answer() {
    let server = plain(Limits::default());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 200);
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_before_any_of_it_is_asked_for() {
    let server = plain(Limits { max_body: 1000, ..Limits::default() });
    let mut stream = server.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n";
    let answer = ask(&mut stream, head).await;
    assert_eq!((answer.status, &*answer.body), (413, "refused: the request body is too large"));
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(answer.field("x-amzn-requestid").unwrap().len(), 36);
    closed_after(&mut stream).await;
}

#[tokio::test]
async fn a_chunked_body_is_refused_as_soon_as_it_is_too_large() {
    let server = plain(Limits { max_body: 1000, ..Limits::default() });
    let mut stream = server.connect().await;
    let chunk = format!("320\r\n{}\r\n", "x".repeat(800));
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    // The end of the body is never sent: the refusal must not wait for it.
    let answer = ask(&mut stream, &format!("{head}{chunk}{chunk}")).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_client_that_sends_all_of_a_too_large_body_before_it_reads_still_sees_the_refusal() {
    let server = plain(Limits { max_body: 1000, ..Limits::default() });
    for _ in 0..20 {
        let mut stream = server.connect().await;
        let size = 3 << 20;
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; size]).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.status, 413);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_badly_framed_is_malformed() {
    let server = plain(Limits::default());
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = server.connect().await;
    let answer = ask(&mut stream, &format!("{head}zz\r\n")).await;
    assert_eq!((answer.status, &*answer.body), (400, "refused: the request is malformed"));
    let mut stream = server.connect().await;
    stream.write_all(format!("{head}5\r\nab").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 400);
}

#[tokio::test]
async fn too_many_header_fields_are_refused_with_an_identifier() {
    let server = plain(Limits { max_headers: 20, ..Limits::default() });
    let fields = |n| (0..n).map(|i| format!("x-{i}: 1\r\n")).collect::<String>();
    let mut stream = server.connect().await;
    let request = format!("GET / HTTP/1.1\r\n{}\r\n", fields(20));
    assert_eq!(ask(&mut stream, &request).await.status, 200);
    let answer = ask(&mut stream, &format!("GET / HTTP/1.1\r\n{}\r\n", fields(21))).await;
    assert_eq!((answer.status, &*answer.body), (431, "refused: the request headers are too large"));
    assert_eq!(answer.field("x-amzn-requestid").unwrap().len(), 36);
    // What the parser itself refuses has no identifier, but is refused.
    let mut stream = server.connect().await;
    let answer = ask(&mut stream, &format!("GET / HTTP/1.1\r\n{}\r\n", fields(101))).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn header_bytes_are_limited_whether_few_or_many() {
    let server = plain(Limits { max_header_bytes: 8 << 10, ..Limits::default() });
    let request = |n| format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(n));
    let mut stream = server.connect().await;
    assert_eq!(ask(&mut stream, &request(8000)).await.status, 200);
    let answer = ask(&mut stream, &request(8300)).await;
    assert_eq!((answer.status, &*answer.body), (431, "refused: the request headers are too large"));
    let mut stream = server.connect().await;
    assert_eq!(ask(&mut stream, &request(40_000)).await.status, 431);
}

#[tokio::test]
async fn a_slow_head_is_cut_off_however_steadily_it_drips() {
    let server = plain(Limits { header_read_timeout: millis(300), ..Limits::default() });
    // A silent connection, and one that keeps sending.
    let mut silent = server.connect().await;
    let took = closed_after(&mut silent).await;
    assert!(took > millis(200) && took < millis(1500), "{took:?}");
    for warm in [false, true] {
        let mut stream = server.connect().await;
        if warm {
            assert_eq!(ask(&mut stream, GET).await.status, 200);
            // Idle time is not header time.
            tokio::time::sleep(millis(500)).await;
        }
        let began = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            assert!(began.elapsed() < Duration::from_secs(3), "the drip went on");
            tokio::time::sleep(millis(40)).await;
        }
        assert!(began.elapsed() > millis(200));
    }
}

#[tokio::test]
async fn a_slow_body_is_refused_as_late() {
    let server = plain(Limits { body_read_timeout: millis(200), ..Limits::default() });
    let mut stream = server.connect().await;
    let request = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    let answer = ask(&mut stream, request).await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.body, "refused: the request was not received in time");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let limits = Limits { idle_timeout: millis(300), ..Limits::default() };
    let server = plain(limits);
    let mut stream = server.connect().await;
    for _ in 0..4 {
        assert_eq!(ask(&mut stream, GET).await.status, 200);
        tokio::time::sleep(millis(150)).await;
    }
    let slow = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(ask(&mut stream, slow).await.status, 200);
    let took = closed_after(&mut stream).await;
    assert!(took > millis(200) && took < millis(1500), "{took:?}");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_given_up_and_the_connection_lives() {
    let server = plain(Limits { request_timeout: millis(200), ..Limits::default() });
    let mut stream = server.connect().await;
    let answer = ask(&mut stream, "GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(
        (answer.status, &*answer.body),
        (503, "refused: the request was not answered in time")
    );
    assert_eq!(ask(&mut stream, GET).await.status, 200);
}

#[tokio::test]
async fn a_panic_costs_its_own_request_and_nothing_else() {
    let server = plain(Limits::default());
    let mut stream = server.connect().await;
    let answer = ask(&mut stream, "GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((answer.status, &*answer.body), (500, "refused: internal failure"));
    assert_eq!(ask(&mut stream, GET).await.status, 200);
    // Even one in the rendering of a refusal.
    let twice = format!("GET /panic-twice HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(65));
    let answer = ask(&mut stream, &twice).await;
    assert_eq!((answer.status, &*answer.body), (431, ""));
    assert_eq!(ask(&mut server.connect().await, GET).await.status, 200);
}

struct Broken;
impl Random for Broken {
    fn fill(&self, _: &mut [u8]) -> Result<(), NoRandomness> {
        Err(NoRandomness)
    }
}

#[tokio::test]
async fn without_randomness_nothing_is_answered() {
    let listener = Listener::plain("127.0.0.1:0".parse().unwrap()).unwrap();
    let server = Running::with_random(listener, Limits::default(), Arc::new(Broken));
    let answer = ask(&mut server.connect().await, GET).await;
    assert_eq!((answer.status, &*answer.body), (500, "refused: internal failure"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_in_words_then_closed_at_once() {
    let server = plain(Limits { max_connections: 2, ..Limits::default() });
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    assert_eq!(ask(&mut one, GET).await.status, 200);
    assert_eq!(ask(&mut two, GET).await.status, 200);
    let mut three = server.connect().await;
    let answer = ask(&mut three, GET).await;
    assert_eq!((answer.status, &*answer.body), (503, "refused: too many connections"));
    assert_eq!(answer.field("connection"), Some("close"));
    drop(three);
    tokio::time::sleep(millis(100)).await;
    // Two places and eight spare ones: of eleven silent ones the last is closed unheard.
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(server.connect().await);
    }
    let mut last = server.connect().await;
    assert!(closed_after(&mut last).await < Duration::from_secs(2));
    // A place that is given back can be had again.
    drop(one);
    tokio::time::sleep(millis(100)).await;
    assert_eq!(ask(&mut server.connect().await, GET).await.status, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_closes_the_idle_and_accepts_no_more() {
    let mut server = plain(Limits::default());
    let mut idle = server.connect().await;
    assert_eq!(ask(&mut idle, GET).await.status, 200);
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(millis(100)).await;
    server.stop();
    assert!(closed_after(&mut idle).await < millis(200));
    assert!(TcpStream::connect(server.address).await.is_err());
    assert_eq!(read_answer(&mut busy).await.status, 200);
    closed_after(&mut busy).await;
    tokio::time::timeout(Duration::from_secs(1), server.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_cuts_off_what_does_not_finish_in_time() {
    let mut server = plain(Limits { drain_timeout: millis(300), ..Limits::default() });
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(millis(50)).await;
    server.stop();
    let began = Instant::now();
    tokio::time::timeout(Duration::from_secs(3), server.served).await.unwrap().unwrap();
    assert!(began.elapsed() > millis(250));
}

#[tokio::test]
async fn plain_http_beyond_loopback_is_refused_by_the_listener_too() {
    let refused = Listener::plain("0.0.0.0:0".parse().unwrap()).err().unwrap();
    assert!(matches!(refused, ListenError::Options(_)));
    let options =
        Options { listen_plain: vec!["0.0.0.0:0".parse().unwrap()], ..Options::default() };
    let refused = open(&options, false).err().unwrap().to_string();
    assert_eq!(refused, "plain HTTP is for loopback addresses only, and `0.0.0.0:0` is not one");
}

/// A certificate for `localhost` in files of `dir`, and a client that trusts it alone.
fn certified(dir: &std::path::Path) -> Files {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let files = Files { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    files
}

fn connector(
    files: &Files,
    alpn: &str,
    version: &'static SupportedProtocolVersion,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

fn secured(files: &Files, limits: Limits) -> (Running, Arc<Tls>) {
    let address = "127.0.0.1:0".parse().unwrap();
    let options =
        Options { listen: vec![address], tls: Some(files.clone()), limits, ..Options::default() };
    let (mut listeners, tls) = open(&options, true).unwrap();
    (Running::start(listeners.pop().unwrap(), options.limits), tls.unwrap())
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_the_handler_is_told_which() {
    let dir = tempfile::tempdir().unwrap();
    let files = certified(dir.path());
    let (server, _) = secured(&files, Limits::default());
    for (version, expected) in [
        (&TLS13, "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        (&TLS12, "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ] {
        let connector = connector(&files, "http/1.1", version);
        let mut stream = connector.connect(localhost(), server.connect().await).await.unwrap();
        let answer = ask(&mut stream, GET).await;
        assert_eq!(answer.body, format!("GET HTTP/1.1 {expected} []"));
    }
}

#[tokio::test]
async fn a_reload_gives_new_connections_the_new_certificate_and_keeps_the_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let files = certified(dir.path());
    let (server, tls) = secured(&files, Limits::default());
    let old = connector(&files, "http/1.1", &TLS13);
    let mut kept = old.connect(localhost(), server.connect().await).await.unwrap();
    certified(dir.path());
    tls.reload().unwrap();
    assert_eq!(ask(&mut kept, GET).await.status, 200);
    assert!(
        connector(&files, "http/1.1", &TLS13)
            .connect(localhost(), server.connect().await)
            .await
            .is_ok()
    );
    let fresh_but_distrustful = {
        // The old certificate alone is trusted by `old`, and a new session is not resumed.
        let mut config = (**old.config()).clone();
        config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
        TlsConnector::from(Arc::new(config))
    };
    assert!(fresh_but_distrustful.connect(localhost(), server.connect().await).await.is_err());
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { tls_handshake_timeout: millis(200), ..Limits::default() };
    let (server, _) = secured(&certified(dir.path()), limits);
    let mut stream = server.connect().await;
    let took = closed_after(&mut stream).await;
    assert!(took > millis(100) && took < millis(1500), "{took:?}");
}

type H2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http2<S>(stream: S) -> H2
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask_h2(sender: &mut H2, path: &str, body: Vec<u8>) -> (http::response::Parts, String) {
    let uri = format!("https://localhost{path}");
    let request = Request::post(uri).body(Full::new(Bytes::from(body))).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn http2_is_chosen_by_alpn_and_by_prior_knowledge_on_plain_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let files = certified(dir.path());
    let (server, _) = secured(&files, Limits::default());
    let connector = connector(&files, "h2", &TLS13);
    let stream = connector.connect(localhost(), server.connect().await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (head, body) = ask_h2(&mut http2(stream).await, "/", b"hi".to_vec()).await;
    assert_eq!(body, "POST HTTP/2.0 TLSv1.3 TLS_AES_256_GCM_SHA384 [hi]");
    assert!(head.headers.contains_key("date"));
    assert_eq!(head.headers["x-amzn-requestid"].len(), 36);

    let server = plain(Limits::default());
    let mut sender = http2(server.connect().await).await;
    assert_eq!(ask_h2(&mut sender, "/", b"hi".to_vec()).await.1, "POST HTTP/2.0 plain [hi]");
}

#[tokio::test]
async fn http2_has_the_same_refusals_and_a_refused_stream_leaves_the_others_alone() {
    let limits = Limits { max_body: 200_000, request_timeout: millis(500), ..Limits::default() };
    let server = plain(limits);
    let sender = http2(server.connect().await).await;
    let ask =
        async |path: &str, size: usize| ask_h2(&mut sender.clone(), path, vec![b'x'; size]).await;
    let (slow, large, whole, panic, never) = tokio::join!(
        ask("/slow", 0),
        ask("/", 200_001),
        ask("/", 200_000),
        ask("/panic", 0),
        ask("/never", 0)
    );
    assert_eq!(slow.0.status, 200);
    assert_eq!(
        (large.0.status.as_u16(), &*large.1),
        (413, "refused: the request body is too large")
    );
    assert_eq!(whole.1, format!("POST HTTP/2.0 plain [{}]", "x".repeat(200_000)));
    assert_eq!(panic.0.status, 500);
    assert_eq!(never.0.status, 503);
}

#[tokio::test]
async fn an_http2_drain_finishes_the_streams_in_flight() {
    let mut server = plain(Limits::default());
    let mut sender = http2(server.connect().await).await;
    let mut other = sender.clone();
    let slow = tokio::spawn(async move { ask_h2(&mut other, "/slow", Vec::new()).await });
    tokio::time::sleep(millis(100)).await;
    server.stop();
    assert_eq!(slow.await.unwrap().0.status, 200);
    tokio::time::timeout(Duration::from_secs(1), server.served).await.unwrap().unwrap();
    let late = Request::get("http://localhost/").body(Full::default()).unwrap();
    assert!(sender.send_request(late).await.is_err());
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_though_it_pings() {
    let server = plain(Limits { idle_timeout: millis(300), ..Limits::default() });
    let mut stream = server.connect().await;
    // Preface, empty SETTINGS, one request, then a PING every 50 ms.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // HEADERS that end stream 1: :method GET, :path /, :scheme http, :authority "x" as a literal.
    let request = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86, 0x41, 1, b'x'];
    stream.write_all(&request).await.unwrap();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let began = Instant::now();
    let (mut read, mut write) = stream.into_split();
    let drained = tokio::spawn(async move {
        let mut all = Vec::new();
        drop(read.read_to_end(&mut all).await);
        all
    });
    while !drained.is_finished() && began.elapsed() < Duration::from_secs(6) {
        drop(write.write_all(&ping).await);
        tokio::time::sleep(millis(50)).await;
    }
    assert!(drained.is_finished(), "the pings kept it open");
    assert!(began.elapsed() > millis(250));
    let received = drained.await.unwrap();
    assert!(received.windows(5).any(|w| w == b"plain"), "the request was answered");
}
