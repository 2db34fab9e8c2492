//! sshd, whose only account is that of the tests, with another home.

use crate::secret;
use crate::servers::{Home, Server, free_port, is_root};
use std::fs;
use std::process::Command;
use strongroom::clock::SystemRandom;
use strongroom::rotate::target::Refusal;
use strongroom::rotate::target::ssh::{self, Account, PublicKey};
use strongroom::secret::Secret;

const OPTIONS: &str = r#"no-pty,environment="X=ssh-ed25519 AAAA" "#;

struct Sshd {
    home: Home,
    port: u16,
    username: String,
    host_key: String,
    _server: Server,
}

impl Sshd {
    fn start() -> Self {
        let (home, port) = (Home::new(), free_port());
        if is_root() {
            // Where sshd of root separates its privileges.
            fs::create_dir_all("/run/sshd").expect("a folder");
        }
        keygen(&home, "host", "ed25519");
        fs::create_dir(home.path(".ssh")).expect("a folder");
        home.write(".ssh/authorized_keys", "# nobody yet\n");
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
             PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nSetEnv HOME={}\n",
            home.text("host"),
            home.text(".ssh/authorized_keys"),
            home.text(""),
        );
        let settings = home.write("sshd_config", &settings);
        let mut command = home.command("/usr/sbin/sshd");
        command.arg("-D").arg("-e").arg("-f").arg(settings);
        let server = home.start(&mut command, port);
        let id = Command::new("id").arg("-un").output().expect("id");
        let username = String::from_utf8_lossy(&id.stdout).trim().to_owned();
        let host_key = home.read("host.pub");
        Self { home, port, username, host_key, _server: server }
    }

    fn account(&self, private_key: &Secret) -> Account {
        Account {
            host: "127.0.0.1".into(),
            port: self.port,
            username: self.username.clone(),
            private_key: Secret::copy_of(private_key.expose()),
            host_key: self.host_key.clone(),
        }
    }

    fn authorized(&self) -> String {
        self.home.read(".ssh/authorized_keys")
    }
}

fn keygen(home: &Home, name: &str, kind: &str) -> Secret {
    let mut command = home.command("ssh-keygen");
    home.run(command.args(["-q", "-t", kind, "-N", "", "-C", "a comment", "-f", name]));
    secret(&home.read(name))
}

#[tokio::test]
async fn a_key_pair_takes_another_s_place() {
    let server = Sshd::start();
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let old = keygen(&server.home, kind, kind);
        let old_public = PublicKey::read(&server.home.read(&format!("{kind}.pub"))).expect("a key");
        assert_eq!(ssh::public_key(&old).await, Ok(old_public.clone()));
        let before = format!("# {old_public}\nssh-rsa AAAAother x\n{OPTIONS}{old_public} mine\n");
        server.home.write(".ssh/authorized_keys", &before);
        let (new, new_public) = ssh::generate(&SystemRandom).expect("a key");
        let (as_old, as_new) = (server.account(&old), server.account(&new));
        ssh::test(&as_old).await.expect("the old key");
        assert_eq!(ssh::test(&as_new).await, Err(Refusal::Credentials("public key".into())));
        for _ in 0..2 {
            ssh::install(&as_old, &new_public).await.expect("the new key");
            assert_eq!(server.authorized(), format!("{before}{OPTIONS}{new_public} mine\n"));
        }
        ssh::test(&as_new).await.expect("the new key");
        ssh::test(&as_old).await.expect("the old key still");
        let itself = ssh::remove(&as_new, &new_public).await;
        assert!(matches!(itself, Err(Refusal::Other(_))), "{itself:?}");
        for _ in 0..2 {
            ssh::remove(&as_new, &old_public).await.expect("the old key gone");
            assert!(server.authorized().contains(&format!("{OPTIONS}{new_public} mine\n")));
            assert!(!server.authorized().contains(&format!("{OPTIONS}{old_public}")));
        }
        assert_eq!(ssh::test(&as_old).await, Err(Refusal::Credentials("public key".into())));
        ssh::test(&as_new).await.expect("the new key");
    }
    let left: Vec<_> = fs::read_dir(server.home.path(".ssh")).expect("a folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_server_with_another_host_key_gets_no_login() {
    let server = Sshd::start();
    let key = keygen(&server.home, "key", "ed25519");
    server.home.write(".ssh/authorized_keys", &server.home.read("key.pub"));
    let account = server.account(&key);
    ssh::test(&account).await.expect("a login");
    let other = Account { host_key: server.home.read("key.pub"), ..account };
    let refused = ssh::test(&other).await;
    assert!(
        matches!(&refused, Err(Refusal::Other(why)) if why.contains("host key")),
        "{refused:?}"
    );
    let nowhere = Account { port: free_port(), ..server.account(&key) };
    assert!(matches!(ssh::test(&nowhere).await, Err(Refusal::Unreachable(_))));
    let broken = server.account(&secret("no key"));
    assert!(matches!(ssh::test(&broken).await, Err(Refusal::Other(_))));
}

#[tokio::test]
async fn a_rotation_that_runs_beside_another_is_put_off() {
    let server = Sshd::start();
    let key = keygen(&server.home, "key", "ed25519");
    server.home.write(".ssh/authorized_keys", &server.home.read("key.pub"));
    fs::create_dir(server.home.path(".ssh/.strongroom-rotation")).expect("a lock");
    let (_, new) = ssh::generate(&SystemRandom).expect("a key");
    let busy = ssh::install(&server.account(&key), &new).await;
    assert!(matches!(busy, Err(Refusal::Unreachable(_))), "{busy:?}");
    assert_eq!(server.authorized(), server.home.read("key.pub"));
    assert!(server.home.path(".ssh/.strongroom-rotation").exists());
}
