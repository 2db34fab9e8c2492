//! UpdateCustomKeyStore.

use super::create::check_password;
use super::{External, change, check_id, check_name, token, wrong_state};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::key_stores::{Connection, KeyStore};
use schemars::JsonSchema;
use serde::Deserialize;

/// UpdateCustomKeyStore:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_UpdateCustomKeyStore.html>. It gives a
/// custom key store another name. Its keys are in its token and no other has them, so that its token
/// is the only one that it can be given; a password is taken as CreateCustomKeyStore takes it.
pub struct UpdateCustomKeyStore;

/// What [`UpdateCustomKeyStore`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateCustomKeyStoreInput {
    custom_key_store_id: Option<String>,
    new_custom_key_store_name: Option<String>,
    key_store_password: Option<SecretText>,
    cloud_hsm_cluster_id: Option<String>,
    #[serde(flatten)]
    external: External,
}

impl Input for UpdateCustomKeyStoreInput {
    fn check(&self, checks: &mut Checks) {
        check_id(checks, &self.custom_key_store_id);
        let name = self.new_custom_key_store_name.as_deref();
        checks.length("newCustomKeyStoreName", name, 1, 256);
        check_password(checks, self.key_store_password.as_ref());
    }
}

impl Operation for UpdateCustomKeyStore {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "UpdateCustomKeyStore";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/custom-key-stores/{CustomKeyStoreId}" };
    type Input = UpdateCustomKeyStoreInput;
    type Target = OwnAccount;
    type Output = Empty;

    async fn locate(call: &Call, _: &UpdateCustomKeyStoreInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: UpdateCustomKeyStoreInput,
    ) -> Result<Empty> {
        input.external.refuse(None)?;
        let cluster = input.cloud_hsm_cluster_id.as_deref();
        let cluster = cluster.map(|named| token(call, named)).transpose()?;
        let cluster = cluster.map(|member| member.serial().to_owned());
        let (name, password) =
            (input.new_custom_key_store_name, input.key_store_password.is_some());
        let id = given(&input.custom_key_store_id, "customKeyStoreId")?;
        change(call, id, move |rows, store| {
            if password || cluster.is_some() {
                let disconnected = store.connection == Connection::Disconnected;
                disconnected.then_some(()).ok_or_else(|| wrong_state(store))?;
            }
            check_related(store, cluster.as_deref())?;
            if let Some(name) = &name {
                check_name(rows, (&store.account, &store.id), name)?;
                store.name.clone_from(name);
            }
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

fn check_related(store: &KeyStore, token: Option<&str>) -> Result<()> {
    if token.is_none_or(|token| token == store.token) {
        return Ok(());
    }
    let text = format!("The cluster does not have the keys of the custom key store {}", store.id);
    Err(Error::new(Condition::ClusterUnrelated, text))
}
