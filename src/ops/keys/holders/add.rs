//! AddKeyHolder: a token that holds a KMS key too, from now on.

use super::{HeldKey, change, check_token, serial_of};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::keys::check_key_id;
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// AddKeyHolder.
pub struct AddKeyHolder;

/// What [`AddKeyHolder`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AddKeyHolderInput {
    /// The key, by id, ARN or alias.
    key_id: Option<String>,
    /// The token, by its name in the configuration.
    token: Option<String>,
}

impl Input for AddKeyHolderInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        check_token(checks, &self.token);
    }
}

/// What changes of holders answer.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Changed {
    /// The key's ARN.
    pub key_id: String,
    /// The token, as the request named it.
    pub token: String,
    /// How many generations of the key it came to hold, or holds no more.
    pub generations: usize,
}

impl Operation for AddKeyHolder {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "AddKeyHolder";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/keys/{KeyId}/holders/{Token}" };
    const CRYPTOGRAPHIC: bool = true;
    type Input = AddKeyHolderInput;
    type Target = HeldKey;
    type Output = Changed;

    async fn locate(call: &Call, input: &AddKeyHolderInput) -> Result<HeldKey> {
        HeldKey::locate(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<HeldKey>,
        input: AddKeyHolderInput,
    ) -> Result<Changed> {
        let key = target.0.key()?;
        let token = given(&input.token, "token")?;
        let serial = serial_of(call, token)?;
        let key_id = target.0.arn_of_key(key);
        let answer = |generations| Changed { key_id, token: token.clone(), generations };
        change::add(call, key, &serial, answer).await
    }
}
