//! What IAM's operations act on: users, groups, roles and managed policies, and what they have in
//! common.

use super::name::{self, GroupName, Naming, RoleName, UserName};
use super::{Called, called, conflict, exceeded, no_such_entity, quota};
use crate::ops::call::{Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene::tag;
use crate::policy::{Values, quotas};
use crate::store::keys::Tag;
use crate::store::principals::{Group, Inline, ManagedPolicy, Named, Role, User, arn};
use crate::store::records::Rows;
use std::sync::Arc;

/// A user, group, role or customer managed policy.
pub trait Entity: Named + Clone {
    /// What it is called in messages and ARNs.
    const NOUN: &'static str;
    /// How many of them an account may have, and what that quota is called.
    const QUOTA: (&'static str, i64);
    /// AWS's answer that there is one of this name already.
    fn taken(name: &str) -> Error;
    /// Its path.
    fn path(&self) -> &str;
    /// Its tags.
    fn tags(&self) -> &[Tag];
    /// Its permissions boundary.
    fn boundary(&self) -> Option<&str>;
    /// Says that it has changed.
    fn revise(&mut self);

    /// Its ARN.
    fn arn(&self) -> String {
        arn(Self::NOUN, self.account(), self.path(), self.name())
    }

    /// AWS's answer that there is none of this name.
    fn missing(name: &str) -> Error {
        no_such_entity(format!("The {} with name {name} cannot be found.", Self::NOUN))
    }
}

/// What policies hang on.
pub trait Holder: Entity {
    /// The member that names it.
    type Naming: Naming;
    /// What the operations on its policies are called.
    const WORDS: Words;
    /// Characters that its inline policies may have together, white space aside.
    const INLINE_SIZE: usize;
    /// Its inline policies, by name.
    fn inline(&self) -> &[Inline];
    /// The same, to be changed.
    fn inline_mut(&mut self) -> &mut Vec<Inline>;
    /// ARNs of attached policies.
    fn attached(&self) -> &[String];
    /// The same, to be changed.
    fn attached_mut(&mut self) -> &mut Vec<String>;
}

/// The operations on the policies of a user, a group or a role.
pub struct Words {
    pub(super) attach: Called,
    pub(super) detach: Called,
    pub(super) list_attached: Called,
    pub(super) put: Called,
    pub(super) get: Called,
    pub(super) delete: Called,
    pub(super) list: Called,
    pub(super) quota: &'static str,
}

macro_rules! words {
    ($kind:literal) => {
        Words {
            attach: called!("Attach", $kind, "Policy"),
            detach: called!("Detach", $kind, "Policy"),
            list_attached: called!("ListAttached", $kind, "Policies"),
            put: called!("Put", $kind, "Policy"),
            get: called!("Get", $kind, "Policy"),
            delete: called!("Delete", $kind, "Policy"),
            list: called!("List", $kind, "Policies"),
            quota: concat!("PoliciesPer", $kind),
        }
    };
}

macro_rules! entity {
    ($document:ty, $noun:literal, $quota:expr, $taken:literal, |$this:ident| $tags:expr, |$bounded:ident| $boundary:expr) => {
        impl Entity for $document {
            const NOUN: &'static str = $noun;
            const QUOTA: (&'static str, i64) = $quota;
            fn taken(name: &str) -> Error {
                Error::new(Condition::AlreadyExists, format!($taken, name))
            }
            fn path(&self) -> &str {
                &self.path
            }
            fn tags(&self) -> &[Tag] {
                let $this = self;
                $tags
            }
            fn boundary(&self) -> Option<&str> {
                let $bounded = self;
                $boundary
            }
            fn revise(&mut self) {
                self.revision += 1;
            }
        }
    };
}

macro_rules! holder {
    ($document:ty, $naming:ty, $kind:literal, $size:expr) => {
        impl Holder for $document {
            type Naming = $naming;
            const WORDS: Words = words!($kind);
            const INLINE_SIZE: usize = $size;
            fn inline(&self) -> &[Inline] {
                &self.inline
            }
            fn inline_mut(&mut self) -> &mut Vec<Inline> {
                &mut self.inline
            }
            fn attached(&self) -> &[String] {
                &self.attached
            }
            fn attached_mut(&mut self) -> &mut Vec<String> {
                &mut self.attached
            }
        }
    };
}

entity!(
    User,
    "user",
    ("UsersPerAccount", quota::USERS),
    "User with name {} already exists.",
    |user| &user.tags,
    |user| user.boundary.as_deref()
);
entity!(
    Group,
    "group",
    ("GroupsPerAccount", quota::GROUPS),
    "Group with name {} already exists.",
    |_group| &[],
    |_group| None
);
entity!(
    Role,
    "role",
    ("RolesPerAccount", quota::ROLES),
    "Role with name {} already exists.",
    |role| &role.tags,
    |role| role.boundary.as_deref()
);
entity!(
    ManagedPolicy,
    "policy",
    ("PoliciesPerAccount", quota::POLICIES),
    "A policy called {} already exists. Duplicate names are not allowed.",
    |policy| &policy.tags,
    |_policy| None
);
holder!(User, UserName, "User", quotas::INLINE_USER);
holder!(Group, GroupName, "Group", quotas::INLINE_GROUP);
holder!(Role, RoleName, "Role", quotas::INLINE_ROLE);

/// A user, group, role or policy that a request names, there or not; of the caller's own account.
pub struct Of<D> {
    arn: String,
    account: String,
    name: String,
    found: Option<Arc<D>>,
}

impl<D: Entity> Target for Of<D> {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.account
    }
    fn fact<'a>(&'a self, _: &'a Call, key: &str) -> Option<Values<'a>> {
        attribute(&**self.found.as_ref()?, key)
    }
}

/// The condition keys that an entity answers.
pub(super) fn attribute<'a, D: Entity>(entity: &'a D, key: &str) -> Option<Values<'a>> {
    if key == "iam:permissionsboundary" {
        return entity.boundary().map(Values::one);
    }
    let wanted = ["aws:resourcetag/", "iam:resourcetag/"];
    wanted.iter().find_map(|start| key.strip_prefix(start)).and_then(|k| tag(entity.tags(), k))
}

impl<D: Entity> Of<D> {
    /// The one of this name, or the place where it would be.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn named(call: &Call, name: &str) -> Result<Self> {
        let account = call.caller.account.clone();
        let found = call.records.named::<D>(&account, name)?;
        let arn = match &found {
            Some(entity) => entity.arn(),
            None => arn(D::NOUN, &account, "/", name),
        };
        Ok(Self { arn, account, name: name.to_owned(), found })
    }

    /// The place of a new one.
    pub(super) fn new(call: &Call, path: &str, name: &str) -> Self {
        let account = call.caller.account.clone();
        let arn = arn(D::NOUN, &account, path, name);
        Self { arn, account, name: name.to_owned(), found: None }
    }

    /// The path and name that a request gives it; its own where it gives none. Who may give it
    /// others needs the right on the new ARN too.
    ///
    /// # Errors
    /// [`Condition::Validation`] for a name or path that is none, [`Condition::AccessDenied`].
    pub(super) fn moving(
        &self,
        call: &Call,
        new_path: Option<&str>,
        (member, new_name): (&str, Option<&str>),
    ) -> Result<(String, String)> {
        let known = self.there()?;
        let new_name = new_name.unwrap_or(known.name());
        name::well_formed(member, new_name)?;
        let new_path = match new_path {
            Some(_) => name::path(new_path)?,
            None => known.path(),
        };
        let moved = Self {
            arn: arn(D::NOUN, &self.account, new_path, new_name),
            account: self.account.clone(),
            name: new_name.to_owned(),
            found: self.found.clone(),
        };
        call.allow(call.row.name, moved)?;
        Ok((new_path.to_owned(), new_name.to_owned()))
    }

    /// It, or AWS's answer that there is none.
    pub(super) fn there(&self) -> Result<&Arc<D>> {
        self.found.as_ref().ok_or_else(|| D::missing(&self.name))
    }
}

/// It as it is now, inside a transaction: the same one, not another of its name.
pub(super) fn again<D: Entity>(rows: &mut Rows<'_>, known: &D) -> Result<D> {
    let now = rows.named::<D>(known.account(), known.name())?;
    now.filter(|d| d.id() == known.id()).ok_or_else(|| D::missing(known.name()))
}

/// Puts a new one, if its name is free and the account may have one more.
pub(super) fn add<D: Entity>(rows: &mut Rows<'_>, new: &D) -> Result<()> {
    free::<D>(rows, new.account(), new.name())?;
    let (what, most) = D::QUOTA;
    if rows.count_named::<D>(new.account())? >= most {
        return Err(exceeded(what, most));
    }
    Ok(rows.put_named(new)?)
}

/// Takes it away from the name that it had, if it gets another one that is free.
pub(super) fn leave<D: Entity>(rows: &mut Rows<'_>, known: &D, new_name: &str) -> Result<()> {
    if known.name().eq_ignore_ascii_case(new_name) {
        return Ok(());
    }
    free::<D>(rows, known.account(), new_name)?;
    Ok(rows.delete_named::<D>(known.account(), known.name())?)
}

/// Refuses a name that another one has.
fn free<D: Entity>(rows: &mut Rows<'_>, account: &str, name: &str) -> Result<()> {
    match rows.named::<D>(account, name)? {
        Some(_) => Err(D::taken(name)),
        None => Ok(()),
    }
}

/// Changes it, audited. `f` may run several times.
pub(super) async fn change<D: Entity, T: Send + 'static>(
    call: &Call,
    target: &Of<D>,
    mut f: impl FnMut(&mut D, &mut Rows<'_>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let known = Arc::clone(target.there()?);
    call.commit(move |rows| {
        let mut entity = again(rows, &*known)?;
        let done = f(&mut entity, rows)?;
        entity.revise();
        rows.put_named(&entity)?;
        Ok(done)
    })
    .await
}

/// Deletes it, audited, if `bare` finds that nothing hangs on it.
pub(super) async fn remove<D: Entity>(
    call: &Call,
    target: &Of<D>,
    mut bare: impl FnMut(&D, &mut Rows<'_>) -> Result<()> + Send + 'static,
) -> Result<()> {
    let known = Arc::clone(target.there()?);
    call.commit(move |rows| {
        let entity = again(rows, &*known)?;
        bare(&entity, rows)?;
        Ok(rows.delete_named::<D>(entity.account(), entity.name())?)
    })
    .await
}

/// Refuses to delete what policies hang on.
pub(super) fn without_policies<D: Holder>(holder: &D) -> Result<()> {
    if !holder.attached().is_empty() {
        return Err(conflict("Cannot delete entity, must detach all policies first."));
    }
    if !holder.inline().is_empty() {
        return Err(conflict("Cannot delete entity, must delete policies first."));
    }
    Ok(())
}
