//! The way to a sink: a TCP connection, with TLS over it if its URL says so.

use super::{Kind, Options, http, syslog};
use crate::roots::Roots;
use ::http::Uri;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The other side of a sink.
pub(super) struct Remote {
    peer: Peer,
    spoken: Spoken,
}

enum Spoken {
    Syslog(syslog::Client),
    Http(http::Client),
}

/// Where the other side is and how it is reached.
pub(super) struct Peer {
    pub(super) url: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Remote {
    /// Checks the settings; connects to nothing yet.
    pub(super) fn new(options: &Options, host: &str) -> Result<Self, String> {
        let schemes: [(&str, bool, u16); 2] = match options.kind {
            Kind::Syslog => [("tcp", false, 601), ("tls", true, 6514)],
            Kind::Http => [("http", false, 80), ("https", true, 443)],
        };
        let url: Uri = options.url.parse().map_err(|_| format!("`{}` is no URL", options.url))?;
        let scheme = schemes.iter().find(|(name, ..)| url.scheme_str() == Some(name));
        let Some((_, tls, port)) = scheme else {
            let [(one, ..), (other, ..)] = schemes;
            return Err(format!("its URL begins with `{one}://` or `{other}://`"));
        };
        let at = url.host().ok_or("its URL names no host")?;
        let at = at.trim_matches(['[', ']']).to_owned();
        let tls = if *tls { Some(connector(options.ca.as_deref(), &at)?) } else { None };
        let port = url.port_u16().unwrap_or(*port);
        let spoken = match options.kind {
            Kind::Syslog => Spoken::Syslog(syslog::Client::new(host)),
            Kind::Http => Spoken::Http(http::Client::default()),
        };
        Ok(Self { peer: Peer { url, host: at, port, tls }, spoken })
    }

    /// Sends records; they are taken when this returns well.
    pub(super) async fn send(&mut self, records: &[Vec<u8>]) -> Result<(), String> {
        let sent = match &mut self.spoken {
            Spoken::Syslog(client) => client.send(&self.peer, records).await,
            Spoken::Http(client) => client.send(&self.peer, records).await,
        };
        if sent.is_err() {
            self.hang_up();
        }
        sent
    }

    /// Forgets the connection.
    pub(super) fn hang_up(&mut self) {
        match &mut self.spoken {
            Spoken::Syslog(client) => client.hang_up(),
            Spoken::Http(client) => client.hang_up(),
        }
    }
}

impl Peer {
    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let failed = |e: std::io::Error| format!("{}:{}: {e}", self.host, self.port);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        match &self.tls {
            None => Ok(Box::new(tcp)),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await.map_err(failed)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// Whether the other side has closed the connection, as far as is known here.
pub(super) async fn closed(stream: &mut Box<dyn Stream>) -> bool {
    let mut byte = [0];
    // What a syslog server says is of no meaning; that it ends is.
    matches!(tokio::time::timeout(Duration::ZERO, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

fn connector(ca: Option<&Path>, host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let ca = ca.ok_or("TLS needs `ca`, the certificates of the authorities to trust")?;
    Roots::from(Some(ca)).client(host).map_err(|e| e.to_string())
}
