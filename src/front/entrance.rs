//! What stands before the door while the appliance is still being built: a token may take its time.

use super::body::Payload;
use super::door::{Door, Form, answer, readiness};
use super::message::{Handler, Head, Incoming, Outgoing, Refusal};
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Answers `/healthz`, and nothing else until there is a door: nothing is done before there is a token
/// and an audit log, so there is nothing to be recorded either.
#[derive(Default)]
pub struct Entrance {
    door: OnceLock<Door>,
    why: Mutex<String>,
}

impl Entrance {
    /// From now on requests are for this door.
    pub fn open(&self, door: Door) {
        drop(self.door.set(door));
    }

    /// Why there is no door yet.
    pub fn waits(&self, why: String) {
        *self.why.lock() = why;
    }
}

impl Handler for Entrance {
    async fn handle(&self, request: &Incoming) -> Outgoing {
        if let Some(door) = self.door.get() {
            return door.handle(request).await;
        }
        let why = self.why.lock().clone();
        match request.head.uri.path() {
            "/healthz" => answer(StatusCode::OK, "text/plain", Payload::Open(b"ok\n"[..].into())),
            "/readyz" => readiness(Some(&why), BTreeMap::new()),
            _ => closed(&request.head),
        }
    }

    fn refuse(&self, refusal: Refusal, head: &Head) -> Outgoing {
        match self.door.get() {
            Some(door) => door.refuse(refusal, head),
            None => closed(head),
        }
    }
}

fn closed(head: &Head) -> Outgoing {
    let (code, status) = ("ServiceUnavailable", StatusCode::SERVICE_UNAVAILABLE);
    Form::of(head).error(None, code, status, "the appliance is starting", head)
}
