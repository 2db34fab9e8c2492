//! KMS keys, their aliases, and the intents to make or destroy their backing keys.

use super::grants::Holder;
use super::records::{Document, Made, Records, Rows, belongs};
use super::{Result, Value, one};
use crate::clock::Time;
use crate::name::{BackingKeyId, KeyCheck, PublicKey, Scheme, WrappedKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;

/// A KMS key: everything of it but its material.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Key {
    /// The key id.
    pub id: String,
    /// The account that owns it.
    pub account: String,
    /// What its owner wrote about it.
    pub description: String,
    /// Whether it may be used.
    pub state: KeyState,
    /// Whether it belongs to a service (`AWS`) or to the customer.
    pub manager: KeyManager,
    /// When it was made.
    pub created: Time,
    /// When it is to be destroyed, if that is scheduled.
    pub due: Option<Time>,
    /// The window that was asked for, days.
    pub window_days: Option<i64>,
    /// The key policy, as it was written.
    pub policy: String,
    /// Whom it means by the principals that it names, as far as they are of accounts here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_holders: Vec<Holder>,
    /// Tags, in the order in which they were put.
    pub tags: Vec<Tag>,
    /// Its backing keys, the current one last; never empty.
    pub backing: Vec<Backing>,
    /// Automatic rotation.
    pub rotation: Option<Rotation>,
    /// The id of the custom key store that it is in, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Whether there may be data keys in the store for holders of before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resealing: bool,
    /// Rises with every change.
    pub revision: u64,
    /// The compiled key policy.
    #[serde(skip)]
    pub made: Made,
}

/// A key state of AWS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyState {
    /// May be used.
    Enabled,
    /// May be managed, not used.
    Disabled,
    /// Waits for its deletion.
    PendingDeletion,
    /// Its custom key store is not connected. No row says so: it follows from the store's.
    Unavailable,
}

/// Who manages a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyManager {
    /// A service: `alias/aws/...`.
    #[serde(rename = "AWS")]
    Aws,
    /// Its owner.
    #[serde(rename = "CUSTOMER")]
    Customer,
}

/// One generation of a KMS key's material: one key in a token, or one in each of several tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "AsWritten")]
pub struct Backing {
    /// Its name, which envelopes carry; the first holder's key has the same.
    pub id: BackingKeyId,
    /// How it delivers message secrets.
    pub scheme: Scheme,
    /// Who holds it: one token, or several of which any one opens if the scheme allows that. Never
    /// empty.
    pub holders: Vec<KeyHolder>,
    /// Of a scheme with public keys: the secret that nobody forges an envelope without, sealed to
    /// the holders; in base64, as the layer above reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticator: Option<String>,
    /// When it became the current one.
    pub created: Time,
    /// AWS's key material id: 64 hex digits.
    pub material_id: String,
    /// What made it: nothing for the first one.
    pub rotation: Option<RotationType>,
    /// Whether its value came from outside (a seed of `strongroom dev`): then the token can't vouch
    /// that it was never anywhere else.
    #[serde(default)]
    pub imported: bool,
}

/// A generation as rows have it: those of before there were several tokens have a check value in the
/// place of holders.
#[derive(Deserialize)]
struct AsWritten {
    id: BackingKeyId,
    scheme: Scheme,
    #[serde(default)]
    holders: Vec<KeyHolder>,
    check: Option<KeyCheck>,
    authenticator: Option<String>,
    created: Time,
    material_id: String,
    rotation: Option<RotationType>,
    #[serde(default)]
    imported: bool,
}

impl From<AsWritten> for Backing {
    fn from(row: AsWritten) -> Self {
        let AsWritten { id, scheme, mut holders, check, authenticator, .. } = row;
        holders
            .extend(check.filter(|_| holders.is_empty()).map(|check| KeyHolder::alone(id, check)));
        Self {
            id,
            scheme,
            holders,
            authenticator,
            created: row.created,
            material_id: row.material_id,
            rotation: row.rotation,
            imported: row.imported,
        }
    }
}

/// One key in one token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHolder {
    /// Its name in the token.
    pub key: BackingKeyId,
    /// The token's serial number; empty in rows of before there were several: the default one.
    pub token: String,
    /// What it must check to.
    pub check: KeyCheck,
    /// The key itself, if the token keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<WrappedKey>,
    /// The public half, of a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicKey>,
}

impl KeyHolder {
    /// The only one there was, before there were several tokens.
    pub fn alone(key: BackingKeyId, check: KeyCheck) -> Self {
        Self { key, token: String::new(), check, wrapped: None, public: None }
    }
}

/// Why a backing key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationType {
    /// By the schedule.
    #[serde(rename = "AUTOMATIC")]
    Automatic,
    /// By RotateKeyOnDemand.
    #[serde(rename = "ON_DEMAND")]
    OnDemand,
}

/// Automatic rotation, when it is on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Rotation {
    /// Days between rotations, 90 to 2,560.
    pub period_days: i64,
    /// When the next one is due.
    pub next: Time,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// 1 to 128 characters.
    pub key: String,
    /// Up to 256 characters.
    pub value: String,
}

impl Key {
    /// The backing key that seals now.
    pub fn current(&self) -> Option<&Backing> {
        self.backing.last()
    }

    /// Every key in a token that it has, with the generation that it belongs to.
    pub fn holders(&self) -> impl Iterator<Item = (&Backing, &KeyHolder)> {
        self.backing.iter().flat_map(|b| b.holders.iter().map(move |holder| (b, holder)))
    }

    /// Whether it is of the same generations as another state of it, held by the same tokens.
    pub fn same_material(&self, other: &Self) -> bool {
        fn material(key: &Key) -> impl Iterator<Item = (BackingKeyId, &[KeyHolder])> {
            key.backing.iter().map(|backing| (backing.id, backing.holders.as_slice()))
        }
        material(self).eq(material(other))
    }

    /// Whether the generations that it had in another state of it are held by the same tokens still. Those
    /// that came since were made for the holders of then.
    pub fn held_as(&self, before: &Self) -> bool {
        before.backing.iter().all(|known| {
            self.backing.iter().any(|now| now.id == known.id && now.holders == known.holders)
        })
    }

    /// When the next automatic rotation is due; a key that is not enabled is not rotated.
    pub fn rotates(&self) -> Option<Time> {
        let rotation = self.rotation.filter(|_| self.state == KeyState::Enabled);
        rotation.map(|rotation| rotation.next)
    }
}

impl Document for Key {
    const TABLE: &'static str = "kms_key";
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// An alias: another name for a KMS key of the same account and region.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alias {
    /// The account that owns it.
    pub account: String,
    /// The name, `alias/` included.
    pub name: String,
    /// The id of the key that it names.
    pub target: String,
    /// When it was made.
    pub created: Time,
    /// When it was last pointed elsewhere.
    pub updated: Time,
}

impl Document for Alias {
    const TABLE: &'static str = "alias";
    fn key(&self) -> String {
        alias_cache_key(&self.account, &self.name)
    }
}

fn alias_cache_key(account: &str, name: &str) -> String {
    [account, ":", name].concat()
}

/// What is about to be done to a backing key, durable before the token is touched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// Which one.
    pub backing_key: BackingKeyId,
    /// The serial number of the token that it is in, or is to be in; empty as a holder's.
    #[serde(default)]
    pub token: String,
    /// Make or destroy.
    pub what: IntentKind,
    /// When it was noted.
    pub noted: Time,
}

/// The two kinds of intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntentKind {
    /// The key is being made; without a row that names it, it is to be destroyed.
    Create,
    /// The key is to be destroyed; that it is not there is a success.
    Destroy,
}

impl Document for Intent {
    const TABLE: &'static str = "intent";
    fn key(&self) -> String {
        self.backing_key.to_string()
    }
}

impl Records {
    /// The KMS key with this id.
    pub fn key(&self, id: &str) -> Result<Option<Arc<Key>>> {
        self.cached(id, |rows| rows.key(id))
    }

    /// The alias with this name (`alias/` included) in this account.
    pub fn alias(&self, account: &str, name: &str) -> Result<Option<Arc<Alias>>> {
        self.cached(&alias_cache_key(account, name), |rows| rows.alias(account, name))
    }
}

impl Rows<'_> {
    /// The KMS key with this id.
    pub fn key(&mut self, id: &str) -> Result<Option<Key>> {
        let found = self.load("SELECT doc, mac FROM kms_key WHERE id = ?1", &[id.into()])?;
        belongs(found, |key: &Key| key.id == id)
    }

    /// Writes a KMS key.
    pub fn put_key(&mut self, key: &Key) -> Result<()> {
        self.save(
            key,
            "INSERT INTO kms_key (doc, mac, id, account, due, rotates, store, resealing)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO UPDATE
             SET doc = ?1, mac = ?2, due = ?5, rotates = ?6, resealing = ?8",
            &[
                (&key.id).into(),
                (&key.account).into(),
                due(key.due),
                due(key.rotates()),
                key.store.as_deref().into(),
                if key.resealing { Value::Int(1) } else { Value::Null },
            ],
        )?;
        Ok(())
    }

    /// Takes a KMS key's row away, the aliases that point to it and the grants on it.
    pub fn delete_key(&mut self, key: &Key) -> Result<()> {
        for alias in self.aliases_of(&key.account, &key.id)? {
            self.delete_alias(&alias.account, &alias.name)?;
        }
        self.delete_grants_on(&key.id)?;
        self.touch::<Key>(&key.id);
        self.tx().execute("DELETE FROM kms_key WHERE id = ?1", &[(&key.id).into()])?;
        Ok(())
    }

    /// Up to `limit` KMS keys of an account whose ids come after `after`, by id.
    pub fn keys(&mut self, account: &str, after: &str, limit: i64) -> Result<Vec<Key>> {
        self.all(
            "SELECT doc, mac FROM kms_key WHERE account = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            &[account.into(), after.into(), limit.into()],
        )
    }

    /// KMS keys whose deletion is due.
    pub fn keys_due(&mut self, now: Time, limit: i64) -> Result<Vec<Key>> {
        self.all(
            "SELECT doc, mac FROM kms_key WHERE due IS NOT NULL AND due <= ?1 LIMIT ?2",
            &[now.0.into(), limit.into()],
        )
    }

    /// Up to `limit` enabled KMS keys whose automatic rotation is due, the longest due first.
    pub fn keys_to_rotate(&mut self, now: Time, limit: i64) -> Result<Vec<Key>> {
        self.all(
            "SELECT doc, mac FROM kms_key WHERE rotates IS NOT NULL AND rotates <= ?1
             ORDER BY rotates LIMIT ?2",
            &[now.0.into(), limit.into()],
        )
    }

    /// The alias with this name in this account.
    pub fn alias(&mut self, account: &str, name: &str) -> Result<Option<Alias>> {
        let found = self.load(
            "SELECT doc, mac FROM alias WHERE account = ?1 AND name = ?2",
            &[account.into(), name.into()],
        )?;
        belongs(found, |alias: &Alias| alias.account == account && alias.name == name)
    }

    /// Writes an alias.
    pub fn put_alias(&mut self, alias: &Alias) -> Result<()> {
        self.save(
            alias,
            "INSERT INTO alias (doc, mac, account, name, key) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (account, name) DO UPDATE SET doc = ?1, mac = ?2, key = ?5",
            &[(&alias.account).into(), (&alias.name).into(), (&alias.target).into()],
        )?;
        Ok(())
    }

    /// Takes an alias away.
    pub fn delete_alias(&mut self, account: &str, name: &str) -> Result<()> {
        self.touch::<Alias>(&alias_cache_key(account, name));
        self.tx().execute(
            "DELETE FROM alias WHERE account = ?1 AND name = ?2",
            &[account.into(), name.into()],
        )?;
        Ok(())
    }

    /// Every alias of one key, by name.
    pub fn aliases_of(&mut self, account: &str, key: &str) -> Result<Vec<Alias>> {
        self.all(
            "SELECT doc, mac FROM alias WHERE account = ?1 AND key = ?2 ORDER BY name",
            &[account.into(), key.into()],
        )
    }

    /// Up to `limit` aliases of an account whose names come after `after`, by name.
    pub fn aliases(&mut self, account: &str, after: &str, limit: i64) -> Result<Vec<Alias>> {
        self.all(
            "SELECT doc, mac FROM alias WHERE account = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
            &[account.into(), after.into(), limit.into()],
        )
    }

    /// Notes an intent.
    pub fn put_intent(&mut self, intent: &Intent) -> Result<()> {
        let id = intent.backing_key.to_string();
        self.save(
            intent,
            "INSERT INTO intent (doc, mac, backing_key) VALUES (?1, ?2, ?3)
             ON CONFLICT (backing_key) DO UPDATE SET doc = ?1, mac = ?2",
            &[(&id).into()],
        )?;
        Ok(())
    }

    /// Takes an intent away: it was carried out, or overtaken by the final row.
    pub fn delete_intent(&mut self, backing_key: BackingKeyId) -> Result<()> {
        let id = backing_key.to_string();
        self.tx().execute("DELETE FROM intent WHERE backing_key = ?1", &[(&id).into()])?;
        Ok(())
    }

    /// The intent that stands for this backing key.
    pub fn intent(&mut self, backing_key: BackingKeyId) -> Result<Option<Intent>> {
        let id = backing_key.to_string();
        let found =
            self.load("SELECT doc, mac FROM intent WHERE backing_key = ?1", &[(&id).into()])?;
        belongs(found, |intent: &Intent| intent.backing_key == backing_key)
    }

    /// The ids of all backing keys that KMS keys name, in every account.
    pub fn backing_keys_in_use(&mut self) -> Result<HashSet<BackingKeyId>> {
        let mut ids = HashSet::new();
        self.each("SELECT doc, mac FROM kms_key", &[], |key: Key, _| {
            ids.extend(key.holders().map(|(_, holder)| holder.key));
            Ok(true)
        })?;
        Ok(ids)
    }

    /// The KMS keys whose holders have changed, and whose data keys may not yet be for those of now.
    pub fn keys_resealing(&mut self) -> Result<Vec<Key>> {
        self.all("SELECT doc, mac FROM kms_key WHERE resealing IS NOT NULL", &[])
    }

    /// Whether there are such KMS keys.
    pub fn any_key_resealing(&mut self) -> Result<bool> {
        let sql = "SELECT 1 FROM kms_key WHERE resealing IS NOT NULL LIMIT 1";
        Ok(one(self.tx(), sql, &[], |_| Ok(()))?.is_some())
    }

    /// Every KMS key's id, in every account.
    pub fn key_ids(&mut self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        self.each("SELECT doc, mac FROM kms_key ORDER BY id", &[], |key: Key, _| {
            ids.push(key.id);
            Ok(true)
        })?;
        Ok(ids)
    }

    /// Every intent that stands.
    pub fn intents(&mut self) -> Result<Vec<Intent>> {
        self.all("SELECT doc, mac FROM intent", &[])
    }

    fn all<D: Document>(&mut self, sql: &'static str, args: &[Value<'_>]) -> Result<Vec<D>> {
        let mut found = Vec::new();
        self.each(sql, args, |document, _| {
            found.push(document);
            Ok(true)
        })?;
        Ok(found)
    }
}

/// A moment that may be missing, as a column.
pub(super) fn due(time: Option<Time>) -> Value<'static> {
    time.map_or(Value::Null, |t| Value::Int(t.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_before_there_were_several_tokens_has_the_default_one_for_its_holder() {
        let before = r#"{"id": "07070707070707070707070707070707", "scheme": "hmac-kdf",
            "check": [1, 2, 3, 4, 5, 6, 7, 8], "created": 5, "material_id": "m", "rotation": null}"#;
        let read: Backing = serde_json::from_str(before).expect("read");
        let holder = KeyHolder::alone(BackingKeyId([7; 16]), KeyCheck([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(read.holders, [holder]);
        let written = serde_json::to_string(&read).expect("written");
        let again: Backing = serde_json::from_str(&written).expect("read again");
        assert_eq!(again.holders, read.holders);
    }

    fn generation() -> Backing {
        let row = r#"{"id": "07070707070707070707070707070707", "scheme": "ecdh", "created": 5,
            "material_id": "m", "rotation": null}"#;
        serde_json::from_str(row).expect("read")
    }

    fn bare_key() -> Key {
        let row = r#"{"id": "k", "account": "111122223333", "description": "", "state": "Enabled",
            "manager": "CUSTOMER", "created": 0, "due": null, "window_days": null, "policy": "",
            "tags": [], "rotation": null, "revision": 1, "backing": []}"#;
        serde_json::from_str(row).expect("read")
    }

    #[test]
    fn a_key_is_held_as_before_where_its_generations_of_before_are() {
        let holder = |n| KeyHolder::alone(BackingKeyId([n; 16]), KeyCheck([n; 8]));
        let key = |generations: &[&[u8]]| {
            let mut key = bare_key();
            for (at, holders) in (0..).zip(generations) {
                let holders = holders.iter().map(|n| holder(*n)).collect();
                key.backing.push(Backing { id: BackingKeyId([at; 16]), holders, ..generation() });
            }
            key
        };
        let before = key(&[&[1]]);
        assert!(key(&[&[1]]).held_as(&before) && key(&[&[1]]).same_material(&before));
        assert!(key(&[&[1], &[2]]).held_as(&before), "rotated");
        assert!(!key(&[&[1], &[2]]).same_material(&before));
        assert!(!key(&[&[1, 2]]).held_as(&before), "added");
        assert!(!key(&[&[2]]).held_as(&before), "taken away");
        assert!(!key(&[]).held_as(&before));
    }
}
