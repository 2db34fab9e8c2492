//! PostgreSQL, which logs every statement that it gets.

use crate::servers::{ADMIN, ADMIN_PASSWORD, Authority, Home, Server, free_port, newest};
use crate::{NEW, ODD, OLD, again, alternating, lets_in, login, secret, single_user, tls};
use strongroom::rotate::target::{Login, Refusal, System};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_postgres::{Client, Config, NoTls};

const SYSTEM: System = System::Postgres;

struct Postgres {
    home: Home,
    authority: Authority,
    admin: Login,
    _server: Server,
}

impl Postgres {
    fn start(settings: &[&str]) -> Self {
        let (home, authority, port) = (Home::of("postgres"), Authority::new(), free_port());
        let programs = newest("/usr/lib/postgresql", "bin");
        let program = |name: &str| home.command(&programs.join(name).to_string_lossy());
        home.write("password", ADMIN_PASSWORD);
        home.certify(&authority);
        home.run(
            program("initdb")
                .args(["-D", &home.text("data"), "-U", ADMIN, "-A", "scram-sha-256", "-N"])
                .args([&format!("--pwfile={}", home.text("password")), "--locale=C", "-EUTF8"]),
        );
        let mut server = program("postgres");
        server.args(["-D", &home.text("data"), "-p", &port.to_string()]);
        let (certificate, key) = (home.text("server.pem"), home.text("server.key"));
        let (certificate, key) =
            (format!("ssl_cert_file={certificate}"), format!("ssl_key_file={key}"));
        let own = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "ssl=on"];
        let logged = ["log_statement=all", "log_min_error_statement=debug5", &certificate, &key];
        for setting in own.iter().chain(&logged).chain(settings) {
            server.args(["-c", setting]);
        }
        let server = home.start(&mut server, port);
        let admin = login(port, ADMIN, ADMIN_PASSWORD);
        Self { home, authority, admin, _server: server }
    }

    /// A connection that is not the code's under test; the server may still be starting.
    async fn client(&self, user: &str, password: &str) -> Client {
        let mut config = Config::new();
        config.user(user).password(password).dbname("postgres");
        for _ in 0..200 {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.admin.port)).await;
            if let Ok((client, connection)) = config.connect_raw(tcp.expect("TCP"), NoTls).await {
                tokio::spawn(connection);
                return client;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{user} does not get in: {}", self.home.read("log"));
    }

    async fn with_user(&self, user: &str) -> Client {
        let client = self.client(ADMIN, ADMIN_PASSWORD).await;
        let (user, old) = (user.replace('"', "\"\""), OLD.replace('\'', "''"));
        // As this test's own statement would stand in the log.
        client.batch_execute("SET log_statement = 'none'").await.expect("a setting");
        let make = format!("CREATE ROLE \"{user}\" LOGIN PASSWORD '{old}'");
        client.batch_execute(&make).await.expect("a user");
        client
    }

    fn logs_no_password(&self) {
        let log = self.home.read("log");
        assert!(log.contains("ALTER ROLE"), "{log}");
        for password in [OLD, NEW, &OLD.replace('\'', "''"), "New-2", "Old-1", ADMIN_PASSWORD] {
            assert!(!log.contains(password), "{log}");
        }
    }
}

#[tokio::test]
async fn an_administrator_and_the_user_itself_change_a_password() {
    let server = Postgres::start(&[]);
    server.with_user(ODD).await;
    single_user(SYSTEM, &server.admin, ODD).await;
    let own = Login { username: ODD.into(), ..again(&server.admin, OLD) };
    SYSTEM.set_password(&own, ODD, &secret(NEW)).await.expect("its own password");
    assert!(lets_in(SYSTEM, &Login { username: ODD.into(), ..again(&server.admin, NEW) }).await);
    // It may not change another's.
    let own = Login { username: ODD.into(), ..again(&server.admin, NEW) };
    let other = SYSTEM.set_password(&own, ADMIN, &secret(NEW)).await;
    assert_eq!(other, Err(Refusal::Other("it answers SQLSTATE 42501".into())));
    tls(SYSTEM, &server.admin, &server.authority).await;
    server.logs_no_password();
}

#[tokio::test]
async fn a_clone_may_do_what_its_user_may() {
    let server = Postgres::start(&[]);
    let client = server.with_user("app").await;
    let table = "CREATE TABLE t (n int); INSERT INTO t VALUES (7); GRANT SELECT ON t TO app";
    client.batch_execute(table).await.expect("a table");
    let clone = alternating(SYSTEM, &server.admin, "app").await;
    let client = server.client(&clone.username, NEW).await;
    let row = client.query_one("SELECT n FROM t", &[]).await.expect("a right");
    assert_eq!(row.get::<_, i32>(0), 7);
    assert!(client.batch_execute("DELETE FROM t").await.is_err());
    server.logs_no_password();
}

#[tokio::test]
async fn a_server_that_keeps_md5_gets_md5() {
    let server = Postgres::start(&["password_encryption=md5"]);
    let client = server.with_user("app").await;
    let hba = server.home.path("data/pg_hba.conf");
    std::fs::write(
        &hba,
        "host all app 127.0.0.1/32 md5\nhost all all 127.0.0.1/32 scram-sha-256\n",
    )
    .expect("a file");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    single_user(SYSTEM, &server.admin, "app").await;
    SYSTEM.set_password(&server.admin, "app", &secret(NEW)).await.expect("a password");
    let kept =
        client.query_one("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'", &[]).await;
    assert!(kept.expect("a row").get::<_, String>(0).starts_with("md5"));
}

#[tokio::test]
async fn a_name_that_postgresql_would_cut_off_is_refused() {
    let server = Postgres::start(&[]);
    let cut = "a".repeat(63);
    server.with_user(&cut).await;
    let longer = SYSTEM.set_password(&server.admin, &format!("{cut}b"), &secret(NEW)).await;
    assert!(matches!(longer, Err(Refusal::Other(_))));
    assert!(lets_in(SYSTEM, &Login { username: cut, ..again(&server.admin, OLD) }).await);
}

/// What it says would have to be kept until it ends.
#[tokio::test]
async fn a_server_that_does_not_stop_talking_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let talking = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        // An error of a gigabyte (PostgreSQL's protocol: a letter, the length, the fields).
        client.write_all(b"E\x3f\xff\xff\xff").await.expect("written");
        let (mut said, words) = (0, vec![b'x'; 1 << 16]);
        while client.write_all(&words).await.is_ok() {
            said += words.len();
        }
        said
    });
    let left = SYSTEM.test(&login(port, ADMIN, ADMIN_PASSWORD)).await;
    assert!(matches!(left, Err(Refusal::Unreachable(_))), "{left:?}");
    let said = talking.await.expect("no panic");
    assert!(said < 64 << 20, "it was listened to for {said} bytes");
}
