//! Seeds of secrets: given values, and a given ARN and version id if so wished.

use super::create::{CreateSecret, New, NewSecretTarget, create, random_suffix};
use super::seal::{self, Given, check_token, check_value};
use super::tags::{TagInput, accepted};
use super::{bad_name, labels};
use crate::clock::random_uuid;
use crate::name::{SUFFIX_LEN, is_secret_name, secret_arn};
use crate::ops::Operation;
use crate::ops::call::{Call, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::seed::{Planted, same_tags};
use crate::ops::shape::{Checks, SecretBlob, SecretText};
use crate::store::keys::Tag;
use crate::store::secrets::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A secret that is to be there.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SecretSeed {
    name: String,
    secret_string: Option<SecretText>,
    secret_binary: Option<SecretBlob>,
    description: Option<String>,
    kms_key_id: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    arn_suffix: Option<String>,
    version_id: Option<String>,
}

impl SecretSeed {
    /// The secret's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks everything that can be checked without an appliance, by the rules of CreateSecret.
    ///
    /// # Errors
    /// One for the first thing that is wrong.
    pub fn check(&self) -> Result<()> {
        if !is_secret_name(&self.name) {
            return Err(bad_name());
        }
        let mut checks = Checks::default();
        check_value(&mut checks, self.secret_string.as_ref(), self.secret_binary.as_ref());
        checks.length("description", self.description.as_deref(), 0, 2048);
        checks.length("kmsKeyId", self.kms_key_id.as_deref(), 0, 2048);
        checks.finish()?;
        let refuse = |text: &'static str| Err(Error::new(Condition::Validation, text));
        if self.secret_string.is_some() && self.secret_binary.is_some() {
            return refuse("a secret has a SecretString or a SecretBinary, not both");
        }
        if let Some(id) = &self.version_id {
            if self.secret_string.is_none() && self.secret_binary.is_none() {
                return refuse("a VersionId needs a value that it is the version of");
            }
            let mut checks = Checks::default();
            check_token(&mut checks, Some(id));
            if checks.finish().is_err() {
                return refuse("a VersionId has 32 to 64 characters");
            }
        }
        if self.arn_suffix.as_deref().is_some_and(|suffix| !is_suffix(suffix)) {
            return refuse("an ArnSuffix is six letters and digits");
        }
        self.tags().map(|_| ())
    }

    fn tags(&self) -> Result<Vec<Tag>> {
        let tags: Vec<_> = self.tags.iter().map(|(key, value)| TagInput::of(key, value)).collect();
        let mut checks = Checks::default();
        TagInput::check_all(Some(&tags), &mut checks);
        checks.finish()?;
        accepted(&tags)
    }
}

fn is_suffix(text: &str) -> bool {
    text.len() == SUFFIX_LEN && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Makes the secret, unless its name is there already.
///
/// # Errors
/// Those of [`SecretSeed::check`] and of CreateSecret; then nothing is made.
pub async fn plant(services: &Arc<Services>, account: &str, seed: SecretSeed) -> Result<Planted> {
    seed.check()?;
    let call =
        Call::of_system(services.clone(), CreateSecret::SERVICE, CreateSecret::NAME, account)?;
    match services.records.secret(account, &seed.name)? {
        Some(there) => {
            Ok(Planted { made: false, differences: differences(&call, &there, seed).await? })
        }
        None => make(&call, account, seed).await,
    }
}

async fn make(call: &Call, account: &str, seed: SecretSeed) -> Result<Planted> {
    let tags = seed.tags()?;
    let random = &*call.world.random;
    let suffix = seed.arn_suffix.map_or_else(|| random_suffix(random), Ok)?;
    let token = seed.version_id.map_or_else(|| random_uuid(random), Ok)?;
    let target = NewSecretTarget::of(&call.region, account, seed.name, suffix);
    let target = call.allow(CreateSecret::ACTION, target)?;
    let new = New {
        token: &token,
        description: seed.description,
        kms_key_id: seed.kms_key_id.as_deref().and_then(seal::key_name),
        given: Given::of(seed.secret_string, seed.secret_binary)?,
        tags: (!tags.is_empty()).then_some(tags),
    };
    create(call, &target, &new).await?;
    Ok(Planted { made: true, differences: Vec::new() })
}

/// In what a secret that is there differs.
async fn differences(call: &Call, there: &Secret, seed: SecretSeed) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut note = |differs: bool, text: &str| found.extend(differs.then(|| text.to_owned()));
    note(there.deleted.is_some(), "waits for its deletion");
    let suffix = seed.arn_suffix.as_ref();
    note(suffix.is_some_and(|suffix| *suffix != there.suffix), "has another suffix in its ARN");
    note(there.description != seed.description, "has another description");
    let key = seed.kms_key_id.as_deref().and_then(seal::key_name);
    note(there.kms_key_id.as_deref() != key, "has another KMS key");
    note(!same_tags(there.tags.as_deref().unwrap_or_default(), &seed.tags()?), "has other tags");
    if let Some(given) = Given::of(seed.secret_string, seed.secret_binary)? {
        match holds(call, there, &given).await {
            Ok(same) => note(!same, "has another value"),
            Err(error) => note(true, &format!("has a value that can't be read: {}", error.message)),
        }
    }
    Ok(found)
}

/// Whether the secret's current value is this one. It is compared here and told to nobody, so that
/// it does not count as read.
async fn holds(call: &Call, there: &Secret, given: &Given) -> Result<bool> {
    let Some(id) = there.version_with(labels::CURRENT) else { return Ok(false) };
    let arn = secret_arn(&call.region, &there.account, &there.name, &there.suffix);
    match call.records.read(|rows| rows.version(there.uid, id))? {
        Some(version) => seal::holds(call, &arn, &version, given).await,
        None => Ok(false),
    }
}
