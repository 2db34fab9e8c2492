//! Profiles: what a kind of token is, can do and can't do, as `hsm-profiles/*/profile.toml` says.
//!
//! The same file is read by the code, the tests, the documentation and operators.

use super::{Scheme, SigningScheme};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The profiles that come with the program, by name.
const BUILT_IN: &[(&str, &str)] = &[
    ("softhsm2", include_str!("../../hsm-profiles/softhsm2/profile.toml")),
    ("kryoptic", include_str!("../../hsm-profiles/kryoptic/profile.toml")),
    ("tpm2", include_str!("../../hsm-profiles/tpm2/profile.toml")),
    ("tpm2-firmware", include_str!("../../hsm-profiles/tpm2-firmware/profile.toml")),
    ("swtpm", include_str!("../../hsm-profiles/swtpm/profile.toml")),
];

/// What a configuration's template has in the place of the folder of the token.
const TOKEN_FOLDER: &str = "@TOKENDIR@";

/// The largest number of sessions that a profile may name.
const MAX_SESSIONS: usize = 1024;

/// The largest number of random bytes in one request, whatever the token could do.
pub const MAX_RANDOM: usize = 4096;

/// One kind of token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name by which configuration refers to it: lower case, digits, hyphens.
    pub name: String,
    /// The product, for people.
    pub title: String,
    /// Which driver speaks to it.
    pub kind: Kind,
    /// Whether it is software, which proves nothing about the safety of keys.
    pub software: bool,
    /// What an operator must know before trusting it; required where `software` is true.
    pub statement: String,
    /// The schemes that it can do, the preferred one first.
    pub schemes: Vec<Scheme>,
    /// The signing schemes that it can do, the preferred one first; none if it can't sign.
    #[serde(default)]
    pub signing: Vec<SigningScheme>,
    /// Whether it signs too slowly for a signature a second, or wants a touch each time: then it
    /// certifies keys that sign the audit log's checkpoints for it.
    #[serde(default)]
    pub signs_slowly: bool,
    /// The PKCS#11 mechanisms that it is relied on for, by their standard names.
    #[serde(default)]
    pub mechanisms: Vec<String>,
    /// The PKCS#11 module that speaks to it; none for other kinds.
    pub module: Option<Module>,
    /// Of a TPM: whether what is secret crosses the bus to it encrypted.
    #[serde(default)]
    pub encrypt_bus: bool,
    /// Bounds to keep to.
    pub limits: Limits,
    /// Where it leaves the standard.
    #[serde(default)]
    pub quirks: Quirks,
    /// What it can't do.
    #[serde(default)]
    pub cannot: Vec<Cannot>,
}

/// Which driver speaks to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A PKCS#11 module.
    Pkcs11,
    /// A TPM 2.0 through the TSS.
    Tpm,
    /// The PIV application of a YubiKey through PC/SC.
    #[serde(rename = "yubikey")]
    YubiKey,
}

/// Where a token's library is and how it is configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Absolute paths; the first that exists is loaded.
    pub paths: Vec<PathBuf>,
    /// The environment variable that names the library's configuration file, if it has one.
    pub configuration_variable: Option<String>,
    /// What that file says for a token that is made for one appliance, with `@TOKENDIR@` once where
    /// the token's folder belongs; none where a token is made by other means.
    pub configuration: Option<String>,
}

/// Bounds that a token sets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Sessions that may be in use at a time, one per worker; from 1 to 1,024.
    pub sessions: usize,
    /// Random bytes in one request; from 32 to [`MAX_RANDOM`].
    pub random_bytes: usize,
}

/// Where a PKCS#11 token leaves the standard.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirks {
    /// It knows and enforces `CKA_ALLOWED_MECHANISMS`.
    pub allowed_mechanisms: bool,
    /// It takes `CKA_MODIFIABLE` = false for a key that it makes.
    pub modifiable: bool,
}

/// Something that a token can't do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cannot {
    /// What.
    pub what: String,
    /// And why not.
    pub why: String,
}

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No profile of this name comes with the program.
    #[error("there is no profile `{0}`")]
    Unknown(String),
    /// Not TOML, or not these fields.
    #[error("profile can't be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A field is out of its bounds.
    #[error("profile `{name}`: {why}")]
    Invalid {
        /// The profile.
        name: String,
        /// What is out of bounds.
        why: String,
    },
}

impl Profile {
    /// The profile of this name that comes with the program.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is none.
    pub fn built_in(name: &str) -> Result<Self, Error> {
        let found = BUILT_IN.iter().find(|(known, _)| *known == name);
        let (_, text) = found.ok_or_else(|| Error::Unknown(name.to_owned()))?;
        Self::parse(text)
    }

    /// The names of the profiles that come with the program.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Reads and checks a profile.
    ///
    /// # Errors
    /// [`Error::Syntax`] or [`Error::Invalid`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let profile: Self = toml::from_str(text)?;
        match profile.fault() {
            Some(why) => Err(Error::Invalid { name: profile.name, why }),
            None => Ok(profile),
        }
    }

    /// The scheme that a new key gets.
    pub fn preferred_scheme(&self) -> Option<Scheme> {
        self.schemes.first().copied()
    }

    /// Puts a scheme before the others, for new keys.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is none of its schemes.
    pub fn prefer(&mut self, scheme: Scheme) -> Result<(), Error> {
        let Some(at) = self.schemes.iter().position(|have| *have == scheme) else {
            let why = format!("it has no scheme {scheme:?}");
            return Err(Error::Invalid { name: self.name.clone(), why });
        };
        let preferred = self.schemes.remove(at);
        self.schemes.insert(0, preferred);
        Ok(())
    }

    /// What must be in the environment of the process when it starts, so that the token's library
    /// finds its configuration at `file`.
    pub fn environment(&self, file: &Path) -> Vec<(String, PathBuf)> {
        let variable = self.module.iter().flat_map(|module| &module.configuration_variable);
        variable.map(|name| (name.clone(), file.to_owned())).collect()
    }

    /// The library's configuration for a token in the folder `tokens`, if such a token is made here.
    pub fn configuration(&self, tokens: &str) -> Option<String> {
        let text = self.module.as_ref().and_then(|module| module.configuration.as_ref());
        text.map(|text| text.replace(TOKEN_FOLDER, tokens))
    }

    /// The PKCS#11 mechanisms that its schemes take.
    pub fn needed(&self) -> impl Iterator<Item = &'static str> {
        let signing = self.signing.iter().flat_map(|scheme| scheme.mechanisms());
        let all = self.schemes.iter().flat_map(|scheme| scheme.mechanisms()).chain(signing);
        all.copied().filter(|_| self.kind == Kind::Pkcs11)
    }

    fn fault(&self) -> Option<String> {
        self.name_fault().or_else(|| self.module_fault()).or_else(|| self.ability_fault())
    }

    fn name_fault(&self) -> Option<String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(plain) {
            return Some("a name has 1 to 32 lower-case letters, digits and hyphens".into());
        }
        let silent = self.software && self.statement.trim().is_empty();
        silent.then(|| "a software token needs a statement of what it does not prove".into())
    }

    fn module_fault(&self) -> Option<String> {
        let Some(module) = &self.module else {
            let wanted = self.kind == Kind::Pkcs11;
            return wanted.then(|| "a PKCS#11 token has a module".into());
        };
        if self.kind != Kind::Pkcs11 {
            return Some("only a PKCS#11 token has a module".into());
        }
        if module.paths.is_empty() || module.paths.iter().any(|p| !p.is_absolute()) {
            return Some("module paths are absolute, and there is at least one".into());
        }
        let variable = module.configuration_variable.as_deref();
        let odd = |v: &str| v.is_empty() || v.contains(['=', '\0']);
        if variable.is_some_and(odd) {
            return Some("not the name of an environment variable".into());
        }
        let template = module.configuration.as_deref()?;
        let told = variable.is_some() && template.matches(TOKEN_FOLDER).count() == 1;
        (!told).then(|| format!("a configuration has its variable, and {TOKEN_FOLDER} once"))
    }

    fn ability_fault(&self) -> Option<String> {
        if self.schemes.is_empty() {
            return Some("it names no scheme".into());
        }
        for mechanism in self.needed() {
            if !self.mechanisms.iter().any(|have| *have == mechanism) {
                return Some(format!("its schemes need {mechanism}"));
            }
        }
        if !(1..=MAX_SESSIONS).contains(&self.limits.sessions) {
            return Some(format!("limits.sessions is from 1 to {MAX_SESSIONS}"));
        }
        let random = (32..=MAX_RANDOM).contains(&self.limits.random_bytes);
        (!random).then(|| format!("limits.random_bytes is from 32 to {MAX_RANDOM}"))
    }
}

impl Scheme {
    /// The PKCS#11 mechanisms that this scheme takes, by their standard names.
    pub fn mechanisms(self) -> &'static [&'static str] {
        match self {
            Self::HmacKdf => &["CKM_GENERIC_SECRET_KEY_GEN", "CKM_SHA256_HMAC"],
            Self::Ecdh => &["CKM_EC_KEY_PAIR_GEN", "CKM_ECDH1_DERIVE"],
            Self::RsaOaep => &["CKM_RSA_PKCS_KEY_PAIR_GEN", "CKM_RSA_PKCS_OAEP"],
        }
    }
}

impl SigningScheme {
    /// The PKCS#11 mechanisms that this scheme takes, by their standard names: the one that makes a
    /// pair, and the one that signs.
    pub fn mechanisms(self) -> &'static [&'static str; 2] {
        match self {
            Self::Ed25519 => &["CKM_EC_EDWARDS_KEY_PAIR_GEN", "CKM_EDDSA"],
            Self::EcdsaP256 => &["CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn softhsm2() -> String {
        BUILT_IN[0].1.to_owned()
    }

    fn refusal(text: &str) -> String {
        Profile::parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn every_built_in_profile_is_sound_and_carries_its_own_name() {
        for name in Profile::names() {
            assert_eq!(Profile::built_in(name).expect("sound").name, name);
        }
        assert!(matches!(Profile::built_in("luna"), Err(Error::Unknown(_))));
    }

    #[test]
    fn software_is_called_what_it_is() {
        for name in ["softhsm2", "kryoptic", "swtpm"] {
            let profile = Profile::built_in(name).expect("sound");
            assert!(profile.software);
            assert!(profile.statement.contains("proves nothing"));
            assert_eq!(profile.preferred_scheme(), Some(Scheme::HmacKdf));
            assert!(!profile.cannot.is_empty());
        }
    }

    #[test]
    fn the_environment_names_the_configuration_file() {
        let profile = Profile::built_in("softhsm2").expect("sound");
        let environment = profile.environment(Path::new("/data/softhsm2.conf"));
        assert_eq!(environment, [("SOFTHSM2_CONF".into(), PathBuf::from("/data/softhsm2.conf"))]);
    }

    #[test]
    fn the_configuration_has_the_folder_and_a_way_to_be_found() {
        for name in ["softhsm2", "kryoptic"] {
            let text = Profile::built_in(name).expect("sound").configuration("/data/tokens");
            assert!(text.expect("made here").contains("/data/tokens"));
        }
        let text = softhsm2().replace("@TOKENDIR@", "/tmp");
        assert!(refusal(&text).contains("@TOKENDIR@ once"));
        let text = softhsm2().replace("configuration_variable = \"SOFTHSM2_CONF\"", "");
        assert!(refusal(&text).contains("its variable"));
    }

    #[test]
    fn an_unknown_field_is_refused_at_every_level() {
        assert!(refusal(&format!("colour = 1\n{}", softhsm2())).contains("colour"));
        let text = softhsm2().replace("[limits]", "[limits]\npower = 9000");
        assert!(refusal(&text).contains("power"));
    }

    #[test]
    fn a_software_token_that_keeps_quiet_about_it_is_refused() {
        let lines = softhsm2();
        let text: Vec<_> = lines
            .lines()
            .map(|l| if l.starts_with("statement") { "statement = ' '" } else { l })
            .collect();
        assert!(refusal(&text.join("\n")).contains("needs a statement"));
    }

    #[test]
    fn a_scheme_without_its_mechanism_is_refused() {
        let text = softhsm2().replace("\"CKM_SHA256_HMAC\",", "");
        assert!(refusal(&text).contains("need CKM_SHA256_HMAC"));
        let text = softhsm2().replace("\"CKM_EDDSA\",", "");
        assert!(refusal(&text).contains("need CKM_EDDSA"));
        let text = softhsm2().replace("schemes = [\"hmac-kdf\"]", "schemes = []");
        assert!(refusal(&text).contains("names no scheme"));
    }

    #[test]
    fn bounds_are_kept() {
        let sessions = |n: &str| softhsm2().replace("sessions = 32", &format!("sessions = {n}"));
        assert!(refusal(&sessions("0")).contains("1 to 1024"));
        assert!(refusal(&sessions("1025")).contains("1 to 1024"));
        let random = softhsm2().replace("random_bytes = 4096", "random_bytes = 4097");
        assert!(refusal(&random).contains("32 to 4096"));
        let relative = softhsm2().replace("/usr/lib/softhsm/", "lib/");
        assert!(refusal(&relative).contains("absolute"));
        let named = softhsm2().replace("name = \"softhsm2\"", "name = \"Soft HSM\"");
        assert!(refusal(&named).contains("lower-case"));
    }
}
