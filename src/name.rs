//! Names: accounts, regions, ARNs, key ids, aliases, secret names, staging labels.

mod backing;

pub use backing::{
    BackingKeyId, BadBackingKeyId, KeyCheck, PublicKey, Scheme, SigningScheme, WrappedKey,
};
use std::fmt;

/// One of the services whose API is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// AWS Secrets Manager.
    SecretsManager,
    /// AWS Key Management Service.
    Kms,
    /// AWS Identity and Access Management.
    Iam,
    /// AWS Security Token Service.
    Sts,
    /// AWS CloudTrail: looking up events alone.
    CloudTrail,
    /// AWS IAM Roles Anywhere: sessions for the holders of certificates alone.
    RolesAnywhere,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 6] = [
        Self::SecretsManager,
        Self::Kms,
        Self::Iam,
        Self::Sts,
        Self::CloudTrail,
        Self::RolesAnywhere,
    ];

    /// What may stand before the last dot in `X-Amz-Target`; nothing for the services that speak
    /// other protocols.
    pub fn target_prefixes(self) -> &'static [&'static str] {
        match self {
            Self::SecretsManager => &["secretsmanager"],
            Self::Kms => &["TrentService"],
            Self::Iam | Self::Sts | Self::RolesAnywhere => &[],
            Self::CloudTrail => {
                &["com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101", "CloudTrail_20131101"]
            }
        }
    }

    /// Whether it speaks the Query protocol: forms in, XML out.
    pub fn speaks_query(self) -> bool {
        matches!(self, Self::Iam | Self::Sts)
    }

    /// The name in a SigV4 scope, in an ARN and before the colon of an IAM action.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsmanager",
            Self::Kms => "kms",
            Self::Iam => "iam",
            Self::Sts => "sts",
            Self::CloudTrail => "cloudtrail",
            Self::RolesAnywhere => "rolesanywhere",
        }
    }

    /// The service's name in an audit record.
    pub fn event_source(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsmanager.amazonaws.com",
            Self::Kms => "kms.amazonaws.com",
            Self::Iam => "iam.amazonaws.com",
            Self::Sts => "sts.amazonaws.com",
            Self::CloudTrail => "cloudtrail.amazonaws.com",
            Self::RolesAnywhere => "rolesanywhere.amazonaws.com",
        }
    }
}

/// Whether this is an account id: 12 decimal digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether this looks like a region of AWS's, as clients check: `^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$`.
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return false };
    let lower = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase());
    first.len() == 2
        && lower(first)
        && !middle.is_empty()
        && middle.iter().all(|s| lower(s))
        && (1..=2).contains(&last.len())
        && last.bytes().all(|b| b.is_ascii_digit())
}

/// An Amazon Resource Name, borrowed: `arn:partition:service:region:account:resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    /// `aws` here.
    pub partition: &'a str,
    /// `secretsmanager`, `kms`, ...
    pub service: &'a str,
    /// The region; empty for global resources.
    pub region: &'a str,
    /// The account id.
    pub account: &'a str,
    /// The rest, colons included.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// Splits an ARN; says nothing of whether its parts exist.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
        Some(Self {
            partition: parts.next()?,
            service: parts.next()?,
            region: parts.next()?,
            account: parts.next()?,
            resource: parts.next().filter(|r| !r.is_empty())?,
        })
    }
}

/// `arn:aws:kms:REGION:ACCOUNT:key/ID`.
pub fn key_arn(region: &str, account: &str, id: &str) -> String {
    ["arn:aws:kms:", region, ":", account, ":key/", id].concat()
}

/// `arn:aws:kms:REGION:ACCOUNT:alias/NAME`; `name` includes `alias/`.
pub fn alias_arn(region: &str, account: &str, name: &str) -> String {
    ["arn:aws:kms:", region, ":", account, ":", name].concat()
}

/// `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-SUFFIX`.
pub fn secret_arn(region: &str, account: &str, name: &str, suffix: &str) -> String {
    ["arn:aws:secretsmanager:", region, ":", account, ":secret:", name, "-", suffix].concat()
}

/// Whether this is a well-formed KMS key id: a UUID in lower case, or `mrk-` and 32 hex digits.
pub fn is_key_id(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if let Some(rest) = text.strip_prefix("mrk-") {
        return rest.len() == 32 && rest.bytes().all(hex);
    }
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => hex(b),
        })
}

/// The prefix of every alias name.
pub const ALIAS_PREFIX: &str = "alias/";

/// Aliases that only the service itself may make.
pub const RESERVED_ALIAS_PREFIX: &str = "alias/aws/";

/// The alias of the key that seals secrets for which no key is named.
pub const DEFAULT_SECRETS_ALIAS: &str = "alias/aws/secretsmanager";

/// How a caller wrote which KMS key is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRef<'a> {
    /// A key id, as it stands or from a key ARN; the ARN's account, if it was one.
    Id { id: &'a str, arn: Option<Arn<'a>> },
    /// An alias name with its prefix, as it stands or from an alias ARN.
    Alias { name: &'a str, arn: Option<Arn<'a>> },
}

impl<'a> KeyRef<'a> {
    /// Takes key ids, key ARNs, alias names and alias ARNs apart; checks no more than the form.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (resource, arn) = match Arn::parse(text) {
            Some(arn) => (arn.resource, Some(arn)),
            None if text.starts_with("arn:") => return None,
            None => (text, None),
        };
        if resource.starts_with(ALIAS_PREFIX) {
            return Some(Self::Alias { name: resource, arn });
        }
        let id = if arn.is_some() { resource.strip_prefix("key/")? } else { resource };
        Some(Self::Id { id, arn })
    }
}

/// Whether every character may stand in a secret's name: letters, digits and `/_+=.@-`.
pub fn is_secret_name(text: &str) -> bool {
    (1..=512).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+=.@-!".contains(&b))
}

/// Number of random characters at the end of a secret's ARN.
pub const SUFFIX_LEN: usize = 6;

/// A random UUID (version 4, RFC 9562), 36 lower-case characters: a request's or a record's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid([u8; 36]);

impl Uuid {
    /// What is given out when there is no randomness: all zeros.
    pub const NIL: Self = Self(*b"00000000-0000-0000-0000-000000000000");

    /// From 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        let mut text = [0; 36];
        uuid::Builder::from_random_bytes(bytes).as_uuid().hyphenated().encode_lower(&mut text);
        Self(text)
    }

    /// The 36 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_look_like_those_that_clients_accept() {
        for good in ["us-east-1", "eu-central-2", "us-gov-west-1", "me-hq-12"] {
            assert!(is_region(good), "{good}");
        }
        for bad in ["", "useast1", "us-1", "u-east-1", "us-east-123", "us-East-1", "us--1"] {
            assert!(!is_region(bad), "{bad}");
        }
    }

    #[test]
    fn key_ids_are_uuids_or_multi_region_ids() {
        assert!(is_key_id("1234abcd-12ab-34cd-56ef-1234567890ab"));
        assert!(is_key_id("mrk-1234abcd12ab34cd56ef1234567890ab"));
        assert!(!is_key_id("1234ABCD-12ab-34cd-56ef-1234567890ab"));
        assert!(!is_key_id("mrk-1234abcd"));
        assert!(!is_key_id("1234abcd_12ab-34cd-56ef-1234567890ab"));
    }

    #[test]
    fn key_references_come_in_four_forms() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        let arn = key_arn("us-east-1", "123456789012", id);
        assert!(matches!(KeyRef::parse(id), Some(KeyRef::Id { arn: None, .. })));
        assert!(matches!(KeyRef::parse(&arn), Some(KeyRef::Id { id: i, arn: Some(_) }) if i == id));
        assert!(matches!(KeyRef::parse("alias/x"), Some(KeyRef::Alias { name: "alias/x", .. })));
        let arn = alias_arn("us-east-1", "123456789012", "alias/x");
        assert!(matches!(
            KeyRef::parse(&arn),
            Some(KeyRef::Alias { name: "alias/x", arn: Some(_) })
        ));
        assert_eq!(KeyRef::parse("arn:aws:kms:us-east-1:123456789012:grant/x"), None);
        assert_eq!(KeyRef::parse("arn:aws:kms"), None);
    }

    #[test]
    fn an_arn_keeps_the_colons_of_its_resource() {
        let arn = Arn::parse("arn:aws:secretsmanager:us-east-1:123456789012:secret:a/b-AbCdEf");
        assert_eq!(arn.map(|a| a.resource), Some("secret:a/b-AbCdEf"));
        assert_eq!(Arn::parse("arn:aws:kms:us-east-1:123456789012:"), None);
    }
}
