//! The structure of a secret that opens a database, as AWS documents it:
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html>.
//!
//! Members: `engine`, `host`, `port`, `username`, `password`, `dbname`, `masterarn`, `ssl`. Ours
//! besides: `sslrootcert`, the roots (PEM) that the server's certificate must lead to. A secret with a
//! `private_key` opens an account over SSH instead: `host`, `port`, `username`, `host_key`, and the
//! `public_key` for whoever wants to know it. Whatever else stands in a secret is its owner's
//! and is written again as it was, in its place.
//!
//! AWS's functions try TLS first and go on without it where `ssl` is missing. Here a missing `ssl`
//! means TLS: whoever sits between must not be able to choose.

use crate::json::string;
use crate::rotate::target::ssh::Account;
use crate::rotate::target::{Login, System, Tls};
use crate::secret::Secret;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The port of SSH if the secret names none (RFC 4253 section 4.1).
const SSH_PORT: u16 = 22;
/// The longest secret value, in bytes (Secrets Manager's quota).
pub const MAX_SECRET: usize = 65_536;

/// A secret value that is a JSON object.
pub struct SecretJson(Vec<Member>);

struct Member {
    name: String,
    /// The value, as JSON.
    raw: Secret,
}

/// Why a secret can't be used. No text of the secret is in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No JSON object, or one that goes on and on.
    #[error("the secret is no JSON object of at most {MAX_SECRET} bytes")]
    NotAnObject,
    /// A member stands there twice.
    #[error("a member of the secret stands there twice")]
    Twice,
    /// A member that is needed is missing.
    #[error("the secret has no `{0}`")]
    Missing(&'static str),
    /// A member is not what it should be.
    #[error("`{member}` of the secret is not {expected}")]
    Wrong {
        /// Its name.
        member: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl SecretJson {
    /// Reads a secret value.
    ///
    /// # Errors
    /// [`Fault::NotAnObject`], [`Fault::Twice`]. What the members are is looked at when they are asked for.
    pub fn read(value: &[u8]) -> Result<Self, Fault> {
        if value.len() > MAX_SECRET {
            return Err(Fault::NotAnObject);
        }
        let mut json = serde_json::Deserializer::from_slice(value);
        let members = json.deserialize_map(Members).map_err(|_| Fault::NotAnObject)?;
        json.end().map_err(|_| Fault::NotAnObject)?;
        let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(Fault::Twice);
        }
        Ok(Self(members))
    }

    /// The system that `engine` names.
    ///
    /// # Errors
    /// It is missing, or none that is known here.
    pub fn system(&self) -> Result<System, Fault> {
        let expected = "`postgres`, `mysql`, `mariadb`, `redis` or `rabbitmq`";
        let engine = self.needed("engine")?;
        let system = engine.expose_str().and_then(System::named);
        system.ok_or(Fault::Wrong { member: "engine", expected })
    }

    /// How one logs in to what the secret opens.
    ///
    /// # Errors
    /// A member is missing or not what it should be.
    pub fn login(&self) -> Result<Login, Fault> {
        let system = self.system()?;
        let tls = self.tls()?;
        Ok(Login {
            host: self.plain("host")?.ok_or(Fault::Missing("host"))?,
            port: self.port()?.unwrap_or_else(|| system.port(&tls)),
            username: self.plain("username")?.ok_or(Fault::Missing("username"))?,
            password: self.needed("password")?,
            dbname: self.plain("dbname")?,
            tls,
        })
    }

    /// How one logs in over SSH to the account that the secret opens.
    ///
    /// # Errors
    /// A member is missing or not what it should be.
    pub fn account(&self) -> Result<Account, Fault> {
        let plain = |member| self.plain(member)?.ok_or(Fault::Missing(member));
        Ok(Account {
            host: plain("host")?,
            port: self.port()?.unwrap_or(SSH_PORT),
            username: plain("username")?,
            private_key: self.needed("private_key")?,
            host_key: plain("host_key")?,
        })
    }

    /// Whether there is such a member.
    pub fn has(&self, member: &str) -> bool {
        self.raw(member).is_some()
    }

    /// The secret with the credentials of the administrator who changes this one.
    ///
    /// # Errors
    /// It is no text.
    pub fn master_arn(&self) -> Result<Option<String>, Fault> {
        self.plain("masterarn")
    }

    /// `port`: a number or, as AWS's functions take it too, its digits as text.
    ///
    /// # Errors
    /// It is no TCP port.
    pub fn port(&self) -> Result<Option<u16>, Fault> {
        let wrong = Fault::Wrong { member: "port", expected: "a TCP port" };
        let Some(raw) = self.raw("port") else { return Ok(None) };
        let port = match text(raw) {
            Some(digits) => digits.expose_str().and_then(|digits| digits.parse().ok()),
            None => serde_json::from_slice(raw.expose()).ok(),
        };
        port.filter(|port| *port != 0).map(Some).ok_or(wrong)
    }

    /// A member that is a text, and must be there.
    ///
    /// # Errors
    /// It is missing, empty, or no text.
    pub fn needed(&self, member: &'static str) -> Result<Secret, Fault> {
        let text = self.text(member)?.ok_or(Fault::Missing(member))?;
        if text.is_empty() { Err(Fault::Missing(member)) } else { Ok(text) }
    }

    /// A member that is a text, if it is there.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, member: &'static str) -> Result<Option<Secret>, Fault> {
        let Some(raw) = self.raw(member) else { return Ok(None) };
        text(raw).map(Some).ok_or(Fault::Wrong { member, expected: "a text" })
    }

    /// A text that may be shown.
    fn plain(&self, member: &'static str) -> Result<Option<String>, Fault> {
        let text = self.text(member)?;
        Ok(text
            .and_then(|text| text.expose_str().map(str::to_owned))
            .filter(|text| !text.is_empty()))
    }

    fn tls(&self) -> Result<Tls, Fault> {
        let wrong = Fault::Wrong { member: "ssl", expected: "true or false" };
        let on = match self.raw("ssl") {
            None => true,
            // AWS's functions take the words as text as well, in whatever case.
            Some(raw) => match text(raw) {
                Some(word) if word.expose().eq_ignore_ascii_case(b"true") => true,
                Some(word) if word.expose().eq_ignore_ascii_case(b"false") => false,
                Some(_) => return Err(wrong),
                None => serde_json::from_slice(raw.expose()).map_err(|_| wrong)?,
            },
        };
        match (on, self.plain("sslrootcert")?) {
            (false, _) => Ok(Tls::Off),
            (true, None) => Ok(Tls::System),
            (true, Some(roots)) => Ok(Tls::Roots(roots)),
        }
    }

    fn raw(&self, name: &str) -> Option<&Secret> {
        self.0.iter().find(|member| member.name == name).map(|member| &member.raw)
    }

    /// Gives a member another text; it is added at the end if it was not there.
    pub fn set(&mut self, name: &str, value: &str) {
        // Each byte takes six at most (`\u001f`), and the buffer must not move.
        let mut raw = Vec::with_capacity(value.len().saturating_mul(6).saturating_add(2));
        string(&mut raw, value);
        let raw = Secret::new(raw);
        match self.0.iter_mut().find(|member| member.name == name) {
            Some(member) => member.raw = raw,
            None => self.0.push(Member { name: name.to_owned(), raw }),
        }
    }

    /// The secret value again, without blanks between the members.
    ///
    /// # Errors
    /// [`Fault::NotAnObject`]: it has become too long.
    pub fn write(&self) -> Result<Secret, Fault> {
        let room = self.0.iter().map(|member| member.name.len() * 6 + member.raw.len() + 4);
        let mut out = Vec::with_capacity(room.sum::<usize>() + 2);
        out.push(b'{');
        for (at, member) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            string(&mut out, &member.name);
            out.push(b':');
            out.extend_from_slice(member.raw.expose());
        }
        out.push(b'}');
        let written = Secret::new(out);
        if written.len() > MAX_SECRET { Err(Fault::NotAnObject) } else { Ok(written) }
    }
}

/// The text that some JSON is, if it is one.
fn text(raw: &Secret) -> Option<Secret> {
    serde_json::from_slice::<String>(raw.expose()).ok().map(|text| Secret::new(text.into_bytes()))
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<Member>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Member>, A::Error> {
        let mut members = Vec::new();
        while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
            members.push(Member { name, raw: Secret::copy_of(raw.get().as_bytes()) });
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> SecretJson {
        SecretJson::read(value.to_string().as_bytes()).unwrap()
    }

    fn whole() -> Value {
        json!({"engine": "postgres", "host": "db", "username": "app", "password": "p\"1"})
    }

    fn with(name: &str, value: Value) -> SecretJson {
        let mut secret = whole();
        secret[name] = value;
        read(&secret)
    }

    #[test]
    fn a_login_has_what_the_secret_says_and_the_system_s_port() {
        let login = read(&whole()).login().unwrap();
        assert_eq!((login.host.as_str(), login.port, login.dbname), ("db", 5432, None));
        assert_eq!(login.password.expose(), b"p\"1");
        assert_eq!(login.tls, Tls::System);
        assert_eq!(with("port", json!(1234)).login().unwrap().port, 1234);
        assert_eq!(with("port", json!("1234")).login().unwrap().port, 1234);
        assert_eq!(with("dbname", json!("x")).login().unwrap().dbname.as_deref(), Some("x"));
        assert_eq!(with("engine", json!("rabbitmq")).login().unwrap().port, 15671);
        assert_eq!(with("masterarn", json!("arn")).master_arn(), Ok(Some("arn".into())));
    }

    #[test]
    fn tls_is_on_unless_the_secret_says_otherwise() {
        for off in [json!(false), json!("false"), json!("False")] {
            assert_eq!(with("ssl", off).login().unwrap().tls, Tls::Off);
        }
        for on in [json!(true), json!("TRUE")] {
            assert_eq!(with("ssl", on).login().unwrap().tls, Tls::System);
        }
        let roots = with("sslrootcert", json!("PEM")).login().unwrap().tls;
        assert_eq!(roots, Tls::Roots("PEM".into()));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_not_shown() {
        for member in ["engine", "host", "username", "password"] {
            let mut secret = whole();
            secret.as_object_mut().unwrap().remove(member);
            assert_eq!(read(&secret).login().err(), Some(Fault::Missing(member)));
            for wrong in [json!(1), json!(null), json!(["hunter2"])] {
                let fault = with(member, wrong).login().err().unwrap();
                assert!(matches!(fault, Fault::Wrong { member: named, .. } if named == member));
            }
        }
        for port in [json!(0), json!(65536), json!(-1), json!("x"), json!(1.5), json!("")] {
            let fault = with("port", port).login().err();
            assert!(matches!(fault, Some(Fault::Wrong { member: "port", .. })));
        }
        for ssl in [json!("maybe"), json!(1), json!(null)] {
            let fault = with("ssl", ssl).login().err();
            assert!(matches!(fault, Some(Fault::Wrong { member: "ssl", .. })));
        }
        let fault = with("engine", json!("hunter2")).login().err().unwrap();
        assert!(!fault.to_string().contains("hunter2"));
    }

    #[test]
    fn what_is_no_object_or_has_a_member_twice_is_refused() {
        for bad in ["", "password", "[]", "1", "{", "{\"a\":1}x", "{\"a\":}", "{1:2}"] {
            assert_eq!(SecretJson::read(bad.as_bytes()).err(), Some(Fault::NotAnObject), "{bad}");
        }
        let twice = br#"{"password":"a","password":"b"}"#;
        assert_eq!(SecretJson::read(twice).err(), Some(Fault::Twice));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_SECRET));
        assert_eq!(SecretJson::read(long.as_bytes()).err(), Some(Fault::NotAnObject));
    }

    #[test]
    fn what_is_not_ours_is_written_as_it_was_and_where_it_was() {
        let before =
            br#"{ "z": 1.000000000000000000001, "password" : "old", "a": {"b" :[1e400]} }"#;
        let mut secret = SecretJson::read(before).unwrap();
        secret.set("password", "n\"e\\w\u{1}");
        secret.set("added", "x");
        let after = br#"{"z":1.000000000000000000001,"password":"n\"e\\w\u0001","a":{"b" :[1e400]},"added":"x"}"#;
        assert_eq!(secret.write().unwrap().expose_str(), std::str::from_utf8(after).ok());
    }

    proptest! {
        #[test]
        fn a_new_password_is_read_as_it_was_set_and_nothing_else_changes(
            names in prop::collection::btree_map(".*", ".*", 0..8),
            password in ".*",
        ) {
            let before = json!(names);
            let mut secret = read(&before);
            secret.set("password", &password);
            let written = secret.write().unwrap();
            let mut after: Value = serde_json::from_slice(written.expose()).unwrap();
            let set = after.as_object_mut().unwrap().remove("password").unwrap();
            prop_assert_eq!(set, json!(password));
            let mut before = before;
            before.as_object_mut().unwrap().remove("password");
            prop_assert_eq!(after, before);
        }

        #[test]
        fn whatever_is_read_is_written_so_that_it_reads_the_same(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let Ok(secret) = SecretJson::read(&bytes) else { return Ok(()) };
            let written = secret.write().unwrap();
            let again = SecretJson::read(written.expose()).unwrap().write().unwrap();
            prop_assert!(written == again);
        }
    }
}
