//! Where a policy that decided hangs now, and its text.

use super::explanation::{Decided, Principal};
use crate::name::Arn;
use crate::ops::authority::last_part;
use crate::ops::error::Result;
use crate::policy::managed;
use crate::store::principals::{Group, Inline, ManagedPolicy, Role, User};
use crate::store::records::Rows;

/// A policy on something.
pub(super) struct Held {
    /// The ARN of what it hangs on; for a managed policy its own.
    pub(super) holder: String,
    /// The name of an inline policy.
    pub(super) name: Option<String>,
    /// The text; none if it is no longer there.
    pub(super) document: Option<String>,
    /// Whether it still counts for the caller.
    pub(super) attached: bool,
}

/// The names of a principal's policies, and where the inline ones hang.
#[derive(Default)]
pub(super) struct Names {
    /// Identity policies: names of inline ones, ARNs of managed ones.
    pub(super) identity: Vec<String>,
    /// The ARN of the boundary.
    pub(super) boundary: Option<String>,
    /// Inline policies, each with the ARN of its holder.
    pub(super) inline: Vec<(String, Inline)>,
}

impl Names {
    /// Those of the user, or of the role behind a session; none for others, or if it is gone.
    pub(super) fn of(rows: &mut Rows<'_>, account: &str, principal: &Principal) -> Result<Self> {
        let arn = principal.role_arn.as_ref().or(principal.arn.as_ref());
        let Some(parts) = arn.and_then(|arn| Arn::parse(arn)) else { return Ok(Self::default()) };
        let mut names = Self::default();
        if parts.account != account {
            return Ok(names);
        }
        let name = last_part(parts.resource);
        match parts.resource.split('/').next() {
            Some("user") => names.of_user(rows, account, name)?,
            Some("role") => {
                if let Some(role) = rows.named::<Role>(account, name)? {
                    let arn = role.arn();
                    names.add(&arn, role.inline, role.attached);
                    names.boundary = role.boundary;
                }
            }
            _ => {}
        }
        Ok(names)
    }

    fn of_user(&mut self, rows: &mut Rows<'_>, account: &str, name: &str) -> Result<()> {
        let Some(user) = rows.named::<User>(account, name)? else { return Ok(()) };
        let arn = user.arn();
        self.add(&arn, user.inline, user.attached);
        self.boundary = user.boundary;
        for group in &user.groups {
            if let Some(group) = rows.named::<Group>(account, group)? {
                let arn = group.arn();
                self.add(&arn, group.inline, group.attached);
            }
        }
        Ok(())
    }

    fn add(&mut self, holder: &str, inline: Vec<Inline>, attached: Vec<String>) {
        self.identity.extend(inline.iter().map(|policy| policy.name.clone()));
        self.identity.extend(attached);
        self.inline.extend(inline.into_iter().map(|policy| (holder.to_owned(), policy)));
    }
}

/// The policies that a decision may mean, as they are now; of this account's alone.
pub(super) fn of(
    rows: &mut Rows<'_>,
    region: &str,
    account: &str,
    decided: &Decided,
    names: &Names,
) -> Result<Vec<Held>> {
    let Some(policy) = decided.policy.as_deref() else { return Ok(Vec::new()) };
    if decided.kind.as_deref() == Some("resource-based policy") {
        let document = own_policy(rows, region, account, &decided.resource)?;
        let holder = decided.resource.clone();
        return Ok(vec![Held { holder, name: None, document, attached: true }]);
    }
    if policy.starts_with("arn:") {
        let boundary = decided.kind.as_deref() == Some("permissions boundary");
        let attached = match decided.kind.as_deref() {
            Some("identity-based policy") => names.identity.iter().any(|name| name == policy),
            _ => !boundary || names.boundary.as_deref() == Some(policy),
        };
        let document = managed_document(rows, account, policy)?;
        return Ok(vec![Held { holder: policy.to_owned(), name: None, document, attached }]);
    }
    let inline = names.inline.iter().filter(|(_, inline)| inline.name == policy);
    let held = inline.map(|(holder, inline)| Held {
        holder: holder.clone(),
        name: Some(inline.name.clone()),
        document: Some(inline.document.clone()),
        attached: true,
    });
    Ok(held.collect())
}

/// What a resource's own policy goes by, if it has one.
pub(super) fn of_resource(
    rows: &mut Rows<'_>,
    region: &str,
    account: &str,
    resource: &str,
) -> Result<Option<String>> {
    let document = own_policy(rows, region, account, resource)?;
    Ok(document.map(|_| resource.to_owned()))
}

fn managed_document(rows: &mut Rows<'_>, account: &str, arn: &str) -> Result<Option<String>> {
    if let Some(ours) = managed::find(arn) {
        return Ok(Some(ours.document.to_owned()));
    }
    let policy = rows.named::<ManagedPolicy>(account, last_part(arn))?;
    let policy = policy.filter(|policy| policy.arn() == arn);
    Ok(policy.as_ref().and_then(ManagedPolicy::document).map(str::to_owned))
}

/// The text of the policy that a key, a secret or a role has itself.
fn own_policy(
    rows: &mut Rows<'_>,
    region: &str,
    account: &str,
    resource: &str,
) -> Result<Option<String>> {
    let Some(arn) = Arn::parse(resource).filter(|arn| arn.account == account) else {
        return Ok(None);
    };
    let here = arn.region == region;
    if arn.service == "kms" && here {
        let id = arn.resource.strip_prefix("key/");
        let key = id.map(|id| rows.key(id)).transpose()?.flatten();
        return Ok(key.filter(|key| key.account == account).map(|key| key.policy));
    }
    if arn.service == "secretsmanager" && here {
        let named = arn.resource.strip_prefix("secret:").and_then(|r| r.rsplit_once('-'));
        let Some((name, suffix)) = named else { return Ok(None) };
        let secret = rows.secret(account, name)?.filter(|secret| secret.suffix == suffix);
        return Ok(secret.and_then(|secret| secret.policy));
    }
    if arn.service == "iam" && arn.resource.starts_with("role/") {
        let role = rows.named::<Role>(account, last_part(arn.resource))?;
        return Ok(role.map(|role| role.trust));
    }
    Ok(None)
}
