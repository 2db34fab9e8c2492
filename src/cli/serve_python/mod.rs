//! `strongroom function serve-python`: a runner that hosts a Python handler of AWS Lambda's behind Lambda's
//! Invoke API (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>), for tests and small sites.
//!
//! Credentials come in, so only loopback is listened at in the clear.

mod invocation;

use super::iam::print;
use super::{runtime, shutdown};
use crate::json::FromObject;
use crate::server::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use invocation::{Given, Handler, LONGEST, Outcome};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Invocations at once, and connections.
const MOST: (usize, usize) = (16, 64);
/// The most bytes of a request's head, and how long it may take.
const HEAD: (usize, Duration) = (64 * 1024, Duration::from_secs(10));
/// How long is waited if the system can't give a connection: it has no descriptors left, say.
const FAULT: Duration = Duration::from_millis(100);

/// Run a Lambda handler in Python.
#[derive(Args)]
pub(super) struct ServePython {
    /// The handler's file, and its name in there if that is not `lambda_handler`.
    #[arg(value_name = "FILE[:HANDLER]")]
    handler: String,
    /// The loopback address to listen at; port 0 finds a free one.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Where the handler finds the appliance; by default SECRETS_MANAGER_ENDPOINT,
    /// AWS_ENDPOINT_URL_SECRETS_MANAGER or AWS_ENDPOINT_URL.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// The appliance's region; by default AWS_REGION, AWS_DEFAULT_REGION, or that of the secret.
    #[arg(long)]
    region: Option<String>,
    /// The interpreter.
    #[arg(long, default_value = "python3")]
    python: String,
    /// How long an invocation may take, in seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u16).range(1..=900)
    )]
    timeout: u16,
}

impl ServePython {
    pub(super) fn run(self) -> Result<(), Error> {
        if !self.listen.ip().is_loopback() {
            let text = "credentials come in: only loopback is listened at in the clear";
            return Err(Error::Refused(text.to_owned()));
        }
        let listen = self.listen;
        let handler = Handler::of(self)?;
        let runner = Arc::new(Runner { handler, room: Semaphore::new(MOST.0) });
        runtime()?.block_on(async {
            let shutdown = shutdown()?;
            let listener = TcpListener::bind(listen).await;
            let listener = listener.map_err(|e| Error::io(Path::new(&listen.to_string()), e))?;
            print(&format!("serving http://{}", listener.local_addr().unwrap_or(listen)));
            tokio::select! {
                () = serve(listener, runner) => {}
                () = shutdown => {}
            }
            Ok(())
        })
    }
}

/// Takes connections until it is dropped, and they with it.
async fn serve(listener: TcpListener, runner: Arc<Runner>) {
    let (room, mut connections) = (Arc::new(Semaphore::new(MOST.1)), JoinSet::new());
    while let Ok(place) = room.clone().acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let runner = runner.clone();
                connections.spawn(async move {
                    converse(stream, runner).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection");
                tokio::time::sleep(FAULT).await;
            }
        }
    }
}

/// Whoever closes the connection ends the invocation that is under way.
async fn converse(stream: TcpStream, runner: Arc<Runner>) {
    let answer = service_fn(move |request| {
        let runner = runner.clone();
        async move { Ok::<_, Infallible>(runner.answer(request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD.1).max_buf_size(HEAD.0);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(%error, "a connection");
    }
}

/// The handler, and room for invocations.
struct Runner {
    handler: Handler,
    room: Semaphore,
}

type Answer = Response<Full<Bytes>>;

impl Runner {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match self.invoke(request).await {
            Ok(Outcome::Returned(body)) => answer(StatusCode::OK, None, body),
            Ok(Outcome::Failed(body)) => {
                answer(StatusCode::OK, Some(("x-amz-function-error", "Unhandled")), body)
            }
            Err(Refusal(status, kind, text)) => {
                let body = json!({"Type": "User", "message": text}).to_string();
                answer(status, Some(("x-amzn-errortype", kind)), body.into())
            }
        }
    }

    async fn invoke(&self, request: Request<Incoming>) -> Result<Outcome, Refusal> {
        let (head, body) = request.into_parts();
        let invoked = Invoked::of(&head)?;
        let given = given(&head)?;
        let _place = self.room.try_acquire().map_err(|_| BUSY)?;
        let body = Limited::new(body, LONGEST).collect().await.map_err(|_| LONG)?;
        let event = body.to_bytes();
        // No payload is an empty event.
        let event: &[u8] = if event.is_empty() { b"{}" } else { &event };
        let event: &RawValue = serde_json::from_slice(event).map_err(|_| NO_JSON)?;
        Ok(self.handler.run(&invoked, event, given).await)
    }
}

fn answer(status: StatusCode, more: Option<(&'static str, &'static str)>, body: Bytes) -> Answer {
    let mut answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .header("x-amz-executed-version", "$LATEST");
    if let Some((name, value)) = more {
        answer = answer.header(name, value);
    }
    answer.body(Full::new(body)).unwrap_or_default()
}

/// A request that runs nothing: its status, and AWS Lambda's name and text for it.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(StatusCode, &'static str, &'static str);

const NOWHERE: Refusal = Refusal(
    StatusCode::NOT_FOUND,
    "ResourceNotFoundException",
    "A function is invoked by POST /2015-03-31/functions/NAME/invocations.",
);
const UNFIT: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "InvalidParameterValueException",
    "The invocation type is RequestResponse, and the client context is JSON in base64.",
);
const NO_JSON: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "InvalidRequestContentException",
    "Could not parse request body into json.",
);
const LONG: Refusal = Refusal(
    StatusCode::PAYLOAD_TOO_LARGE,
    "RequestTooLargeException",
    "The request is cut off, or longer than 6291456 bytes.",
);
const BUSY: Refusal =
    Refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.");
const BROWSER: Refusal = Refusal(
    StatusCode::FORBIDDEN,
    "AccessDeniedException",
    "No page in a browser invokes a function here.",
);

/// Which function is asked for; one handler is all of them.
#[derive(Debug)]
struct Invoked {
    name: String,
    qualifier: Option<String>,
}

impl Invoked {
    fn of(head: &Parts) -> Result<Self, Refusal> {
        let path = head.uri.path().strip_prefix("/2015-03-31/functions/");
        let name = path.and_then(|path| path.strip_suffix("/invocations"));
        let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let name = name.filter(|_| head.method == Method::POST).and_then(decoded);
        let name = name.filter(|name| !name.is_empty() && !name.contains(['/', '\0']));
        let qualifier = head.uri.query().unwrap_or_default().split('&');
        let qualifier = qualifier.filter_map(|pair| pair.strip_prefix("Qualifier=")).next();
        let qualifier = qualifier.and_then(decoded);
        Ok(Self { name: name.ok_or(NOWHERE)?, qualifier })
    }

    fn arn(&self, region: &str, account: &str) -> String {
        let arn = format!("arn:aws:lambda:{region}:{account}:function:{}", self.name);
        match &self.qualifier {
            Some(qualifier) => format!("{arn}:{qualifier}"),
            None => arn,
        }
    }
}

/// A client context, as far as it brings credentials.
#[derive(Default, Deserialize)]
struct ClientContext {
    #[serde(default)]
    custom: BTreeMap<String, String>,
}

/// The credentials that come with a request.
fn given(head: &Parts) -> Result<Given, Refusal> {
    if head.headers.contains_key(ORIGIN) {
        return Err(BROWSER);
    }
    let kind = head.headers.get("x-amz-invocation-type");
    if kind.is_some_and(|kind| kind != "RequestResponse") {
        return Err(UNFIT);
    }
    let Some(context) = head.headers.get("x-amz-client-context") else {
        return Ok(Given::default());
    };
    let context = STANDARD.decode(context.as_bytes()).map_err(|_| UNFIT)?;
    let FromObject(ClientContext { custom }) =
        serde_json::from_slice(&context).map_err(|_| UNFIT)?;
    Ok(Given::of(custom))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_function_is_asked_for_as_at_aws() {
        let arn = |path| {
            Invoked::of(&head("POST", path, &[])).map(|f| f.arn("us-east-1", "111122223333"))
        };
        let begin = "arn:aws:lambda:us-east-1:111122223333:function:";
        assert_eq!(arn("/2015-03-31/functions/a%2Db/invocations"), Ok(format!("{begin}a-b")));
        let version = arn("/2015-03-31/functions/a/invocations?x=y&Qualifier=%24LATEST");
        assert_eq!(version, Ok(format!("{begin}a:$LATEST")));
        for path in ["/", "/2015-03-31/functions/a", "/2015-03-31/functions//invocations"] {
            assert_eq!(arn(path), Err(NOWHERE), "{path}");
        }
        assert_eq!(arn("/2015-03-31/functions/a%2F/invocations"), Err(NOWHERE));
        let get = Invoked::of(&head("GET", "/2015-03-31/functions/a/invocations", &[]));
        assert_eq!(get.expect_err("refused"), NOWHERE);
    }

    #[test]
    fn credentials_come_in_the_client_context_and_from_no_browser() {
        let of = |headers: &[(&str, &str)]| given(&head("POST", "/", headers));
        let context = |json: &str| STANDARD.encode(json);
        let both = context(r#"{"custom": {"AWS_SESSION_TOKEN": "t", "LD_PRELOAD": "x"}}"#);
        let found = of(&[("x-amz-client-context", &both)]).expect("taken");
        assert_eq!(found.names(), ["AWS_SESSION_TOKEN"], "nothing but credentials");
        assert!(of(&[]).expect("taken").names().is_empty());
        for bad in ["%", &context("[]"), &context("\u{fffd}{")] {
            assert_eq!(of(&[("x-amz-client-context", bad)]).map(drop), Err(UNFIT), "{bad}");
        }
        assert_eq!(of(&[("x-amz-invocation-type", "Event")]).map(drop), Err(UNFIT));
        assert_eq!(of(&[("origin", "https://example.com")]).map(drop), Err(BROWSER));
    }
}
