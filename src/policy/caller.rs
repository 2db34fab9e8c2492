//! Who is calling, once it has been proved.

use super::{Policy, Values};
use crate::clock::Time;
use std::sync::Arc;

/// A proven caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The account that the principal belongs to.
    pub account: String,
    /// The principal's ARN: of the root, the user, or the role session
    /// (`arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`).
    pub arn: String,
    /// `aws:userid`: the user's unique id (`AIDA...`), `AROA...:SESSION` for a role session, the
    /// account id for a root.
    pub principal_id: String,
    /// What kind of principal it is.
    pub kind: PrincipalKind,
    /// The access key that signed the request, for a person or a program.
    pub access_key_id: Option<String>,
    /// What temporary credentials add; none for long-term ones.
    pub session: Option<Arc<Session>>,
}

/// What is known of a caller with temporary credentials.
#[derive(Clone, Debug)]
pub struct Session {
    /// The ARN of the role or user that the session stands for; its policies count.
    pub issuer_arn: String,
    /// The unique id of that role (`AROA...`) or user (`AIDA...`): a session of a role that was
    /// deleted and made again is not the new role's.
    pub issuer_id: String,
    /// The session's name (`aws:userid` has it too); empty for a user's own session.
    pub name: String,
    /// Session policies, inline first. Where there are any, one of them must allow too.
    pub policies: Vec<Arc<Policy>>,
    /// Session tags; they go before the role's own tags of the same key.
    pub tags: Vec<(String, String)>,
    /// The keys of those tags that are handed on when the session assumes another role.
    pub transitive: Vec<String>,
    /// When the credentials were given out (`aws:TokenIssueTime`).
    pub issued: Time,
    /// When they end.
    pub expires: Time,
    /// `sts:SourceIdentity`, handed on from session to session.
    pub source_identity: Option<String>,
    /// The identity provider that vouched for the session, if one did (`aws:FederatedProvider`).
    pub provider: Option<String>,
    /// Whether the session was got with the credentials of another one.
    pub chained: bool,
}

/// What is known of somebody without credentials yet, because an identity provider or a trust
/// anchor vouches for it: beside [`Caller`], for as long as one request.
#[derive(Debug, Default)]
pub struct Vouched {
    /// Condition keys that are answered by it, in lower case, with their values.
    pub facts: Vec<(String, Vec<String>)>,
    /// Tags that a session gets by it.
    pub tags: Vec<(String, String)>,
    /// The keys of those tags that pass on.
    pub transitive: Vec<String>,
    /// The source identity that a session gets by it.
    pub source_identity: Option<String>,
    /// The identity provider's URL; the trust anchor's ARN.
    pub provider: String,
    /// For whom the token was issued.
    pub audience: Option<String>,
    /// Whom it is about: the token's subject, the ARN of the certificate's.
    pub subject: String,
    /// What a session is bounded by, for the holder of a certificate.
    pub bounds: Option<Bounds>,
}

/// What a profile of IAM Roles Anywhere allows.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// A session policy.
    pub policy: Option<String>,
    /// Managed policies that are session policies.
    pub policy_arns: Vec<String>,
    /// How long a session lasts at most, in seconds.
    pub seconds: i64,
    /// The session's name, where the caller does not choose it.
    pub name: String,
    /// Whether the caller may choose it.
    pub names: bool,
}

impl Vouched {
    /// The value of a condition key.
    pub fn fact(&self, key: &str) -> Option<Values<'_>> {
        let (_, values) = self.facts.iter().find(|(known, _)| known == key)?;
        match values.as_slice() {
            [one] => Some(Values::one(one)),
            many => Some(Values::Many(many.iter().map(|v| v.as_str().into()).collect())),
        }
    }
}

impl Caller {
    /// Strongroom itself, at work for an account.
    pub fn system(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            arn: ["arn:aws:iam::", account, ":root"].concat(),
            principal_id: "strongroom".to_owned(),
            kind: PrincipalKind::System,
            access_key_id: None,
            session: None,
        }
    }

    /// A user with long-term credentials.
    pub fn user(account: &str, arn: &str, id: &str) -> Self {
        Self {
            account: account.to_owned(),
            arn: arn.to_owned(),
            principal_id: id.to_owned(),
            kind: PrincipalKind::User,
            access_key_id: None,
            session: None,
        }
    }

    /// The ARN that identity policies hang on: the role's for a role session, else the caller's.
    pub fn principal_arn(&self) -> &str {
        self.session.as_ref().map_or(&self.arn, |session| &session.issuer_arn)
    }

    /// The unique id of the user or role with that ARN.
    pub fn unique_id(&self) -> &str {
        self.session.as_ref().map_or(&self.principal_id, |session| &session.issuer_id)
    }
}

/// The kinds of principal, by the names that audit records use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// The account itself.
    Root,
    /// An IAM user.
    User,
    /// A session of a role.
    AssumedRole,
    /// Somebody whom an identity provider vouches for, who has no credentials yet: the caller of
    /// AssumeRoleWithWebIdentity. `arn` is the provider's, `principal_id` the subject.
    WebIdentity,
    /// The holder of a certificate under a trust anchor, who has no credentials yet: the caller of
    /// CreateSession. `arn` is the trust anchor's, `principal_id` the subject.
    Certificate,
    /// Strongroom itself: the purge of what is due, rotation.
    System,
}

impl PrincipalKind {
    /// The name in `userIdentity.type`.
    pub fn event_name(self) -> &'static str {
        match self {
            Self::Root => "Root",
            Self::User => "IAMUser",
            Self::AssumedRole => "AssumedRole",
            Self::WebIdentity => "WebIdentityUser",
            Self::Certificate | Self::System => "AWSService",
        }
    }
}
