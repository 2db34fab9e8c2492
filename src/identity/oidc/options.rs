//! Trusted issuers: as they are written in the configuration, and as they were checked.

use super::fetch;
use crate::name::is_account;
use crate::roots::Roots;
use http::Uri;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The most issuers; the most audiences or accounts of one. AWS has 100 of each.
const MOST: usize = 100;
/// The longest URL of an issuer and the longest audience, in characters; AWS's limits.
const LONGEST: usize = 255;

/// An issuer as it is written: `[[identity.issuer]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The `iss` of its tokens, letter by letter: `https://` and a name.
    pub url: String,
    /// For whom its tokens may be issued: client ids, `sts.amazonaws.com` for Kubernetes.
    pub audiences: Vec<String>,
    /// Where its keys are: an `https://` URL, an `http://` URL on loopback, or a file.
    pub jwks: String,
    /// The roots (PEM) that the URL's certificate must come from; without it, the system's.
    pub ca: Option<PathBuf>,
    /// The accounts that trust it; none: all.
    #[serde(default)]
    pub accounts: Vec<String>,
}

/// An issuer that was checked.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub url: String,
    /// For whom its tokens may be issued.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub jwks: Jwks,
    accounts: Vec<String>,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug)]
pub enum Jwks {
    /// A file, read again when it changes.
    File(PathBuf),
    /// A URL.
    Url {
        /// `https`, or `http` on loopback.
        url: Uri,
        /// The roots that its certificate must come from; none: the system's.
        ca: Option<PathBuf>,
    },
}

/// What is wrong with an issuer.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The URL.
    #[error(
        "issuer `{0}`: the URL must begin with https://, have a name, no query and no fragment, and \
         at most {LONGEST} characters"
    )]
    Url(String),
    /// The same issuer twice.
    #[error("issuer `{0}` is there twice")]
    Twice(String),
    /// More issuers than are looked through.
    #[error("{0} issuers: {MOST} are the limit")]
    TooMany(usize),
    /// The audiences.
    #[error("issuer `{0}`: from 1 to {MOST} audiences of 1 to {LONGEST} characters are needed")]
    Audiences(String),
    /// The accounts.
    #[error("issuer `{issuer}`: `{account}` is no account")]
    Account {
        /// The issuer.
        issuer: String,
        /// What is written there.
        account: String,
    },
    /// The place of the keys.
    #[error(
        "issuer `{issuer}`: `{jwks}` is no https:// URL, no http:// URL on loopback, and no file"
    )]
    Jwks {
        /// The issuer.
        issuer: String,
        /// What is written there.
        jwks: String,
    },
    /// The roots.
    #[error("issuer `{issuer}`: {why}")]
    Ca {
        /// The issuer.
        issuer: String,
        /// What is wrong with them.
        why: String,
    },
}

impl Options {
    /// Makes relative paths count from `base`.
    pub fn resolve(&mut self, base: &Path) {
        if let Some(ca) = &mut self.ca {
            *ca = base.join(&*ca);
        }
        if !self.jwks.contains("://") && !self.jwks.is_empty() {
            self.jwks = base.join(&self.jwks).to_string_lossy().into_owned();
        }
    }

    /// Checks issuers as they are written. Reads their roots, and nothing else.
    pub fn check_all(written: Vec<Self>) -> Result<Vec<Issuer>, OptionsError> {
        if written.len() > MOST {
            return Err(OptionsError::TooMany(written.len()));
        }
        let mut issuers: Vec<Issuer> = Vec::with_capacity(written.len());
        for options in written {
            let issuer = options.check()?;
            if issuers.iter().any(|known| known.url == issuer.url) {
                return Err(OptionsError::Twice(issuer.url));
            }
            issuers.push(issuer);
        }
        Ok(issuers)
    }

    fn check(self) -> Result<Issuer, OptionsError> {
        if !is_issuer(&self.url) {
            return Err(OptionsError::Url(self.url));
        }
        let fits = |text: &String| (1..=LONGEST).contains(&text.len());
        if !(1..=MOST).contains(&self.audiences.len()) || !self.audiences.iter().all(fits) {
            return Err(OptionsError::Audiences(self.url));
        }
        if let Some(account) = self.accounts.iter().find(|account| !is_account(account)) {
            let account = account.clone();
            return Err(OptionsError::Account { issuer: self.url, account });
        }
        let Some(jwks) = place(&self.jwks, self.ca) else {
            return Err(OptionsError::Jwks { issuer: self.url, jwks: self.jwks });
        };
        if let Jwks::Url { ca: Some(ca), .. } = &jwks {
            Roots::File(ca.clone()).certificates().map_err(|error| OptionsError::Ca {
                issuer: self.url.clone(),
                why: error.to_string(),
            })?;
        }
        let (url, audiences, accounts) = (self.url, self.audiences, self.accounts);
        Ok(Issuer { url, audiences, jwks, accounts })
    }
}

impl Issuer {
    /// Whether an account trusts it.
    pub fn trusted_by(&self, account: &str) -> bool {
        self.accounts.is_empty() || self.accounts.iter().any(|a| a == account)
    }
}

fn is_issuer(url: &str) -> bool {
    let parsed = url.parse::<Uri>().ok();
    url.len() <= LONGEST
        && !url.contains(['#', '@'])
        && parsed.is_some_and(|uri| {
            uri.scheme_str() == Some("https") && uri.host().is_some() && uri.query().is_none()
        })
}

fn place(written: &str, ca: Option<PathBuf>) -> Option<Jwks> {
    if !written.contains("://") {
        // Roots for a file would be a misunderstanding.
        return (!written.is_empty() && ca.is_none()).then(|| Jwks::File(written.into()));
    }
    let url: Uri = written.parse().ok()?;
    let authority = url.authority()?;
    let loopback = || fetch::loopback(url.host().unwrap_or_default()).is_some();
    let fits = match url.scheme_str()? {
        "https" => true,
        "http" => loopback() && ca.is_none(),
        _ => false,
    };
    (fits && !authority.as_str().contains('@')).then_some(Jwks::Url { url, ca })
}
