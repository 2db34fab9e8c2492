//! Why a text is no policy, in our words and in AWS's.

use super::document::Kind;
use std::borrow::Cow;
use std::fmt;

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More bytes (of an IAM policy: characters, white space aside) than a policy of its kind may
    /// have.
    #[error("the policy is longer than {0} bytes")]
    TooLong(usize),
    /// It breaks the grammar.
    #[error("{0}")]
    Syntax(Fault),
    /// A statement of a resource's policy names nobody.
    #[error("a statement names no principal")]
    NoPrincipal,
    /// Something that can't be a principal here.
    #[error("`{0}` is not a principal")]
    Principal(String),
    /// Something that can't be a service's name.
    #[error("`{0}` is not a service principal")]
    ServicePrincipal(String),
}

/// A breach of the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    why: String,
    aws: Cow<'static, str>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// IAM's text for values and ARNs that it can't read.
pub(super) const LEGACY: &str = "The policy failed legacy parsing";

/// A breach of the grammar of which IAM says no more than that it is one; the reason follows.
pub(super) fn syntax(why: impl Into<String>) -> Malformed {
    let why = why.into();
    let aws = format!("Syntax errors in policy. {why}");
    fault(why, aws)
}

/// A breach of the grammar, with IAM's text for it.
pub(super) fn fault(why: impl Into<String>, aws: impl Into<Cow<'static, str>>) -> Malformed {
    Malformed::Syntax(Fault { why: why.into(), aws: aws.into() })
}

impl Malformed {
    /// What IAM and STS say of it. [`Self::TooLong`] has the code `LimitExceeded`, the others have
    /// `MalformedPolicyDocument`. For the inline policies of one user, role or group, which count
    /// together, IAM's text names whose they are: see [`too_long_inline`].
    pub fn aws_text(&self, kind: Kind) -> Cow<'static, str> {
        match self {
            Self::TooLong(most) if kind == Kind::Trust => {
                format!("Cannot exceed quota for ACLSizePerRole: {most}").into()
            }
            Self::TooLong(most) => format!("Cannot exceed quota for PolicySize: {most}").into(),
            Self::Syntax(fault) => fault.aws.clone(),
            Self::NoPrincipal => "Missing required field Principal".into(),
            Self::Principal(name) => {
                let class = if is_provider(name) { "FEDERATED" } else { "AWS" };
                format!("Invalid principal in policy: \"{class}\":\"{name}\"").into()
            }
            Self::ServicePrincipal(name) => {
                format!("Invalid principal in policy: \"SERVICE\":\"{name}\"").into()
            }
        }
    }
}

/// Whether a name that is no principal was meant for an identity provider.
fn is_provider(name: &str) -> bool {
    name.contains(":saml-provider/")
        || name.contains(":oidc-provider/")
        || name.contains('.') && !name.starts_with("arn:")
}

/// What IAM says of inline policies that are too long together; `whose` is like `user ada`.
pub fn too_long_inline(most: usize, whose: &str) -> String {
    format!("Maximum policy size of {most} bytes exceeded for {whose}")
}
