//! A function behind AWS Lambda's Invoke API:
//! <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>.
//!
//! The event is the body. Temporary credentials, which an execution role gives on AWS, stand in the
//! client context, under the names that they have in a function's environment.

use super::{Event, Failure};
use crate::clock::{Time, World};
use crate::envelope::session::{Kind, Session, Sessions};
use crate::identity::oidc::fetch::connect;
use crate::ops::secrets::rotate::functions::Lambda;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most bytes of an answer: AWS Lambda's own.
const MAX_ANSWER: usize = 6 << 20;
/// The most bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;
/// How long credentials outlive the step that they are for, in milliseconds.
const GRACE: i64 = 60_000;

/// What a function that failed says of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error_message: String,
}

/// Where a function is.
pub(in crate::rotate) struct Place<'a> {
    pub(in crate::rotate) lambda: &'a Lambda,
    pub(in crate::rotate) name: &'a str,
    pub(in crate::rotate) qualifier: Option<&'a str>,
}

/// Has a step done.
pub(in crate::rotate) async fn invoke(
    place: &Place<'_>,
    event: &Event<'_>,
    context: Option<HeaderValue>,
) -> Result<(), Failure> {
    let deadline = place.lambda.deadline;
    let answer = tokio::time::timeout(deadline, exchange(place, event, context)).await;
    answer.unwrap_or_else(|_| {
        let seconds = deadline.as_secs();
        Err(Failure::passing(format!("the function gave no answer within {seconds} s")))
    })
}

async fn exchange(
    place: &Place<'_>,
    event: &Event<'_>,
    context: Option<HeaderValue>,
) -> Result<(), Failure> {
    let request = request(place, event, context)?;
    let unreachable = |why: &dyn std::fmt::Display| {
        Failure::passing(format!("the function's endpoint can't be reached: {why}"))
    };
    let stream = connect(&place.lambda.endpoint, place.lambda.trust.clone()).await;
    let stream = TokioIo::new(stream.map_err(|e| unreachable(&e))?);
    let mut client = http1::Builder::new();
    client.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = client.handshake(stream).await.map_err(|e| unreachable(&e))?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| unreachable(&e))?.to_bytes();
        outcome(head.status, head.headers.contains_key("x-amz-function-error"), &body)
    };
    let mut answer = std::pin::pin!(answer);
    // The connection is driven by this very task, and is dropped with it.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(|e| unreachable(&e))?;
            answer.await
        }
    }
}

/// What an answer means. What a function returns is of no meaning, that it failed is.
fn outcome(status: StatusCode, failed: bool, body: &[u8]) -> Result<(), Failure> {
    if status != StatusCode::OK {
        return Err(Failure::passing(format!("the function's endpoint answers {status}")));
    }
    if !failed {
        return Ok(());
    }
    let told: Option<Told> = serde_json::from_slice(body).ok();
    let says = told.map(|told| match told.error_type.as_str() {
        "" => told.error_message,
        kind => format!("{kind}: {}", told.error_message),
    });
    Err(Failure { says, ..Failure::passing("the function failed") })
}

fn request(
    place: &Place<'_>,
    event: &Event<'_>,
    context: Option<HeaderValue>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let url = &place.lambda.endpoint;
    let name = utf8_percent_encode(place.name, NON_ALPHANUMERIC);
    let base = url.path().trim_end_matches('/');
    let mut path = format!("{base}/2015-03-31/functions/{name}/invocations");
    if let Some(qualifier) = place.qualifier {
        path.push_str("?Qualifier=");
        path.extend(utf8_percent_encode(qualifier, NON_ALPHANUMERIC));
    }
    let unwritable =
        |e: &dyn std::fmt::Display| Failure::lasting(format!("the function can't be asked: {e}"));
    let body = serde_json::to_vec(event).map_err(|e| unwritable(&e))?;
    let mut request = Request::post(path)
        .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, "strongroom")
        .header("x-amz-invocation-type", "RequestResponse")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| unwritable(&e))?;
    if let Some(context) = context {
        request.headers_mut().insert("x-amz-client-context", context);
    }
    Ok(request)
}

/// Credentials, under the names that they have in a function's environment.
pub(in crate::rotate) type Variables = [(&'static str, String); 3];

/// The client context that brings credentials.
pub(in crate::rotate) fn client_context(credentials: &Variables) -> Option<HeaderValue> {
    let custom: BTreeMap<_, _> = credentials.iter().map(|(name, value)| (name, value)).collect();
    let context = json!({"custom": custom});
    let mut header = HeaderValue::try_from(STANDARD.encode(context.to_string())).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Credentials for one secret, as long as a step may take.
pub(in crate::rotate) fn credentials(
    (world, sessions): (&World, &Sessions),
    deadline: Duration,
    (account, arn, master): (&str, &str, Option<&str>),
) -> Option<Variables> {
    let now = world.clock.now();
    let lasts = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
    let session = Session {
        account: account.to_owned(),
        kind: Kind::Root,
        issuer_arn: ["arn:aws:iam::", account, ":root"].concat(),
        issuer_id: account.to_owned(),
        name: String::new(),
        policies: vec![("rotation".to_owned(), policy(arn, master))],
        tags: Vec::new(),
        transitive: Vec::new(),
        issued: now,
        expires: Time(now.0.saturating_add(lasts).saturating_add(GRACE)),
        source_identity: Some("rotation".to_owned()),
        provider: None,
        chained: false,
    };
    let made = sessions.make(&*world.random, &session).ok()?;
    Some([
        ("AWS_ACCESS_KEY_ID", made.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", made.secret_access_key.expose_str()?.to_owned()),
        ("AWS_SESSION_TOKEN", made.token.expose_str()?.to_owned()),
    ])
}

/// What AWS's example policies give to a rotation function, for this secret and its master alone:
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotating-secrets-required-permissions-function.html>.
fn policy(arn: &str, master: Option<&str>) -> String {
    let on_secret = [
        "secretsmanager:DescribeSecret",
        "secretsmanager:GetSecretValue",
        "secretsmanager:PutSecretValue",
        "secretsmanager:UpdateSecretVersionStage",
    ];
    let mut statements = vec![
        json!({"Effect": "Allow", "Action": on_secret, "Resource": arn}),
        json!({"Effect": "Allow", "Action": "secretsmanager:GetRandomPassword", "Resource": "*"}),
        json!({"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "*",
               "Condition": {"StringEquals": {"kms:EncryptionContext:SecretARN": arn}}}),
    ];
    if let Some(master) = master {
        statements.extend([
            json!({"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": master}),
            json!({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*",
                   "Condition": {"StringEquals": {"kms:EncryptionContext:SecretARN": master}}}),
        ]);
    }
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_200_without_a_function_error_is_a_step_that_was_done() {
        let told = |status, failed, body: &[u8]| {
            outcome(status, failed, body).map_err(|failure| (failure.why, failure.says))
        };
        assert_eq!(told(StatusCode::OK, false, b"\xff garbage"), Ok(()));
        let says = br#"{"errorType": "ValueError", "errorMessage": "no login"}"#;
        let (why, said) = told(StatusCode::OK, true, says).expect_err("failed");
        assert_eq!(
            (why.as_str(), said.as_deref()),
            ("the function failed", Some("ValueError: no login"))
        );
        assert_eq!(told(StatusCode::OK, true, b"garbage").expect_err("failed").1, None);
        let (why, _) = told(StatusCode::NOT_FOUND, false, b"").expect_err("failed");
        assert!(why.contains("404"), "{why}");
    }
}
