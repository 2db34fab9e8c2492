//! The principals that grants name.
//!
//! A grant is the principal's that had the name when the grant was made: it is kept by its unique id,
//! so that a user who is deleted and made again holds nothing of the old one's.

use crate::name::{Arn, is_account};
use crate::ops::authority::last_part;
use crate::ops::call::Call;
use crate::ops::error::{Condition, Error, Result};
use crate::policy::{Caller, PrincipalKind};
use crate::store::grants::Holder;
use crate::store::principals::{Role, User};
use crate::store::records::Records;

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

/// The principal that an ARN names now. A principal of an account of this appliance must be there;
/// others are taken by their form, and nobody who calls here is one of them.
///
/// # Errors
/// [`Condition::InvalidArn`]; those of the database.
pub(super) fn find(records: &Records, arn: &str) -> Result<Holder> {
    let invalid = || {
        let text = format!("ARN does not refer to a valid principal: {arn}");
        Error::new(Condition::InvalidArn, text)
    };
    let (account, form) = parse(arn).ok_or_else(invalid)?;
    let ours = records.read(|rows| rows.account(account))?.is_some();
    let id = if ours { unique_id(records, arn, account, &form)? } else { Some(arn.to_owned()) };
    Ok(Holder { arn: arn.to_owned(), id: id.ok_or_else(invalid)? })
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

/// What a grant shows of a principal: its ARN, or its unique id once another or nobody has that ARN,
/// as AWS does it.
pub(super) fn shown(call: &Call, holder: Holder) -> Result<String> {
    match find(&call.records, &holder.arn) {
        Ok(now) if now.id == holder.id => Ok(holder.arn),
        Err(error) if error.condition != Condition::InvalidArn => Err(error),
        Ok(_) | Err(_) => Ok(holder.id),
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
        PrincipalKind::User => vec![(own_id(caller), caller.principal_arn())],
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

/// A user's unique id, whatever credentials it uses.
fn own_id(caller: &Caller) -> &str {
    caller.session.as_ref().map_or(&caller.principal_id, |session| &session.issuer_id)
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
