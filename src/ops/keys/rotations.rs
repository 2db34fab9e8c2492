//! ListKeyRotations.

use super::list::{Next, Paging};
use super::{KeyTarget, check_key_id, locate_own};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::{Checks, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::keys::{Key, RotationType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// ListKeyRotations:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListKeyRotations.html>.
pub struct ListKeyRotations;

/// What [`ListKeyRotations`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeyRotationsInput {
    key_id: Option<String>,
    include_key_material: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

const ALL_KEY_MATERIAL: &str = "ALL_KEY_MATERIAL";

impl Input for ListKeyRotationsInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        let values = [ALL_KEY_MATERIAL, "ROTATIONS_ONLY"];
        checks.one_of("includeKeyMaterial", self.include_key_material.as_deref(), &values);
        self.paging.check(checks);
    }
}

/// A line of [`ListKeyRotations`]'s answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RotationsListEntry {
    key_id: String,
    key_material_id: String,
    key_material_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_date: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    rotation_type: Option<RotationType>,
}

/// What [`ListKeyRotations`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListKeyRotationsOutput {
    rotations: Vec<RotationsListEntry>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListKeyRotations {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListKeyRotations";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}/rotations" };
    type Input = ListKeyRotationsInput;
    type Target = KeyTarget;
    type Output = ListKeyRotationsOutput;

    async fn locate(call: &Call, input: &ListKeyRotationsInput) -> Result<KeyTarget> {
        locate_own(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: ListKeyRotationsInput,
    ) -> Result<ListKeyRotationsOutput> {
        let key = target.key()?;
        let all = input.include_key_material.as_deref() == Some(ALL_KEY_MATERIAL);
        let scope = [key.id.as_str(), if all { "/all" } else { "" }].concat();
        let (after, limit) = input.paging.start(call, &scope, 100, 1000)?;
        let mut rotations = entries(key, all, &after, limit + 1);
        let next = Next::cut(call, &scope, &mut rotations, limit, |entry| &entry.key_material_id);
        Ok(ListKeyRotationsOutput { rotations, next })
    }
}

/// Up to `limit` of a key's materials, the oldest first, after the one with the id `after` if that is
/// not empty; with the first material, which no rotation made, if `all` are wanted.
fn entries(key: &Key, all: bool, after: &str, limit: usize) -> Vec<RotationsListEntry> {
    let last = key.backing.len().saturating_sub(1);
    let passed = key.backing.iter().position(|backing| backing.material_id == after);
    key.backing
        .iter()
        .enumerate()
        .skip(passed.map_or(0, |at| at + 1))
        .filter(|(_, backing)| all || backing.rotation.is_some())
        .take(limit)
        .map(|(at, backing)| RotationsListEntry {
            key_id: key.id.clone(),
            key_material_id: backing.material_id.clone(),
            key_material_state: if at == last { "CURRENT" } else { "NON_CURRENT" },
            rotation_date: backing.rotation.map(|_| Epoch(backing.created)),
            rotation_type: backing.rotation,
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::name::{BackingKeyId, Scheme};
    use crate::store::keys::{Backing, KeyManager, KeyState};

    /// A key with this many backing keys, `m0`, `m1`, ...; all but the first were made on demand.
    pub(in super::super) fn key(materials: u8) -> Key {
        let backing = |n: u8| Backing {
            id: BackingKeyId([n; 16]),
            scheme: Scheme::HmacKdf,
            holders: Vec::new(),
            authenticator: None,
            created: Time(n.into()),
            material_id: format!("m{n}"),
            rotation: (n > 0).then_some(RotationType::OnDemand),
            imported: false,
        };
        Key {
            id: "1234abcd-12ab-34cd-56ef-1234567890ab".into(),
            account: "111111111111".into(),
            description: String::new(),
            state: KeyState::Enabled,
            manager: KeyManager::Customer,
            created: Time(0),
            due: None,
            window_days: None,
            policy: String::new(),
            policy_holders: Vec::new(),
            tags: vec![],
            backing: (0..materials).map(backing).collect(),
            rotation: None,
            resealing: false,
            revision: 0,
            made: Default::default(),
        }
    }

    fn listed(key: &Key, all: bool, after: &str, limit: usize) -> Vec<(String, &'static str)> {
        let entries = entries(key, all, after, limit).into_iter();
        entries.map(|entry| (entry.key_material_id, entry.key_material_state)).collect()
    }

    #[test]
    fn the_first_material_is_no_rotation() {
        assert_eq!(listed(&key(1), false, "", 10), []);
        assert_eq!(listed(&key(1), true, "", 10), [("m0".into(), "CURRENT")]);
        let first = entries(&key(2), true, "", 1).pop().expect("the first material");
        assert!(first.rotation_date.is_none() && first.rotation_type.is_none());
    }

    #[test]
    fn the_newest_material_is_last_and_current() {
        let expected = [("m1".into(), "NON_CURRENT"), ("m2".into(), "CURRENT")];
        assert_eq!(listed(&key(3), false, "", 10), expected);
    }

    #[test]
    fn a_page_goes_on_after_the_last_one() {
        assert_eq!(listed(&key(4), false, "", 1), [("m1".into(), "NON_CURRENT")]);
        assert_eq!(listed(&key(4), false, "m1", 1), [("m2".into(), "NON_CURRENT")]);
        assert_eq!(listed(&key(4), false, "m2", 9), [("m3".into(), "CURRENT")]);
        assert_eq!(listed(&key(4), false, "m3", 9), []);
    }
}
