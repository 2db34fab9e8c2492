//! CreateGroup, GetGroup, ListGroups, UpdateGroup, DeleteGroup.

use super::account::Everything;
use super::entity::{Of, add, again, leave, remove, without_policies};
use super::list::{BelowInput, Next, PagedInput};
use super::name::{self, GroupName, Naming, OneInput, check_path};
use super::users::UserOut;
use super::{conflict, route};
use crate::envelope::access_key::random_id;
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Error, Result};
use crate::ops::scene::iso;
use crate::ops::shape::{Checks, Empty};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::principals::{Group, User};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A group in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GroupOut {
    path: String,
    group_name: String,
    group_id: String,
    arn: String,
    create_date: String,
}

impl GroupOut {
    /// What it is.
    pub(super) fn of(group: &Group) -> Self {
        Self {
            path: group.path.clone(),
            group_name: group.name.clone(),
            group_id: group.id.clone(),
            arn: group.arn(),
            create_date: iso(group.created),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        self.group_name.clone()
    }
}

/// CreateGroup: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateGroup.html>.
pub struct CreateGroup;

/// What [`CreateGroup`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateGroupInput {
    #[serde(flatten)]
    naming: GroupName,
    path: Option<String>,
}

impl Input for CreateGroupInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        check_path(checks, "path", self.path.as_deref());
    }
}

/// What [`CreateGroup`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GroupOutput {
    group: GroupOut,
}

impl Operation for CreateGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateGroup";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/CreateGroup");
    type Input = CreateGroupInput;
    type Target = Of<Group>;
    type Output = GroupOutput;

    async fn locate(call: &Call, input: &CreateGroupInput) -> Result<Of<Group>> {
        Ok(Of::new(call, name::path(input.path.as_deref())?, input.naming.name()?))
    }

    async fn run(
        call: &Call,
        _: Allowed<Of<Group>>,
        input: CreateGroupInput,
    ) -> Result<GroupOutput> {
        let group = Group {
            account: call.caller.account.clone(),
            name: input.naming.name()?.to_owned(),
            path: name::path(input.path.as_deref())?.to_owned(),
            id: random_id(&*call.world.random, "AGPA")?,
            created: call.now,
            inline: Vec::new(),
            attached: Vec::new(),
            revision: 1,
        };
        let output = GroupOutput { group: GroupOut::of(&group) };
        call.answering(&output)?;
        call.commit(move |rows| add(rows, &group)).await?;
        Ok(output)
    }
}

/// The users that are in a group.
pub(super) fn members(rows: &mut Rows<'_>, group: &Group) -> Result<Vec<User>> {
    let mut users = rows.all_named::<User>(&group.account)?;
    users.retain(|user| is_in(user, &group.name));
    Ok(users)
}

/// Whether a user is in the group of this name.
pub(super) fn is_in(user: &User, group: &str) -> bool {
    user.groups.iter().any(|name| name.eq_ignore_ascii_case(group))
}

/// GetGroup: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetGroup.html>.
pub struct GetGroup;

/// What [`GetGroup`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetGroupOutput {
    group: GroupOut,
    users: Vec<UserOut>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for GetGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetGroup";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/GetGroup");
    type Input = PagedInput<GroupName>;
    type Target = Of<Group>;
    type Output = GetGroupOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<Group>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<Group>>,
        input: Self::Input,
    ) -> Result<GetGroupOutput> {
        let group = target.there()?.clone();
        let known = group.clone();
        let users = call.records.scan::<_, Error>(move |rows| members(rows, &known)).await?;
        let (users, next) =
            input.paging.page(call, &group.id, users, |user| user.name.to_ascii_lowercase())?;
        let users = users.iter().map(UserOut::short).collect();
        Ok(GetGroupOutput { group: GroupOut::of(&group), users, next })
    }
}

/// ListGroups: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListGroups.html>.
pub struct ListGroups;

/// What [`ListGroups`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListGroupsOutput {
    pub(super) groups: Vec<GroupOut>,
    #[serde(flatten)]
    pub(super) next: Next,
}

impl Operation for ListGroups {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListGroups";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListGroups");
    type Input = BelowInput;
    type Target = Everything;
    type Output = ListGroupsOutput;

    async fn locate(call: &Call, input: &BelowInput) -> Result<Everything> {
        Ok(Everything::below(call, "group", input))
    }

    async fn run(
        call: &Call,
        _: Allowed<Everything>,
        input: BelowInput,
    ) -> Result<ListGroupsOutput> {
        let below = input.path_prefix.as_deref();
        let (groups, next) = input.paging.documents::<Group>(call, below).await?;
        Ok(ListGroupsOutput { groups: groups.iter().map(GroupOut::of).collect(), next })
    }
}

/// UpdateGroup: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateGroup.html>.
pub struct UpdateGroup;

/// What [`UpdateGroup`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateGroupInput {
    #[serde(flatten)]
    naming: GroupName,
    new_path: Option<String>,
    new_group_name: Option<String>,
}

impl Input for UpdateGroupInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        check_path(checks, "newPath", self.new_path.as_deref());
        checks.length("newGroupName", self.new_group_name.as_deref(), 1, 128);
    }
}

impl Operation for UpdateGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateGroup";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/UpdateGroup");
    type Input = UpdateGroupInput;
    type Target = Of<Group>;
    type Output = Empty;

    async fn locate(call: &Call, input: &UpdateGroupInput) -> Result<Of<Group>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<Group>>,
        input: UpdateGroupInput,
    ) -> Result<Empty> {
        let known = target.there()?.clone();
        let new_name = ("newGroupName", input.new_group_name.as_deref());
        let (path, name) = target.moving(call, input.new_path.as_deref(), new_name)?;
        call.commit(move |rows| {
            let mut group = again(rows, &*known)?;
            leave(rows, &group, &name)?;
            if group.name != name {
                rename_in_members(rows, &group, &name)?;
            }
            group.name.clone_from(&name);
            group.path.clone_from(&path);
            group.revision += 1;
            Ok(rows.put_named(&group)?)
        })
        .await?;
        Ok(Empty {})
    }
}

/// The members of a group know it by its name.
fn rename_in_members(rows: &mut Rows<'_>, group: &Group, new_name: &str) -> Result<()> {
    for mut user in members(rows, group)? {
        for name in &mut user.groups {
            if name.eq_ignore_ascii_case(&group.name) {
                new_name.clone_into(name);
            }
        }
        user.revision += 1;
        rows.put_named(&user)?;
    }
    Ok(())
}

/// DeleteGroup: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteGroup.html>.
pub struct DeleteGroup;

impl Operation for DeleteGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteGroup";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/DeleteGroup");
    type Input = OneInput<GroupName>;
    type Target = Of<Group>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<Group>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<Group>>, _: Self::Input) -> Result<Empty> {
        remove(call, &target, |group, rows| {
            without_policies(group)?;
            if !members(rows, group)?.is_empty() {
                return Err(conflict("Cannot delete entity, must remove users from group first."));
            }
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}
