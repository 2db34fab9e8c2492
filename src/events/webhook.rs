//! A webhook: one POST an event. An answer of 2xx means that it is taken; a redirect is not followed.

use super::event::Event;
use super::signature::Source;
use crate::clock::Time;
use crate::identity::oidc::fetch::connect;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The most bytes of an answer; a longer one ends the connection.
const MAX_ANSWER: usize = 64 * 1024;
/// The most bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// Why an event was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In words.
    pub(super) why: String,
    /// Whether the receiver says that it is gone for good.
    pub(super) gone: bool,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, gone: false }
    }
}

/// A receiver, and the connection to it.
pub(super) struct Webhook {
    pub(super) url: Uri,
    /// The authorities to trust; without them the system's.
    pub(super) ca: Option<PathBuf>,
    /// For one event, from the connection to the answer.
    pub(super) deadline: Duration,
    pub(super) secrets: Arc<Source>,
    pub(super) connection: Option<SendRequest<Full<Bytes>>>,
}

impl Webhook {
    /// Sends an event, signed at `now`; it is taken when this returns well.
    pub(super) async fn send(&mut self, event: &Event, now: Time) -> Result<(), Refusal> {
        let (secrets, deadline) = (self.secrets.clone(), self.deadline);
        let keys = tokio::task::spawn_blocking(move || secrets.keys()).await;
        let keys = keys.map_err(|e| e.to_string())??;
        let body = event.encode();
        let signature = keys.sign(&event.id, now, &body);
        let request = self.request(&event.id, now, &signature, body)?;
        let sent = tokio::time::timeout(deadline, self.exchange(request)).await;
        sent.unwrap_or_else(|_| Err(format!("no answer within {} ms", deadline.as_millis()).into()))
    }

    fn request(
        &self,
        id: &str,
        now: Time,
        signature: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let path = self.url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Request::post(path)
            .header(HOST, self.url.authority().map_or("", http::uri::Authority::as_str))
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "strongroom")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.seconds())
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(), Refusal> {
        // One that the other side has closed meanwhile is no failure of an event.
        let kept = self.connection.take().filter(|kept| !kept.is_closed());
        if let Some(mut kept) = kept
            && kept.ready().await.is_ok()
            && let Ok(answer) = kept.send_request(request.clone()).await
        {
            return self.answered(kept, answer).await;
        }
        let mut fresh = self.open().await?;
        let answer = fresh.send_request(request).await.map_err(|e| e.to_string())?;
        self.answered(fresh, answer).await
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = connect(&self.url, self.ca.as_deref()).await.map_err(|e| e.to_string())?;
        let mut client = http1::Builder::new();
        client.max_buf_size(MAX_HEAD);
        let opened = client.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.map_err(|e| e.to_string())?;
        tokio::spawn(async move {
            // Its end is seen by the sender.
            drop(connection.await);
        });
        Ok(sender)
    }

    async fn answered(
        &mut self,
        connection: SendRequest<Full<Bytes>>,
        answer: http::Response<hyper::body::Incoming>,
    ) -> Result<(), Refusal> {
        let status = answer.status();
        if Limited::new(answer.into_body(), MAX_ANSWER).collect().await.is_ok() {
            self.connection = Some(connection);
        }
        if status.is_success() {
            return Ok(());
        }
        Err(Refusal { why: format!("it answers {status}"), gone: status == StatusCode::GONE })
    }
}
