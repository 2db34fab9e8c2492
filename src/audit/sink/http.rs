//! HTTP: batches of JSON lines, posted. An answer of 2xx means that the batch is taken.

use super::connection::Peer;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A connection to an HTTP server.
#[derive(Default)]
pub(super) struct Client {
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn hang_up(&mut self) {
        self.sender = None;
    }

    pub(super) async fn send(&mut self, peer: &Peer, records: &[Vec<u8>]) -> Result<(), String> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => connect(peer).await?,
        };
        sender.ready().await.map_err(|e| e.to_string())?;
        let answer = sender.send_request(request(peer, records)?).await;
        let answer = answer.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        body.map_err(|e| e.to_string())?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        self.sender = Some(sender);
        Ok(())
    }
}

async fn connect(peer: &Peer) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TokioIo::new(peer.connect().await?);
    let (sender, connection) = http1::handshake(stream).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // Its end is seen by the sender.
        drop(connection.await);
    });
    Ok(sender)
}

fn request(peer: &Peer, records: &[Vec<u8>]) -> Result<Request<Full<Bytes>>, String> {
    let mut body = Vec::with_capacity(records.iter().map(|record| record.len() + 1).sum());
    for record in records {
        body.extend_from_slice(record);
        body.push(b'\n');
    }
    let path = peer.url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = peer.url.authority().map_or("", http::uri::Authority::as_str);
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .body(Full::new(Bytes::from(body)));
    request.map_err(|e| e.to_string())
}
