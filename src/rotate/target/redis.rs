//! Redis 6 and later: users of its ACL. Five commands, so its wire is spoken here (`resp`): the
//! crate for it would bring twenty others.
//!
//! A new password goes to the server as its SHA-256, which is what an ACL keeps.

use super::resp::{Answer, Wire};
use super::{Login, Refusal, stream};
use aws_lc_rs::digest::{SHA256, digest};

/// Errors that pass by themselves: starting, out of memory, busy with a script, a replica without
/// its master, too many connections.
const PASSING: [&str; 6] = ["LOADING", "OOM", "BUSY", "MASTERDOWN", "TRYAGAIN", "MAXCLIENTS"];

pub(super) async fn test(login: &Login) -> Result<(), Refusal> {
    open(login).await.map(drop)
}

pub(super) async fn set_password(admin: &Login, user: &str, new: &str) -> Result<(), Refusal> {
    let mut wire = open(admin).await?;
    if wire.ask(&["ACL", "GETUSER", user]).await? == Answer::Nil {
        // SETUSER would make one.
        return Err(Refusal::other("there is no such user"));
    }
    let keep = Keep::found(&mut wire).await?;
    expect_ok(wire.ask(&["ACL", "SETUSER", user, "resetpass", &hashed(new)]).await?)?;
    keep.write(&mut wire).await
}

/// The clone gets the rules of the user and no password but the new one, in one command.
pub(super) async fn clone_user(
    admin: &Login,
    user: &str,
    clone: &str,
    new: &str,
) -> Result<(), Refusal> {
    let mut wire = open(admin).await?;
    let rules = rules(&wire.ask(&["ACL", "LIST"]).await?, user)?;
    let keep = Keep::found(&mut wire).await?;
    let hash = hashed(new);
    let mut command = vec!["ACL", "SETUSER", clone, "reset"];
    command.extend(rules.iter().map(String::as_str));
    command.push(&hash);
    expect_ok(wire.ask(&command).await?)?;
    keep.write(&mut wire).await
}

/// Connects, logs in, and sees that the server answers a user that is logged in.
async fn open(login: &Login) -> Result<Wire, Refusal> {
    let mut wire = Wire::new(stream::open(login).await?);
    let password = login.password.expose_str().unwrap_or_default();
    match wire.ask(&["AUTH", &login.username, password]).await? {
        Answer::Error(code) if code == "WRONGPASS" => Err(Refusal::Credentials(code)),
        answer => expect_ok(answer).map(|()| wire),
    }
}

/// How a password is written that stands in no log.
fn hashed(password: &str) -> String {
    let hash = digest(&SHA256, password.as_bytes());
    hash.as_ref().iter().fold("#".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The rules of a user, as ACL LIST writes them: `user NAME RULE...`, selectors in parentheses.
/// Passwords are left out.
fn rules(listed: &Answer, user: &str) -> Result<Vec<String>, Refusal> {
    let Answer::List(lines) = listed else { return Err(unexpected(listed)) };
    let mut lines = lines.iter().filter_map(|line| match line {
        Answer::Text(line) => line.strip_prefix("user ")?.strip_prefix(user)?.strip_prefix(' '),
        _ => None,
    });
    let line = lines.next().ok_or_else(|| Refusal::other("there is no such user to be cloned"))?;
    let mut rules: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match rules.last_mut() {
            // A selector is one rule with blanks in it.
            Some(selector) if selector.starts_with('(') && !selector.ends_with(')') => {
                selector.push(' ');
                selector.push_str(word);
            }
            _ if word.starts_with('#') || word == "nopass" => {}
            _ => rules.push(word.to_owned()),
        }
    }
    Ok(rules)
}

/// Where the server keeps its users. Found out by writing there what holds already, before anything
/// changes: a password that a restart takes back would lock the application out.
enum Keep {
    /// In a file of their own.
    AclFile,
    /// In its configuration file.
    Configuration,
    /// Nowhere: it was started without either, and forgets everything anyway.
    Memory,
}

impl Keep {
    async fn found(wire: &mut Wire) -> Result<Self, Refusal> {
        match wire.ask(&["ACL", "SAVE"]).await? {
            Answer::Text(_) => return Ok(Self::AclFile),
            // No such file is configured, or it can't be written: the next attempt tells them apart.
            Answer::Error(code) if code == "ERR" => {}
            answer => return Err(unexpected(&answer)),
        }
        if has_setting(wire, "aclfile").await? {
            return Err(Refusal::other("it can't write its ACL file"));
        }
        match wire.ask(&["CONFIG", "REWRITE"]).await? {
            Answer::Text(_) => Ok(Self::Configuration),
            Answer::Error(code) if code == "ERR" => {
                if in_file(wire).await? {
                    Err(Refusal::other("it can't write its configuration file"))
                } else {
                    Ok(Self::Memory)
                }
            }
            answer => Err(unexpected(&answer)),
        }
    }

    async fn write(self, wire: &mut Wire) -> Result<(), Refusal> {
        match self {
            Self::AclFile => expect_ok(wire.ask(&["ACL", "SAVE"]).await?),
            Self::Configuration => expect_ok(wire.ask(&["CONFIG", "REWRITE"]).await?),
            Self::Memory => Ok(()),
        }
    }
}

/// Whether a setting is there and not empty.
async fn has_setting(wire: &mut Wire, name: &str) -> Result<bool, Refusal> {
    match wire.ask(&["CONFIG", "GET", name]).await? {
        Answer::List(pair) => {
            Ok(pair.get(1).is_some_and(|value| *value != Answer::Text(String::new())))
        }
        answer => Err(unexpected(&answer)),
    }
}

/// Whether the server was started with a configuration file.
async fn in_file(wire: &mut Wire) -> Result<bool, Refusal> {
    match wire.ask(&["INFO", "server"]).await? {
        Answer::Text(info) => Ok(info
            .lines()
            .filter_map(|line| line.strip_prefix("config_file:"))
            .any(|path| !path.trim().is_empty())),
        answer => Err(unexpected(&answer)),
    }
}

fn expect_ok(answer: Answer) -> Result<(), Refusal> {
    match answer {
        Answer::Text(text) if text == "OK" => Ok(()),
        answer => Err(unexpected(&answer)),
    }
}

fn unexpected(answer: &Answer) -> Refusal {
    match answer {
        Answer::Error(code) if PASSING.contains(&code.as_str()) => Refusal::unreachable(code),
        Answer::Error(code) => Refusal::other(format!("it answers {code}")),
        _ => Refusal::other("it does not answer as Redis does"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_becomes_its_hash() {
        let abc = "#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hashed("abc"), abc);
    }

    #[test]
    fn the_rules_of_a_user_are_its_own_and_hold_no_password() {
        let line = |text: &str| Answer::Text(text.to_owned());
        let listed = Answer::List(vec![
            line("user app2 on nopass ~* &* +@all"),
            line(
                "user app on #aa11 ~app:* &* -@all +get (~x:* resetchannels -@all +set) (%R~y +get)",
            ),
        ]);
        let found = rules(&listed, "app").unwrap();
        let expected = [
            "on",
            "~app:*",
            "&*",
            "-@all",
            "+get",
            "(~x:* resetchannels -@all +set)",
            "(%R~y +get)",
        ];
        assert_eq!(found, expected);
        assert!(rules(&listed, "ap").is_err());
    }
}
