//! Who is calling: proves it or fails. By SigV4 with a long-term access key or with temporary
//! credentials.

pub mod federated;
pub mod mutual;
pub mod oidc;
pub mod options;
mod session;
pub mod sigv4;
pub mod x509;

pub use crate::envelope::access_key;

use crate::clock::Time;
use crate::envelope::{self, session::Sessions};
use crate::name::Service;
use crate::policy::{Caller, PrincipalKind};
use crate::secret::Key;
use crate::store;
use crate::store::identity::{AccessKey, Principal};
use crate::store::principals::{STANDING, User};
use crate::store::records::{Records, Rows};
use options::Federation;
use sigv4::{AuthError, Checked, DerivationFailed, Expected, Presented, Request, SigningKeys};
use std::sync::Arc;

/// Signing keys kept, so that a hot request costs one HMAC.
const SIGNING_KEYS: usize = 4096;

/// The region of AWS's global endpoints.
const GLOBAL_REGION: &str = "us-east-1";

/// Proves callers.
pub struct Authenticator {
    records: Records,
    region: String,
    sealing: Key,
    signing: SigningKeys,
    tokens: session::Tokens,
    federation: Arc<Federation>,
}

/// Why a caller was not proved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's fault.
    #[error(transparent)]
    Refused(#[from] AuthError),
    /// The access key could not be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The access key's secret could not be opened.
    #[error("an access key's secret can't be opened: {0}")]
    Sealed(#[from] envelope::Error),
    /// A primitive failed.
    #[error(transparent)]
    Primitive(#[from] DerivationFailed),
}

impl Error {
    /// Whether the access key's row was altered or damaged: then it proves nobody, and the fault is
    /// not ours.
    pub fn altered(&self) -> bool {
        matches!(
            self,
            Self::Store(store::Error::Corrupt(_)) | Self::Sealed(envelope::Error::Invalid)
        )
    }
}

impl Authenticator {
    /// Over these records; `sealing` is the key that access-key secrets are sealed under, `sessions`
    /// opens session tokens.
    pub fn new(
        records: Records,
        region: &str,
        sealing: Key,
        sessions: Sessions,
        federation: Arc<Federation>,
    ) -> Self {
        let signing = SigningKeys::new(SIGNING_KEYS);
        let tokens = session::Tokens::new(sessions);
        Self { records, region: region.to_owned(), sealing, signing, tokens, federation }
    }

    /// Who besides the accounts' own users is believed.
    pub fn federation(&self) -> &Federation {
        &self.federation
    }

    /// The caller at the other end of a connection with this certificate, if a rule maps it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn mutual(
        &self,
        presented: &mutual::Presented,
        now: Time,
    ) -> Result<Option<Arc<Caller>>, Error> {
        Ok(self.federation.mutual(presented, &self.records, &self.region, now)?)
    }

    /// Proves who signed this request for `service`.
    pub fn authenticate(
        &self,
        request: &Request<'_>,
        service: Service,
        now: Time,
    ) -> Result<Arc<Caller>, Error> {
        let presented = Presented::parse(request)?;
        let region = self.expected_region(presented.region(), service);
        let expected = Expected { now, region, services: &[service.prefix()] };
        let checked = presented.check(&expected)?;
        if !presented.access_key_id().starts_with(envelope::session::PREFIX) {
            return self.long_term(&checked);
        }
        let caller = self.temporary(&checked, now)?;
        // A session of GetSessionToken may not call IAM without a second factor, which there is
        // none of here (GetSessionToken, AWS STS API Reference). IAM says it as if it did not know
        // the token.
        if service == Service::Iam && caller.kind != PrincipalKind::AssumedRole {
            return Err(AuthError::UnrecognizedClient.into());
        }
        Ok(caller)
    }

    /// Proves a caller with a long-term access key.
    fn long_term(&self, checked: &Checked<'_, '_>) -> Result<Arc<Caller>, Error> {
        let presented = checked.presented();
        let found = self.records.access_key(presented.access_key_id())?;
        let key = found.filter(|key| key.active).ok_or(AuthError::UnrecognizedClient)?;
        // Long-term access keys have no session token: with one, this is somebody else's request.
        if presented.session_token().is_some_and(|token| !token.is_empty()) {
            return Err(AuthError::UnrecognizedClient.into());
        }
        let revision = key.created.0.unsigned_abs();
        let signing = self.signing.signing_key::<Error>(checked, revision, || {
            Ok(access_key::open(&self.sealing, &key)?)
        })?;
        checked.verify(&signing)?;
        self.holder(&key)
    }
}

impl Authenticator {
    /// The region that the scope must name. IAM and STS have a global endpoint, for which clients
    /// sign as for [`GLOBAL_REGION`].
    fn expected_region<'a>(&'a self, claimed: &str, service: Service) -> &'a str {
        let global = claimed == GLOBAL_REGION && service.speaks_query();
        if global { GLOBAL_REGION } else { &self.region }
    }

    /// The caller that an access key stands for; from memory until something of the account's
    /// principals changes.
    fn holder(&self, key: &AccessKey) -> Result<Arc<Caller>, Error> {
        let caller = self.records.derived::<Arc<Caller>, Error>(
            (STANDING, key.account.as_str()),
            &key.id,
            |rows| Ok(Arc::new(caller(rows, key)?)),
        )?;
        Ok(Arc::clone(&caller))
    }
}

/// The caller that an access key stands for, if its user is there.
fn caller(rows: &mut Rows<'_>, key: &AccessKey) -> Result<Caller, Error> {
    if let Principal::User = key.kind {
        let name = key.principal.rsplit('/').next().unwrap_or_default();
        let user = rows.named::<User>(&key.account, name)?;
        if user.is_none_or(|user| user.id != key.principal_id) {
            return Err(AuthError::UnrecognizedClient.into());
        }
    }
    Ok(Caller {
        account: key.account.clone(),
        arn: key.principal.clone(),
        principal_id: key.principal_id.clone(),
        kind: match key.kind {
            Principal::Root => PrincipalKind::Root,
            Principal::User => PrincipalKind::User,
        },
        access_key_id: Some(key.id.clone()),
        session: None,
    })
}
