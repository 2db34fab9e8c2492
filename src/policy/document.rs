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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resource(statement: &str) -> Result<Document, Malformed> {
        parse(&format!(r#"{{"Version":"2012-10-17","Statement":{statement}}}"#), Kind::Resource)
    }

    const ALLOW: &str =
        r#""Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"*""#;

    fn with_principal(principal: &str) -> Result<Document, Malformed> {
        resource(&format!(r#"{{{ALLOW},"Principal":{principal}}}"#))
    }

    fn is_syntax<T>(outcome: Result<T, Malformed>) -> bool {
        matches!(outcome, Err(Malformed::Syntax(_)))
    }

    #[test]
    fn one_statement_may_stand_without_brackets_and_so_may_one_of_anything() {
        let one = with_principal(r#"{"AWS":"arn:aws:iam::111122223333:user/a/b"}"#);
        let many = resource(
            r#"[{"Effect":"Allow","Action":["secretsmanager:GetSecretValue"],"Resource":["*"],
                 "Principal":{"AWS":["arn:aws:iam::111122223333:user/a/b"]}}]"#,
        );
        assert_eq!(one, many);
        assert_eq!(
            one.map(|d| d.statements[0].principals.clone().map(|p| p.list)),
            Ok(Some(vec![Principal::Arn("arn:aws:iam::111122223333:user/a/b".into())]))
        );
    }

    #[test]
    fn the_root_of_an_account_is_the_account() {
        let root = with_principal(r#"{"AWS":"arn:aws:iam::111122223333:root"}"#);
        assert_eq!(root, with_principal(r#"{"AWS":"111122223333"}"#));
        assert_eq!(with_principal(r#""*""#), with_principal(r#"{"AWS":"*"}"#));
    }

    #[test]
    fn what_can_t_be_a_principal_is_told_from_what_breaks_the_grammar() {
        for bad in [
            "arn:aws:iam::111122223333:user/",
            "arn:aws:iam::111122223333:user/a*",
            "arn:aws:iam::111122223333:group/admins",
            "arn:aws:iam::1111:user/a",
            "arn:aws:s3:::bucket",
            "AIDAEXAMPLE",
            "",
        ] {
            let outcome = with_principal(&format!(r#"{{"AWS":"{bad}"}}"#));
            assert_eq!(outcome, Err(Malformed::Principal(bad.into())));
        }
        for bad in ["lambda", "lambda.example.com", ".amazonaws.com", "*.amazonaws.com"] {
            let outcome = with_principal(&format!(r#"{{"Service":"{bad}"}}"#));
            assert_eq!(outcome, Err(Malformed::ServicePrincipal(bad.into())));
        }
        assert!(with_principal(r#"{"Service":"lambda.amazonaws.com"}"#).is_ok());
        assert!(is_syntax(with_principal(r#"{"Robot":"r2d2"}"#)));
        assert!(is_syntax(with_principal(r#""arn:aws:iam::111122223333:root""#)));
        assert_eq!(with_principal("{}"), Err(Malformed::NoPrincipal));
        assert_eq!(resource(&format!("{{{ALLOW}}}")), Err(Malformed::NoPrincipal));
    }

    #[test]
    fn nothing_is_skipped_over() {
        let everyone = format!(r#"{ALLOW},"Principal":"*""#);
        assert!(resource(&format!("{{{everyone}}}")).is_ok());
        for more in [
            r#""Actions":"*""#,
            r#""effect":"Deny""#,
            r#""Effect":"Allow""#,
            r#""Sid":null"#,
            r#""Sid":1"#,
            r#""NotAction":"*""#,
            r#""NotResource":"*""#,
            r#""NotPrincipal":"*""#,
            r#""Condition":[]"#,
        ] {
            assert!(is_syntax(resource(&format!("{{{everyone},{more}}}"))), "{more}");
        }
        assert!(is_syntax(resource("[]")));
        assert!(is_syntax(parse(r#"{"Version":"2012-10-17"}"#, Kind::Resource)));
        for text in ["", "null", "[]", "{}", "{\"Statement\":", "\u{feff}{}"] {
            assert!(is_syntax(parse(text, Kind::Resource)), "{text}");
        }
        let twice = format!(r#"{{"Statement":[{{{everyone}}}],"Statement":[{{{everyone}}}]}}"#);
        assert!(is_syntax(parse(&twice, Kind::Resource)));
        let after = format!(r#"{{"Statement":[{{{everyone}}}]}} x"#);
        assert!(is_syntax(parse(&after, Kind::Resource)));
    }

    /// serde's derived structures are read from lists of their members' values as well.
    #[test]
    fn documents_and_statements_are_objects() {
        let whole = format!(r#"["2012-10-17","id",{{{ALLOW},"Principal":"*"}}]"#);
        assert!(is_syntax(parse(&whole, Kind::Resource)));
        let statement = r#"{"Statement":[["a","Allow","*"]]}"#;
        assert!(is_syntax(parse(statement, Kind::Key)));
    }

    /// The text of a value of the wrong type stood in the answer and in the audit log.
    #[test]
    fn a_value_that_does_not_fit_is_not_repeated() {
        for (document, told) in [
            (r#""a secret, expected \" ` x""#, "invalid type: string, expected an object"),
            (r#"{"Id":4711,"Statement":[]}"#, "invalid type: integer, expected a string"),
            (r#"{"Version":{"secret":1}}"#, "invalid type: map, expected a string"),
            (r#"{"Statement":"a secret"}"#, "invalid type: string, expected an object"),
            (
                r#"{"Statement":{"Principal":"a secret"}}"#,
                "invalid value: string, expected \"*\" or a map of principals",
            ),
        ] {
            let why = parse(document, Kind::Resource).expect_err(document).to_string();
            assert_eq!(why.split(" at line ").next(), Some(told), "{why}");
        }
    }

    #[test]
    fn versions_effects_actions_and_resources_are_those_of_the_grammar() {
        let with = |effect: &str, action: &str, to: &str| {
            resource(&format!(
                r#"{{"Effect":"{effect}","Principal":"*","Action":{action},"Resource":{to}}}"#
            ))
        };
        assert!(with("Deny", r#""secretsmanager:Get*""#, r#""*""#).is_ok());
        assert!(with("Allow", r#""*""#, r#""arn:aws:secretsmanager:*:*:secret:a-??????""#).is_ok());
        assert!(is_syntax(with("AllowSomething", r#""*""#, r#""*""#)));
        for action in ["[]", r#""GetSecretValue""#, r#""a:""#, r#"":a""#, r#""a:b c""#, "1", "{}"] {
            assert!(is_syntax(with("Allow", action, r#""*""#)), "{action}");
        }
        for to in ["[]", r#""""#, r#""secret""#, r#""arn:aws:kms""#, "null"] {
            assert!(is_syntax(with("Allow", r#""*""#, to)), "{to}");
        }
        let version = |v: &str| {
            let text = format!(r#"{{"Version":{v},"Statement":{{{ALLOW},"Principal":"*"}}}}"#);
            parse(&text, Kind::Resource).map(|d| d.version)
        };
        assert_eq!(version(r#""2008-10-17""#), Ok(Version::V2008));
        assert!(is_syntax(version(r#""2019-10-19""#)));
        let none = format!(r#"{{"Statement":{{{ALLOW},"Principal":"*"}}}}"#);
        assert_eq!(parse(&none, Kind::Resource).map(|d| d.version), Ok(Version::V2008));
    }

    fn with_condition(condition: &str) -> Result<Vec<Condition>, Malformed> {
        let statement = format!(r#"{{{ALLOW},"Principal":"*","Condition":{condition}}}"#);
        resource(&statement).map(|d| d.statements[0].conditions.clone())
    }

    #[test]
    fn conditions_are_taken_apart() {
        let found = with_condition(
            r#"{"ForAnyValue:StringLikeIfExists":{"aws:TagKeys":["a","b*"]},
                "Bool":{"aws:SecureTransport":true},"NumericLessThan":{"a:b":1.5}}"#,
        );
        let found = found.expect("three conditions");
        assert_eq!(found[0].quantifier, Some(Quantifier::ForAnyValue));
        assert_eq!((found[0].operator, found[0].if_exists), ("StringLike", true));
        assert_eq!(found[0].values, ["a", "b*"]);
        assert_eq!(found[1].values, ["true"]);
        assert_eq!(found[2].values, ["1.5"]);
        assert_eq!(with_condition("{}"), Ok(vec![]));
        for bad in [
            r#"{"StringIs":{"a:b":"c"}}"#,
            r#"{"NullIfExists":{"a:b":"true"}}"#,
            r#"{"ForSomeValues:StringLike":{"a:b":"c"}}"#,
            r#"{"StringLike":{"ab":"c"}}"#,
            r#"{"StringLike":{"a:b":[]}}"#,
            r#"{"StringLike":{"a:b":{"c":"d"}}}"#,
            r#"{"StringLike":{"a:b":null}}"#,
            r#"{"StringLike":{"a:b":"c","a:b":"d"}}"#,
            r#"{"Bool":{"a:b":"perhaps"}}"#,
            r#"{"NumericEquals":{"a:b":"one"}}"#,
        ] {
            assert!(with_condition(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_s_policy_names_no_principal_and_its_sids_are_unique() {
        let parse = |text: &str| parse(&format!(r#"{{"Statement":[{text}]}}"#), Kind::Identity);
        assert!(parse(&format!("{{{ALLOW}}}")).is_ok());
        assert!(is_syntax(parse(&format!(r#"{{{ALLOW},"Principal":"*"}}"#))));
        let named = format!(r#"{{{ALLOW},"Sid":"A1"}}"#);
        assert!(parse(&named).is_ok());
        assert!(is_syntax(parse(&format!("{named},{named}"))));
        assert!(is_syntax(parse(&format!(r#"{{{ALLOW},"Sid":"with space"}}"#))));
    }

    #[test]
    fn a_key_s_statement_may_lack_action_or_resource_and_then_speaks_of_nothing() {
        let text = r#"{"Statement":{"Sid":"with space","Effect":"Allow","Principal":"*"}}"#;
        let found = parse(text, Kind::Key).map(|d| d.statements[0].clone());
        assert_eq!(found.map(|s| (s.actions, s.resources)), Ok(Default::default()));
        assert!(is_syntax(parse(text, Kind::Resource)));
    }

    /// What IAM says of a document whose one statement has these members.
    fn iam(kind: Kind, members: &str) -> String {
        let text = format!(r#"{{"Version":"2012-10-17","Statement":{{{members}}}}}"#);
        parse(&text, kind).map_or_else(|e| e.aws_text(kind).into_owned(), |_| "taken".to_owned())
    }

    #[test]
    fn iam_s_own_words_are_known() {
        let to = r#""Resource":"*""#;
        let of = |rest: &str| iam(Kind::Managed, &format!(r#""Effect":"Allow",{rest}"#));
        for (members, expected) in [
            (format!(r#""Action":"kms:Get*",{to}"#), "taken"),
            (to.to_owned(), "Policy statement must contain actions."),
            (r#""Action":"*""#.to_owned(), "Policy statement must contain resources."),
            (
                format!(r#""Principal":"*","Action":"*",{to}"#),
                "Policy document should not specify a principal.",
            ),
            (
                format!(r#""Action":"Decrypt",{to}"#),
                "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
            ),
            (format!(r#""Action":"a a:b",{to}"#), "Vendor a a is not valid"),
            (format!(r#""Action":"a:b:c",{to}"#), "Actions/Condition can contain only one colon."),
            (
                format!(r#""Action":"*","NotAction":"*",{to}"#),
                "Syntax errors in policy. a statement has either Action or NotAction",
            ),
            (
                r#""Action":"*","Resource":"secret""#.to_owned(),
                "Resource secret must be in ARN format or \"*\".",
            ),
            (
                r#""Action":"*","Resource":"arn:x:kms:::k""#.to_owned(),
                "Partition \"x\" is not valid for resource \"arn:x:kms:::k\".",
            ),
            (
                r#""Action":"*","Resource":"arn:aws:s3::b""#.to_owned(),
                "The policy failed legacy parsing",
            ),
            (
                r#""Action":"*","Resource":"arn:aws:kms:*:${aws:PrincipalAccount}:key/*""#
                    .to_owned(),
                "The policy failed legacy parsing",
            ),
            (
                format!(r#""Action":"*",{to},"Condition":{{"DateLessThan":{{"a:b":"soon"}}}}"#),
                "The policy failed legacy parsing",
            ),
            (
                format!(r#""Action":"*",{to},"Condition":{{"StringIs":{{"a:b":"c"}}}}"#),
                "Syntax errors in policy. `StringIs` is not a condition operator",
            ),
        ] {
            assert_eq!(of(&members), expected, "{members}");
        }
        assert_eq!(
            iam(Kind::Managed, r#""Effect":"allow","Action":"*","Resource":"*""#),
            "The policy failed legacy parsing"
        );
        let old =
            r#"{"Version":"2008-10-17","Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#;
        assert!(parse(old, Kind::Identity).is_ok());
        let refused = parse(old, Kind::Managed).expect_err("an old version");
        assert_eq!(
            refused.aws_text(Kind::Managed),
            "Policy document must be version 2012-10-17 or greater."
        );
    }

    #[test]
    fn a_trust_policy_names_who_may_assume_the_role_and_no_resource() {
        let of = |rest: &str| iam(Kind::Trust, &format!(r#""Effect":"Allow",{rest}"#));
        let who = r#""Principal":{"AWS":"111122223333"}"#;
        let assume = r#""Action":"sts:AssumeRole""#;
        for (members, expected) in [
            (format!("{who},{assume}"), "taken"),
            (format!(r#"{who},"Action":["sts:AssumeRole","sts:TagSession"],"Sid":"""#), "taken"),
            (assume.to_owned(), "Missing required field Principal"),
            (who.to_owned(), "Missing required field Action"),
            (
                format!(r#"{who},"Action":"*""#),
                "AssumeRole policy may only specify STS AssumeRole actions.",
            ),
            (format!(r#"{who},{assume},"Resource":"*""#), "Has prohibited field Resource"),
            (
                format!(r#"{who},{assume},"NotResource":"*""#),
                "AssumeRole policy must not contain resources.",
            ),
            (
                format!(r#""NotPrincipal":{{"AWS":"111122223333"}},{assume}"#),
                "Allow with NotPrincipal is not allowed.",
            ),
            (
                format!(r#""Principal":{{"AWS":"ada"}},{assume}"#),
                "Invalid principal in policy: \"AWS\":\"ada\"",
            ),
            (
                format!(r#""Principal":{{"Service":"ec2"}},{assume}"#),
                "Invalid principal in policy: \"SERVICE\":\"ec2\"",
            ),
            (
                format!(r#""Principal":{{"Federated":"login.example.com/"}},{assume}"#),
                "Invalid principal in policy: \"FEDERATED\":\"login.example.com/\"",
            ),
        ] {
            assert_eq!(of(&members), expected, "{members}");
        }
        let read =
            parse(&format!(r#"{{"Statement":{{"Effect":"Allow",{who},{assume}}}}}"#), Kind::Trust);
        let resources = read.map(|d| d.statements[0].resources.patterns.clone());
        assert_eq!(resources, Ok(vec!["*".to_owned()]), "the role itself");
        let key = r#"{"StringEquals":{"oidc.example.com/id/1:sub":"system:serviceaccount:a:b"}}"#;
        assert_eq!(of(&format!(r#"{who},{assume},"Condition":{key}"#)), "taken");
    }

    #[test]
    fn white_space_does_not_count_in_iam_s_policies() {
        let with = |filler: &str, count: usize| {
            format!("{{\"Statement\":{{{ALLOW}}}{}}}", filler.repeat(count))
        };
        assert!(parse(&with(" ", 100_000), Kind::Session).is_ok());
        assert!(matches!(parse(&with(" ", 300_000), Kind::Session), Err(Malformed::TooLong(2048))));
        let long = parse(&with("x", 2048), Kind::Session);
        assert_eq!(long, Err(Malformed::TooLong(2048)));
        let text = |kind| Malformed::TooLong(8192).aws_text(kind).into_owned();
        assert_eq!(text(Kind::Trust), "Cannot exceed quota for ACLSizePerRole: 8192");
        assert_eq!(text(Kind::Managed), "Cannot exceed quota for PolicySize: 8192");
    }

    #[test]
    fn values_that_an_operator_can_t_compare_with_are_refused() {
        for bad in [
            r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/33"}}"#,
            r#"{"NotIpAddress":{"aws:SourceIp":["10.0.0.0/8","here"]}}"#,
            r#"{"DateGreaterThan":{"aws:CurrentTime":"2026-02-30"}}"#,
            r#"{"BinaryEquals":{"a:b":"*"}}"#,
            r#"{"NumericEquals":{"a:b":"${aws:username}"}}"#,
            r#"{"Null":{"a:b":"maybe"}}"#,
            r#"{"StringEquals":{"a:b":"${aws:username"}}"#,
        ] {
            assert!(is_syntax(with_condition(bad)), "{bad}");
        }
        assert!(with_condition(r#"{"IpAddress":{"aws:SourceIp":"::ffff:10.0.0.0/104"}}"#).is_ok());
        assert!(with_condition(r#"{"ArnLike":{"aws:PrincipalArn":"*"}}"#).is_ok());
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let long = " ".repeat(20_481);
        assert_eq!(parse(&long, Kind::Resource), Err(Malformed::TooLong(20_480)));
        let deep = "[".repeat(20_000);
        assert!(is_syntax(parse(&deep, Kind::Resource)));
        assert!(is_syntax(parse(&format!(r#"{{"Statement":{deep}"#), Kind::Resource)));
        let maps = r#"{"Statement":"#.repeat(1500);
        assert!(is_syntax(parse(&maps, Kind::Resource)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            for kind in [Kind::Identity, Kind::Managed, Kind::Trust, Kind::Resource, Kind::Key] {
                drop(parse(&text, kind));
            }
        }

        #[test]
        fn any_member_may_hold_any_json(
            member in "(Version|Id|Statement|Principal|Action|Resource|Condition|Effect)",
            json in r#"(null|true|-1|1e999|"[*a:]{0,3}"|\[\]|\{\}|\[\[1\]\]|\{"a":\{"b":1\}\})"#,
        ) {
            let statement = format!(r#"{{{ALLOW},"Principal":"*","{member}":{json}}}"#);
            drop(resource(&statement));
            drop(parse(&format!(r#"{{"{member}":{json}}}"#), Kind::Key));
        }
    }
}
