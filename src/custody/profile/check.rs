//! How a profile is checked: what it says must fit together, and keep within bounds.

use super::super::Scheme;
use super::{Kind, MAX_RANDOM, Profile, TOKEN_FOLDER};

/// What a token without schemes must say that it can't do.
const HOLD_KEYS: &str = "hold keys for Strongroom";

/// The largest number of sessions that a profile may name.
const MAX_SESSIONS: usize = 1024;

impl Profile {
    /// The first thing that is wrong with it.
    pub(super) fn fault(&self) -> Option<String> {
        self.name_fault().or_else(|| self.module_fault()).or_else(|| self.ability_fault())
    }

    fn name_fault(&self) -> Option<String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(plain) {
            return Some("a name has 1 to 32 lower-case letters, digits and hyphens".into());
        }
        if self.tested && self.tested_on.is_none() {
            return Some("one that was tested says on what".into());
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
        if module.paths.iter().any(|p| !p.is_absolute()) {
            return Some("module paths are absolute".into());
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
        let excused = self.cannot.iter().any(|cannot| cannot.what == HOLD_KEYS);
        if self.schemes.is_empty() != excused {
            return Some(format!("it names no scheme, or can't {HOLD_KEYS}: one of both"));
        }
        if self.schemes.contains(&Scheme::RsaOaep) && self.facts.deny_oaep() {
            return Some("rsa-oaep takes SHA-256, which facts.oaep_hashes lacks".into());
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
