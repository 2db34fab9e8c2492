//! DescribeKey and UpdateKeyDescription.

use super::facts::origin;
use super::stores::state_in;
use super::{KeyTarget, change, check_grant_tokens, check_key_id, locate, locate_own, not_pending};
use crate::custody::tokens::cluster_id;
use crate::name::{Service, key_arn};
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::{Checks, Empty, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::key_stores::KeyStore;
use crate::store::keys::{Key, KeyManager, KeyState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What AWS tells of a KMS key:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_KeyMetadata.html>.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMetadata {
    #[serde(rename = "AWSAccountId")]
    account: String,
    key_id: String,
    arn: String,
    creation_date: Epoch,
    enabled: bool,
    description: String,
    key_usage: &'static str,
    key_state: KeyState,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_date: Option<Epoch>,
    origin: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_key_store_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud_hsm_cluster_id: Option<String>,
    key_manager: KeyManager,
    customer_master_key_spec: &'static str,
    key_spec: &'static str,
    encryption_algorithms: [&'static str; 1],
    multi_region: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_key_material_id: Option<String>,
}

impl KeyMetadata {
    /// Of this key, in the appliance's region; `store` is the custom key store that it is in.
    pub(super) fn of(region: &str, key: &Key, store: Option<&KeyStore>) -> Self {
        let state = state_in(key, store);
        // Only of keys whose material can be another one some day.
        let material = key.current().filter(|_| key.store.is_none());
        Self {
            account: key.account.clone(),
            key_id: key.id.clone(),
            arn: key_arn(region, &key.account, &key.id),
            creation_date: Epoch(key.created),
            enabled: state == KeyState::Enabled,
            description: key.description.clone(),
            key_usage: "ENCRYPT_DECRYPT",
            key_state: state,
            deletion_date: key.due.map(Epoch),
            origin: origin(key),
            custom_key_store_id: key.store.clone(),
            cloud_hsm_cluster_id: store.map(|store| cluster_id(&store.token)),
            key_manager: key.manager,
            customer_master_key_spec: "SYMMETRIC_DEFAULT",
            key_spec: "SYMMETRIC_DEFAULT",
            encryption_algorithms: ["SYMMETRIC_DEFAULT"],
            multi_region: false,
            current_key_material_id: material.map(|backing| backing.material_id.clone()),
        }
    }
}

/// DescribeKey: <https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html>.
pub struct DescribeKey;

/// What [`DescribeKey`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeKeyInput {
    key_id: Option<String>,
    grant_tokens: Option<Vec<String>>,
}

impl Input for DescribeKeyInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        check_grant_tokens(checks, self.grant_tokens.as_deref());
    }
}

/// What [`DescribeKey`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeKeyOutput {
    key_metadata: KeyMetadata,
}

impl Operation for DescribeKey {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "DescribeKey";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}" };
    type Input = DescribeKeyInput;
    type Target = KeyTarget;
    type Output = DescribeKeyOutput;

    async fn locate(call: &Call, input: &DescribeKeyInput) -> Result<KeyTarget> {
        locate(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        _: DescribeKeyInput,
    ) -> Result<DescribeKeyOutput> {
        let key = target.key()?;
        let store = match &key.store {
            Some(id) => call.records.key_store(id)?,
            None => None,
        };
        let key_metadata = KeyMetadata::of(&call.region, key, store.as_deref());
        Ok(DescribeKeyOutput { key_metadata })
    }
}

/// UpdateKeyDescription:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_UpdateKeyDescription.html>.
pub struct UpdateKeyDescription;

/// What [`UpdateKeyDescription`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateKeyDescriptionInput {
    key_id: Option<String>,
    description: Option<String>,
}

impl Input for UpdateKeyDescriptionInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.required("description", &self.description);
        checks.length("description", self.description.as_deref(), 0, 8192);
    }
}

impl Operation for UpdateKeyDescription {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "UpdateKeyDescription";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/keys/{KeyId}/description" };
    type Input = UpdateKeyDescriptionInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &UpdateKeyDescriptionInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: UpdateKeyDescriptionInput,
    ) -> Result<Empty> {
        let description = given(&input.description, "description")?.clone();
        change(call, &target, move |key, arn| {
            not_pending(key, arn)?;
            let changed = key.description != description;
            key.description.clone_from(&description);
            Ok(changed)
        })
        .await?;
        Ok(Empty {})
    }
}
