//! Secrets Manager.

pub mod batch;
pub mod create;
mod edit;
pub mod filter;
pub mod labels;
pub mod put;
mod seal;
pub mod stage;
pub mod update;
pub mod value;
pub mod versions;

use super::call::{Call, Target};
use super::error::{Condition, Error, Result};
use crate::name::{Arn, SUFFIX_LEN, Service, is_secret_name, secret_arn};
use crate::store::secrets::Secret;
use std::sync::Arc;

/// A secret that a request names, there or not.
pub struct SecretTarget {
    arn: String,
    owner: String,
    secret: Option<Arc<Secret>>,
}

impl Target for SecretTarget {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.owner
    }
}

impl SecretTarget {
    /// The secret, or AWS's answer that there is none.
    pub fn secret(&self) -> Result<&Arc<Secret>> {
        self.secret.as_ref().ok_or_else(not_found)
    }

    /// The secret, if it does not wait for its deletion.
    pub fn live(&self) -> Result<&Arc<Secret>> {
        let secret = self.secret()?;
        if secret.deleted.is_some() {
            return Err(marked_for_deletion());
        }
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

/// Finds the secret that `named` means: a name, a full ARN, or an ARN without its random suffix.
pub fn locate(call: &Call, named: &str) -> Result<SecretTarget> {
    let (account, name, suffix) = match Arn::parse(named) {
        Some(arn) => in_arn(call, &arn)?,
        None => (call.caller.account.as_str(), named, None),
    };
    if !is_secret_name(name) {
        return Err(bad_name());
    }
    let mut secret = None;
    if let Some(suffix) = suffix {
        let short = name.get(..name.len() - SUFFIX_LEN - 1).unwrap_or_default();
        secret = call.records.secret(account, short)?.filter(|s| s.suffix == suffix);
    }
    if secret.is_none() {
        secret = call.records.secret(account, name)?;
    }
    let arn = match &secret {
        Some(s) => secret_arn(&call.region, account, &s.name, &s.suffix),
        None if suffix.is_some() => named.to_owned(),
        None => secret_arn(&call.region, account, name, "??????"),
    };
    Ok(SecretTarget { arn, owner: account.to_owned(), secret })
}

/// The account, the name with whatever follows it, and the suffix if there may be one.
fn in_arn<'a>(call: &Call, arn: &Arn<'a>) -> Result<(&'a str, &'a str, Option<&'a str>)> {
    let name = arn
        .resource
        .strip_prefix("secret:")
        .filter(|_| arn.partition == "aws" && arn.service == Service::SecretsManager.prefix());
    let name = name.ok_or_else(bad_name)?;
    if arn.region != call.region {
        // As if it were not there: secrets of another region are not known here.
        return Ok((arn.account, name, None));
    }
    let suffix = name
        .rsplit_once('-')
        .filter(|(short, suffix)| !short.is_empty() && suffix.len() == SUFFIX_LEN)
        .map(|(_, suffix)| suffix);
    Ok((arn.account, name, suffix))
}

fn bad_name() -> Error {
    Error::new(
        Condition::Validation,
        "Invalid name. Must be a valid name containing alphanumeric characters, or any of the \
         following: -/_+=.@!",
    )
}
