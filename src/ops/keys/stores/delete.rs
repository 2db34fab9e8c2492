//! DeleteCustomKeyStore.

use super::connect::KeyStoreIdInput;
use super::{current, wrong_state};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Empty;
use crate::ops::{Access, Operation, Route};
use crate::store::key_stores::Connection;

/// DeleteCustomKeyStore:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_DeleteCustomKeyStore.html>.
pub struct DeleteCustomKeyStore;

impl Operation for DeleteCustomKeyStore {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "DeleteCustomKeyStore";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/custom-key-stores/{CustomKeyStoreId}" };
    type Input = KeyStoreIdInput;
    type Target = OwnAccount;
    type Output = Empty;

    async fn locate(call: &Call, _: &KeyStoreIdInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(call: &Call, _: Allowed<OwnAccount>, input: KeyStoreIdInput) -> Result<Empty> {
        let (account, id) = (call.caller.account.clone(), input.id()?.to_owned());
        call.commit(move |rows| {
            let store = current(rows, &account, &id)?;
            if store.connection != Connection::Disconnected {
                return Err(wrong_state(&store));
            }
            if rows.key_store_has_keys(&id)? {
                let text = format!("The custom key store {id} has KMS keys");
                return Err(Error::new(Condition::KeyStoreHasKeys, text));
            }
            Ok(rows.delete_key_store(&id)?)
        })
        .await?;
        Ok(Empty {})
    }
}
