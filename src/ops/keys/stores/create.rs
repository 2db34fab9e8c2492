//! CreateCustomKeyStore.

use super::super::material::Place;
use super::{External, TYPES, check_name, token};
use crate::clock::random_bytes;
use crate::custody::tokens::Member;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::key_stores::{Connection, KeyStore};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Custom key stores that an account may have (AWS's quota).
const MOST: i64 = 10;

/// CreateCustomKeyStore:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateCustomKeyStore.html>.
///
/// The token's PIN is the operator's, in the configuration, and the module is trusted as it is
/// installed: KeyStorePassword and TrustAnchorCertificate need not be there, and nothing hangs on them.
pub struct CreateCustomKeyStore;

/// What [`CreateCustomKeyStore`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateCustomKeyStoreInput {
    custom_key_store_name: Option<String>,
    cloud_hsm_cluster_id: Option<String>,
    trust_anchor_certificate: Option<String>,
    key_store_password: Option<SecretText>,
    custom_key_store_type: Option<String>,
    #[serde(flatten)]
    external: External,
}

impl Input for CreateCustomKeyStoreInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("customKeyStoreName", &self.custom_key_store_name);
        checks.length("customKeyStoreName", self.custom_key_store_name.as_deref(), 1, 256);
        let certificate = self.trust_anchor_certificate.as_deref();
        checks.length("trustAnchorCertificate", certificate, 1, 5000);
        check_password(checks, self.key_store_password.as_ref());
        checks.one_of("customKeyStoreType", self.custom_key_store_type.as_deref(), &TYPES);
    }
}

/// The bounds of a KeyStorePassword, in characters.
pub(super) fn check_password(checks: &mut Checks, password: Option<&SecretText>) {
    let length = |password: &SecretText| password.0.expose_str().map_or(0, |t| t.chars().count());
    checks.blob("keyStorePassword", password.map(length), 7, 32);
}

/// What [`CreateCustomKeyStore`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateCustomKeyStoreOutput {
    custom_key_store_id: String,
}

impl Operation for CreateCustomKeyStore {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "CreateCustomKeyStore";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/custom-key-stores" };
    type Input = CreateCustomKeyStoreInput;
    type Target = OwnAccount;
    type Output = CreateCustomKeyStoreOutput;

    async fn locate(call: &Call, _: &CreateCustomKeyStoreInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: CreateCustomKeyStoreInput,
    ) -> Result<CreateCustomKeyStoreOutput> {
        input.external.refuse(input.custom_key_store_type.as_deref())?;
        let member = token(call, given(&input.cloud_hsm_cluster_id, "cloudHsmClusterId")?)?;
        fit(call, member)?;
        let store = KeyStore {
            id: random_id(call)?,
            account: call.caller.account.clone(),
            name: given(&input.custom_key_store_name, "customKeyStoreName")?.clone(),
            token: member.serial().to_owned(),
            trust_anchor: input.trust_anchor_certificate,
            created: call.now,
            connection: Connection::Disconnected,
        };
        let output = CreateCustomKeyStoreOutput { custom_key_store_id: store.id.clone() };
        call.answering(&output)?;
        call.commit(move |rows| make(rows, &store)).await?;
        Ok(output)
    }
}

/// Refuses the default token, one that is not there, and one that can't hold keys.
fn fit(call: &Call, member: &Member) -> Result<()> {
    let default = call.tokens.all().first().map(Member::serial);
    if default == Some(member.serial()) {
        let text = "The appliance's default token can't be a custom key store's";
        return Err(Error::new(Condition::ClusterUnfit, text));
    }
    let lane = member.lane().map_err(|error| {
        let text = format!("The cluster {} is not active", member.cluster_id());
        Error::new(Condition::ClusterNotActive, text).logged(error.to_string())
    })?;
    let placed =
        Place::on(lane).map_err(|error| Error { condition: Condition::ClusterUnfit, ..error });
    placed.map(drop)
}

/// `cks-` and 17 random hex digits.
fn random_id(call: &Call) -> Result<String> {
    let digits: String =
        random_bytes::<9>(&*call.world.random)?.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(["cks-", digits.get(..17).unwrap_or_default()].concat())
}

fn make(rows: &mut Rows<'_>, store: &KeyStore) -> Result<()> {
    check_name(rows, (&store.account, &store.id), &store.name)?;
    if rows.key_store_over(&store.account, &store.token)?.is_some() {
        let text = "The cluster is already associated with a custom key store of the account";
        return Err(Error::new(Condition::ClusterInUse, text));
    }
    if rows.count_key_stores(&store.account)? >= MOST {
        let text = format!("the account has {MOST} custom key stores, the most that it can have");
        return Err(Error::new(Condition::LimitExceeded, text));
    }
    Ok(rows.put_key_store(store)?)
}
