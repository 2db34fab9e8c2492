//! GetCallerIdentity.

use super::Oneself;
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::Checks;
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// GetCallerIdentity, which no policy can deny:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>.
pub struct GetCallerIdentity;

/// What [`GetCallerIdentity`] takes: nothing.
#[derive(Deserialize, JsonSchema)]
pub struct GetCallerIdentityInput {}

impl Input for GetCallerIdentityInput {
    fn check(&self, _: &mut Checks) {}
}

/// What [`GetCallerIdentity`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetCallerIdentityOutput {
    arn: String,
    user_id: String,
    account: String,
}

impl Operation for GetCallerIdentity {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "GetCallerIdentity";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/sts/GetCallerIdentity" };
    type Input = GetCallerIdentityInput;
    type Target = Oneself;
    type Output = GetCallerIdentityOutput;

    async fn locate(call: &Call, _: &GetCallerIdentityInput) -> Result<Oneself> {
        Ok(Oneself::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<Oneself>,
        _: GetCallerIdentityInput,
    ) -> Result<GetCallerIdentityOutput> {
        let caller = &call.caller;
        Ok(GetCallerIdentityOutput {
            arn: caller.arn.clone(),
            user_id: caller.principal_id.clone(),
            account: caller.account.clone(),
        })
    }
}
