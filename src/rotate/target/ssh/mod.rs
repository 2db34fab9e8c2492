//! SSH key pairs: a new key is written into `~/.ssh/authorized_keys` by a login with the old one,
//! tested, and later takes the old one out.
//!
//! OpenSSH's own programs speak (package openssh-client). The crate russh would bring forty others,
//! among them a second set of cryptographic primitives beside AWS-LC, half of them pre-releases.
//! No private key is ever in a file or an argument: `ssh-add` gets it through a pipe and hands it to
//! an `ssh-agent` of our own, which lives as long as one login; `ssh` asks that agent to sign.

mod agent;
mod key;
mod programs;
mod script;

pub use key::{PublicKey, generate};

use super::{CONNECT, DEADLINE, Refusal, checked_host, within};
use crate::secret::Secret;
use agent::Agent;
use std::process::Output;

/// The longest name of an account, in bytes: more than any Unix takes.
const MAX_USERNAME: usize = 64;
/// The name that the server's key goes by, whatever its host and port.
const ALIAS: &str = "target";
/// What ssh exits with when it is ssh that failed, not the command.
const SSH_FAILED: i32 = 255;

/// How one logs in to an account over SSH.
pub struct Account {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The account.
    pub username: String,
    /// A private key that opens it, as OpenSSH or PEM write it, not encrypted.
    pub private_key: Secret,
    /// The server's own public keys, one a line, as in `/etc/ssh/ssh_host_*_key.pub`. There is no
    /// trust on first use.
    pub host_key: String,
}

/// Logs in.
///
/// # Errors
/// As [`Refusal`] tells them apart.
pub async fn test(account: &Account) -> Result<(), Refusal> {
    within(DEADLINE, async {
        let agent = Agent::start(&account.private_key).await?;
        finished(&login(account, &agent, "exit 0\n").await?)
    })
    .await
}

/// Authorizes `new` wherever `account`'s own key is authorized, with the same options. Doing it again
/// changes nothing.
///
/// # Errors
/// As [`Refusal`] tells them apart.
pub async fn install(account: &Account, new: &PublicKey) -> Result<(), Refusal> {
    within(DEADLINE, async {
        let agent = Agent::start(&account.private_key).await?;
        let script = script::install(&agent.public_key().await?, new);
        finished(&login(account, &agent, &script).await?)
    })
    .await
}

/// Takes `old` out, logged in with another key that stays authorized. Doing it again changes nothing.
///
/// # Errors
/// As [`Refusal`] tells them apart.
pub async fn remove(account: &Account, old: &PublicKey) -> Result<(), Refusal> {
    within(DEADLINE, async {
        let agent = Agent::start(&account.private_key).await?;
        let own = agent.public_key().await?;
        if own == *old {
            return Err(Refusal::other("a key does not take itself out"));
        }
        finished(&login(account, &agent, &script::remove(old, &own)).await?)
    })
    .await
}

/// The public key that belongs to a private one.
///
/// # Errors
/// It is no private key, or an encrypted one.
pub async fn public_key(private_key: &Secret) -> Result<PublicKey, Refusal> {
    within(DEADLINE, async { Agent::start(private_key).await?.public_key().await }).await
}

/// Runs a script of ours in the account.
async fn login(account: &Account, agent: &Agent, script: &str) -> Result<Output, Refusal> {
    checked_host(&account.host)?;
    checked_username(&account.username)?;
    let known = agent.write("known_hosts", &known_hosts(&account.host_key)?)?;
    let mut ssh = programs::command("ssh");
    for option in [
        format!("IdentityAgent={}", agent.socket().display()),
        format!("UserKnownHostsFile={}", known.display()),
        format!("HostKeyAlias={ALIAS}"),
        format!("ConnectTimeout={}", CONNECT.as_secs()),
    ] {
        ssh.args(["-o", &option]);
    }
    for option in OPTIONS {
        ssh.args(["-o", option]);
    }
    // The script is the shell's input, so that whatever the account's own shell is quotes nothing.
    ssh.args(["-F", "none", "-T", "-p", &account.port.to_string(), "-l", &account.username]);
    ssh.args(["--", &account.host, "exec /bin/sh -s"]);
    programs::run(ssh, script.as_bytes()).await
}

/// Nothing is asked, nothing forwarded, nothing read from this machine's settings, no other key
/// offered, no other host key believed.
const OPTIONS: [&str; 14] = [
    "BatchMode=yes",
    "CheckHostIP=no",
    "ClearAllForwardings=yes",
    "ControlMaster=no",
    "ControlPath=none",
    "ForwardAgent=no",
    "GlobalKnownHostsFile=/dev/null",
    "IdentityFile=none",
    "PermitLocalCommand=no",
    "PreferredAuthentications=publickey",
    "ServerAliveInterval=5",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "VerifyHostKeyDNS=no",
];

/// The lines of a known_hosts file (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
fn known_hosts(host_key: &str) -> Result<String, Refusal> {
    let mut lines = String::new();
    for line in host_key.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let wrong = || Refusal::other("`host_key` holds no public key");
        let key = PublicKey::read(line).ok_or_else(wrong)?;
        lines = format!("{lines}{ALIAS} {key}\n");
    }
    if lines.is_empty() {
        return Err(Refusal::other("there is no host key to know the server by"));
    }
    Ok(lines)
}

fn checked_username(name: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty()
        || name.len() > MAX_USERNAME
        || name.starts_with('-')
        || !name.chars().all(fits)
    {
        return Err(Refusal::other("`username` is no name of an account"));
    }
    Ok(())
}

/// What the end of ssh means. Its words are looked at, not shown: they repeat what the server says.
fn finished(output: &Output) -> Result<(), Refusal> {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(SSH_FAILED) if said.contains("Permission denied (") => {
            Err(Refusal::Credentials("public key".to_owned()))
        }
        Some(SSH_FAILED) if said.contains("Host key verification failed") => {
            Err(Refusal::other("the server shows another host key than the secret's"))
        }
        Some(SSH_FAILED) => Err(Refusal::unreachable("ssh got no connection, or lost it")),
        Some(script::NOT_THERE) => Err(Refusal::other(
            "the key that logged in does not stand in ~/.ssh/authorized_keys, where it could be \
             replaced",
        )),
        Some(script::BUSY) => Err(Refusal::unreachable("another rotation is at work there")),
        Some(code) => Err(Refusal::other(format!("the script ended with exit code {code}"))),
        None => Err(Refusal::unreachable("ssh was killed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_key_is_needed_and_is_a_key() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEsM";
        let lines = known_hosts(&format!("{key} root@db\n\n{key}\n")).unwrap();
        assert_eq!(lines, format!("target {key}\ntarget {key}\n"));
        for bad in
            ["", "\n", "* ssh-ed25519", "@cert-authority * ssh-ed25519 AAAA", "ssh-rsa A\u{e9}"]
        {
            assert!(known_hosts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_account_is_no_option() {
        assert!(checked_username("app.user_1-x").is_ok());
        for bad in ["", "-oProxyCommand=x", "a b", "a@b", "$(id)", &"a".repeat(65)] {
            assert!(checked_username(bad).is_err(), "{bad}");
        }
    }
}
