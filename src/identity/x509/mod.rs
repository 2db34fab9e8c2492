//! X.509 certificates as identities: of mutual TLS, and of IAM Roles Anywhere's CreateSession.
//!
//! 1. [`signed::verify`] proves that a request was signed with a certificate's key (for mutual TLS
//!    the handshake proves it).
//! 2. [`TrustAnchor::verify_chain`] proves that one of the anchor's CAs vouches for the
//!    certificate now, and yields its [`Subject`].
//! 3. A [`Profile`] or the [`Rule`]s say which role it may have. For mutual TLS [`Trust::client`] does
//!    2 and 3 in one.
//!
//! Pure but for [`TrustAnchor::refresh`], which reads revocation lists again.
//!
//! Sources: RFC 5280; "The IAM Roles Anywhere trust model", "The IAM Roles Anywhere authentication
//! process" and "Certificate attribute mapping" in the IAM Roles Anywhere User Guide.

mod anchor;
mod certificate;
mod error;
mod options;
mod profile;
mod revocation;
mod rule;
pub mod signed;
mod subject;

#[cfg(test)]
mod authority;
#[cfg(test)]
mod tests;

pub use anchor::{AnchorOptions, TrustAnchor};
pub use error::Error;
pub use options::{Client, OptionsError, Trust};
pub use profile::{Profile, ProfileOptions};
pub use rule::{Mapped, Rule, RuleOptions};
pub use subject::Subject;

/// The most bytes of one presented certificate (DER).
pub const MAX_CERTIFICATE: usize = 16 * 1024;
/// The most intermediate certificates beside the one presented; AWS's limit.
pub const MAX_CHAIN: usize = 5;
