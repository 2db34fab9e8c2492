//! What a caller's account lets it do: its identity policies and its boundary, compiled, from memory
//! until something of the account's principals changes.

use super::error::{Condition, Error, Result};
use crate::policy::document::{self, Kind};
use crate::policy::{Caller, Policy, PrincipalKind, managed};
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

/// The caller's standing.
///
/// # Errors
/// [`Condition::AccessDenied`] where the user or role is gone, or another one of the same name; those
/// of the database.
pub fn standing(records: &Records, caller: &Caller) -> Result<Arc<Standing>> {
    let load: fn(&mut Rows<'_>, &Caller) -> Result<Standing> = match caller.kind {
        PrincipalKind::User => of_user,
        PrincipalKind::AssumedRole => of_role,
        PrincipalKind::Root
        | PrincipalKind::WebIdentity
        | PrincipalKind::Certificate
        | PrincipalKind::System => return Ok(Arc::default()),
    };
    let scope = (STANDING, caller.account.as_str());
    records.derived(scope, unique_id(caller), |rows| load(rows, caller))
}

/// The unique id of the user or role that the policies hang on.
fn unique_id(caller: &Caller) -> &str {
    caller.session.as_ref().map_or(&caller.principal_id, |session| &session.issuer_id)
}

fn of_user(rows: &mut Rows<'_>, caller: &Caller) -> Result<Standing> {
    let user = rows.named::<User>(&caller.account, last_part(caller.principal_arn()))?;
    let user = user.filter(|user| user.id == unique_id(caller)).ok_or_else(|| gone(caller))?;
    let mut standing = Standing { tags: user.tags, ..Standing::default() };
    standing.add(rows, &caller.account, &user.inline, &user.attached)?;
    for name in &user.groups {
        if let Some(group) = rows.named::<Group>(&caller.account, name)? {
            standing.add(rows, &caller.account, &group.inline, &group.attached)?;
        }
    }
    standing.bound(rows, &caller.account, user.boundary.as_deref())?;
    Ok(standing)
}

fn of_role(rows: &mut Rows<'_>, caller: &Caller) -> Result<Standing> {
    let role = rows.named::<Role>(&caller.account, last_part(caller.principal_arn()))?;
    let role = role.filter(|role| role.id == unique_id(caller)).ok_or_else(|| gone(caller))?;
    let mut standing = Standing { tags: role.tags, ..Standing::default() };
    standing.add(rows, &caller.account, &role.inline, &role.attached)?;
    standing.bound(rows, &caller.account, role.boundary.as_deref())?;
    Ok(standing)
}

impl Standing {
    fn add(
        &mut self,
        rows: &mut Rows<'_>,
        account: &str,
        inline: &[Inline],
        attached: &[String],
    ) -> Result<()> {
        for policy in inline {
            self.identity.push(compiled(&policy.name, &policy.document)?);
        }
        for arn in attached {
            self.identity.push(managed_policy(rows, account, arn)?);
        }
        Ok(())
    }

    fn bound(&mut self, rows: &mut Rows<'_>, account: &str, arn: Option<&str>) -> Result<()> {
        self.boundary = arn.map(|arn| managed_policy(rows, account, arn)).transpose()?;
        Ok(())
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

/// A stored identity policy, compiled. It was checked when it was stored.
pub fn compiled(name: &str, document: &str) -> Result<Arc<Policy>> {
    compile(name, document, Kind::Identity).map(Arc::new)
}

/// A stored policy of any kind, compiled.
pub fn compile(name: &str, document: &str, kind: Kind) -> Result<Policy> {
    match document::parse(document, kind) {
        Ok(document) => Ok(Policy::compile(name, document)),
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
