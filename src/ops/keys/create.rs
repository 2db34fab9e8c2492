//! CreateKey, and the keys that the service makes for itself.

use super::describe::KeyMetadata;
use super::material::{Place, adopt, discard, event, make_backing_key};
use super::tags::{Brought, TagInput, TagResource, check_tags};
use super::{facts, policy};
use crate::clock::{Time, random_uuid};
use crate::name::{DEFAULT_SECRETS_ALIAS, Service, key_arn};
use crate::ops::call::{Allowed, Call, OwnAccount, Services};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::keys::{Alias, Backing, Key, KeyManager, KeyState, Rotation};
use crate::store::records::Made;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const KEY_USAGES: &[&str] =
    &["SIGN_VERIFY", "ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"];
/// What the deprecated CustomerMasterKeySpec can be; KeySpec can be more.
const OLD_SPECS: &[&str] = &[
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    "SYMMETRIC_DEFAULT",
    "HMAC_224",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "SM2",
];
const NEW_SPECS: &[&str] = &["ML_DSA_44", "ML_DSA_65", "ML_DSA_87", "ECC_NIST_EDWARDS25519"];
const ORIGINS: &[&str] = &["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"];
const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
const ENCRYPT: &str = "ENCRYPT_DECRYPT";

/// How often AWS-managed keys rotate, days.
const SERVICE_KEY_ROTATION: i64 = 365;
/// What AWS writes about the key behind `alias/aws/secretsmanager`.
const SECRETS_KEY_DESCRIPTION: &str =
    "Default key that protects my Secrets Manager data when no other key is defined";

/// CreateKey: <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html>.
pub struct CreateKey;

/// What [`CreateKey`] takes.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateKeyInput {
    policy: Option<String>,
    description: Option<String>,
    key_usage: Option<String>,
    customer_master_key_spec: Option<String>,
    key_spec: Option<String>,
    origin: Option<String>,
    custom_key_store_id: Option<String>,
    bypass_policy_lockout_safety_check: Option<bool>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    tags: Option<Vec<TagInput>>,
    multi_region: Option<bool>,
    xks_key_id: Option<String>,
}

impl CreateKeyInput {
    /// The key spec by its new name or its old one.
    fn spec(&self) -> &Option<String> {
        if self.key_spec.is_some() { &self.key_spec } else { &self.customer_master_key_spec }
    }
}

impl Input for CreateKeyInput {
    fn check(&self, checks: &mut Checks) {
        policy::check_member(checks, self.policy.as_deref());
        checks.length("description", self.description.as_deref(), 0, 8192);
        checks.one_of("keyUsage", self.key_usage.as_deref(), KEY_USAGES);
        let old = self.customer_master_key_spec.as_deref();
        checks.one_of("customerMasterKeySpec", old, OLD_SPECS);
        checks.one_of("keySpec", self.key_spec.as_deref(), &[OLD_SPECS, NEW_SPECS].concat());
        checks.one_of("origin", self.origin.as_deref(), ORIGINS);
        checks.length("customKeyStoreId", self.custom_key_store_id.as_deref(), 1, 64);
        checks.length("xksKeyId", self.xks_key_id.as_deref(), 1, 128);
        let plain = |id: &str| id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        checks.pattern("xksKeyId", self.xks_key_id.as_deref(), "^[a-zA-Z0-9-_.]+$", plain);
        TagInput::check_all(checks, self.tags.as_deref().unwrap_or_default());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let named = |text: &'static str, member: &Option<String>| {
            Some(Values::made(member.as_deref().unwrap_or(text)))
        };
        match key {
            "kms:keyspec" => named(SYMMETRIC, self.spec()),
            "kms:keyusage" => named(ENCRYPT, &self.key_usage),
            "kms:keyorigin" => named("AWS_KMS", &self.origin),
            "kms:multiregion" => Some(Values::truth(self.multi_region.unwrap_or(false))),
            _ => facts::of_bypass(self.bypass_policy_lockout_safety_check, key)
                .or_else(|| TagInput::fact(self.tags.as_deref()?, key)),
        }
    }
}

/// What [`CreateKey`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateKeyOutput {
    key_metadata: KeyMetadata,
}

impl Operation for CreateKey {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "CreateKey";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/keys" };
    type Input = CreateKeyInput;
    type Target = OwnAccount;
    type Output = CreateKeyOutput;

    async fn locate(call: &Call, _: &CreateKeyInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: CreateKeyInput,
    ) -> Result<CreateKeyOutput> {
        let tags = input.tags.as_deref().unwrap_or_default();
        if !tags.is_empty() {
            call.allow_with(TagResource::NAME, OwnAccount::of(call), &Brought(tags))?;
        }
        let tags = check_tags(tags)?;
        check_kind(&input, call.tokens.main()?.profile())?;
        let id = random_uuid(&*call.world.random)?;
        let arn = key_arn(&call.region, &call.caller.account, &id);
        let (policy, policy_holders) = match &input.policy {
            Some(text) => {
                let bypass = input.bypass_policy_lockout_safety_check.unwrap_or(false);
                let account = OwnAccount::of(call);
                let holders = policy::acceptable(call, &account, &arn, text, bypass)?;
                (text.clone(), holders)
            }
            None => (policy::default_policy(&call.caller.account), Vec::new()),
        };
        let place = Place::standard(&call.tokens)?;
        let backing = make_backing_key(call, &place, None).await?;
        let made = backing.holders.clone();
        let key = Key {
            description: input.description.unwrap_or_default(),
            policy,
            policy_holders,
            tags,
            ..fresh(id, &call.caller.account, call.now, backing)
        };
        let output = CreateKeyOutput { key_metadata: KeyMetadata::of(&call.region, &key) };
        call.acted_on(&arn);
        call.answering(&output)?;
        let committed = call
            .commit(move |rows| {
                adopt(rows, key.holders().map(|(_, holder)| holder))?;
                Ok(rows.put_key(&key)?)
            })
            .await;
        if committed.is_err() {
            discard(call, &made).await;
        }
        committed.map(|()| output)
    }
}

/// An enabled key of the customer's, nothing written on it yet.
pub(super) fn fresh(id: String, account: &str, now: Time, backing: Backing) -> Key {
    Key {
        id,
        account: account.to_owned(),
        description: String::new(),
        state: KeyState::Enabled,
        manager: KeyManager::Customer,
        created: now,
        due: None,
        window_days: None,
        policy: policy::default_policy(account),
        policy_holders: Vec::new(),
        tags: Vec::new(),
        backing: vec![backing],
        rotation: None,
        resealing: false,
        revision: 1,
        made: Made::default(),
    }
}

/// Says no to a kind of key that can't be made here, and why.
fn check_kind(input: &CreateKeyInput, profile: &str) -> Result<()> {
    let (spec, usage) = spec_and_usage(input)?;
    let unsupported = |what: String| {
        let text = format!(
            "This appliance can't make the key: with hardware profile `{profile}` it makes \
             SYMMETRIC_DEFAULT keys for ENCRYPT_DECRYPT inside the token, single-Region, and \
             {what} is not among them."
        );
        Err(Error::new(Condition::Unsupported, text))
    };
    if spec != SYMMETRIC {
        return unsupported(format!("KeySpec {spec} with KeyUsage {usage}"));
    }
    match input.origin.as_deref() {
        None | Some("AWS_KMS") => {}
        Some(origin) => return unsupported(format!("Origin {origin}")),
    }
    if input.multi_region == Some(true) {
        return unsupported("a multi-Region key".to_owned());
    }
    if input.custom_key_store_id.is_some() || input.xks_key_id.is_some() {
        return unsupported("a key in a custom key store".to_owned());
    }
    Ok(())
}

/// Which spec and usage are asked for; refuses those that don't go together.
fn spec_and_usage(input: &CreateKeyInput) -> Result<(&str, &str)> {
    let refuse = |text: String| Err(Error::new(Condition::Validation, text));
    let spec = match (&input.key_spec, &input.customer_master_key_spec) {
        (Some(_), Some(_)) => {
            return refuse(
                "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. \
                 CustomerMasterKeySpec is deprecated."
                    .to_owned(),
            );
        }
        (Some(spec), None) | (None, Some(spec)) => spec.as_str(),
        (None, None) => SYMMETRIC,
    };
    let Some(usage) = input.key_usage.as_deref() else {
        if spec == SYMMETRIC {
            return Ok((spec, ENCRYPT));
        }
        return refuse(
            "You must specify a KeyUsage value for all KMS keys except for symmetric encryption \
             keys."
                .to_owned(),
        );
    };
    if !usages(spec).contains(&usage) {
        return refuse(format!("KeyUsage {usage} is not compatible with KeySpec {spec}"));
    }
    Ok((spec, usage))
}

/// What a key of this spec can be for.
fn usages(spec: &str) -> &'static [&'static str] {
    match spec {
        SYMMETRIC => &[ENCRYPT],
        "SM2" => &[ENCRYPT, "SIGN_VERIFY", "KEY_AGREEMENT"],
        _ if spec.starts_with("RSA_") => &[ENCRYPT, "SIGN_VERIFY"],
        _ if spec.starts_with("HMAC_") => &["GENERATE_VERIFY_MAC"],
        _ if spec.starts_with("ECC_NIST_P") => &["SIGN_VERIFY", "KEY_AGREEMENT"],
        _ => &["SIGN_VERIFY"],
    }
}

/// Makes the AWS-managed key behind `alias/aws/secretsmanager` of an account, if there is none yet;
/// answers its key id.
///
/// # Errors
/// Those of the token, the database and the audit log; then nothing is changed.
pub async fn create_service_key(services: &Services, account: &str) -> Result<String> {
    if let Some(alias) = services.records.alias(account, DEFAULT_SECRETS_ALIAS)? {
        return Ok(alias.target.clone());
    }
    let (id, now) = (random_uuid(&*services.world.random)?, services.world.clock.now());
    let place = Place::standard(&services.tokens)?;
    let backing = make_backing_key(services, &place, None).await?;
    let made = backing.holders.clone();
    let next = now.plus_days(SERVICE_KEY_ROTATION);
    let key = Key {
        description: SECRETS_KEY_DESCRIPTION.to_owned(),
        manager: KeyManager::Aws,
        policy: policy::secrets_key_policy(account, &services.region),
        rotation: Some(Rotation { period_days: SERVICE_KEY_ROTATION, next }),
        ..fresh(id, account, now, backing)
    };
    let event = event("CreateKey", account, key_arn(&services.region, account, &key.id));
    let committed = services.commit_event(&event, move |rows| {
        if let Some(alias) = rows.alias(&key.account, DEFAULT_SECRETS_ALIAS)? {
            return Ok(alias.target);
        }
        adopt(rows, key.holders().map(|(_, holder)| holder))?;
        rows.put_key(&key)?;
        rows.put_alias(&alias_of(&key, DEFAULT_SECRETS_ALIAS, now))?;
        Ok(key.id.clone())
    });
    let committed = committed.await;
    // Where somebody else was faster, or the commit failed, the new key in the token goes again;
    // where it was adopted, this does nothing.
    discard(services, &made).await;
    committed
}

pub(super) fn alias_of(key: &Key, name: &str, now: Time) -> Alias {
    Alias {
        account: key.account.clone(),
        name: name.to_owned(),
        target: key.id.clone(),
        created: now,
        updated: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(json: &str) -> Result<()> {
        check_kind(&serde_json::from_str(json).expect("an input"), "softhsm2")
    }

    fn condition(json: &str) -> Condition {
        asked(json).expect_err(json).condition
    }

    #[test]
    fn the_symmetric_key_may_be_asked_for_in_every_way() {
        for json in [
            "{}",
            r#"{"KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"}"#,
            r#"{"CustomerMasterKeySpec": "SYMMETRIC_DEFAULT", "Origin": "AWS_KMS"}"#,
            r#"{"MultiRegion": false}"#,
        ] {
            assert!(asked(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn what_the_hardware_is_not_used_for_names_the_profile() {
        for json in [
            r#"{"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}"#,
            r#"{"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}"#,
            r#"{"Origin": "EXTERNAL"}"#,
            r#"{"Origin": "AWS_CLOUDHSM"}"#,
            r#"{"MultiRegion": true}"#,
        ] {
            let error = asked(json).expect_err(json);
            assert_eq!(error.condition, Condition::Unsupported, "{json}");
            assert!(error.message.contains("`softhsm2`"), "{json}");
        }
    }

    #[test]
    fn spec_and_usage_must_go_together() {
        for json in [
            r#"{"KeySpec": "RSA_2048"}"#,
            r#"{"KeySpec": "HMAC_256"}"#,
            r#"{"KeyUsage": "SIGN_VERIFY"}"#,
            r#"{"KeySpec": "ECC_NIST_P256", "KeyUsage": "ENCRYPT_DECRYPT"}"#,
            r#"{"KeySpec": "RSA_2048", "CustomerMasterKeySpec": "RSA_2048"}"#,
        ] {
            assert_eq!(condition(json), Condition::Validation, "{json}");
        }
    }
}
