//! PostgreSQL, by crate tokio-postgres.
//!
//! A password goes to the server as a verifier that is computed here: what the server writes to its
//! log (`log_statement`, `log_min_error_statement`) opens nothing. So do libpq's
//! `PQencryptPasswordConn` and psql's `\password`.

use super::stream::{self, Stream, Tcp};
use super::{Login, Refusal};
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, NoTls, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, Error};

/// How long the server may work on a statement or wait for a lock: less than our own patience, so
/// that it gives up before we do. And names mean what is the server's own, whoever owns the database.
const PATIENCE: &str =
    "SET statement_timeout = '10s'; SET lock_timeout = '10s'; SET search_path = ''";
/// How long a connection may take to say good-bye.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) async fn test(login: &Login) -> Result<(), Refusal> {
    let session = Session::open(login).await?;
    session.run("SELECT 1").await?;
    session.close().await;
    Ok(())
}

pub(super) async fn set_password(admin: &Login, user: &str, new: &str) -> Result<(), Refusal> {
    let session = Session::open(admin).await?;
    let verifier = session.verifier(user, new).await?;
    session.change(&alteration(user, &verifier)).await?;
    session.close().await;
    Ok(())
}

/// As AWS's function for alternating users does: the clone is a member of the role that it is
/// cloned from. Once there, it keeps what it has: the first one can't be a member of it in turn.
pub(super) async fn clone_user(
    admin: &Login,
    user: &str,
    clone: &str,
    new: &str,
) -> Result<(), Refusal> {
    let session = Session::open(admin).await?;
    let verifier = session.verifier(clone, new).await?;
    let change = if session.has_role(clone).await? {
        alteration(clone, &verifier)
    } else {
        let (user, clone, verifier) = (identifier(user), identifier(clone), literal(&verifier));
        // One message is one transaction: there is never a clone without its rights.
        format!("CREATE ROLE {clone} WITH LOGIN PASSWORD {verifier}; GRANT {user} TO {clone}")
    };
    session.change(&change).await?;
    session.close().await;
    Ok(())
}

fn alteration(user: &str, verifier: &str) -> String {
    format!("ALTER ROLE {} WITH PASSWORD {}", identifier(user), literal(verifier))
}

/// A quoted identifier:
/// <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant in the form with escapes, which means the same whatever
/// `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A connection that is logged in.
struct Session {
    client: Client,
    driver: Driver,
}

/// What moves the bytes of a connection; it ends with this value at the latest.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    async fn open(login: &Login) -> Result<Self, Refusal> {
        let mut config = Config::new();
        config.user(&login.username).password(login.password.expose());
        config.application_name("strongroom");
        config.dbname(login.dbname.as_deref().unwrap_or("postgres"));
        let tcp = stream::tcp(login).await?;
        let session = match stream::handshake(login).await? {
            None => {
                let config = config.ssl_mode(SslMode::Disable);
                Self::start(config.connect_raw(tcp, NoTls).await)
            }
            Some((connector, name)) => {
                let config = config.ssl_mode(SslMode::Require);
                Self::start(config.connect_raw(tcp, Encrypt { connector, name }).await)
            }
        };
        let session = session.map_err(|error| refusal(&error, Phase::Login))?;
        session.run(PATIENCE).await?;
        Ok(session)
    }

    fn start<S>(
        made: Result<(Client, tokio_postgres::Connection<Tcp, S>), Error>,
    ) -> Result<Self, Error>
    where
        S: TlsStream + Unpin + Send + 'static,
    {
        let (client, connection) = made?;
        let driver = Driver(tokio::spawn(async move {
            // Its failure is what the client's next call answers.
            drop(connection.await);
        }));
        Ok(Self { client, driver })
    }

    async fn run(&self, statements: &str) -> Result<(), Refusal> {
        let done = self.client.batch_execute(statements).await;
        done.map_err(|error| refusal(&error, Phase::Question))
    }

    async fn change(&self, statements: &str) -> Result<(), Refusal> {
        let done = self.client.batch_execute(statements).await;
        done.map_err(|error| refusal(&error, Phase::Change))
    }

    async fn has_role(&self, name: &str) -> Result<bool, Refusal> {
        let question = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1::text";
        let found = self.client.query(question, &[&name]).await;
        found.map(|rows| !rows.is_empty()).map_err(|error| refusal(&error, Phase::Question))
    }

    /// What the server shall keep of a password, in the form that it would choose itself.
    async fn verifier(&self, user: &str, password: &str) -> Result<String, Refusal> {
        let form = self.client.query_one("SHOW password_encryption", &[]).await;
        let form = form.and_then(|row| row.try_get::<_, String>(0));
        match form.map_err(|error| refusal(&error, Phase::Question))?.as_str() {
            "md5" => Ok(postgres_protocol::password::md5(password.as_bytes(), user)),
            _ => Ok(postgres_protocol::password::scram_sha_256(password.as_bytes())),
        }
    }

    /// Says good-bye, so that the server's log has no broken connection.
    async fn close(self) {
        let Self { client, mut driver } = self;
        drop(client);
        // Whether the farewell is heard changes nothing.
        drop(tokio::time::timeout(FAREWELL, &mut driver.0).await);
    }
}

/// What was asked of the server: the same code means different things.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Login,
    Question,
    Change,
}

/// The code of an error, never its text. Codes:
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn refusal(error: &Error, phase: Phase) -> Refusal {
    let Some(code) = error.code() else { return without_code(error) };
    let code = Some(code.code()).filter(|code| is_code(code)).unwrap_or("unknown");
    let shown = format!("SQLSTATE {code}");
    match code.get(..2).unwrap_or_default() {
        // Connections, resources, an operator at work, a transaction that may be run again.
        "08" | "53" | "57" | "58" | "40" => Refusal::Unreachable(shown),
        "55" if code == "55P03" => Refusal::Unreachable(shown),
        "28" if phase == Phase::Login => Refusal::Credentials(shown),
        // A password checker of the server's: passwordcheck has 22023, others what they like of it.
        "22" | "28" if phase == Phase::Change => Refusal::NewPassword(shown),
        _ => Refusal::Other(format!("it answers {shown}")),
    }
}

/// Whether this is a code at all. It is shown: a server must not put anything else there.
fn is_code(code: &str) -> bool {
    code.len() == 5 && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn without_code(error: &Error) -> Refusal {
    let io = std::error::Error::source(error).and_then(|why| why.downcast_ref::<io::Error>());
    match io {
        Some(why) => Refusal::unreachable(why),
        None if error.is_closed() => Refusal::unreachable("the connection was closed"),
        // Its own words, without what the server sent: no TLS there, an unknown way to log in.
        None => Refusal::other(error),
    }
}

/// The handshake of TLS at the place where PostgreSQL's protocol has it.
struct Encrypt {
    connector: tokio_rustls::TlsConnector,
    name: tokio_rustls::rustls::pki_types::ServerName<'static>,
}

impl TlsConnect<Tcp> for Encrypt {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, tcp: Tcp) -> Self::Future {
        Box::pin(async move {
            let encrypted = self.connector.connect(self.name, tcp).await?;
            Ok(Stream::Encrypted(Box::new(encrypted)))
        })
    }
}

impl TlsStream for Stream {
    /// None: the certificate is checked, which is what binding would make up for.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_five_digits_and_capitals() {
        assert!(is_code("28P01"));
        assert!(["", "28P0", "28P011", "hunte", "A\u{e9}AA"].iter().all(|bad| !is_code(bad)));
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(identifier("a\"; DROP ROLE b; --"), "\"a\"\"; DROP ROLE b; --\"");
        assert_eq!(literal("it's \\"), "E'it''s \\\\'");
        assert_eq!(alteration("u", "v"), "ALTER ROLE \"u\" WITH PASSWORD E'v'");
    }
}
