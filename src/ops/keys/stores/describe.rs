//! DescribeCustomKeyStores.

use super::super::list::{Next, Paging, one_more};
use super::{TYPES, not_found};
use crate::custody::tokens::cluster_id;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Epoch};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::key_stores::{Connection, ConnectionError, KeyStore};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// DescribeCustomKeyStores:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeCustomKeyStores.html>.
pub struct DescribeCustomKeyStores;

/// What [`DescribeCustomKeyStores`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeCustomKeyStoresInput {
    custom_key_store_id: Option<String>,
    custom_key_store_name: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for DescribeCustomKeyStoresInput {
    fn check(&self, checks: &mut Checks) {
        checks.length("customKeyStoreId", self.custom_key_store_id.as_deref(), 1, 64);
        checks.length("customKeyStoreName", self.custom_key_store_name.as_deref(), 1, 256);
        self.paging.check(checks);
    }
}

/// A line of [`DescribeCustomKeyStores`]'s answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CustomKeyStoresListEntry {
    custom_key_store_id: String,
    custom_key_store_name: String,
    cloud_hsm_cluster_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_anchor_certificate: Option<String>,
    connection_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_error_code: Option<ConnectionError>,
    creation_date: Epoch,
    custom_key_store_type: &'static str,
}

/// What [`DescribeCustomKeyStores`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeCustomKeyStoresOutput {
    custom_key_stores: Vec<CustomKeyStoresListEntry>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for DescribeCustomKeyStores {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "DescribeCustomKeyStores";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/custom-key-stores" };
    type Input = DescribeCustomKeyStoresInput;
    type Target = OwnAccount;
    type Output = DescribeCustomKeyStoresOutput;

    async fn locate(call: &Call, _: &DescribeCustomKeyStoresInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: DescribeCustomKeyStoresInput,
    ) -> Result<DescribeCustomKeyStoresOutput> {
        let wanted = Wanted::of(input.custom_key_store_id, input.custom_key_store_name)?;
        let scope = wanted.scope();
        let (after, limit) = input.paging.start(call, scope, 100, 1000)?;
        let (account, which) = (call.caller.account.clone(), wanted.clone());
        let found = call
            .records
            .scan(move |rows| which.find(rows, &account, &after, one_more(limit)))
            .await?;
        let mut custom_key_stores: Vec<_> = found.into_iter().map(entry).collect();
        let next = Next::cut(call, scope, &mut custom_key_stores, limit, |entry| {
            &entry.custom_key_store_id
        });
        Ok(DescribeCustomKeyStoresOutput { custom_key_stores, next })
    }
}

/// Which custom key stores are asked for.
#[derive(Clone)]
enum Wanted {
    All,
    Id(String),
    Name(String),
}

impl Wanted {
    fn of(id: Option<String>, name: Option<String>) -> Result<Self> {
        match (id, name) {
            (None, None) => Ok(Self::All),
            (Some(id), None) => Ok(Self::Id(id)),
            (None, Some(name)) => Ok(Self::Name(name)),
            (Some(_), Some(_)) => {
                let text = "You can specify CustomKeyStoreId or CustomKeyStoreName, not both.";
                Err(Error::new(Condition::Validation, text))
            }
        }
    }

    /// What a marker is bound to.
    fn scope(&self) -> &str {
        match self {
            Self::All => "",
            Self::Id(text) | Self::Name(text) => text,
        }
    }

    fn find(
        &self,
        rows: &mut Rows<'_>,
        account: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<KeyStore>> {
        let (found, named) = match self {
            Self::All => return Ok(rows.key_stores(account, after, limit)?),
            Self::Id(id) => (rows.key_store(id)?, id),
            Self::Name(name) => (rows.key_store_named(account, name)?, name),
        };
        let found = found.filter(|store| store.account == account);
        Ok(vec![found.ok_or_else(|| not_found(named))?])
    }
}

fn entry(store: KeyStore) -> CustomKeyStoresListEntry {
    CustomKeyStoresListEntry {
        cloud_hsm_cluster_id: cluster_id(&store.token),
        connection_state: connection_state(store.connection),
        connection_error_code: match store.connection {
            Connection::Failed(why) => Some(why),
            Connection::Connected | Connection::Disconnected => None,
        },
        custom_key_store_id: store.id,
        custom_key_store_name: store.name,
        trust_anchor_certificate: store.trust_anchor,
        creation_date: Epoch(store.created),
        custom_key_store_type: TYPES[0],
    }
}

/// AWS's name of a connection state. An attempt to connect is over when its request is answered, so
/// that none is ever CONNECTING.
pub(super) fn connection_state(connection: Connection) -> &'static str {
    match connection {
        Connection::Connected => "CONNECTED",
        Connection::Disconnected => "DISCONNECTED",
        Connection::Failed(_) => "FAILED",
    }
}
