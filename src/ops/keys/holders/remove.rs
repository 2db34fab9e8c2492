//! RemoveKeyHolder: a token that holds a KMS key no more.

use super::add::Changed;
use super::{HeldKey, change, check_token, serial_of_lost};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::keys::check_key_id;
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::Deserialize;

/// RemoveKeyHolder.
pub struct RemoveKeyHolder;

/// What [`RemoveKeyHolder`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RemoveKeyHolderInput {
    /// The key, by id, ARN or alias.
    key_id: Option<String>,
    /// The token, by its name in the configuration; one that is lost also by its serial number.
    token: Option<String>,
    /// Whether the token is gone for good: then nobody asks it to destroy its keys.
    lost: Option<bool>,
}

impl Input for RemoveKeyHolderInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        check_token(checks, &self.token);
    }
}

impl Operation for RemoveKeyHolder {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "RemoveKeyHolder";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/keys/{KeyId}/holders/{Token}" };
    const CRYPTOGRAPHIC: bool = true;
    type Input = RemoveKeyHolderInput;
    type Target = HeldKey;
    type Output = Changed;

    async fn locate(call: &Call, input: &RemoveKeyHolderInput) -> Result<HeldKey> {
        HeldKey::locate(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<HeldKey>,
        input: RemoveKeyHolderInput,
    ) -> Result<Changed> {
        let key = target.0.key()?;
        let (token, lost) = (given(&input.token, "token")?, input.lost == Some(true));
        let serial = serial_of_lost(call, token, lost)?;
        let key_id = target.0.arn_of_key(key);
        let answer = |generations| Changed { key_id, token: token.clone(), generations };
        change::remove(call, key, (&serial, lost), answer).await
    }
}
