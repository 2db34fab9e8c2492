//! CreateUser, GetUser, ListUsers, UpdateUser, DeleteUser.

use super::boundary::{self, BoundaryOut};
use super::entity::{Of, add, again, leave, remove, without_policies};
use super::list::{BelowInput, Next};
use super::name::{self, Naming, OneInput, UserName, check_path};
use super::tags::{self, TagPair};
use super::{conflict, invalid, route};
use crate::envelope::access_key::random_id;
use crate::name::Service;
use crate::ops::authority::last_part;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::Result;
use crate::ops::scene::iso;
use crate::ops::shape::{Checks, Empty};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{PrincipalKind, Values};
use crate::store::principals::{Group, Role, User};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A user in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UserOut {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    user_id: String,
    arn: String,
    create_date: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions_boundary: Option<BoundaryOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<TagPair>>,
}

impl UserOut {
    /// Without its boundary and tags, as lists have it.
    pub(super) fn short(user: &User) -> Self {
        Self {
            path: user.path.clone(),
            user_name: Some(user.name.clone()),
            user_id: user.id.clone(),
            arn: user.arn(),
            create_date: iso(user.created),
            permissions_boundary: None,
            tags: None,
        }
    }

    /// With everything.
    pub(super) fn of(user: &User) -> Self {
        Self {
            permissions_boundary: BoundaryOut::of(user.boundary.as_deref()),
            tags: tags::shown(&user.tags),
            ..Self::short(user)
        }
    }
}

/// What [`CreateUser`] and [`GetUser`] answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UserOutput {
    user: UserOut,
}

/// CreateUser: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateUser.html>.
pub struct CreateUser;

/// What [`CreateUser`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateUserInput {
    #[serde(flatten)]
    naming: UserName,
    path: Option<String>,
    permissions_boundary: Option<String>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    tags: Option<Vec<TagPair>>,
}

impl Input for CreateUserInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        check_path(checks, "path", self.path.as_deref());
        boundary::check(checks, self.permissions_boundary.as_deref());
        tags::check(checks, self.tags.as_deref());
    }
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        boundary::fact(self.permissions_boundary.as_deref(), key)
            .or_else(|| tags::brought(self.tags.as_deref(), key))
    }
}

impl Operation for CreateUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateUser";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/CreateUser");
    type Input = CreateUserInput;
    type Target = Of<User>;
    type Output = UserOutput;

    async fn locate(call: &Call, input: &CreateUserInput) -> Result<Of<User>> {
        Ok(Of::new(call, name::path(input.path.as_deref())?, input.naming.name()?))
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<User>>,
        input: CreateUserInput,
    ) -> Result<UserOutput> {
        let tags = tags::allowed(call, "TagUser", target.into_inner(), input.tags.as_deref())?;
        let user = User {
            account: call.caller.account.clone(),
            name: input.naming.name()?.to_owned(),
            path: name::path(input.path.as_deref())?.to_owned(),
            id: random_id(&*call.world.random, "AIDA")?,
            created: call.now,
            tags,
            inline: Vec::new(),
            attached: Vec::new(),
            groups: Vec::new(),
            boundary: input.permissions_boundary,
            revision: 1,
        };
        let output = UserOutput { user: UserOut::of(&user) };
        call.answering(&output)?;
        call.commit(move |rows| {
            add(rows, &user)?;
            boundary::there(rows, &user.account, user.boundary.as_deref())
        })
        .await?;
        Ok(output)
    }
}

/// The user that an operation acts on if none is named: the caller; none for the account's root.
///
/// # Errors
/// [`Validation`](crate::ops::error::Condition::Validation) for callers that are neither.
pub(super) fn named_or_caller<'a>(call: &'a Call, named: &'a UserName) -> Result<Option<&'a str>> {
    if named.value().is_some() {
        return named.name().map(Some);
    }
    match call.caller.kind {
        PrincipalKind::User => Ok(Some(last_part(call.caller.principal_arn()))),
        PrincipalKind::Root => Ok(None),
        PrincipalKind::AssumedRole
        | PrincipalKind::WebIdentity
        | PrincipalKind::Certificate
        | PrincipalKind::System => {
            Err(invalid("Must specify userName when calling with non-User credentials"))
        }
    }
}

/// The bounds of a name that may be left out.
pub(super) fn check_named(checks: &mut Checks, named: &UserName) {
    checks.length(UserName::MEMBER, named.value().as_deref(), 1, UserName::MOST);
}

/// A user, or the account's root where the root asks and names nobody.
pub enum UserOrRoot {
    /// A user, there or not.
    User(Of<User>),
    /// The root.
    Root {
        /// Its ARN.
        arn: String,
        /// The account.
        account: String,
    },
}

impl Target for UserOrRoot {
    fn arn(&self) -> &str {
        match self {
            Self::User(user) => user.arn(),
            Self::Root { arn, .. } => arn,
        }
    }
    fn owner(&self) -> &str {
        match self {
            Self::User(user) => user.owner(),
            Self::Root { account, .. } => account,
        }
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        match self {
            Self::User(user) => user.fact(call, key),
            Self::Root { .. } => None,
        }
    }
}

impl UserOrRoot {
    /// The one that is named, or who calls.
    pub(super) fn locate(call: &Call, named: &UserName) -> Result<Self> {
        Ok(match named_or_caller(call, named)? {
            Some(name) => Self::User(Of::named(call, name)?),
            None => {
                Self::Root { arn: call.caller.arn.clone(), account: call.caller.account.clone() }
            }
        })
    }
}

/// GetUser: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetUser.html>.
pub struct GetUser;

/// What [`GetUser`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetUserInput {
    #[serde(flatten)]
    naming: UserName,
}

impl Input for GetUserInput {
    fn check(&self, checks: &mut Checks) {
        check_named(checks, &self.naming);
    }
}

impl Operation for GetUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetUser";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/GetUser");
    type Input = GetUserInput;
    type Target = UserOrRoot;
    type Output = UserOutput;

    async fn locate(call: &Call, input: &GetUserInput) -> Result<UserOrRoot> {
        UserOrRoot::locate(call, &input.naming)
    }

    async fn run(call: &Call, target: Allowed<UserOrRoot>, _: GetUserInput) -> Result<UserOutput> {
        let user = match target.into_inner() {
            UserOrRoot::User(user) => UserOut::of(user.there()?),
            UserOrRoot::Root { arn, account } => {
                let about = call.records.read(|rows| rows.account(&account))?;
                let created = about.map(|a| a.created).unwrap_or(call.now);
                UserOut {
                    path: "/".to_owned(),
                    user_name: None,
                    user_id: account,
                    arn,
                    create_date: iso(created),
                    permissions_boundary: None,
                    tags: None,
                }
            }
        };
        Ok(UserOutput { user })
    }
}

/// ListUsers: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListUsers.html>.
pub struct ListUsers;

/// What [`ListUsers`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListUsersOutput {
    users: Vec<UserOut>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListUsers {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListUsers";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListUsers");
    type Input = BelowInput;
    type Target = super::account::Everything;
    type Output = ListUsersOutput;

    async fn locate(call: &Call, input: &BelowInput) -> Result<Self::Target> {
        Ok(super::account::Everything::below(call, "user", input))
    }

    async fn run(
        call: &Call,
        _: Allowed<Self::Target>,
        input: BelowInput,
    ) -> Result<ListUsersOutput> {
        let below = input.path_prefix.as_deref();
        let (users, next) = input.paging.documents::<User>(call, below).await?;
        Ok(ListUsersOutput { users: users.iter().map(UserOut::short).collect(), next })
    }
}

/// UpdateUser: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateUser.html>.
pub struct UpdateUser;

/// What [`UpdateUser`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateUserInput {
    #[serde(flatten)]
    naming: UserName,
    new_path: Option<String>,
    new_user_name: Option<String>,
}

impl Input for UpdateUserInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        check_path(checks, "newPath", self.new_path.as_deref());
        checks.length("newUserName", self.new_user_name.as_deref(), 1, 64);
    }
}

impl Operation for UpdateUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateUser";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/UpdateUser");
    type Input = UpdateUserInput;
    type Target = Of<User>;
    type Output = Empty;

    async fn locate(call: &Call, input: &UpdateUserInput) -> Result<Of<User>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<User>>, input: UpdateUserInput) -> Result<Empty> {
        let known = target.there()?.clone();
        let new_name = ("newUserName", input.new_user_name.as_deref());
        let (path, name) = target.moving(call, input.new_path.as_deref(), new_name)?;
        call.commit(move |rows| {
            let mut user = again(rows, &*known)?;
            leave(rows, &user, &name)?;
            user.name.clone_from(&name);
            user.path.clone_from(&path);
            user.revision += 1;
            rows.put_named(&user)?;
            for mut key in rows.access_keys_of(&user.account, &user.id)? {
                key.principal = user.arn();
                rows.put_access_key(&key)?;
            }
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// DeleteUser: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteUser.html>.
pub struct DeleteUser;

impl Operation for DeleteUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteUser";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/DeleteUser");
    type Input = OneInput<UserName>;
    type Target = Of<User>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<User>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<User>>, _: Self::Input) -> Result<Empty> {
        remove(call, &target, |user, rows| {
            if !rows.access_keys_of(&user.account, &user.id)?.is_empty() {
                return Err(conflict("Cannot delete entity, must delete access keys first."));
            }
            without_policies(user)?;
            if !user.groups.is_empty() {
                return Err(conflict("Cannot delete entity, must remove users from group first."));
            }
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// Everybody in an account.
pub(super) struct Everybody {
    /// Its users.
    pub(super) users: Vec<User>,
    /// Its groups.
    pub(super) groups: Vec<Group>,
    /// Its roles.
    pub(super) roles: Vec<Role>,
}

impl Everybody {
    /// Reads them all: for what asks who holds a policy.
    pub(super) fn read(rows: &mut Rows<'_>, account: &str) -> Result<Self> {
        Ok(Self {
            users: rows.all_named(account)?,
            groups: rows.all_named(account)?,
            roles: rows.all_named(account)?,
        })
    }
}
