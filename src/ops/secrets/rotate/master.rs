//! The secret with an administrator's login (`masterarn`): a rotation may use it if whoever sets the
//! rotation up may read it. Otherwise who may write one secret could have any other one used.

use super::functions::{BuiltIn, Function};
use crate::name::Service;
use crate::ops::call::{Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::secrets::{locate, value};
use crate::ops::shape::{SecretText, decode, encode};
use crate::store::secrets::Secret;
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Get<'a> {
    secret_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Got {
    secret_string: Option<SecretText>,
}

/// The one member of the secret's value that is of interest here.
#[derive(Deserialize)]
struct Value {
    masterarn: Option<String>,
}

/// The ARN of the master secret that a rotation of `secret` by `function` may use; none if the
/// secret's value names none.
///
/// # Errors
/// [`Condition::AccessDenied`] if the caller may not read it, [`Condition::NotFound`] if it is not
/// there, [`Condition::InvalidParameter`] if it is of another account or not named by its ARN; those of reading a secret.
pub(super) async fn approved(
    call: &Call,
    (arn, secret): (&str, &Secret),
    function: &Function<'_>,
) -> Result<Option<String>> {
    let uses = match function {
        Function::BuiltIn(BuiltIn::SingleUser | BuiltIn::AlternatingUsers) => true,
        Function::BuiltIn(BuiltIn::Password | BuiltIn::SshKey) => false,
        Function::Lambda(lambda, ..) => lambda.credentials,
        Function::Program(program) => program.credentials,
    };
    if !uses {
        return Ok(None);
    }
    let Some(master) = named(call, arn, &secret.account).await? else { return Ok(None) };
    let target = locate(call, &master)?;
    if target.owner() != secret.account {
        let text = "The secret that masterarn names is of another account.";
        return Err(Error::new(Condition::InvalidParameter, text));
    }
    let target = call.allow("GetSecretValue", target)?;
    // To be allowed to read is to be allowed to decrypt, too.
    let read = value::read(call, target, None, None).await?;
    let arn = read.into_arn();
    // Built-in functions compare what stands in the value with what was approved.
    if arn != master && matches!(function, Function::BuiltIn(_)) {
        let text = "masterarn must be the complete ARN of a secret.";
        return Err(Error::new(Condition::InvalidParameter, text));
    }
    Ok(Some(arn))
}

/// What `masterarn` of a secret's current value is.
async fn named(call: &Call, arn: &str, account: &str) -> Result<Option<String>> {
    let system =
        Call::of_system(call.services.clone(), Service::SecretsManager, "GetSecretValue", account)?;
    let body = encode(&Get { secret_id: arn })?.into_secret();
    let answer = match system.row.run(&system, body.expose()).await {
        Ok(answer) => answer.into_secret(),
        // It has no value yet.
        Err(error) if error.condition == Condition::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let got: Got = decode(answer.expose())?;
    let value = got.secret_string.and_then(|text| serde_json::from_slice(text.0.expose()).ok());
    Ok(value.and_then(|value: Value| value.masterarn).filter(|arn| !arn.is_empty()))
}
