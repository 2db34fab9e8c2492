//! How large policies may be:
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>.

/// Characters of a managed policy, white space aside.
pub const MANAGED: usize = 6_144;

/// Characters of all inline policies of a user together, white space aside.
pub const INLINE_USER: usize = 2_048;

/// Characters of all inline policies of a role together, white space aside.
pub const INLINE_ROLE: usize = 10_240;

/// Characters of all inline policies of a group together, white space aside.
pub const INLINE_GROUP: usize = 5_120;

/// Characters of a role's trust policy, white space aside: what AWS raises its 2,048 to on request.
pub const TRUST: usize = 8_192;

/// Characters of a session policy, white space aside.
pub const SESSION: usize = 2_048;

/// Bytes of a secret's policy
/// (<https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>).
pub const SECRET: usize = 20_480;

/// Bytes of a key policy
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html>).
pub const KEY: usize = 32_768;

/// Characters of a policy document in a request to IAM, white space included.
pub const PARAMETER: usize = 131_072;

/// The size of a document as IAM counts it: its characters, white space aside.
pub fn size(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}
