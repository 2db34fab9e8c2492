//! DeleteSecret and RestoreSecret.

use super::edit::save;
use super::rotate::state::note_restored;
use super::{Named, SecretTarget, change, check_secret_id, facts, locate, not_found};
use crate::clock::{Random, Time};
use crate::name::{Arn, SUFFIX_LEN, Service, secret_arn};
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::records::Rows;
use crate::store::secrets::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Days that a deleted secret can still be restored, if nothing is said.
const WINDOW: i64 = 30;

/// DeleteSecret:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DeleteSecret.html>.
pub struct DeleteSecret;

/// What [`DeleteSecret`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteSecretInput {
    secret_id: Option<String>,
    recovery_window_in_days: Option<i64>,
    force_delete_without_recovery: Option<bool>,
}

impl Input for DeleteSecretInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
            .or_else(|| {
                let days = self.recovery_window_in_days;
                facts::number(key, "secretsmanager:recoverywindowindays", days)
            })
            .or_else(|| {
                let force = self.force_delete_without_recovery;
                facts::truth(key, "secretsmanager:forcedeletewithoutrecovery", force)
            })
    }
}

/// What [`DeleteSecret`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteSecretOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    deletion_date: Epoch,
}

impl Operation for DeleteSecret {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "DeleteSecret";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/secrets/{SecretId}" };
    type Input = DeleteSecretInput;
    type Target = SecretTarget;
    type Output = DeleteSecretOutput;

    async fn locate(call: &Call, input: &DeleteSecretInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        input: DeleteSecretInput,
    ) -> Result<DeleteSecretOutput> {
        match window(&input)? {
            Some(days) => schedule(call, &target, call.now.plus_days(days)).await,
            None => force(call, &target, given(&input.secret_id, "secretId")?).await,
        }
    }
}

/// The recovery window in days; none if the secret is to go at once.
fn window(input: &DeleteSecretInput) -> Result<Option<i64>> {
    let refuse = |text| Err(Error::new(Condition::InvalidParameter, text));
    let force = input.force_delete_without_recovery.unwrap_or(false);
    match input.recovery_window_in_days {
        Some(_) if force => refuse(
            "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
        ),
        Some(days) if !(7..=30).contains(&days) => {
            refuse("The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
        }
        _ if force => Ok(None),
        days => Ok(Some(days.unwrap_or(WINDOW))),
    }
}

async fn schedule(call: &Call, target: &SecretTarget, due: Time) -> Result<DeleteSecretOutput> {
    let now = call.now;
    let Named { arn, name } = Named::of(target)?;
    let output = DeleteSecretOutput { arn, name, deletion_date: Epoch(due) };
    call.answering(&output)?;
    change(call, target, move |secret| {
        if secret.deleted.is_some() {
            let text = "You can't perform this operation on the secret because it was already \
                        scheduled for deletion.";
            return Err(Error::new(Condition::InvalidRequest, text));
        }
        (secret.deleted, secret.due) = (Some(now), Some(due));
        Ok(true)
    })
    .await?;
    Ok(output)
}

/// Deletes at once. That there is no such secret is no error: whoever tries again after a lost
/// answer has what he wants.
async fn force(call: &Call, target: &SecretTarget, named: &str) -> Result<DeleteSecretOutput> {
    let deletion_date = Epoch(call.now);
    let Some(found) = target.secret.clone() else {
        let (arn, name) = never_was(call, target, named)?;
        return Ok(DeleteSecretOutput { arn, name, deletion_date });
    };
    let Named { arn, name } = Named::of(target)?;
    let output = DeleteSecretOutput { arn, name, deletion_date };
    call.answering(&output)?;
    call.commit(move |rows| {
        let secret = rows.secret(&found.account, &found.name)?;
        let secret = secret.filter(|s| s.uid == found.uid).ok_or_else(not_found)?;
        Ok(rows.delete_secret(&secret)?)
    })
    .await?;
    Ok(output)
}

/// The ARN and name of a secret that is not there: those that were given, as far as they were.
fn never_was(call: &Call, target: &SecretTarget, named: &str) -> Result<(String, String)> {
    if let Some(name) = Arn::parse(named).and_then(|arn| arn.resource.strip_prefix("secret:")) {
        let short = name.rsplit_once('-').filter(|(_, suffix)| suffix.len() == SUFFIX_LEN);
        return Ok((named.to_owned(), short.map_or(name, |(short, _)| short).to_owned()));
    }
    let suffix = suffix(&*call.world.random)?;
    Ok((secret_arn(&call.region, target.owner(), named, &suffix), named.to_owned()))
}

/// Six letters, as they end an ARN. They name nothing, so what bias 256 mod 26 leaves is no matter.
fn suffix(random: &dyn Random) -> Result<String> {
    let bytes: [u8; SUFFIX_LEN] = crate::clock::random_bytes(random)?;
    Ok(bytes.iter().map(|b| char::from(b'a' + b % 26)).collect())
}

/// RestoreSecret:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_RestoreSecret.html>.
pub struct RestoreSecret;

/// What [`RestoreSecret`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RestoreSecretInput {
    secret_id: Option<String>,
}

impl Input for RestoreSecretInput {
    fn check(&self, checks: &mut Checks) {
        check_secret_id(checks, &self.secret_id);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::secret_id(key, self.secret_id.as_ref())
    }
}

impl Operation for RestoreSecret {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "RestoreSecret";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/secrets/{SecretId}:restore" };
    type Input = RestoreSecretInput;
    type Target = SecretTarget;
    type Output = Named;

    async fn locate(call: &Call, input: &RestoreSecretInput) -> Result<SecretTarget> {
        locate(call, given(&input.secret_id, "secretId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<SecretTarget>,
        _: RestoreSecretInput,
    ) -> Result<Named> {
        let output = Named::of(&target)?;
        call.answering(&output)?;
        let (found, now) = (target.secret()?.clone(), call.now);
        call.commit(move |rows| restore(rows, &found, now)).await?;
        call.rotations.wake.notify_one();
        Ok(output)
    }
}

fn restore(rows: &mut Rows<'_>, found: &Secret, now: Time) -> Result<()> {
    let secret = rows.secret(&found.account, &found.name)?;
    let mut secret = secret.filter(|s| s.uid == found.uid).ok_or_else(not_found)?;
    if secret.deleted.is_none() {
        return Ok(());
    }
    (secret.deleted, secret.due) = (None, None);
    save(rows, &mut secret, now)?;
    note_restored(rows, secret.uid, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window_of(json: &str) -> std::result::Result<Option<i64>, String> {
        let input: DeleteSecretInput = serde_json::from_str(json).expect("JSON");
        window(&input).map_err(|e| e.message.into_owned())
    }

    #[test]
    fn a_window_is_7_to_30_days_and_30_if_nothing_is_said() {
        assert_eq!(window_of("{}"), Ok(Some(30)));
        assert_eq!(window_of(r#"{"ForceDeleteWithoutRecovery":false}"#), Ok(Some(30)));
        for days in [7, 30] {
            let json = format!(r#"{{"RecoveryWindowInDays":{days}}}"#);
            assert_eq!(window_of(&json), Ok(Some(days)));
        }
        for days in [0, 6, 31, -1, i64::MAX] {
            assert!(window_of(&format!(r#"{{"RecoveryWindowInDays":{days}}}"#)).is_err());
        }
    }

    #[test]
    fn a_window_and_no_window_exclude_each_other() {
        assert_eq!(window_of(r#"{"ForceDeleteWithoutRecovery":true}"#), Ok(None));
        let both = r#"{"ForceDeleteWithoutRecovery":true,"RecoveryWindowInDays":7}"#;
        assert_eq!(
            window_of(both),
            Err("You can't use ForceDeleteWithoutRecovery in conjunction with \
                 RecoveryWindowInDays."
                .into())
        );
    }
}
