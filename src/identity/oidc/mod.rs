//! OpenID Connect tokens of foreign issuers, as STS's AssumeRoleWithWebIdentity takes them.
//!
//! ```text
//! token = base64url(header) "." base64url(claims) "." base64url(signature)
//! ```
//!
//! The claims count for nothing until the signature is that of a key which the issuer they name
//! publishes. Sources: RFC 7515 (JWS), 7517 (JWK), 7518 (JWA), 7519 (JWT), 8037 (EdDSA), OpenID
//! Connect Core 1.0; "AssumeRoleWithWebIdentity" in the AWS STS API Reference and "Available keys
//! for AWS OIDC federation" in the AWS IAM User Guide.

mod error;
pub(crate) mod fetch;
mod keys;
mod options;
mod source;
mod token;

#[cfg(test)]
mod issuer;
#[cfg(test)]
mod tests;

pub use error::{Code, Error};
pub use options::{Issuer, Jwks, Options, OptionsError};
pub use token::{Claims, Tag, Token};

use crate::clock::Time;
use source::Source;
use std::sync::Arc;

/// The longest token, in characters; AWS's own limit.
pub const MAX_TOKEN: usize = 20_000;
/// The shortest token, in characters; AWS's own limit.
pub const MIN_TOKEN: usize = 4;
/// How far an issuer's clock may be ahead of ours, in milliseconds.
pub const LEEWAY: i64 = 60_000;
/// The most characters of a stranger's text that an error repeats: what an issuer's URL may have.
const SHOWN: usize = 255;

/// The issuers that are trusted, each with its keys.
pub struct Issuers(Vec<Trusted>);

struct Trusted {
    issuer: Issuer,
    keys: Arc<Source>,
}

impl Issuers {
    /// Trusts these issuers. Nothing is fetched yet.
    pub fn new(issuers: Vec<Issuer>) -> Self {
        let trusted = |issuer: Issuer| {
            let keys = Arc::new(Source::new(issuer.jwks.clone()));
            Trusted { issuer, keys }
        };
        Self(issuers.into_iter().map(trusted).collect())
    }

    /// The issuer of this URL, if `account` trusts it.
    fn trusted(&self, url: &str, account: &str) -> Option<&Trusted> {
        let fits = |t: &&Trusted| t.issuer.url == url && t.issuer.trusted_by(account);
        self.0.iter().find(fits)
    }

    /// Proves that `token` was issued by an issuer that `account` trusts, for one of its audiences,
    /// and is valid at `now`. May fetch the issuer's keys (5 s at most).
    pub async fn verify(&self, token: &str, account: &str, now: Time) -> Result<Claims, Error> {
        let token = Token::parse(token)?;
        let trusted = self
            .trusted(token.issuer(), account)
            .ok_or_else(|| Error::UnknownIssuer(token.issuer().chars().take(SHOWN).collect()))?;
        let set = trusted.keys.set_for(token.key_id(), now).await?;
        set.find(token.key_id(), token.algorithm())?.verify(
            token.algorithm(),
            token.signed(),
            token.signature(),
        )?;
        token.into_claims(&trusted.issuer.audiences, now)
    }
}
