//! What happens: one type per API operation, declared as data.
//!
//! [`Operation`] says everything of an operation; [`row`] erases its types into a [`Row`]; [`TABLE`]
//! lists them all. Doors, authorization, audit, REST, OpenAPI and tests read the row.

pub mod authority;
pub mod call;
pub mod error;
pub mod event;
pub mod health;
mod holder;
pub mod iam;
pub mod keys;
pub mod page;
pub mod scene;
pub mod secrets;
pub mod seed;
pub mod shape;
pub mod sts;
pub mod trail;
pub mod transcript;
mod verdict;

use crate::name::Service;
use crate::policy::{Facts, Values};
use crate::store::principals::{Group, ManagedPolicy, Role, User};
use call::{Allowed, Call, Services, Target};
use error::Result;
use schemars::{JsonSchema, Schema, schema_for};
use serde::{Serialize, de::DeserializeOwned};
use shape::{Body, Checks};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use transcript::Plan;

/// Whether an operation changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It only looks.
    Read,
    /// It changes the appliance's state.
    Write,
}

/// Where an operation stands in REST: method and path, `{Member}` being a member of the input.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path below `/v1`, like `/secrets/{SecretId}/value`.
    pub path: &'static str,
}

/// The input of an operation.
pub trait Input: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Checks each member's documented bounds (the service model's `min`, `max`, `pattern`, enum).
    fn check(&self, checks: &mut Checks);

    /// The value of a condition key that the input answers (`secretsmanager:VersionStage`,
    /// `kms:EncryptionContext:...`, `aws:RequestTag/...`); `key` is in lower case.
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let _ = key;
        None
    }
}

/// An API operation.
pub trait Operation: Send + Sync + 'static {
    /// Whose operation it is.
    const SERVICE: Service;
    /// Its name in the API.
    const NAME: &'static str;
    /// Whether it changes anything.
    const ACCESS: Access;
    /// Its place in REST.
    const ROUTE: Route;
    /// The name of its IAM action, without the service, where it differs from the operation's.
    const ACTION: &'static str = Self::NAME;
    /// Whether it uses a KMS key's material (so that KeyUnavailableException is in its model).
    const CRYPTOGRAPHIC: bool = false;
    /// Whether it may be asked without a signature: what it takes is its own proof.
    const UNSIGNED: bool = false;
    /// What it takes.
    type Input: Input;
    /// What it acts on.
    type Target: Target;
    /// What it answers.
    type Output: Serialize + JsonSchema + Send;

    /// Finds what the input names. A thing that is not there is a target too: the policy is asked
    /// before anybody is told.
    fn locate(
        call: &Call,
        input: &Self::Input,
    ) -> impl Future<Output = Result<Self::Target>> + Send;

    /// Writes the answer. The hot path has a quicker way than the general one.
    fn encode(output: &Self::Output) -> Result<Body> {
        shape::encode(output)
    }

    /// Does it. The target has been allowed.
    fn run(
        call: &Call,
        target: Allowed<Self::Target>,
        input: Self::Input,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// An answer on its way.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Body>> + Send + 'a>>;

/// An operation with its types erased.
pub struct Row {
    /// Whose operation it is.
    pub service: Service,
    /// Its name in the API.
    pub name: &'static str,
    /// The name of its IAM action, without the service.
    pub action: &'static str,
    /// Whether it changes anything.
    pub access: Access,
    /// Its place in REST.
    pub route: Route,
    /// Whether it uses a KMS key's material.
    pub cryptographic: bool,
    /// Whether it may be asked without a signature.
    pub unsigned: bool,
    run: for<'a> fn(&'a Call, &'a [u8]) -> Answer<'a>,
    facts: fn(&[u8]) -> Result<Box<dyn Facts>>,
    schemas: fn() -> (Schema, Schema),
}

impl Row {
    /// Runs the operation on a JSON body.
    pub fn run<'a>(&self, call: &'a Call, body: &'a [u8]) -> Answer<'a> {
        (self.run)(call, body)
    }

    /// The condition keys that an input in JSON answers, for judging a request without running it.
    ///
    /// # Errors
    /// [`Condition::Serialization`](error::Condition::Serialization).
    pub fn facts(&self, body: &[u8]) -> Result<Box<dyn Facts>> {
        (self.facts)(body)
    }

    /// How an audit record tells of the input.
    pub fn input_plan(&self) -> Option<&'static Plan> {
        PLANS.get(&(self.service, self.name)).map(|plans| &plans.0)
    }

    /// How an audit record tells of the output.
    pub fn output_plan(&self) -> Option<&'static Plan> {
        PLANS.get(&(self.service, self.name)).map(|plans| &plans.1)
    }

    /// The JSON Schema of the input.
    pub fn input_schema(&self) -> Schema {
        (self.schemas)().0
    }

    /// The JSON Schema of the output.
    pub fn output_schema(&self) -> Schema {
        (self.schemas)().1
    }
}

/// The row of an operation.
pub const fn row<O: Operation>() -> Row {
    Row {
        service: O::SERVICE,
        name: O::NAME,
        action: O::ACTION,
        access: O::ACCESS,
        route: O::ROUTE,
        cryptographic: O::CRYPTOGRAPHIC,
        unsigned: O::UNSIGNED,
        run: |call, body| Box::pin(call::run::<O>(call, body)),
        facts: call::facts::<O>,
        schemas: || (schema_for!(O::Input), schema_for!(O::Output)),
    }
}

/// Every operation.
pub static TABLE: &[Row] = &[
    row::<secrets::value::GetSecretValue>(),
    row::<secrets::batch::BatchGetSecretValue>(),
    row::<secrets::create::CreateSecret>(),
    row::<secrets::put::PutSecretValue>(),
    row::<secrets::update::UpdateSecret>(),
    row::<secrets::stage::UpdateSecretVersionStage>(),
    row::<secrets::versions::ListSecretVersionIds>(),
    row::<secrets::delete::DeleteSecret>(),
    row::<secrets::delete::RestoreSecret>(),
    row::<secrets::describe::DescribeSecret>(),
    row::<secrets::list::ListSecrets>(),
    row::<secrets::password::GetRandomPassword>(),
    row::<secrets::policy::PutResourcePolicy>(),
    row::<secrets::policy::GetResourcePolicy>(),
    row::<secrets::policy::DeleteResourcePolicy>(),
    row::<secrets::policy::ValidateResourcePolicy>(),
    row::<secrets::rotate::RotateSecret>(),
    row::<secrets::rotate::cancel::CancelRotateSecret>(),
    row::<secrets::rotate::show::GetSecretRotation>(),
    row::<secrets::probe::show::GetSecretProbe>(),
    row::<secrets::rotate::register::CreateRotationFunction>(),
    row::<secrets::rotate::register::ListRotationFunctions>(),
    row::<secrets::rotate::register::DeleteRotationFunction>(),
    row::<secrets::tags::TagResource>(),
    row::<secrets::tags::UntagResource>(),
    row::<keys::cipher::Encrypt>(),
    row::<keys::cipher::Decrypt>(),
    row::<keys::cipher::ReEncrypt>(),
    row::<keys::datakey::GenerateDataKey>(),
    row::<keys::datakey::GenerateDataKeyWithoutPlaintext>(),
    row::<keys::random::GenerateRandom>(),
    row::<keys::create::CreateKey>(),
    row::<keys::describe::DescribeKey>(),
    row::<keys::attest::GetKeyAttestation>(),
    row::<keys::holders::list::ListKeyHolders>(),
    row::<keys::holders::add::AddKeyHolder>(),
    row::<keys::holders::remove::RemoveKeyHolder>(),
    row::<keys::holders::store_key::ListStoreKeyHolders>(),
    row::<keys::holders::store_key::AddStoreKeyHolder>(),
    row::<keys::holders::store_key::RemoveStoreKeyHolder>(),
    row::<keys::list::ListKeys>(),
    row::<keys::stores::create::CreateCustomKeyStore>(),
    row::<keys::stores::describe::DescribeCustomKeyStores>(),
    row::<keys::stores::update::UpdateCustomKeyStore>(),
    row::<keys::stores::connect::ConnectCustomKeyStore>(),
    row::<keys::stores::connect::DisconnectCustomKeyStore>(),
    row::<keys::stores::delete::DeleteCustomKeyStore>(),
    row::<keys::alias::CreateAlias>(),
    row::<keys::alias::UpdateAlias>(),
    row::<keys::alias::DeleteAlias>(),
    row::<keys::alias::ListAliases>(),
    row::<keys::state::EnableKey>(),
    row::<keys::state::DisableKey>(),
    row::<keys::state::ScheduleKeyDeletion>(),
    row::<keys::state::CancelKeyDeletion>(),
    row::<keys::describe::UpdateKeyDescription>(),
    row::<keys::tags::TagResource>(),
    row::<keys::tags::UntagResource>(),
    row::<keys::tags::ListResourceTags>(),
    row::<keys::policy::GetKeyPolicy>(),
    row::<keys::policy::PutKeyPolicy>(),
    row::<keys::policy::ListKeyPolicies>(),
    row::<keys::rotate::EnableKeyRotation>(),
    row::<keys::rotate::DisableKeyRotation>(),
    row::<keys::rotate::GetKeyRotationStatus>(),
    row::<keys::rotate::RotateKeyOnDemand>(),
    row::<keys::rotations::ListKeyRotations>(),
    row::<keys::grants::create::CreateGrant>(),
    row::<keys::grants::list::ListGrants>(),
    row::<keys::grants::list::ListRetirableGrants>(),
    row::<keys::grants::end::RetireGrant>(),
    row::<keys::grants::end::RevokeGrant>(),
    row::<sts::identity::GetCallerIdentity>(),
    row::<sts::assume::AssumeRole>(),
    row::<sts::web::AssumeRoleWithWebIdentity>(),
    row::<sts::token::GetSessionToken>(),
    row::<sts::decode::DecodeAuthorizationMessage>(),
    row::<sts::session::RevokeSession>(),
    row::<sts::anywhere::CreateSession>(),
    row::<sts::key_info::GetAccessKeyInfo>(),
    row::<iam::users::CreateUser>(),
    row::<iam::users::GetUser>(),
    row::<iam::users::ListUsers>(),
    row::<iam::users::UpdateUser>(),
    row::<iam::users::DeleteUser>(),
    row::<iam::groups::CreateGroup>(),
    row::<iam::groups::GetGroup>(),
    row::<iam::groups::ListGroups>(),
    row::<iam::groups::UpdateGroup>(),
    row::<iam::groups::DeleteGroup>(),
    row::<iam::members::AddUserToGroup>(),
    row::<iam::members::RemoveUserFromGroup>(),
    row::<iam::members::ListGroupsForUser>(),
    row::<iam::roles::CreateRole>(),
    row::<iam::roles::GetRole>(),
    row::<iam::roles::ListRoles>(),
    row::<iam::roles::UpdateRole>(),
    row::<iam::roles::UpdateRoleDescription>(),
    row::<iam::roles::UpdateAssumeRolePolicy>(),
    row::<iam::roles::DeleteRole>(),
    row::<iam::access_keys::CreateAccessKey>(),
    row::<iam::access_keys::ListAccessKeys>(),
    row::<iam::access_keys::UpdateAccessKey>(),
    row::<iam::access_keys::DeleteAccessKey>(),
    row::<iam::access_keys::GetAccessKeyLastUsed>(),
    row::<iam::policies::CreatePolicy>(),
    row::<iam::policies::GetPolicy>(),
    row::<iam::policies::ListPolicies>(),
    row::<iam::policies::DeletePolicy>(),
    row::<iam::entities::ListEntitiesForPolicy>(),
    row::<iam::versions::CreatePolicyVersion>(),
    row::<iam::versions::GetPolicyVersion>(),
    row::<iam::versions::ListPolicyVersions>(),
    row::<iam::versions::SetDefaultPolicyVersion>(),
    row::<iam::versions::DeletePolicyVersion>(),
    row::<iam::attach::Attach<User>>(),
    row::<iam::attach::Detach<User>>(),
    row::<iam::attach::ListAttached<User>>(),
    row::<iam::inline::Put<User>>(),
    row::<iam::inline::Get<User>>(),
    row::<iam::inline::Delete<User>>(),
    row::<iam::inline::List<User>>(),
    row::<iam::attach::Attach<Group>>(),
    row::<iam::attach::Detach<Group>>(),
    row::<iam::attach::ListAttached<Group>>(),
    row::<iam::inline::Put<Group>>(),
    row::<iam::inline::Get<Group>>(),
    row::<iam::inline::Delete<Group>>(),
    row::<iam::inline::List<Group>>(),
    row::<iam::attach::Attach<Role>>(),
    row::<iam::attach::Detach<Role>>(),
    row::<iam::attach::ListAttached<Role>>(),
    row::<iam::inline::Put<Role>>(),
    row::<iam::inline::Get<Role>>(),
    row::<iam::inline::Delete<Role>>(),
    row::<iam::inline::List<Role>>(),
    row::<iam::boundary::Put<User>>(),
    row::<iam::boundary::Delete<User>>(),
    row::<iam::boundary::Put<Role>>(),
    row::<iam::boundary::Delete<Role>>(),
    row::<iam::tags::Put<User>>(),
    row::<iam::tags::Take<User>>(),
    row::<iam::tags::List<User>>(),
    row::<iam::tags::Put<Role>>(),
    row::<iam::tags::Take<Role>>(),
    row::<iam::tags::List<Role>>(),
    row::<iam::tags::Put<ManagedPolicy>>(),
    row::<iam::tags::Take<ManagedPolicy>>(),
    row::<iam::tags::List<ManagedPolicy>>(),
    row::<iam::account::GetAccountSummary>(),
    row::<iam::simulate::SimulateCustomPolicy>(),
    row::<iam::simulate::SimulatePrincipalPolicy>(),
    row::<iam::details::GetAccountAuthorizationDetails>(),
    row::<iam::account::ListAccountAliases>(),
    row::<trail::lookup::LookupEvents>(),
    row::<trail::explain::ExplainRequest>(),
    row::<trail::replay::ReplayPolicy>(),
];

/// How audit records tell of the input and the output of each operation.
type Plans = HashMap<(Service, &'static str), (Plan, Plan)>;

/// Made once.
static PLANS: LazyLock<Plans> = LazyLock::new(|| {
    let plans = |row: &'static Row| {
        let (input, output) = (row.schemas)();
        ((row.service, row.name), (Plan::of(row.service, &input), Plan::of(row.service, &output)))
    };
    TABLE.iter().map(plans).collect()
});

/// The row of this name.
pub fn find(service: Service, name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.service == service && row.name == name)
}

/// Deletes what is due and finishes what was left undone. What fails is logged and tried again the
/// next time.
pub async fn keep_house(services: &Arc<Services>) {
    let chores = [
        ("unfinished backing keys", keys::material::reconcile(services).await),
        ("keys whose deletion is due", keys::purge::purge_due(services).await),
        ("keys whose rotation is due", keys::rotate::rotate_due(services).await),
        ("secrets whose deletion is due", secrets::purge::purge_due(services).await),
        ("secrets whose expiry is to be told", secrets::expiry::notify_due(services).await),
        ("sessions that were ended", sts::session::forget_ended(services).await),
    ];
    for (what, done) in chores {
        match done {
            Ok(0) => {}
            Ok(n) => tracing::info!(n, "dealt with {what}"),
            Err(error) => tracing::warn!(%error, "{what} are left for the next time"),
        }
    }
}
