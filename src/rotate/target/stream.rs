//! The way to a system: TCP, with TLS over it unless the secret says otherwise.

use super::{CONNECT, Login, Refusal, Tls, within};
use crate::roots;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Join, ReadBuf, Take, join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

/// The most that is read of one connection, in bytes: several of the longest answers. Drivers keep what
/// they read, and the server is whatever a secret names.
const MOST: u64 = 8 << 20;

/// A TCP connection that ends after [`MOST`] bytes of the server's.
pub(super) type Tcp = Join<Take<OwnedReadHalf>, OwnedWriteHalf>;

/// Bytes both ways, in the clear or not.
pub(super) enum Stream {
    Plain(Tcp),
    Encrypted(Box<TlsStream<Tcp>>),
}

/// Connects and, if the login says so, does the handshake of TLS at once.
pub(super) async fn open(login: &Login) -> Result<Stream, Refusal> {
    let tcp = tcp(login).await?;
    match handshake(login).await? {
        None => Ok(Stream::Plain(tcp)),
        Some((connector, name)) => {
            let encrypted = connector.connect(name, tcp).await.map_err(tls_failed)?;
            Ok(Stream::Encrypted(Box::new(encrypted)))
        }
    }
}

/// The TCP connection alone.
pub(super) async fn tcp(login: &Login) -> Result<Tcp, Refusal> {
    within(CONNECT, async {
        let tcp = TcpStream::connect((login.host.as_str(), login.port)).await;
        let tcp = tcp.map_err(Refusal::unreachable)?;
        tcp.set_nodelay(true).map_err(Refusal::unreachable)?;
        let (read, write) = tcp.into_split();
        Ok(join(read.take(MOST), write))
    })
    .await
}

/// What a handshake takes; nothing if there is to be none.
pub(super) async fn handshake(
    login: &Login,
) -> Result<Option<(TlsConnector, ServerName<'static>)>, Refusal> {
    let (Some(roots), host) = (login.tls.roots(), login.host.clone()) else { return Ok(None) };
    blocking(move || roots.client(&host)).await.map(Some)
}

/// The certificates to trust; nothing without TLS.
pub(super) async fn certificates(
    tls: &Tls,
) -> Result<Option<Vec<CertificateDer<'static>>>, Refusal> {
    let Some(roots) = tls.roots() else { return Ok(None) };
    blocking(move || roots.certificates()).await.map(Some)
}

/// Roots are read anew each time, so that new ones need no restart.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, roots::Error> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await.map_err(Refusal::other)?;
    done.map_err(Refusal::other)
}

/// What rustls says names no secret: it knows none.
fn tls_failed(why: io::Error) -> Refusal {
    Refusal::Unreachable(format!("TLS: {why}"))
}

impl Stream {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut (dyn Both + Unpin)> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream),
            Self::Encrypted(stream) => Pin::new(stream.as_mut()),
        }
    }
}

trait Both: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Both for T {}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
