//! Who does the steps of a rotation: something behind a Lambda endpoint, a program of this machine, or
//! this program.

pub(super) mod database;
pub(super) mod lambda;
pub(super) mod password;
pub(super) mod program;
pub(super) mod ssh_key;

use super::inside::Inside;
use super::secret_json::Fault;
use super::target::Refusal;
use crate::ops::error::Error;
use crate::store::rotations::Step;
use serde::Serialize;

/// What a function is told, as AWS tells it:
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Event<'a> {
    #[serde(serialize_with = "name")]
    pub(super) step: Step,
    #[serde(rename = "SecretId")]
    pub(super) secret_arn: &'a str,
    pub(super) client_request_token: &'a str,
    pub(super) rotation_token: &'a str,
}

fn name<S: serde::Serializer>(step: &Step, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(step.name())
}

/// Why a step was not done.
#[derive(Debug)]
pub(super) struct Failure {
    /// In words, with nothing secret in them.
    pub(super) why: String,
    /// All that the function itself says: it may quote a secret.
    pub(super) says: Option<String>,
    /// Whether another attempt may go better.
    pub(super) again: bool,
}

impl Failure {
    /// One that may pass.
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), says: None, again: true }
    }

    /// One that stays as long as the secret is as it is.
    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), says: None, again: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::passing(error.message.into_owned())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::lasting(fault.to_string())
    }
}

/// What a system did not do; `what` was asked of it.
fn refused(what: &str, refusal: &Refusal) -> Failure {
    let why = format!("{what}: {refusal}");
    if refusal.is_transient() { Failure::passing(why) } else { Failure::lasting(why) }
}

/// Whether createSecret was done already: the value that it made must stay.
async fn begun(inside: &Inside<'_>, token: &str) -> Result<bool, Failure> {
    Ok(inside.value("AWSPENDING", Some(token)).await?.is_some())
}

/// finishSecret: AWSCURRENT moves to the new version.
async fn promote(inside: &Inside<'_>, token: &str) -> Result<(), Failure> {
    let current = inside.value("AWSCURRENT", None).await?;
    let from = current.as_ref().map(|current| current.version_id.as_str());
    if from == Some(token) {
        return Ok(());
    }
    Ok(inside.promote(token, from).await?)
}
