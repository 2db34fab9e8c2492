//! Mutual TLS: a connection's certificate, mapped to a role by the rules of the configuration.
//!
//! The handshake has proved that the other end holds the certificate's key. Whether anybody vouches
//! for it is asked at the first request that is not signed, and again every minute: revocation
//! lists change.

use super::options::Federation;
use super::x509::{self, Client, Mapped};
use crate::clock::Time;
use crate::policy::{Caller, PrincipalKind, Session};
use crate::store;
use crate::store::principals::Role;
use crate::store::records::Records;
use parking_lot::Mutex;
use std::sync::Arc;

/// For how many milliseconds what was found of a certificate is good.
const GOOD: i64 = 60_000;

/// A connection's certificate, and what was found of it.
#[derive(Debug)]
pub struct Presented {
    /// The certificate (DER).
    leaf: Vec<u8>,
    /// Those that lead from it to a CA (DER).
    chain: Vec<Vec<u8>>,
    found: Mutex<Option<(Time, Option<Arc<Known>>)>>,
}

/// What the rules make of a certificate.
#[derive(Debug)]
struct Known {
    account: String,
    anchor: String,
    mapped: Mapped,
    tags: Vec<(String, String)>,
    source_identity: Option<String>,
    since: Time,
    until: Time,
}

impl Presented {
    /// The certificates of a handshake (DER), the other end's own first.
    pub fn new(leaf: Vec<u8>, chain: Vec<Vec<u8>>) -> Self {
        Self { leaf, chain, found: Mutex::new(None) }
    }
}

impl Federation {
    /// The caller at the other end of a connection with this certificate; none if no rule fits or
    /// the role is not there.
    ///
    /// # Errors
    /// Those of the database.
    pub fn mutual(
        &self,
        presented: &Presented,
        records: &Records,
        region: &str,
        now: Time,
    ) -> Result<Option<Arc<Caller>>, store::Error> {
        let Some(known) = self.known(presented, region, now) else { return Ok(None) };
        let role_arn = &known.mapped.role_arn;
        let name = role_arn.rsplit('/').next().unwrap_or_default();
        let role = records.named::<Role>(&known.account, name)?;
        let role = role.filter(|role| role.arn() == *role_arn);
        Ok(role.map(|role| Arc::new(caller(&known, &role))))
    }

    fn known(&self, presented: &Presented, region: &str, now: Time) -> Option<Arc<Known>> {
        let mut found = presented.found.lock();
        if let Some((at, known)) = &*found
            && (0..GOOD).contains(&now.0.saturating_sub(at.0))
        {
            return known.clone().filter(|known| known.until > now);
        }
        let known = self.find(presented, region, now).map(Arc::new);
        *found = Some((now, known.clone()));
        known
    }

    fn find(&self, presented: &Presented, region: &str, now: Time) -> Option<Known> {
        let chain: Vec<&[u8]> = presented.chain.iter().map(Vec::as_slice).collect();
        match self.trust.client(&presented.leaf, &chain, now) {
            Ok(client) => client.map(|client| known(client, region, now)),
            // A certificate that is vouched for, and a rule that is wrong.
            Err(error @ x509::Error::SessionName(_)) => {
                tracing::warn!(%error, "a client's certificate");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "a client's certificate");
                None
            }
        }
    }
}

fn known(client: Client<'_>, region: &str, now: Time) -> Known {
    let Client { anchor, subject, mapped } = client;
    Known {
        account: anchor.account.clone(),
        anchor: anchor.arn(region),
        mapped,
        tags: subject.tags(),
        source_identity: subject.source_identity(),
        since: now,
        until: subject.not_after,
    }
}

fn caller(known: &Known, role: &Role) -> Caller {
    let (account, name) = (&known.account, &known.mapped.session_name);
    Caller {
        account: account.clone(),
        arn: ["arn:aws:sts::", account, ":assumed-role/", &role.name, "/", name].concat(),
        principal_id: [&role.id, ":", name].concat(),
        kind: PrincipalKind::AssumedRole,
        access_key_id: None,
        session: Some(Arc::new(Session {
            issuer_arn: known.mapped.role_arn.clone(),
            issuer_id: role.id.clone(),
            name: name.clone(),
            policies: Vec::new(),
            tags: known.tags.clone(),
            transitive: Vec::new(),
            issued: known.since,
            expires: known.until,
            source_identity: known.source_identity.clone(),
            provider: Some(known.anchor.clone()),
            chained: false,
        })),
    }
}
