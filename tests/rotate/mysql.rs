//! MariaDB, which logs every statement that it gets, and whose passwords must not be too simple.

use crate::servers::{ADMIN, ADMIN_PASSWORD, Authority, Home, Server, free_port, is_root};
use crate::{NEW, ODD, OLD, again, alternating, lets_in, login, secret, single_user, tls};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use strongroom::rotate::target::{Login, Refusal, System};

const SYSTEM: System = System::Mysql;

struct MariaDb {
    home: Home,
    authority: Authority,
    admin: Login,
    _server: Server,
}

impl MariaDb {
    /// With these options besides.
    fn start(options: &[&str]) -> Self {
        let (home, authority, port) = (Home::new(), Authority::new(), free_port());
        home.certify(&authority);
        let begin = format!(
            "CREATE USER {ADMIN} IDENTIFIED BY '{ADMIN_PASSWORD}';\n\
             GRANT ALL ON *.* TO {ADMIN} WITH GRANT OPTION;\n"
        );
        home.write("begin.sql", &begin);
        let data = format!("--datadir={}", home.text("data"));
        home.run(home.command("mariadb-install-db").args(["--no-defaults", &data]).args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ]));
        let mut server = home.command("/usr/sbin/mariadbd");
        server.args(["--no-defaults", &data, "--bind-address=127.0.0.1", "--skip-name-resolve"]);
        server.args([format!("--port={port}"), format!("--socket={}", home.text("socket"))]);
        server.arg(format!("--init-file={}", home.text("begin.sql")));
        server.args(["--general-log=1", "--log-bin", "--server-id=1", "--slow-query-log=1"]);
        server.arg("--long-query-time=0").args(options);
        for (option, file) in [
            ("general-log-file", "statements"),
            ("slow-query-log-file", "slow"),
            ("ssl-cert", "server.pem"),
            ("ssl-key", "server.key"),
        ] {
            server.arg(format!("--{option}={}", home.text(file)));
        }
        if is_root() {
            server.arg("--user=root");
        }
        let server = home.start(&mut server, port);
        Self { home, authority, admin: login(port, ADMIN, ADMIN_PASSWORD), _server: server }
    }

    fn admin_again(&self) -> Login {
        again(&self.admin, ADMIN_PASSWORD)
    }

    /// A connection that is not the code's under test.
    async fn client(&self, user: &str, password: &str) -> Conn {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.admin.port)
            .prefer_socket(false)
            .user(Some(user))
            .pass(Some(password));
        Conn::new(options).await.expect("a connection")
    }

    async fn with_user(&self, user: &str) -> Conn {
        let mut client = self.client(ADMIN, ADMIN_PASSWORD).await;
        client
            .query_drop(
                "SET sql_mode = 'NO_BACKSLASH_ESCAPES', sql_log_off = 1, slow_query_log = 0",
            )
            .await
            .expect("quoting");
        let (user, old) = (user.replace('\'', "''"), OLD.replace('\'', "''"));
        let make = format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{old}'");
        client.query_drop(make).await.expect("a user");
        client
    }

    fn logs_no_password(&self) {
        for name in ["statements", "slow", "log"] {
            let log = self.home.read(name);
            for part in ["New-2", "Old-1"] {
                let line = log.lines().find(|line| line.contains(part));
                assert_eq!(line, None, "in {name}");
            }
        }
        assert!(self.home.read("statements").contains("sql_log_off"), "it logs");
    }
}

#[tokio::test]
async fn an_administrator_and_the_user_itself_change_a_password() {
    let server = MariaDb::start(&[]);
    server.with_user(ODD).await;
    single_user(SYSTEM, &server.admin, ODD).await;
    let own = |password| Login { username: ODD.into(), ..again(&server.admin, password) };
    SYSTEM.set_password(&own(OLD), ODD, &secret(NEW)).await.expect("its own password");
    assert!(lets_in(SYSTEM, &own(NEW)).await && !lets_in(SYSTEM, &own(OLD)).await);
    // It may not switch the log off: its password stands there as the hash that is kept.
    assert!(server.home.read("statements").contains("SET PASSWORD = '*"));
    tls(SYSTEM, &server.admin, &server.authority).await;
    server.logs_no_password();
}

#[tokio::test]
async fn a_password_that_is_too_simple_is_refused_as_such() {
    let server = MariaDb::start(&["--plugin-load-add=simple_password_check"]);
    let mut client = server.with_user("app").await;
    let own = |password| Login { username: "app".into(), ..again(&server.admin, password) };
    let refused = Err(Refusal::NewPassword("error 1819".into()));
    for login in [server.admin_again(), own(OLD)] {
        assert_eq!(SYSTEM.set_password(&login, "app", &secret("simple")).await, refused);
        assert!(lets_in(SYSTEM, &own(OLD)).await);
    }
    let clone = SYSTEM.clone_user(&server.admin, "app", "app_clone", &secret("simple")).await;
    assert_eq!(clone, refused);
    assert!(!lets_in(SYSTEM, &Login { username: "app_clone".into(), ..own("simple") }).await);
    for statement in [
        "CREATE USER poor IDENTIFIED BY 'Admin-9 pass'",
        "GRANT CREATE USER, SELECT ON *.* TO poor WITH GRANT OPTION",
    ] {
        client.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    // An administrator that may not switch the log off; the server takes no hash.
    let poor = Login { username: "poor".into(), ..server.admin_again() };
    SYSTEM.clone_user(&poor, "app", "app_clone", &secret(NEW)).await.expect("a clone");
    SYSTEM.set_password(&own(OLD), "app", &secret(NEW)).await.expect("a password by the rules");
    assert!(lets_in(SYSTEM, &own(NEW)).await);
}

#[tokio::test]
async fn a_clone_may_do_what_its_user_may() {
    let server = MariaDb::start(&[]);
    let mut client = server.with_user("app").await;
    for statement in [
        "CREATE DATABASE `x TO ``y`",
        "CREATE TABLE `x TO ``y`.t (n int, `a TO b` int)",
        "INSERT INTO `x TO ``y`.t VALUES (7, 8)",
        "GRANT SELECT (n) ON `x TO ``y`.t TO app",
        "CREATE ROLE reader",
        "GRANT UPDATE ON `x TO ``y`.* TO reader",
        "GRANT reader TO app",
        "SET DEFAULT ROLE reader FOR app",
        "GRANT USAGE ON *.* TO app WITH MAX_USER_CONNECTIONS 9",
        "CREATE USER app@'10.0.0.1' IDENTIFIED BY 'Other-3 password' REQUIRE SSL",
    ] {
        client.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let clone = alternating(SYSTEM, &server.admin, "app").await;
    let mut as_clone = server.client(&clone.username, NEW).await;
    let n: Option<i32> = as_clone.query_first("SELECT n FROM `x TO ``y`.t").await.expect("a right");
    assert_eq!(n, Some(7));
    as_clone.query_drop("UPDATE `x TO ``y`.t SET n = 9").await.expect("a right of the role");
    assert!(as_clone.query_drop("SELECT `a TO b` FROM `x TO ``y`.t").await.is_err());
    let question = "SELECT Host, ssl_type, max_user_connections FROM mysql.user WHERE User = \
                    'app_clone' ORDER BY Host";
    let accounts: Vec<(String, String, i64)> = client.query(question).await.expect("accounts");
    assert_eq!(accounts, [("%".into(), String::new(), 9), ("10.0.0.1".into(), "ANY".into(), 0)]);
    server.logs_no_password();
}

#[tokio::test]
async fn a_clone_that_was_left_half_made_lets_nobody_in() {
    let server = MariaDb::start(&[]);
    let mut client = server.with_user("app").await;
    // A grant that the administrator may not hand on: the copy ends before its password.
    for statement in [
        "CREATE USER poor IDENTIFIED BY 'Admin-9 pass'",
        "GRANT CREATE USER ON *.* TO poor",
        "GRANT SELECT ON mysql.* TO poor",
        "GRANT RELOAD ON *.* TO app",
    ] {
        client.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let poor = Login { username: "poor".into(), ..again(&server.admin, ADMIN_PASSWORD) };
    let refused = SYSTEM.clone_user(&poor, "app", "app_clone", &secret(NEW)).await;
    assert_eq!(refused, Err(Refusal::Other("it answers error 1045".into())));
    let clone = |password| Login { username: "app_clone".into(), ..again(&server.admin, password) };
    assert!(!lets_in(SYSTEM, &clone(NEW)).await);
    SYSTEM.clone_user(&server.admin, "app", "app_clone", &secret(NEW)).await.expect("a clone");
    assert!(lets_in(SYSTEM, &clone(NEW)).await);
}

#[tokio::test]
async fn what_is_given_up_has_no_effect_later() {
    let server = MariaDb::start(&[]);
    server.with_user("app").await;
    let mut other = server.client(ADMIN, ADMIN_PASSWORD).await;
    // As a backup does.
    other.query_drop("FLUSH TABLES WITH READ LOCK").await.expect("a lock");
    let late = SYSTEM.set_password(&server.admin, "app", &secret(NEW)).await;
    // It is the server that gives up: a lock's time is over, or the statement's.
    let given_up = ["error 1205", "error 1969"].map(|code| Err(Refusal::Unreachable(code.into())));
    assert!(given_up.contains(&late), "{late:?}");
    other.query_drop("UNLOCK TABLES").await.expect("no lock");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let own = |password| Login { username: "app".into(), ..again(&server.admin, password) };
    assert!(lets_in(SYSTEM, &own(OLD)).await && !lets_in(SYSTEM, &own(NEW)).await);
}
