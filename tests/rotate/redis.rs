//! Redis, with users in a file of their own, in the configuration file, or nowhere.

use crate::servers::{ADMIN, ADMIN_PASSWORD, Authority, Home, Server, free_port};
use crate::{NEW, OLD, again, alternating, lets_in, login, over, single_user, tls};
use std::fmt::Write;
use strongroom::rotate::target::{Login, Refusal, System, Tls};

const SYSTEM: System = System::Redis;
const RULES: &str = "on ~app:* -@all +get +auth";

struct Redis {
    home: Home,
    authority: Authority,
    port: u16,
    tls_port: u16,
    server: Option<Server>,
}

impl Redis {
    /// With the users in a file of their own, or in the configuration file.
    fn start(acl_file: bool) -> Self {
        let (home, authority) = (Home::new(), Authority::new());
        let mut redis =
            Self { port: free_port(), tls_port: free_port(), home, authority, server: None };
        redis.home.certify(&redis.authority);
        let users = format!(
            "user default off\nuser {ADMIN} on #{} ~* &* +@all\nuser app {RULES} #{}\n",
            sha256(ADMIN_PASSWORD),
            sha256(OLD)
        );
        let mut settings = format!(
            "bind 127.0.0.1\nport {}\ntls-port {}\ndir {}\nsave \"\"\ntls-auth-clients no\n",
            redis.port,
            redis.tls_port,
            redis.home.text("")
        );
        for (setting, file) in [
            ("tls-cert-file", "server.pem"),
            ("tls-key-file", "server.key"),
            ("tls-ca-cert-file", "ca.pem"),
        ] {
            writeln!(settings, "{setting} {}", redis.home.text(file)).expect("text");
        }
        if acl_file {
            redis.home.write("users", &users);
            writeln!(settings, "aclfile {}", redis.home.text("users")).expect("text");
        } else {
            settings.push_str(&users);
        }
        redis.home.write("settings", &settings);
        redis.restart();
        redis
    }

    fn restart(&mut self) {
        self.server = None;
        let mut command = self.home.command("redis-server");
        command.arg(self.home.path("settings"));
        self.server = Some(self.home.start(&mut command, self.port));
    }

    fn admin(&self) -> Login {
        login(self.port, ADMIN, ADMIN_PASSWORD)
    }
}

fn sha256(text: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

async fn outlives_a_restart(acl_file: bool) {
    let mut server = Redis::start(acl_file);
    single_user(SYSTEM, &server.admin(), "app").await;
    let clone = alternating(SYSTEM, &server.admin(), "app").await;
    server.restart();
    assert!(lets_in(SYSTEM, &clone).await);
    assert!(lets_in(SYSTEM, &Login { username: "app".into(), ..again(&clone, OLD) }).await);
    let kept = server.home.read(if acl_file { "users" } else { "settings" });
    let rules = |user: &str| {
        let line = kept.lines().find(|line| line.starts_with(&format!("user {user} ")));
        let words = line.expect("a user").split(' ').skip(2).filter(|word| !word.starts_with('#'));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rules("app"), rules("app_clone"));
    assert!(kept.contains(&sha256(NEW)) && !kept.contains("New-2"));
}

#[tokio::test]
async fn a_password_in_the_acl_file_outlives_a_restart() {
    outlives_a_restart(true).await;
}

#[tokio::test]
async fn a_password_in_the_configuration_file_outlives_a_restart() {
    outlives_a_restart(false).await;
}

#[tokio::test]
async fn tls_is_believed_if_it_leads_to_the_roots_that_are_named() {
    let server = Redis::start(true);
    let admin = login(server.tls_port, ADMIN, ADMIN_PASSWORD);
    tls(SYSTEM, &admin, &server.authority).await;
    let plain = SYSTEM.test(&over(Tls::Roots(server.authority.pem.clone()), server.admin())).await;
    assert!(matches!(plain, Err(Refusal::Unreachable(_))), "{plain:?}");
}

#[tokio::test]
async fn what_could_not_be_kept_is_not_changed() {
    let server = Redis::start(true);
    // A folder in the file's place: even root can't write it.
    std::fs::remove_file(server.home.path("users")).expect("the file");
    std::fs::create_dir_all(server.home.path("users/full")).expect("a folder");
    let refused = SYSTEM.set_password(&server.admin(), "app", &crate::secret(NEW)).await;
    assert_eq!(refused, Err(Refusal::Other("it can't write its ACL file".into())));
    assert!(
        lets_in(SYSTEM, &Login { username: "app".into(), ..again(&server.admin(), OLD) }).await
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = crate::servers::Silent::new();
    let start = std::time::Instant::now();
    let late = SYSTEM.test(&login(silent.port(), "app", OLD)).await;
    assert_eq!(late, Err(Refusal::Unreachable("no answer within 30 s".into())));
    assert!(start.elapsed().as_secs() < 40);
}
