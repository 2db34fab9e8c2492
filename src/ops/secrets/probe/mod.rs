//! Probing: from time to time a login with what is stored, so that a password which somebody has changed
//! by hand is known before an application finds out.
//!
//! A tag says how often. What is found, and since when, stands beside the secret (`store/probes.rs`); the
//! logins are made by `src/rotate/`. Each of two refused logins in a row is needed: whoever changes a
//! password by hand needs a moment for the secret, too. Then the pause is an hour at least, so that no
//! account is locked by what is to watch over it.

pub mod show;

use super::labels::CURRENT;
use crate::clock::Time;
use crate::ops::error::{Condition, Error, Result};
use crate::store::probes::{Found, Outcome, Probe};
use crate::store::records::Rows;
use crate::store::secrets::Secret;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The tag that says how often: `rate(5 minutes)` to `rate(365 days)`.
const TAG: &str = "strongroom:probe";
/// The bounds of a pause, in milliseconds: five minutes and 365 days.
const PAUSES: std::ops::RangeInclusive<i64> = 5 * MINUTE..=365 * 24 * 60 * MINUTE;
const MINUTE: i64 = 60_000;
/// How long after a first refused login the second one is tried, in milliseconds.
const AGAIN: i64 = 30_000;
/// The shortest pause while logins are refused, in milliseconds.
const REFUSED: i64 = 60 * MINUTE;

/// What probes have found since the start.
#[derive(Default)]
pub struct Tally([AtomicU64; 4]);

impl Tally {
    /// Each outcome and how often it was found.
    pub fn read(&self) -> [(&'static str, u64); 4] {
        let [let_in, refused, unreachable, unusable] = &self.0;
        let read = |count: &AtomicU64| count.load(Relaxed);
        [
            ("let_in", read(let_in)),
            ("refused", read(refused)),
            ("unreachable", read(unreachable)),
            ("unusable", read(unusable)),
        ]
    }

    /// Counts one.
    pub fn count(&self, outcome: Outcome) {
        let [let_in, refused, unreachable, unusable] = &self.0;
        let counter = match outcome {
            Outcome::LetIn => let_in,
            Outcome::Refused => refused,
            Outcome::Unreachable => unreachable,
            Outcome::Unusable => unusable,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// Refuses a value of the tag that can't be read.
pub(super) fn readable(key: &str, value: &str) -> Result<()> {
    if key != TAG || pause(value).is_some() {
        return Ok(());
    }
    let text = format!(
        "The value of the tag '{TAG}' must be a rate of minutes, hours or days, from rate(5 minutes) to \
         rate(365 days)."
    );
    Err(Error::new(Condition::Tag, text))
}

fn pause(value: &str) -> Option<i64> {
    let (number, unit) = value.strip_prefix("rate(")?.strip_suffix(')')?.split_once(' ')?;
    let unit = match unit {
        "minute" | "minutes" => MINUTE,
        "hour" | "hours" => 60 * MINUTE,
        "day" | "days" => 24 * 60 * MINUTE,
        _ => return None,
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(unit).filter(|pause| PAUSES.contains(pause))
}

/// Takes over what the tags of a secret say.
pub(super) fn follow_tags(secret: &mut Secret) {
    let tags = secret.tags.as_deref().unwrap_or_default();
    secret.probe = tags.iter().find(|tag| tag.key == TAG).and_then(|tag| pause(&tag.value));
}

/// Has a secret that has another value now probed soon, if it is probed at all; who writes one value after
/// the other makes no more logins of it than one in [`AGAIN`].
pub(super) fn soon(rows: &mut Rows<'_>, uid: i64, now: Time) -> Result<()> {
    let Some(mut probe) = rows.probe(uid)? else { return Ok(()) };
    let soon = now.max(Time(probe.at.0.saturating_add(AGAIN)));
    if probe.due <= soon {
        return Ok(());
    }
    probe.due = soon;
    Ok(rows.put_probe(&mut probe)?)
}

/// A probe that has begun.
#[derive(Clone, Debug)]
pub struct Begun {
    /// What was found before.
    pub probe: Probe,
    /// The random end of the secret's ARN.
    pub suffix: String,
    /// The version that is probed.
    version: Option<String>,
}

/// Begins the probe of a secret that is due, for this process alone. None if it is not, or the secret
/// rotates at the moment.
///
/// # Errors
/// Those of the database.
pub fn begin(
    rows: &mut Rows<'_>,
    (account, name, uid): (&str, &str, i64),
    now: Time,
) -> Result<Option<Begun>> {
    let Some((secret, every)) = still(rows, (account, name, uid))? else { return Ok(None) };
    let known = rows.probe(uid)?;
    let waits = |probe: &Probe| probe.due > now && probe.every <= every && probe.at <= now;
    if known.as_ref().is_some_and(waits) {
        return Ok(None);
    }
    let none =
        Probe { secret: uid, at: now, due: now, every, found: None, drifted: None, revision: 0 };
    let mut probe = Probe { at: now, every, ..known.unwrap_or(none) };
    probe.due = Time(now.0.saturating_add(every));
    rows.put_probe(&mut probe)?;
    let version = secret.version_with(CURRENT).map(str::to_owned);
    Ok(Some(Begun { probe, suffix: secret.suffix, version }))
}

/// A secret that is probed, and is not rotating; and how often.
fn still(
    rows: &mut Rows<'_>,
    (account, name, uid): (&str, &str, i64),
) -> Result<Option<(Secret, i64)>> {
    let secret = rows.secret(account, name)?.filter(|s| s.uid == uid && s.deleted.is_none());
    let Some(secret) = secret else { return Ok(None) };
    let rotates = rows.rotation(uid)?.is_some_and(|rotation| rotation.progress.is_some());
    Ok(secret.probe.filter(|_| !rotates).map(|every| (secret, every)))
}

/// What has turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// What is stored is not let in any more.
    Drifted,
    /// It is again.
    Recovered,
}

/// What a probe's outcome tells, given what was known before.
pub fn news(before: &Probe, outcome: Outcome) -> Option<News> {
    let twice = before.found.as_ref().is_some_and(|found| found.outcome == Outcome::Refused);
    match (outcome, before.drifted) {
        (Outcome::Refused, None) if twice => Some(News::Drifted),
        (Outcome::LetIn, Some(_)) => Some(News::Recovered),
        _ => None,
    }
}

/// Notes what a probe has found; answers whether it counts: not if the secret has got another value
/// meanwhile, or rotates.
///
/// # Errors
/// [`Condition::Conflict`] if it does not count; those of the database.
pub fn end(
    rows: &mut Rows<'_>,
    begun: &Begun,
    (account, name): (&str, &str),
    found: &Found,
) -> Result<()> {
    let changed = || Error::new(Condition::Conflict, "the secret has changed meanwhile");
    let uid = begun.probe.secret;
    let (secret, every) = still(rows, (account, name, uid))?.ok_or_else(changed)?;
    let known = rows.probe(uid)?.filter(|probe| probe.revision == begun.probe.revision);
    let mut probe = known.ok_or_else(changed)?;
    if secret.version_with(CURRENT) != begun.version.as_deref() {
        return Err(changed());
    }
    match news(&probe, found.outcome) {
        Some(News::Drifted) => probe.drifted = Some(found.at),
        Some(News::Recovered) => probe.drifted = None,
        None => {}
    }
    let pause = match (found.outcome, probe.drifted) {
        (Outcome::Refused, None) => AGAIN,
        (Outcome::Refused, Some(_)) => every.max(REFUSED),
        _ => every,
    };
    probe.due = Time(found.at.0.saturating_add(pause));
    probe.found = Some(found.clone());
    Ok(rows.put_probe(&mut probe)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_minutes_hours_or_days_and_within_bounds() {
        for (text, pause) in [
            ("rate(5 minutes)", 5 * MINUTE),
            ("rate(1 hour)", 60 * MINUTE),
            ("rate(365 days)", 365 * 24 * 60 * MINUTE),
        ] {
            assert_eq!(super::pause(text), Some(pause));
            assert!(readable(TAG, text).is_ok());
        }
        let huge = format!("rate({} days)", i64::MAX);
        for text in [
            "",
            "1 hour",
            "rate(4 minutes)",
            "rate(366 days)",
            "rate(-5 hours)",
            "rate(+5 hours)",
            &huge,
        ] {
            assert!(readable(TAG, text).is_err(), "{text}");
        }
        assert!(readable("probe", "often").is_ok());
    }

    fn probe(outcome: Option<Outcome>, drifted: bool) -> Probe {
        let found = outcome.map(|outcome| Found { outcome, why: None, at: Time(1) });
        let drifted = drifted.then_some(Time(1));
        Probe { secret: 1, at: Time(1), due: Time(1), every: MINUTE, found, drifted, revision: 1 }
    }

    #[test]
    fn drift_is_told_once_after_two_refused_logins_and_recovery_once() {
        use Outcome::{LetIn, Refused, Unreachable, Unusable};
        assert_eq!(news(&probe(None, false), Refused), None, "the first one");
        assert_eq!(news(&probe(Some(Refused), false), Refused), Some(News::Drifted));
        assert_eq!(news(&probe(Some(Unreachable), false), Refused), None);
        assert_eq!(news(&probe(Some(Refused), true), Refused), None, "it is known");
        for nothing in [Unreachable, Unusable] {
            assert_eq!(news(&probe(Some(Refused), true), nothing), None);
            assert_eq!(news(&probe(Some(LetIn), false), nothing), None);
        }
        assert_eq!(news(&probe(Some(Refused), false), LetIn), None);
        assert_eq!(news(&probe(Some(Refused), true), LetIn), Some(News::Recovered));
    }
}
