//! GetAccountAuthorizationDetails: everybody and every policy of an account.

use super::account::Everything;
use super::attach::AttachedOut;
use super::boundary::BoundaryOut;
use super::entity::Holder;
use super::list::{Next, Paging};
use super::policies::{PolicyOut, Usage};
use super::roles::trust_shown;
use super::tags::{self, TagPair};
use super::users::Everybody;
use super::versions::VersionOut;
use super::{encoded, route};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Error, Result};
use crate::ops::scene::iso;
use crate::ops::shape::Checks;
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::managed::{self, Managed};
use crate::store::principals::{Group, ManagedPolicy, Role, User};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// GetAccountAuthorizationDetails:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccountAuthorizationDetails.html>.
pub struct GetAccountAuthorizationDetails;

/// What [`GetAccountAuthorizationDetails`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DetailsInput {
    filter: Option<Vec<String>>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for DetailsInput {
    fn check(&self, checks: &mut Checks) {
        let kinds = ["User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy"];
        for (n, kind) in (1..).zip(self.filter.as_deref().unwrap_or_default()) {
            checks.one_of(&format!("filter.{n}.member"), Some(kind), &kinds);
        }
        self.paging.check(checks);
    }
}

impl DetailsInput {
    fn wants(&self, kind: &str) -> bool {
        let filter = self.filter.as_deref().filter(|kinds| !kinds.is_empty());
        filter.is_none_or(|kinds| kinds.iter().any(|wanted| wanted == kind))
    }
}

/// An inline policy.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyDetail {
    policy_name: String,
    policy_document: String,
}

fn inline<D: Holder>(holder: &D) -> Vec<PolicyDetail> {
    let one = |policy: &crate::store::principals::Inline| PolicyDetail {
        policy_name: policy.name.clone(),
        policy_document: encoded(&policy.document),
    };
    holder.inline().iter().map(one).collect()
}

/// A user.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UserDetail {
    path: String,
    user_name: String,
    user_id: String,
    arn: String,
    create_date: String,
    user_policy_list: Vec<PolicyDetail>,
    group_list: Vec<String>,
    attached_managed_policies: Vec<AttachedOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions_boundary: Option<BoundaryOut>,
    tags: Vec<TagPair>,
}

impl From<User> for UserDetail {
    fn from(user: User) -> Self {
        Self {
            user_policy_list: inline(&user),
            attached_managed_policies: AttachedOut::all(&user.attached),
            permissions_boundary: BoundaryOut::of(user.boundary.as_deref()),
            tags: tags::shown(&user.tags).unwrap_or_default(),
            arn: user.arn(),
            create_date: iso(user.created),
            path: user.path,
            user_name: user.name,
            user_id: user.id,
            group_list: user.groups,
        }
    }
}

/// A group.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GroupDetail {
    path: String,
    group_name: String,
    group_id: String,
    arn: String,
    create_date: String,
    group_policy_list: Vec<PolicyDetail>,
    attached_managed_policies: Vec<AttachedOut>,
}

impl From<Group> for GroupDetail {
    fn from(group: Group) -> Self {
        Self {
            group_policy_list: inline(&group),
            attached_managed_policies: AttachedOut::all(&group.attached),
            arn: group.arn(),
            create_date: iso(group.created),
            path: group.path,
            group_name: group.name,
            group_id: group.id,
        }
    }
}

/// A role.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RoleDetail {
    path: String,
    role_name: String,
    role_id: String,
    arn: String,
    create_date: String,
    assume_role_policy_document: String,
    instance_profile_list: [String; 0],
    role_policy_list: Vec<PolicyDetail>,
    attached_managed_policies: Vec<AttachedOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions_boundary: Option<BoundaryOut>,
    tags: Vec<TagPair>,
}

impl RoleDetail {
    fn of(call: &Call, role: Role) -> Result<Self> {
        Ok(Self {
            role_policy_list: inline(&role),
            attached_managed_policies: AttachedOut::all(&role.attached),
            permissions_boundary: BoundaryOut::of(role.boundary.as_deref()),
            tags: tags::shown(&role.tags).unwrap_or_default(),
            assume_role_policy_document: encoded(&trust_shown(call, &role)?),
            instance_profile_list: [],
            arn: role.arn(),
            create_date: iso(role.created),
            path: role.path,
            role_name: role.name,
            role_id: role.id,
        })
    }
}

/// A managed policy with its versions.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ManagedDetail {
    #[serde(flatten)]
    policy: PolicyOut,
    policy_version_list: Vec<VersionOut>,
}

impl ManagedDetail {
    fn of(policy: &ManagedPolicy, usage: &Usage) -> Self {
        let versions = policy.versions.iter().rev();
        Self {
            policy: PolicyOut::short(policy, usage),
            policy_version_list: versions.map(|v| VersionOut::of(policy, v)).collect(),
        }
    }

    fn ours(policy: &Managed, usage: &Usage) -> Self {
        Self {
            policy: PolicyOut::ours(policy, usage),
            policy_version_list: vec![VersionOut::ours(policy)],
        }
    }
}

/// What [`GetAccountAuthorizationDetails`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DetailsOutput {
    user_detail_list: Vec<UserDetail>,
    group_detail_list: Vec<GroupDetail>,
    role_detail_list: Vec<RoleDetail>,
    policies: Vec<ManagedDetail>,
    #[serde(flatten)]
    next: Next,
}

/// One thing of an account.
enum Thing {
    User(User),
    Group(Group),
    Role(Role),
    Customers(ManagedPolicy),
    Ours(&'static Managed),
}

impl Thing {
    /// Its place among all.
    fn place(&self) -> String {
        let (kind, name) = match self {
            Self::User(user) => ("1", user.name.as_str()),
            Self::Group(group) => ("2", group.name.as_str()),
            Self::Role(role) => ("3", role.name.as_str()),
            Self::Customers(policy) => ("4", policy.name.as_str()),
            Self::Ours(policy) => ("5", policy.name),
        };
        [kind, &name.to_ascii_lowercase()].concat()
    }
}

fn wanted(input: &DetailsInput, everybody: Everybody, policies: Vec<ManagedPolicy>) -> Vec<Thing> {
    let mut all = Vec::new();
    if input.wants("User") {
        all.extend(everybody.users.into_iter().map(Thing::User));
    }
    if input.wants("Group") {
        all.extend(everybody.groups.into_iter().map(Thing::Group));
    }
    if input.wants("Role") {
        all.extend(everybody.roles.into_iter().map(Thing::Role));
    }
    if input.wants("LocalManagedPolicy") {
        all.extend(policies.into_iter().map(Thing::Customers));
    }
    if input.wants("AWSManagedPolicy") {
        all.extend(managed::ALL.iter().map(Thing::Ours));
    }
    all
}

impl Operation for GetAccountAuthorizationDetails {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetAccountAuthorizationDetails";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/GetAccountAuthorizationDetails");
    type Input = DetailsInput;
    type Target = Everything;
    type Output = DetailsOutput;

    async fn locate(call: &Call, _: &DetailsInput) -> Result<Everything> {
        Ok(Everything::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<Everything>,
        input: DetailsInput,
    ) -> Result<DetailsOutput> {
        let account = call.caller.account.clone();
        let read = call.records.scan::<_, Error>(move |rows| {
            Ok((Everybody::read(rows, &account)?, rows.all_named::<ManagedPolicy>(&account)?))
        });
        let (everybody, policies) = read.await?;
        let usage = Usage::of(&everybody);
        let shape = input.filter.as_deref().unwrap_or_default().join(" ");
        let all = wanted(&input, everybody, policies);
        let (page, next) = input.paging.page(call, &shape, all, Thing::place)?;
        let mut output = DetailsOutput {
            user_detail_list: Vec::new(),
            group_detail_list: Vec::new(),
            role_detail_list: Vec::new(),
            policies: Vec::new(),
            next,
        };
        for thing in page {
            match thing {
                Thing::User(user) => output.user_detail_list.push(user.into()),
                Thing::Group(group) => output.group_detail_list.push(group.into()),
                Thing::Role(role) => {
                    output.role_detail_list.push(RoleDetail::of(call, role)?);
                }
                Thing::Customers(policy) => {
                    output.policies.push(ManagedDetail::of(&policy, &usage));
                }
                Thing::Ours(policy) => output.policies.push(ManagedDetail::ours(policy, &usage)),
            }
        }
        Ok(output)
    }
}
