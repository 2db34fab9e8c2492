//! Who besides the accounts' own users is believed: `[identity]` in the configuration.

use super::oidc::{self, Issuers};
use super::x509::{self, AnchorOptions, ProfileOptions, RuleOptions, Trust};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// `[identity]` as it is written. Nobody is believed by default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Issuers of tokens for AssumeRoleWithWebIdentity.
    pub issuer: Vec<oidc::Options>,
    /// CAs whose certificates are identities.
    pub trust_anchor: Vec<AnchorOptions>,
    /// What CreateSession may give.
    pub profile: Vec<ProfileOptions>,
    /// Which certificate gets which role over mutual TLS.
    pub client_certificate: Vec<RuleOptions>,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Issuers.
    #[error(transparent)]
    Issuer(#[from] oidc::OptionsError),
    /// Trust anchors, profiles, rules.
    #[error(transparent)]
    Certificate(#[from] x509::OptionsError),
}

/// The same, checked.
pub struct Federation {
    /// Issuers of tokens.
    pub issuers: Issuers,
    /// Trust anchors, profiles, rules.
    pub trust: Trust,
}

impl Options {
    /// Makes relative paths count from `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.issuer.iter_mut().for_each(|issuer| issuer.resolve(base));
        self.trust_anchor.iter_mut().for_each(|anchor| anchor.resolve(base));
    }

    /// Whether anybody may come with a certificate of its own.
    pub fn asks_for_certificates(&self) -> bool {
        !self.client_certificate.is_empty()
    }

    /// Checks what is written; reads the files of certificates.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn check(self) -> Result<Federation, OptionsError> {
        let issuers = Issuers::new(oidc::Options::check_all(self.issuer)?);
        let trust = Trust::check(self.trust_anchor, self.profile, self.client_certificate)?;
        Ok(Federation { issuers, trust })
    }
}

/// A file's bytes; an error if there are more than `most`.
pub(super) fn bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > most {
        let why = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}
