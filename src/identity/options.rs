//! Who besides the accounts' own users is believed: `[identity]` in the configuration.

use super::oidc::{self, Issuers};
use super::x509::{self, AnchorOptions, ProfileOptions, RuleOptions, Trust};
use serde::Deserialize;
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

impl Federation {
    /// Reads the revocation lists again that have changed. Blocks. Those that can't be read stay as
    /// they were, and the log says so.
    pub fn refresh(&self) {
        for anchor in &self.trust.anchors {
            if let Err(error) = anchor.refresh() {
                tracing::error!(anchor = anchor.name, %error, "the old revocation lists stay");
            }
        }
    }
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
