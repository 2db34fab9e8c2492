//! GenerateRandom.

use super::stores::connected;
use super::terms::{Recipient, no_recipient};
use crate::custody;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, SecretBlob};
use crate::ops::{Access, Input, Operation, Route};
use crate::secret::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// GenerateRandom:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateRandom.html>.
///
/// `answer = token's bytes XOR operating system's bytes`: as unpredictable as the better of the two
/// generators. The token delivers first, so that it can't choose its bytes by the others. A YubiKey gives
/// out none: then they are the operating system's alone, unless its custom key store was asked for them.
pub struct GenerateRandom;

/// What [`GenerateRandom`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateRandomInput {
    number_of_bytes: Option<i64>,
    custom_key_store_id: Option<String>,
    recipient: Option<Recipient>,
}

impl Input for GenerateRandomInput {
    fn check(&self, checks: &mut Checks) {
        checks.range("numberOfBytes", self.number_of_bytes, 1, 1024);
        checks.length("customKeyStoreId", self.custom_key_store_id.as_deref(), 1, 64);
    }
}

impl GenerateRandomInput {
    fn length(&self) -> Result<usize> {
        let length = self.number_of_bytes.and_then(|n| usize::try_from(n).ok());
        length.ok_or_else(|| Error::new(Condition::Validation, "NumberOfBytes is required."))
    }
}

/// What [`GenerateRandom`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GenerateRandomOutput {
    plaintext: SecretBlob,
}

impl Operation for GenerateRandom {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "GenerateRandom";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/random" };
    type Input = GenerateRandomInput;
    type Target = OwnAccount;
    type Output = GenerateRandomOutput;

    async fn locate(call: &Call, input: &GenerateRandomInput) -> Result<OwnAccount> {
        input.length()?;
        no_recipient(input.recipient.as_ref())?;
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: GenerateRandomInput,
    ) -> Result<GenerateRandomOutput> {
        let length = input.length()?;
        let lane = match &input.custom_key_store_id {
            Some(id) => call.tokens.of(&connected(call, id)?.token)?,
            None => call.tokens.main()?,
        };
        let tokens = match lane.random(length).await {
            Ok(tokens) => Some(tokens),
            Err(custody::Error::Unsupported { .. }) if input.custom_key_store_id.is_none() => None,
            Err(error) => return Err(error.into()),
        };
        let mut mixed = Secret::new(vec![0; length]);
        call.world.random.fill(mixed.expose_mut())?;
        tokens.map_or(Ok(()), |tokens| mix(&mut mixed, &tokens))?;
        Ok(GenerateRandomOutput { plaintext: SecretBlob(mixed) })
    }
}

/// Mixes `tokens` into `bytes`; both have one length.
fn mix(bytes: &mut Secret, tokens: &Secret) -> Result<()> {
    if bytes.len() != tokens.len() {
        return Err(Error::internal("the token delivered another number of random bytes"));
    }
    for (byte, tokens) in bytes.expose_mut().iter_mut().zip(tokens.expose()) {
        *byte ^= tokens;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generators_show_in_every_byte() {
        let mut bytes = Secret::copy_of(&[0b1100, 0xff]);
        mix(&mut bytes, &Secret::copy_of(&[0b1010, 0x0f])).expect("one length");
        assert_eq!(bytes.expose(), [0b0110, 0xf0]);
    }

    #[test]
    fn a_token_that_delivers_too_little_is_no_generator() {
        assert!(mix(&mut Secret::copy_of(&[1, 2]), &Secret::copy_of(&[1])).is_err());
    }
}
