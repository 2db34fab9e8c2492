//! CreateAccessKey, ListAccessKeys, UpdateAccessKey, DeleteAccessKey, GetAccessKeyLastUsed.

use super::entity::{Of, again};
use super::list::{Next, Paging};
use super::name::UserName;
use super::users::{UserOrRoot, check_named};
use super::{exceeded, no_such_entity, quota, route};
use crate::envelope::access_key::Holder;
use crate::name::Service;
use crate::ops::authority::last_part;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene::iso;
use crate::ops::shape::{Checks, Empty, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::identity::{AccessKey, Principal};
use crate::store::principals::User;
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Who holds the access keys that an operation speaks of.
enum Owner {
    User(Arc<User>),
    Root { arn: String, account: String },
}

impl Owner {
    fn of(target: &UserOrRoot) -> Result<Self> {
        Ok(match target {
            UserOrRoot::User(user) => Self::User(user.there()?.clone()),
            UserOrRoot::Root { arn, account } => {
                Self::Root { arn: arn.clone(), account: account.clone() }
            }
        })
    }

    /// The account and the id that the keys hang on; the root's is the account's.
    fn ids(&self) -> (&str, &str) {
        match self {
            Self::User(user) => (&user.account, &user.id),
            Self::Root { account, .. } => (account, account),
        }
    }

    fn user_name(&self) -> Option<String> {
        match self {
            Self::User(user) => Some(user.name.clone()),
            Self::Root { .. } => None,
        }
    }

    /// The keys, while their owner is there.
    fn keys(&self, rows: &mut Rows<'_>) -> Result<Vec<AccessKey>> {
        if let Self::User(user) = self {
            again(rows, &**user)?;
        }
        let (account, id) = self.ids();
        Ok(rows.access_keys_of(account, id)?)
    }

    /// One of the keys.
    fn key(&self, rows: &mut Rows<'_>, id: &str) -> Result<AccessKey> {
        let found = self.keys(rows)?.into_iter().find(|key| key.id == id);
        found.ok_or_else(|| missing(id))
    }
}

fn missing(id: &str) -> Error {
    no_such_entity(format!("The Access Key with id {id} cannot be found."))
}

/// CreateAccessKey: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html>.
pub struct CreateAccessKey;

/// What [`CreateAccessKey`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateAccessKeyInput {
    #[serde(flatten)]
    naming: UserName,
}

impl Input for CreateAccessKeyInput {
    fn check(&self, checks: &mut Checks) {
        check_named(checks, &self.naming);
    }
}

/// A new access key in an answer: the only time that its secret is told.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NewAccessKeyOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    access_key_id: String,
    status: &'static str,
    secret_access_key: SecretText,
    create_date: String,
}

/// What [`CreateAccessKey`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateAccessKeyOutput {
    access_key: NewAccessKeyOut,
}

impl Operation for CreateAccessKey {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateAccessKey";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/CreateAccessKey");
    type Input = CreateAccessKeyInput;
    type Target = UserOrRoot;
    type Output = CreateAccessKeyOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<UserOrRoot> {
        UserOrRoot::locate(call, &input.naming)
    }

    async fn run(
        call: &Call,
        target: Allowed<UserOrRoot>,
        _: Self::Input,
    ) -> Result<CreateAccessKeyOutput> {
        let owner = Owner::of(&target)?;
        let (key, secret) = {
            let (account, id) = owner.ids();
            let (arn, kind) = match &owner {
                Owner::User(user) => (user.arn(), Principal::User),
                Owner::Root { arn, .. } => (arn.clone(), Principal::Root),
            };
            let holder = Holder { account, arn: &arn, id, kind };
            call.mint.make(&*call.world.random, call.now, holder)?
        };
        let output = CreateAccessKeyOutput {
            access_key: NewAccessKeyOut {
                user_name: owner.user_name(),
                access_key_id: key.id.clone(),
                status: status(true),
                secret_access_key: SecretText(secret),
                create_date: iso(key.created),
            },
        };
        call.answering(&output)?;
        call.commit(move |rows| {
            if owner.keys(rows)?.len() >= quota::ACCESS_KEYS {
                return Err(exceeded("AccessKeysPerUser", quota::ACCESS_KEYS));
            }
            let mut key = key.clone();
            if let Owner::User(user) = &owner {
                // The user may have another name by now.
                key.principal = again(rows, &**user)?.arn();
            }
            Ok(rows.put_access_key(&key)?)
        })
        .await?;
        Ok(output)
    }
}

fn status(active: bool) -> &'static str {
    if active { "Active" } else { "Inactive" }
}

/// ListAccessKeys: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListAccessKeys.html>.
pub struct ListAccessKeys;

/// What [`ListAccessKeys`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListAccessKeysInput {
    #[serde(flatten)]
    naming: UserName,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListAccessKeysInput {
    fn check(&self, checks: &mut Checks) {
        check_named(checks, &self.naming);
        self.paging.check(checks);
    }
}

/// An access key in a list.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AccessKeyOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    access_key_id: String,
    status: &'static str,
    create_date: String,
}

/// What [`ListAccessKeys`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListAccessKeysOutput {
    access_key_metadata: Vec<AccessKeyOut>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListAccessKeys {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListAccessKeys";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListAccessKeys");
    type Input = ListAccessKeysInput;
    type Target = UserOrRoot;
    type Output = ListAccessKeysOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<UserOrRoot> {
        UserOrRoot::locate(call, &input.naming)
    }

    async fn run(
        call: &Call,
        target: Allowed<UserOrRoot>,
        input: Self::Input,
    ) -> Result<ListAccessKeysOutput> {
        let owner = Owner::of(&target)?;
        let keys = call.records.read(|rows| owner.keys(rows))?;
        let (keys, next) = input.paging.page(call, owner.ids().1, keys, |key| key.id.clone())?;
        let one = |key: AccessKey| AccessKeyOut {
            user_name: owner.user_name(),
            access_key_id: key.id,
            status: status(key.active),
            create_date: iso(key.created),
        };
        Ok(ListAccessKeysOutput { access_key_metadata: keys.into_iter().map(one).collect(), next })
    }
}

/// UpdateAccessKey: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAccessKey.html>.
pub struct UpdateAccessKey;

/// What [`UpdateAccessKey`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateAccessKeyInput {
    #[serde(flatten)]
    naming: UserName,
    access_key_id: Option<String>,
    status: Option<String>,
}

impl Input for UpdateAccessKeyInput {
    fn check(&self, checks: &mut Checks) {
        check_named(checks, &self.naming);
        check_key_id(checks, &self.access_key_id);
        checks.required("status", &self.status);
        checks.one_of("status", self.status.as_deref(), &[status(true), status(false)]);
    }
}

fn check_key_id(checks: &mut Checks, id: &Option<String>) {
    checks.required("accessKeyId", id);
    checks.length("accessKeyId", id.as_deref(), 16, 128);
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    checks.pattern("accessKeyId", id.as_deref(), "[\\w]+", word);
}

impl Operation for UpdateAccessKey {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateAccessKey";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/UpdateAccessKey");
    type Input = UpdateAccessKeyInput;
    type Target = UserOrRoot;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<UserOrRoot> {
        UserOrRoot::locate(call, &input.naming)
    }

    async fn run(call: &Call, target: Allowed<UserOrRoot>, input: Self::Input) -> Result<Empty> {
        let owner = Owner::of(&target)?;
        let id = given(&input.access_key_id, "accessKeyId")?.clone();
        let active = input.status.as_deref() == Some(status(true));
        call.commit(move |rows| {
            let mut key = owner.key(rows, &id)?;
            key.active = active;
            Ok(rows.put_access_key(&key)?)
        })
        .await?;
        Ok(Empty {})
    }
}

/// DeleteAccessKey: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteAccessKey.html>.
pub struct DeleteAccessKey;

/// What [`DeleteAccessKey`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteAccessKeyInput {
    #[serde(flatten)]
    naming: UserName,
    access_key_id: Option<String>,
}

impl Input for DeleteAccessKeyInput {
    fn check(&self, checks: &mut Checks) {
        check_named(checks, &self.naming);
        check_key_id(checks, &self.access_key_id);
    }
}

impl Operation for DeleteAccessKey {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteAccessKey";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/DeleteAccessKey");
    type Input = DeleteAccessKeyInput;
    type Target = UserOrRoot;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<UserOrRoot> {
        UserOrRoot::locate(call, &input.naming)
    }

    async fn run(call: &Call, target: Allowed<UserOrRoot>, input: Self::Input) -> Result<Empty> {
        let owner = Owner::of(&target)?;
        let id = given(&input.access_key_id, "accessKeyId")?.clone();
        call.commit(move |rows| {
            owner.key(rows, &id)?;
            Ok(rows.delete_access_key(&id)?)
        })
        .await?;
        Ok(Empty {})
    }
}

/// GetAccessKeyLastUsed:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccessKeyLastUsed.html>.
pub struct GetAccessKeyLastUsed;

/// What [`GetAccessKeyLastUsed`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetAccessKeyLastUsedInput {
    access_key_id: Option<String>,
}

impl Input for GetAccessKeyLastUsedInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.access_key_id);
    }
}

/// The user of an access key, there or not.
pub struct KeyHolder {
    key: Option<Arc<AccessKey>>,
    user: Of<User>,
}

impl Target for KeyHolder {
    fn arn(&self) -> &str {
        self.user.arn()
    }
    fn owner(&self) -> &str {
        self.user.owner()
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        self.user.fact(call, key)
    }
}

/// The last use of an access key in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LastUsedOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_date: Option<String>,
    service_name: String,
    region: String,
}

/// What [`GetAccessKeyLastUsed`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetAccessKeyLastUsedOutput {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    access_key_last_used: LastUsedOut,
}

impl Operation for GetAccessKeyLastUsed {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetAccessKeyLastUsed";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/GetAccessKeyLastUsed");
    type Input = GetAccessKeyLastUsedInput;
    type Target = KeyHolder;
    type Output = GetAccessKeyLastUsedOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<KeyHolder> {
        let found = call.records.access_key(given(&input.access_key_id, "accessKeyId")?)?;
        // Another account's key is as good as none.
        let key = found.filter(|key| key.account == call.caller.account);
        // Asked with no key at hand, the right on any user is what counts.
        let name = key.as_ref().map_or("*", |key| last_part(&key.principal));
        Ok(KeyHolder { user: Of::named(call, name)?, key })
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyHolder>,
        input: Self::Input,
    ) -> Result<GetAccessKeyLastUsedOutput> {
        let id = given(&input.access_key_id, "accessKeyId")?;
        // The operation's model has no NoSuchEntity.
        let key = target.key.as_ref().ok_or_else(|| {
            let who = &call.caller.arn;
            let text = format!(
                "User: {who} is not authorized to perform: iam:GetAccessKeyLastUsed on resource: \
                 access key {id}"
            );
            Error::new(Condition::AccessDenied, text)
        })?;
        let waiting = call.uses.waiting(id).map(|(at, what)| (at, what.prefix().to_owned()));
        let last = match waiting {
            Some(last) => Some(last),
            None => call.records.read(|rows| rows.last_use(id))?,
        };
        let access_key_last_used = match last {
            Some((at, service_name)) => LastUsedOut {
                last_used_date: Some(iso(at)),
                service_name,
                region: call.region.clone(),
            },
            None => LastUsedOut {
                last_used_date: None,
                service_name: "N/A".to_owned(),
                region: "N/A".to_owned(),
            },
        };
        let user_name = match key.kind {
            Principal::User => Some(last_part(&key.principal).to_owned()),
            Principal::Root => None,
        };
        Ok(GetAccessKeyLastUsedOutput { user_name, access_key_last_used })
    }
}
