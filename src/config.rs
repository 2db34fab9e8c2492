//! The configuration: what is written (TOML), read once and checked once.
//!
//! `strongroom init` writes a commented file; every setting but the region and the token has a
//! default. Relative paths count from the folder of the configuration file.

use crate::audit;
use crate::custody::child::Isolation;
use crate::custody::lane;
use crate::custody::tokens::Tokens;
use crate::envelope::cache;
use crate::events::{self, Receiver};
use crate::front::options;
use crate::identity;
use crate::name::{Scheme, is_region};
use crate::ops::secrets::rotate::functions::{self, Functions};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// The whole configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The region (site) that this appliance is: part of every ARN, never changed afterwards.
    pub region: String,
    /// Addresses, TLS, limits.
    #[serde(default)]
    pub front: options::Options,
    /// The tokens, the default one first: `[token]`, or `[[token]]` several times.
    #[serde(deserialize_with = "one_or_more")]
    pub token: Vec<Token>,
    /// The database.
    #[serde(default)]
    pub store: Store,
    /// The audit log.
    #[serde(default)]
    pub audit: audit::Options,
    /// Who besides the accounts' own users is believed.
    #[serde(default)]
    pub identity: identity::options::Options,
    /// Opened data keys.
    #[serde(default)]
    pub data_key_cache: cache::Options,
    /// Rotation functions of secrets.
    #[serde(default)]
    pub function: Vec<functions::options::Options>,
    /// Webhooks that are told of events.
    #[serde(default)]
    pub webhook: Vec<events::WebhookOptions>,
    /// Files that events are written to.
    #[serde(default)]
    pub event_log: Vec<events::FileOptions>,
}

/// A token that holds keys, and how it is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What it is called in commands and metrics: up to 32 letters, digits and hyphens. Of several
    /// tokens each has a name of its own.
    #[serde(default = "main")]
    pub name: String,
    /// A folder of `hsm-profiles/`, or, with a slash in it, the file of another profile.
    pub profile: String,
    /// The token's serial number.
    pub serial: String,
    /// The PKCS#11 module, if it is at none of the places that the profile names.
    pub module: Option<PathBuf>,
    /// How a device without a module is reached: of a TPM the TCTI.
    pub device: Option<String>,
    /// Of a TPM: whether what is secret crosses the bus to it encrypted, if that is not to be as the
    /// profile says.
    pub encrypt_bus: Option<bool>,
    /// Of a TPM: the public key (PEM, P-256) of the operator who approves boot states. Keys that are
    /// made from then on are used in approved states alone. Without it keys are bound to none.
    pub pcr_policy: Option<PathBuf>,
    /// The PCRs that make a boot state.
    #[serde(default = "pcrs")]
    pub pcrs: Vec<u8>,
    /// The folder with the approvals of boot states; it is read while the server runs.
    pub pcr_approvals: Option<PathBuf>,
    /// Whether it holds every new KMS key whose scheme lets several tokens do so, besides the first
    /// token.
    #[serde(default)]
    pub holds_new_keys: bool,
    /// The scheme of new keys, if it is not the one that the profile prefers.
    pub scheme: Option<Scheme>,
    /// The module's own configuration file.
    pub configuration: Option<PathBuf>,
    /// A file of mode 0600 or 0400 with the user PIN. A systemd credential `hsm-pin` comes before it;
    /// without both the PIN comes from the environment variable `STRONGROOM_PIN`.
    pub pin_file: Option<PathBuf>,
    /// Instead of any of these: a file of the same modes that `strongroom hsm seal-pin` has written, with
    /// the PIN sealed to a TPM. One that is bound to boot states takes `pcr_approvals`.
    pub pin_sealed: Option<PathBuf>,
    /// The TCTI of the TPM that opens it.
    pub pin_tpm: Option<String>,
    /// Whether the driver runs in a process of its own.
    #[serde(default)]
    pub isolation: Isolation,
    /// Threads, queue, deadline.
    #[serde(default)]
    pub lane: lane::Options,
}

/// The firmware and its settings, option ROMs, the boot loader, secure boot (TCG PC Client Platform
/// Firmware Profile, section 3.3.4).
fn pcrs() -> Vec<u8> {
    vec![0, 2, 4, 7]
}

fn main() -> String {
    "main".to_owned()
}

/// A table, or an array of tables.
fn one_or_more<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Token>, D::Error> {
    struct OneOrMore;
    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<Token>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a token, or several")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Token>, A::Error> {
            Token::deserialize(MapAccessDeserializer::new(map)).map(|token| vec![token])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<Token>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(seq))
        }
    }
    d.deserialize_any(OneOrMore)
}

/// The database.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The folder that holds it: mode 0700, used by one process at a time.
    pub dir: PathBuf,
    /// Most bytes of the database; none: as many as the disk has.
    pub max_bytes: Option<u64>,
    /// Documents kept in memory.
    pub cached_documents: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self { dir: "store".into(), max_bytes: None, cached_documents: 10_000 }
    }
}

/// What is wrong with a configuration: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("can't read the configuration `{path}`: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// The file is no TOML, or has a member that is unknown or of another type.
    #[error("the configuration `{path}` is wrong: {why}")]
    Malformed {
        /// The file.
        path: String,
        /// Where and what.
        why: String,
    },
    /// The region.
    #[error(
        "region `{0}` does not look like a region of AWS's (`eu-central-1`), which clients need"
    )]
    Region(String),
    /// The tokens.
    #[error("tokens: {0}")]
    Tokens(&'static str),
    /// Addresses, TLS or limits.
    #[error(transparent)]
    Front(#[from] options::OptionsError),
    /// Rotation functions.
    #[error(transparent)]
    Function(#[from] functions::options::OptionsError),
    /// Receivers of events.
    #[error(transparent)]
    Events(#[from] events::OptionsError),
}

impl Config {
    /// Reads and checks a configuration.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|why| Error::Unreadable { path: shown.clone(), why })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|why| Error::Malformed { path: shown, why: why.to_string() })?;
        if !is_region(&config.region) {
            return Err(Error::Region(config.region));
        }
        config.front.validate()?;
        if let Some(why) = tokens_fault(&config.token) {
            return Err(Error::Tokens(why));
        }
        // Through a link (`/etc/strongroom/strongroom.toml`) paths count from where the file is.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        config.resolve(real.parent().unwrap_or(Path::new(".")));
        config.functions()?;
        Ok(config)
    }

    /// Who rotates secrets.
    ///
    /// # Errors
    /// What is wrong with `[[function]]`.
    pub fn functions(&self) -> Result<Functions, Error> {
        let plain = !self.front.listen_plain.is_empty();
        Ok(Functions::new(&self.region, self.function.clone(), plain)?)
    }

    /// Who is told of events. Reads the webhooks' secrets.
    ///
    /// # Errors
    /// What is wrong with `[[webhook]]` or `[[event_log]]`.
    pub fn receivers(&self) -> Result<Vec<Receiver>, Error> {
        Ok(events::receivers(&self.webhook, &self.event_log)?)
    }

    fn resolve(&mut self, base: &Path) {
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
        let whole = |path: &mut PathBuf| *path = base.join(&*path);
        whole(&mut self.store.dir);
        self.audit.resolve(&base);
        self.identity.resolve(&base);
        self.function.iter_mut().for_each(|function| function.resolve(&base));
        self.webhook.iter_mut().for_each(|webhook| webhook.resolve(&base));
        self.event_log.iter_mut().for_each(|log| log.resolve(&base));
        for token in &mut self.token {
            token.pin_file.as_mut().map(whole);
            token.pin_sealed.as_mut().map(whole);
            token.configuration.as_mut().map(whole);
            token.pcr_policy.as_mut().map(whole);
            token.pcr_approvals.as_mut().map(whole);
        }
        if let Some(tls) = &mut self.front.tls {
            whole(&mut tls.certificate);
            whole(&mut tls.key);
        }
    }
}

fn tokens_fault(tokens: &[Token]) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let named =
        |token: &Token| (1..=32).contains(&token.name.len()) && token.name.chars().all(plain);
    let again = |field: fn(&Token) -> &str| {
        let known: HashSet<_> = tokens.iter().map(field).collect();
        known.len() < tokens.len()
    };
    if !(1..=Tokens::MOST).contains(&tokens.len()) {
        return Some("there are 1 to 16 of them");
    }
    if !tokens.iter().all(named) {
        return Some("a name has 1 to 32 letters, digits and hyphens");
    }
    if let Some(why) = tokens.iter().find_map(pin_fault) {
        return Some(why);
    }
    if again(|token| &token.name) {
        return Some("each has a name of its own");
    }
    again(|token| &token.serial).then_some("each has a serial number of its own")
}

/// What is wrong with where a token's PIN comes from, and the boot states it waits for.
fn pin_fault(token: &Token) -> Option<&'static str> {
    let sealed = token.pin_sealed.is_some();
    match (token.pcr_policy.is_some(), token.pcr_approvals.is_some()) {
        (true, false) => return Some("`pcr_policy` needs `pcr_approvals`"),
        (false, true) if !sealed => {
            return Some("`pcr_approvals` goes with `pcr_policy` or `pin_sealed`");
        }
        _ => {}
    }
    if sealed && token.pin_file.is_some() {
        return Some("`pin_file` and `pin_sealed` exclude each other");
    }
    (token.pin_tpm.is_some() && !sealed).then_some("`pin_tpm` goes with `pin_sealed`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Error> {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("strongroom.toml");
        std::fs::write(&path, text).expect("writes");
        Config::read(&path)
    }

    const LEAST: &str = "region = 'eu-central-1'\n[front]\nlisten_plain = ['127.0.0.1:0']\n\
                         [token]\nprofile = 'softhsm2'\nserial = 'abc'\n";

    #[test]
    fn region_token_and_an_address_are_enough() {
        let config = read(LEAST).expect("enough");
        assert!(config.store.dir.is_absolute());
        assert_eq!(config.audit.sync, audit::log::Sync::Interval);
    }

    #[test]
    fn several_tokens_have_names_and_serial_numbers_of_their_own() {
        let second = |name: &str, serial: &str| {
            let more =
                format!("[[token]]\nname = '{name}'\nprofile = 'kryoptic'\nserial = '{serial}'\n");
            read(&format!("{}{more}", LEAST.replace("[token]", "[[token]]")))
        };
        let names = |config: Config| config.token.into_iter().map(|t| t.name).collect::<Vec<_>>();
        assert_eq!(second("spare", "def").map(names).expect("two"), ["main", "spare"]);
        for (name, serial) in [("main", "def"), ("spare", "abc"), ("a b", "def"), ("", "def")] {
            assert!(matches!(second(name, serial), Err(Error::Tokens(_))), "{name} {serial}");
        }
        let error = read(&LEAST.replace("serial", "number")).expect_err("refused").to_string();
        assert!(error.contains("unknown field `number`"), "{error}");
    }

    /// The file that `init` writes names every setting as it is called, and its default.
    #[test]
    fn what_is_commented_out_in_the_template_is_read_and_is_the_default() {
        let template = include_str!("../firmware-config/strongroom.toml.in")
            .replace("@REGION@", "eu-central-1")
            .replace("@LISTEN@", "127.0.0.1:0")
            .replace("@MODULE@", "# module = \"/opt/module.so\"")
            .replace("@DEVICE@", "# device = \"device:/dev/tpmrm0\"")
            .replace("@ISOLATION@", "# isolation = \"process\"");
        let setting = |line: &str| {
            line.starts_with('[')
                || line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '))
        };
        let written = |line: &str| match line.strip_prefix("# ") {
            Some(commented) if setting(commented) => format!("{commented}\n"),
            _ => format!("{line}\n"),
        };
        let all = read(&template.lines().map(written).collect::<String>()).expect("all settings");
        let none = read(&template).expect("the template");
        assert_eq!((all.audit.sink.len(), none.audit.sink.len()), (1, 0));
        assert_eq!(all.identity.client_certificate.len(), 1);
        assert_eq!(format!("{:?}", all.front.limits), format!("{:?}", none.front.limits));
        // What is in force where a token's profile says nothing.
        assert_eq!((all.data_key_cache.seconds, none.data_key_cache.seconds), (Some(300), None));
        let but_for_seconds = cache::Options { seconds: None, ..all.data_key_cache };
        assert_eq!(format!("{but_for_seconds:?}"), format!("{:?}", none.data_key_cache));
        assert_eq!(all.store.cached_documents, none.store.cached_documents);
        assert_eq!((all.audit.sync, all.audit.lookup), (none.audit.sync, none.audit.lookup));
        let sink = all.audit.sink.first().expect("one");
        let least = "name = 'a'\nkind = 'http'\nurl = 'http://a'";
        let default: audit::sink::Options = toml::from_str(least).expect("a sink");
        assert_eq!(
            (sink.mandatory, sink.deadline_ms, sink.lag),
            (default.mandatory, default.deadline_ms, default.lag)
        );
    }

    #[test]
    fn each_fault_has_its_sentence() {
        let error = |text: &str| read(text).expect_err("refused").to_string();
        assert!(error(&LEAST.replace("eu-central-1", "here")).starts_with("region `here`"));
        assert!(error(&format!("colour = 1\n{LEAST}")).contains("unknown field `colour`"));
        for (more, why) in [
            ("pcr_policy = 'a'", "`pcr_policy` needs"),
            ("pcr_approvals = 'a'", "goes with `pcr_policy` or `pin_sealed`"),
            ("pin_file = 'a'\npin_sealed = 'b'", "exclude each other"),
            ("pin_file = 'a'\npin_tpm = 'b'", "`pin_tpm` goes with `pin_sealed`"),
        ] {
            let told = error(&format!("{LEAST}{more}\n"));
            assert!(told.contains(why), "{told}");
        }
        let everywhere = error(&LEAST.replace("127.0.0.1", "0.0.0.0"));
        assert!(everywhere.contains("plain HTTP is for loopback"), "{everywhere}");
    }
}
