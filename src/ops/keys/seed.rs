//! Seeds of KMS keys: given ids, and given material if so wished.

use super::alias::{self, MOST_PER_KEY};
use super::create::{alias_of, fresh};
use super::material::{
    Place, adopt, check_value, discard, event, import_backing_key, make_backing_key,
};
use super::tags::{TagInput, check_tags};
use crate::name::{alias_arn, is_key_id, key_arn};
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::seed::{Planted, same_tags};
use crate::ops::shape::Checks;
use crate::secret::{Key as Material, Secret};
use crate::store::keys::{Key, KeyState, Tag};
use crate::store::records::Rows;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// A symmetric KMS key that is to be there.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct KeySeed {
    key_id: String,
    key_material: Option<GivenMaterial>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default = "enabled")]
    enabled: bool,
}

fn enabled() -> bool {
    true
}

/// 256 bits of key material, written as 64 hex digits or in base64.
struct GivenMaterial(Material);

impl<'de> Deserialize<'de> for GivenMaterial {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = GivenMaterial;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 bytes of key material, as 64 hex digits or in base64")
            }
            fn visit_str<E: serde::de::Error>(
                self,
                text: &str,
            ) -> std::result::Result<GivenMaterial, E> {
                let wrong = "key material is 32 bytes, written as 64 hex digits or in base64";
                material(text).map(GivenMaterial).ok_or_else(|| E::custom(wrong))
            }
        }
        d.deserialize_str(Text)
    }
}

fn material(text: &str) -> Option<Material> {
    match text.as_bytes().as_chunks::<2>() {
        (pairs, []) if pairs.len() == 32 => Material::fill(|key| {
            for (byte, [high, low]) in key.iter_mut().zip(pairs) {
                *byte = digit(*high)? << 4 | digit(*low)?;
            }
            Ok::<_, NotHex>(())
        })
        .ok(),
        _ => Material::from_secret(&Secret::new(STANDARD.decode(text).ok()?)),
    }
}

/// A character that is no hex digit.
struct NotHex;

fn digit(byte: u8) -> std::result::Result<u8, NotHex> {
    let value = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    value.ok_or(NotHex)
}

impl KeySeed {
    /// The key id.
    pub fn id(&self) -> &str {
        &self.key_id
    }

    /// The aliases, `alias/` included.
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// Checks everything that can be checked without an appliance, by the rules of CreateKey,
    /// CreateAlias and TagResource.
    ///
    /// # Errors
    /// One for the first thing that is wrong.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(Condition::Validation, text));
        if !is_key_id(&self.key_id) || self.key_id.starts_with("mrk-") {
            let id = &self.key_id;
            return refuse(format!("key id `{id}` is not a UUID in lower case"));
        }
        let mut checks = Checks::default();
        checks.length("description", Some(&self.description), 0, 8192);
        checks.finish()?;
        if self.aliases.len() > MOST_PER_KEY {
            return refuse(format!("a KMS key has at most {MOST_PER_KEY} aliases"));
        }
        self.aliases.iter().try_for_each(|name| check_alias(name))?;
        self.tags().map(|_| ())
    }

    fn tags(&self) -> Result<Vec<Tag>> {
        let tags: Vec<_> = self.tags.iter().map(|(key, value)| TagInput::of(key, value)).collect();
        let mut checks = Checks::default();
        TagInput::check_all(&mut checks, &tags);
        checks.finish()?;
        check_tags(&tags)
    }

    fn state(&self) -> KeyState {
        if self.enabled { KeyState::Enabled } else { KeyState::Disabled }
    }

    /// In what a key that is there differs.
    fn differences(&self, account: &str, there: &Key) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut note = |differs: bool, text: &str| found.extend(differs.then(|| text.to_owned()));
        note(there.account != account, "belongs to another account");
        if let Some(GivenMaterial(given)) = &self.key_material {
            let check = check_value(given);
            let same = there.holders().any(|(b, holder)| b.imported && holder.check == check);
            note(!same, "has other key material");
        }
        match there.state {
            KeyState::PendingDeletion => note(true, "waits for its deletion"),
            KeyState::Enabled => note(!self.enabled, "is enabled"),
            KeyState::Disabled => note(self.enabled, "is disabled"),
        }
        note(there.description != self.description, "has another description");
        note(!same_tags(&there.tags, &self.tags()?), "has other tags");
        Ok(found)
    }
}

fn check_alias(name: &str) -> Result<()> {
    let refuse = |text: String| Err(Error::new(Condition::InvalidAliasName, text));
    let mut checks = Checks::default();
    alias::check_alias_name(&mut checks, &Some(name.to_owned()));
    checks.finish()?;
    if name == crate::name::ALIAS_PREFIX {
        return refuse("an alias needs a name after the prefix `alias/`".to_owned());
    }
    alias::check_name(name).or_else(|error| match error.condition {
        Condition::NotAuthorized => refuse(format!("alias `{name}` is reserved for the service")),
        _ => Err(error),
    })
}

/// Makes the key with its aliases in one transaction, unless its id is there already. An alias that
/// names another key is left there.
///
/// # Errors
/// Those of [`KeySeed::check`], of the token, the database and the audit log; then nothing is made.
pub async fn plant(services: &Services, account: &str, seed: KeySeed) -> Result<Planted> {
    seed.check()?;
    if let Some(there) = services.records.key(&seed.key_id)? {
        let mut differences = seed.differences(account, &there)?;
        for name in &seed.aliases {
            let alias = services.records.alias(account, name)?;
            let text = match alias {
                None => format!("has not the alias `{name}`"),
                Some(alias) if alias.target != there.id => elsewhere(name, &alias.target),
                Some(_) => continue,
            };
            differences.push(text);
        }
        return Ok(Planted { made: false, differences });
    }
    make(services, account, seed).await
}

fn elsewhere(name: &str, target: &str) -> String {
    format!("has not the alias `{name}`, which names key `{target}`")
}

async fn make(services: &Services, account: &str, seed: KeySeed) -> Result<Planted> {
    let (tags, state) = (seed.tags()?, seed.state());
    let backing = match seed.key_material {
        Some(GivenMaterial(given)) => import_backing_key(services, &seed.key_id, given).await?,
        None => {
            let place = Place::standard(&services.tokens)?;
            make_backing_key(services, &place, None).await?
        }
    };
    let (made, now) = (backing.holders.clone(), services.world.clock.now());
    let description = seed.description;
    let key = Key { description, tags, state, ..fresh(seed.key_id, account, now, backing) };
    let region = &services.region;
    let mut event = event("CreateKey", account, key_arn(region, account, &key.id));
    event.resources.extend(seed.aliases.iter().map(|name| alias_arn(region, account, name)));
    let aliases = seed.aliases;
    let committed = services
        .commit_event(&event, move |rows| {
            adopt(rows, key.holders().map(|(_, holder)| holder))?;
            rows.put_key(&key)?;
            name(rows, &key, &aliases)
        })
        .await;
    if committed.is_err() {
        discard(services, &made).await;
    }
    committed.map(|differences| Planted { made: true, differences })
}

/// Gives a new key those of its aliases that are free; answers the others.
fn name(rows: &mut Rows<'_>, key: &Key, aliases: &[String]) -> Result<Vec<String>> {
    let mut taken = Vec::new();
    for name in aliases {
        match rows.alias(&key.account, name)? {
            Some(alias) => taken.push(elsewhere(name, &alias.target)),
            None => rows.put_alias(&alias_of(key, name, key.created))?,
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    fn seed(members: &str) -> KeySeed {
        serde_json::from_str(&format!(r#"{{"KeyId": "{ID}"{members}}}"#)).expect("a seed")
    }

    fn refusal(members: &str) -> String {
        seed(members).check().expect_err(members).message.into_owned()
    }

    #[test]
    fn material_is_32_bytes_in_hex_or_base64() {
        let hex = "00ff".repeat(16);
        let base64 = STANDARD.encode([0x00, 0xff].repeat(16));
        for text in [&hex, &hex.to_uppercase(), &base64] {
            let given = material(text).map(|key| *key.expose());
            assert_eq!(
                given.as_ref().map(<[u8; 32]>::as_slice),
                Some(&[0x00, 0xff].repeat(16)[..])
            );
        }
        let (odd, short) = ("0".repeat(63), STANDARD.encode([0; 31]));
        for wrong in ["", "00", &odd, &format!("{hex}00"), &"zz".repeat(32), &short] {
            assert!(material(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn wrong_material_is_told_without_being_shown() {
        let json = format!(r#"{{"KeyId": "{ID}", "KeyMaterial": "hunter2"}}"#);
        let error = serde_json::from_str::<KeySeed>(&json).err().expect("refused").to_string();
        assert!(error.starts_with("key material is 32 bytes"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_seed_obeys_the_rules_of_the_api() {
        assert!(
            seed(r#", "Aliases": ["alias/a", "alias/b/c"], "Tags": {"a": ""}"#).check().is_ok()
        );
        assert!(refusal(r#", "Aliases": ["orders"]"#).starts_with("Alias must start with"));
        assert!(refusal(r#", "Aliases": ["alias/"]"#).contains("needs a name"));
        assert!(refusal(r#", "Aliases": ["alias/aws/s3"]"#).contains("reserved"));
        assert!(refusal(r#", "Tags": {"aws:x": "y"}"#).contains("reserved"));
        let many: Vec<_> = (0..=MOST_PER_KEY).map(|n| format!("\"alias/{n}\"")).collect();
        let many = format!(r#", "Aliases": [{}]"#, many.join(","));
        assert!(refusal(&many).contains("at most 50 aliases"));
        for id in ["mrk-1234abcd12ab34cd56ef1234567890ab", "1234ABCD-12ab-34cd-56ef-1234567890ab"] {
            let seed: KeySeed = serde_json::from_str(&format!(r#"{{"KeyId": "{id}"}}"#)).expect(id);
            assert!(seed.check().is_err(), "{id}");
        }
    }

    #[test]
    fn differences_name_what_differs() {
        let there = super::super::rotations::tests::key(1);
        let account = there.account.clone();
        let found = |members: &str, account: &str| {
            seed(members).differences(account, &there).expect("compared")
        };
        assert!(found("", &account).is_empty());
        let hex = "00".repeat(32);
        let all = found(
            &format!(
                r#", "KeyMaterial": "{hex}", "Enabled": false, "Description": "x", "Tags": {{"a": "b"}}"#
            ),
            "222222222222",
        );
        assert_eq!(
            all,
            [
                "belongs to another account",
                "has other key material",
                "is enabled",
                "has another description",
                "has other tags"
            ]
        );
    }
}
