//! The door: what a request is, who sent it, which row it means; and how each answer is written.

use super::body::Payload;
use super::message::{Handler, Head, Incoming, Outgoing, Refusal};
use super::{aws, codes, metrics, query, rest, xml};
use crate::audit::{self, Record, Source};
use crate::clock::{Time, quick_uuid};
use crate::identity::federated::Introduced;
use crate::identity::sigv4::{AuthError, Request as Signed};
use crate::identity::{self, Authenticator};
use crate::name::{Service, Uuid};
use crate::ops::Row;
use crate::ops::call::{Call, Origin, Services};
use crate::ops::error::Condition;
use crate::policy::Caller;
use crate::secret::Secret;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why the policies refused a request, sealed; see `sts:DecodeAuthorizationMessage`.
const AUTHORIZATION_MESSAGE: HeaderName =
    HeaderName::from_static("x-strongroom-authorization-message");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// The longest `User-Agent` that is kept, in bytes.
const USER_AGENT_MAX: usize = 256;

/// Where IAM Roles Anywhere gives out credentials.
const ANYWHERE: &str = "/sessions";

/// For how long an answer of `/readyz` is good.
const READINESS: Duration = Duration::from_millis(500);

/// The door of the appliance.
pub struct Door {
    pub(super) services: Arc<Services>,
    authenticator: Authenticator,
    readiness: tokio::sync::Mutex<Option<(Instant, crate::ops::error::Result<()>)>>,
}

/// An answer that is no output: a code, a status and a text.
pub(super) struct Refused {
    pub(super) service: Option<Service>,
    pub(super) operation: String,
    pub(super) code: &'static str,
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refused {
    /// The same for a request that is known to mean this row; the audit record names it.
    fn of(self, row: &Row) -> Self {
        Self { service: Some(row.service), operation: row.name.to_owned(), ..self }
    }
}

impl Door {
    /// A door to these services.
    pub fn new(services: Arc<Services>, authenticator: Authenticator) -> Self {
        Self { services, authenticator, readiness: tokio::sync::Mutex::new(None) }
    }

    async fn aws(&self, request: &Incoming) -> Outgoing {
        let row = match Self::row(request) {
            Ok(row) => row,
            Err(refused) => return self.refused(&request.head, &refused),
        };
        self.proved(request, row, request.body.expose()).await
    }

    /// Finds out who calls, and does what is asked.
    async fn proved(&self, request: &Incoming, row: &'static Row, input: &[u8]) -> Outgoing {
        let introduced = if row.unsigned {
            self.vouched(request, row, input).await
        } else {
            self.caller(request, row.service).map(|caller| (caller, None))
        };
        match introduced {
            Ok(introduced) => self.call(row, introduced, &request.head, input).await,
            Err(refused) => self.refused(&request.head, &refused.of(row)),
        }
    }

    /// Who calls without credentials: the input's token proves it, or a certificate.
    async fn vouched(
        &self,
        request: &Incoming,
        row: &Row,
        input: &[u8],
    ) -> Result<Introduced, Refused> {
        let (now, region) = (self.services.world.clock.now(), &self.services.region);
        let federation = self.authenticator.federation();
        let introduced = if row.service == Service::RolesAnywhere {
            federation.certificate(&signed(request), input, region, now)
        } else {
            federation.web_identity(input, now).await
        };
        introduced.map_err(|error| {
            let (code, status) = error.code();
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            refusal(code, status, error.to_string())
        })
    }

    /// CreateSession of IAM Roles Anywhere, at its own path.
    async fn anywhere(&self, request: &Incoming, path: &str) -> Outgoing {
        let head = &request.head;
        let query = head.uri.query().unwrap_or_default();
        match rest::meant(&head.method, path, query, request.body.expose()) {
            Ok(meant) => self.proved(request, meant.row, meant.input.expose()).await,
            Err(refused) => self.refused(head, &refused),
        }
    }

    async fn query(&self, request: &Incoming) -> Outgoing {
        let head = &request.head;
        match query::meant(head.uri.query().unwrap_or_default(), request.body.expose()) {
            Ok(meant) => self.proved(request, meant.row, meant.input.expose()).await,
            Err(refused) => self.refused(head, &refused),
        }
    }

    /// The row that a request means.
    fn row(request: &Incoming) -> Result<&'static Row, Refused> {
        let header = |name: &str| request.head.headers.get(name).and_then(|v| v.to_str().ok());
        let named = header("x-amz-target").unwrap_or_default();
        let media = header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let json = media.starts_with("application/x-amz-json-1.");
        let row = aws::target(named).filter(|_| json && request.head.method == Method::POST);
        row.ok_or_else(|| Refused {
            service: None,
            operation: cut(named, 128).to_owned(),
            code: "UnknownOperationException",
            status: StatusCode::BAD_REQUEST,
            message: String::new(),
        })
    }

    /// Who signed the request for `service`, or has the connection's certificate.
    fn caller(&self, request: &Incoming, service: Service) -> Result<Arc<Caller>, Refused> {
        let head = &request.head;
        let now = self.services.world.clock.now();
        let refused = |error: &AuthError| {
            let (code, status) = authentication(error, service);
            refusal(code, status, error.to_string())
        };
        let proved = match self.connected(head, now) {
            Ok(None) => self.authenticator.authenticate(&signed(request), service, now),
            Ok(Some(caller)) => Ok(caller),
            Err(error) => Err(error),
        };
        proved.map_err(|error| match error {
            identity::Error::Refused(error) => refused(&error),
            error => {
                let request_id = head.request_id.as_str();
                tracing::error!(request_id, %error, "a caller could not be proved");
                if error.altered() {
                    return refused(&AuthError::UnrecognizedClient);
                }
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                refusal("InternalFailure", status, "an internal fault; see the server's log".into())
            }
        })
    }

    /// Who is at the other end of the connection, for a request that is not signed. What a browser
    /// sends on behalf of a page is nobody's: it has certificates without the page's knowing.
    fn connected(&self, head: &Head, now: Time) -> Result<Option<Arc<Caller>>, identity::Error> {
        let Some(certificate) = &head.certificate else { return Ok(None) };
        let query = head.uri.query().unwrap_or_default();
        let signed = head.headers.contains_key(AUTHORIZATION) || query.contains("X-Amz-");
        let of_page = ["origin", "sec-fetch-site"].iter().any(|n| head.headers.contains_key(*n));
        if signed || of_page {
            return Ok(None);
        }
        self.authenticator.mutual(certificate, now)
    }

    async fn rest(&self, request: &Incoming, path: &str) -> Outgoing {
        let head = &request.head;
        if path == "/openapi.json" && head.method == Method::GET {
            return answer(StatusCode::OK, rest::MEDIA_TYPE, Payload::Open(openapi().into()));
        }
        let query = head.uri.query().unwrap_or_default();
        match rest::meant(&head.method, path, query, request.body.expose()) {
            Ok(meant) => self.proved(request, meant.row, meant.input.expose()).await,
            Err(refused) => self.refused(head, &refused),
        }
    }

    async fn call(
        &self,
        row: &'static Row,
        (caller, vouched): Introduced,
        head: &Head,
        body: &[u8],
    ) -> Outgoing {
        let now = self.services.world.clock.now();
        let call = Call::new(self.services.clone(), row, caller, now, origin(head));
        let call = call.vouched_by(vouched);
        let form = Form::of(head);
        match row.run(&call, body).await {
            Ok(body) => form.output(row, body.into_secret(), head),
            Err(error) => {
                aws::log(row, head.request_id.as_str(), &error);
                let (code, status) = codes::code(row, error.condition);
                let status = match form {
                    Form::Aws | Form::Query | Form::Anywhere => status,
                    Form::Rest => rest::status(row, error.condition),
                };
                let mut refused = form.error(Some(row.service), code, status, &error.message, head);
                let message = call.authorization_message().and_then(|m| m.try_into().ok());
                refused.headers.extend(message.map(|message| (AUTHORIZATION_MESSAGE, message)));
                refused
            }
        }
    }

    /// Records and renders a request that got no further than the door.
    pub(super) fn refused(&self, head: &Head, refused: &Refused) -> Outgoing {
        if let Err(error) = self.record(head, refused) {
            tracing::error!(%error, "a refused request could not be recorded");
            let (code, status) = ("ServiceUnavailable", StatusCode::SERVICE_UNAVAILABLE);
            return Form::of(head).error(None, code, status, &error.to_string(), head);
        }
        let (service, code) = (refused.service, refused.code);
        Form::of(head).error(service, code, refused.status, &refused.message, head)
    }

    fn record(&self, head: &Head, refused: &Refused) -> Result<(), audit::Error> {
        let services = &self.services;
        let origin = origin(head);
        services.recorder.append_now(&Record {
            time: services.world.clock.now(),
            service: refused.service,
            operation: &refused.operation,
            read_only: true,
            region: &services.region,
            caller: None,
            source: Source::Address(origin.source_ip),
            user_agent: &origin.user_agent,
            tls: origin.tls,
            parameters: b"",
            response: b"",
            decisions: b"",
            request_id: origin.request_id,
            event_id: quick_uuid(&*services.world.random).unwrap_or(Uuid::NIL),
            resources: &[],
            error: Some((refused.code, &refused.message)),
        })
    }

    /// Whether the appliance can do its work: a real derivation in the token, a read of the
    /// database, a log that can be written.
    ///
    /// Anybody may ask, so the token is asked at most twice a second.
    async fn ready(&self) -> Outgoing {
        let mut known = self.readiness.lock().await;
        let fresh = known.as_ref().filter(|(asked, _)| asked.elapsed() < READINESS);
        if fresh.is_none() {
            let answer = crate::ops::health::ready(&self.services).await;
            *known = Some((Instant::now(), answer));
        }
        let why = known.as_ref().and_then(|(_, answer)| answer.as_ref().err());
        if let Some(error) = why {
            tracing::warn!(%error, "not ready");
        }
        let why = why.map(|error| error.log.as_deref().unwrap_or(&error.message));
        let tokens = crate::ops::health::tokens(&self.services);
        let tokens = tokens.into_iter().map(|token| (token.name, token.up)).collect();
        readiness(why, tokens)
    }
}

/// What `/readyz` answers: whether all is well, else why not; and which tokens are up, since one of
/// several may be away while the others serve.
pub(super) fn readiness(why: Option<&str>, tokens: BTreeMap<String, bool>) -> Outgoing {
    #[derive(serde::Serialize)]
    struct Readiness<'a> {
        ready: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        tokens: BTreeMap<String, bool>,
    }
    let told = Readiness { ready: why.is_none(), why, tokens };
    let mut body = serde_json::to_vec(&told).unwrap_or_default();
    body.push(b'\n');
    let status = if told.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, rest::MEDIA_TYPE, Payload::Open(body.into()))
}

impl Handler for Door {
    async fn handle(&self, request: &Incoming) -> Outgoing {
        match request.head.uri.path() {
            "/healthz" => answer(StatusCode::OK, "text/plain", Payload::Open(b"ok\n"[..].into())),
            "/readyz" => self.ready().await,
            "/metrics" => {
                let page = metrics::page(&self.services).into_bytes();
                answer(StatusCode::OK, metrics::MEDIA_TYPE, Payload::Open(page.into()))
            }
            ANYWHERE => self.anywhere(request, ANYWHERE).await,
            path => match path.strip_prefix(rest::PREFIX) {
                Some(rest) if rest.starts_with('/') => self.rest(request, rest).await,
                _ if speaks_query(&request.head) => self.query(request).await,
                _ => self.aws(request).await,
            },
        }
    }

    fn refuse(&self, refusal: Refusal, head: &Head) -> Outgoing {
        let code = match refusal {
            Refusal::TooLarge => "RequestEntityTooLargeException",
            Refusal::HeadersTooLarge | Refusal::BadRequest => "SerializationException",
            Refusal::Timeout => "RequestTimeoutException",
            Refusal::TooManyConnections => "ThrottlingException",
            Refusal::Overdue => "ServiceUnavailable",
            Refusal::Internal => "InternalFailure",
        };
        let refused = self::refusal(code, refusal.status(), refusal.to_string());
        self.refused(head, &refused)
    }
}

pub(super) fn refusal(code: &'static str, status: StatusCode, message: String) -> Refused {
    Refused { service: None, operation: String::new(), code, status, message }
}

/// A request as its signature is checked.
fn signed(request: &Incoming) -> Signed<'_> {
    let head = &request.head;
    Signed {
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers: &head.headers,
        authority: head.uri.authority().map(http::uri::Authority::as_str),
        body: request.body.expose(),
    }
}

fn speaks_query(head: &Head) -> bool {
    query::spoken(&head.method, head.uri.query().unwrap_or_default(), &head.headers)
}

/// The code and status of a refused signature, as the service has them that it was meant for.
fn authentication(error: &AuthError, service: Service) -> (&'static str, StatusCode) {
    if service.speaks_query() {
        let code = error.query_code();
        let incomplete = code == "IncompleteSignature";
        (code, if incomplete { StatusCode::BAD_REQUEST } else { StatusCode::FORBIDDEN })
    } else {
        (error.code(), StatusCode::BAD_REQUEST)
    }
}

/// The protocols that answers are written in.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Aws,
    Query,
    Rest,
    /// IAM Roles Anywhere's: JSON, the error code in a header.
    Anywhere,
}

impl Form {
    pub(super) fn of(head: &Head) -> Self {
        let rest = head.uri.path().strip_prefix(rest::PREFIX).is_some_and(|p| p.starts_with('/'));
        if rest {
            Self::Rest
        } else if head.uri.path() == ANYWHERE {
            Self::Anywhere
        } else if speaks_query(head) {
            Self::Query
        } else {
            Self::Aws
        }
    }

    /// A row's answer, from its JSON output.
    fn output(self, row: &Row, output: Secret, head: &Head) -> Outgoing {
        let (media_type, body) = match self {
            Self::Anywhere => {
                let body = Payload::Secret(output);
                return answer(StatusCode::CREATED, rest::MEDIA_TYPE, body);
            }
            Self::Aws => (aws::MEDIA_TYPE, output),
            Self::Rest => (rest::MEDIA_TYPE, output),
            Self::Query => match xml::answer(row, output.expose(), head.request_id.as_str()) {
                Ok(body) => (xml::MEDIA_TYPE, body),
                Err(error) => {
                    tracing::error!(operation = row.name, %error, "an output that is no JSON");
                    let (code, status) = codes::code(row, Condition::Internal);
                    return self.error(Some(row.service), code, status, "internal failure", head);
                }
            },
        };
        answer(StatusCode::OK, media_type, Payload::Secret(body))
    }

    pub(super) fn error(
        self,
        service: Option<Service>,
        code: &str,
        status: StatusCode,
        message: &str,
        head: &Head,
    ) -> Outgoing {
        match self {
            Self::Aws => {
                let body = aws::error_body(service, code, message);
                answer(status, aws::MEDIA_TYPE, Payload::Open(body.into()))
            }
            Self::Query => {
                let id = head.request_id.as_str();
                let body = xml::error(service, code, status, message, id);
                answer(status, xml::MEDIA_TYPE, Payload::Open(body.into()))
            }
            Self::Anywhere => {
                let body = aws::message(message).into();
                let mut outgoing = answer(status, rest::MEDIA_TYPE, Payload::Open(body));
                let code = HeaderValue::from_str(code);
                outgoing.headers.extend(code.map(|code| (ERROR_TYPE, code)));
                outgoing
            }
            Self::Rest => {
                let body = rest::problem(code, status, message, head.request_id.as_str());
                answer(status, rest::PROBLEM_TYPE, Payload::Open(body.into()))
            }
        }
    }
}

fn openapi() -> &'static [u8] {
    &super::openapi::DOCUMENT
}

/// The one function that writes answers.
pub(super) fn answer(status: StatusCode, media_type: &'static str, body: Payload) -> Outgoing {
    let content_type = HeaderValue::from_static(media_type);
    Outgoing { status, content_type, body, headers: Vec::new() }
}

pub(super) fn origin(head: &Head) -> Origin {
    let agent = head.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    Origin {
        request_id: head.request_id,
        source_ip: head.peer.ip(),
        user_agent: cut(agent, USER_AGENT_MAX).to_owned(),
        tls: head.tls.map(|tls| audit::Tls { version: tls.version, cipher: tls.cipher }),
    }
}

/// At most `max` bytes of a text, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
