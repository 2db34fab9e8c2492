//! CreateRole, GetRole, ListRoles, UpdateRole, UpdateRoleDescription, UpdateAssumeRolePolicy,
//! DeleteRole.

use super::account::Everything;
use super::boundary::{self, BoundaryOut};
use super::entity::{Of, add, change, remove, without_policies};
use super::list::{BelowInput, Next};
use super::name::{self, Naming, OneInput, RoleName, check_path};
use super::tags::{self, TagPair};
use super::{documents, encoded, route};
use crate::envelope::access_key::random_id;
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::holder::{meant, policy_shown};
use crate::ops::scene::iso;
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::policy::document::Kind;
use crate::store::grants::Holder;
use crate::store::principals::Role;
use crate::store::records::Made;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shortest of longest sessions, and what holds if nothing is said: an hour.
const SHORTEST: i64 = 3600;
/// The longest that a role's sessions may be: 12 hours.
const LONGEST: i64 = 43_200;

/// A role in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RoleOut {
    path: String,
    role_name: String,
    role_id: String,
    arn: String,
    create_date: String,
    assume_role_policy_document: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    max_session_duration: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions_boundary: Option<BoundaryOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<TagPair>>,
}

impl RoleOut {
    /// Without its boundary and tags, as lists have it.
    pub(super) fn short(call: &Call, role: &Role) -> Result<Self> {
        Ok(Self {
            path: role.path.clone(),
            role_name: role.name.clone(),
            role_id: role.id.clone(),
            arn: role.arn(),
            create_date: iso(role.created),
            assume_role_policy_document: encoded(&trust_shown(call, role)?),
            description: role.description.clone(),
            max_session_duration: role.max_session,
            permissions_boundary: None,
            tags: None,
        })
    }

    /// With everything.
    pub(super) fn of(call: &Call, role: &Role) -> Result<Self> {
        Ok(Self {
            permissions_boundary: BoundaryOut::of(role.boundary.as_deref()),
            tags: tags::shown(&role.tags),
            ..Self::short(call, role)?
        })
    }
}

/// A role's trust policy as answers show it.
pub(super) fn trust_shown(call: &Call, role: &Role) -> Result<String> {
    policy_shown(&call.records, &role.trust, &role.trust_holders)
}

/// What operations answer with a role.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RoleOutput {
    role: RoleOut,
}

fn check_description(checks: &mut Checks, description: Option<&str>) {
    checks.length("description", description, 0, 1000);
    let fits = |text: &str| {
        text.chars()
            .all(|c| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{7e}' | '\u{a1}'..='\u{ff}'))
    };
    let pattern = "[\\u0009\\u000A\\u000D\\u0020-\\u007E\\u00A1-\\u00FF]*";
    checks.pattern("description", description, pattern, fits);
}

fn check_duration(checks: &mut Checks, duration: Option<i64>) {
    checks.range("maxSessionDuration", duration, SHORTEST, LONGEST);
}

/// Whom a trust policy means, if it is one and not too long.
fn trusted(call: &Call, text: &str) -> Result<Vec<Holder>> {
    let document = documents::sound(text, Kind::Trust)?;
    meant(&call.records, &document, |why| documents::refusal(&why, Kind::Trust))
}

/// CreateRole: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html>.
pub struct CreateRole;

/// What [`CreateRole`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateRoleInput {
    #[serde(flatten)]
    naming: RoleName,
    path: Option<String>,
    assume_role_policy_document: Option<String>,
    description: Option<String>,
    max_session_duration: Option<i64>,
    permissions_boundary: Option<String>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    tags: Option<Vec<TagPair>>,
}

impl Input for CreateRoleInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        check_path(checks, "path", self.path.as_deref());
        checks.required("assumeRolePolicyDocument", &self.assume_role_policy_document);
        let document = self.assume_role_policy_document.as_deref();
        documents::check(checks, "assumeRolePolicyDocument", document);
        check_description(checks, self.description.as_deref());
        check_duration(checks, self.max_session_duration);
        boundary::check(checks, self.permissions_boundary.as_deref());
        tags::check(checks, self.tags.as_deref());
    }
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        boundary::fact(self.permissions_boundary.as_deref(), key)
            .or_else(|| tags::brought(self.tags.as_deref(), key))
    }
}

impl Operation for CreateRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateRole";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/CreateRole");
    type Input = CreateRoleInput;
    type Target = Of<Role>;
    type Output = RoleOutput;

    async fn locate(call: &Call, input: &CreateRoleInput) -> Result<Of<Role>> {
        Ok(Of::new(call, name::path(input.path.as_deref())?, input.naming.name()?))
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<Role>>,
        input: CreateRoleInput,
    ) -> Result<RoleOutput> {
        let tags = tags::allowed(call, "TagRole", target.into_inner(), input.tags.as_deref())?;
        let document = given(&input.assume_role_policy_document, "assumeRolePolicyDocument")?;
        let role = Role {
            account: call.caller.account.clone(),
            name: input.naming.name()?.to_owned(),
            path: name::path(input.path.as_deref())?.to_owned(),
            id: random_id(&*call.world.random, "AROA")?,
            description: input.description,
            created: call.now,
            max_session: input.max_session_duration.unwrap_or(SHORTEST),
            trust: document.clone(),
            trust_holders: trusted(call, document)?,
            tags,
            inline: Vec::new(),
            attached: Vec::new(),
            boundary: input.permissions_boundary,
            revision: 1,
            made: Made::default(),
        };
        let output = RoleOutput { role: RoleOut::of(call, &role)? };
        call.answering(&output)?;
        call.commit(move |rows| {
            add(rows, &role)?;
            boundary::there(rows, &role.account, role.boundary.as_deref())
        })
        .await?;
        Ok(output)
    }
}

/// GetRole: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html>.
pub struct GetRole;

impl Operation for GetRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetRole";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/GetRole");
    type Input = OneInput<RoleName>;
    type Target = Of<Role>;
    type Output = RoleOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<Role>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<Role>>, _: Self::Input) -> Result<RoleOutput> {
        Ok(RoleOutput { role: RoleOut::of(call, target.there()?)? })
    }
}

/// ListRoles: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListRoles.html>.
pub struct ListRoles;

/// What [`ListRoles`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListRolesOutput {
    roles: Vec<RoleOut>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListRoles {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListRoles";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListRoles");
    type Input = BelowInput;
    type Target = Everything;
    type Output = ListRolesOutput;

    async fn locate(call: &Call, input: &BelowInput) -> Result<Everything> {
        Ok(Everything::below(call, "role", input))
    }

    async fn run(
        call: &Call,
        _: Allowed<Everything>,
        input: BelowInput,
    ) -> Result<ListRolesOutput> {
        let below = input.path_prefix.as_deref();
        let (roles, next) = input.paging.documents::<Role>(call, below).await?;
        let roles = roles.iter().map(|role| RoleOut::short(call, role)).collect::<Result<_>>()?;
        Ok(ListRolesOutput { roles, next })
    }
}

/// UpdateRole: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateRole.html>.
pub struct UpdateRole;

/// What [`UpdateRole`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateRoleInput {
    #[serde(flatten)]
    naming: RoleName,
    description: Option<String>,
    max_session_duration: Option<i64>,
}

impl Input for UpdateRoleInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        check_description(checks, self.description.as_deref());
        check_duration(checks, self.max_session_duration);
    }
}

/// What [`UpdateRole`] answers: nothing, in a result element that AWS gives it all the same.
#[derive(Serialize, JsonSchema)]
pub struct UpdateRoleOutput {}

impl Operation for UpdateRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateRole";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/UpdateRole");
    type Input = UpdateRoleInput;
    type Target = Of<Role>;
    type Output = UpdateRoleOutput;

    async fn locate(call: &Call, input: &UpdateRoleInput) -> Result<Of<Role>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<Role>>,
        input: UpdateRoleInput,
    ) -> Result<UpdateRoleOutput> {
        change(call, &target, move |role, _| {
            if let Some(description) = &input.description {
                role.description = Some(description.clone());
            }
            // As in AWS: what is not said is set back.
            role.max_session = input.max_session_duration.unwrap_or(SHORTEST);
            Ok(())
        })
        .await?;
        Ok(UpdateRoleOutput {})
    }
}

/// UpdateRoleDescription:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateRoleDescription.html>.
pub struct UpdateRoleDescription;

/// What [`UpdateRoleDescription`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateRoleDescriptionInput {
    #[serde(flatten)]
    naming: RoleName,
    description: Option<String>,
}

impl Input for UpdateRoleDescriptionInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        checks.required("description", &self.description);
        check_description(checks, self.description.as_deref());
    }
}

impl Operation for UpdateRoleDescription {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateRoleDescription";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/UpdateRoleDescription");
    type Input = UpdateRoleDescriptionInput;
    type Target = Of<Role>;
    type Output = RoleOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<Role>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<Role>>, input: Self::Input) -> Result<RoleOutput> {
        let description = input.description;
        let described = Role { description: description.clone(), ..Role::clone(target.there()?) };
        let output = RoleOutput { role: RoleOut::of(call, &described)? };
        call.answering(&output)?;
        change(call, &target, move |role, _| {
            role.description.clone_from(&description);
            Ok(())
        })
        .await?;
        Ok(output)
    }
}

/// UpdateAssumeRolePolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAssumeRolePolicy.html>.
pub struct UpdateAssumeRolePolicy;

/// What [`UpdateAssumeRolePolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateAssumeRolePolicyInput {
    #[serde(flatten)]
    naming: RoleName,
    policy_document: Option<String>,
}

impl Input for UpdateAssumeRolePolicyInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        checks.required("policyDocument", &self.policy_document);
        documents::check(checks, "policyDocument", self.policy_document.as_deref());
    }
}

impl Operation for UpdateAssumeRolePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateAssumeRolePolicy";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/UpdateAssumeRolePolicy");
    type Input = UpdateAssumeRolePolicyInput;
    type Target = Of<Role>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<Role>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<Role>>, input: Self::Input) -> Result<Empty> {
        target.there()?;
        let trust = given(&input.policy_document, "policyDocument")?.clone();
        let holders = trusted(call, &trust)?;
        change(call, &target, move |role, _| {
            role.trust.clone_from(&trust);
            role.trust_holders.clone_from(&holders);
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// DeleteRole: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteRole.html>.
pub struct DeleteRole;

impl Operation for DeleteRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteRole";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/DeleteRole");
    type Input = OneInput<RoleName>;
    type Target = Of<Role>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<Role>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<Role>>, _: Self::Input) -> Result<Empty> {
        remove(call, &target, |role, _| without_policies(role)).await?;
        Ok(Empty {})
    }
}
