//! A policy that is proposed, and what it would stand in place of.

use crate::audit::index::Kind as Listed;
use crate::ops::authority::Instead;
use crate::ops::call::{Call, OwnPolicy, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::{keys, secrets};
use crate::policy::document::{self, Kind};
use crate::policy::{Policy, managed};
use crate::store::principals::{Group, ManagedPolicy, Named, Role, User};
use std::sync::Arc;

/// What a policy would stand in place of.
pub(super) enum Place<'a> {
    /// A managed policy.
    Managed(&'a str),
    /// An inline policy of a user, a group or a role; the policy's name.
    User(&'a str, &'a str),
    /// The same of a group.
    Group(&'a str, &'a str),
    /// The same of a role.
    Role(&'a str, &'a str),
    /// The policy of a key.
    Key(&'a str),
    /// The policy of a secret.
    Secret(&'a str),
}

/// A proposal.
pub(super) enum Proposal {
    /// A policy of principals.
    Identity(Instead),
    /// The policy of the key or secret with this ARN.
    Resource {
        /// The ARN.
        arn: String,
        /// The policy; it has the last word for a key.
        policy: Arc<Policy>,
        /// Whether it is a key's.
        key: bool,
    },
}

impl Proposal {
    /// Reads the document and finds what is named.
    ///
    /// # Errors
    /// [`Condition::MalformedPolicy`]; [`Condition::NotFound`] where there is no such thing.
    pub(super) fn new(call: &Call, place: &Place<'_>, text: &str) -> Result<Self> {
        let account = &call.caller.account;
        match *place {
            Place::Managed(arn) => {
                let name = crate::ops::authority::last_part(arn);
                let policy = call.records.named::<ManagedPolicy>(account, name)?;
                let known = policy.is_some_and(|p| p.arn() == arn) || managed::find(arn).is_some();
                if !known {
                    return Err(missing(arn));
                }
                let policy = compiled(arn, text, Kind::Managed)?;
                Ok(Self::Identity(Instead { holder: None, name: arn.to_owned(), policy }))
            }
            Place::User(user, name) => inline::<User>(call, user, User::arn, name, text),
            Place::Group(group, name) => inline::<Group>(call, group, Group::arn, name, text),
            Place::Role(role, name) => inline::<Role>(call, role, Role::arn, name, text),
            Place::Key(named) => {
                let target = keys::locate(call, named)?;
                let arn = target.arn_of_key(target.key()?);
                let policy = compiled(&arn, text, Kind::Key)?;
                Ok(Self::Resource { arn, policy, key: true })
            }
            Place::Secret(named) => {
                let target = secrets::locate(call, named)?;
                target.secret()?;
                let arn = target.arn().to_owned();
                let policy = compiled(&arn, text, Kind::Resource)?;
                Ok(Self::Resource { arn, policy, key: false })
            }
        }
    }

    /// What it is called in the answer.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Identity(Instead { holder: Some(holder), name, .. }) => {
                format!("{holder} {name}")
            }
            Self::Identity(Instead { name, .. }) => name.clone(),
            Self::Resource { arn, .. } => arn.clone(),
        }
    }

    /// The shortest list of the index that has every request that it may speak of.
    pub(super) fn list(&self) -> (Listed, String) {
        match self {
            Self::Identity(Instead { holder: Some(holder), .. }) if holder.contains(":user/") => {
                (Listed::Username, crate::ops::authority::last_part(holder).to_owned())
            }
            Self::Identity(_) => (Listed::Everything, String::new()),
            Self::Resource { arn, .. } => (Listed::ResourceName, arn.clone()),
        }
    }

    /// The policy that the target would have.
    pub(super) fn own(&self, target: &dyn Target, now: OwnPolicy) -> OwnPolicy {
        match self {
            Self::Resource { arn, policy, key } if target.arn() == arn => {
                let policy = policy.clone();
                if *key { OwnPolicy::Rules(policy) } else { OwnPolicy::Adds(Some(policy)) }
            }
            _ => now,
        }
    }
}

fn inline<D: Named>(
    call: &Call,
    holder: &str,
    arn: fn(&D) -> String,
    name: &str,
    text: &str,
) -> Result<Proposal> {
    let found = call.records.named::<D>(&call.caller.account, holder)?;
    let holder = arn(&*found.ok_or_else(|| missing(holder))?);
    let policy = compiled(name, text, Kind::Identity)?;
    Ok(Proposal::Identity(Instead { holder: Some(holder), name: name.to_owned(), policy }))
}

fn compiled(name: &str, text: &str, kind: Kind) -> Result<Arc<Policy>> {
    let document = document::parse(text, kind)
        .map_err(|why| Error::new(Condition::MalformedPolicy, why.to_string()))?;
    Ok(Arc::new(Policy::compile(name, document)))
}

fn missing(what: &str) -> Error {
    Error::new(Condition::NotFound, format!("there is no {what} in this account"))
}
