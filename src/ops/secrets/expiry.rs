//! A secret's deadline, which its tags name, and the notices that are given of it: so many days before,
//! and at the deadline itself.
//!
//! Which notice comes next stands in the secret's row. It is given in one transaction with its audit record,
//! which is what tells of it (`SecretExpiring`, `SecretExpired`): once, whatever happens. Of several that fell
//! into a time in which the appliance was down the last one is given alone.

use crate::clock::{DAY, Time};
use crate::json::Object;
use crate::name::{Service, secret_arn};
use crate::ops::call::Services;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::event::Event;
use crate::store::records::Rows;
pub use crate::store::secrets::Expiring;
use crate::store::secrets::{Expiry, Secret};
use parking_lot::Mutex;
use std::sync::Arc;

/// The tag that names the deadline: an RFC 3339 date (its first moment, UTC) or date-time.
const DEADLINE: &str = "strongroom:expires";
/// The tag that says how many days before it notice is given.
const NOTICE_DAYS: &str = "strongroom:expiry-notice-days";
/// Days where no tag says how many.
const DEFAULT_DAYS: i64 = 30;
/// What may be said: so many numbers, and each so many days.
const MOST: usize = 10;
const DAYS: std::ops::RangeInclusive<i64> = 1..=3650;
/// Secrets looked up at once.
const BATCH: i64 = 100;
/// Of what number of days there is a count of secrets that expire within them.
pub const COUNTED: [i64; 2] = [7, 30];

/// The counts of the last round of housekeeping.
#[derive(Default)]
pub struct Gauge(Mutex<Expiring>);

impl Gauge {
    /// How many secrets have expired, and how many do within the [`COUNTED`] days.
    pub fn read(&self) -> Expiring {
        *self.0.lock()
    }
}

/// Refuses a value of one of these tags that can't be read: who gets no notice because of a slip of the pen
/// should hear of it now.
pub(super) fn readable(key: &str, value: &str) -> Result<()> {
    let refused = |text: String| Err(Error::new(Condition::Tag, text));
    match key {
        DEADLINE if deadline(value).is_none() => refused(format!(
            "The value of the tag '{DEADLINE}' must be a date (2030-01-31) or a time \
             (2030-01-31T12:00:00Z)."
        )),
        NOTICE_DAYS if days(value).is_none() => refused(format!(
            "The value of the tag '{NOTICE_DAYS}' must be 1 to {MOST} numbers of days, each from 1 to \
             3650, with spaces or commas between them."
        )),
        _ => Ok(()),
    }
}

fn deadline(value: &str) -> Option<Time> {
    let date = value.len() == "2030-01-31".len();
    let whole = if date { format!("{value}T00:00:00Z") } else { value.to_owned() };
    let stamp: jiff::Timestamp = whole.contains('T').then(|| whole.parse().ok()).flatten()?;
    Some(Time(stamp.as_millisecond()))
}

fn days(value: &str) -> Option<Vec<i64>> {
    let words = value.split([' ', ',']).filter(|word| !word.is_empty());
    let days: Vec<i64> = words.map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    let sound = (1..=MOST).contains(&days.len()) && days.iter().all(|days| DAYS.contains(days));
    sound.then_some(days)
}

fn tag<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    let tags = secret.tags.as_deref().unwrap_or_default();
    tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
}

/// The moments of which notice is given, in their order: the deadline is the last.
fn moments(secret: &Secret, deadline: Time) -> Vec<Time> {
    let days = tag(secret, NOTICE_DAYS).and_then(days).unwrap_or_else(|| vec![DEFAULT_DAYS]);
    let mut moments: Vec<_> = days.iter().map(|days| deadline.plus_days(-days)).collect();
    moments.push(deadline);
    moments.sort_unstable();
    moments
}

/// The moment of which notice is given next: the last one that is past, if it is not told yet, else the first
/// one that comes.
fn next(moments: &[Time], told: Option<Time>, now: Time) -> Option<Time> {
    let mut open = moments.iter().copied().filter(|moment| Some(*moment) > told).peekable();
    let first = open.peek().copied();
    open.take_while(|moment| *moment <= now).last().or(first)
}

/// Takes over what the tags of a secret say. Of a deadline that stays no notice is given again.
pub(super) fn follow_tags(secret: &mut Secret, now: Time) {
    let Some(deadline) = tag(secret, DEADLINE).and_then(deadline) else {
        secret.expiry = None;
        return;
    };
    let known = secret.expiry.filter(|known| known.deadline == deadline);
    let told = known.and_then(|known| known.told);
    let notice = next(&moments(secret, deadline), told, now);
    secret.expiry = Some(Expiry { deadline, told, notice });
}

/// Gives the notices that are due; answers how many.
///
/// # Errors
/// Those of the database. A notice that can't be given now is logged, and tried again the next time.
pub async fn notify_due(services: &Arc<Services>) -> Result<usize> {
    let now = services.world.clock.now();
    let mut given = 0;
    loop {
        let due = services.records.scan(move |rows| rows.notices_due(now, BATCH)).await;
        let due = due.map_err(Error::from)?;
        let more = i64::try_from(due.len()).unwrap_or(0) == BATCH;
        let told = notify(services, due, now).await;
        given += told;
        // Where none of a whole batch could be given, the next one would be the same.
        if !more || told == 0 {
            break;
        }
    }
    let before = COUNTED.map(|days| now.plus_days(days));
    let count = services.records.scan(move |rows| rows.expiring(now, before)).await;
    *services.expiring.0.lock() = count.map_err(Error::from)?;
    Ok(given)
}

async fn notify(services: &Services, due: Vec<Secret>, now: Time) -> usize {
    let mut given = 0;
    for secret in due {
        let arn = secret_arn(&services.region, &secret.account, &secret.name, &secret.suffix);
        match tell(services, secret, arn.clone(), now).await {
            Ok(()) => given += 1,
            Err(error) if error.condition == Condition::Conflict => {}
            Err(error) => tracing::error!(%error, "no notice was given of the expiry of {arn}"),
        }
    }
    given
}

async fn tell(services: &Services, secret: Secret, arn: String, now: Time) -> Result<()> {
    let Some(expiry) = secret.expiry else { return Ok(()) };
    let left = expiry.deadline.0.saturating_sub(now.0);
    let mut particulars = Vec::new();
    Object::begin(&mut particulars)
        .text("expires", &rfc3339(expiry.deadline))
        .raw("daysLeft", &left.max(0).div_euclid(DAY).to_string())
        .end();
    let event = Event {
        service: Service::SecretsManager,
        name: if left <= 0 { "SecretExpired" } else { "SecretExpiring" },
        account: secret.account.clone(),
        resources: vec![arn],
    };
    let change = move |rows: &mut Rows<'_>| note(rows, &secret, now);
    services.commit_event_with(&event, &particulars, change).await
}

/// Notes that notice was given, unless the secret has changed meanwhile. That is no change of the secret in
/// its owner's eyes.
fn note(rows: &mut Rows<'_>, found: &Secret, now: Time) -> Result<()> {
    let changed = || Error::new(Condition::Conflict, "the secret has changed meanwhile");
    let secret = rows.secret(&found.account, &found.name)?;
    let same = |s: &Secret| s.uid == found.uid && s.revision == found.revision;
    let mut secret = secret.filter(same).ok_or_else(changed)?;
    let expiry = secret.expiry.ok_or_else(changed)?;
    secret.expiry = Some(after_notice(&secret, expiry, now));
    secret.revision = secret.revision.saturating_add(1);
    Ok(rows.put_secret(&secret)?)
}

/// A deadline of which notice was given at `now`.
fn after_notice(secret: &Secret, expiry: Expiry, now: Time) -> Expiry {
    let moments = moments(secret, expiry.deadline);
    let told = moments.iter().copied().filter(|moment| *moment <= now).max();
    Expiry { told, notice: next(&moments, told, now), ..expiry }
}

fn rfc3339(time: Time) -> String {
    let stamp = jiff::Timestamp::from_millisecond(time.0).unwrap_or(jiff::Timestamp::MAX);
    stamp.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::records::{Records, RowMac};
    use crate::store::sqlite::{Options, Sqlite};

    fn secret(tags: &[(&str, &str)]) -> Secret {
        let tags: Vec<_> = tags
            .iter()
            .map(|(key, value)| serde_json::json!({"key": key, "value": value}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "uid": 1, "account": "111122223333", "name": "db", "suffix": "AbCdEf", "created": 0,
            "changed": 0, "tags": tags, "stages": [], "versions": 0, "prune_after": 0, "revision": 1,
        }))
        .expect("a secret")
    }

    /// Noon of day `day` of 2030.
    fn day(day: i64) -> Time {
        Time(1_893_456_000_000 + DAY / 2).plus_days(day - 1)
    }

    /// On which of these days notice is given, housekeeping being done on them alone.
    fn told(secret: &mut Secret, days: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut told = Vec::new();
        for n in days {
            let Some(expiry) = secret.expiry else { continue };
            if expiry.notice.is_some_and(|notice| notice <= day(n)) {
                secret.expiry = Some(after_notice(secret, expiry, day(n)));
                told.push(n);
            }
        }
        told
    }

    #[test]
    fn notice_is_given_once_for_each_day_and_at_the_deadline() {
        let mut one = secret(&[(DEADLINE, "2030-03-01"), (NOTICE_DAYS, "7, 30 1")]);
        follow_tags(&mut one, day(1));
        let days = told(&mut one, 1..=90);
        // March 1 is day 60; the first housekeeping after its first moment is at noon.
        assert_eq!(days, [30, 53, 59, 60]);
        assert_eq!(one.expiry.and_then(|expiry| expiry.notice), None);
    }

    /// A database with a secret of these tags, as CreateSecret leaves it.
    fn records(dir: &std::path::Path) -> Records {
        let engine = Sqlite::open(Options::new(dir.join("data"))).expect("a database");
        Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10)
    }

    /// Whose notices are due.
    fn due(records: &Records, now: Time) -> Vec<Secret> {
        records.read(|rows| rows.notices_due(now, BATCH)).expect("read")
    }

    #[tokio::test]
    async fn a_notice_is_given_once_across_restarts_and_not_of_what_waits_for_its_deletion() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut new = secret(&[(DEADLINE, "2030-03-01")]);
        follow_tags(&mut new, day(1));
        let stored = new.clone();
        let before = records(dir.path());
        before.write(move |rows| rows.put_secret(&stored)).await.expect("written");
        assert!(due(&before, day(29)).is_empty());
        let found = due(&before, day(30)).remove(0);
        let twice = [found.clone(), found];
        for (found, given) in twice.into_iter().zip([true, false]) {
            let noted = before.write(move |rows| note(rows, &found, day(30))).await;
            assert_eq!(noted.is_ok(), given);
        }
        drop(before);
        let after = records(dir.path());
        assert!(due(&after, day(59)).is_empty());
        let found = due(&after, day(60)).remove(0);
        assert_eq!((found.changed, found.revision), (new.changed, new.revision + 1));
        let count = |now| after.read(|rows| rows.expiring(now, COUNTED.map(|n| now.plus_days(n))));
        assert_eq!(count(day(55)).expect("read"), Expiring { expired: 0, before: [1, 1] });
        assert_eq!(count(day(40)).expect("read"), Expiring { expired: 0, before: [0, 1] });
        assert_eq!(count(day(60)).expect("read"), Expiring { expired: 1, before: [0, 0] });
        let deleted = Secret { deleted: Some(day(1)), due: Some(day(99)), ..found };
        after.write(move |rows| rows.put_secret(&deleted)).await.expect("written");
        assert!(due(&after, day(60)).is_empty());
        assert_eq!(count(day(60)).expect("read"), Expiring::default());
    }

    #[test]
    fn after_a_downtime_the_last_notice_is_given_alone() {
        let tags = [(DEADLINE, "2030-03-01T00:00:00Z"), (NOTICE_DAYS, "30 7 1")];
        let mut one = secret(&tags);
        follow_tags(&mut one, day(1));
        let days = told(&mut one, [54, 55, 80, 81]);
        assert_eq!(days, [54, 80]);
        // One that gets its deadline late is told of it at once.
        let mut late = secret(&tags);
        follow_tags(&mut late, day(55));
        assert_eq!(told(&mut late, [55, 56]).len(), 1);
    }

    #[test]
    fn another_deadline_begins_anew_and_the_same_one_does_not() {
        let mut one = secret(&[(DEADLINE, "2030-03-01")]);
        follow_tags(&mut one, day(1));
        assert_eq!(told(&mut one, [35]).len(), 1);
        follow_tags(&mut one, day(36));
        assert_eq!(told(&mut one, [36]), [0_i64; 0], "tagged as before");
        let tags = secret(&[(DEADLINE, "2030-03-01"), (NOTICE_DAYS, "60 30 20")]).tags;
        one.tags = tags;
        follow_tags(&mut one, day(37));
        let days = told(&mut one, 37..=70);
        assert_eq!(days, [40, 60], "what is past was told by the first notice");
        one.tags = secret(&[(DEADLINE, "2031-03-01")]).tags;
        follow_tags(&mut one, day(71));
        assert_eq!(one.expiry.map(|expiry| expiry.told), Some(None));
        one.tags = None;
        follow_tags(&mut one, day(72));
        assert_eq!(one.expiry, None);
    }

    #[test]
    fn a_tag_that_can_not_be_read_is_refused() {
        for value in
            ["2030-02-30", "soon", "", "2030-01-31 10:00", "2030-01-31T10:00:00", "1893456000"]
        {
            assert!(readable(DEADLINE, value).is_err(), "{value}");
        }
        for value in ["2030-01-31", "2030-01-31T10:00:00Z", "2030-01-31T10:00:00.5+02:00"] {
            assert!(readable(DEADLINE, value).is_ok(), "{value}");
        }
        assert_eq!(deadline("2030-01-01"), Some(Time(1_893_456_000_000)));
        assert_eq!(deadline("2030-01-01T02:00:00+02:00"), Some(Time(1_893_456_000_000)));
        for value in ["", "0", "-1", "3651", "x", "1;2", "1 2 3 4 5 6 7 8 9 10 11"] {
            assert!(readable(NOTICE_DAYS, value).is_err(), "{value}");
        }
        assert_eq!(days("30,7, 1"), Some(vec![30, 7, 1]));
        assert!(readable("expires", "soon").is_ok());
    }
}
