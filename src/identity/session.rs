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
        let (caller, revision) = self.tokens.caller(id, token)?;
        if caller.session.as_ref().is_none_or(|session| session.expires <= now) {
            return Err(AuthError::ExpiredToken.into());
        }
        let signing = self.signing.signing_key::<Error>(checked, revision, || {
            let opened = self.tokens.sessions.open(id, token);
            Ok(opened.map_err(|_| AuthError::UnrecognizedClient)?.1)
        })?;
        checked.verify(&signing)?;
        // A session that was ended is told from one that never was: its holder knows the secret.
        if self.records.revoked_sessions(&caller.account)?.contains(id) {
            return Err(AuthError::ExpiredToken.into());
        }
        stands(&self.records, id, &caller)?;
        Ok(caller)
    }
}

/// Refuses the session of a user or role that is gone.
fn stands(records: &Records, access_key_id: &str, caller: &Caller) -> Result<(), Error> {
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
        let document = document::parse(text, PolicyKind::Identity);
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
