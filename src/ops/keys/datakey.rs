//! GenerateDataKey, GenerateDataKeyWithoutPlaintext.

use super::cipher::current_material;
use super::grants::token;
use super::terms::{EncryptionContext, Recipient, no_recipient, unless_dry};
use super::{KeyTarget, check_grant_tokens, check_key_id, facts, locate};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Blob, Checks, SecretBlob, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::secret::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The two key specs of data keys, with their lengths in bytes.
const SPECS: [(&str, usize); 2] = [("AES_256", 32), ("AES_128", 16)];

/// What both operations take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DataKeyInput {
    key_id: Option<String>,
    encryption_context: Option<EncryptionContext>,
    number_of_bytes: Option<i64>,
    key_spec: Option<String>,
    grant_tokens: Option<Vec<String>>,
    recipient: Option<Recipient>,
    dry_run: Option<bool>,
}

impl Input for DataKeyInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.range("numberOfBytes", self.number_of_bytes, 1, 1024);
        checks.one_of("keySpec", self.key_spec.as_deref(), &SPECS.map(|(name, _)| name));
        check_grant_tokens(checks, self.grant_tokens.as_deref());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let context = EncryptionContext::pairs(self.encryption_context.as_ref()).ok()?;
        facts::of_context(context, key).or_else(|| facts::of_algorithm(None, key))
    }
}

impl DataKeyInput {
    /// The length that is asked for: a spec or a number, not both.
    fn length(&self) -> Result<usize> {
        let length = match (&self.key_spec, self.number_of_bytes) {
            (Some(spec), None) => SPECS.iter().find(|(name, _)| name == spec).map(|(_, n)| *n),
            (None, Some(n)) => usize::try_from(n).ok(),
            _ => None,
        };
        let text = "Please specify either number of bytes or key spec.";
        length.ok_or_else(|| Error::new(Condition::Validation, text))
    }

    fn locate(&self, call: &Call) -> Result<KeyTarget> {
        token::check(call, self.grant_tokens.as_deref())?;
        self.length()?;
        EncryptionContext::pairs(self.encryption_context.as_ref())?;
        no_recipient(self.recipient.as_ref())?;
        locate(call, given(&self.key_id, "keyId")?)
    }

    /// Makes a data key from the operating system's generator and seals it.
    async fn make(&self, call: &Call, target: &KeyTarget) -> Result<DataKey> {
        let key = target.usable(call)?;
        unless_dry(self.dry_run)?;
        let mut plaintext = Secret::new(vec![0; self.length()?]);
        call.world.random.fill(plaintext.expose_mut())?;
        let context = EncryptionContext::pairs(self.encryption_context.as_ref())?;
        let sealed = call.envelopes.seal(key, context, plaintext.expose()).await?;
        Ok(DataKey {
            plaintext,
            sealed,
            key_arn: target.arn_of_key(key),
            material_id: current_material(key),
        })
    }
}

/// A data key, sealed and not.
struct DataKey {
    plaintext: Secret,
    sealed: Vec<u8>,
    key_arn: String,
    material_id: String,
}

/// GenerateDataKey:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>.
pub struct GenerateDataKey;

/// What [`GenerateDataKey`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKeyOutput {
    ciphertext_blob: Blob,
    plaintext: SecretBlob,
    key_id: String,
    key_material_id: String,
}

impl Operation for GenerateDataKey {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "GenerateDataKey";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}:generateDataKey" };
    const CRYPTOGRAPHIC: bool = true;
    type Input = DataKeyInput;
    type Target = KeyTarget;
    type Output = GenerateDataKeyOutput;

    async fn locate(call: &Call, input: &DataKeyInput) -> Result<KeyTarget> {
        input.locate(call)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: DataKeyInput,
    ) -> Result<GenerateDataKeyOutput> {
        let made = input.make(call, &target).await?;
        Ok(GenerateDataKeyOutput {
            ciphertext_blob: Blob(made.sealed),
            plaintext: SecretBlob(made.plaintext),
            key_id: made.key_arn,
            key_material_id: made.material_id,
        })
    }
}

/// GenerateDataKeyWithoutPlaintext:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyWithoutPlaintext.html>.
pub struct GenerateDataKeyWithoutPlaintext;

/// What [`GenerateDataKeyWithoutPlaintext`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateDataKeyWithoutPlaintextOutput {
    ciphertext_blob: Blob,
    key_id: String,
    key_material_id: String,
}

impl Operation for GenerateDataKeyWithoutPlaintext {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "GenerateDataKeyWithoutPlaintext";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route =
        Route { method: "POST", path: "/keys/{KeyId}:generateDataKeyWithoutPlaintext" };
    const CRYPTOGRAPHIC: bool = true;
    type Input = DataKeyInput;
    type Target = KeyTarget;
    type Output = GenerateDataKeyWithoutPlaintextOutput;

    async fn locate(call: &Call, input: &DataKeyInput) -> Result<KeyTarget> {
        input.locate(call)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: DataKeyInput,
    ) -> Result<GenerateDataKeyWithoutPlaintextOutput> {
        let made = input.make(call, &target).await?;
        Ok(GenerateDataKeyWithoutPlaintextOutput {
            ciphertext_blob: Blob(made.sealed),
            key_id: made.key_arn,
            key_material_id: made.material_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::shape::decode;

    #[test]
    fn a_length_is_a_spec_or_a_number_and_not_both() {
        let length = |json: &str| {
            let input: DataKeyInput = decode(json.as_bytes()).expect("decodes");
            input.length().ok()
        };
        assert_eq!(length(r#"{"KeySpec": "AES_256"}"#), Some(32));
        assert_eq!(length(r#"{"KeySpec": "AES_128"}"#), Some(16));
        assert_eq!(length(r#"{"NumberOfBytes": 1024}"#), Some(1024));
        assert_eq!(length(r#"{"NumberOfBytes": 32, "KeySpec": "AES_256"}"#), None);
        assert_eq!(length("{}"), None);
    }
}
