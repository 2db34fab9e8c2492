//! One request: read within its limits, handed over, answered; or refused.

use super::body::{Payload, gather};
use super::message::{Handler, Head, Incoming, Outgoing, Refusal};
use super::options::Limits;
use super::tls::TlsDetails;
use super::watch::Pulse;
use crate::clock::{Random, quick_uuid};
use crate::identity::mutual::Presented;
use crate::name::Uuid;
use crate::secret::Secret;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::Full;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::time::{Instant, timeout_at};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// What answering takes, shared by all connections.
pub(super) struct Desk<H> {
    pub(super) handler: Arc<H>,
    pub(super) limits: Limits,
    pub(super) random: Arc<dyn Random>,
}

/// One connection, as its requests see it.
pub(super) struct Line<H> {
    pub(super) desk: Arc<Desk<H>>,
    pub(super) peer: SocketAddr,
    pub(super) tls: Option<TlsDetails>,
    /// What the other end has shown.
    pub(super) certificate: Option<Arc<Presented>>,
    /// Accepted beyond the number that is served, only to be refused.
    surplus: bool,
    pub(super) pulse: Arc<Pulse>,
}

impl<H: Handler> Line<H> {
    pub(super) fn new(desk: Arc<Desk<H>>, peer: SocketAddr, surplus: bool) -> Self {
        let pulse = Arc::new(Pulse::new());
        Self { desk, peer, tls: None, certificate: None, surplus, pulse }
    }

    /// Reads the rest of a request, has it answered, and answers in any case.
    pub(super) async fn answer(
        &self,
        request: Request<hyper::body::Incoming>,
    ) -> Response<Full<Bytes>> {
        let _busy = self.pulse.begin(request.version());
        let started = Instant::now();
        let (request, body) = self.split(request);
        let mut request = Incoming { head: request, body: Secret::new(Vec::new()) };
        let outcome = match self.receive(&request.head, body, started).await {
            Ok(body) => {
                request.body = body;
                self.run(&request, started).await
            }
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(outgoing) => respond(outgoing, &request.head),
            Err(refusal) => self.refuse(refusal, &request.head),
        }
    }

    fn split(&self, request: Request<hyper::body::Incoming>) -> (Head, hyper::body::Incoming) {
        let (parts, body) = request.into_parts();
        let request_id = quick_uuid(&*self.desk.random).unwrap_or(Uuid::NIL);
        let head = Head {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            version: parts.version,
            peer: self.peer,
            certificate: self.certificate.clone(),
            tls: self.tls,
            request_id,
        };
        (head, body)
    }

    async fn receive(
        &self,
        head: &Head,
        body: hyper::body::Incoming,
        started: Instant,
    ) -> Result<Secret, Refusal> {
        let limits = &self.desk.limits;
        if self.surplus {
            return Err(Refusal::TooManyConnections);
        }
        check_head(head, limits)?;
        timeout_at(started + limits.body_read_timeout, gather(body, limits.max_body))
            .await
            .unwrap_or(Err(Refusal::Timeout))
    }

    async fn run(&self, request: &Incoming, started: Instant) -> Result<Outgoing, Refusal> {
        if request.head.request_id == Uuid::NIL {
            return Err(Refusal::Internal);
        }
        let answered = unwound(self.desk.handler.handle(request));
        match timeout_at(started + self.desk.limits.request_timeout, answered).await {
            Ok(Some(outgoing)) => Ok(outgoing),
            Ok(None) => {
                tracing::error!(request_id = %request.head.request_id, "a handler panicked");
                Err(Refusal::Internal)
            }
            Err(_) => Err(Refusal::Overdue),
        }
    }

    fn refuse(&self, refusal: Refusal, head: &Head) -> Response<Full<Bytes>> {
        let rendered = catch_unwind(AssertUnwindSafe(|| self.desk.handler.refuse(refusal, head)));
        let outgoing = rendered.unwrap_or_else(|_| Outgoing {
            status: refusal.status(),
            content_type: HeaderValue::from_static("text/plain"),
            body: Payload::EMPTY,
            headers: Vec::new(),
        });
        let mut response = respond(outgoing, head);
        if refusal.leaves_body_unread() && head.version != Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            self.pulse.linger();
        }
        response
    }
}

fn check_head(head: &Head, limits: &Limits) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::BadRequest);
    }
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if head.headers.len() > limits.max_headers
        || fields.sum::<usize>() + target > limits.max_header_bytes
    {
        return Err(Refusal::HeadersTooLarge);
    }
    Ok(())
}

/// The future's output, or `None` if it panics: one request's defect stays its own.
async fn unwound<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

fn request_id_header(id: Uuid) -> HeaderValue {
    HeaderValue::from_str(id.as_str()).unwrap_or(HeaderValue::from_static(""))
}

fn respond(outgoing: Outgoing, head: &Head) -> Response<Full<Bytes>> {
    let mut body = outgoing.body.into_bytes();
    let length = body.len();
    let without_body = head.method == Method::HEAD && head.version == Version::HTTP_2;
    if without_body {
        body = Bytes::new();
    }
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = outgoing.status;
    let headers = response.headers_mut();
    headers.reserve(4 + outgoing.headers.len());
    headers.insert(CONTENT_TYPE, outgoing.content_type);
    for (name, value) in outgoing.headers {
        headers.insert(name, value);
    }
    headers.insert(REQUEST_ID, request_id_header(head.request_id));
    if without_body {
        // Over HTTP/1.1 hyper leaves the body out by itself and keeps its length.
        headers.insert(CONTENT_LENGTH, length.into());
    }
    response
}
