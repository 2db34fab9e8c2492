//! A signer for tests, written from the specification and apart from the verifier's own
//! canonicalisation: what it signs needs no normalising.

use super::{Request, SigningKey};
use crate::clock::Time;
use crate::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

pub(super) const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(super) const REGION: &str = "eu-central-1";
pub(super) const TIMESTAMP: &str = "20260101T000000Z";
pub(super) const NOW: Time = Time(1_767_225_600_000);

/// A request that owns its parts, so that a test can alter them after signing.
#[derive(Clone)]
pub(super) struct Owned {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) authority: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Owned {
    pub(super) fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            authority: self.authority.as_deref(),
            body: &self.body,
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
}

/// What the AWS CLI sends for GetSecretValue, unsigned.
pub(super) fn unsigned() -> Owned {
    let mut request = Owned {
        method: Method::POST,
        path: "/".into(),
        query: String::new(),
        headers: HeaderMap::new(),
        authority: None,
        body: br#"{"SecretId": "prod/db"}"#.to_vec(),
    };
    request.set("host", "127.0.0.1:8443");
    request.set("content-type", "application/x-amz-json-1.1");
    request.set("x-amz-target", "secretsmanager.GetSecretValue");
    request.set("user-agent", "aws-cli/1.44");
    request
}

/// Where and when to sign.
pub(super) struct Scope {
    pub(super) date: String,
    pub(super) region: String,
    pub(super) service: String,
    pub(super) terminator: String,
}

impl Scope {
    pub(super) fn usual() -> Self {
        Self {
            date: "20260101".into(),
            region: REGION.into(),
            service: "secretsmanager".into(),
            terminator: "aws4_request".into(),
        }
    }

    fn text(&self) -> String {
        format!("{}/{}/{}/{}", self.date, self.region, self.service, self.terminator)
    }
}

/// Adds `X-Amz-Date` and `Authorization`. `signed` is the text of `SignedHeaders`.
pub(super) fn sign_as(request: &mut Owned, scope: &Scope, timestamp: &str, signed: &str) {
    request.set("x-amz-date", timestamp);
    let signature = signature(request, scope, timestamp, signed);
    let scope = scope.text();
    request.set(
        "authorization",
        &format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, \
             Signature={signature}"
        ),
    );
}

pub(super) const USUAL_HEADERS: &str = "content-type;host;x-amz-date;x-amz-target";

pub(super) fn signed() -> Owned {
    let mut request = unsigned();
    sign_as(&mut request, &Scope::usual(), TIMESTAMP, USUAL_HEADERS);
    request
}

/// A presigned GET of `path` with `extra` parameters (sorted after `X-Amz-`, or empty).
pub(super) fn presigned(path: &str, expires: &str, extra: &str) -> Owned {
    let mut request = unsigned();
    request.method = Method::GET;
    request.path = path.into();
    request.body.clear();
    request.headers.clear();
    request.set("host", "127.0.0.1:8443");
    let scope = Scope::usual();
    let credential = format!("{ACCESS_KEY}/{}", scope.text()).replace('/', "%2F");
    request.query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={TIMESTAMP}\
         &X-Amz-Expires={expires}&X-Amz-SignedHeaders=host{extra}"
    );
    let signature = signature(&request, &scope, TIMESTAMP, "host");
    request.query += &format!("&X-Amz-Signature={signature}");
    request
}

fn signature(request: &Owned, scope: &Scope, timestamp: &str, signed: &str) -> String {
    let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, request.query);
    for name in signed.split(';') {
        let values: Vec<_> =
            request.headers.get_all(name).iter().map(|v| v.to_str().unwrap().trim()).collect();
        let mut value = values.join(",");
        if name == "host" {
            value = request.authority.clone().unwrap_or(value);
        }
        canonical += &format!("{name}:{value}\n");
    }
    canonical += &format!("\n{signed}\n{}", hex(digest(&SHA256, &request.body).as_ref()));
    let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let message = format!("AWS4-HMAC-SHA256\n{timestamp}\n{}\n{hashed}", scope.text());
    let secret = Secret::copy_of(SECRET.as_bytes());
    let key = SigningKey::derive(&secret, &scope.date, &scope.region, &scope.service).unwrap();
    hex(key.sign(message.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
