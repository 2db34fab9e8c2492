//! What may stand in the elements of a statement
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>).

use super::document::{Effect, Kind, OPERATORS, Principal, Principals, Quantifier, Version};
use super::malformed::{LEGACY, Malformed, fault, syntax};
use super::pattern::{has_early_variable, has_sound_variables};
use super::written;
use crate::name::{Arn, is_account};

/// `Allow` or `Deny`.
pub(super) fn effect(text: &str, kind: Kind) -> Result<Effect, Malformed> {
    let why = || format!("`{text}` is not an effect");
    match text {
        "Allow" => Ok(Effect::Allow),
        "Deny" => Ok(Effect::Deny),
        _ if kind == Kind::Trust => Err(fault(why(), format!("Invalid effect: {text}"))),
        other if ["allow", "deny"].iter().any(|e| e.eq_ignore_ascii_case(other)) => {
            Err(fault(why(), LEGACY))
        }
        _ => Err(syntax(why())),
    }
}

/// Which actions a policy may name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Actions {
    /// Of any service, or `*`.
    OfAll,
    /// Those of STS.
    OfSts,
}

/// `*`, or a service's prefix, a colon and a pattern of letters, digits, `*` and `?`.
pub(super) fn action(text: &str, of: Actions) -> Result<(), Malformed> {
    let why = || format!("`{text}` is not an action");
    let parts = text.split_once(':');
    let sts = parts.is_some_and(|(service, _)| service.eq_ignore_ascii_case("sts"));
    if of == Actions::OfSts && !sts {
        let aws = "AssumeRole policy may only specify STS AssumeRole actions.";
        return Err(fault(why(), aws));
    }
    let Some((service, name)) = parts else {
        let aws = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.";
        return if text == "*" { Ok(()) } else { Err(fault(why(), aws)) };
    };
    let in_prefix = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let in_name = |b: u8| b.is_ascii_alphanumeric() || b == b'*' || b == b'?';
    if service.is_empty() || !service.bytes().all(in_prefix) {
        Err(fault(why(), format!("Vendor {service} is not valid")))
    } else if name.contains(':') {
        Err(fault(why(), "Actions/Condition can contain only one colon."))
    } else if name.is_empty() || !name.bytes().all(in_name) {
        Err(syntax(why()))
    } else {
        Ok(())
    }
}

/// `*`, or an ARN whose parts may hold wildcards and, after the fifth colon, policy variables.
pub(super) fn resource(text: &str, version: Version) -> Result<(), Malformed> {
    let why = || format!("`{text}` is not a resource");
    let Some(rest) = text.strip_prefix("arn:") else {
        let aws = format!("Resource {text} must be in ARN format or \"*\".");
        return if text == "*" { Ok(()) } else { Err(fault(why(), aws)) };
    };
    let partition = rest.split(':').next().unwrap_or_default();
    if !partition.starts_with("aws") && !partition.contains('*') {
        let aws = format!("Partition \"{partition}\" is not valid for resource \"{text}\".");
        return Err(fault(why(), aws));
    }
    let whole = rest.splitn(5, ':').count() == 5 || rest.contains('*');
    let variables =
        version == Version::V2008 || has_sound_variables(text) && !has_early_variable(text);
    if whole && variables && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(fault(why(), LEGACY))
    }
}

/// `service:Name`, with a tag's key behind a slash where it has one. The keys of an identity
/// provider begin with its address, slashes included.
pub(super) fn condition_key(key: &str) -> Result<(), Malformed> {
    let in_prefix = |b: u8| b.is_ascii_alphanumeric() || b"-._~%/".contains(&b);
    let sound = key.split_once(':').is_some_and(|(service, name)| {
        !service.is_empty()
            && service.bytes().all(in_prefix)
            && !name.is_empty()
            && !name.chars().any(char::is_control)
    });
    if sound {
        return Ok(());
    }
    let aws = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.";
    Err(fault(format!("`{key}` is not a condition key"), aws))
}

/// Takes `ForAnyValue:StringLikeIfExists` apart.
pub(super) fn operator(name: &str) -> Option<(Option<Quantifier>, &'static str, bool)> {
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

/// Whom a statement names, if anybody.
pub(super) fn principals(
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
