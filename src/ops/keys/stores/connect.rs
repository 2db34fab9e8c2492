//! ConnectCustomKeyStore and DisconnectCustomKeyStore.

use super::{change, check_id, of_id, wrong_state};
use crate::custody;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::Result;
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::key_stores::{Connection, ConnectionError, KeyStore};
use schemars::JsonSchema;
use serde::Deserialize;

/// Bytes that the token is asked for, to see that it answers.
const PROBE: usize = 32;

/// What operations on one custom key store without more to say take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct KeyStoreIdInput {
    custom_key_store_id: Option<String>,
}

impl KeyStoreIdInput {
    /// The custom key store that is named.
    pub(super) fn id(&self) -> Result<&str> {
        given(&self.custom_key_store_id, "customKeyStoreId").map(String::as_str)
    }
}

impl Input for KeyStoreIdInput {
    fn check(&self, checks: &mut Checks) {
        check_id(checks, &self.custom_key_store_id);
    }
}

/// ConnectCustomKeyStore:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ConnectCustomKeyStore.html>. It succeeds
/// where the attempt fails, too: DescribeCustomKeyStores then has why.
pub struct ConnectCustomKeyStore;

impl Operation for ConnectCustomKeyStore {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ConnectCustomKeyStore";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route =
        Route { method: "POST", path: "/custom-key-stores/{CustomKeyStoreId}:connect" };
    type Input = KeyStoreIdInput;
    type Target = OwnAccount;
    type Output = Empty;

    async fn locate(call: &Call, _: &KeyStoreIdInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(call: &Call, _: Allowed<OwnAccount>, input: KeyStoreIdInput) -> Result<Empty> {
        let store = of_id(call, input.id()?)?;
        if !to_be_connected(&store)? {
            return Ok(Empty {});
        }
        let connection = attempt(call, &store.token).await;
        change(call, &store.id, move |_, store| {
            // Somebody else's attempt may have ended first.
            if to_be_connected(store)? {
                store.connection = connection;
            }
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// Whether there is anything to do; one that failed must be disconnected first.
fn to_be_connected(store: &KeyStore) -> Result<bool> {
    match store.connection {
        Connection::Connected => Ok(false),
        Connection::Disconnected => Ok(true),
        Connection::Failed(_) => Err(wrong_state(store)),
    }
}

/// Asks the token of this serial number for an answer.
async fn attempt(call: &Call, token: &str) -> Connection {
    if !call.tokens.all().iter().any(|member| member.serial() == token) {
        return Connection::Failed(ConnectionError::ClusterNotFound);
    }
    let answer = match call.tokens.of(token) {
        Ok(lane) => match lane.random(PROBE).await {
            // A card that gives out no random bytes; whether it is there its driver knows.
            Err(custody::Error::Unsupported { .. }) if lane.health().up => Ok(()),
            answer => answer.map(drop),
        },
        Err(error) => Err(error),
    };
    let Err(error) = answer else { return Connection::Connected };
    tracing::warn!(%error, "a custom key store could not be connected");
    Connection::Failed(reason(&error))
}

fn reason(error: &custody::Error) -> ConnectionError {
    use custody::Error as E;
    match error {
        E::Unavailable { .. } => ConnectionError::InsufficientCloudhsmHsms,
        E::Pin { .. } | E::Sealed { .. } => ConnectionError::InvalidCredentials,
        E::Timeout(_) | E::Overloaded(_) | E::NoSession(_) => ConnectionError::NetworkErrors,
        E::KeyNotFound(_)
        | E::KeyRejected { .. }
        | E::Unsupported { .. }
        | E::Full { .. }
        | E::BadRequest(_) => ConnectionError::InternalError,
    }
}

/// DisconnectCustomKeyStore:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DisconnectCustomKeyStore.html>. From the
/// next request on none of its keys is used.
pub struct DisconnectCustomKeyStore;

impl Operation for DisconnectCustomKeyStore {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "DisconnectCustomKeyStore";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route =
        Route { method: "POST", path: "/custom-key-stores/{CustomKeyStoreId}:disconnect" };
    type Input = KeyStoreIdInput;
    type Target = OwnAccount;
    type Output = Empty;

    async fn locate(call: &Call, _: &KeyStoreIdInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(call: &Call, _: Allowed<OwnAccount>, input: KeyStoreIdInput) -> Result<Empty> {
        change(call, input.id()?, |_, store| {
            if store.connection == Connection::Disconnected {
                return Err(wrong_state(store));
            }
            store.connection = Connection::Disconnected;
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_aws_s_name_for_what_is_the_matter() {
        let (token, why) = ("t".to_owned(), String::new());
        let name = |error| serde_json::to_value(reason(&error)).expect("a name");
        let gone = custody::Error::Unavailable { token: token.clone(), why: why.clone() };
        assert_eq!(name(gone), "INSUFFICIENT_CLOUDHSM_HSMS");
        assert_eq!(name(custody::Error::Pin { token, why }), "INVALID_CREDENTIALS");
        assert_eq!(name(custody::Error::Timeout(String::new())), "NETWORK_ERRORS");
        assert_eq!(name(custody::Error::BadRequest("")), "INTERNAL_ERROR");
    }
}
