//! ListKeyHolders: which tokens hold a KMS key, and how far what is stored is sealed to them.

use super::{HeldKey, name_of};
use crate::name::{Scheme, Service};
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Error, Result};
use crate::ops::keys::check_key_id;
use crate::ops::secrets::reseal;
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::keys::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// ListKeyHolders.
pub struct ListKeyHolders;

/// What [`ListKeyHolders`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeyHoldersInput {
    /// The key, by id, ARN or alias.
    key_id: Option<String>,
}

impl Input for ListKeyHoldersInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
    }
}

/// What [`ListKeyHolders`] answers.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct KeyHolders {
    /// The key's ARN.
    pub key_id: String,
    /// How its current generation delivers message secrets.
    #[schemars(with = "String")]
    pub scheme: Scheme,
    /// How many generations it has.
    pub generations: usize,
    /// The tokens, in the order in which they came to hold it.
    pub holders: Vec<HoldingToken>,
    /// There while stored data keys may be sealed to holders of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resealing: Option<Resealing>,
}

/// A token that holds a key.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct HoldingToken {
    /// Its name in the configuration, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Its serial number.
    pub token_serial: String,
    /// How many of the key's generations it holds.
    pub generations: usize,
}

/// How far stored data keys are sealed to the holders of now.
#[derive(PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Resealing {
    /// From 0 to 100. At 100 something waits for a token.
    pub percent: u8,
    /// What waits; a data key that several tokens could open is counted for each.
    pub waiting: Vec<Waiting>,
}

/// Data keys that a token has to open which is away.
#[derive(PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Waiting {
    /// The token's name, or its serial number if the configuration has it no more.
    pub token: String,
    /// How many, when all were last gone through.
    pub data_keys: u64,
}

impl Operation for ListKeyHolders {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListKeyHolders";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}/holders" };
    type Input = ListKeyHoldersInput;
    type Target = HeldKey;
    type Output = KeyHolders;

    async fn locate(call: &Call, input: &ListKeyHoldersInput) -> Result<HeldKey> {
        HeldKey::locate(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<HeldKey>,
        _: ListKeyHoldersInput,
    ) -> Result<KeyHolders> {
        let key = target.0.key()?;
        let current = key.current().ok_or_else(|| Error::internal("a key of nothing"))?;
        Ok(KeyHolders {
            key_id: target.0.arn_of_key(key),
            scheme: current.scheme,
            generations: key.backing.len(),
            holders: holding(call, key),
            resealing: key.resealing.then(|| resealing(call, key)),
        })
    }
}

fn holding(call: &Call, key: &Key) -> Vec<HoldingToken> {
    let mut holding = Vec::<HoldingToken>::new();
    for (_, holder) in key.holders() {
        let known = holding.iter_mut().find(|one| one.token_serial == holder.token);
        match known {
            Some(one) => one.generations += 1,
            None => holding.push(HoldingToken {
                token: name_of(call, &holder.token).map(str::to_owned),
                token_serial: holder.token.clone(),
                generations: 1,
            }),
        }
    }
    holding
}

fn resealing(call: &Call, key: &Key) -> Resealing {
    let waiting = reseal::waiting_of(&call.services, key).into_iter();
    Resealing {
        percent: call.resealing.percent(key),
        waiting: waiting.map(|(token, data_keys)| Waiting { token, data_keys }).collect(),
    }
}
