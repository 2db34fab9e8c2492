//! The principals that grants and the policies of secrets, keys and roles name.
//!
//! Who is meant is who had the ARN when it was written down: it is kept by its unique id, so that a
//! user who is deleted and made again holds nothing of the old one's
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>).

use crate::name::{Arn, is_account};
use crate::ops::authority::last_part;
use crate::ops::error::{Condition, Error, Result};
use crate::policy::document::{Document, Malformed};
use crate::policy::{Caller, PrincipalKind};
use crate::store::grants::Holder;
use crate::store::principals::{Role, User};
use crate::store::records::Records;
use serde_json::Value;

/// A principal's ARN, taken apart:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns>.
#[derive(Debug, PartialEq, Eq)]
enum Form<'a> {
    Account,
    User { name: &'a str },
    Role { name: &'a str },
    Session { role: &'a str, name: &'a str },
    Federated { name: &'a str },
}

/// The account and the form of a principal's ARN.
fn parse(arn: &str) -> Option<(&str, Form<'_>)> {
    let parts = Arn::parse(arn)?;
    if parts.partition != "aws" || !parts.region.is_empty() || !is_account(parts.account) {
        return None;
    }
    let (kind, rest) = parts.resource.split_once('/').unwrap_or((parts.resource, ""));
    let name = last_part(rest);
    let form = match (parts.service, kind) {
        ("iam", "root") if parts.resource == "root" => Form::Account,
        ("iam", "user") if !name.is_empty() => Form::User { name },
        ("iam", "role") if !name.is_empty() => Form::Role { name },
        ("sts", "assumed-role") => {
            let (role, name) = rest.split_once('/')?;
            let whole = !role.is_empty() && !name.is_empty() && !name.contains('/');
            whole.then_some(Form::Session { role, name })?
        }
        ("sts", "federated-user") if name == rest && !name.is_empty() => Form::Federated { name },
        _ => return None,
    };
    Some((parts.account, form))
}

/// The principal that an ARN names now, for a grant.
///
/// # Errors
/// [`Condition::InvalidArn`]; those of the database.
pub(super) fn find(records: &Records, arn: &str) -> Result<Holder> {
    look_up(records, arn)?.ok_or_else(|| {
        let text = format!("ARN does not refer to a valid principal: {arn}");
        Error::new(Condition::InvalidArn, text)
    })
}

/// The principal that an ARN names now. A principal of an account of this appliance must be there;
/// others are taken by their form, and nobody who calls here is one of them.
fn look_up(records: &Records, arn: &str) -> Result<Option<Holder>> {
    let Some((account, form)) = parse(arn) else { return Ok(None) };
    let ours = records.read(|rows| rows.account(account))?.is_some();
    let id = if ours { unique_id(records, arn, account, &form)? } else { Some(arn.to_owned()) };
    Ok(id.map(|id| Holder { arn: arn.to_owned(), id }))
}

/// Whom a policy means by the users, roles and sessions that it names. Those of accounts that are not
/// of this appliance are left out: their ARNs are all that is known of them.
///
/// # Errors
/// What `refusal` makes of a principal that is not there; those of the database.
pub(super) fn meant(
    records: &Records,
    document: &Document,
    refusal: impl FnOnce(Malformed) -> Error,
) -> Result<Vec<Holder>> {
    let mut meant: Vec<Holder> = Vec::new();
    for arn in document.named() {
        if meant.iter().any(|known| known.arn == arn) {
            continue;
        }
        match look_up(records, arn)? {
            Some(elsewhere) if elsewhere.id == elsewhere.arn => {}
            Some(holder) => meant.push(holder),
            None => return Err(refusal(Malformed::Principal(arn.to_owned()))),
        }
    }
    Ok(meant)
}

fn unique_id(
    records: &Records,
    arn: &str,
    account: &str,
    form: &Form<'_>,
) -> Result<Option<String>> {
    Ok(match form {
        Form::Account => Some(account.to_owned()),
        Form::User { name } => {
            let user = records.named::<User>(account, name)?.filter(|user| user.arn() == arn);
            user.map(|user| user.id.clone())
        }
        Form::Role { name } => {
            let role = records.named::<Role>(account, name)?.filter(|role| role.arn() == arn);
            role.map(|role| role.id.clone())
        }
        Form::Session { role, name } => {
            let role = records.named::<Role>(account, role)?.filter(|known| known.name == *role);
            role.map(|role| [&role.id, ":", name].concat())
        }
        Form::Federated { name } => Some([account, ":", name].concat()),
    })
}

/// What is shown of a principal: its ARN, or its unique id once it is gone, as AWS does it.
pub(super) fn shown(records: &Records, holder: &Holder) -> Result<String> {
    if look_up(records, &holder.arn)?.is_some_and(|now| now.id == holder.id) {
        return Ok(holder.arn.clone());
    }
    // A user may have another name by now.
    let account = Arn::parse(&holder.arn).map_or("", |arn| arn.account);
    let user = records.read(|rows| rows.user_with_id(account, &holder.id))?;
    Ok(user.map_or_else(|| holder.id.clone(), |user| user.arn()))
}

/// A policy as it is shown: as it was written, but for those who have another ARN now or none. They
/// stand there by what they have, as in AWS; its members are in order then.
pub(super) fn policy_shown(records: &Records, text: &str, meant: &[Holder]) -> Result<String> {
    let mut changed = Vec::new();
    for holder in meant {
        let now = shown(records, holder)?;
        if now != holder.arn {
            changed.push((holder.arn.as_str(), now));
        }
    }
    if changed.is_empty() {
        return Ok(text.to_owned());
    }
    let mut policy: Value = serde_json::from_str(text)
        .map_err(|why| Error::internal(format!("a stored policy is not JSON: {why}")))?;
    for statement in policy.get_mut("Statement").into_iter().flat_map(each) {
        for member in ["Principal", "NotPrincipal"] {
            let named = statement.get_mut(member).and_then(|named| named.get_mut("AWS"));
            for principal in named.into_iter().flat_map(each) {
                if let Some((_, now)) = changed.iter().find(|(arn, _)| *principal == *arn) {
                    *principal = now.as_str().into();
                }
            }
        }
    }
    Ok(policy.to_string())
}

/// The items of a list, or the one that stands there without brackets.
fn each(value: &mut Value) -> &mut [Value] {
    match value {
        Value::Array(all) => all,
        one => std::slice::from_mut(one),
    }
}

/// The ARN of an account as a principal.
pub(super) fn account_arn(account: &str) -> String {
    ["arn:aws:iam::", account, ":root"].concat()
}

/// Whom a caller is for a grant, by unique id, with the ARN that policies know it by: the user, or
/// the session and its role. Nobody who has no credentials yet is anybody.
pub(super) fn identities(caller: &Caller) -> Vec<(&str, &str)> {
    let session = caller.session.as_deref();
    match caller.kind {
        PrincipalKind::User => vec![(caller.unique_id(), caller.principal_arn())],
        PrincipalKind::AssumedRole => {
            let of_role = session.map(|s| (s.issuer_id.as_str(), s.issuer_arn.as_str()));
            let of_session = (caller.principal_id.as_str(), caller.arn.as_str());
            [Some(of_session), of_role].into_iter().flatten().collect()
        }
        PrincipalKind::Root
        | PrincipalKind::WebIdentity
        | PrincipalKind::Certificate
        | PrincipalKind::System => Vec::new(),
    }
}

/// Whether a caller belongs to an account, for grants that name the account.
pub(super) fn is_of_account(caller: &Caller) -> bool {
    matches!(caller.kind, PrincipalKind::Root | PrincipalKind::User | PrincipalKind::AssumedRole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_come_in_five_forms() {
        let form = |arn| parse(arn).map(|(_, form)| form);
        assert_eq!(form("arn:aws:iam::111122223333:root"), Some(Form::Account));
        let user = form("arn:aws:iam::111122223333:user/a/b/bob");
        assert_eq!(user, Some(Form::User { name: "bob" }));
        let role = form("arn:aws:iam::111122223333:role/app");
        assert_eq!(role, Some(Form::Role { name: "app" }));
        let session = form("arn:aws:sts::111122223333:assumed-role/app/i-1");
        assert_eq!(session, Some(Form::Session { role: "app", name: "i-1" }));
        let federated = form("arn:aws:sts::111122223333:federated-user/bob");
        assert_eq!(federated, Some(Form::Federated { name: "bob" }));
        for bad in [
            "",
            "*",
            "111122223333",
            "arn:aws:iam::111122223333:group/admins",
            "arn:aws:iam::111122223333:root/x",
            "arn:aws:iam::111122223333:user/",
            "arn:aws:iam::11112222333:user/bob",
            "arn:aws:iam:eu-west-1:111122223333:user/bob",
            "arn:aws-cn:iam::111122223333:user/bob",
            "arn:aws:kms::111122223333:user/bob",
            "arn:aws:sts::111122223333:assumed-role/app",
            "arn:aws:sts::111122223333:assumed-role/app/a/b",
            "arn:aws:sts::111122223333:assumed-role//a",
            "arn:aws:sts::111122223333:federated-user/a/b",
        ] {
            assert_eq!(form(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_caller_is_itself_and_a_session_is_its_role_too() {
        let arn = "arn:aws:iam::111122223333:user/bob";
        let bob = Caller::user("111122223333", arn, "AIDA1");
        assert_eq!(identities(&bob), [("AIDA1", arn)]);
        let root = Caller { kind: PrincipalKind::Root, ..bob.clone() };
        assert!(identities(&root).is_empty() && is_of_account(&root));
        // Its subject is the provider's to choose: it may look like anybody's id.
        let unproved = Caller { kind: PrincipalKind::WebIdentity, ..bob };
        assert!(identities(&unproved).is_empty() && !is_of_account(&unproved));
    }
}
