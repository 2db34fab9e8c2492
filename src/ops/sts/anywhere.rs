//! CreateSession of IAM Roles Anywhere.

use super::Credentials as Plain;
use super::assume::{further_rights, of_role};
use super::role::RoleTarget;
use super::terms::{self, Asked, NAME, PolicyInput, is_name};
use crate::envelope::session::Session;
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::caller::Bounds;
use crate::policy::{Values, Vouched};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// CreateSession, which gives the holder of a certificate credentials of a role:
/// <https://docs.aws.amazon.com/rolesanywhere/latest/userguide/authentication-create-session.html>.
///
/// The door has proved the certificate and found the profile.
pub struct CreateSession;

/// What [`CreateSession`] takes. `cert` and `instanceProperties` say nothing that counts.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateSessionInput {
    profile_arn: Option<String>,
    role_arn: Option<String>,
    trust_anchor_arn: Option<String>,
    duration_seconds: Option<i64>,
    role_session_name: Option<String>,
    cert: Option<String>,
    instance_properties: Option<BTreeMap<String, String>>,
}

impl Input for CreateSessionInput {
    fn check(&self, checks: &mut Checks) {
        for (name, arn) in [
            ("profileArn", &self.profile_arn),
            ("roleArn", &self.role_arn),
            ("trustAnchorArn", &self.trust_anchor_arn),
        ] {
            checks.required(name, arn);
            checks.length(name, arn.as_deref(), 1, 1011);
        }
        checks.range("durationSeconds", self.duration_seconds, terms::SHORTEST, 43_200);
        let name = self.role_session_name.as_deref();
        checks.length("roleSessionName", name, 2, 64);
        checks.pattern("roleSessionName", name, NAME, is_name);
        checks.length("cert", self.cert.as_deref(), 1, 8000);
        let properties = self.instance_properties.as_ref().map(BTreeMap::len);
        checks.items("instanceProperties", properties, 0, 50);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let name = self.role_session_name.as_deref().filter(|_| key == "sts:rolesessionname");
        name.map(Values::one)
    }
}

/// What [`CreateSession`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateSessionOutput {
    credential_set: Vec<CredentialSet>,
    subject_arn: String,
}

/// A role's credentials.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialSet {
    assumed_role_user: User,
    credentials: Credentials,
    packed_policy_size: i64,
    role_arn: String,
    source_identity: String,
}

/// Who a session is.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    arn: String,
    assumed_role_id: String,
}

/// The same as STS gives out, with small letters.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: SecretText,
    session_token: SecretText,
    expiration: String,
}

impl Operation for CreateSession {
    const SERVICE: Service = Service::RolesAnywhere;
    const NAME: &'static str = "CreateSession";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/sessions" };
    const ACTION: &'static str = "AssumeRole";
    const UNSIGNED: bool = true;
    type Input = CreateSessionInput;
    type Target = RoleTarget;
    type Output = CreateSessionOutput;

    async fn locate(call: &Call, input: &CreateSessionInput) -> Result<RoleTarget> {
        vouched(call)?;
        RoleTarget::find(call, given(&input.role_arn, "roleArn")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<RoleTarget>,
        input: CreateSessionInput,
    ) -> Result<CreateSessionOutput> {
        let (target, (vouched, bounds)) = (target.into_inner(), vouched(call)?);
        let role = target.there(call, Self::ACTION)?;
        let name = session_name(bounds, input.role_session_name.as_deref())?;
        let arns: Vec<_> = bounds.policy_arns.iter().map(|arn| PolicyInput::of(arn)).collect();
        let asked = Asked { policy: bounds.policy.as_deref(), arns: &arns, ..Asked::default() };
        let carried =
            call.records.read(|rows| terms::vouched_for(rows, &role.account, &asked, vouched))?;
        let source = vouched.source_identity.clone();
        further_rights(call, &target, &carried, source.as_deref(), &input)?;
        let packed = carried.packed.unwrap_or(0);
        let seconds = input.duration_seconds.unwrap_or(bounds.seconds);
        let seconds = seconds.min(bounds.seconds).min(role.max_session);
        let session = Session {
            source_identity: source,
            provider: Some(vouched.provider.clone()),
            ..of_role(role, name, carried, (call.now, seconds))
        };
        let set = CredentialSet {
            assumed_role_user: User::of(&session),
            credentials: Plain::make(call, &session)?.into(),
            packed_policy_size: packed,
            role_arn: role.arn(),
            source_identity: session.source_identity.unwrap_or_default(),
        };
        let subject_arn = vouched.subject.clone();
        let output = CreateSessionOutput { credential_set: vec![set], subject_arn };
        call.answering(&output)?;
        Ok(output)
    }
}

impl User {
    fn of(session: &Session) -> Self {
        Self { arn: session.arn(), assumed_role_id: session.principal_id() }
    }
}

impl From<Plain> for Credentials {
    fn from(plain: Plain) -> Self {
        let Plain { access_key_id, secret_access_key, session_token, expiration } = plain;
        Self { access_key_id, secret_access_key, session_token, expiration }
    }
}

/// What the certificate said, and what its profile allows.
fn vouched(call: &Call) -> Result<(&Vouched, &Bounds)> {
    let vouched = call.vouched.as_deref();
    let both = vouched.and_then(|vouched| Some((vouched, vouched.bounds.as_ref()?)));
    both.ok_or_else(|| Error::new(Condition::AccessDenied, "Nobody vouches for the caller"))
}

/// The session's name: the certificate's serial number, or what the caller wants if the profile
/// lets it choose.
fn session_name<'a>(bounds: &'a Bounds, asked: Option<&'a str>) -> Result<&'a str> {
    match asked {
        None => Ok(&bounds.name),
        Some(asked) if bounds.names => Ok(asked),
        Some(_) => {
            let text = "The profile does not accept a role session name";
            Err(Error::new(Condition::AccessDenied, text))
        }
    }
}
