//! Syslog: one RFC 5424 message a record, each behind its length (octet counting: RFC 6587 section
//! 3.4.1, RFC 5425 section 4.3).
//!
//! The protocol knows no acknowledgement: a record counts as taken once the connection has it.

use super::connection::{Peer, Stream, closed};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

/// Facility 13 (log audit), severity 6 (informational): 13 * 8 + 6.
const PRIORITY: &str = "<110>1";

/// A connection to a syslog server.
pub(super) struct Client {
    host: String,
    stream: Option<Box<dyn Stream>>,
}

#[derive(Deserialize)]
struct Known<'a> {
    #[serde(rename = "eventTime", borrow)]
    time: Option<&'a str>,
    #[serde(rename = "eventName", borrow)]
    name: Option<std::borrow::Cow<'a, str>>,
}

impl Client {
    /// Messages are sent as of `host`.
    pub(super) fn new(host: &str) -> Self {
        Self { host: header(host, 255), stream: None }
    }

    pub(super) fn hang_up(&mut self) {
        self.stream = None;
    }

    pub(super) async fn send(&mut self, peer: &Peer, records: &[Vec<u8>]) -> Result<(), String> {
        if let Some(stream) = &mut self.stream
            && closed(stream).await
        {
            self.stream = None;
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(peer.connect().await?),
        };
        let bytes: Vec<u8> = records.iter().flat_map(|r| frame(&self.host, r)).collect();
        stream.write_all(&bytes).await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())
    }
}

/// A record as a message behind its length.
fn frame(host: &str, record: &[u8]) -> Vec<u8> {
    let known: Option<Known<'_>> = serde_json::from_slice(record).ok();
    let time = known.as_ref().and_then(|known| known.time).unwrap_or("-");
    let name = known.as_ref().and_then(|known| known.name.as_deref()).unwrap_or_default();
    let id = header(name, 32);
    let head = format!("{PRIORITY} {time} {host} strongroom - {id} - ");
    let length = head.len() + record.len();
    [format!("{length} {head}").as_bytes(), record].concat()
}

/// A text as it may stand in a header: printable ASCII without spaces.
fn header(text: &str, most: usize) -> String {
    let text: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_and_header() {
        let record = br#"{"eventTime":"2026-01-01T00:00:00.000Z","eventName":"De crypt"}"#;
        let framed = String::from_utf8(frame("site", record)).expect("text");
        let (length, message) = framed.split_once(' ').expect("a length");
        assert_eq!(length.parse(), Ok(message.len()));
        let head = "<110>1 2026-01-01T00:00:00.000Z site strongroom - Decrypt - {";
        assert!(message.starts_with(head), "{message}");
        let torn = String::from_utf8(frame("site", b"{torn")).expect("text");
        assert!(torn.ends_with("<110>1 - site strongroom - - - {torn"), "{torn}");
    }
}
