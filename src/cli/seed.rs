//! Seeds of `strongroom dev`: a YAML or JSON file of keys and secrets that are to be there before
//! the first request. `docs/dev.md` has an example.

use crate::ops;
use crate::ops::call::Services;
use crate::ops::keys::seed::{self as keys, KeySeed};
use crate::ops::secrets::seed::{self as secrets, SecretSeed};
use crate::ops::seed::Planted;
use crate::secret::Secret;
use crate::server::Error;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// The largest seed file, in bytes.
const MAX_BYTES: usize = 8 << 20;
/// Most keys, and most secrets, of a seed.
const MAX_ITEMS: usize = 1000;

/// What a file asks for; checked as far as it can be without an appliance.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Seed {
    #[serde(default)]
    keys: Vec<KeySeed>,
    #[serde(default)]
    secrets: Vec<SecretSeed>,
}

impl Seed {
    /// Reads and checks a file.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let bytes = Secret::read(file, MAX_BYTES).map_err(|e| Error::io(path, e))?;
        let read = bytes.ok_or_else(|| format!("it has more than {MAX_BYTES} bytes"));
        read.and_then(|bytes| Self::parse(&bytes))
            .map_err(|why| Error::Refused(format!("the seed `{}` is wrong: {why}", path.display())))
    }

    fn parse(bytes: &Secret) -> Result<Self, String> {
        let text = bytes.expose_str().ok_or("it is not UTF-8")?;
        // A snippet of the file would show secrets.
        let options = serde_saphyr::options! { with_snippet: false, reject_unsupported_tags: true };
        let seed: Self =
            serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())?;
        seed.check()?;
        Ok(seed)
    }

    fn check(&self) -> Result<(), String> {
        if self.keys.len() > MAX_ITEMS || self.secrets.len() > MAX_ITEMS {
            return Err(format!("it has more than {MAX_ITEMS} keys or secrets"));
        }
        let mut seen = HashSet::new();
        let mut once = |what: &'static str, name: &str| {
            let first = seen.insert((what, name.to_owned()));
            if first { Ok(()) } else { Err(format!("{what} `{name}` stands in it twice")) }
        };
        for key in &self.keys {
            once("key", key.id())?;
            key.aliases().iter().try_for_each(|name| once("alias", name))?;
            key.check().map_err(|e| format!("key `{}`: {}", key.id(), e.message))?;
        }
        for secret in &self.secrets {
            once("secret", secret.name())?;
            secret.check().map_err(|e| format!("secret `{}`: {}", secret.name(), e.message))?;
        }
        Ok(())
    }

    /// Makes what is not there yet, keys first; logs what is there and differs.
    pub(super) async fn plant(self, services: &Arc<Services>, account: &str) -> Result<(), Error> {
        let mut made = 0_usize;
        let all = self.keys.len() + self.secrets.len();
        for seed in self.keys {
            let what = format!("key `{}`", seed.id());
            let planted = keys::plant(services, account, seed).await;
            made += usize::from(told(&what, planted)?);
        }
        for seed in self.secrets {
            let what = format!("secret `{}`", seed.name());
            let planted = secrets::plant(services, account, seed).await;
            made += usize::from(told(&what, planted)?);
        }
        tracing::info!("of the {all} keys and secrets of the seed {made} were made now");
        Ok(())
    }
}

/// Whether it was made; says in the log what is not as the seed has it.
fn told(what: &str, planted: ops::error::Result<Planted>) -> Result<bool, Error> {
    let planted = planted.map_err(|error| {
        let log = error.log.map(|log| format!(" ({log})")).unwrap_or_default();
        Error::Refused(format!("{what} of the seed can't be made: {}{log}", error.message))
    })?;
    for difference in &planted.differences {
        let why = if planted.made { "was made" } else { "was there already and stays as it is" };
        tracing::warn!("{what} of the seed {why}: it {difference}");
    }
    Ok(planted.made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    fn parse(text: &str) -> Result<Seed, String> {
        Seed::parse(&Secret::copy_of(text.as_bytes()))
    }

    fn refusal(text: &str) -> String {
        parse(text).err().unwrap_or_else(|| panic!("not refused: {text}"))
    }

    #[test]
    fn the_example_of_the_documentation_is_a_seed() {
        let page = include_str!("../../docs/dev.md");
        let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
        let seed = parse(example.expect("an example")).expect("sound");
        assert_eq!((seed.keys.len(), seed.secrets.len()), (2, 2));
    }

    #[test]
    fn json_is_as_good_as_yaml() {
        let text = r#"{"Keys": [{"KeyId": "ID"}], "Secrets": [{"Name": "a", "SecretString": "{\"b\": 1}"}]}"#;
        let seed = parse(&text.replace("ID", KEY)).expect("sound");
        assert_eq!((seed.keys.len(), seed.secrets.len()), (1, 1));
        assert!(parse("{}").is_ok());
    }

    #[test]
    fn plain_numbers_are_texts_where_a_text_is_wanted() {
        let digits = "0".repeat(64);
        let text = format!(
            "Keys: [{{KeyId: {KEY}, KeyMaterial: {digits}, Tags: {{cost: 007}}}}]\n\
             Secrets: [{{Name: 42, SecretString: 1e3}}]"
        );
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn what_is_unknown_or_misplaced_is_refused_with_its_place() {
        let unknown = refusal("Keys:\n  - KeyId: x\n    Colour: red\n");
        assert!(unknown.contains("Colour") && unknown.contains("line 3"), "{unknown}");
        let unknown = refusal("Secret:\n  - Name: x\n");
        assert!(unknown.contains("Secret") && unknown.contains("line 1"), "{unknown}");
        let missing = refusal("Keys:\n  - Description: x\n");
        assert!(missing.contains("KeyId"), "{missing}");
        let short = refusal(&format!("Keys:\n  - KeyId: {KEY}\n    KeyMaterial: c2hvcnQ=\n"));
        assert!(short.contains("key material is 32 bytes") && short.contains("line 3"), "{short}");
        let twice = refusal("Secrets:\n  - Name: a\n    Name: b\n");
        assert!(twice.contains("line 3"), "{twice}");
    }

    #[test]
    fn no_fault_shows_a_secret() {
        for text in [
            "Secrets:\n  - Name: a\n    SecretString: [hunter2]\n",
            "Secrets:\n  - Name: a\n    SecretString: {hunter2: hunter2}\n",
            "Secrets:\n  - Name: a\n    SecretBinary: hunter2!\n",
            "Secrets:\n  - Name: a\n    SecretString: \"hunter2\n",
            "Secrets:\n  - Name: a\n    SecretString: hunter2\n    Oops: 1\n",
            "Keys:\n  - KeyId: a\n    KeyMaterial: hunter2\n",
            "Keys:\n  - KeyId: a\n    KeyMaterial: !!int hunter2\n",
            "Secrets:\n  - Name: a\n    SecretString: hunter2\n    SecretBinary: aHVudGVyMg==\n",
            "hunter2",
        ] {
            let why = refusal(text);
            assert!(!why.contains("hunter2") && !why.contains("aHVudGVy"), "{text}: {why}");
        }
    }

    #[test]
    fn each_fault_has_its_sentence() {
        let key = |members: &str| refusal(&format!("Keys: [{{KeyId: {KEY}, {members}}}]"));
        assert!(key("Aliases: [orders]").starts_with(&format!("key `{KEY}`: Alias must start")));
        assert!(key("Aliases: [alias/a, alias/a]").ends_with("`alias/a` stands in it twice"));
        let secret = |members: &str| refusal(&format!("Secrets: [{{Name: a, {members}}}]"));
        assert_eq!(
            secret("SecretString: a, SecretBinary: YQ=="),
            "secret `a`: a secret has a SecretString or a SecretBinary, not both"
        );
        assert!(secret("ArnSuffix: abc").ends_with("an ArnSuffix is six letters and digits"));
        assert!(secret("SecretString: x, VersionId: v1").ends_with("has 32 to 64 characters"));
        assert!(secret("VersionId: v1").ends_with("needs a value that it is the version of"));
        assert!(refusal("Secrets: [{Name: 'a b'}]").contains("Invalid name"));
        assert!(refusal("Secrets: [{Name: a}, {Name: a}]").ends_with("`a` stands in it twice"));
    }

    #[test]
    fn size_and_number_are_bounded() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(MAX_BYTES as u64 + 1).expect("a long file");
        let refused = Seed::read(file.path()).err().expect("refused").to_string();
        assert!(refused.ends_with("it has more than 8388608 bytes"), "{refused}");
        let many: String = (0..=MAX_ITEMS).map(|n| format!("- Name: s{n}\n")).collect();
        assert!(refusal(&format!("Secrets:\n{many}")).contains("more than 1000"));
    }
}
