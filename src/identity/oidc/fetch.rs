//! Reads an issuer's keys over HTTP: one GET, no redirect, little patience.

use super::options::Jwks;
use crate::identity::options::bounded;
use crate::roots::{self, Roots};
use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// From the look-up of the name to the last byte; AWS's own.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most bytes of keys.
pub(super) const MAX_ANSWER: usize = 256 * 1024;
/// The most bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The time is over.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    /// Files, connections.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Whom to trust.
    #[error(transparent)]
    Roots(#[from] roots::Error),
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
        // Read anew for each connection, so that new ones need no restart.
        let (roots, named) = (ca.into(), host.clone());
        let (connector, name) = on_thread(move || Ok(roots.client(&named)?)).await?;
        let stream = TcpStream::connect((host, port)).await?;
        return Ok(Box::new(connector.connect(name, stream).await?));
    }
    let address = loopback(&host).ok_or(FetchError::Name)?;
    let port = url.port_u16().unwrap_or(80);
    Ok(Box::new(TcpStream::connect((address, port)).await?))
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
