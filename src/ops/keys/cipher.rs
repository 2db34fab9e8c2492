//! Encrypt, Decrypt, ReEncrypt, GenerateDataKey, GenerateDataKeyWithoutPlaintext, GenerateRandom.

use super::{KeyTarget, locate};
use crate::envelope::context::Context;
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::{Blob, Checks, SecretBlob, given};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Encrypt: <https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html>.
pub struct Encrypt;

/// What [`Encrypt`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptInput {
    key_id: Option<String>,
    plaintext: Option<SecretBlob>,
    #[serde(default)]
    encryption_context: Context,
}

impl Input for EncryptInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("keyId", &self.key_id);
        checks.length("keyId", self.key_id.as_deref(), 1, 2048);
        checks.required("plaintext", &self.plaintext);
        checks.blob("plaintext", self.plaintext.as_ref().map(|p| p.0.len()), 1, 4096);
    }
}

/// What [`Encrypt`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptOutput {
    key_id: String,
    ciphertext_blob: Blob,
    encryption_algorithm: &'static str,
}

impl Operation for Encrypt {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "Encrypt";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}:wrap" };
    const CRYPTOGRAPHIC: bool = true;
    type Input = EncryptInput;
    type Target = KeyTarget;
    type Output = EncryptOutput;

    async fn locate(call: &Call, input: &EncryptInput) -> Result<KeyTarget> {
        locate(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: EncryptInput,
    ) -> Result<EncryptOutput> {
        let key = target.usable()?;
        let plaintext = given(&input.plaintext, "plaintext")?;
        let sealed =
            call.envelopes.seal(key, &input.encryption_context, plaintext.0.expose()).await?;
        Ok(EncryptOutput {
            key_id: target.arn_of_key(key),
            ciphertext_blob: Blob(sealed),
            encryption_algorithm: "SYMMETRIC_DEFAULT",
        })
    }
}
