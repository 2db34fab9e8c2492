//! AssumeRoleWithWebIdentity.

use super::Credentials;
use super::assume::{AssumedRoleUser, check_session_name, duration, further_rights, of_role};
use super::role::RoleTarget;
use super::terms::{self, Asked, PolicyInput};
use crate::envelope::session::Session;
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Values, Vouched};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// AssumeRoleWithWebIdentity:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>.
///
/// The door has proved the token; nothing else is signed.
pub struct AssumeRoleWithWebIdentity;

/// What [`AssumeRoleWithWebIdentity`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AssumeRoleWithWebIdentityInput {
    role_arn: Option<String>,
    role_session_name: Option<String>,
    web_identity_token: Option<SecretText>,
    provider_id: Option<String>,
    #[serde(default)]
    policy_arns: Vec<PolicyInput>,
    policy: Option<String>,
    duration_seconds: Option<i64>,
}

impl AssumeRoleWithWebIdentityInput {
    fn asked(&self) -> Asked<'_> {
        Asked { policy: self.policy.as_deref(), arns: &self.policy_arns, ..Asked::default() }
    }
}

impl Input for AssumeRoleWithWebIdentityInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("roleArn", &self.role_arn);
        checks.length("roleArn", self.role_arn.as_deref(), 20, 2048);
        check_session_name(checks, &self.role_session_name);
        checks.required("webIdentityToken", &self.web_identity_token);
        let token = self.web_identity_token.as_ref().map(|token| token.0.len());
        checks.blob("webIdentityToken", token, 4, 20_000);
        checks.length("providerId", self.provider_id.as_deref(), 4, 2048);
        checks.range("durationSeconds", self.duration_seconds, terms::SHORTEST, 43_200);
        terms::check(checks, &self.asked());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let name = self.role_session_name.as_deref().filter(|_| key == "sts:rolesessionname");
        name.map(Values::one)
    }
}

/// What [`AssumeRoleWithWebIdentity`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AssumeRoleWithWebIdentityOutput {
    credentials: Credentials,
    subject_from_web_identity_token: String,
    assumed_role_user: AssumedRoleUser,
    #[serde(skip_serializing_if = "Option::is_none")]
    packed_policy_size: Option<i64>,
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_identity: Option<String>,
}

impl Operation for AssumeRoleWithWebIdentity {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "AssumeRoleWithWebIdentity";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/sts/AssumeRoleWithWebIdentity" };
    const UNSIGNED: bool = true;
    type Input = AssumeRoleWithWebIdentityInput;
    type Target = RoleTarget;
    type Output = AssumeRoleWithWebIdentityOutput;

    async fn locate(call: &Call, input: &AssumeRoleWithWebIdentityInput) -> Result<RoleTarget> {
        if input.provider_id.is_some() {
            // OAuth 2.0 access tokens of the providers that AWS knows by a domain.
            let text = "Only OpenID Connect ID tokens are accepted: leave ProviderId out";
            return Err(Error::new(Condition::InvalidParameter, text));
        }
        // First: of an ARN that is none the door could not tell whose tokens count.
        let target = RoleTarget::find(call, given(&input.role_arn, "roleArn")?)?;
        vouched(call)?;
        Ok(target)
    }

    async fn run(
        call: &Call,
        target: Allowed<RoleTarget>,
        input: AssumeRoleWithWebIdentityInput,
    ) -> Result<AssumeRoleWithWebIdentityOutput> {
        let (target, vouched) = (target.into_inner(), vouched(call)?);
        let role = target.there(call, Self::NAME)?;
        let seconds = duration(role, input.duration_seconds, false)?;
        let asked = input.asked();
        let carried =
            call.records.read(|rows| terms::vouched_for(rows, &role.account, &asked, vouched))?;
        let source = vouched.source_identity.clone();
        further_rights(call, &target, &carried, source.as_deref(), &input)?;
        let name = given(&input.role_session_name, "roleSessionName")?;
        let packed = carried.packed;
        let session = Session {
            source_identity: source,
            provider: Some(call.caller.arn.clone()),
            ..of_role(role, name, carried, (call.now, seconds))
        };
        let output = AssumeRoleWithWebIdentityOutput {
            credentials: Credentials::make(call, &session)?,
            subject_from_web_identity_token: vouched.subject.clone(),
            assumed_role_user: AssumedRoleUser::of(&session),
            packed_policy_size: packed,
            provider: vouched.provider.clone(),
            audience: vouched.audience.clone(),
            source_identity: session.source_identity,
        };
        call.answering(&output)?;
        Ok(output)
    }
}

/// What the token said. The door lets nobody through without it but whose input lacks the token.
fn vouched(call: &Call) -> Result<&Arc<Vouched>> {
    let nothing = || Error::new(Condition::InvalidIdentityToken, "Missing web identity token");
    call.vouched.as_ref().ok_or_else(nothing)
}
