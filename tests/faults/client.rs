//! A small AWS client: HTTP/1.1 on one connection, requests signed with Signature Version 4.
//! Written from AWS's documentation, apart from the server's own code.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An access key and where it is used.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// The session token; empty for a long-term access key.
    pub(crate) token: String,
    pub(crate) region: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The status line and the header fields.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Everything that came, in one piece.
    pub(crate) fn whole(self) -> Vec<u8> {
        [self.head.into_bytes(), self.body].concat()
    }

    /// The error's code; empty for a success.
    pub(crate) fn code(&self) -> String {
        if self.status == 200 {
            return String::new();
        }
        self.json()["__type"].as_str().unwrap_or("no code").to_owned()
    }

    /// The output of a request that must have succeeded.
    pub(crate) fn output(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// A member of the output, as text.
    pub(crate) fn member(self, name: &str) -> String {
        let output = self.output();
        output[name].as_str().unwrap_or_else(|| panic!("no {name} in {output}")).to_owned()
    }
}

/// What a connection reads and writes; TCP, or TLS over it.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection to a server, opened anew after a fault.
pub(crate) struct Client {
    address: String,
    credentials: Credentials,
    /// The `User-Agent`, which the audit record of a request repeats.
    pub(crate) agent: String,
    /// The `Authorization` of the last request.
    pub(crate) authorization: String,
    stream: Option<BufReader<Box<dyn Stream>>>,
}

impl Client {
    pub(crate) fn new(address: &str, credentials: &Credentials) -> Self {
        let (address, agent) = (address.to_owned(), "faults".to_owned());
        let (credentials, authorization) = (credentials.clone(), String::new());
        Self { address, credentials, agent, authorization, stream: None }
    }

    /// Over a connection that stands already.
    pub(crate) fn over(stream: Box<dyn Stream>, address: &str, credentials: &Credentials) -> Self {
        Self { stream: Some(BufReader::new(stream)), ..Self::new(address, credentials) }
    }

    /// A request of an operation, `kms:Encrypt` or `secretsmanager:GetSecretValue`. What makes a
    /// version gets a ClientRequestToken if it has none, as AWS's own clients do it.
    pub(crate) fn call(&mut self, operation: &str, input: &Value) -> io::Result<Reply> {
        let mut input = input.clone();
        let makes = ["CreateSecret", "PutSecretValue", "UpdateSecret"];
        if makes.iter().any(|name| operation.ends_with(&format!(":{name}")))
            && input["ClientRequestToken"].is_null()
        {
            input["ClientRequestToken"] = uuid::Uuid::new_v4().to_string().into();
        }
        self.send(operation, input.to_string().as_bytes())
    }

    /// The same for a server that must be there.
    pub(crate) fn ask(&mut self, operation: &str, input: &Value) -> Reply {
        self.call(operation, input).unwrap_or_else(|e| panic!("{operation}: {e}"))
    }

    /// The same with any body.
    pub(crate) fn send(&mut self, operation: &str, body: &[u8]) -> io::Result<Reply> {
        let fields = sign(&self.credentials, &self.address, operation, body);
        self.put(("POST", "/"), fields, body)
    }

    /// A signed form of the Query protocol: the service (`iam`, `sts`), the operation, its members.
    pub(crate) fn form(&mut self, service: &str, name: &str, members: &[(&str, &str)]) -> Reply {
        let body = form(service, name, members);
        let kind = ("content-type", "application/x-www-form-urlencoded".to_owned());
        let fields = vec![kind, ("host", self.address.clone())];
        let fields =
            sign_fields(&self.credentials, service, ("POST", "/"), fields, body.as_bytes());
        self.put(("POST", "/"), fields, body.as_bytes())
            .unwrap_or_else(|e| panic!("{service}:{name}: {e}"))
    }

    /// A signed request of the REST routes, `("GET", "/v1/secrets")`.
    pub(crate) fn rest(&mut self, service: &str, line: (&str, &str), input: &Value) -> Reply {
        let body = if input.is_null() { String::new() } else { input.to_string() };
        let fields =
            vec![("content-type", "application/json".to_owned()), ("host", self.address.clone())];
        let fields = sign_fields(&self.credentials, service, line, fields, body.as_bytes());
        self.put(line, fields, body.as_bytes()).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    fn put(
        &mut self,
        (method, path): (&str, &str),
        fields: Vec<(&'static str, String)>,
        body: &[u8],
    ) -> io::Result<Reply> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nuser-agent: {}\r\n", self.agent);
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
            if name == "authorization" {
                self.authorization = value;
            }
        }
        request += &format!("content-length: {}\r\n\r\n", body.len());
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.exchange(&bytes)
    }

    /// An unsigned GET.
    pub(crate) fn look(&mut self, path: &str) -> Reply {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        self.exchange(request.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Any request; the answer to it.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> io::Result<Reply> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                BufReader::new(Box::new(stream) as Box<dyn Stream>)
            }
        };
        stream.get_mut().write_all(request)?;
        stream.get_mut().flush()?;
        let (reply, keep) = read_reply(&mut stream)?;
        if keep {
            self.stream = Some(stream);
        }
        Ok(reply)
    }
}

/// Reads an answer; says whether the connection stays open.
fn read_reply(stream: &mut impl BufRead) -> io::Result<(Reply, bool)> {
    let mut line = String::new();
    let mut next = || {
        line.clear();
        match stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok::<_, io::Error>(line.trim_end().to_owned()),
        }
    };
    let mut head = next()?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let (mut length, mut keep) = (0, true);
    loop {
        let field = next()?;
        let Some((name, value)) = field.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(io::Error::other)?,
            "connection" => keep = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
        head += &format!("\n{field}");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((Reply { status, head, body }, keep))
}

/// A form of the Query protocol.
pub(crate) fn form(service: &str, name: &str, members: &[(&str, &str)]) -> String {
    let version = if service == "iam" { "2010-05-08" } else { "2011-06-15" };
    let action = [("Action", name), ("Version", version)];
    let all = action.iter().chain(members);
    all.map(|(name, value)| format!("{}={}", escape(name), escape(value)))
        .collect::<Vec<_>>()
        .join("&")
}

/// As SigV4 escapes: all but letters, digits and `-_.~`.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().fold(String::new(), |done, b| {
        done + &if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }
    })
}

/// The header fields of a signed request: `host`, `content-type`, `x-amz-date`, `x-amz-target`,
/// `authorization`, and `x-amz-security-token` if there is one.
pub(crate) fn sign(
    credentials: &Credentials,
    host: &str,
    operation: &str,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let (service, name) = operation.split_once(':').expect("service:Operation");
    let prefix = match service {
        "kms" => "TrentService",
        "cloudtrail" => "CloudTrail_20131101",
        other => other,
    };
    let fields = vec![
        ("content-type", "application/x-amz-json-1.1".to_owned()),
        ("host", host.to_owned()),
        ("x-amz-target", format!("{prefix}.{name}")),
    ];
    sign_fields(credentials, service, ("POST", "/"), fields, body)
}

/// The header fields of a signed request (method, path) that has these, all of which the signature
/// covers.
fn sign_fields(
    credentials: &Credentials,
    service: &str,
    (method, path): (&str, &str),
    mut fields: Vec<(&'static str, String)>,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let now = now();
    fields.push(("x-amz-date", now.clone()));
    if !credentials.token.is_empty() {
        fields.push(("x-amz-security-token", credentials.token.clone()));
    }
    fields.sort_unstable();
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let headers: String = fields.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
    let canonical = format!("{method}\n{path}\n\n{headers}\n{names}\n{}", hex(&sha256(body)));
    let (scope, signature) = signature(credentials, service, &now, &canonical);
    let id = &credentials.id;
    fields.push((
        "authorization",
        format!(
            "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
        ),
    ));
    fields
}

/// The target of a presigned `GET /` with a query, which is good for a minute.
pub(crate) fn presign(credentials: &Credentials, host: &str, service: &str, query: &str) -> String {
    let now = now();
    let scope = scope(credentials, service, &now);
    let mut parameters: Vec<String> = query.split('&').map(str::to_owned).collect();
    for (name, value) in [
        ("Algorithm", "AWS4-HMAC-SHA256"),
        ("Credential", &format!("{}/{scope}", credentials.id)),
        ("Date", &now),
        ("Expires", "60"),
        ("Security-Token", &credentials.token),
        ("SignedHeaders", "host"),
    ] {
        parameters.push(format!("X-Amz-{name}={}", escape(value)));
    }
    parameters.sort_unstable();
    let query = parameters.join("&");
    let canonical = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{}", hex(&sha256(b"")));
    let (_, signature) = signature(credentials, service, &now, &canonical);
    format!("/?{query}&X-Amz-Signature={signature}")
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn scope(credentials: &Credentials, service: &str, now: &str) -> String {
    format!("{}/{}/{service}/aws4_request", &now[..8], credentials.region)
}

/// What signs today's requests, and what it is derived through: the keys of the day, the region, the
/// service.
pub(crate) fn signing_keys(credentials: &Credentials, service: &str) -> Vec<Vec<u8>> {
    let mut key = format!("AWS4{}", credentials.secret).into_bytes();
    let scope = scope(credentials, service, &now());
    let parts = scope.split('/').map(|part| {
        key = hmac(&key, part.as_bytes());
        key.clone()
    });
    parts.collect()
}

/// The scope, and the signature of a canonical request.
fn signature(
    credentials: &Credentials,
    service: &str,
    now: &str,
    canonical: &str,
) -> (String, String) {
    let scope = scope(credentials, service, now);
    let text = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let first = format!("AWS4{}", credentials.secret).into_bytes();
    let key = scope.split('/').fold(first, |key, part| hmac(&key, part.as_bytes()));
    let signature = hex(&hmac(&key, text.as_bytes()));
    (scope, signature)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn hmac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn unbase64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}
