//! AssumeRole.

use super::role::RoleTarget;
use super::terms::{self, Asked, Carried, PolicyInput, TagInput};
use super::{Credentials, end};
use crate::clock::Time;
use crate::envelope::session::{Kind, Session};
use crate::name::Service;
use crate::ops::call::{Allowed, Brought, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{PrincipalKind, Values};
use crate::store::principals::Role;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a session lasts if nothing is said, in seconds.
pub(super) const DURATION: i64 = 3600;
/// The longest session that is got with the credentials of another one, in seconds.
const CHAINED: i64 = 3600;

/// AssumeRole: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
pub struct AssumeRole;

/// What [`AssumeRole`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AssumeRoleInput {
    role_arn: Option<String>,
    role_session_name: Option<String>,
    #[serde(default)]
    policy_arns: Vec<PolicyInput>,
    policy: Option<String>,
    duration_seconds: Option<i64>,
    #[serde(default)]
    tags: Vec<TagInput>,
    #[serde(default)]
    transitive_tag_keys: Vec<String>,
    external_id: Option<String>,
    serial_number: Option<String>,
    token_code: Option<String>,
    source_identity: Option<String>,
}

impl AssumeRoleInput {
    fn asked(&self) -> Asked<'_> {
        Asked {
            policy: self.policy.as_deref(),
            arns: &self.policy_arns,
            tags: &self.tags,
            transitive: &self.transitive_tag_keys,
        }
    }
}

impl Input for AssumeRoleInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("roleArn", &self.role_arn);
        checks.length("roleArn", self.role_arn.as_deref(), 20, 2048);
        check_session_name(checks, &self.role_session_name);
        checks.range("durationSeconds", self.duration_seconds, terms::SHORTEST, 43_200);
        let external = self.external_id.as_deref();
        checks.length("externalId", external, 2, 1224);
        checks.pattern("externalId", external, "[\\w+=,.@:\\/-]*", is_external);
        check_second_factor(checks, self.serial_number.as_ref(), self.token_code.as_ref());
        check_source_identity(checks, self.source_identity.as_deref());
        terms::check(checks, &self.asked());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        match key {
            "sts:externalid" => self.external_id.as_deref().map(Values::one),
            "sts:rolesessionname" => self.role_session_name.as_deref().map(Values::one),
            "sts:sourceidentity" => self.source_identity.as_deref().map(Values::one),
            _ => terms::fact(&self.tags, &self.transitive_tag_keys, key),
        }
    }
}

/// The bounds of a session's name.
pub(super) fn check_session_name(checks: &mut Checks, name: &Option<String>) {
    checks.required("roleSessionName", name);
    checks.length("roleSessionName", name.as_deref(), 2, 64);
    checks.pattern("roleSessionName", name.as_deref(), terms::NAME, terms::is_name);
}

fn check_source_identity(checks: &mut Checks, identity: Option<&str>) {
    checks.length("sourceIdentity", identity, 2, 64);
    checks.pattern("sourceIdentity", identity, terms::NAME, terms::is_name);
}

fn is_external(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b))
}

/// Who a session is, in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AssumedRoleUser {
    assumed_role_id: String,
    arn: String,
}

impl AssumedRoleUser {
    pub(super) fn of(session: &Session) -> Self {
        Self { assumed_role_id: session.principal_id(), arn: session.arn() }
    }
}

/// What [`AssumeRole`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AssumeRoleOutput {
    credentials: Credentials,
    assumed_role_user: AssumedRoleUser,
    #[serde(skip_serializing_if = "Option::is_none")]
    packed_policy_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_identity: Option<String>,
}

impl Operation for AssumeRole {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "AssumeRole";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/sts/AssumeRole" };
    type Input = AssumeRoleInput;
    type Target = RoleTarget;
    type Output = AssumeRoleOutput;

    async fn locate(call: &Call, input: &AssumeRoleInput) -> Result<RoleTarget> {
        if call.caller.kind == PrincipalKind::Root {
            let text = "Roles may not be assumed by root accounts.";
            return Err(Error::new(Condition::AccessDenied, text));
        }
        RoleTarget::find(call, given(&input.role_arn, "roleArn")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<RoleTarget>,
        input: AssumeRoleInput,
    ) -> Result<AssumeRoleOutput> {
        let target = target.into_inner();
        let role = target.there(call, Self::NAME)?;
        no_second_factor(input.serial_number.as_ref(), input.token_code.as_ref())?;
        let seconds = duration(role, input.duration_seconds, chained(call))?;
        let from = call.caller.session.as_deref().filter(|_| chained(call));
        let asked = input.asked();
        let carried =
            call.records.read(|rows| terms::carried(rows, &role.account, &asked, from))?;
        let source = source_identity(call, input.source_identity.as_deref())?;
        further_rights(call, &target, &carried, source.as_deref(), &input)?;
        let name = given(&input.role_session_name, "roleSessionName")?;
        let packed = carried.packed;
        let session = Session {
            source_identity: source,
            chained: chained(call),
            ..of_role(role, name, carried, (call.now, seconds))
        };
        let output = AssumeRoleOutput {
            credentials: Credentials::make(call, &session)?,
            assumed_role_user: AssumedRoleUser::of(&session),
            packed_policy_size: packed,
            source_identity: session.source_identity,
        };
        call.answering(&output)?;
        Ok(output)
    }
}

/// Whether the caller is a role already.
fn chained(call: &Call) -> bool {
    call.caller.kind == PrincipalKind::AssumedRole
}

/// The bounds of a second factor's serial number and code.
pub(super) fn check_second_factor(
    checks: &mut Checks,
    serial: Option<&String>,
    code: Option<&String>,
) {
    checks.length("serialNumber", serial.map(String::as_str), 9, 256);
    checks.length("tokenCode", code.map(String::as_str), 6, 6);
}

/// There is no second factor here: whoever sends a code of one is told that it is wrong.
pub(super) fn no_second_factor(serial: Option<&String>, code: Option<&String>) -> Result<()> {
    if serial.is_none() && code.is_none() {
        return Ok(());
    }
    let text = "MultiFactorAuthentication failed with invalid MFA one time pass code.";
    Err(Error::new(Condition::AccessDenied, text))
}

/// How many seconds a session of a role lasts.
pub(super) fn duration(role: &Role, asked: Option<i64>, chained: bool) -> Result<i64> {
    let invalid = |text: &'static str| Err(Error::new(Condition::Validation, text));
    let seconds = asked.unwrap_or(DURATION);
    if chained && seconds > CHAINED {
        return invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by \
             role chaining",
        );
    }
    if seconds > role.max_session {
        return invalid(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        );
    }
    Ok(seconds)
}

/// The source identity of a new session: once set it stays, from session to session.
fn source_identity(call: &Call, asked: Option<&str>) -> Result<Option<String>> {
    let known = call.caller.session.as_ref().and_then(|s| s.source_identity.clone());
    match (known, asked) {
        (Some(known), Some(asked)) if known != asked => {
            let text = "The source identity of a session can't be changed";
            Err(Error::new(Condition::AccessDenied, text))
        }
        (Some(known), _) => Ok(Some(known)),
        (None, asked) => Ok(asked.map(str::to_owned)),
    }
}

/// The rights that a session with tags or a source identity needs besides.
pub(super) fn further_rights(
    call: &Call,
    target: &RoleTarget,
    carried: &Carried,
    source_identity: Option<&str>,
    input: &impl Input,
) -> Result<()> {
    if !carried.tags.is_empty() {
        call.allow_with("TagSession", target.clone(), &Brought(input))?;
    }
    if source_identity.is_some() {
        call.allow_with("SetSourceIdentity", target.clone(), &Brought(input))?;
    }
    Ok(())
}

/// A session of a role that begins now and lasts so many seconds.
pub(super) fn of_role(
    role: &Role,
    name: &str,
    carried: Carried,
    (now, seconds): (Time, i64),
) -> Session {
    Session {
        account: role.account.clone(),
        kind: Kind::Role,
        issuer_arn: role.arn(),
        issuer_id: role.id.clone(),
        name: name.to_owned(),
        policies: carried.policies,
        tags: carried.tags,
        transitive: carried.transitive,
        issued: now,
        expires: end(now, seconds),
        source_identity: None,
        provider: None,
        chained: false,
    }
}
