//! A syslog sink over TLS: whose certificate it believes, and what becomes of requests meanwhile.

use crate::appliance::until;
use crate::requests;
use crate::sinks::{configure, ids, logged, syslog};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::fs;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What may issue certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server with a certificate for this name.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.expect("a server"))
    }
}

/// A syslog server at a port that it comes back to.
struct Collector {
    port: u16,
    records: Arc<Mutex<Vec<Value>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    down: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Collector {
    fn new() -> Self {
        // A port that is free; nobody listens there yet.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let (records, open, down) = (Arc::default(), Arc::default(), Arc::default());
        Self { port, records, open, down, accepting: None }
    }

    fn up(&mut self, config: Arc<ServerConfig>) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("the port");
        self.down.store(false, Ordering::SeqCst);
        let (records, open, down) = (self.records.clone(), self.open.clone(), self.down.clone());
        self.accepting = Some(std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if down.load(Ordering::SeqCst) {
                    return;
                }
                open.lock().expect("streams").push(stream.try_clone().expect("a stream"));
                let tls = ServerConnection::new(config.clone()).expect("a connection");
                let (stream, records) = (StreamOwned::new(tls, stream), records.clone());
                std::thread::spawn(move || syslog(stream, &records, &AtomicBool::new(false)));
            }
        }));
    }

    /// Ends every connection and listens no more.
    fn down(&mut self) {
        self.down.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.accepting.take().expect("it is up").join().expect("no panic");
        for stream in self.open.lock().expect("streams").drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn ids(&self) -> Vec<String> {
        ids(&self.records)
    }
}

#[test]
fn a_mandatory_sink_over_tls_is_who_it_should_be_or_requests_fail() {
    let (trusted, stranger) = (Authority::new(), Authority::new());
    let right = trusted.server("127.0.0.1");
    let mut collector = Collector::new();
    collector.up(right.clone());

    let mut appliance = crate::Appliance::start();
    appliance.stop();
    let before = crate::lines(&appliance);
    let ca = appliance.path("siem-ca.pem");
    fs::write(&ca, &trusted.pem).expect("written");
    configure(
        &appliance,
        &format!(
            "[[audit.sink]]\nname = 'siem'\nkind = 'syslog'\nmandatory = true\n\
             deadline_ms = 1000\nurl = 'tls://127.0.0.1:{}'\nca = '{}'\n",
            collector.port,
            ca.display()
        ),
    );
    appliance.resume();
    requests(&mut appliance.client(), 20);

    let failures: [(&str, Option<Arc<ServerConfig>>); 3] = [
        ("refused", None),
        // An authority of the same name, with a key of its own.
        ("BadSignature", Some(stranger.server("127.0.0.1"))),
        ("not valid for name", Some(trusted.server("localhost"))),
    ];
    for (why, impostor) in failures {
        until(why, Duration::from_secs(10), || collector.ids() == logged(&appliance, before));
        let had = collector.ids().len();
        collector.down();
        let impostors = impostor.is_some();
        if let Some(config) = impostor {
            collector.up(config);
        }
        let mut client = appliance.client();
        for _ in 0..3 {
            let reply = client.ask("kms:ListKeys", &json!({}));
            assert_eq!((reply.status, reply.code().as_str()), (500, "KMSInternalException"));
        }
        assert_eq!(client.look("/readyz").status, 503);
        let log = appliance.log();
        let told = log.lines().rfind(|line| line.contains("the audit sink fails"));
        assert!(told.is_some_and(|line| line.contains(why)), "{why}: {log}");
        assert_eq!(collector.ids().len(), had, "it gets nothing");

        if impostors {
            collector.down();
        }
        collector.up(right.clone());
        until("the service, without a start", Duration::from_secs(20), || {
            client.ask("kms:ListKeys", &json!({})).status == 200
        });
        until("readiness", Duration::from_secs(5), || client.look("/readyz").status == 200);
    }
    // Also what was asked for in vain is there, once and in order.
    until("every record", Duration::from_secs(10), || {
        collector.ids() == logged(&appliance, before)
    });
}
