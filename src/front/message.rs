//! What passes between the door and whoever answers: a request, its answer, a refusal.

use super::body::Payload;
use super::tls::TlsDetails;
use crate::identity::mutual::Presented;
use crate::name::Uuid;
use crate::secret::Secret;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use std::net::SocketAddr;
use std::sync::Arc;

/// A request without its body.
#[derive(Debug)]
pub struct Head {
    /// The method, whatever it is; `CONNECT` alone never gets here.
    pub method: Method,
    /// The target as sent; with HTTP/2 it has the scheme and the authority too.
    pub uri: Uri,
    /// At most [`Limits::max_headers`](super::options::Limits::max_headers) fields.
    pub headers: HeaderMap,
    /// The protocol version that the client speaks.
    pub version: Version,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The certificate that the other end has shown, if any; it proves nothing by itself.
    pub certificate: Option<Arc<Presented>>,
    /// What TLS agreed on; `None` on a plain connection.
    pub tls: Option<TlsDetails>,
    /// Sent back in `x-amzn-requestid`.
    pub request_id: Uuid,
}

/// A whole request.
pub struct Incoming {
    /// Everything before the body.
    pub head: Head,
    /// The whole body, empty if there was none; wiped when dropped.
    pub body: Secret,
}

/// An answer. The door adds the date, the length and the request identifier.
pub struct Outgoing {
    /// The status.
    pub status: StatusCode,
    /// The value of `content-type`.
    pub content_type: HeaderValue,
    /// The body.
    pub body: Payload,
    /// Further fields; later ones of the same name replace earlier ones.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why the door itself turns a request away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is longer than [`Limits::max_body`](super::options::Limits::max_body).
    #[error("the request body is too large")]
    TooLarge,
    /// Too many header fields, or too many bytes of them.
    #[error("the request headers are too large")]
    HeadersTooLarge,
    /// The body did not arrive in time.
    #[error("the request was not received in time")]
    Timeout,
    /// The body broke off or was badly framed, or the method is `CONNECT`.
    #[error("the request is malformed")]
    BadRequest,
    /// All connections are taken.
    #[error("too many connections")]
    TooManyConnections,
    /// The handler took longer than the time a request has.
    #[error("the request was not answered in time")]
    Overdue,
    /// A defect: the handler panicked, or there was no randomness for a request identifier.
    #[error("internal failure")]
    Internal,
}

impl Refusal {
    /// The HTTP status that fits.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::TooManyConnections | Self::Overdue => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the rest of the request is still on its way, so that the connection must end.
    pub(super) fn leaves_body_unread(self) -> bool {
        !matches!(self, Self::Overdue | Self::Internal)
    }
}

/// Whoever answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    ///
    /// The future is dropped at any of its awaits if the request's time is up, if an HTTP/2 client
    /// resets the stream, or if a connection is cut at the end of a drain: what must run to its
    /// end belongs in a task or a thread of its own.
    fn handle(&self, request: &Incoming) -> impl Future<Output = Outgoing> + Send;

    /// Renders (and records) a refusal in the form that the client's protocol has for it.
    fn refuse(&self, refusal: Refusal, head: &Head) -> Outgoing;
}
