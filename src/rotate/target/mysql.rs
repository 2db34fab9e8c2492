//! MySQL and MariaDB, by crate mysql_async.
//!
//! MySQL leaves passwords out of its logs. MariaDB writes every statement into its general log as it
//! is, if that log is on: it is switched off for our session where the user may do that (SUPER).
//! Where it may not, the server gets the hash that it would keep, unless it has rules for passwords,
//! which it can't apply to a hash.

use super::stream::certificates;
use super::{Login, Refusal, Tls};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, OptsBuilder, Params, SslOpts};
use std::time::Duration;

/// Backslashes are then characters like others, double quotes quote nothing: a text in single
/// quotes, which are doubled, is always that text.
const QUOTING: &str = "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'";
/// How long the server may wait for a lock: less than our own patience, so that it gives up before we
/// do. Its own limit is a day (MariaDB) or a year, and then it does what nobody waits for any more.
const PATIENCE: &str = "SET SESSION lock_wait_timeout = 10, innodb_lock_wait_timeout = 10";
/// The same for the work on a statement, in seconds. MySQL has no such limit but for SELECT.
const PATIENCE_OF_MARIADB: &str = "SET SESSION max_statement_time = 10";
/// More hosts than one user's name is kept for, and more grants than one account has.
const MOST_ROWS: usize = 1000;
/// The longest row, and the longest statement, in bytes.
const MAX_PACKET: usize = 1 << 20;
/// "The server is running with the ... option so it cannot execute this statement"
/// (ER_OPTION_PREVENTS_STATEMENT): `read_only`, `strict_password_validation`.
const OPTION_PREVENTS: u16 = 1290;
/// "Operation ALTER USER failed for ..." (ER_CANNOT_USER).
const USER_NOT_CHANGED: u16 = 1396;
/// "Your password does not satisfy the current policy requirements" (ER_NOT_VALID_PASSWORD).
const NOT_VALID_PASSWORD: u16 = 1819;
/// How long a connection may take to say good-bye.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) async fn test(login: &Login) -> Result<(), Refusal> {
    let mut session = Session::open(login).await?;
    session.run("SELECT 1").await?;
    session.close().await;
    Ok(())
}

/// A user that changes its own password changes that of the account it is logged in as, for which
/// it needs no right. An administrator changes those of every account of that name.
pub(super) async fn set_password(admin: &Login, user: &str, new: &str) -> Result<(), Refusal> {
    let mut session = Session::open(admin).await?;
    if admin.username == user {
        session.give_own(new).await?;
    } else {
        let accounts = session.accounts(user).await?;
        if accounts.is_empty() {
            return Err(Refusal::other("there is no such user"));
        }
        for account in accounts {
            session.give(&account, new).await?;
        }
    }
    session.close().await;
    Ok(())
}

/// As AWS's function for alternating users does, account by account: the clone gets the grants and
/// the demands on TLS. A new account is locked until it has them, and each gets its password last.
pub(super) async fn clone_user(
    admin: &Login,
    user: &str,
    clone: &str,
    new: &str,
) -> Result<(), Refusal> {
    let mut session = Session::open(admin).await?;
    let accounts = session.accounts(user).await?;
    if accounts.is_empty() {
        return Err(Refusal::other("there is no such user to be cloned"));
    }
    let there = session.accounts(clone).await?;
    for account in accounts {
        let own = there.iter().find(|own| own.host == account.host);
        session.copy(&account, clone, own, new).await?;
    }
    session.close().await;
    Ok(())
}

/// A text constant under [`QUOTING`].
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// What mysql_native_password keeps of a password: SHA-1 of its SHA-1, in hexadecimal.
fn native_hash(password: &str) -> String {
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    twice.as_ref().iter().fold("*".to_owned(), |text, byte| format!("{text}{byte:02X}"))
}

struct Account {
    user: String,
    host: String,
    /// Whether what is kept of its password is [`native_hash`].
    native: bool,
}

impl Account {
    fn written(&self) -> String {
        format!("{}@{}", text(&self.user), text(&self.host))
    }
}

/// A password as a statement says it.
enum Said {
    Hashed(String),
    Plain(String),
}

impl Said {
    /// The value in MariaDB's SET PASSWORD, which leaves the way to log in as it is.
    fn value(&self) -> String {
        match self {
            Self::Hashed(hash) => text(hash),
            Self::Plain(password) => format!("PASSWORD({})", text(password)),
        }
    }

    /// What follows IDENTIFIED.
    fn clause(&self) -> String {
        match self {
            Self::Hashed(hash) => format!("BY PASSWORD {}", text(hash)),
            Self::Plain(password) => format!("BY {}", text(password)),
        }
    }
}

/// A connection that is logged in.
struct Session {
    connection: Conn,
    mariadb: bool,
    /// Whether the general log has nothing of this session.
    quiet: bool,
}

impl Session {
    async fn open(login: &Login) -> Result<Self, Refusal> {
        let password = login.password.expose_str().unwrap_or_default();
        let options = OptsBuilder::default()
            .ip_or_hostname(&login.host)
            .tcp_port(login.port)
            .user(Some(&login.username))
            .pass(Some(password))
            .db_name(login.dbname.as_ref())
            // A socket of this machine is not what the secret names.
            .prefer_socket(false)
            .stmt_cache_size(0)
            .max_allowed_packet(Some(MAX_PACKET))
            .ssl_opts(tls(&login.tls).await?);
        let connection = Conn::new(options).await.map_err(|error| refusal(&error, Phase::Login))?;
        let mut session = Self { connection, mariadb: false, quiet: false };
        session.run(QUOTING).await?;
        session.run(PATIENCE).await?;
        let version: Vec<String> = session.rows("SELECT VERSION()", Params::Empty).await?;
        session.mariadb = version.iter().any(|version| version.contains("MariaDB"));
        if session.mariadb {
            session.quiet = session.run("SET SESSION sql_log_off = 1").await.is_ok();
            session.run("SET SESSION slow_query_log = 0").await?;
            session.run(PATIENCE_OF_MARIADB).await?;
        }
        Ok(session)
    }

    async fn run(&mut self, statement: &str) -> Result<(), Refusal> {
        self.connection
            .query_drop(statement)
            .await
            .map_err(|error| refusal(&error, Phase::Question))
    }

    async fn change(&mut self, statement: &str) -> Result<(), Refusal> {
        self.attempt(statement).await?.map_err(|code| server_refusal(code, Phase::Change))
    }

    /// The code, if it is the server that says no. MariaDB hides the reason behind another one.
    async fn attempt(&mut self, statement: &str) -> Result<Result<(), u16>, Refusal> {
        let code = match self.connection.query_drop(statement).await {
            Ok(()) => return Ok(Ok(())),
            Err(Error::Server(error)) => error.code,
            Err(error) => return Err(refusal(&error, Phase::Change)),
        };
        if code != USER_NOT_CHANGED {
            return Ok(Err(code));
        }
        let behind: Vec<(String, u16, String)> = self.rows("SHOW WARNINGS", Params::Empty).await?;
        let mut codes = behind.into_iter().map(|(_, code, _)| code);
        let reason = codes.find(|code| [NOT_VALID_PASSWORD, OPTION_PREVENTS].contains(code));
        Ok(Err(reason.unwrap_or(code)))
    }

    /// Runs a statement with a password, in the form that leaves the least behind.
    async fn say(
        &mut self,
        new: &str,
        native: bool,
        statement: impl Fn(&Said) -> String,
    ) -> Result<(), Refusal> {
        if self.mariadb && native && !self.quiet {
            match self.attempt(&statement(&Said::Hashed(native_hash(new)))).await? {
                // It has rules for passwords; or it takes no changes at all, and must not be told.
                Err(NOT_VALID_PASSWORD | OPTION_PREVENTS) => self.writable().await?,
                done => return done.map_err(|code| server_refusal(code, Phase::Change)),
            }
        }
        self.change(&statement(&Said::Plain(new.to_owned()))).await
    }

    async fn writable(&mut self) -> Result<(), Refusal> {
        let read_only: Vec<bool> = self.rows("SELECT @@GLOBAL.read_only", Params::Empty).await?;
        if read_only == [false] {
            return Ok(());
        }
        Err(server_refusal(OPTION_PREVENTS, Phase::Change))
    }

    /// ALTER USER would take an account of MariaDB's back to mysql_native_password; SET PASSWORD does
    /// not, but needs UPDATE on `mysql`.
    async fn give(&mut self, account: &Account, new: &str) -> Result<(), Refusal> {
        let (whose, keeps_way) = (account.written(), self.mariadb && !account.native);
        self.say(new, account.native, |said| match keeps_way {
            true => format!("SET PASSWORD FOR {whose} = {}", said.value()),
            false => format!("ALTER USER {whose} IDENTIFIED {}", said.clause()),
        })
        .await
    }

    async fn give_own(&mut self, new: &str) -> Result<(), Refusal> {
        let mariadb = self.mariadb;
        let native = mariadb && !self.quiet && {
            let shown: Vec<String> =
                self.rows("SHOW CREATE USER CURRENT_USER()", Params::Empty).await?;
            shown.iter().any(|shown| shown.contains(" IDENTIFIED BY PASSWORD '*"))
        };
        self.say(new, native, |said| match mariadb {
            true => format!("SET PASSWORD = {}", said.value()),
            false => format!("ALTER USER USER() IDENTIFIED {}", said.clause()),
        })
        .await
    }

    async fn rows<T>(&mut self, question: &str, about: Params) -> Result<Vec<T>, Refusal>
    where
        T: mysql_async::prelude::FromRow + Send + 'static,
    {
        let failed = |error| refusal(&error, Phase::Question);
        let mut shown = self.connection.exec_iter(question, about).await.map_err(failed)?;
        let mut rows = Vec::new();
        while let Some(row) = shown.next().await.map_err(failed)? {
            if rows.len() == MOST_ROWS {
                return Err(Refusal::other(format!("it has more than {MOST_ROWS} rows of that")));
            }
            let row = mysql_async::from_row_opt(row);
            rows.push(row.map_err(|_| Refusal::other("it shows a row of unknown form"))?);
        }
        Ok(rows)
    }

    async fn accounts(&mut self, user: &str) -> Result<Vec<Account>, Refusal> {
        let question = "SELECT Host, plugin FROM mysql.user WHERE User = ?";
        let about = Params::Positional(vec![user.into()]);
        let rows: Vec<(String, String)> = self.rows(question, about).await?;
        // No plugin: MariaDB before 10.4, whose only way to log in it was.
        let native = |plugin: &str| ["", "mysql_native_password"].contains(&plugin);
        let account = |(host, plugin): (String, String)| Account {
            user: user.to_owned(),
            host,
            native: native(&plugin),
        };
        Ok(rows.into_iter().map(account).collect())
    }

    async fn copy(
        &mut self,
        from: &Account,
        clone: &str,
        there: Option<&Account>,
        new: &str,
    ) -> Result<(), Refusal> {
        let native = there.is_none_or(|account| account.native);
        let to = Account { user: clone.to_owned(), host: from.host.clone(), native };
        let name = to.written();
        if there.is_none() {
            let make = |said: &Said| {
                format!("CREATE USER {name} IDENTIFIED {} ACCOUNT LOCK", said.clause())
            };
            self.say(new, native, make).await?;
        }
        let question = format!("SHOW GRANTS FOR {}", from.written());
        let grants: Vec<String> = self.rows(&question, Params::Empty).await?;
        for grant in grants {
            let grant = regrant(&grant, &name);
            let grant = grant.ok_or_else(|| Refusal::other("it shows a grant of unknown form"))?;
            self.run(&grant).await?;
        }
        let demands = self.demands(from).await?;
        self.run(&format!("ALTER USER {name} REQUIRE {demands}")).await?;
        self.give(&to, new).await?;
        // Locked by the line above, in this attempt or in one that did not come this far.
        self.run(&format!("ALTER USER {name} ACCOUNT UNLOCK")).await
    }

    /// What the account must show of TLS to be let in, as a REQUIRE clause says it.
    async fn demands(&mut self, of: &Account) -> Result<String, Refusal> {
        let question = "SELECT ssl_type, CONVERT(ssl_cipher USING utf8mb4), CONVERT(x509_issuer \
                        USING utf8mb4), CONVERT(x509_subject USING utf8mb4) FROM mysql.user WHERE \
                        User = ? AND Host = ?";
        let about = Params::Positional(vec![(&of.user).into(), (&of.host).into()]);
        let rows: Vec<(String, String, String, String)> = self.rows(question, about).await?;
        let Some((kind, cipher, issuer, subject)) = rows.into_iter().next() else {
            return Err(Refusal::other("there is no such user to be cloned"));
        };
        Ok(match kind.as_str() {
            "" => "NONE".to_owned(),
            "ANY" => "SSL".to_owned(),
            "X509" => "X509".to_owned(),
            _ => [("CIPHER", cipher), ("ISSUER", issuer), ("SUBJECT", subject)]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| format!("{name} {}", text(&value)))
                .collect::<Vec<_>>()
                .join(" AND "),
        })
    }

    async fn close(self) {
        // Whether the farewell is heard changes nothing.
        drop(tokio::time::timeout(FAREWELL, self.connection.disconnect()).await);
    }
}

/// The roots are the secret's or the machine's; those that the crate carries are switched off.
async fn tls(tls: &Tls) -> Result<Option<SslOpts>, Refusal> {
    let Some(certificates) = certificates(tls).await? else { return Ok(None) };
    let roots = certificates.into_iter().map(|der| der.to_vec().into()).collect();
    Ok(Some(SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots)))
}

/// The statement of SHOW GRANTS, for another account: what stands before `TO` and the account, then
/// what follows from `WITH` on. Whatever says how the account logs in (MariaDB shows it) is left out.
fn regrant(shown: &str, account: &str) -> Option<String> {
    let pieces = pieces(shown);
    let at = pieces.iter().position(|piece| ["TO", "FOR"].contains(piece))?;
    let word = *pieces.get(at)?;
    let before: String = pieces.get(..at)?.concat();
    let after = pieces.get(at + 1..)?;
    let with = after.iter().position(|piece| *piece == "WITH");
    let with: String = with.and_then(|with| after.get(with..)).unwrap_or_default().concat();
    Some(format!("{before}{word} {account} {with}").trim_end().to_owned())
}

/// Words, quoted names and texts, and what is between them: `concat` gives the statement again.
fn pieces(statement: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), statement);
    while let Some(first) = rest.chars().next() {
        let quoted = ['`', '\'', '"'].contains(&first);
        let len = if quoted { quoted_len(rest, first) } else { word_len(rest) };
        let (piece, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
        found.push(piece);
        rest = after;
    }
    found
}

/// Up to and with the closing quote; a doubled one opens again at once, which comes to the same.
fn quoted_len(text: &str, quote: char) -> usize {
    text.char_indices().skip(1).find(|(_, c)| *c == quote).map_or(text.len(), |(at, _)| at + 1)
}

/// A word to its end, or one character that belongs to none.
fn word_len(text: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    match text.find(|c: char| !is_word(c)) {
        Some(0) => text.chars().next().map_or(1, char::len_utf8),
        Some(end) => end,
        None => text.len(),
    }
}

/// What was asked of the server: the same code means different things.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Login,
    Question,
    Change,
}

/// The code of an error, never its text, which repeats statements. Codes:
/// <https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html>,
/// <https://mariadb.com/kb/en/mariadb-error-codes/>.
fn refusal(error: &Error, phase: Phase) -> Refusal {
    match error {
        Error::Server(error) => server_refusal(error.code, phase),
        Error::Io(why) => Refusal::unreachable(why),
        Error::Driver(DriverError::ConnectionClosed) => {
            Refusal::unreachable("the connection was closed")
        }
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            Refusal::other("it has no TLS, which the secret asks for")
        }
        Error::Driver(DriverError::UnknownAuthPlugin { .. }) => {
            Refusal::other("it wants a way to log in that is not known here")
        }
        _ => Refusal::other("the conversation failed: its answer was not understood"),
    }
}

fn server_refusal(code: u16, phase: Phase) -> Refusal {
    let shown = format!("error {code}");
    match code {
        // Too many connections, shut down, locks that others hold, too late.
        1040 | 1053 | 1077 | 1203 | 1205 | 1213 | 1226 | 1927 | 1969 => Refusal::Unreachable(shown),
        // Denied; password expired; account locked (MySQL, MariaDB).
        1045 | 1698 | 1820 | 1862 | 3118 | 4151 if phase == Phase::Login => {
            Refusal::Credentials(shown)
        }
        // Too long; not by the rules; used before.
        1372 | NOT_VALID_PASSWORD | 3638 if phase == Phase::Change => Refusal::NewPassword(shown),
        _ => Refusal::Other(format!("it answers {shown}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: &str = "'app_clone'@'%'";

    #[test]
    fn a_grant_goes_to_the_clone_and_says_nothing_of_passwords() {
        let cases = [
            ("GRANT USAGE ON *.* TO `app`@`%`", "GRANT USAGE ON *.* TO 'app_clone'@'%'"),
            (
                "GRANT USAGE ON *.* TO `app`@`%` IDENTIFIED BY PASSWORD '*2470 WITH' REQUIRE SSL WITH GRANT OPTION",
                "GRANT USAGE ON *.* TO 'app_clone'@'%' WITH GRANT OPTION",
            ),
            (
                "GRANT SELECT (`a TO b`, `c``d`) ON `x TO ``y`.`z` TO `app`@`%` WITH GRANT OPTION",
                "GRANT SELECT (`a TO b`, `c``d`) ON `x TO ``y`.`z` TO 'app_clone'@'%' WITH GRANT OPTION",
            ),
            ("GRANT `r`@`%` TO `app`@`%`", "GRANT `r`@`%` TO 'app_clone'@'%'"),
            (
                "SET DEFAULT ROLE `reader` FOR `app`@`%`",
                "SET DEFAULT ROLE `reader` FOR 'app_clone'@'%'",
            ),
        ];
        for (shown, wanted) in cases {
            assert_eq!(regrant(shown, TO).as_deref(), Some(wanted));
        }
        assert_eq!(regrant("something else", TO), None);
    }

    #[test]
    fn pieces_make_the_statement_again_whatever_it_is() {
        for statement in ["", "'", "a`b", "é ü'``' \u{1f511}", "GRANT x\u{a0}TO y"] {
            assert_eq!(pieces(statement).concat(), statement);
        }
    }

    #[test]
    fn a_text_ends_where_it_should() {
        assert_eq!(text("a'; DROP USER b; -- \\"), "'a''; DROP USER b; -- \\'");
        let account = Account { user: "o'x".into(), host: "%".into(), native: true };
        assert_eq!(account.written(), "'o''x'@'%'");
        let said = Said::Plain("n'w".into());
        assert_eq!((said.value(), said.clause()), ("PASSWORD('n''w')".into(), "BY 'n''w'".into()));
    }

    #[test]
    fn a_password_is_hashed_as_mysql_does() {
        // What SELECT PASSWORD('password') answers.
        assert_eq!(native_hash("password"), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }
}
