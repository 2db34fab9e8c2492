//! What a profile claims, beside what a probe has found.

pub mod device;

use super::pkcs11::probe::{Found, Keys, Trial};
use super::profile::{HmacKey, MAX_RANDOM, Profile, Quirks};
use super::trial::Tried;
use super::{Scheme, SigningScheme};
use serde::Serialize;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// That can't be told.
    Untold,
    /// Nothing was claimed: for information.
    NotClaimed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// What.
    pub what: String,
    /// What the profile says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed: Option<String>,
    /// What was seen.
    pub seen: String,
    /// Whether these fit.
    pub verdict: Verdict,
}

impl Finding {
    fn new(what: impl Into<String>, claimed: Option<String>, seen: String, fits: bool) -> Self {
        let verdict = match (&claimed, fits) {
            (None, _) => Verdict::NotClaimed,
            (Some(_), true) => Verdict::Holds,
            (Some(_), false) => Verdict::Fails,
        };
        Self { what: what.into(), claimed, seen, verdict }
    }

    /// Of something that works or does not.
    fn working<T>(what: impl Into<String>, claimed: bool, tried: &Tried<T>) -> Self {
        let claimed = claimed.then(|| "works".to_owned());
        Self::new(what, claimed, outcome(tried, |_| "works".to_owned()), tried.is_ok())
    }
}

fn outcome<T>(tried: &Tried<T>, told: impl Fn(&T) -> String) -> String {
    tried.as_ref().map_or_else(|why| format!("does not work: {why}"), told)
}

/// Everything, claim by claim. What of `found` was not claimed follows for information; with
/// `believed` false nothing is taken as claimed.
pub fn findings(profile: &Profile, found: &Found, believed: bool) -> Vec<Finding> {
    let mut all = Vec::new();
    if believed {
        for name in &profile.mechanisms {
            let there = found.mechanisms.contains(name);
            let seen = if there { "listed" } else { "not listed" };
            all.push(Finding::new(name.as_str(), Some("listed".into()), seen.into(), there));
        }
    }
    for (scheme, keys) in &found.schemes {
        let claimed = believed && profile.schemes.contains(scheme);
        all.extend(of_keys(&format!("scheme {}", name(scheme)), claimed, keys, &profile.quirks));
    }
    for (scheme, keys) in &found.signing {
        let claimed = believed && profile.signing.contains(scheme);
        all.extend(of_keys(&format!("signing {}", name(scheme)), claimed, keys, &profile.quirks));
    }
    all.extend(bounds(profile, found, believed));
    all.extend(facts(profile, found, believed));
    all
}

/// A scheme's name, as profiles write it.
fn name(scheme: &impl Serialize) -> String {
    let value = serde_json::to_value(scheme).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn of_keys(what: &str, claimed: bool, keys: &Keys, quirks: &Quirks) -> Vec<Finding> {
    let mut all = Vec::new();
    let time = |trial: &Trial| format!("works, {} µs a use", trial.time.as_micros());
    let tried = if claimed { keys.as_claimed.as_ref() } else { confined(keys) };
    let seen = match (tried, &keys.confined) {
        (Ok(trial), _) => time(trial),
        (Err(why), Ok((other, _))) if claimed => {
            format!("does not work: {why}; it would with {}", described(other))
        }
        (Err(why), _) => format!("does not work: {why}"),
    };
    let says = claimed.then(|| "works".to_owned());
    all.push(Finding::new(what, says, seen, tried.is_ok()));
    let Ok(trial) = tried else { return all };
    let demanded = Some("enforced".to_owned());
    let enforced = |tried: &Tried<()>| match tried {
        Ok(()) => "enforced".to_owned(),
        Err(why) => format!("not enforced: {why}"),
    };
    let mut add = |which: &str, claim: Option<String>, tried: &Tried<()>| {
        all.push(Finding::new(format!("{what}, {which}"), claim, enforced(tried), tried.is_ok()));
    };
    // These two every profile claims.
    add("sensitive", demanded.clone(), &trial.sensitive);
    add("not extractable", demanded.clone(), &trial.extractable);
    if let Some(tried) = &trial.modifiable {
        add("not modifiable", demanded.clone().filter(|_| quirks.modifiable), tried);
    }
    if let Some(tried) = &trial.allowed_mechanisms {
        add("one mechanism", demanded.filter(|_| quirks.allowed_mechanisms), tried);
    }
    if claimed && quirks.allowed_mechanisms && what.ends_with("hmac-kdf") {
        all.extend(trial.allowed_mechanisms.is_none().then(|| Finding {
            what: format!("{what}, one mechanism"),
            claimed: Some("enforced".into()),
            seen: "there is no other mechanism to try".into(),
            verdict: Verdict::Untold,
        }));
    }
    all
}

fn confined(keys: &Keys) -> Result<&Trial, &String> {
    keys.confined.as_ref().map(|(_, trial)| trial)
}

/// Quirks as a profile writes them, on one line.
fn described(quirks: &Quirks) -> String {
    quirk_lines(quirks).join(", ")
}

fn quirk_lines(quirks: &Quirks) -> Vec<String> {
    let mut lines = vec![
        format!("allowed_mechanisms = {}", quirks.allowed_mechanisms),
        format!("modifiable = {}", quirks.modifiable),
    ];
    if quirks.bare_templates {
        lines.push("bare_templates = true".into());
    }
    let form = match quirks.hmac_key {
        HmacKey::GenericSecret => "generic-secret",
        HmacKey::Sha256Hmac => "sha256-hmac",
        HmacKey::Nshield => "nshield",
    };
    lines.push(format!("hmac_key = \"{form}\""));
    lines
}

fn bounds(profile: &Profile, found: &Found, believed: bool) -> Vec<Finding> {
    let claim = |n: usize| believed.then(|| format!("at least {n}"));
    let (sessions, random) = (profile.limits.sessions, profile.limits.random_bytes);
    let most = found.sessions;
    let bytes = found.random.as_ref().copied();
    let told = outcome(&found.random, |n| format!("{n} bytes"));
    let find = outcome(&found.find, |time| format!("{} µs", time.as_micros()));
    vec![
        Finding::new(
            "sessions",
            claim(sessions),
            format!("{most} open at a time"),
            most >= sessions,
        ),
        Finding::new("random", claim(random), told, bytes.is_ok_and(|n| n >= random)),
        Finding::new("search for a key", None, find, found.find.is_ok()),
    ]
}

fn facts(profile: &Profile, found: &Found, believed: bool) -> Vec<Finding> {
    let facts = &profile.facts;
    let claimed = facts.gcm_iv.filter(|_| believed);
    let seen = outcome(&found.gcm_iv, name);
    let fits = claimed.is_some_and(|claim| found.gcm_iv == Ok(claim));
    let mut all =
        vec![Finding::new("who makes the nonce of GCM", claimed.map(|c| name(&c)), seen, fits)];
    let says = |list: &Option<Vec<String>>, name: &str| {
        let listed = list.as_ref().is_some_and(|list| list.iter().any(|one| one == name));
        believed && listed
    };
    for (name, tried) in &found.key_wrap {
        all.push(Finding::working(
            format!("key wrap by {name}"),
            says(&facts.key_wrap, name),
            tried,
        ));
    }
    for (name, tried) in &found.oaep {
        all.push(Finding::working(
            format!("OAEP by {name}"),
            says(&facts.oaep_hashes, name),
            tried,
        ));
    }
    all
}

/// A profile for what was found; none if Strongroom can't use it.
pub fn proposal(found: &Found) -> Option<String> {
    let schemes: Vec<_> =
        found.schemes.iter().filter_map(|(scheme, keys)| usable(scheme, keys)).collect();
    let signing: Vec<_> =
        found.signing.iter().filter_map(|(scheme, keys)| usable(scheme, keys)).collect();
    // The least confined of them, since all share one set of quirks.
    let all = schemes.iter().map(|(_, quirks)| quirks);
    let every = all.clone().chain(signing.iter().map(|(_, quirks)| quirks));
    let holding = schemes.iter().find(|(scheme, _)| **scheme == Scheme::HmacKdf);
    let quirks = Quirks {
        allowed_mechanisms: every.clone().all(|quirks| quirks.allowed_mechanisms),
        modifiable: every.clone().all(|quirks| quirks.modifiable),
        bare_templates: every.clone().any(|quirks| quirks.bare_templates),
        hmac_key: holding.map_or_else(HmacKey::default, |(_, quirks)| quirks.hmac_key),
    };
    let schemes: Vec<Scheme> = schemes.into_iter().map(|(scheme, _)| *scheme).collect();
    let signing: Vec<SigningScheme> = signing.into_iter().map(|(scheme, _)| *scheme).collect();
    (!schemes.is_empty()).then(|| written(found, &schemes, &signing, &quirks))
}

/// The scheme, if its keys work and keep to themselves.
fn usable<'a, S>(scheme: &'a S, keys: &'a Keys) -> Option<(&'a S, Quirks)> {
    let (quirks, trial) = keys.confined.as_ref().ok()?;
    let closed = trial.sensitive.is_ok() && trial.extractable.is_ok();
    let kept = |tried: &Option<Tried<()>>| tried.as_ref().is_none_or(Result::is_ok);
    let quirks = Quirks {
        allowed_mechanisms: quirks.allowed_mechanisms && kept(&trial.allowed_mechanisms),
        modifiable: quirks.modifiable && kept(&trial.modifiable),
        ..*quirks
    };
    closed.then_some((scheme, quirks))
}

fn written(
    found: &Found,
    schemes: &[Scheme],
    signing: &[SigningScheme],
    quirks: &Quirks,
) -> String {
    let title = format!("{} {}", found.token.manufacturer, found.token.model);
    let random = found.random.as_ref().copied().unwrap_or(32).min(MAX_RANDOM);
    let mut lines = vec![
        "# Proposed by `strongroom hsm probe`. Read it, name it, and say what it is.".to_owned(),
        "name = \"proposed\"".to_owned(),
        // A string of TOML, but for what no token should be called.
        format!("title = {}", serde_json::json!(title.trim())),
        "kind = \"pkcs11\"".to_owned(),
        "# Whether it is software no probe can tell.\nsoftware = false".to_owned(),
        "statement = \"\"\ntested = false\n".to_owned(),
        format!("schemes = {}", listed(schemes.iter().map(name))),
        format!("signing = {}", listed(signing.iter().map(name))),
        format!("mechanisms = {}\n", listed(relied_on(schemes, signing, quirks.hmac_key))),
        "[module]\n# Named by `token.module`.\npaths = []\n".to_owned(),
        "[limits]\n# Seen; perhaps there are more.".to_owned(),
        format!("sessions = {}\nrandom_bytes = {random}\n", found.sessions.max(1)),
        "[quirks]".to_owned(),
    ];
    lines.extend(quirk_lines(quirks));
    lines.push("\n[facts]".to_owned());
    lines.extend(found.gcm_iv.iter().map(|maker| format!("gcm_iv = \"{}\"", name(maker))));
    lines.push(format!("key_wrap = {}", listed(working(&found.key_wrap))));
    lines.push(format!("oaep_hashes = {}\n", listed(working(&found.oaep))));
    lines.join("\n")
}

/// A list of strings, as TOML and JSON both write it.
fn listed(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| serde_json::json!(item).to_string()).collect();
    format!("[{}]", items.join(", "))
}

fn working(tried: &[(&'static str, Tried<()>)]) -> impl Iterator<Item = String> {
    tried.iter().filter(|(_, tried)| tried.is_ok()).map(|(name, _)| (*name).to_owned())
}

fn relied_on(schemes: &[Scheme], signing: &[SigningScheme], form: HmacKey) -> Vec<String> {
    let all = schemes.iter().flat_map(|scheme| scheme.mechanisms());
    let all = all.chain(signing.iter().flat_map(|scheme| scheme.mechanisms()));
    let mut names: Vec<String> = Vec::new();
    for mechanism in all {
        let mechanism = form.mechanism(mechanism);
        if !names.iter().any(|have| have == mechanism) {
            names.push(mechanism.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::TokenInfo;
    use std::time::Duration;

    const QUIRKS: Quirks = Quirks {
        allowed_mechanisms: true,
        modifiable: true,
        bare_templates: false,
        hmac_key: HmacKey::GenericSecret,
    };

    fn trial() -> Trial {
        Trial {
            evidence: None,
            sensitive: Ok(()),
            extractable: Ok(()),
            allowed_mechanisms: Some(Ok(())),
            modifiable: Some(Ok(())),
            time: Duration::from_micros(5),
        }
    }

    /// A token on which keys of `hmac-kdf` came to `claimed` and `confined`, and nothing else works.
    fn found(claimed: Trial, confined: Trial) -> Found {
        let no = || "no".to_owned();
        Found {
            token: TokenInfo {
                label: "label".into(),
                serial: "1".into(),
                manufacturer: "Somebody's \"HSM\"".into(),
                model: String::new(),
            },
            removed: 0,
            mechanisms: vec!["CKM_SHA256_HMAC".into()],
            schemes: vec![(
                Scheme::HmacKdf,
                Keys { as_claimed: Ok(claimed), confined: Ok((QUIRKS, confined)) },
            )],
            signing: Vec::new(),
            sessions: 3,
            random: Ok(32),
            gcm_iv: Err(no()),
            key_wrap: vec![("CKM_AES_KEY_WRAP", Err(no()))],
            oaep: vec![("sha-256", Ok(()))],
            find: Err(no()),
        }
    }

    fn verdict(findings: &[Finding], what: &str) -> Verdict {
        findings.iter().find(|finding| finding.what == what).expect("looked at").verdict
    }

    #[test]
    fn each_claim_gets_its_verdict() {
        let profile = Profile::built_in("softhsm2").expect("sound");
        let untried = Trial { allowed_mechanisms: None, ..trial() };
        let all = findings(&profile, &found(untried, trial()), true);
        assert_eq!(verdict(&all, "scheme hmac-kdf"), Verdict::Holds);
        assert_eq!(verdict(&all, "scheme hmac-kdf, one mechanism"), Verdict::Untold);
        assert_eq!(verdict(&all, "CKM_SHA256_HMAC"), Verdict::Holds);
        assert_eq!(verdict(&all, "CKM_EDDSA"), Verdict::Fails);
        assert_eq!(verdict(&all, "sessions"), Verdict::Fails);
        assert_eq!(verdict(&all, "who makes the nonce of GCM"), Verdict::Fails);
        assert_eq!(verdict(&all, "key wrap by CKM_AES_KEY_WRAP"), Verdict::Fails);
        assert_eq!(verdict(&all, "OAEP by sha-256"), Verdict::NotClaimed);
    }

    #[test]
    fn of_a_token_that_nobody_vouched_for_only_confinement_is_demanded() {
        let profile = Profile::built_in("pkcs11").expect("sound");
        let readable = Trial { sensitive: Err("its value can be read".into()), ..trial() };
        let all = findings(&profile, &found(trial(), readable), false);
        assert_eq!(verdict(&all, "scheme hmac-kdf, sensitive"), Verdict::Fails);
        let rest = all.iter().filter(|finding| finding.claimed.is_none());
        assert!(rest.clone().all(|finding| finding.verdict == Verdict::NotClaimed));
        assert_eq!(rest.count() + 2, all.len());
    }

    #[test]
    fn what_is_proposed_is_what_was_enforced() {
        let lax = Trial { modifiable: Some(Err("changed".into())), ..trial() };
        let text = proposal(&found(trial(), lax)).expect("usable");
        let proposed = Profile::parse(&text).expect("sound");
        assert!(proposed.quirks.allowed_mechanisms && !proposed.quirks.modifiable);
        assert_eq!((proposed.limits.sessions, proposed.limits.random_bytes), (3, 32));
        assert_eq!(proposed.title, "Somebody's \"HSM\"");
        assert!(!proposed.tested);
        let readable = Trial { sensitive: Err("its value can be read".into()), ..trial() };
        assert_eq!(proposal(&found(trial(), readable)), None);
    }
}
