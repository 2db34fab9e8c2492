//! Profiles: what a kind of token is, can do and can't do, as `hsm-profiles/*/profile.toml` says.
//!
//! The same file is read by the code, the tests, the documentation and operators.

mod check;
#[cfg(test)]
mod tests;

use super::{Scheme, SigningScheme};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The profiles that come with the program, by name.
const BUILT_IN: &[(&str, &str)] = &[
    ("pkcs11", include_str!("../../hsm-profiles/pkcs11/profile.toml")),
    ("luna", include_str!("../../hsm-profiles/luna/profile.toml")),
    ("nshield", include_str!("../../hsm-profiles/nshield/profile.toml")),
    ("utimaco", include_str!("../../hsm-profiles/utimaco/profile.toml")),
    ("cloudhsm", include_str!("../../hsm-profiles/cloudhsm/profile.toml")),
    ("yubihsm2", include_str!("../../hsm-profiles/yubihsm2/profile.toml")),
    ("nitrokey-hsm2", include_str!("../../hsm-profiles/nitrokey-hsm2/profile.toml")),
    ("opensc-piv", include_str!("../../hsm-profiles/opensc-piv/profile.toml")),
    ("softhsm2", include_str!("../../hsm-profiles/softhsm2/profile.toml")),
    ("kryoptic", include_str!("../../hsm-profiles/kryoptic/profile.toml")),
    ("tpm2", include_str!("../../hsm-profiles/tpm2/profile.toml")),
    ("tpm2-firmware", include_str!("../../hsm-profiles/tpm2-firmware/profile.toml")),
    ("swtpm", include_str!("../../hsm-profiles/swtpm/profile.toml")),
    ("yubikey", include_str!("../../hsm-profiles/yubikey/profile.toml")),
    ("yubikey-5-7", include_str!("../../hsm-profiles/yubikey-5-7/profile.toml")),
    ("virtual-piv", include_str!("../../hsm-profiles/virtual-piv/profile.toml")),
];

/// What a configuration's template has in the place of the folder of the token.
const TOKEN_FOLDER: &str = "@TOKENDIR@";

/// What tells the TSS what to write to stderr, and that it is nothing: each failed command has its
/// error, which says more.
const QUIET: (&str, &str) = ("TSS2_LOG", "all+NONE");

/// The largest number of random bytes in one request, whatever the token could do.
pub const MAX_RANDOM: usize = 4096;

/// One kind of token.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    /// Whether it was seen to work on what it describes.
    #[serde(default)]
    pub tested: bool,
    /// On what it was tested; required where `tested` is true.
    pub tested_on: Option<String>,
    /// What a PIN looks like, where that is not plain.
    pub login: Option<String>,
    /// How long data keys under its keys are cached, in seconds, if the configuration does not say.
    pub cache_seconds: Option<u32>,
    /// The schemes that it can do, the preferred one first. Empty if it can't hold keys, which one of
    /// `cannot` then says.
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
    /// Of a TPM: the boot states that new keys are bound to. Of the configuration, not of a profile.
    #[serde(default)]
    pub boot: Option<super::boot::Binding>,
    /// When a YubiKey wants its PIN and a touch.
    #[serde(default)]
    pub policies: Policies,
    /// Bounds to keep to.
    pub limits: Limits,
    /// Where it leaves the standard.
    #[serde(default)]
    pub quirks: Quirks,
    /// What its mechanisms do that the standard leaves open.
    #[serde(default)]
    pub facts: Facts,
    /// What no documentation tells: to be found out by `strongroom hsm probe`.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// What it can't do.
    #[serde(default)]
    pub cannot: Vec<Cannot>,
}

/// What a PKCS#11 token's mechanisms do; what is not said is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Who makes the nonce of `CKM_AES_GCM`.
    pub gcm_iv: Option<GcmIv>,
    /// The mechanisms for wrapping AES keys by AES keys.
    pub key_wrap: Option<Vec<String>>,
    /// The hashes that `CKM_RSA_PKCS_OAEP` takes together with a label, by their names in FIPS 180-4
    /// in lower case.
    pub oaep_hashes: Option<Vec<String>>,
}

impl Facts {
    /// Whether they say that [`Scheme::RsaOaep`] is out of the question.
    pub(super) fn deny_oaep(&self) -> bool {
        self.oaep_hashes.as_ref().is_some_and(|hashes| hashes.iter().all(|one| one != "sha-256"))
    }
}

/// Who makes the nonce of `CKM_AES_GCM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GcmIv {
    /// The caller.
    Caller,
    /// The token.
    Token,
}

/// Which driver speaks to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Absolute paths; the first that exists is loaded. None if it can be anywhere.
    pub paths: Vec<PathBuf>,
    /// The environment variable that names the library's configuration file, if it has one.
    pub configuration_variable: Option<String>,
    /// What that file says for a token that is made for one appliance, with `@TOKENDIR@` once where
    /// the token's folder belongs; none where a token is made by other means.
    pub configuration: Option<String>,
}

/// When a YubiKey wants its PIN and a touch for a key that is made on it; a key keeps what it was made
/// with.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policies {
    /// When the PIN.
    pub pin: WantsPin,
    /// When a touch.
    pub touch: WantsTouch,
}

/// When a key wants the PIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantsPin {
    /// Once on every connection.
    #[default]
    Once,
    /// Right before each use.
    Always,
}

/// When a key wants a finger on the metal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantsTouch {
    /// Never: a server restarts by itself.
    #[default]
    Never,
    /// When the last touch is more than 15 seconds ago.
    Cached,
}

/// Bounds that a token sets.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Sessions that may be in use at a time, one per worker; from 1 to 1,024.
    pub sessions: usize,
    /// Random bytes in one request; from 32 to [`MAX_RANDOM`].
    pub random_bytes: usize,
}

/// Where a PKCS#11 token leaves the standard.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quirks {
    /// It knows and enforces `CKA_ALLOWED_MECHANISMS`.
    pub allowed_mechanisms: bool,
    /// It takes `CKA_MODIFIABLE` = false for a key that it makes.
    pub modifiable: bool,
    /// It refuses attributes that say no to a use that a key of that type can't have, such as
    /// `CKA_WRAP` = false of a generic secret: they are left out.
    #[serde(default)]
    pub bare_templates: bool,
    /// What its keys for HMAC are.
    #[serde(default)]
    pub hmac_key: HmacKey,
}

/// What a token's keys for HMAC-SHA-256 are, and how they are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HmacKey {
    /// `CKK_GENERIC_SECRET`, by `CKM_GENERIC_SECRET_KEY_GEN`.
    #[default]
    GenericSecret,
    /// `CKK_SHA256_HMAC`, by `CKM_GENERIC_SECRET_KEY_GEN`.
    Sha256Hmac,
    /// `CKK_SHA256_HMAC`, by nShield's own `CKM_NC_SHA256_HMAC_KEY_GEN`.
    Nshield,
}

/// Something that a token can't do.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    /// Its file can't be read.
    #[error("profile `{path}` can't be read: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
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
        Self::parse(Self::text(name).ok_or_else(|| Error::Unknown(name.to_owned()))?)
    }

    /// The file of the profile of this name that comes with the program.
    pub(super) fn text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// The profile of this name that comes with the program, or, if there is a slash in the name, the
    /// one in this file.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Unreadable`], or those of [`Profile::parse`].
    pub fn named(name: &str) -> Result<Self, Error> {
        if !name.contains('/') {
            return Self::built_in(name);
        }
        let unread = |why| Error::Unreadable { path: name.to_owned(), why };
        Self::parse(&std::fs::read_to_string(name).map_err(unread)?)
    }

    /// What whoever trusts it must be told, if it was never tried on what it describes.
    pub fn warning(&self) -> Option<String> {
        let name = &self.name;
        (!self.tested).then(|| {
            format!("profile `{name}` is untested on real hardware: run `strongroom hsm probe`")
        })
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
            let why = format!("it has no scheme {scheme}");
            return Err(Error::Invalid { name: self.name.clone(), why });
        };
        let preferred = self.schemes.remove(at);
        self.schemes.insert(0, preferred);
        Ok(())
    }

    /// What must be in the environment of the process when it starts, so that the token's library
    /// finds its configuration at `file`.
    pub fn environment(&self, file: Option<&Path>) -> Vec<(String, PathBuf)> {
        let variable = self.module.iter().flat_map(|module| &module.configuration_variable);
        let found = variable.zip(file).map(|(name, file)| (name.clone(), file.to_owned()));
        let quiet = self.kind == Kind::Tpm && std::env::var_os(QUIET.0).is_none();
        found.chain(quiet.then(|| (QUIET.0.to_owned(), QUIET.1.into()))).collect()
    }

    /// The same of a process that seals or opens a PIN, where the TSS writes nothing whoever wants it:
    /// at its lower levels it writes down what it decrypts.
    pub fn silent_tpm() -> Vec<(String, PathBuf)> {
        vec![(QUIET.0.to_owned(), QUIET.1.into())]
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
        let form = self.quirks.hmac_key;
        let needed = all.map(move |mechanism| form.mechanism(mechanism));
        needed.filter(|_| self.kind == Kind::Pkcs11)
    }
}

impl HmacKey {
    /// The mechanism that does the work of this one with such keys.
    pub(super) fn mechanism(self, standard: &'static str) -> &'static str {
        match (standard, self) {
            ("CKM_GENERIC_SECRET_KEY_GEN", Self::Nshield) => "CKM_NC_SHA256_HMAC_KEY_GEN",
            (other, _) => other,
        }
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
