//! A running appliance, asked over its REST door with signed requests.

use crate::clock::World;
use crate::identity::sigv4::{ALGORITHM, SigningKey};
use crate::name::Service;
use crate::roots::Roots;
use crate::secret::Secret;
use crate::server::Error;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// The longest that an answer may take.
const DEADLINE: Duration = Duration::from_secs(70);
/// The longest answer, in bytes.
const LONGEST: usize = 16 << 20;
/// What SigV4 leaves as it is: unreserved characters (RFC 3986 section 2.3), and slashes in a path.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Which appliance, and as whom. The access key comes from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
/// and AWS_SESSION_TOKEN.
#[derive(Args)]
pub(super) struct Remote {
    /// The appliance; AWS_ENDPOINT_URL by default.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// Its region; AWS_REGION or AWS_DEFAULT_REGION by default.
    #[arg(long)]
    region: Option<String>,
    /// The certificates of the authority that issued its certificate (PEM); AWS_CA_BUNDLE by default.
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
}

/// An access key.
struct Credentials {
    id: String,
    secret: Secret,
    token: Option<Secret>,
}

impl Remote {
    /// Sends a request for an operation of `service`; `path` is below `/v1` and percent-encoded;
    /// it may end in a query of one parameter.
    ///
    /// # Errors
    /// [`Error::Remote`], in one sentence.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        service: Service,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, Error> {
        let answered = self.ask_whether(service, method, path, body).await?;
        answered.map_err(|problem| remote(problem.to_string()))
    }

    /// The same; a refusal by the appliance is told apart.
    ///
    /// # Errors
    /// [`Error::Remote`], in one sentence.
    pub(super) async fn ask_whether<T: DeserializeOwned>(
        &self,
        service: Service,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Result<T, Problem>, Error> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let endpoint = self.endpoint()?;
        let request = self.signed(&endpoint, service, method, path, body)?;
        let asked = tokio::time::timeout(DEADLINE, self.exchange(&endpoint, request)).await;
        let late = || remote(format!("{endpoint} did not answer in time"));
        let (status, body) = asked.map_err(|_| late())??;
        if status != StatusCode::OK {
            return Ok(Err(Problem::of(status, &body)));
        }
        let answer = serde_json::from_slice(&body)
            .map_err(|error| remote(format!("{endpoint} answered something else: {error}")));
        answer.map(Ok)
    }

    fn endpoint(&self) -> Result<Uri, Error> {
        let text = self.endpoint_url.clone().or_else(|| variable("AWS_ENDPOINT_URL"));
        let text = text.ok_or_else(|| remote("name the appliance: --endpoint-url"))?;
        let uri: Option<Uri> = text.parse().ok();
        let known = |uri: &Uri| {
            uri.authority().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
        };
        uri.filter(known).ok_or_else(|| remote(format!("`{text}` is no URL of an appliance")))
    }

    fn region(&self) -> Result<String, Error> {
        let given = self.region.clone();
        let given = given.or_else(|| variable("AWS_REGION"));
        let given = given.or_else(|| variable("AWS_DEFAULT_REGION"));
        given.ok_or_else(|| remote("name the appliance's region: --region"))
    }

    /// AWS Signature Version 4, header form.
    fn signed(
        &self,
        endpoint: &Uri,
        service: Service,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let credentials = Credentials::from_environment()?;
        let (host, path) = (authority(endpoint), format!("/v1{path}"));
        let now = World::system().clock.now();
        let stamp = jiff::Timestamp::from_second(now.seconds()).unwrap_or(jiff::Timestamp::MAX);
        let stamp = stamp.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = stamp.get(..8).unwrap_or_default();
        let region = self.region()?;
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let token = credentials.token.as_ref().and_then(Secret::expose_str);
        let mut headers = vec![("host", host), ("x-amz-date", stamp.as_str())];
        headers.extend(token.map(|token| ("x-amz-security-token", token)));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let (bare, query) = path.split_once('?').unwrap_or((&path, ""));
        let mut canonical = format!("{method}\n{}\n{query}\n", utf8_percent_encode(bare, PATH));
        for (name, value) in &headers {
            canonical.push_str(&format!("{name}:{value}\n"));
        }
        canonical.push_str(&format!("\n{names}\n{}", hex(digest(&SHA256, &body).as_ref())));
        let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let message = format!("{ALGORITHM}\n{stamp}\n{scope}\n{hashed}");
        let key = SigningKey::derive(&credentials.secret, day, &region, service.prefix());
        let key = key.map_err(|error| remote(error.to_string()))?;
        let signature = hex(key.sign(message.as_bytes()).as_ref());
        let id = &credentials.id;
        let authorization = format!(
            "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .header("authorization", authorization)
            .header("content-type", "application/json")
            .header("user-agent", concat!("strongroom/", env!("CARGO_PKG_VERSION")));
        request.body(Full::new(body)).map_err(|error| remote(error.to_string()))
    }

    async fn exchange(
        &self,
        endpoint: &Uri,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let unreachable = |why: &dyn std::fmt::Display| remote(format!("{endpoint}: {why}"));
        let secure = endpoint.scheme_str() == Some("https");
        let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = endpoint.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let trust = secure.then(|| self.trust(host)).transpose()?;
        let stream = TcpStream::connect((host, port)).await.map_err(|e| unreachable(&e))?;
        let Some((connector, name)) = trust else {
            return send(stream, request).await.map_err(|e| unreachable(&e));
        };
        let stream = connector.connect(name, stream).await.map_err(|e| unreachable(&e))?;
        send(stream, request).await.map_err(|e| unreachable(&e))
    }

    /// Whom to trust: the certificates that were named, and nobody else.
    fn trust(&self, host: &str) -> Result<(TlsConnector, ServerName<'static>), Error> {
        let file = self.ca_bundle.clone().or_else(|| variable("AWS_CA_BUNDLE").map(Into::into));
        let file = file.ok_or_else(|| {
            remote(
                "name the authority of the appliance's certificate: --ca-bundle or AWS_CA_BUNDLE",
            )
        })?;
        Roots::File(file).client(host).map_err(|e| remote(e.to_string()))
    }
}

impl Credentials {
    fn from_environment() -> Result<Self, Error> {
        let named = |name: &str| {
            variable(name).ok_or_else(|| remote(format!("no access key: {name} is not set")))
        };
        Ok(Self {
            id: named("AWS_ACCESS_KEY_ID")?,
            secret: Secret::new(named("AWS_SECRET_ACCESS_KEY")?.into_bytes()),
            token: variable("AWS_SESSION_TOKEN").map(|token| Secret::new(token.into_bytes())),
        })
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await?.to_bytes();
    driving.abort();
    Ok((status, body))
}

/// What a refusal says (RFC 9457), in one line.
#[derive(serde::Deserialize)]
pub(super) struct Problem {
    /// AWS's code.
    pub(super) title: String,
    #[serde(default)]
    pub(super) detail: String,
}

impl Problem {
    fn of(status: StatusCode, body: &[u8]) -> Self {
        let none =
            || Self { title: format!("the appliance answered {status}"), detail: String::new() };
        serde_json::from_slice(body).unwrap_or_else(|_| none())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { title, detail } = self;
        if detail.is_empty() { f.write_str(title) } else { write!(f, "{title}: {detail}") }
    }
}

fn authority(endpoint: &Uri) -> &str {
    endpoint.authority().map(http::uri::Authority::as_str).unwrap_or_default()
}

/// A variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn remote(text: impl Into<String>) -> Error {
    Error::Remote(text.into())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}
