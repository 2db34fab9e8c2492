//! Encrypt, Decrypt, ReEncrypt.

use super::grants::token;
use super::source::{Need, Source};
use super::terms::{
    EncryptionContext, Recipient, SYMMETRIC_DEFAULT, check_algorithm, no_recipient, symmetric,
    unless_dry,
};
use super::{KeyTarget, check_grant_tokens, check_key_id, facts, locate};
use crate::envelope::context::Context;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::Result;
use crate::ops::shape::{Blob, Checks, SecretBlob, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Facts, Values};
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
    encryption_context: Option<EncryptionContext>,
    grant_tokens: Option<Vec<String>>,
    encryption_algorithm: Option<String>,
    dry_run: Option<bool>,
}

impl Input for EncryptInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.required("plaintext", &self.plaintext);
        checks.blob("plaintext", self.plaintext.as_ref().map(|p| p.0.len()), 1, 4096);
        check_grant_tokens(checks, self.grant_tokens.as_deref());
        check_algorithm(checks, "encryptionAlgorithm", self.encryption_algorithm.as_deref());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let context = EncryptionContext::pairs(self.encryption_context.as_ref()).ok()?;
        facts::of_context(context, key)
            .or_else(|| facts::of_algorithm(self.encryption_algorithm.as_ref(), key))
    }
}

/// What [`Encrypt`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptOutput {
    ciphertext_blob: Blob,
    key_id: String,
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
        token::check(call, input.grant_tokens.as_deref())?;
        EncryptionContext::pairs(input.encryption_context.as_ref())?;
        locate(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: EncryptInput,
    ) -> Result<EncryptOutput> {
        let key = target.usable(call)?;
        symmetric(input.encryption_algorithm.as_deref())?;
        let context = EncryptionContext::pairs(input.encryption_context.as_ref())?;
        let plaintext = given(&input.plaintext, "plaintext")?;
        unless_dry(input.dry_run)?;
        let sealed = call.envelopes.seal(key, context, plaintext.0.expose()).await?;
        Ok(EncryptOutput {
            ciphertext_blob: Blob(sealed),
            key_id: target.arn_of_key(key),
            encryption_algorithm: SYMMETRIC_DEFAULT,
        })
    }
}

/// Decrypt: <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>.
pub struct Decrypt;

/// What [`Decrypt`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DecryptInput {
    ciphertext_blob: Option<Blob>,
    encryption_context: Option<EncryptionContext>,
    grant_tokens: Option<Vec<String>>,
    key_id: Option<String>,
    encryption_algorithm: Option<String>,
    recipient: Option<Recipient>,
    dry_run: Option<bool>,
    dry_run_modifiers: Option<Vec<String>>,
}

impl DecryptInput {
    fn need(&self) -> Need {
        Need::of(self.dry_run, self.dry_run_modifiers.as_deref())
    }
}

impl Input for DecryptInput {
    fn check(&self, checks: &mut Checks) {
        let modifiers = self.dry_run_modifiers.as_deref();
        self.need().check(checks, modifiers, &self.ciphertext_blob, ("keyId", &self.key_id));
        checks.length("keyId", self.key_id.as_deref(), 1, 2048);
        check_grant_tokens(checks, self.grant_tokens.as_deref());
        check_algorithm(checks, "encryptionAlgorithm", self.encryption_algorithm.as_deref());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let context = EncryptionContext::pairs(self.encryption_context.as_ref()).ok()?;
        facts::of_context(context, key)
            .or_else(|| facts::of_algorithm(self.encryption_algorithm.as_ref(), key))
    }
}

/// What [`Decrypt`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DecryptOutput {
    key_id: String,
    plaintext: SecretBlob,
    encryption_algorithm: &'static str,
    key_material_id: String,
}

impl Operation for Decrypt {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "Decrypt";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{KeyId}:unwrap" };
    const CRYPTOGRAPHIC: bool = true;
    type Input = DecryptInput;
    type Target = Source;
    type Output = DecryptOutput;

    async fn locate(call: &Call, input: &DecryptInput) -> Result<Source> {
        token::check(call, input.grant_tokens.as_deref())?;
        EncryptionContext::pairs(input.encryption_context.as_ref())?;
        no_recipient(input.recipient.as_ref())?;
        Source::locate(call, input.key_id.as_deref(), input.ciphertext_blob.as_ref())
    }

    async fn run(
        call: &Call,
        source: Allowed<Source>,
        input: DecryptInput,
    ) -> Result<DecryptOutput> {
        source.check(call, input.need().ciphertext())?;
        symmetric(input.encryption_algorithm.as_deref())?;
        unless_dry(input.dry_run)?;
        let context = EncryptionContext::pairs(input.encryption_context.as_ref())?;
        let opened = source.into_inner().open(call, context).await?;
        Ok(DecryptOutput {
            key_id: opened.key_arn,
            plaintext: SecretBlob(opened.plaintext),
            encryption_algorithm: SYMMETRIC_DEFAULT,
            key_material_id: opened.material_id,
        })
    }
}

/// ReEncrypt: <https://docs.aws.amazon.com/kms/latest/APIReference/API_ReEncrypt.html>. It needs two
/// rights: `kms:ReEncryptFrom` on the source key, `kms:ReEncryptTo` on the destination key.
pub struct ReEncrypt;

/// What [`ReEncrypt`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ReEncryptInput {
    ciphertext_blob: Option<Blob>,
    source_encryption_context: Option<EncryptionContext>,
    source_key_id: Option<String>,
    destination_key_id: Option<String>,
    destination_encryption_context: Option<EncryptionContext>,
    source_encryption_algorithm: Option<String>,
    destination_encryption_algorithm: Option<String>,
    grant_tokens: Option<Vec<String>>,
    dry_run: Option<bool>,
    dry_run_modifiers: Option<Vec<String>>,
}

impl ReEncryptInput {
    fn need(&self) -> Need {
        Need::of(self.dry_run, self.dry_run_modifiers.as_deref())
    }
}

impl Input for ReEncryptInput {
    fn check(&self, checks: &mut Checks) {
        let modifiers = self.dry_run_modifiers.as_deref();
        let source = ("sourceKeyId", &self.source_key_id);
        self.need().check(checks, modifiers, &self.ciphertext_blob, source);
        checks.length("sourceKeyId", self.source_key_id.as_deref(), 1, 2048);
        checks.required("destinationKeyId", &self.destination_key_id);
        checks.length("destinationKeyId", self.destination_key_id.as_deref(), 1, 2048);
        let algorithm = self.source_encryption_algorithm.as_deref();
        check_algorithm(checks, "sourceEncryptionAlgorithm", algorithm);
        let algorithm = self.destination_encryption_algorithm.as_deref();
        check_algorithm(checks, "destinationEncryptionAlgorithm", algorithm);
        check_grant_tokens(checks, self.grant_tokens.as_deref());
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let context = EncryptionContext::pairs(self.source_encryption_context.as_ref()).ok()?;
        facts::of_context(context, key)
            .or_else(|| facts::of_algorithm(self.source_encryption_algorithm.as_ref(), key))
    }
}

/// What [`ReEncrypt`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ReEncryptOutput {
    ciphertext_blob: Blob,
    source_key_id: String,
    key_id: String,
    source_encryption_algorithm: &'static str,
    destination_encryption_algorithm: &'static str,
    source_key_material_id: String,
    destination_key_material_id: String,
}

impl Operation for ReEncrypt {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ReEncrypt";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/keys/{DestinationKeyId}:rewrap" };
    const ACTION: &'static str = "ReEncryptFrom";
    const CRYPTOGRAPHIC: bool = true;
    type Input = ReEncryptInput;
    type Target = Source;
    type Output = ReEncryptOutput;

    async fn locate(call: &Call, input: &ReEncryptInput) -> Result<Source> {
        token::check(call, input.grant_tokens.as_deref())?;
        EncryptionContext::pairs(input.source_encryption_context.as_ref())?;
        EncryptionContext::pairs(input.destination_encryption_context.as_ref())?;
        let destination = locate(call, given(&input.destination_key_id, "destinationKeyId")?)?;
        let (named, blob) = (input.source_key_id.as_deref(), input.ciphertext_blob.as_ref());
        Ok(Source::locate(call, named, blob)?.bound_for(destination.arn()))
    }

    async fn run(
        call: &Call,
        source: Allowed<Source>,
        input: ReEncryptInput,
    ) -> Result<ReEncryptOutput> {
        let destination = locate(call, given(&input.destination_key_id, "destinationKeyId")?)?;
        let context = EncryptionContext::pairs(input.destination_encryption_context.as_ref())?;
        let asked = Destination { context, same: destination.arn() == source.arn() };
        let destination = call.allow_with("ReEncryptTo", destination, &asked)?;
        source.check(call, input.need().ciphertext())?;
        symmetric(input.source_encryption_algorithm.as_deref())?;
        let key = destination.usable(call)?;
        symmetric(input.destination_encryption_algorithm.as_deref())?;
        unless_dry(input.dry_run)?;
        let context = EncryptionContext::pairs(input.source_encryption_context.as_ref())?;
        let opened = source.into_inner().open(call, context).await?;
        let context = EncryptionContext::pairs(input.destination_encryption_context.as_ref())?;
        let sealed = call.envelopes.seal(key, context, opened.plaintext.expose()).await?;
        Ok(ReEncryptOutput {
            ciphertext_blob: Blob(sealed),
            source_key_id: opened.key_arn,
            key_id: destination.arn_of_key(key),
            source_encryption_algorithm: SYMMETRIC_DEFAULT,
            destination_encryption_algorithm: SYMMETRIC_DEFAULT,
            source_key_material_id: opened.material_id,
            destination_key_material_id: current_material(key),
        })
    }
}

/// The destination's half of a ReEncrypt, as policies see it.
struct Destination<'a> {
    context: &'a Context,
    same: bool,
}

impl Facts for Destination<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        if key == "kms:reencryptonsamekey" {
            return Some(Values::truth(self.same));
        }
        facts::of_context(self.context, key).or_else(|| facts::of_algorithm(None, key))
    }
}

/// The id of the material that a key seals with.
pub(super) fn current_material(key: &crate::store::keys::Key) -> String {
    key.current().map(|backing| backing.material_id.clone()).unwrap_or_default()
}
