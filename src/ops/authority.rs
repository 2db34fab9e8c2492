//! What a caller's account lets it do: its identity policies and its boundary, compiled, from memory
//! until something of the account's principals changes.

use super::error::{Condition, Error, Result};
use crate::policy::document::{self, Kind};
use crate::policy::{Caller, Policy, PrincipalKind, managed};
use crate::store::grants::Holder;
use crate::store::keys::Tag;
use crate::store::principals::{Group, Inline, ManagedPolicy, Role, STANDING, User};
use crate::store::records::{Records, Rows};
use std::sync::Arc;

/// A principal as the account has it.
#[derive(Default)]
pub struct Standing {
    /// Inline policies, attached ones, those of its groups.
    pub identity: Vec<Arc<Policy>>,
    /// The permissions boundary.
    pub boundary: Option<Arc<Policy>>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// A policy that is judged in place of one of the account's.
pub struct Instead {
    /// The ARN of the user, group or role whose inline policy it is; none for a managed policy.
    pub holder: Option<String>,
    /// The name of an inline policy, the ARN of a managed one.
    pub name: String,
    /// What is judged.
    pub policy: Arc<Policy>,
}

/// The caller's standing.
///
/// # Errors
/// [`Condition::AccessDenied`] where the user or role is gone, or another one of the same name; those
/// of the database.
pub fn standing(records: &Records, caller: &Caller) -> Result<Arc<Standing>> {
    let Some(load) = loader(caller) else { return Ok(Arc::default()) };
    let scope = (STANDING, caller.account.as_str());
    records.derived(scope, caller.unique_id(), |rows| load(rows, caller, None))
}

/// The caller's standing if the account had this policy instead.
///
/// # Errors
/// Those of [`standing`].
pub fn standing_with(records: &Records, caller: &Caller, instead: &Instead) -> Result<Standing> {
    let Some(load) = loader(caller) else { return Ok(Standing::default()) };
    records.read(|rows| load(rows, caller, Some(instead)))
}

/// What reads a standing from the database.
type Load = fn(&mut Rows<'_>, &Caller, Option<&Instead>) -> Result<Standing>;

/// How the standing of this kind of caller is read; none for those who have none.
fn loader(caller: &Caller) -> Option<Load> {
    match caller.kind {
        PrincipalKind::User => Some(of_user),
        PrincipalKind::AssumedRole => Some(of_role),
        PrincipalKind::Root
        | PrincipalKind::WebIdentity
        | PrincipalKind::Certificate
        | PrincipalKind::System => None,
    }
}

fn of_user(rows: &mut Rows<'_>, caller: &Caller, instead: Option<&Instead>) -> Result<Standing> {
    let account = &caller.account;
    let user = rows.named::<User>(account, last_part(caller.principal_arn()))?;
    let user = user.filter(|user| user.id == caller.unique_id()).ok_or_else(|| gone(caller))?;
    let mut standing = Standing { tags: user.tags.clone(), ..Standing::default() };
    standing.hold(&user.arn(), &user.inline, instead)?;
    standing.attach(rows, account, &user.attached, instead)?;
    for name in &user.groups {
        let group = group_of(rows, account, name)?;
        standing.hold(&group.arn(), &group.inline, instead)?;
        standing.attach(rows, account, &group.attached, instead)?;
    }
    standing.bound(rows, account, user.boundary.as_deref(), instead)?;
    Ok(standing)
}

fn of_role(rows: &mut Rows<'_>, caller: &Caller, instead: Option<&Instead>) -> Result<Standing> {
    let account = &caller.account;
    let role = rows.named::<Role>(account, last_part(caller.principal_arn()))?;
    let role = role.filter(|role| role.id == caller.unique_id()).ok_or_else(|| gone(caller))?;
    let mut standing = Standing { tags: role.tags.clone(), ..Standing::default() };
    standing.hold(&role.arn(), &role.inline, instead)?;
    standing.attach(rows, account, &role.attached, instead)?;
    standing.bound(rows, account, role.boundary.as_deref(), instead)?;
    Ok(standing)
}

impl Standing {
    /// Adds the inline policies of a holder.
    fn hold(&mut self, holder: &str, inline: &[Inline], instead: Option<&Instead>) -> Result<()> {
        let instead = instead.filter(|instead| instead.holder.as_deref() == Some(holder));
        for policy in inline {
            let other = instead.filter(|instead| instead.name == policy.name);
            self.identity.push(match other {
                Some(other) => other.policy.clone(),
                None => compiled(&policy.name, &policy.document)?,
            });
        }
        let new = instead.filter(|new| !inline.iter().any(|policy| policy.name == new.name));
        self.identity.extend(new.map(|new| new.policy.clone()));
        Ok(())
    }

    /// Adds attached policies.
    fn attach(
        &mut self,
        rows: &mut Rows<'_>,
        account: &str,
        arns: &[String],
        instead: Option<&Instead>,
    ) -> Result<()> {
        for arn in arns {
            self.identity.push(managed_or(rows, account, arn, instead)?);
        }
        Ok(())
    }

    fn bound(
        &mut self,
        rows: &mut Rows<'_>,
        account: &str,
        arn: Option<&str>,
        instead: Option<&Instead>,
    ) -> Result<()> {
        self.boundary = arn.map(|arn| managed_or(rows, account, arn, instead)).transpose()?;
        Ok(())
    }
}

/// A managed policy, or what is judged in its place.
fn managed_or(
    rows: &mut Rows<'_>,
    account: &str,
    arn: &str,
    instead: Option<&Instead>,
) -> Result<Arc<Policy>> {
    match instead.filter(|instead| instead.holder.is_none() && instead.name == arn) {
        Some(other) => Ok(other.policy.clone()),
        None => managed_policy(rows, account, arn),
    }
}

/// A managed policy of the account's or of ours, compiled.
///
/// # Errors
/// A policy that is attached and not there is a fault: it may have held a denial.
pub fn managed_policy(rows: &mut Rows<'_>, account: &str, arn: &str) -> Result<Arc<Policy>> {
    if let Some(ours) = managed::find(arn) {
        return compiled(arn, ours.document);
    }
    let policy = rows.named::<ManagedPolicy>(account, last_part(arn))?;
    let policy = policy.filter(|policy| policy.arn() == arn);
    match policy.as_ref().and_then(ManagedPolicy::document) {
        Some(document) => compiled(arn, document),
        None => Err(Error::internal(format!("the attached policy {arn} is not there"))),
    }
}

/// A group that a user is in.
///
/// # Errors
/// A group that a user is in and that is not there is a fault: it may have held a denial.
pub fn group_of(rows: &mut Rows<'_>, account: &str, name: &str) -> Result<Group> {
    let group = rows.named::<Group>(account, name)?;
    group.ok_or_else(|| Error::internal(format!("the group `{name}` of a user is not there")))
}

/// A stored identity policy, compiled. It was checked when it was stored.
pub fn compiled(name: &str, document: &str) -> Result<Arc<Policy>> {
    compile(name, document, Kind::Identity, &[]).map(Arc::new)
}

/// A stored policy of any kind, compiled; `held` says whom it means by the principals that it names.
pub fn compile(name: &str, document: &str, kind: Kind, held: &[Holder]) -> Result<Policy> {
    match document::parse(document, kind) {
        Ok(mut document) => {
            let found = |arn: &str| held.iter().find(|holder| holder.arn == arn);
            document.tie(|arn| found(arn).map(|holder| holder.id.as_str()));
            Ok(Policy::compile(name, document))
        }
        Err(error) => Err(Error::internal(format!("the stored policy `{name}`: {error}"))),
    }
}

/// What follows the last slash of an ARN: the name.
pub fn last_part(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

fn gone(caller: &Caller) -> Error {
    let text = format!("The principal {} no longer exists.", caller.principal_arn());
    Error::new(Condition::AccessDenied, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::records::RowMac;
    use crate::store::sqlite::{Options, Sqlite};
    use serde_json::{from_value, json};

    const ACCOUNT: &str = "111122223333";

    #[tokio::test]
    async fn a_group_that_is_not_there_is_a_fault_and_no_group_without_denials() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Sqlite::open(Options::new(dir.path().join("data"))).expect("a database");
        let records = Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10);
        let denial = r#"{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#;
        let group: Group = from_value(json!({
            "account": ACCOUNT, "name": "held", "path": "/", "id": "AGPA1", "created": 0,
            "inline": [{"name": "denial", "document": denial}], "attached": [], "revision": 1,
        }))
        .expect("a group");
        let user: User = from_value(json!({
            "account": ACCOUNT, "name": "bob", "path": "/", "id": "AIDA1", "created": 0, "tags": [],
            "inline": [], "attached": [], "groups": ["held"], "boundary": null, "revision": 1,
        }))
        .expect("a user");
        let bob = Caller {
            account: ACCOUNT.to_owned(),
            arn: user.arn(),
            principal_id: user.id.clone(),
            kind: PrincipalKind::User,
            access_key_id: None,
            session: None,
        };
        let stored = records.write(move |rows| {
            rows.put_named(&user)?;
            rows.put_named(&group)
        });
        stored.await.expect("written");
        let held = standing(&records, &bob).map(|standing| standing.identity.len());
        assert_eq!(held.map_err(|error| error.condition), Ok(1));
        let gone = records.write(|rows| rows.delete_named::<Group>(ACCOUNT, "held"));
        gone.await.expect("written");
        let held = standing(&records, &bob).map(|standing| standing.identity.len());
        assert_eq!(held.map_err(|error| error.condition), Err(Condition::Internal));
    }
}
