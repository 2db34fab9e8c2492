//! Custom key stores: an account's name for a token besides the default one, in which it has its KMS
//! keys made. To AWS's clients it is an AWS CloudHSM key store and the token is its cluster; external
//! key stores (XKS) are not had.
//!
//! A custom key store's keys may be used while it is connected. That is a matter of the rows: it is
//! asked for with each use, and no token is.

pub mod connect;
pub mod create;
pub mod delete;
pub mod describe;
pub mod update;

use crate::custody::tokens::Member;
use crate::ops::call::{Call, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::store::key_stores::{Connection, KeyStore};
use crate::store::keys::{Key, KeyState};
use crate::store::records::{Records, Rows};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::sync::Arc;

/// What `CustomKeyStoreType` can be: the first is the one that is had.
const TYPES: [&str; 2] = ["AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"];

/// The origin of the keys in a custom key store, as AWS has it.
pub(super) const ORIGIN: &str = "AWS_CLOUDHSM";

/// The caller's custom key store of this id.
///
/// # Errors
/// [`Condition::KeyStoreNotFound`]; those of the database.
pub(super) fn of_id(call: &Call, id: &str) -> Result<Arc<KeyStore>> {
    let found = call.records.key_store(id)?;
    found.filter(|store| store.account == call.caller.account).ok_or_else(|| not_found(id))
}

/// The same if its keys may be made and used now.
///
/// # Errors
/// [`Condition::KeyStoreState`] while it is not connected; else as [`of_id`].
pub(super) fn connected(call: &Call, id: &str) -> Result<Arc<KeyStore>> {
    let store = of_id(call, id)?;
    check_connected(&store)?;
    Ok(store)
}

/// Refuses a key for a custom key store that was taken away or disconnected while the key was made:
/// to be called in the transaction that writes the key.
pub(super) fn recheck(rows: &mut Rows<'_>, id: &str) -> Result<()> {
    check_connected(&rows.key_store(id)?.ok_or_else(|| not_found(id))?)
}

fn check_connected(store: &KeyStore) -> Result<()> {
    match store.connection {
        Connection::Connected => Ok(()),
        Connection::Disconnected | Connection::Failed(_) => Err(wrong_state(store)),
    }
}

/// The state of a KMS key: what its row says, and whether its custom key store is connected.
///
/// # Errors
/// Those of the database.
pub(in crate::ops) fn state(records: &Records, key: &Key) -> Result<KeyState> {
    match &key.store {
        None => Ok(key.state),
        Some(id) => Ok(state_in(key, records.key_store(id)?.as_deref())),
    }
}

/// The same where the custom key store has been read. One that waits for its deletion stays so, since
/// that can be taken back at any time.
pub(super) fn state_in(key: &Key, store: Option<&KeyStore>) -> KeyState {
    let connected = store.is_some_and(|store| store.connection == Connection::Connected);
    if key.store.is_none() || connected || key.state == KeyState::PendingDeletion {
        return key.state;
    }
    KeyState::Unavailable
}

/// Refuses what can't be done to a key in a custom key store.
///
/// # Errors
/// [`Condition::Unsupported`].
pub(super) fn refuse_in_store(key: &Key, arn: &str) -> Result<()> {
    if key.store.is_none() {
        return Ok(());
    }
    let text = format!("{arn} origin is {ORIGIN} which is not valid for this operation.");
    Err(Error::new(Condition::Unsupported, text))
}

/// The token that a `CloudHsmClusterId` names: by its cluster id, or by its name in the configuration.
///
/// # Errors
/// [`Condition::ClusterNotFound`]; [`Condition::Validation`] for what can be no cluster's id either.
fn token<'a>(services: &'a Services, named: &str) -> Result<&'a Member> {
    let meant = |member: &&Member| member.name == named || member.cluster_id() == named;
    if let Some(member) = services.tokens.all().iter().find(meant) {
        return Ok(member);
    }
    let mut checks = Checks::default();
    checks.length("cloudHsmClusterId", Some(named), 19, 24);
    let rule = "cluster-[2-7a-zA-Z]{11,16}";
    checks.pattern("cloudHsmClusterId", Some(named), rule, is_cluster_id);
    checks.finish()?;
    let text = format!("no token of this appliance is the cluster {named}");
    Err(Error::new(Condition::ClusterNotFound, text))
}

fn is_cluster_id(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphabetic() || (b'2'..=b'7').contains(&b);
    let id = text.strip_prefix("cluster-");
    id.is_some_and(|id| (11..=16).contains(&id.len()) && id.bytes().all(fits))
}

/// Changes the caller's custom key store of this id. `f` may run several times.
async fn change(
    call: &Call,
    id: &str,
    mut f: impl FnMut(&mut Rows<'_>, &mut KeyStore) -> Result<()> + Send + 'static,
) -> Result<()> {
    let (account, id) = (call.caller.account.clone(), id.to_owned());
    call.commit(move |rows| {
        let mut store = current(rows, &account, &id)?;
        f(rows, &mut store)?;
        Ok(rows.put_key_store(&store)?)
    })
    .await
}

/// A custom key store as it is now, inside the transaction.
fn current(rows: &mut Rows<'_>, account: &str, id: &str) -> Result<KeyStore> {
    let found = rows.key_store(id)?.filter(|store| store.account == account);
    found.ok_or_else(|| not_found(id))
}

/// Refuses a name that another custom key store of the account has.
fn check_name(rows: &mut Rows<'_>, (account, id): (&str, &str), name: &str) -> Result<()> {
    match rows.key_store_named(account, name)? {
        Some(other) if other.id != id => {
            let text = format!("A custom key store with the name {name} already exists");
            Err(Error::new(Condition::KeyStoreNameInUse, text))
        }
        _ => Ok(()),
    }
}

fn not_found(id: &str) -> Error {
    Error::new(Condition::KeyStoreNotFound, format!("Custom key store '{id}' does not exist."))
}

fn wrong_state(store: &KeyStore) -> Error {
    let (id, state) = (&store.id, describe::connection_state(store.connection));
    let text =
        format!("The custom key store {id} is {state}, which is not valid for this operation");
    Error::new(Condition::KeyStoreState, text)
}

/// Bounds of a CustomKeyStoreId that must be there.
fn check_id(checks: &mut Checks, id: &Option<String>) {
    checks.required("customKeyStoreId", id);
    checks.length("customKeyStoreId", id.as_deref(), 1, 64);
}

/// The members that are about external key stores. None of them may be there, so that nothing of them
/// is checked.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
struct External {
    xks_proxy_uri_endpoint: Option<String>,
    xks_proxy_uri_path: Option<String>,
    xks_proxy_vpc_endpoint_service_name: Option<String>,
    xks_proxy_vpc_endpoint_service_owner: Option<String>,
    xks_proxy_authentication_credential: Option<Unread>,
    xks_proxy_connectivity: Option<String>,
}

impl External {
    /// Says that there are no external key stores, if the request is about one.
    fn refuse(&self, kind: Option<&str>) -> Result<()> {
        let texts = [
            &self.xks_proxy_uri_endpoint,
            &self.xks_proxy_uri_path,
            &self.xks_proxy_vpc_endpoint_service_name,
            &self.xks_proxy_vpc_endpoint_service_owner,
            &self.xks_proxy_connectivity,
        ];
        let given = texts.iter().any(|text| text.is_some())
            || self.xks_proxy_authentication_credential.is_some();
        if !given && kind.is_none_or(|kind| kind == TYPES[0]) {
            return Ok(());
        }
        let text = "External key stores are not supported: this appliance has its keys in tokens of \
                    its own.";
        Err(Error::new(Condition::Validation, text))
    }
}

/// A structure that is refused as soon as it is there.
#[derive(Deserialize)]
struct Unread(IgnoredAny);

impl JsonSchema for Unread {
    fn schema_name() -> Cow<'static, str> {
        "Unread".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "object", "description": "not supported"})
    }
}

#[cfg(test)]
mod tests {
    use super::super::rotations::tests::key;
    use super::*;
    use crate::clock::Time;
    use crate::store::key_stores::ConnectionError;

    fn store(connection: Connection) -> KeyStore {
        KeyStore {
            id: "cks-1234567890abcdef0".into(),
            account: "111111111111".into(),
            name: "ours".into(),
            token: "serial".into(),
            trust_anchor: None,
            created: Time(0),
            connection,
        }
    }

    #[test]
    fn a_key_is_available_while_its_store_is_connected() {
        let failed = Connection::Failed(ConnectionError::ClusterNotFound);
        let mut key = key(1);
        assert_eq!(state_in(&key, None), KeyState::Enabled);
        key.store = Some("cks-1234567890abcdef0".into());
        assert_eq!(state_in(&key, None), KeyState::Unavailable);
        for state in [KeyState::Enabled, KeyState::Disabled] {
            key.state = state;
            assert_eq!(state_in(&key, Some(&store(Connection::Connected))), state);
            for connection in [Connection::Disconnected, failed] {
                assert_eq!(state_in(&key, Some(&store(connection))), KeyState::Unavailable);
            }
        }
        key.state = KeyState::PendingDeletion;
        assert_eq!(state_in(&key, Some(&store(failed))), KeyState::PendingDeletion);
    }

    #[test]
    fn ids_of_clusters_look_like_aws_s() {
        for id in ["cluster-1abcdefghij", "cluster-abcdefghij", "cluster-abcdefghijklmnopq", "main"]
        {
            assert!(!is_cluster_id(id), "{id}");
        }
        assert!(is_cluster_id("cluster-234567abcXY"));
    }
}
