//! Policy documents: from text to statements, or the reason why not.
//!
//! The grammar is that of
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>. Whatever it
//! does not name is refused: unknown and repeated members, empty lists, unknown condition operators.
//! Nothing is skipped over, so the types below bound how deep a document may nest, and its length
//! bounds how much of anything it can hold.

use super::grammar::{self, Actions};
use super::malformed::{fault, syntax};
use super::operators::suits;
use super::quotas;
use super::written::{self, Entries, Many, Scalar};
use crate::json::FromObject;
use std::collections::HashSet;

pub use super::malformed::Malformed;

/// What a policy is attached to; the grammar differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To a user, group or role, inline: no principals. Also every policy of IAM's that was stored.
    Identity,
    /// To users, groups and roles, or as their boundary: the same, of version 2012-10-17.
    Managed,
    /// To a session: the same as inline.
    Session,
    /// To a role, saying who may assume it: principals, actions of STS, no resource.
    Trust,
    /// To a secret: every statement names principals.
    Resource,
    /// To a KMS key: the same, and a statement without Action or Resource is taken and has no
    /// effect (<https://docs.aws.amazon.com/kms/latest/APIReference/API_PutKeyPolicy.html>).
    Key,
}

impl Kind {
    /// The most bytes, or characters without white space, that a policy of this kind may have. The
    /// inline policies of one user, role or group count together, which is the caller's to see to:
    /// this is the most that any of them may have.
    pub fn max_len(self) -> usize {
        match self {
            Self::Identity => quotas::INLINE_ROLE,
            Self::Managed => quotas::MANAGED,
            Self::Session => quotas::SESSION,
            Self::Trust => quotas::TRUST,
            Self::Resource => quotas::SECRET,
            Self::Key => quotas::KEY,
        }
    }

    /// Whether it is a document of IAM's, of which white space does not count.
    fn is_iam(self) -> bool {
        !matches!(self, Self::Resource | Self::Key)
    }

    /// Whether its statements name principals.
    fn names_principals(self) -> bool {
        matches!(self, Self::Trust | Self::Resource | Self::Key)
    }

    /// Refuses a text that is too long.
    fn check_len(self, text: &str) -> Result<(), Malformed> {
        let most = self.max_len();
        let fits = match self.is_iam() {
            true => text.len() <= 2 * quotas::PARAMETER && quotas::size(text) <= most,
            false => text.len() <= most,
        };
        if fits { Ok(()) } else { Err(Malformed::TooLong(most)) }
    }
}

/// A policy document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Whether policy variables (`${aws:username}`) mean anything in it.
    pub version: Version,
    /// What its writer calls it.
    pub id: Option<String>,
    /// At least one.
    pub statements: Vec<Statement>,
}

impl Document {
    /// The ARNs of users, roles and sessions that its statements name.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let lists = self.statements.iter().filter_map(|s| s.principals.as_ref());
        lists.flat_map(|principals| &principals.list).filter_map(|principal| match principal {
            Principal::Arn(arn) => Some(arn.as_str()),
            _ => None,
        })
    }

    /// Says who is meant by the ARNs that it names, by unique id; the others stay as they are.
    pub fn tie<'a>(&mut self, id_of: impl Fn(&str) -> Option<&'a str>) {
        let lists = self.statements.iter_mut().filter_map(|s| s.principals.as_mut());
        for principal in lists.flat_map(|principals| &mut principals.list) {
            if let Principal::Arn(arn) = principal
                && let Some(id) = id_of(arn)
            {
                *principal = Principal::Unique(id.to_owned());
            }
        }
    }
}

/// The version of the policy language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `2008-10-17`, also where none is given: no policy variables.
    V2008,
    /// `2012-10-17`.
    V2012,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What its writer calls it.
    pub sid: Option<String>,
    /// Whether it allows or forbids.
    pub effect: Effect,
    /// Whom it speaks of; none in an identity policy.
    pub principals: Option<Principals>,
    /// Which actions it speaks of, as `service:Pattern` or `*`.
    pub actions: Patterns,
    /// Which resources it speaks of, as ARN patterns or `*`.
    pub resources: Patterns,
    /// Conditions that must all hold.
    pub conditions: Vec<Condition>,
}

/// What a statement does to a request that it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Allows it, unless another statement forbids it.
    Allow,
    /// Forbids it.
    Deny,
}

/// Patterns with `*` and `?`. No pattern matches nothing, negated or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    /// It speaks of everything but these (`NotAction`, `NotResource`).
    pub negated: bool,
    /// The patterns as they were written.
    pub patterns: Vec<String>,
}

/// Whom a statement speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principals {
    /// It speaks of everybody but these (`NotPrincipal`).
    pub negated: bool,
    /// At least one.
    pub list: Vec<Principal>,
}

/// One principal, or a whole account of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// `*`: everybody, strangers too.
    Everyone,
    /// An account: its root, which stands for all whom the account lets.
    Account(String),
    /// A user, role or session, by its ARN: whoever has it.
    Arn(String),
    /// A user, role or session by its unique id: that one, and nobody who has its ARN after it.
    /// `AIDA...` of a user, `AROA...` of a role, `AROA...:NAME` of a session.
    Unique(String),
    /// A service, like `secretsmanager.amazonaws.com`.
    Service(String),
    /// An identity provider, by its ARN or domain.
    Federated(String),
}

/// One key of one condition operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// How a key of many values is to be read.
    pub quantifier: Option<Quantifier>,
    /// One of [`OPERATORS`].
    pub operator: &'static str,
    /// It holds as well if the request does not have the key.
    pub if_exists: bool,
    /// The condition key, like `aws:SourceIp`.
    pub key: String,
    /// At least one; one of them must match.
    pub values: Vec<String>,
}

/// How a condition reads a key of many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    /// Each of the request's values must match; so it holds if there are none.
    ForAllValues,
    /// One of the request's values must match.
    ForAnyValue,
}

/// The condition operators:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>.
pub const OPERATORS: [&str; 27] = [
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "NumericEquals",
    "NumericNotEquals",
    "NumericLessThan",
    "NumericLessThanEquals",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
    "DateEquals",
    "DateNotEquals",
    "DateLessThan",
    "DateLessThanEquals",
    "DateGreaterThan",
    "DateGreaterThanEquals",
    "Bool",
    "BinaryEquals",
    "IpAddress",
    "NotIpAddress",
    "ArnEquals",
    "ArnLike",
    "ArnNotEquals",
    "ArnNotLike",
    "Null",
];

/// Reads a policy.
pub fn parse(text: &str, kind: Kind) -> Result<Document, Malformed> {
    kind.check_len(text)?;
    let trust = kind == Kind::Trust;
    let written = written::Document::read(text).map_err(|why| match trust {
        true => fault(why, "This policy contains invalid Json"),
        false => syntax(why),
    })?;
    let version = match written.version.as_deref() {
        None | Some("2008-10-17") if kind == Kind::Managed => {
            let aws = "Policy document must be version 2012-10-17 or greater.";
            return Err(fault("a managed policy has the version 2012-10-17", aws));
        }
        None | Some("2008-10-17") => Version::V2008,
        Some("2012-10-17") => Version::V2012,
        Some(other) => {
            let why = format!("`{other}` is not a version");
            return Err(match trust {
                true => fault(why, "The policy must contain a valid version string"),
                false => syntax(why),
            });
        }
    };
    let statements = written.statement.0.into_iter();
    let statements = statements.map(|FromObject(s)| statement(s, kind, version));
    let statements = statements.collect::<Result<Vec<_>, _>>()?;
    check_sids(&statements, kind)?;
    Ok(Document { version, id: written.id, statements })
}

/// The Sids of IAM's policies are unique, and those of all but trust policies of letters and digits.
fn check_sids(statements: &[Statement], kind: Kind) -> Result<(), Malformed> {
    let mut seen = HashSet::new();
    let sids = statements.iter().filter_map(|s| s.sid.as_deref()).filter(|sid| !sid.is_empty());
    for sid in sids.filter(|_| kind.is_iam()) {
        if kind != Kind::Trust && !sid.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let aws = "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies \
                       the regular expression [0-9A-Za-z]*";
            return Err(fault(format!("the Sid `{sid}` is not of letters and digits"), aws));
        }
        if !seen.insert(sid) {
            let aws = match kind {
                Kind::Trust => "The Statement Ids in the policy are not unique",
                _ => "Statement IDs (SID) in a single policy must be unique.",
            };
            return Err(fault(format!("the Sid `{sid}` stands twice"), aws));
        }
    }
    Ok(())
}

fn statement(
    written: written::Statement,
    kind: Kind,
    version: Version,
) -> Result<Statement, Malformed> {
    let effect = grammar::effect(&written.effect, kind)?;
    if kind == Kind::Trust && written.not_principal.is_some() {
        let aws = match effect {
            Effect::Allow => "Allow with NotPrincipal is not allowed.",
            Effect::Deny => "AssumeRole policy must not contain NotPrincipal field.",
        };
        return Err(fault("a trust policy has no NotPrincipal", aws));
    }
    let principals = grammar::principals(written.principal, written.not_principal)?;
    match (kind.names_principals(), &principals) {
        (false, Some(_)) => {
            let aws = "Policy document should not specify a principal.";
            return Err(fault("an identity's policy names no principal", aws));
        }
        (true, None) => return Err(Malformed::NoPrincipal),
        _ => {}
    }
    Ok(Statement {
        sid: written.sid,
        effect,
        principals,
        actions: actions(kind, written.action, written.not_action)?,
        resources: resources(kind, version, written.resource, written.not_resource)?,
        conditions: conditions(written.condition, version)?,
    })
}

/// Either the element or its negation.
fn one_of(
    element: &str,
    these: Option<Many<String>>,
    all_but: Option<Many<String>>,
) -> Result<Option<Patterns>, Malformed> {
    match (these, all_but) {
        (Some(these), None) => Ok(Some(Patterns { negated: false, patterns: these.0 })),
        (None, Some(all_but)) => Ok(Some(Patterns { negated: true, patterns: all_but.0 })),
        (None, None) => Ok(None),
        _ => Err(syntax(format!("a statement has either {element} or Not{element}"))),
    }
}

fn actions(
    kind: Kind,
    these: Option<Many<String>>,
    all_but: Option<Many<String>>,
) -> Result<Patterns, Malformed> {
    let Some(found) = one_of("Action", these, all_but)? else {
        return match kind {
            Kind::Key => Ok(Patterns::default()),
            Kind::Trust => Err(fault("a statement has no Action", "Missing required field Action")),
            _ => Err(fault("a statement has no Action", "Policy statement must contain actions.")),
        };
    };
    let of = if kind == Kind::Trust { Actions::OfSts } else { Actions::OfAll };
    found.patterns.iter().try_for_each(|text| grammar::action(text, of))?;
    Ok(found)
}

fn resources(
    kind: Kind,
    version: Version,
    these: Option<Many<String>>,
    all_but: Option<Many<String>>,
) -> Result<Patterns, Malformed> {
    let found = one_of("Resource", these, all_but)?;
    match (kind, found) {
        // The role itself is meant.
        (Kind::Trust, None) => Ok(Patterns { negated: false, patterns: vec!["*".to_owned()] }),
        (Kind::Trust, Some(Patterns { negated, .. })) => {
            let aws = match negated {
                false => "Has prohibited field Resource",
                true => "AssumeRole policy must not contain resources.",
            };
            Err(fault("a trust policy names no resource", aws))
        }
        (Kind::Key, None) => Ok(Patterns::default()),
        (_, None) => {
            Err(fault("a statement has no Resource", "Policy statement must contain resources."))
        }
        (_, Some(found)) => {
            found.patterns.iter().try_for_each(|text| grammar::resource(text, version))?;
            Ok(found)
        }
    }
}

fn conditions(
    written: Option<Entries<Entries<Many<Scalar>>>>,
    version: Version,
) -> Result<Vec<Condition>, Malformed> {
    let mut found = Vec::new();
    for (name, keys) in written.map(|w| w.0).unwrap_or_default() {
        let (quantifier, operator, if_exists) = grammar::operator(&name)
            .ok_or_else(|| syntax(format!("`{name}` is not a condition operator")))?;
        for (key, values) in keys.0 {
            grammar::condition_key(&key)?;
            let values: Vec<String> = values.0.into_iter().map(|v| v.0).collect();
            if let Some(bad) = values.iter().find(|v| !suits(operator, v, version)) {
                let why = format!("{operator} can't compare with `{bad}`");
                return Err(fault(why, super::malformed::LEGACY));
            }
            found.push(Condition { quantifier, operator, if_exists, key, values });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
