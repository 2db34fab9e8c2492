//! Who is calling: proves it or fails. So far by SigV4 with a long-term access key.

pub mod access_key;
pub mod sigv4;

use crate::clock::Time;
use crate::envelope;
use crate::name::Service;
use crate::policy::{Caller, PrincipalKind};
use crate::secret::{Key, Secret};
use crate::store;
use crate::store::identity::{AccessKey, Principal};
use crate::store::records::Records;
use quick_cache::{Equivalent, sync::Cache};
use sigv4::{AuthError, DerivationFailed, Expected, Presented, Request, SigningKeys};
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
    callers: Cache<(String, u64), Arc<Caller>>,
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
    /// Over these records; `sealing` is the key that access-key secrets are sealed under.
    pub fn new(records: Records, region: &str, sealing: Key) -> Self {
        let signing = SigningKeys::new(SIGNING_KEYS);
        let callers = Cache::new(SIGNING_KEYS);
        Self { records, region: region.to_owned(), sealing, signing, callers }
    }

    /// A new access key for a principal (ARN, unique id, kind); the caller stores it.
    pub fn issue(
        &self,
        random: &dyn crate::clock::Random,
        now: Time,
        principal: (&str, &str, Principal),
        account: &str,
        key: (String, &Secret),
    ) -> Result<AccessKey, envelope::Error> {
        access_key::make(&self.sealing, random, now, principal, account, key)
    }

    /// Proves who signed this request for one of `services`.
    pub fn authenticate(
        &self,
        request: &Request<'_>,
        services: &[Service],
        now: Time,
    ) -> Result<(Arc<Caller>, Service), Error> {
        let presented = Presented::parse(request)?;
        let names: Vec<&str> = services.iter().map(|s| s.prefix()).collect();
        let region = self.expected_region(presented.region(), services);
        let expected = Expected { now, region, services: &names };
        let checked = presented.check(&expected)?;
        let found = self.records.access_key(presented.access_key_id())?;
        let key = found.filter(|key| key.active).ok_or(AuthError::UnrecognizedClient)?;
        // Long-term access keys have no session token: with one, this is somebody else's request.
        if presented.session_token().is_some_and(|token| !token.is_empty()) {
            return Err(AuthError::UnrecognizedClient.into());
        }
        let revision = key.created.0.unsigned_abs();
        let signing = self.signing.signing_key::<Error>(&checked, revision, || {
            Ok(access_key::open(&self.sealing, &key)?)
        })?;
        checked.verify(&signing)?;
        let service = services.iter().find(|s| s.prefix() == presented.service());
        Ok((self.known(&key, revision), *service.ok_or(AuthError::UnrecognizedClient)?))
    }
}

impl Authenticator {
    /// The region that the scope must name. IAM and STS have a global endpoint, for which clients
    /// sign as for [`GLOBAL_REGION`].
    fn expected_region<'a>(&'a self, claimed: &str, services: &[Service]) -> &'a str {
        let global = claimed == GLOBAL_REGION && services.iter().all(|s| s.speaks_query());
        if global { GLOBAL_REGION } else { &self.region }
    }

    /// The caller that an access key stands for, made once.
    fn known(&self, key: &AccessKey, revision: u64) -> Arc<Caller> {
        if let Some(caller) = self.callers.get(&Known(&key.id, revision)) {
            return caller;
        }
        let caller = Arc::new(caller(key));
        self.callers.insert((key.id.clone(), revision), caller.clone());
        caller
    }
}

/// A key of the callers' cache, borrowed.
#[derive(Hash)]
struct Known<'a>(&'a str, u64);

impl Equivalent<(String, u64)> for Known<'_> {
    fn equivalent(&self, key: &(String, u64)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }
}

fn caller(key: &AccessKey) -> Caller {
    Caller {
        account: key.account.clone(),
        arn: key.principal.clone(),
        principal_id: key.principal_id.clone(),
        kind: match key.kind {
            Principal::Root => PrincipalKind::Root,
            Principal::User => PrincipalKind::User,
        },
        access_key_id: Some(key.id.clone()),
        session: None,
    }
}
