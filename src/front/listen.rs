//! Accepts connections, holds them to their limits, hands whole requests to a [`Handler`], and
//! drains at the end.

use super::client;
use super::exchange::{Desk, Line};
use super::message::Handler;
use super::options::{Limits, Options, OptionsError, is_loopback};
use super::settle::settled;
use super::tls::{Tls, TlsDetails, TlsError};
use super::watch::{Watched, drive};
use crate::clock::Random;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;

/// First and longest pause after a failed accept (no file descriptor left, no memory).
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// HTTP/2 windows, in bytes: what a client may send ahead on a stream and on a connection.
const H2_WINDOWS: (u32, u32) = (64 << 10, 256 << 10);

/// Bytes of an answer that HTTP/2 holds for a client that is slow to take them.
const H2_SEND_BUFFER: usize = 256 << 10;

/// Why listening failed.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The settings can't be served with.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The certificate or its key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address can't be had.
    #[error("can't listen on `{address}`: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// A bound address, with or without TLS.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Binds `address` without TLS; refused unless it is a loopback address. Needs a tokio runtime.
    pub fn plain(address: SocketAddr) -> Result<Self, ListenError> {
        if !is_loopback(&address) {
            return Err(OptionsError::PlainBeyondLoopback(address).into());
        }
        Ok(Self { tcp: bind(address)?, tls: None })
    }

    /// Binds `address` with TLS. Needs a tokio runtime.
    pub fn tls(address: SocketAddr, tls: Arc<Tls>) -> Result<Self, ListenError> {
        Ok(Self { tcp: bind(address)?, tls: Some(tls) })
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The address that is bound: with port 0, the port that was found.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| ListenError::Bind { address, error })
}

/// Checks the options and binds every address in them. With `ask_for_certificates` clients are asked
/// for one of theirs; they need not have any. The [`Tls`], if there is one, is for
/// reloading the certificate. Needs a tokio runtime.
pub fn open(
    options: &Options,
    ask_for_certificates: bool,
) -> Result<(Vec<Listener>, Option<Arc<Tls>>), ListenError> {
    options.validate()?;
    let tls = options.tls.clone().map(|files| Tls::open(files, ask_for_certificates));
    let tls = tls.transpose()?.map(Arc::new);
    let mut listeners = Vec::new();
    for address in &options.listen_plain {
        listeners.push(Listener::plain(*address)?);
    }
    for address in &options.listen {
        let tls = tls.clone().ok_or(OptionsError::NoCertificate)?;
        listeners.push(Listener::tls(*address, tls)?);
    }
    Ok((listeners, tls))
}

/// Serves until `shutdown` is ready; then accepts nothing more, finishes what is in flight within
/// [`Limits::drain_timeout`], cuts off the rest, and returns.
pub async fn serve<H: Handler>(
    listeners: Vec<Listener>,
    limits: Limits,
    random: Arc<dyn Random>,
    handler: Arc<H>,
    shutdown: impl Future<Output = ()>,
) {
    let door = Arc::new(Door::new(limits, random, handler));
    let (stop, stopped) = watch::channel(false);
    let mut doors = JoinSet::new();
    for listener in listeners {
        doors.spawn(accept(door.clone(), listener, stopped.clone()));
    }
    shutdown.await;
    stop.send_replace(true);
    while doors.join_next().await.is_some() {}
}

/// What all connections share.
struct Door<H> {
    desk: Arc<Desk<H>>,
    http: auto::Builder<TokioExecutor>,
    slots: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

impl<H: Handler> Door<H> {
    fn new(limits: Limits, random: Arc<dyn Random>, handler: Arc<H>) -> Self {
        Self {
            http: protocol(&limits),
            slots: Arc::new(Semaphore::new(limits.max_connections)),
            spare: Arc::new(Semaphore::new(limits.spare_connections())),
            desk: Arc::new(Desk { handler, limits, random }),
        }
    }

    /// A place for a connection: a real one, else one to be refused in, else none.
    fn admit(&self) -> Option<(OwnedSemaphorePermit, bool)> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Some((slot, false));
        }
        Some((self.spare.clone().try_acquire_owned().ok()?, true))
    }
}

fn protocol(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        // Timed in `watch`, without a timer for every request.
        .header_read_timeout(None)
        // A client that has sent its request may close its side and still get the answer; and one
        // that goes away doesn't cancel what it began.
        .half_close(true)
        // Room for heads up to twice the limit, so that they can be refused in words.
        .max_buf_size(limits.max_header_bytes.saturating_mul(2))
        // Answers are not copied into hyper's own buffer, which isn't wiped.
        .writev(true);
    // Resets are bounded by the defaults of h2: 20 unaccepted (CVE-2023-44487), 1,024 of ours.
    http.http2()
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_WINDOWS.0)
        .initial_connection_window_size(H2_WINDOWS.1)
        .max_send_buf_size(H2_SEND_BUFFER);
    http
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

async fn accept<H: Handler>(
    door: Arc<Door<H>>,
    listener: Listener,
    mut stop: watch::Receiver<bool>,
) {
    let Listener { tcp, tls } = listener;
    let mut open = JoinSet::new();
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = tcp.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE.0;
                if let Some((slot, surplus)) = door.admit() {
                    let line = Line::new(door.desk.clone(), peer, surplus);
                    let (door, tls, stop) = (door.clone(), tls.clone(), stop.clone());
                    open.spawn(async move {
                        settled(pin!(greet(door, line, stream, tls, stop))).await;
                        drop(slot);
                    });
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "can't accept connections");
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(ACCEPT_PAUSE.1);
            }
        }
    }
    drop(tcp);
    drain(open, door.desk.limits.drain_timeout).await;
}

/// Whether only the connection that was about to be accepted is lost.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn drain(mut open: JoinSet<()>, limit: Duration) {
    let all_closed = async { while open.join_next().await.is_some() {} };
    if timeout(limit, all_closed).await.is_err() {
        tracing::warn!(connections = open.len(), "cut off what did not finish in time");
        open.shutdown().await;
    }
}

async fn greet<H: Handler>(
    door: Arc<Door<H>>,
    mut line: Line<H>,
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    mut stop: watch::Receiver<bool>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else {
        return converse(&door, line, stream, stop).await;
    };
    let shake = timeout(line.desk.limits.tls_handshake_timeout, tls.acceptor().accept(stream));
    let shaken = tokio::select! {
        () = stopped(&mut stop) => return,
        shaken = shake => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            line.tls = Some(TlsDetails::of(stream.get_ref().1));
            line.certificate = client::presented(stream.get_ref().1);
            converse(&door, line, stream, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(peer = %line.peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(peer = %line.peer, "TLS handshake took too long"),
    }
}

async fn converse<H, S>(door: &Door<H>, line: Line<H>, stream: S, stop: watch::Receiver<bool>)
where
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let line = Arc::new(line);
    let pulse = line.pulse.clone();
    let service = service_fn(move |request| {
        let line = line.clone();
        async move { Ok::<_, Infallible>(line.answer(request).await) }
    });
    let io = TokioIo::new(Watched::new(stream, pulse.clone()));
    drive(door.http.serve_connection(io, service), &pulse, &door.desk.limits, stop).await;
}
