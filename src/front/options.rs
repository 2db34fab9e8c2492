//! What can be set about the front door: addresses, TLS files, limits.

use super::tls::Files;
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses, TLS files and limits, as written in the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Addresses served with TLS (HTTP/1.1 and HTTP/2 by ALPN).
    pub listen: Vec<SocketAddr>,
    /// Addresses served without TLS; loopback only.
    pub listen_plain: Vec<SocketAddr>,
    /// The certificate chain and its key; needed by `listen`.
    pub tls: Option<Files>,
    /// Sizes, times and numbers.
    pub limits: Limits,
}

/// Bounds on what a client may cost. Times are written in seconds, fractions allowed.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest request body, in bytes (1 KiB to 64 MiB; default 1 MiB).
    pub max_body: usize,
    /// Most bytes of request target, header names and values (8 KiB to 256 KiB; default 32 KiB).
    ///
    /// A head of up to twice this is read and refused in the client's protocol; beyond that the
    /// parser answers 431 without a body and closes.
    pub max_header_bytes: usize,
    /// Most header fields (16 to 100; default 64). The parser itself stops at 100.
    pub max_headers: usize,
    /// From a connection's start, or from a request's first byte, to the end of its head
    /// (default 10 s). What comes later is cut off without an answer.
    #[serde(deserialize_with = "seconds")]
    pub header_read_timeout: Duration,
    /// From the end of the head to the end of the body (default 20 s).
    #[serde(deserialize_with = "seconds")]
    pub body_read_timeout: Duration,
    /// From the end of the head to the answer (default 60 s).
    #[serde(deserialize_with = "seconds")]
    pub request_timeout: Duration,
    /// From an answer to the next request's first byte, the answer's own transfer included
    /// (default 75 s).
    #[serde(deserialize_with = "seconds")]
    pub idle_timeout: Duration,
    /// For the TLS handshake (default 10 s).
    #[serde(deserialize_with = "seconds")]
    pub tls_handshake_timeout: Duration,
    /// How long requests in flight may take to finish at shutdown (default 10 s).
    #[serde(deserialize_with = "seconds")]
    pub drain_timeout: Duration,
    /// Connections served at a time (1 to 100,000; default 4,096).
    ///
    /// A sixteenth as many again (at least 8) are accepted only to be told so with a 503; what
    /// comes on top is closed at once. Accepting goes on, since a client that hangs in the
    /// kernel's queue learns nothing and can't try elsewhere.
    pub max_connections: usize,
    /// HTTP/2 requests at a time on one connection (1 to 1,000; default 128).
    pub max_concurrent_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 1 << 20,
            max_header_bytes: 32 << 10,
            max_headers: 64,
            header_read_timeout: Duration::from_secs(10),
            body_read_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            tls_handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_concurrent_streams: 128,
        }
    }
}

/// A setting that can't be served with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Neither `listen` nor `listen_plain` has an address.
    #[error("no address to listen on")]
    NoAddress,
    /// Plain HTTP where others could read it.
    #[error("plain HTTP is for loopback addresses only, and `{0}` is not one")]
    PlainBeyondLoopback(SocketAddr),
    /// `listen` without `tls`.
    #[error("`listen` needs `tls` with a certificate and a key")]
    NoCertificate,
    /// A limit that is out of its range.
    #[error("`{name}` must be from {least} to {most}")]
    OutOfRange {
        /// The limit's name.
        name: &'static str,
        /// Its least value.
        least: u64,
        /// Its greatest value.
        most: u64,
    },
}

impl Options {
    /// Whether these settings can be served with: the first thing wrong, if any.
    pub fn validate(&self) -> Result<(), OptionsError> {
        if self.listen.is_empty() && self.listen_plain.is_empty() {
            return Err(OptionsError::NoAddress);
        }
        if let Some(open) = self.listen_plain.iter().find(|address| !is_loopback(address)) {
            return Err(OptionsError::PlainBeyondLoopback(*open));
        }
        if !self.listen.is_empty() && self.tls.is_none() {
            return Err(OptionsError::NoCertificate);
        }
        self.limits.validate()
    }
}

impl Limits {
    /// Whether every limit is in its range: the first that is not, if any.
    pub fn validate(&self) -> Result<(), OptionsError> {
        in_range("max_body", self.max_body as u64, 1 << 10, 64 << 20)?;
        in_range("max_header_bytes", self.max_header_bytes as u64, 8 << 10, 256 << 10)?;
        in_range("max_headers", self.max_headers as u64, 16, 100)?;
        in_range("max_connections", self.max_connections as u64, 1, 100_000)?;
        in_range("max_concurrent_streams", self.max_concurrent_streams.into(), 1, 1000)?;
        for (name, time) in [
            ("header_read_timeout", self.header_read_timeout),
            ("body_read_timeout", self.body_read_timeout),
            ("request_timeout", self.request_timeout),
            ("idle_timeout", self.idle_timeout),
            ("tls_handshake_timeout", self.tls_handshake_timeout),
            ("drain_timeout", self.drain_timeout),
        ] {
            if time.is_zero() || time > Duration::from_secs(3600) {
                return Err(OptionsError::OutOfRange { name, least: 1, most: 3600 });
            }
        }
        Ok(())
    }

    /// Connections that are accepted beyond `max_connections`, only to be refused in words.
    pub(super) fn spare_connections(&self) -> usize {
        (self.max_connections / 16).max(8)
    }
}

/// Whether nothing sent to this address leaves the machine.
pub(super) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn in_range(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), OptionsError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(OptionsError::OutOfRange { name, least, most })
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Options {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_defaults_are_in_their_ranges() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn plain_http_is_accepted_on_loopback_and_nowhere_else() {
        for good in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(written(&format!("listen_plain = ['{good}']")).validate(), Ok(()));
        }
        for bad in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "192.168.1.1:1"] {
            let refused = written(&format!("listen_plain = ['{bad}']")).validate();
            assert_eq!(refused, Err(OptionsError::PlainBeyondLoopback(bad.parse().unwrap())));
        }
    }

    #[test]
    fn an_address_without_a_certificate_is_refused() {
        assert_eq!(written("").validate(), Err(OptionsError::NoAddress));
        let bare = written("listen = ['0.0.0.0:8443']");
        assert_eq!(bare.validate(), Err(OptionsError::NoCertificate));
        let whole = "listen = ['0.0.0.0:8443']\ntls = { certificate = 'c.pem', key = 'k.pem' }";
        assert_eq!(written(whole).validate(), Ok(()));
    }

    #[test]
    fn times_are_seconds_and_a_limit_out_of_range_is_named() {
        let plain = "listen_plain = ['127.0.0.1:1']\n[limits]\n";
        let options = written(&format!("{plain}idle_timeout = 5\nrequest_timeout = 0.25"));
        assert_eq!(options.limits.idle_timeout, Duration::from_secs(5));
        assert_eq!(options.limits.request_timeout, Duration::from_millis(250));
        for (bad, name) in [
            ("max_headers = 101", "max_headers"),
            ("max_body = 0", "max_body"),
            ("drain_timeout = 0", "drain_timeout"),
            ("max_connections = 0", "max_connections"),
        ] {
            let error = written(&format!("{plain}{bad}")).validate().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(toml::from_str::<Options>(&format!("{plain}idle_timeout = -1")).is_err());
        assert!(toml::from_str::<Options>(&format!("{plain}max_bodies = 1")).is_err());
    }
}
