//! A running appliance for the tests in `tests/`, and clients of the AWS SDK for Rust for it.
//!
//! `STRONGROOM_BIN` names the binary: each [`Appliance`] is a `strongroom dev` of its own, on a free
//! port, in a folder that goes with it. Without it, endpoint and credentials come from the variables
//! that every AWS client reads (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...).

use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{Credentials, Region};
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_http_client::Builder;
use std::env;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// Where an appliance is and who may call it.
pub struct Appliance {
    /// The URL.
    pub endpoint: String,
    region: String,
    credentials: Credentials,
    _process: Option<Process>,
}

/// A process that ends, and a folder that goes, with this value.
struct Process {
    child: Child,
    dir: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // What can't be ended or removed now is no test's concern any more.
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// The machine's clock, wrong by so much.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// How much it is slow.
    pub slow: Duration,
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        SystemTime::now() - self.slow
    }
}

/// A clock that is right.
pub const RIGHT: Clock = Clock { slow: Duration::ZERO };

impl Appliance {
    /// Starts an appliance, or takes the one that the environment names.
    ///
    /// # Errors
    /// If the binary can't be started or says something else than its line, or the environment names
    /// neither a binary nor an appliance.
    pub fn start() -> io::Result<Self> {
        match env::var_os("STRONGROOM_BIN") {
            Some(binary) => Self::spawn(&PathBuf::from(binary)),
            None => Self::from_environment(),
        }
    }

    fn spawn(binary: &PathBuf) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("strongroom-rust-{}-{n}", std::process::id()));
        std::fs::create_dir(&dir)?;
        let child = Command::new(binary)
            .args(["dev", "--listen", "127.0.0.1:0", "--json", "--dir"])
            .arg(dir.join("appliance"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut process = Process { child, dir };
        let mut line = String::new();
        if let Some(out) = process.child.stdout.as_mut() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let text = |name: &str| ready[name].as_str().map(str::to_owned);
        let required = |name| text(name).ok_or_else(|| missing(name));
        Ok(Self {
            endpoint: required("endpoint")?,
            region: required("region")?,
            credentials: Credentials::new(
                required("access_key_id")?,
                required("secret_access_key")?,
                text("session_token"),
                None,
                "strongroom dev",
            ),
            _process: Some(process),
        })
    }

    fn from_environment() -> io::Result<Self> {
        let required = |name| env::var(name).map_err(|_| missing(name));
        Ok(Self {
            endpoint: required("AWS_ENDPOINT_URL")?,
            region: required("AWS_REGION").or_else(|_| required("AWS_DEFAULT_REGION"))?,
            credentials: Credentials::new(
                required("AWS_ACCESS_KEY_ID")?,
                required("AWS_SECRET_ACCESS_KEY")?,
                env::var("AWS_SESSION_TOKEN").ok(),
                None,
                "environment",
            ),
            _process: None,
        })
    }

    /// A client for KMS whose clock may be wrong and which tries a request so many times.
    pub fn kms(&self, clock: Clock, attempts: u32) -> aws_sdk_kms::Client {
        let config = aws_sdk_kms::Config::builder()
            .behavior_version_latest()
            .endpoint_url(&self.endpoint)
            .region(Region::new(self.region.clone()))
            .credentials_provider(self.credentials.clone())
            .http_client(Builder::new().build_http())
            .retry_config(RetryConfig::standard().with_max_attempts(attempts))
            .time_source(SharedTimeSource::new(clock));
        aws_sdk_kms::Client::from_conf(config.build())
    }

    /// A client for Secrets Manager.
    pub fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version_latest()
            .endpoint_url(&self.endpoint)
            .region(Region::new(self.region.clone()))
            .credentials_provider(self.credentials.clone())
            .http_client(Builder::new().build_http())
            .retry_config(RetryConfig::standard().with_max_attempts(1));
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("`{name}` is missing"))
}
