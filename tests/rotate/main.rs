//! Rotation against the systems that it is for: PostgreSQL, MariaDB, Redis, RabbitMQ and sshd, each
//! started by the test that needs it, in a folder of its own. A server that can't be started is a
//! failure: `scripts/setup test` installs them.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(clippy::disallowed_methods, reason = "tests wait as they like")]

mod mysql;
mod postgres;
mod rabbitmq;
mod redis;
mod servers;
mod ssh;

use strongroom::rotate::target::{Login, Refusal, System, Tls};
use strongroom::secret::Secret;

/// Passwords that hold what SQL, shells, URLs and HTTP make something of.
const OLD: &str = r#"Old-1: '"; -- \ %25 é"#;
const NEW: &str = r#"New-2: $$'\'"`x`" {#}?&/ ü"#;
/// A user whose name tries the same.
const ODD: &str = r#"o'dd"`--;\"#;

fn login(port: u16, username: &str, password: &str) -> Login {
    Login {
        host: "127.0.0.1".into(),
        port,
        username: username.into(),
        password: secret(password),
        dbname: None,
        tls: Tls::Off,
    }
}

fn secret(text: &str) -> Secret {
    Secret::copy_of(text.as_bytes())
}

fn over(tls: Tls, login: Login) -> Login {
    Login { tls, ..login }
}

/// Whether this login is let in; anything but yes and "refused" is a failure.
async fn lets_in(system: System, login: &Login) -> bool {
    match system.test(login).await {
        Ok(()) => true,
        Err(Refusal::Credentials(_)) => false,
        Err(other) => panic!("{}: {other}", login.username),
    }
}

/// What holds of every system, given an administrator, and a user with the password [`OLD`].
async fn single_user(system: System, admin: &Login, user: &str) {
    let with = |password| Login { username: user.into(), ..again(admin, password) };
    assert!(lets_in(system, &with(OLD)).await, "the test's user");
    assert!(!lets_in(system, &with("wrong")).await);
    for _ in 0..2 {
        system.set_password(admin, user, &secret(NEW)).await.expect("a new password");
        assert!(lets_in(system, &with(NEW)).await);
        assert!(!lets_in(system, &with(OLD)).await);
    }
    system.set_password(admin, user, &secret(OLD)).await.expect("the old one again");
    assert!(lets_in(system, &with(OLD)).await && !lets_in(system, &with(NEW)).await);
    let nobody = system.set_password(admin, "nobody", &secret(NEW)).await;
    assert!(matches!(nobody, Err(Refusal::Other(_))), "{nobody:?}");
    let refused = system.set_password(&again(admin, "wrong"), user, &secret(NEW)).await;
    assert!(matches!(refused, Err(Refusal::Credentials(_))), "{refused:?}");
    let silent = servers::Silent::new();
    let lost = system.test(&Login { port: silent.closed_port(), ..again(admin, OLD) }).await;
    assert!(matches!(lost, Err(Refusal::Unreachable(_))), "{lost:?}");
    for refusal in [nobody, refused, lost] {
        let said = refusal.expect_err("a refusal").to_string();
        assert!(!said.contains("New-2") && !said.contains("Old-1"), "{said}");
    }
}

/// The clone is made, gets new passwords, and the user keeps its own throughout.
async fn alternating(system: System, admin: &Login, user: &str) -> Login {
    let clone = system.other_user(user).expect("a name");
    let as_clone = |password| Login { username: clone.clone(), ..again(admin, password) };
    for password in [NEW, OLD, NEW] {
        system.clone_user(admin, user, &clone, &secret(password)).await.expect("a clone");
        assert!(lets_in(system, &as_clone(password)).await);
        assert!(lets_in(system, &Login { username: user.into(), ..again(admin, OLD) }).await);
    }
    assert!(!lets_in(system, &as_clone(OLD)).await);
    // The other way round, as the next rotation does it.
    system.clone_user(admin, &clone, user, &secret(OLD)).await.expect("the first one again");
    assert!(lets_in(system, &Login { username: user.into(), ..again(admin, OLD) }).await);
    assert!(lets_in(system, &as_clone(NEW)).await);
    let none = system.clone_user(admin, "nobody", "nobody_clone", &secret(NEW)).await;
    assert!(matches!(none, Err(Refusal::Other(_))), "{none:?}");
    as_clone(NEW)
}

/// TLS is believed if it leads to the roots that are named, and only then.
async fn tls(system: System, admin: &Login, authority: &servers::Authority) {
    let with = |roots: &str| over(Tls::Roots(roots.into()), again(admin, servers::ADMIN_PASSWORD));
    system.test(&with(&authority.pem)).await.expect("TLS");
    let stranger = system.test(&with(&servers::Authority::new().pem)).await;
    assert!(matches!(stranger, Err(Refusal::Unreachable(_))), "{stranger:?}");
    let name = system.test(&Login { host: "localhost".into(), ..with(&authority.pem) }).await;
    assert!(matches!(name, Err(Refusal::Unreachable(_))), "another name: {name:?}");
}

fn again(login: &Login, password: &str) -> Login {
    Login {
        host: login.host.clone(),
        port: login.port,
        username: login.username.clone(),
        password: secret(password),
        dbname: login.dbname.clone(),
        tls: login.tls.clone(),
    }
}
