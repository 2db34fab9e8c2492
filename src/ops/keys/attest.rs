//! GetKeyAttestation: what the token says of a KMS key's material, now and signed. Strongroom's own
//! operation.

use super::attestation::{
    Attestation, Attributes, BackingKey, Described, Fault, Statement, Token, VERSION,
};
use super::{KeyTarget, check_key_id, locate};
use crate::custody::proof::Proof;
use crate::custody::{self, TokenKey, lane::Lane};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::keys::{Backing, KeyHolder};
use schemars::JsonSchema;
use serde::Deserialize;

/// GetKeyAttestation.
pub struct GetKeyAttestation;

/// What [`GetKeyAttestation`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetKeyAttestationInput {
    /// The key, by id, ARN or alias.
    key_id: Option<String>,
    /// 16 to 64 bytes in hexadecimal, which the statement repeats.
    nonce: Option<String>,
}

impl Input for GetKeyAttestationInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.pattern("nonce", self.nonce.as_deref(), "([0-9a-fA-F]{2}){16,64}", is_nonce);
    }
}

/// Whether this is a nonce: 16 to 64 bytes in hexadecimal.
pub fn is_nonce(text: &str) -> bool {
    (32..=128).contains(&text.len())
        && text.len().is_multiple_of(2)
        && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The bytes of a nonce.
pub(super) fn nonce_bytes(text: &str) -> Option<Vec<u8>> {
    is_nonce(text).then_some(())?;
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

impl Operation for GetKeyAttestation {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "GetKeyAttestation";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}/attestation" };
    const CRYPTOGRAPHIC: bool = true;
    type Input = GetKeyAttestationInput;
    type Target = KeyTarget;
    type Output = Attestation;

    async fn locate(call: &Call, input: &GetKeyAttestationInput) -> Result<KeyTarget> {
        locate(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: GetKeyAttestationInput,
    ) -> Result<Attestation> {
        let key = target.key()?;
        let (mut backing_keys, mut tokens) = (Vec::new(), Vec::<Token>::new());
        for (backing, holder) in key.holders() {
            let lane = call.tokens.of(&holder.token)?;
            if !tokens.iter().any(|token| token.serial == holder.token) {
                tokens.push(described(lane));
            }
            let mut key = ask(lane, backing, holder).await?;
            key.proof = prove(lane, holder, input.nonce.as_deref()).await?;
            backing_keys.push(key);
        }
        let now = jiff::Timestamp::from_second(call.services.world.clock.now().seconds());
        let statement = Statement {
            version: VERSION,
            key_arn: target.arn_of_key(key),
            time: now.unwrap_or(jiff::Timestamp::MAX).to_string(),
            nonce: input.nonce,
            tokens,
            backing_keys,
        };
        let statement = serde_json::to_string(&statement)
            .map_err(|e| Error::internal(format!("a statement that can't be written: {e}")))?;
        let note = call.recorder.state(&statement).await?.ok_or_else(|| {
            Error::new(Condition::Unsupported, "the default token can't sign".to_owned())
        })?;
        Ok(Attestation { statement, note })
    }
}

/// A token, and what it is taken for.
fn described(lane: &Lane) -> Token {
    let (info, profile) = (lane.info().clone(), lane.described());
    Token {
        label: info.label,
        serial: info.serial,
        manufacturer: info.manufacturer,
        model: info.model,
        profile: Described {
            name: profile.name.clone(),
            software: profile.software,
            statement: profile.statement.clone(),
        },
    }
}

/// What the token says of a backing key. That it is not the one that was made is said too; a token
/// that does not answer is an error.
async fn ask(lane: &Lane, backing: &Backing, holder: &KeyHolder) -> Result<BackingKey> {
    let key = TokenKey { id: holder.key, wrapped: holder.wrapped.clone() };
    let (attributes, fault) = match lane.inspect(key).await {
        Ok(evidence) if evidence.check == holder.check => (Some(evidence.into()), None),
        Ok(evidence) => (Some(Attributes::from(evidence)), Some(Fault::Substituted)),
        Err(custody::Error::KeyNotFound(_)) => (None, Some(Fault::Missing)),
        Err(custody::Error::KeyRejected { .. }) => (None, Some(Fault::Altered)),
        Err(error) => return Err(error.into()),
    };
    if let Some(fault) = fault {
        tracing::error!(?fault, "backing key {} is not as it was made", holder.key);
    }
    Ok(BackingKey {
        id: holder.key.to_string(),
        token: holder.token.clone(),
        key_material_id: backing.material_id.clone(),
        scheme: backing.scheme,
        imported: backing.imported,
        attributes,
        fault,
        proof: None,
    })
}

/// What the hardware itself signs about the key, where it does. That a key is lost or altered is
/// said by [`ask`].
async fn prove(lane: &Lane, holder: &KeyHolder, nonce: Option<&str>) -> Result<Option<Proof>> {
    let key = TokenKey { id: holder.key, wrapped: holder.wrapped.clone() };
    let nonce = nonce.and_then(nonce_bytes).unwrap_or_default();
    match lane.attest(key, nonce).await {
        Ok(proof) => Ok(Some(proof)),
        Err(
            custody::Error::Unsupported { .. }
            | custody::Error::KeyNotFound(_)
            | custody::Error::KeyRejected { .. },
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_has_16_to_64_bytes() {
        for good in ["0a".repeat(16), "Ff".repeat(64)] {
            assert!(is_nonce(&good));
        }
        for bad in ["", &"0".repeat(31), &"0".repeat(33), &"g0".repeat(16), &"00".repeat(65)] {
            assert!(!is_nonce(bad), "{bad}");
        }
    }
}
