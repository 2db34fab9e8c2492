//! The same of a TPM or a YubiKey, which are asked through the server's driver.

use super::{Finding, Verdict, listed, name, outcome};
use crate::custody::probe::{Found, Held};
use crate::custody::profile::Profile;
use crate::custody::trial::Tried;
use crate::custody::{Evidence, Scheme};

/// What a profile says of a device whose attestation nobody can check, and of one without a generator.
const ATTEST: &str = "attest that a key was made inside";
const RANDOM: &str = "give out random bytes";

/// Everything, claim by claim; with `believed` false nothing is taken as claimed.
pub fn findings(profile: &Profile, found: &Found, believed: bool) -> Vec<Finding> {
    let told = found.survey.told.iter();
    let mut all: Vec<_> =
        told.map(|(what, seen)| Finding::new(*what, None, seen.clone(), true)).collect();
    all.extend(kind(profile, found, believed));
    let closed = found.survey.closed.is_some();
    for (scheme, held) in &found.schemes {
        let claimed = believed && profile.schemes.contains(scheme);
        all.extend(of_scheme(profile, scheme, claimed, held, closed));
    }
    for (scheme, tried) in &found.signing {
        let seen = outcome(tried, |time| format!("works, {} µs a use", time.as_micros()));
        let what = format!("signing {}", name(scheme));
        all.push(working(what, believed, seen, tried.is_ok(), closed));
    }
    all.push(random(profile, found, believed, closed));
    all
}

/// Whether the device is of the kind that the profile is for, as far as its maker and version tell.
fn kind(profile: &Profile, found: &Found, believed: bool) -> Option<Finding> {
    let known = Profile::names().any(|name| name == profile.name);
    let claimed = (believed && known).then(|| profile.name.clone());
    let seen = found.survey.fits?;
    Some(Finding::new(
        "profile for its maker and version",
        claimed,
        seen.into(),
        profile.name == seen,
    ))
}

/// Of something that is claimed to work; nothing can be said of it if the device can't be used.
fn working(what: String, claimed: bool, seen: String, works: bool, closed: bool) -> Finding {
    let mut finding = Finding::new(what, claimed.then(|| "works".into()), seen, works);
    if closed && finding.verdict == Verdict::Fails {
        finding.verdict = Verdict::Untold;
    }
    finding
}

fn of_scheme(
    profile: &Profile,
    scheme: &Scheme,
    claimed: bool,
    held: &Tried<Held>,
    closed: bool,
) -> Vec<Finding> {
    let what = format!("scheme {}", name(scheme));
    let seen = outcome(held, |held| format!("works, {} µs a use", held.time.as_micros()));
    let mut all = vec![working(what.clone(), claimed, seen, held.is_ok(), closed)];
    let Ok(held) = held else { return all };
    let inside = is_inside(&held.evidence);
    let seen = if inside { "by the device's word" } else { "not so, by the device's word" };
    let says = || Some("so".to_owned());
    all.push(Finding::new(format!("{what}, made inside and kept"), says(), seen.into(), inside));
    let checkable = profile.cannot.iter().all(|cannot| cannot.what != ATTEST);
    let signed = match &held.attested {
        Ok(()) if checkable => {
            "signed; who vouches for the key that signs was not asked".to_owned()
        }
        Ok(()) => "signed, by a key that nobody vouches for".to_owned(),
        Err(why) => format!("not signed: {why}"),
    };
    let says = (claimed && checkable).then(|| "signed".to_owned());
    all.push(Finding::new(format!("{what}, attested"), says, signed, held.attested.is_ok()));
    all
}

/// Whether a key can't leave the device, never could, and was made in it.
fn is_inside(evidence: &Evidence) -> bool {
    let Evidence { sensitive, extractable, never_extractable, always_sensitive, local, .. } =
        evidence;
    *sensitive && !extractable && *never_extractable && *always_sensitive && *local
}

fn random(profile: &Profile, found: &Found, believed: bool, closed: bool) -> Finding {
    let none = profile.cannot.iter().any(|cannot| cannot.what == RANDOM);
    let seen = match &found.random {
        Err(why) if none => format!("none: {why}"),
        tried => outcome(tried, |n| format!("{n} bytes")),
    };
    let least = profile.limits.random_bytes;
    let claimed = if none { "none".to_owned() } else { format!("at least {least}") };
    let fits = found.random.is_ok() != none;
    let mut finding = Finding::new("random", believed.then_some(claimed), seen, fits);
    if closed && believed {
        finding.verdict = Verdict::Untold;
    }
    finding
}

/// The profile for what was found: the one that comes with the program for such a device, with the
/// schemes that work; none if there is no such scheme. `profile` is the one that it was probed with.
pub fn proposal(profile: &Profile, found: &Found) -> Option<String> {
    let base = found.survey.fits.unwrap_or(&profile.name);
    let works = |tried: bool, name: String| tried.then_some(name);
    let schemes: Vec<_> =
        found.schemes.iter().filter_map(|(one, held)| works(held.is_ok(), name(one))).collect();
    let signing: Vec<_> =
        found.signing.iter().filter_map(|(one, tried)| works(tried.is_ok(), name(one))).collect();
    if schemes.is_empty() {
        return None;
    }
    let own = Profile::built_in(base).ok()?;
    // In the order of preference of that profile.
    let kept = |all: Vec<String>, have: Vec<String>| {
        all.into_iter().filter(|n| have.contains(n)).collect()
    };
    let schemes: Vec<String> = kept(own.schemes.iter().map(name).collect(), schemes);
    let signing: Vec<String> = kept(own.signing.iter().map(name).collect(), signing);
    let line = |line: &str| match line.split_once(" = ") {
        Some(("schemes", _)) => format!("schemes = {}\n", listed(schemes.clone())),
        Some(("signing", _)) => format!("signing = {}\n", listed(signing.clone())),
        _ => format!("{line}\n"),
    };
    let text = Profile::text(base)?.lines().map(line).collect::<String>();
    let head = "# Proposed by `strongroom hsm probe`: the profile that comes with the program, with what \
                works.\n";
    Some(format!("{head}{text}"))
}
