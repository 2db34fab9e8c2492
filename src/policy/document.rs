//! Policy documents: from text to statements, or the reason why not.
//!
//! The grammar is that of
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>. Whatever it
//! does not name is refused: unknown and repeated members, empty lists, unknown condition operators.
//! Nothing is skipped over, so the types below bound how deep a document may nest, and its length
//! bounds how much of anything it can hold.

use super::operators::suits;
use super::pattern::{has_early_variable, has_sound_variables};
use super::written::{self, Entries, Many, Scalar};
use crate::name::{Arn, is_account};
use std::collections::HashSet;

/// What a policy is attached to; the grammar differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To a user, group or role: no principals.
    Identity,
    /// To a secret: every statement names principals.
    Resource,
    /// To a KMS key: the same, and a statement without Action or Resource is taken and has no
    /// effect (<https://docs.aws.amazon.com/kms/latest/APIReference/API_PutKeyPolicy.html>).
    Key,
}

impl Kind {
    /// The most bytes that a policy of this kind may have.
    pub fn max_len(self) -> usize {
        match self {
            Self::Identity => 6144,
            Self::Resource => 20_480,
            Self::Key => 32_768,
        }
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
    /// A user, role or session, by its ARN.
    Arn(String),
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

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More bytes than a policy of its kind may have.
    #[error("the policy is longer than {0} bytes")]
    TooLong(usize),
    /// It breaks the grammar.
    #[error("{0}")]
    Syntax(String),
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

/// Reads a policy.
pub fn parse(text: &str, kind: Kind) -> Result<Document, Malformed> {
    if text.len() > kind.max_len() {
        return Err(Malformed::TooLong(kind.max_len()));
    }
    let written: written::Document =
        serde_json::from_str(text).map_err(|e| Malformed::Syntax(e.to_string()))?;
    let version = match written.version.as_deref() {
        None | Some("2008-10-17") => Version::V2008,
        Some("2012-10-17") => Version::V2012,
        Some(other) => return Err(syntax(format!("`{other}` is not a version"))),
    };
    let statements = written.statement.0.into_iter();
    let statements =
        statements.map(|s| statement(s, kind, version)).collect::<Result<Vec<_>, _>>()?;
    if kind == Kind::Identity {
        unique_sids(&statements)?;
    }
    Ok(Document { version, id: written.id, statements })
}

fn syntax(why: impl Into<String>) -> Malformed {
    Malformed::Syntax(why.into())
}

fn unique_sids(statements: &[Statement]) -> Result<(), Malformed> {
    let mut seen = HashSet::new();
    for sid in statements.iter().filter_map(|s| s.sid.as_deref()) {
        if sid.is_empty() || !sid.bytes().all(|b| b.is_ascii_alphanumeric()) || !seen.insert(sid) {
            return Err(syntax(format!(
                "the Sid `{sid}` is not of letters and digits, or not unique"
            )));
        }
    }
    Ok(())
}

fn statement(
    written: written::Statement,
    kind: Kind,
    version: Version,
) -> Result<Statement, Malformed> {
    let effect = match written.effect.as_str() {
        "Allow" => Effect::Allow,
        "Deny" => Effect::Deny,
        other => return Err(syntax(format!("`{other}` is not an effect"))),
    };
    let principals = principals(written.principal, written.not_principal)?;
    match (kind, &principals) {
        (Kind::Identity, Some(_)) => return Err(syntax("an identity's policy names no principal")),
        (Kind::Resource | Kind::Key, None) => return Err(Malformed::NoPrincipal),
        _ => {}
    }
    let may_lack = kind == Kind::Key;
    Ok(Statement {
        sid: written.sid,
        effect,
        principals,
        actions: patterns("Action", written.action, written.not_action, may_lack, is_action)?,
        resources: patterns(
            "Resource",
            written.resource,
            written.not_resource,
            may_lack,
            match version {
                Version::V2008 => is_resource,
                Version::V2012 => is_resource_with_variables,
            },
        )?,
        conditions: conditions(written.condition, version)?,
    })
}

fn patterns(
    element: &str,
    these: Option<Many<String>>,
    all_but: Option<Many<String>>,
    may_lack: bool,
    fits: fn(&str) -> bool,
) -> Result<Patterns, Malformed> {
    let (negated, patterns) = match (these, all_but) {
        (Some(these), None) => (false, these.0),
        (None, Some(all_but)) => (true, all_but.0),
        (None, None) if may_lack => return Ok(Patterns::default()),
        _ => return Err(syntax(format!("a statement has either {element} or Not{element}"))),
    };
    match patterns.iter().find(|p| !fits(p)) {
        Some(bad) => Err(syntax(format!("`{bad}` does not fit into {element}"))),
        None => Ok(Patterns { negated, patterns }),
    }
}

/// `*`, or a service's prefix, a colon and a pattern of letters, digits, `*` and `?`.
fn is_action(text: &str) -> bool {
    let Some((service, action)) = text.split_once(':') else { return text == "*" };
    let in_prefix = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let in_action = |b: u8| b.is_ascii_alphanumeric() || b == b'*' || b == b'?';
    !service.is_empty()
        && service.bytes().all(in_prefix)
        && !action.is_empty()
        && action.bytes().all(in_action)
}

/// `*`, or an ARN whose parts may hold wildcards and policy variables.
fn is_resource(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("arn:") else { return text == "*" };
    let parts = rest.splitn(5, ':').count();
    (parts == 5 || rest.contains('*')) && !text.chars().any(char::is_control)
}

/// The same, and its variables are sound and stand behind the fifth colon.
fn is_resource_with_variables(text: &str) -> bool {
    is_resource(text) && has_sound_variables(text) && !has_early_variable(text)
}

fn principals(
    these: Option<written::Principals>,
    all_but: Option<written::Principals>,
) -> Result<Option<Principals>, Malformed> {
    let (negated, written) = match (these, all_but) {
        (None, None) => return Ok(None),
        (Some(these), None) => (false, these),
        (None, Some(all_but)) => (true, all_but),
        _ => return Err(syntax("a statement has either Principal or NotPrincipal")),
    };
    let list = match written {
        written::Principals::Everyone => vec![Principal::Everyone],
        written::Principals::Named(named) => named
            .0
            .into_iter()
            .flat_map(|(class, names)| names.0.into_iter().map(move |n| (class.clone(), n)))
            .map(|(class, name)| principal(&class, name))
            .collect::<Result<_, _>>()?,
    };
    if list.is_empty() {
        Err(Malformed::NoPrincipal)
    } else {
        Ok(Some(Principals { negated, list }))
    }
}

fn principal(class: &str, name: String) -> Result<Principal, Malformed> {
    match class {
        "AWS" if name == "*" => Ok(Principal::Everyone),
        "AWS" if is_account(&name) => Ok(Principal::Account(name)),
        "AWS" => aws_principal(name),
        "Service" if is_service(&name) => Ok(Principal::Service(name)),
        "Service" => Err(Malformed::ServicePrincipal(name)),
        "Federated" if is_provider(&name) => Ok(Principal::Federated(name)),
        "Federated" | "CanonicalUser" => Err(Malformed::Principal(name)),
        _ => Err(syntax(format!("`{class}` is not a class of principals"))),
    }
}

/// A root, user, role or session by its ARN. A wildcard may not stand for a part of a name.
fn aws_principal(name: String) -> Result<Principal, Malformed> {
    let parsed = Arn::parse(&name).filter(|arn| {
        arn.partition.starts_with("aws") && arn.region.is_empty() && is_account(arn.account)
    });
    let Some(arn) = parsed else { return Err(Malformed::Principal(name)) };
    let classes: &[&str] = match arn.service {
        "iam" if arn.resource == "root" => return Ok(Principal::Account(arn.account.to_owned())),
        "iam" => &["user/", "role/"],
        "sts" => &["assumed-role/", "federated-user/"],
        _ => &[],
    };
    let named = |class| arn.resource.strip_prefix(class).is_some_and(is_principal_path);
    if classes.iter().copied().any(named) {
        Ok(Principal::Arn(name))
    } else {
        Err(Malformed::Principal(name))
    }
}

/// A name with the path before it: the characters that IAM lets them have, and no empty part.
fn is_principal_path(text: &str) -> bool {
    text.split('/').all(|part| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-:".contains(&b))
    })
}

fn is_service(name: &str) -> bool {
    let name = name.strip_suffix(".cn").unwrap_or(name);
    let short = name.strip_suffix(".amazonaws.com");
    short.is_some_and(|short| {
        short.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
    })
}

/// An identity provider: the ARN of a SAML or OpenID Connect provider, or a well-known domain.
fn is_provider(name: &str) -> bool {
    match Arn::parse(name) {
        Some(arn) => {
            arn.service == "iam"
                && is_account(arn.account)
                && ["saml-provider/", "oidc-provider/"]
                    .iter()
                    .any(|class| arn.resource.strip_prefix(class).is_some_and(is_principal_path))
        }
        None => {
            name.contains('.')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        }
    }
}

fn conditions(
    written: Option<Entries<Entries<Many<Scalar>>>>,
    version: Version,
) -> Result<Vec<Condition>, Malformed> {
    let mut found = Vec::new();
    for (name, keys) in written.map(|w| w.0).unwrap_or_default() {
        let (quantifier, operator, if_exists) = operator(&name)
            .ok_or_else(|| syntax(format!("`{name}` is not a condition operator")))?;
        for (key, values) in keys.0 {
            if !is_condition_key(&key) {
                return Err(syntax(format!("`{key}` is not a condition key")));
            }
            let values: Vec<String> = values.0.into_iter().map(|v| v.0).collect();
            if let Some(bad) = values.iter().find(|v| !suits(operator, v, version)) {
                return Err(syntax(format!("{operator} can't compare with `{bad}`")));
            }
            found.push(Condition { quantifier, operator, if_exists, key, values });
        }
    }
    Ok(found)
}

/// Takes `ForAnyValue:StringLikeIfExists` apart.
fn operator(name: &str) -> Option<(Option<Quantifier>, &'static str, bool)> {
    let (quantifier, rest) = match name.split_once(':') {
        Some(("ForAllValues", rest)) => (Some(Quantifier::ForAllValues), rest),
        Some(("ForAnyValue", rest)) => (Some(Quantifier::ForAnyValue), rest),
        Some(_) => return None,
        None => (None, name),
    };
    let (rest, if_exists) = match rest.strip_suffix("IfExists") {
        Some(rest) if rest != "Null" => (rest, true),
        Some(_) => return None,
        None => (rest, false),
    };
    let known = OPERATORS.iter().find(|o| **o == rest)?;
    Some((quantifier, known, if_exists))
}

/// `service:Name`, with a tag's key behind a slash where it has one.
fn is_condition_key(key: &str) -> bool {
    let Some((service, name)) = key.split_once(':') else { return false };
    !service.is_empty()
        && service.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        && !name.is_empty()
        && !name.chars().any(char::is_control)
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
            for kind in [Kind::Identity, Kind::Resource, Kind::Key] {
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
