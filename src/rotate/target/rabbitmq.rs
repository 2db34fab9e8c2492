//! RabbitMQ, by the HTTP API of its management plugin:
//! <https://www.rabbitmq.com/docs/http-api-reference>.

use super::{Login, Refusal, Tls, stream};
use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// The longest answer, in bytes: permissions of one user in every virtual host.
const MAX_ANSWER: usize = 1 << 20;
/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How many permissions a user has at most, of each kind.
const MOST_PERMISSIONS: usize = 1000;

/// An answer: its status and its body.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

/// What a user is beside its password. Tags are a list since RabbitMQ 3.9, a text before.
#[derive(Deserialize)]
struct User {
    tags: Tags,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tags {
    List(Vec<String>),
    Text(String),
}

/// A user as it is written; the API takes tags with commas between them in every version.
#[derive(Serialize)]
struct Written<'a> {
    password: &'a str,
    tags: &'a str,
}

/// A user that can't log in.
#[derive(Serialize)]
struct Locked<'a> {
    password_hash: &'a str,
    tags: &'a str,
}

#[derive(Deserialize, Serialize)]
struct Permission {
    #[serde(skip_serializing)]
    vhost: String,
    configure: String,
    write: String,
    read: String,
}

#[derive(Deserialize, Serialize)]
struct TopicPermission {
    #[serde(skip_serializing)]
    vhost: String,
    exchange: String,
    write: String,
    read: String,
}

/// Whether the management plugin knows the user and its password. A user that applications log in
/// with over AMQP has no right to see anything there: that it may not is as good an answer, since
/// the password is looked at first.
pub(super) async fn test(login: &Login) -> Result<(), Refusal> {
    let answer = ask(login, Method::GET, "/api/whoami", None).await?;
    if answer.status == StatusCode::UNAUTHORIZED && is_known(&answer.body) {
        return Ok(());
    }
    succeeded(&answer, Phase::Question)
}

/// The tags of the user stay; the API would take away those that are not repeated.
pub(super) async fn set_password(admin: &Login, user: &str, new: &str) -> Result<(), Refusal> {
    let tags = tags(admin, user).await?.ok_or_else(|| Refusal::other("there is no such user"))?;
    write_user(admin, user, &tags, new).await
}

/// The clone gets the tags and the permissions of the user. A new one has no password until then:
/// an empty hash lets nobody in.
pub(super) async fn clone_user(
    admin: &Login,
    user: &str,
    clone: &str,
    new: &str,
) -> Result<(), Refusal> {
    let none = || Refusal::other("there is no such user to be cloned");
    let tags = tags(admin, user).await?.ok_or_else(none)?;
    if self::tags(admin, clone).await?.is_none() {
        let body = json(&Locked { password_hash: "", tags: &tags })?;
        let made = ask(admin, Method::PUT, &user_path(clone), Some(body)).await?;
        succeeded(&made, Phase::Question)?;
    }
    copy_permissions(admin, user, clone).await?;
    write_user(admin, clone, &tags, new).await
}

/// What the user has lost the clone loses, too: in its turn it would give it back.
async fn copy_permissions(admin: &Login, user: &str, clone: &str) -> Result<(), Refusal> {
    let (of_user, of_clone) = (user_path(user), user_path(clone));
    let topics: Vec<TopicPermission> = list(admin, &format!("{of_user}/topic-permissions")).await?;
    let surplus: Vec<TopicPermission> =
        list(admin, &format!("{of_clone}/topic-permissions")).await?;
    let has = |old: &TopicPermission| {
        topics.iter().any(|topic| topic.vhost == old.vhost && topic.exchange == old.exchange)
    };
    for old in surplus.iter().filter(|old| !has(old)) {
        take(admin, "topic-permissions", &old.vhost, clone).await?;
    }
    for topic in &topics {
        copy(admin, "topic-permissions", &topic.vhost, clone, topic).await?;
    }
    let permissions: Vec<Permission> = list(admin, &format!("{of_user}/permissions")).await?;
    let surplus: Vec<Permission> = list(admin, &format!("{of_clone}/permissions")).await?;
    for old in surplus.iter().filter(|old| !permissions.iter().any(|one| one.vhost == old.vhost)) {
        take(admin, "permissions", &old.vhost, clone).await?;
    }
    for permission in &permissions {
        copy(admin, "permissions", &permission.vhost, clone, permission).await?;
    }
    Ok(())
}

async fn tags(admin: &Login, user: &str) -> Result<Option<String>, Refusal> {
    let answer = ask(admin, Method::GET, &user_path(user), None).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    succeeded(&answer, Phase::Question)?;
    let user: User = serde_json::from_slice(&answer.body).map_err(|_| garbled())?;
    Ok(Some(match user.tags {
        Tags::List(tags) => tags.join(","),
        Tags::Text(tags) => tags,
    }))
}

async fn write_user(admin: &Login, user: &str, tags: &str, new: &str) -> Result<(), Refusal> {
    let body = json(&Written { password: new, tags })?;
    succeeded(&ask(admin, Method::PUT, &user_path(user), Some(body)).await?, Phase::Change)
}

async fn list<T: serde::de::DeserializeOwned>(
    admin: &Login,
    path: &str,
) -> Result<Vec<T>, Refusal> {
    let answer = ask(admin, Method::GET, path, None).await?;
    succeeded(&answer, Phase::Question)?;
    let found: Vec<T> = serde_json::from_slice(&answer.body).map_err(|_| garbled())?;
    if found.len() > MOST_PERMISSIONS {
        return Err(Refusal::other(format!("it has more than {MOST_PERMISSIONS} permissions")));
    }
    Ok(found)
}

async fn copy(
    admin: &Login,
    kind: &str,
    vhost: &str,
    clone: &str,
    permission: &impl Serialize,
) -> Result<(), Refusal> {
    let path = permission_path(kind, vhost, clone);
    let answer = ask(admin, Method::PUT, &path, Some(json(permission)?)).await?;
    succeeded(&answer, Phase::Question)
}

/// Takes all permissions of a kind in a virtual host; that there are none is as well.
async fn take(admin: &Login, kind: &str, vhost: &str, clone: &str) -> Result<(), Refusal> {
    let answer = ask(admin, Method::DELETE, &permission_path(kind, vhost, clone), None).await?;
    match answer.status {
        StatusCode::NOT_FOUND => Ok(()),
        _ => succeeded(&answer, Phase::Question),
    }
}

fn permission_path(kind: &str, vhost: &str, user: &str) -> String {
    format!("/api/{kind}/{}/{}", escaped(vhost), escaped(user))
}

fn json(body: &impl Serialize) -> Result<Secret, Refusal> {
    serde_json::to_vec(body).map(Secret::new).map_err(|_| Refusal::other("can't write JSON"))
}

fn user_path(user: &str) -> String {
    format!("/api/users/{}", escaped(user))
}

/// One segment of a path.
fn escaped(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// One request over a connection of its own.
async fn ask(
    login: &Login,
    method: Method,
    path: &str,
    body: Option<Secret>,
) -> Result<Answer, Refusal> {
    let stream = stream::open(login).await?;
    let mut client = http1::Builder::new();
    client.max_buf_size(MAX_HEAD);
    let (mut sender, connection) =
        client.handshake(TokioIo::new(stream)).await.map_err(Refusal::unreachable)?;
    let request = request(login, method, path, body)?;
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(Refusal::unreachable)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| Refusal::unreachable("its answer is cut off or too long"))?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    let mut answer = std::pin::pin!(answer);
    // The connection is driven by this very task, and is dropped with it.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(Refusal::unreachable)?;
            answer.await
        }
    }
}

fn request(
    login: &Login,
    method: Method,
    path: &str,
    body: Option<Secret>,
) -> Result<Request<Full<Bytes>>, Refusal> {
    let bad = |_| Refusal::other("the request can't be written");
    let host = match login.tls {
        Tls::Off if login.port == 80 => login.host.clone(),
        Tls::System | Tls::Roots(_) if login.port == 443 => login.host.clone(),
        _ if login.host.contains(':') => format!("[{}]:{}", login.host, login.port),
        _ => format!("{}:{}", login.host, login.port),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(AUTHORIZATION, basic(login)?)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body.map(owned).unwrap_or_default()))
        .map_err(bad)
}

/// The body, which is wiped when the last of hyper's hands on it lets go.
fn owned(body: Secret) -> Bytes {
    struct Owned(Secret);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            self.0.expose()
        }
    }
    Bytes::from_owner(Owned(body))
}

/// Basic authentication (RFC 7617); its user has no colon in its name.
fn basic(login: &Login) -> Result<HeaderValue, Refusal> {
    if login.username.contains(':') {
        return Err(Refusal::other("a user with `:` in its name can't use the management plugin"));
    }
    let mut pair = Secret::new(Vec::with_capacity(login.username.len() + 1 + login.password.len()));
    pair.expose_mut().extend_from_slice(login.username.as_bytes());
    pair.expose_mut().push(b':');
    pair.expose_mut().extend_from_slice(login.password.expose());
    let written = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())).into_bytes());
    let mut value = HeaderValue::from_bytes(written.expose())
        .map_err(|_| Refusal::other("the request can't be written"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What was asked of the server: the same status means different things.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Question,
    Change,
}

fn succeeded(answer: &Answer, phase: Phase) -> Result<(), Refusal> {
    let shown = format!("HTTP {}", answer.status.as_u16());
    match answer.status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED if is_known(&answer.body) => {
            Err(Refusal::other("the user has no right to use the management plugin"))
        }
        StatusCode::UNAUTHORIZED => Err(Refusal::Credentials(shown)),
        StatusCode::BAD_REQUEST if phase == Phase::Change => Err(Refusal::NewPassword(shown)),
        StatusCode::TOO_MANY_REQUESTS => Err(Refusal::Unreachable(shown)),
        status if status.is_server_error() => Err(Refusal::Unreachable(shown)),
        _ => Err(Refusal::other(format!("it answers {shown}"))),
    }
}

/// Whether a refusal comes after the password was found right.
fn is_known(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Reason {
        reason: String,
    }
    let reason = serde_json::from_slice::<Reason>(body).map(|body| body.reason);
    reason.is_ok_and(|reason| reason == "Not management user")
}

fn garbled() -> Refusal {
    Refusal::other("it does not answer as RabbitMQ's management plugin does")
}
