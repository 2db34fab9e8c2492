//! Trust anchors: CAs whose certificates an account takes for identities.

use super::certificate::Certificate;
use super::options::{OptionsError, is_uuid};
use super::revocation::Revocations;
use super::{Error, MAX_CERTIFICATE, MAX_CHAIN, Subject};
use crate::clock::Time;
use crate::identity::options::bounded;
use crate::name::is_account;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, TrustAnchor as Root, UnixTime,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The most bytes of a file with CA certificates, and the most certificates in it.
const MAX_FILE: u64 = 1 << 20;
const MAX_ROOTS: usize = 100;

/// What a certificate may be signed with: RSA from 2,048 bits, ECDSA on P-256 and P-384, SHA-256 and
/// stronger.
static ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 12] = {
    use webpki::aws_lc_rs as algorithms;
    [
        algorithms::ECDSA_P256_SHA256,
        algorithms::ECDSA_P256_SHA384,
        algorithms::ECDSA_P256_SHA512,
        algorithms::ECDSA_P384_SHA256,
        algorithms::ECDSA_P384_SHA384,
        algorithms::ECDSA_P384_SHA512,
        algorithms::RSA_PKCS1_2048_8192_SHA256,
        algorithms::RSA_PKCS1_2048_8192_SHA384,
        algorithms::RSA_PKCS1_2048_8192_SHA512,
        algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    ]
};

/// A trust anchor as it is written: `[[identity.trust_anchor]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorOptions {
    /// A UUID in lower case; part of its ARN.
    pub id: String,
    /// The account whose roles its certificates may get.
    pub account: String,
    /// A name for people.
    pub name: String,
    /// CA certificates (PEM): roots, or intermediates that are trusted by themselves.
    pub certificates: PathBuf,
    /// Revocation lists (PEM): one of every CA from the certificate to the anchor. Without this
    /// nothing is ever revoked.
    pub crl: Option<PathBuf>,
}

/// A trust anchor that was checked.
pub struct TrustAnchor {
    /// Its id.
    pub id: String,
    /// Its account.
    pub account: String,
    /// Its name.
    pub name: String,
    roots: Vec<(Validity, Root<'static>)>,
    revocations: Option<Revocations>,
}

/// From when to when a CA's certificate is valid, in seconds, both included.
#[derive(Clone, Copy)]
struct Validity(i64, i64);

impl AnchorOptions {
    /// Makes relative paths count from `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.certificates = base.join(&self.certificates);
        self.crl = self.crl.as_ref().map(|path| base.join(path));
    }

    /// Checks what is written; reads the files.
    pub fn check(self) -> Result<TrustAnchor, OptionsError> {
        if !is_uuid(&self.id) {
            return Err(OptionsError::Id(self.id));
        }
        if !is_account(&self.account) {
            return Err(OptionsError::Account(self.account));
        }
        let roots = read(&self.certificates)?;
        let revocations = self.crl.map(Revocations::open).transpose()?;
        let Self { id, account, name, .. } = self;
        Ok(TrustAnchor { id, account, name, roots, revocations })
    }
}

impl TrustAnchor {
    /// `arn:aws:rolesanywhere:REGION:ACCOUNT:trust-anchor/ID`.
    pub fn arn(&self, region: &str) -> String {
        let (account, id) = (&self.account, &self.id);
        format!("arn:aws:rolesanywhere:{region}:{account}:trust-anchor/{id}")
    }

    /// Reads the revocation lists again if their file has changed. Blocks. Upon an error those that
    /// were read before stay in use, each until it says that it is out of date.
    pub fn refresh(&self) -> Result<(), OptionsError> {
        self.revocations.as_ref().map_or(Ok(()), Revocations::refresh)
    }

    /// Proves that this anchor vouches for a certificate (DER) at `now`: a path to it, by way of
    /// `intermediates` (DER), validity, key usage, revocation. Says nothing of who holds the key.
    pub fn verify_chain(
        &self,
        leaf: &[u8],
        intermediates: &[&[u8]],
        now: Time,
    ) -> Result<Subject, Error> {
        if intermediates.len() > MAX_CHAIN {
            return Err(Error::TooMany);
        }
        if intermediates.iter().any(|der| der.len() > MAX_CERTIFICATE) {
            return Err(Error::TooLong);
        }
        let certificate = Certificate::read(leaf)?;
        certificate.check()?;
        self.verify_path(leaf, intermediates, now)?;
        Subject::read(&certificate)
    }

    fn verify_path(&self, leaf: &[u8], intermediates: &[&[u8]], now: Time) -> Result<(), Error> {
        let current = |validity: &Validity| (validity.0..=validity.1).contains(&now.seconds());
        let roots: Vec<Root<'_>> = self
            .roots
            .iter()
            .filter(|(validity, _)| current(validity))
            .map(|(_, root)| root.clone())
            .collect();
        if roots.is_empty() {
            return Err(Error::Untrusted("no CA of the trust anchor is valid now".into()));
        }
        let leaf = CertificateDer::from(leaf);
        let chain: Vec<_> = intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
        let entity = EndEntityCert::try_from(&leaf).map_err(|e| Error::of_path(&e))?;
        let seconds = u64::try_from(now.seconds()).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let lists = self.revocations.as_ref().map(Revocations::lists);
        let lists: Vec<&CertRevocationList<'_>> =
            lists.iter().flat_map(|lists| lists.iter()).collect();
        // Built only with lists; an anchor that has a file has one at least.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let usage = KeyUsage::client_auth();
        entity
            .verify_for_usage(&ALGORITHMS, &roots, &chain, time, usage, revocation, None)
            .map(drop)
            .map_err(|error| Error::of_path(&error))
    }
}

fn read(path: &Path) -> Result<Vec<(Validity, Root<'static>)>, OptionsError> {
    let pem = bounded(path, MAX_FILE).map_err(|why| OptionsError::file(path, why))?;
    let mut roots = Vec::new();
    for der in CertificateDer::pem_slice_iter(&pem) {
        let der = der.map_err(|why| OptionsError::file(path, why))?;
        let validity = authority(&der).ok_or_else(|| {
            OptionsError::file(
                path,
                "it holds a certificate that is not a CA's (version 3, CA:TRUE)",
            )
        })?;
        let root =
            anchor_from_trusted_cert(&der).map_err(|why| OptionsError::file(path, why))?.to_owned();
        roots.push((validity, root));
    }
    if !(1..=MAX_ROOTS).contains(&roots.len()) {
        let why = format!("it must hold from 1 to {MAX_ROOTS} certificates (PEM)");
        return Err(OptionsError::file(path, why));
    }
    Ok(roots)
}

/// When a certificate is valid, if it is a CA's.
fn authority(der: &[u8]) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let validity = Validity(validity.not_before.timestamp(), validity.not_after.timestamp());
    certificate.is_ca().then_some(validity)
}
