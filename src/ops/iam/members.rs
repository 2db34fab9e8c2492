//! AddUserToGroup, RemoveUserFromGroup, ListGroupsForUser.

use super::entity::{Entity, Of, again};
use super::groups::{GroupOut, ListGroupsOutput, is_in};
use super::list::PagedInput;
use super::name::{GroupName, Naming, UserName};
use super::{exceeded, no_such_entity, quota, route};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Error, Result};
use crate::ops::shape::{Checks, Empty};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::principals::{Group, User};
use schemars::JsonSchema;
use serde::Deserialize;

/// What [`AddUserToGroup`] and [`RemoveUserFromGroup`] take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct MembershipInput {
    #[serde(flatten)]
    group: GroupName,
    #[serde(flatten)]
    user: UserName,
}

impl Input for MembershipInput {
    fn check(&self, checks: &mut Checks) {
        self.group.check(checks);
        self.user.check(checks);
    }
}

/// Changes which groups a user is in; the group is there while it is done.
async fn change(
    call: &Call,
    group: &Of<Group>,
    user: &str,
    mut f: impl FnMut(&mut User, &Group) -> Result<()> + Send + 'static,
) -> Result<()> {
    let group = group.there()?.clone();
    let user = user.to_owned();
    call.commit(move |rows| {
        let group = again(rows, &*group)?;
        let found = rows.named::<User>(&group.account, &user)?;
        let mut user = found.ok_or_else(|| User::missing(&user))?;
        f(&mut user, &group)?;
        user.revision += 1;
        Ok(rows.put_named(&user)?)
    })
    .await
}

/// AddUserToGroup: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_AddUserToGroup.html>.
pub struct AddUserToGroup;

impl Operation for AddUserToGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "AddUserToGroup";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/AddUserToGroup");
    type Input = MembershipInput;
    type Target = Of<Group>;
    type Output = Empty;

    async fn locate(call: &Call, input: &MembershipInput) -> Result<Of<Group>> {
        input.user.name()?;
        Of::named(call, input.group.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<Group>>, input: MembershipInput) -> Result<Empty> {
        change(call, &target, input.user.name()?, |user, group| {
            if is_in(user, &group.name) {
                return Ok(());
            }
            if user.groups.len() >= quota::GROUPS_PER_USER {
                return Err(exceeded("GroupsPerUser", quota::GROUPS_PER_USER));
            }
            user.groups.push(group.name.clone());
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// RemoveUserFromGroup:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_RemoveUserFromGroup.html>.
pub struct RemoveUserFromGroup;

impl Operation for RemoveUserFromGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "RemoveUserFromGroup";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/RemoveUserFromGroup");
    type Input = MembershipInput;
    type Target = Of<Group>;
    type Output = Empty;

    async fn locate(call: &Call, input: &MembershipInput) -> Result<Of<Group>> {
        input.user.name()?;
        Of::named(call, input.group.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<Group>>, input: MembershipInput) -> Result<Empty> {
        change(call, &target, input.user.name()?, |user, group| {
            if !is_in(user, &group.name) {
                let text = format!("User {} not in group {}", user.name, group.name);
                return Err(no_such_entity(text));
            }
            user.groups.retain(|name| !name.eq_ignore_ascii_case(&group.name));
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// ListGroupsForUser:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListGroupsForUser.html>.
pub struct ListGroupsForUser;

impl Operation for ListGroupsForUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListGroupsForUser";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListGroupsForUser");
    type Input = PagedInput<UserName>;
    type Target = Of<User>;
    type Output = ListGroupsOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<User>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<User>>,
        input: Self::Input,
    ) -> Result<ListGroupsOutput> {
        let user = target.there()?;
        let groups = call.records.read(|rows| {
            let mut groups = Vec::with_capacity(user.groups.len());
            for name in &user.groups {
                groups.extend(rows.named::<Group>(&user.account, name)?);
            }
            Ok::<_, Error>(groups)
        })?;
        let groups = groups.iter().map(GroupOut::of).collect();
        let (groups, next) =
            input.paging.page(call, &user.id, groups, |group| group.name().to_ascii_lowercase())?;
        Ok(ListGroupsOutput { groups, next })
    }
}
