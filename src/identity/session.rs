//! Callers with temporary credentials: their token is opened once, and each request asks whether
//! the session still stands.

use super::sigv4::{AuthError, Checked};
use super::{Authenticator, Error};
use crate::clock::Time;
use crate::envelope::session::{self as sealed, Kind, Sessions};
use crate::policy::document::{self, Kind as PolicyKind};
use crate::policy::{Caller, Policy, PrincipalKind, Session};
use crate::store::principals::{Role, STANDING, User};
use crate::store::records::{Records, Rows};
use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::{Equivalent, sync::Cache};
use std::sync::Arc;

/// Open sessions kept, so that a hot request neither opens a token nor compiles a policy.
const OPEN: usize = 4096;

/// Opens session tokens, each once.
pub(super) struct Tokens {
    sessions: Sessions,
    open: Cache<(String, [u8; 32]), Arc<Caller>>,
}

/// A key of the cache, borrowed: access key id and SHA-256 of the token.
#[derive(Hash)]
struct Presented<'a>(&'a str, [u8; 32]);

impl Equivalent<(String, [u8; 32])> for Presented<'_> {
    fn equivalent(&self, key: &(String, [u8; 32])) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}

impl Tokens {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self { sessions, open: Cache::new(OPEN) }
    }

    /// The caller of a token whose time is not over.
    fn current(&self, id: &str, token: &str, now: Time) -> Result<(Arc<Caller>, u64), AuthError> {
        let (caller, revision) = self.caller(id, token)?;
        let ends = caller.session.as_ref().map(|session| session.expires);
        if ends.is_none_or(|ends| ends <= now) {
            return Err(AuthError::ExpiredToken);
        }
        Ok((caller, revision))
    }

    /// The caller of a token, from memory if it was opened before; and the first bytes of the
    /// token's digest, which tell its signing keys from those of another token.
    fn caller(&self, id: &str, token: &str) -> Result<(Arc<Caller>, u64), AuthError> {
        let digest: [u8; 32] =
            digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap_or([0; 32]);
        let revision = digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        if let Some(caller) = self.open.get(&Presented(id, digest)) {
            return Ok((caller, revision));
        }
        let opened = self.sessions.open(id, token).map_err(|_| AuthError::UnrecognizedClient)?;
        let caller = Arc::new(caller(id, opened.0)?);
        self.open.insert((id.to_owned(), digest), caller.clone());
        Ok((caller, revision))
    }
}

impl Authenticator {
    /// Proves a caller with temporary credentials.
    pub(super) fn temporary(
        &self,
        checked: &Checked<'_, '_>,
        now: Time,
    ) -> Result<Arc<Caller>, Error> {
        let presented = checked.presented();
        let (id, token) = (presented.access_key_id(), presented.session_token());
        let token = token.filter(|t| !t.is_empty()).ok_or(AuthError::UnrecognizedClient)?;
        let (caller, revision) = self.tokens.current(id, token, now)?;
        let signing = self.signing.signing_key::<Error>(checked, revision, || {
            let opened = self.tokens.sessions.open(id, token);
            Ok(opened.map_err(|_| AuthError::UnrecognizedClient)?.1)
        })?;
        checked.verify(&signing)?;
        stands(&self.records, id, &caller)?;
        Ok(caller)
    }
}

/// Refuses a session that was ended, and that of a user or role that is gone. Asked after the
/// signature: strangers are not told which sessions there were.
fn stands(records: &Records, access_key_id: &str, caller: &Caller) -> Result<(), Error> {
    if records.revoked_sessions(&caller.account)?.contains(access_key_id) {
        return Err(AuthError::ExpiredToken.into());
    }
    let scope = (STANDING, caller.account.as_str());
    let issuer = |rows: &mut Rows<'_>| issuer(rows, caller);
    records.derived::<(), Error>(scope, access_key_id, |rows| {
        if issuer(rows)? { Ok(()) } else { Err(AuthError::UnrecognizedClient.into()) }
    })?;
    Ok(())
}

/// Whether the user or role that a session stands for is there.
fn issuer(rows: &mut Rows<'_>, caller: &Caller) -> Result<bool, Error> {
    let Some(session) = &caller.session else { return Ok(false) };
    let name = caller.principal_arn().rsplit('/').next().unwrap_or_default();
    let id = match caller.kind {
        PrincipalKind::Root => return Ok(true),
        PrincipalKind::User => rows.named::<User>(&caller.account, name)?.map(|user| user.id),
        _ => rows.named::<Role>(&caller.account, name)?.map(|role| role.id),
    };
    Ok(id.is_some_and(|id| id == session.issuer_id))
}

/// The caller that a session stands for.
fn caller(access_key_id: &str, session: sealed::Session) -> Result<Caller, AuthError> {
    // A policy that was checked when the session began and can't be read is no session of ours.
    let compiled = |(name, text): &(String, String)| {
        let document = document::parse(text, PolicyKind::Session);
        let document = document.map_err(|_| AuthError::UnrecognizedClient)?;
        Ok(Arc::new(Policy::compile(name.clone(), document)))
    };
    let policies = session.policies.iter().map(compiled).collect::<Result<_, AuthError>>()?;
    Ok(Caller {
        arn: session.arn(),
        principal_id: session.principal_id(),
        account: session.account,
        kind: match session.kind {
            Kind::Root => PrincipalKind::Root,
            Kind::User => PrincipalKind::User,
            Kind::Role => PrincipalKind::AssumedRole,
        },
        access_key_id: Some(access_key_id.to_owned()),
        session: Some(Arc::new(Session {
            issuer_arn: session.issuer_arn,
            issuer_id: session.issuer_id,
            name: session.name,
            policies,
            tags: session.tags,
            transitive: session.transitive,
            issued: session.issued,
            expires: session.expires,
            source_identity: session.source_identity,
            provider: session.provider,
            chained: session.chained,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;
    use crate::secret::Key;
    use crate::store::Store;
    use crate::store::records::RowMac;
    use crate::store::revoked::RevokedSession;
    use crate::store::sqlite::{Options, Sqlite};

    const ACCOUNT: &str = "111111111111";

    fn sessions() -> Sessions {
        Sessions::new(Key::take(&mut [1; 32]))
    }

    fn made(kind: Kind, issuer: &str, policies: Vec<(String, String)>) -> (String, String) {
        let session = sealed::Session {
            account: ACCOUNT.into(),
            kind,
            issuer_arn: format!("arn:aws:iam::{ACCOUNT}:{issuer}"),
            issuer_id: "ID".into(),
            name: "me".into(),
            policies,
            tags: Vec::new(),
            transitive: Vec::new(),
            issued: Time(0),
            expires: Time(900_000),
            source_identity: None,
            provider: None,
            chained: false,
        };
        let made = sessions().make(&SystemRandom, &session).expect("makes");
        (made.access_key_id, made.token.expose_str().expect("text").to_owned())
    }

    #[test]
    fn a_session_lasts_until_its_end_and_not_a_millisecond_longer() {
        let (id, token) = made(Kind::Role, "role/a/r", Vec::new());
        let tokens = Tokens::new(sessions());
        let at = |now| tokens.current(&id, &token, Time(now));
        let (caller, _) = at(899_999).expect("lasts");
        assert_eq!(caller.arn, format!("arn:aws:sts::{ACCOUNT}:assumed-role/r/me"));
        assert_eq!(caller.principal_id, "ID:me");
        assert_eq!(at(900_000).err(), Some(AuthError::ExpiredToken));
        // Also where it was never opened before its end.
        let other = Tokens::new(sessions());
        assert_eq!(other.current(&id, &token, Time(i64::MAX)).err(), Some(AuthError::ExpiredToken));
    }

    #[test]
    fn a_token_is_opened_and_its_policies_are_compiled_once() {
        let allow = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
        let (id, token) = made(Kind::Role, "role/r", vec![("p".into(), allow.into())]);
        let tokens = Tokens::new(sessions());
        let (one, revision) = tokens.current(&id, &token, Time(0)).expect("lasts");
        let (two, same) = tokens.current(&id, &token, Time(1)).expect("lasts");
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(revision, same);
        assert_eq!(one.session.as_ref().map(|s| s.policies.len()), Some(1));
        // Another token under the same id is another token, opened or not.
        let (_, other) = made(Kind::Role, "role/r", Vec::new());
        let refused = tokens.current(&id, &other, Time(0)).err();
        assert_eq!(refused, Some(AuthError::UnrecognizedClient));
    }

    fn records(dir: &std::path::Path) -> Records {
        let engine = Sqlite::open(Options::new(dir.join("data"))).expect("opens");
        Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10)
    }

    fn role(id: &str) -> Role {
        serde_json::from_value(serde_json::json!({
            "account": ACCOUNT, "name": "r", "path": "/a/", "id": id, "description": null,
            "created": 0, "max_session": 3600, "trust": "{}", "tags": [], "inline": [],
            "attached": [], "boundary": null, "revision": 1,
        }))
        .expect("a role")
    }

    #[tokio::test]
    async fn a_session_falls_with_its_role_and_by_itself() {
        let dir = tempfile::tempdir().expect("folder");
        let records = records(dir.path());
        let (id, token) = made(Kind::Role, "role/a/r", Vec::new());
        let (caller, _) = Tokens::new(sessions()).caller(&id, &token).expect("opens");
        let code = || match stands(&records, &id, &caller) {
            Ok(()) => "stands",
            Err(Error::Refused(error)) => error.code(),
            Err(_) => "fails",
        };
        let put = async |id: &'static str| {
            let put =
                records.write::<_, crate::store::Error>(move |rows| rows.put_named(&role(id)));
            put.await.expect("writes");
        };
        assert_eq!(code(), "UnrecognizedClientException");
        put("ID").await;
        assert_eq!(code(), "stands");
        // Deleted and made again: another role of the same name.
        put("OTHER").await;
        assert_eq!(code(), "UnrecognizedClientException");
        put("ID").await;
        assert_eq!(code(), "stands");
        let ended = |id: &str| RevokedSession {
            id: id.to_owned(),
            account: ACCOUNT.into(),
            revoked: Time(1),
            expires: Time(2),
        };
        let (other, this) = (ended("ASIAOTHER"), ended(&id));
        records
            .write::<_, crate::store::Error>(move |rows| rows.put_revoked_session(&other))
            .await
            .expect("writes");
        assert_eq!(code(), "stands");
        records
            .write::<_, crate::store::Error>(move |rows| rows.put_revoked_session(&this))
            .await
            .expect("writes");
        assert_eq!(code(), "ExpiredTokenException");
        let forget = |now| {
            records.write::<_, crate::store::Error>(move |rows| {
                rows.forget_revoked_sessions(Time(now))
            })
        };
        assert_eq!(forget(2).await.ok(), Some(0));
        assert_eq!(forget(3).await.ok(), Some(2));
    }

    #[tokio::test]
    async fn a_users_session_falls_with_the_user() {
        let dir = tempfile::tempdir().expect("folder");
        let records = records(dir.path());
        let (id, token) = made(Kind::User, "user/u", Vec::new());
        let (caller, _) = Tokens::new(sessions()).caller(&id, &token).expect("opens");
        assert!(stands(&records, &id, &caller).is_err());
        let user: User = serde_json::from_value(serde_json::json!({
            "account": ACCOUNT, "name": "u", "path": "/", "id": "ID", "created": 0, "tags": [],
            "inline": [], "attached": [], "groups": [], "boundary": null, "revision": 1,
        }))
        .expect("a user");
        records
            .write::<_, crate::store::Error>(move |rows| rows.put_named(&user))
            .await
            .expect("writes");
        assert!(stands(&records, &id, &caller).is_ok());
        records
            .write::<_, crate::store::Error>(|rows| rows.delete_named::<User>(ACCOUNT, "u"))
            .await
            .expect("writes");
        assert!(stands(&records, &id, &caller).is_err());
        let (id, token) = made(Kind::Root, "root", Vec::new());
        let (root, _) = Tokens::new(sessions()).caller(&id, &token).expect("opens");
        assert!(stands(&records, &id, &root).is_ok());
    }
}
