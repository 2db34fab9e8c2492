//! CreateSecret.

use super::edit::{ATTEMPTS, never_settled, outdated, starts_over};
use super::seal::{self, Given, check_token, check_value, token};
use super::tags::{self, TagInput, TagResource};
use super::{bad_name, expiry, facts, labels, probe};
use crate::clock::{NoRandomness, Random, Time, random_bytes};
use crate::name::{SUFFIX_LEN, Service, is_secret_name, secret_arn};
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, SecretBlob, SecretText, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::keys::Tag;
use crate::store::records::Made;
use crate::store::secrets::{Secret, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// CreateSecret:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>.
pub struct CreateSecret;

/// What [`CreateSecret`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateSecretInput {
    name: Option<String>,
    client_request_token: Option<String>,
    description: Option<String>,
    kms_key_id: Option<String>,
    secret_string: Option<SecretText>,
    secret_binary: Option<SecretBlob>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    tags: Option<Vec<TagInput>>,
    add_replica_regions: Option<Vec<serde_json::Value>>,
    #[serde(rename = "CrossAccountPrimaryARN")]
    cross_account_primary_arn: Option<String>,
    #[serde(rename = "Type")]
    kind: Option<String>,
}

impl Input for CreateSecretInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("name", &self.name);
        checks.length("name", self.name.as_deref(), 1, 512);
        check_token(checks, self.client_request_token.as_deref());
        checks.length("description", self.description.as_deref(), 0, 2048);
        checks.length("kmsKeyId", self.kms_key_id.as_deref(), 0, 2048);
        check_value(checks, self.secret_string.as_ref(), self.secret_binary.as_ref());
        TagInput::check_all(self.tags.as_deref(), checks);
        let replicas = self.add_replica_regions.as_ref().map(Vec::len);
        checks.items("addReplicaRegions", replicas, 1, usize::MAX);
        let primary = self.cross_account_primary_arn.as_deref();
        checks.length("crossAccountPrimaryARN", primary, 20, 2048);
        checks.length("type", self.kind.as_deref(), 0, 256);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        facts::text(key, "secretsmanager:name", self.name.as_ref())
            .or_else(|| facts::text(key, "secretsmanager:description", self.description.as_ref()))
            .or_else(|| facts::kms_key_id(key, self.kms_key_id.as_ref()))
            .or_else(|| TagInput::fact(self.tags.as_deref()?, key))
    }
}

/// What [`CreateSecret`] answers; no version where no value was given.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateSecretOutput {
    #[serde(rename = "ARN")]
    arn: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<String>,
}

/// The secret that is to be made, or the one that is there already.
pub struct NewSecretTarget {
    arn: String,
    account: String,
    name: String,
    suffix: String,
    /// The ARN of the KMS key that the request names for it.
    kms_key: Option<String>,
}

impl NewSecretTarget {
    /// The secret of this name and ARN.
    pub(super) fn of(region: &str, account: &str, name: String, suffix: String) -> Self {
        let arn = secret_arn(region, account, &name, &suffix);
        Self { arn, account: account.to_owned(), name, suffix, kms_key: None }
    }
}

impl Target for NewSecretTarget {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.account
    }
    fn fact<'a>(&'a self, _: &'a Call, key: &str) -> Option<Values<'a>> {
        facts::kms_key_arn(key, self.kms_key.as_ref())
    }
}

impl Operation for CreateSecret {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "CreateSecret";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/secrets" };
    type Input = CreateSecretInput;
    type Target = NewSecretTarget;
    type Output = CreateSecretOutput;

    async fn locate(call: &Call, input: &CreateSecretInput) -> Result<NewSecretTarget> {
        token(input.client_request_token.as_ref())?;
        let name = given(&input.name, "name")?.clone();
        if !is_secret_name(&name) {
            return Err(bad_name());
        }
        let account = call.caller.account.clone();
        let suffix = match call.records.secret(&account, &name)? {
            Some(secret) => secret.suffix.clone(),
            None => random_suffix(&*call.world.random)?,
        };
        let kms_key = seal::named_key_arn(call, &account, input.kms_key_id.as_deref())?;
        let target = NewSecretTarget::of(&call.region, &account, name, suffix);
        Ok(NewSecretTarget { kms_key, ..target })
    }

    async fn run(
        call: &Call,
        mut target: Allowed<NewSecretTarget>,
        input: CreateSecretInput,
    ) -> Result<CreateSecretOutput> {
        let token = token(input.client_request_token.as_ref())?;
        refuse_replicas(&input)?;
        seal::refuse_managed(input.kind.as_deref())?;
        let tags = tags::accepted(input.tags.as_deref().unwrap_or_default())?;
        if !tags.is_empty() {
            // Who may not tag a secret may not make one with tags either: tags can give rights.
            let asked = tags::Brought(input.tags.as_deref().unwrap_or_default());
            target = call.allow_with(TagResource::NAME, target.into_inner(), &asked)?;
        }
        let given = Given::of(input.secret_string, input.secret_binary)?;
        let kms_key_id = input.kms_key_id.as_deref().and_then(seal::key_name);
        let tags = (!tags.is_empty()).then_some(tags);
        let new = New { token, description: input.description, kms_key_id, given, tags };
        for _ in 0..ATTEMPTS {
            let outcome = match call.records.secret(&target.account, &target.name)? {
                Some(there) => repeat(call, &there, &new).await,
                None => create(call, &target, &new).await,
            };
            if !starts_over(&outcome) {
                return outcome;
            }
        }
        Err(never_settled())
    }
}

/// What the new secret is to be.
pub(super) struct New<'a> {
    pub(super) token: &'a str,
    pub(super) description: Option<String>,
    pub(super) kms_key_id: Option<&'a str>,
    pub(super) given: Option<Given>,
    pub(super) tags: Option<Vec<Tag>>,
}

/// Makes a secret. A name that is taken means that the caller has to start over.
pub(super) async fn create(
    call: &Call,
    target: &NewSecretTarget,
    new: &New<'_>,
) -> Result<CreateSecretOutput> {
    let key = seal::requested_key(call, &target.account, new.kms_key_id)?;
    seal::allow_key(call, &key, (&target.arn, new.token), &["GenerateDataKey", "Decrypt"])?;
    let version = match &new.given {
        Some(given) => Some(seal::seal(call, &key, &target.arn, new.token, given).await?),
        None => None,
    };
    let version_id = version.as_ref().map(|v| v.id.clone());
    let secret = document(call, target, new, version.as_ref())?;
    let output =
        CreateSecretOutput { arn: target.arn.clone(), name: target.name.clone(), version_id };
    call.answering(&output)?;
    call.commit(move |rows| {
        if rows.secret(&secret.account, &secret.name)?.is_some() {
            return Err(outdated());
        }
        rows.put_secret(&secret)?;
        let Some(version) = &version else { return Ok(()) };
        seal::for_its_holders(rows, &key)?;
        Ok(rows.add_version(secret.uid, version)?)
    })
    .await?;
    Ok(output)
}

fn document(
    call: &Call,
    target: &NewSecretTarget,
    new: &New<'_>,
    version: Option<&Version>,
) -> Result<Secret> {
    let mut stages = Vec::new();
    if let Some(version) = version {
        labels::put(&mut stages, labels::CURRENT, &version.id);
    }
    let mut secret = Secret {
        uid: random_uid(&*call.world.random)?,
        account: target.account.clone(),
        name: target.name.clone(),
        suffix: target.suffix.clone(),
        description: new.description.clone(),
        kms_key_id: new.kms_key_id.map(str::to_owned),
        created: call.now,
        changed: call.now,
        deleted: None,
        due: None,
        tags: new.tags.clone(),
        policy: None,
        policy_holders: Vec::new(),
        stages,
        versions: u32::from(version.is_some()),
        prune_after: Time(0),
        revision: 1,
        expiry: None,
        probe: None,
        made: Made::default(),
    };
    expiry::follow_tags(&mut secret, call.now);
    probe::follow_tags(&mut secret);
    Ok(secret)
}

/// Answers a request for a name that is taken: as before if it is the same request again.
async fn repeat(call: &Call, there: &Arc<Secret>, new: &New<'_>) -> Result<CreateSecretOutput> {
    if there.deleted.is_some() {
        return Err(Error::new(
            Condition::InvalidRequest,
            "You can't create this secret because a secret with this name is already scheduled for \
             deletion.",
        ));
    }
    let stored = call.records.read(|rows| rows.version(there.uid, new.token))?;
    let (Some(stored), Some(given)) = (stored, &new.given) else {
        let text =
            format!("The operation failed because the secret {} already exists.", there.name);
        return Err(Error::new(Condition::AlreadyExists, text));
    };
    let arn = secret_arn(&call.region, &there.account, &there.name, &there.suffix);
    if !seal::holds(call, &arn, &stored, given).await? {
        return Err(seal::token_in_use(new.token, &arn));
    }
    Ok(CreateSecretOutput { arn, name: there.name.clone(), version_id: Some(stored.id) })
}

/// Never overlooked: the caller would take an ordinary secret for a replicated one.
fn refuse_replicas(input: &CreateSecretInput) -> Result<()> {
    let refuse = |text| Err(Error::new(Condition::InvalidParameter, text));
    if input.add_replica_regions.is_some() {
        refuse("Replication to other Regions is not available on this appliance.")
    } else if input.cross_account_primary_arn.is_some() {
        refuse("Replication from other accounts is not available on this appliance.")
    } else {
        Ok(())
    }
}

/// Six letters and digits, each as likely as any other.
pub(super) fn random_suffix(random: &dyn Random) -> std::result::Result<String, NoRandomness> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut suffix = String::with_capacity(SUFFIX_LEN);
    while suffix.len() < SUFFIX_LEN {
        let [byte] = random_bytes::<1>(random)?;
        // 248 is the largest multiple of 62 in a byte: above it some would come up more often.
        let letter = ALPHABET.get(usize::from(byte % 62)).filter(|_| byte < 248);
        suffix.extend(letter.map(|b| char::from(*b)));
    }
    Ok(suffix)
}

/// A positive number that no other secret has: 63 random bits.
fn random_uid(random: &dyn Random) -> std::result::Result<i64, NoRandomness> {
    Ok((i64::from_be_bytes(random_bytes(random)?) & i64::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;

    #[test]
    fn a_suffix_is_six_letters_and_digits_and_all_of_them_come_up() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let suffix = random_suffix(&SystemRandom).expect("randomness");
            assert_eq!(suffix.len(), 6);
            assert!(suffix.bytes().all(|b| b.is_ascii_alphanumeric()), "{suffix}");
            seen.extend(suffix.into_bytes());
        }
        assert_eq!(seen.len(), 62);
    }
}
