//! GetAccessKeyInfo.

use crate::envelope::session;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// GetAccessKeyInfo: <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetAccessKeyInfo.html>.
///
/// It says whose a key is, not whether it is good: an id of a temporary key tells its account by
/// itself.
pub struct GetAccessKeyInfo;

/// What [`GetAccessKeyInfo`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetAccessKeyInfoInput {
    access_key_id: Option<String>,
}

impl Input for GetAccessKeyInfoInput {
    fn check(&self, checks: &mut Checks) {
        let id = self.access_key_id.as_deref();
        checks.required("accessKeyId", &self.access_key_id);
        checks.length("accessKeyId", id, 16, 128);
        checks.pattern("accessKeyId", id, "[\\w]*", |text| {
            text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
    }
}

/// What [`GetAccessKeyInfo`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetAccessKeyInfoOutput {
    account: String,
}

impl Operation for GetAccessKeyInfo {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "GetAccessKeyInfo";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/sts/GetAccessKeyInfo" };
    type Input = GetAccessKeyInfoInput;
    type Target = OwnAccount;
    type Output = GetAccessKeyInfoOutput;

    async fn locate(call: &Call, _: &GetAccessKeyInfoInput) -> Result<OwnAccount> {
        super::no_session_token(call)?;
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: GetAccessKeyInfoInput,
    ) -> Result<GetAccessKeyInfoOutput> {
        let id = given(&input.access_key_id, "accessKeyId")?;
        let account = match session::account_of(id) {
            Some(account) => call.records.read(|rows| rows.account(&account))?.map(|a| a.id),
            None => call.records.access_key(id)?.map(|key| key.account.clone()),
        };
        let account = account.ok_or_else(|| {
            Error::new(Condition::Validation, format!("Invalid AccessKeyId: {id}"))
        })?;
        Ok(GetAccessKeyInfoOutput { account })
    }
}
