//! The way to a system: TCP, with TLS over it unless the secret says otherwise.

use super::{CONNECT, Login, Refusal, Tls, within};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Join, ReadBuf, Take, join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

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
    let Some(certificates) = roots(&login.tls).await? else { return Ok(None) };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates);
    if store.is_empty() {
        return Err(Refusal::other("there is no certificate to trust for TLS"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Refusal::other)?
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(login.host.clone());
    let name = name.map_err(|_| Refusal::other("`host` is no name that a certificate can have"))?;
    Ok(Some((TlsConnector::from(Arc::new(config)), name)))
}

/// The certificates to trust; nothing without TLS. The system's are read anew each time, so that
/// new ones need no restart.
pub(super) async fn roots(tls: &Tls) -> Result<Option<Vec<CertificateDer<'static>>>, Refusal> {
    match tls {
        Tls::Off => Ok(None),
        Tls::System => {
            let read = || rustls_native_certs::load_native_certs().certs;
            Ok(Some(tokio::task::spawn_blocking(read).await.map_err(Refusal::other)?))
        }
        Tls::Roots(pem) => {
            let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
            Ok(Some(found.map_err(|_| Refusal::other("the roots for TLS are no PEM"))?))
        }
    }
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
