//! RotateSecret: how a secret rotates, and a rotation at once. What it asks for is noted here; the
//! steps are done by `src/rotate/`.

pub mod cancel;
pub mod functions;
pub mod held;
mod master;
pub mod register;
pub mod settle;
pub mod show;
pub mod state;
pub mod tally;

use super::labels::CURRENT;
use super::schedule::{RotationRules, Schedule};
use super::seal::{check_token, token_in_use};
use super::{Named, SecretTarget, facts, locate, marked_for_deletion, not_found};
use crate::clock::Time;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Services, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::event::Event;
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::records::Rows;
use crate::store::rotations::Rotation;
use crate::store::secrets::Secret;
use functions::{Function, FunctionTarget, Functions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use state::{begin, fresh, left_behind, reschedule, resumed};
use std::sync::OnceLock;
use tokio::sync::Notify;

/// What operations know of the rotations that are under way.
pub struct Rotations {
    /// Who does their steps.
    pub functions: Functions,
    /// Told when there is one more.
    pub wake: Notify,
    /// The URL of the first plain address that is served, where programs find the appliance.
    pub here: OnceLock<String>,
    /// What became of them.
    pub tally: tally::Tally,
    /// What probes have found.
    pub probes: super::probe::Tally,
}

impl Rotations {
    /// None is under way.
    pub fn new(functions: Functions) -> Self {
        Self {
            functions,
            wake: Notify::new(),
            here: OnceLock::new(),
            tally: tally::Tally::default(),
            probes: super::probe::Tally::default(),
        }
    }
}

/// The function of an ARN, as secrets of an account may have it: what another account has registered is
/// not theirs.
///
/// # Errors
/// Those of the database.
pub fn function_for<'a>(
    services: &Services,
    account: &str,
    arn: &'a str,
) -> Result<Option<Function<'a>>> {
    let found = services.rotations.functions.find(arn, |owner, name| {
        if owner == account { services.records.function(owner, name) } else { Ok(None) }
    });
    Ok(found?)
}

/// RotateSecret:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_RotateSecret.html>.
pub struct RotateSecret;

/// What [`RotateSecret`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RotateSecretInput {
    secret_id: Option<String>,
    client_request_token: Option<String>,
    #[serde(rename = "RotationLambdaARN")]
    rotation_lambda_arn: Option<String>,
    #[serde(default, deserialize_with = "crate::ops::shape::object")]
    rotation_rules: Option<RotationRules>,
    rotate_immediately: Option<bool>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    external_secret_rotation_metadata: Option<Vec<MetadataItem>>,
    external_secret_rotation_role_arn: Option<String>,
}

/// What a third party wants to know for the rotation of a secret that it manages.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct MetadataItem {
    key: Option<String>,
    value: Option<String>,
}

impl Input for RotateSecretInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("secretId", &self.secret_id);
        checks.length("secretId", self.secret_id.as_deref(), 1, 2048);
        check_token(checks, self.client_request_token.as_deref());
        checks.length("rotationLambdaARN", self.rotation_lambda_arn.as_deref(), 0, 2048);
        if let Some(rules) = &self.rotation_rules {
            rules.check(checks);
        }
        for (n, item) in self.external_secret_rotation_metadata.iter().flatten().enumerate() {
            let at = format!("externalSecretRotationMetadata.{}.member", n + 1);
            checks.length(&format!("{at}.key"), item.key.as_deref(), 1, 256);
            checks.length(&format!("{at}.value"), item.value.as_deref(), 1, 2048);
        }
        let role = self.external_secret_rotation_role_arn.as_deref();
        checks.length("externalSecretRotationRoleArn", role, 20, 2048);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let function = self.rotation_lambda_arn.as_ref();
        let modifies = self.rotation_rules.is_some();
        facts::secret_id(key, self.secret_id.as_ref())
            .or_else(|| facts::text(key, "secretsmanager:rotationlambdaarn", function))
            .or_else(|| {
                let of = "secretsmanager:rotateimmediately";
                facts::truth(key, of, Some(self.rotate_immediately.unwrap_or(true)))
            })
            .or_else(|| facts::truth(key, "secretsmanager:modifyrotationrules", Some(modifies)))
    }
}

impl RotateSecretInput {
    /// Refuses what nobody here can do: to rotate what a third party manages.
    fn refuse_external(&self) -> Result<()> {
        if self.external_secret_rotation_metadata.as_ref().is_none_or(Vec::is_empty)
            && self.external_secret_rotation_role_arn.is_none()
        {
            return Ok(());
        }
        Err(Error::new(
            Condition::InvalidParameter,
            "Managed external secrets are not available on this appliance.",
        ))
    }
}

/// What [`RotateSecret`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RotateSecretOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    version_id: String,
}

impl Operation for RotateSecret {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "RotateSecret";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/secrets/{SecretId}:rotate" };
    type Input = RotateSecretInput;
    type Target = SecretTarget;
    type Output = RotateSecretOutput;

    async fn locate(call: &Call, input: &RotateSecretInput) -> Result<SecretTarget> {
        token(input)?;
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: RotateSecretInput,
    ) -> Result<RotateSecretOutput> {
        input.refuse_external()?;
        let secret = target.live()?;
        if let Some(rules) = &input.rotation_rules {
            Schedule::of(rules)?;
        }
        let known = call.records.rotation(secret.uid)?;
        let asked = Asked::of(call, (target.arn(), secret), known.as_deref(), &input).await?;
        let Named { arn, name } = Named::of(&target)?;
        let output = RotateSecretOutput { arn, name, version_id: asked.token.clone() };
        if known.is_some_and(|known| known.progress.is_none()) && left_behind(secret).is_some() {
            reattempt(call, target.arn(), secret).await?;
        }
        call.answering(&output)?;
        call.commit(move |rows| asked.write(rows)).await?;
        call.rotations.wake.notify_one();
        Ok(output)
    }
}

/// The `ClientRequestToken`, which SDKs fill in; without it RotateSecret answers another condition
/// than the operations that bring a value.
fn token(input: &RotateSecretInput) -> Result<&String> {
    input.client_request_token.as_ref().ok_or_else(|| {
        Error::new(
            Condition::InvalidParameter,
            "You must provide a ClientRequestToken value. We recommend a UUID-type value.",
        )
    })
}

/// What a request asks for.
struct Asked {
    account: String,
    name: String,
    uid: i64,
    token: String,
    function: String,
    master: Option<String>,
    rules: Option<RotationRules>,
    trial: bool,
    now: Time,
}

impl Asked {
    async fn of(
        call: &Call,
        (arn, secret): (&str, &Secret),
        known: Option<&Rotation>,
        input: &RotateSecretInput,
    ) -> Result<Self> {
        let named = input.rotation_lambda_arn.as_deref().filter(|arn| !arn.is_empty());
        let function = named.or(known.map(|known| known.function.as_str()));
        let function = function.ok_or_else(no_function)?.to_owned();
        if named.is_some() {
            call.allow("InvokeFunction", FunctionTarget::of(&function))?;
        }
        let found = function_for(call, &secret.account, &function)?;
        let found = found.ok_or_else(|| not_invocable(&function))?;
        let master = master::approved(call, (arn, secret), &found).await?;
        Ok(Self {
            account: secret.account.clone(),
            name: secret.name.clone(),
            uid: secret.uid,
            token: token(input)?.clone(),
            function,
            master,
            rules: input.rotation_rules.clone(),
            trial: input.rotate_immediately == Some(false),
            now: call.now,
        })
    }

    /// Writes what was asked for and begins the rotation. Asked once more with the same token it
    /// changes nothing.
    fn write(&self, rows: &mut Rows<'_>) -> Result<()> {
        let secret = rows.secret(&self.account, &self.name)?.filter(|s| s.uid == self.uid);
        let mut secret = secret.ok_or_else(not_found)?;
        if secret.deleted.is_some() {
            return Err(marked_for_deletion());
        }
        let mut rotation = rows.rotation(self.uid)?.unwrap_or_else(|| self.none_yet());
        if let Some(progress) = &rotation.progress {
            return if progress.token == self.token { Ok(()) } else { Err(not_complete()) };
        }
        if secret.version_with(CURRENT) == Some(self.token.as_str()) {
            return Ok(());
        }
        if left_behind(&secret).is_some() {
            return Err(not_complete());
        }
        if rows.has_version(self.uid, &self.token)? {
            let Error { message, .. } = token_in_use(&self.token, &secret.name);
            return Err(Error::new(Condition::InvalidParameter, message));
        }
        self.configure(&mut rotation);
        let progress = fresh(&self.token, self.trial, self.now);
        begin(rows, &mut secret, &mut rotation, progress, self.now)
    }

    fn none_yet(&self) -> Rotation {
        Rotation {
            secret: self.uid,
            account: self.account.clone(),
            name: self.name.clone(),
            enabled: true,
            function: self.function.clone(),
            master: self.master.clone(),
            rules: None,
            scheduled: self.now,
            last: None,
            next: None,
            progress: None,
            failure: None,
            lease: None,
            due: None,
            revision: 0,
        }
    }

    fn configure(&self, rotation: &mut Rotation) {
        rotation.function.clone_from(&self.function);
        rotation.master.clone_from(&self.master);
        let again = !rotation.enabled;
        rotation.enabled = true;
        if let Some(rules) = &self.rules {
            rotation.rules = Some(rules.into());
            rotation.scheduled = self.now;
        }
        if again || self.rules.is_some() {
            reschedule(rotation, self.now);
        }
    }
}

/// Goes on with what an earlier rotation has left with AWSPENDING, and refuses the new one, in AWS's
/// words: here they hold.
async fn reattempt(call: &Call, arn: &str, found: &Secret) -> Result<()> {
    let event = Event {
        service: Service::SecretsManager,
        name: "RotationStarted",
        account: found.account.clone(),
        resources: vec![arn.to_owned()],
    };
    let (account, name, uid, now) =
        (found.account.clone(), found.name.clone(), found.uid, call.now);
    call.commit_event(&event, move |rows| {
        let secret = rows.secret(&account, &name)?.filter(|s| s.uid == uid && s.deleted.is_none());
        let rotation = rows.rotation(uid)?.filter(|rotation| rotation.progress.is_none());
        // Where somebody else was quicker nothing is changed, and nothing recorded.
        let (Some(mut secret), Some(mut rotation)) = (secret, rotation) else {
            return Err(not_complete());
        };
        let pending = left_behind(&secret).map(str::to_owned).ok_or_else(not_complete)?;
        let mut progress = resumed(&pending, now);
        progress.noted = true;
        begin(rows, &mut secret, &mut rotation, progress, now)
    })
    .await?;
    call.rotations.wake.notify_one();
    Err(not_complete())
}

fn no_function() -> Error {
    let text = "No Lambda rotation function ARN is associated with this secret.";
    Error::new(Condition::InvalidRequest, text)
}

fn not_complete() -> Error {
    let text = "A previous rotation isn't complete. That rotation will be reattempted.";
    Error::new(Condition::InvalidRequest, text)
}

fn not_invocable(function: &str) -> Error {
    Error::new(
        Condition::AccessDenied,
        "Secrets Manager cannot invoke the specified Lambda function. Ensure that the function \
         policy grants access to the principal secretsmanager.amazonaws.com.",
    )
    .logged(format!("no function is registered for `{function}`"))
}
