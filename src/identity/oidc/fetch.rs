//! Reads an issuer's keys over HTTP: one GET, no redirect, little patience.

use super::options::Jwks;
use crate::identity::options::bounded;
use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// From the look-up of the name to the last byte; AWS's own.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most bytes of keys.
pub(super) const MAX_ANSWER: usize = 256 * 1024;
/// The most bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;
/// The most bytes of a file with roots.
const MAX_ROOTS: u64 = 4 << 20;

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The time is over.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    /// Files, connections.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The request can't be written.
    #[error("the URL can't be asked for: {0}")]
    Url(#[from] http::Error),
    /// Another answer than keys; a redirect too.
    #[error("the answer has status {0}, not 200")]
    Status(StatusCode),
    /// Too long, or cut off.
    #[error("the answer is cut off, or longer than {MAX_ANSWER} bytes")]
    Body,
    /// No root to start from.
    #[error("`{0}` holds no certificate")]
    NoRoots(String),
    /// The URL's name is none that a certificate can have.
    #[error("the URL's name is none that a certificate can have")]
    Name,
}

/// Reads the keys' bytes.
pub(super) async fn read(jwks: &Jwks) -> Result<Vec<u8>, FetchError> {
    match jwks {
        Jwks::File(path) => {
            let path = path.clone();
            on_thread(move || Ok(bounded(&path, u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX))?))
                .await
        }
        Jwks::Url { url, ca } => {
            let fetched = tokio::time::timeout(DEADLINE, get(url, ca.as_deref())).await;
            fetched.unwrap_or(Err(FetchError::Late))
        }
    }
}

/// What is on loopback by its own word: a literal address, or `localhost`, which is not looked up.
pub(super) fn loopback(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::from([127, 0, 0, 1]));
    }
    let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    address.is_loopback().then_some(address)
}

/// Whom to trust.
#[derive(Clone, Debug)]
pub(crate) enum Roots {
    /// The system's authorities.
    System,
    /// Those of a file.
    File(PathBuf),
    /// These (PEM).
    Pem(String),
}

impl From<Option<&Path>> for Roots {
    fn from(ca: Option<&Path>) -> Self {
        ca.map_or(Self::System, |path| Self::File(path.to_owned()))
    }
}

/// The roots themselves.
pub(super) fn roots(ca: &Roots) -> Result<RootCertStore, FetchError> {
    let mut store = RootCertStore::empty();
    let parsed = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
    let (shown, certificates): (_, Vec<_>) = match ca {
        Roots::File(path) => {
            let shown = path.display().to_string();
            let pem = bounded(path, MAX_ROOTS)
                .map_err(|why| io::Error::new(why.kind(), format!("`{shown}`: {why}")))?;
            (shown, parsed(&pem))
        }
        Roots::Pem(pem) => ("the PEM".to_owned(), parsed(pem.as_bytes())),
        Roots::System => ("the system".to_owned(), rustls_native_certs::load_native_certs().certs),
    };
    store.add_parsable_certificates(certificates);
    if store.is_empty() { Err(FetchError::NoRoots(shown)) } else { Ok(store) }
}

/// Runs what blocks on a thread that may.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|why| Err(io::Error::other(why).into()))
}

async fn get(url: &Uri, ca: Option<&Path>) -> Result<Vec<u8>, FetchError> {
    exchange(connect(url, ca).await?, url).await
}

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to the server of a URL: TLS for `https`, and for `http` none, to loopback alone.
pub(crate) async fn connect(
    url: &Uri,
    ca: impl Into<Roots>,
) -> Result<Box<dyn Stream>, FetchError> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if url.scheme_str() == Some("https") {
        let port = url.port_u16().unwrap_or(443);
        let name = ServerName::try_from(host.clone()).map_err(|_| FetchError::Name)?;
        let connector = connector(ca.into()).await?;
        let stream = TcpStream::connect((host, port)).await?;
        return Ok(Box::new(connector.connect(name, stream).await?));
    }
    let address = loopback(&host).ok_or(FetchError::Name)?;
    let port = url.port_u16().unwrap_or(80);
    Ok(Box::new(TcpStream::connect((address, port)).await?))
}

/// The roots are read anew for each connection, so that new ones need no restart.
async fn connector(ca: Roots) -> Result<TlsConnector, FetchError> {
    let roots = on_thread(move || roots(&ca)).await?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange<S>(stream: S, url: &Uri) -> Result<Vec<u8>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = http1::Builder::new();
    client.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await?;
    let request = Request::get(url.path_and_query().map_or("/", |target| target.as_str()))
        .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, "strongroom")
        .body(Empty::<Bytes>::new())?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok(body.map_err(|_| FetchError::Body)?.to_bytes().to_vec())
    };
    let mut answer = std::pin::pin!(answer);
    // The connection is driven by this very task, and is dropped with it.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}
