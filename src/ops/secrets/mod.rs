//! Secrets Manager.

pub mod accesses;
pub mod batch;
pub mod create;
pub mod delete;
pub mod describe;
mod edit;
pub mod expiry;
mod facts;
pub mod filter;
pub mod labels;
pub mod list;
pub mod password;
pub mod policy;
pub mod purge;
pub mod put;
pub mod reseal;
pub mod rotate;
pub mod schedule;
mod seal;
pub mod seed;
pub mod stage;
pub mod tags;
pub mod update;
pub mod value;
pub mod versions;

use super::authority::compile;
use super::call::{Call, OwnPolicy, Target};
use super::error::{Condition, Error, Result};
use super::shape::Checks;
use crate::name::{Arn, SUFFIX_LEN, Service, is_secret_name, secret_arn};
use crate::policy::Values;
use crate::policy::document::Kind;
use crate::store::secrets::Secret;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// A secret that a request names, there or not.
pub struct SecretTarget {
    arn: String,
    owner: String,
    secret: Option<Arc<Secret>>,
    /// The ARN of the KMS key that the request names for it.
    kms_key: Option<String>,
}

impl Target for SecretTarget {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.owner
    }
    fn policy(&self) -> Result<OwnPolicy> {
        let Some(secret) = &self.secret else { return Ok(OwnPolicy::Adds(None)) };
        let Some(text) = &secret.policy else { return Ok(OwnPolicy::Adds(None)) };
        let made = secret
            .made
            .get_or(|| compile(&self.arn, text, Kind::Resource, &secret.policy_holders))?;
        Ok(OwnPolicy::Adds(Some(made)))
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        let secret = || self.secret.as_deref();
        facts::kms_key_arn(key, self.kms_key.as_ref())
            .or_else(|| facts::of_secret(secret()?, &call.services.region, key))
            .or_else(|| facts::of_rotation(&call.records, secret()?, key))
    }
}

impl SecretTarget {
    /// The target for a secret that was found by other means.
    fn found(region: &str, secret: Arc<Secret>) -> Self {
        let arn = secret_arn(region, &secret.account, &secret.name, &secret.suffix);
        Self { arn, owner: secret.account.clone(), secret: Some(secret), kms_key: None }
    }

    /// The secret, or AWS's answer that there is none.
    pub fn secret(&self) -> Result<&Arc<Secret>> {
        self.secret.as_ref().ok_or_else(not_found)
    }

    /// The secret, if it does not wait for its deletion.
    pub fn live(&self) -> Result<&Arc<Secret>> {
        let secret = self.secret()?;
        not_pending(secret)?;
        Ok(secret)
    }

    /// Its ARN, for the answer.
    pub fn into_arn(self) -> String {
        self.arn
    }
}

fn not_found() -> Error {
    Error::new(Condition::NotFound, "Secrets Manager can't find the specified secret.")
}

/// The answer to whoever wants to use a secret that waits for its deletion.
pub fn marked_for_deletion() -> Error {
    Error::new(
        Condition::InvalidRequest,
        "You can't perform this operation on the secret because it was marked for deletion.",
    )
}

/// Refuses a secret that waits for its deletion.
fn not_pending(secret: &Secret) -> Result<()> {
    if secret.deleted.is_some() { Err(marked_for_deletion()) } else { Ok(()) }
}

/// Changes what is said of a secret (not its values): reads it again inside the transaction, lets
/// `edit` change it, and writes it if `edit` answers that it did.
async fn change(
    call: &Call,
    target: &SecretTarget,
    mut edit: impl FnMut(&mut Secret) -> Result<bool> + Send + 'static,
) -> Result<()> {
    let (found, now) = (target.secret()?.clone(), call.now);
    call.commit(move |rows| {
        let secret = rows.secret(&found.account, &found.name)?;
        let mut secret = secret.filter(|s| s.uid == found.uid).ok_or_else(not_found)?;
        if edit(&mut secret)? {
            secret.changed = now;
            secret.revision += 1;
            rows.put_secret(&secret)?;
        }
        Ok(())
    })
    .await
}

/// An answer that says no more than which secret it was.
#[derive(Serialize, JsonSchema)]
pub struct Named {
    #[serde(rename = "ARN")]
    arn: String,
    #[serde(rename = "Name")]
    name: String,
}

impl Named {
    fn of(target: &SecretTarget) -> Result<Self> {
        Ok(Self { arn: target.arn.clone(), name: target.secret()?.name.clone() })
    }
}

/// Checks `SecretId`, which most operations take.
fn check_secret_id(checks: &mut Checks, id: &Option<String>) {
    checks.required("secretId", id);
    checks.length("secretId", id.as_deref(), 1, 2048);
}

/// Finds the secret that `named` means: a name, a full ARN, or an ARN without its random suffix.
/// Secrets of another region are not known here.
pub fn locate(call: &Call, named: &str) -> Result<SecretTarget> {
    let arn = Arn::parse(named);
    let (account, name) = match &arn {
        Some(arn) => (arn.account, in_arn(arn)?),
        None => (call.caller.account.as_str(), named),
    };
    let (short, suffix) = match arn.and_then(|_| split_suffix(name)) {
        Some((short, suffix)) => (short, Some(suffix)),
        None => (name, None),
    };
    if !is_secret_name(short) || !is_secret_name(suffix.unwrap_or(short)) {
        return Err(bad_name());
    }
    let mut secret = None;
    if arn.is_none_or(|arn| arn.region == call.region) {
        if let Some(suffix) = suffix {
            secret = call.records.secret(account, short)?.filter(|s| s.suffix == suffix);
        }
        if secret.is_none() {
            secret = call.records.secret(account, name)?;
        }
    }
    let arn = match &secret {
        Some(s) => secret_arn(&call.region, account, &s.name, &s.suffix),
        None if arn.is_some() => named.to_owned(),
        None => secret_arn(&call.region, account, name, "??????"),
    };
    Ok(SecretTarget { arn, owner: account.to_owned(), secret, kms_key: None })
}

/// The name in a secret's ARN, with whatever follows it.
fn in_arn<'a>(arn: &Arn<'a>) -> Result<&'a str> {
    let ours = arn.partition == "aws" && arn.service == Service::SecretsManager.prefix();
    arn.resource.strip_prefix("secret:").filter(|_| ours).ok_or_else(bad_name)
}

/// What may be a name and a suffix.
fn split_suffix(name: &str) -> Option<(&str, &str)> {
    let (short, suffix) = name.rsplit_once('-')?;
    (!short.is_empty() && suffix.len() == SUFFIX_LEN).then_some((short, suffix))
}

fn bad_name() -> Error {
    Error::new(
        Condition::Validation,
        "Invalid name. Must be a valid name containing alphanumeric characters, or any of the \
         following: -/_+=.@!",
    )
}
