//! When a secret rotates: RotationRules, and the windows that follow from them.
//!
//! A rotation falls into a window, which opens on the hour and closes no later than the end of its
//! UTC day. Everything here is a pure function of moments that are handed in, in UTC.
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_schedule.html>,
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_RotationRulesType.html>.

mod cron;
mod fault;
mod field;
#[cfg(test)]
mod tests;
mod window;

pub use fault::{Fault, Flaw};
pub use window::Window;

use crate::clock::{DAY, Time};
use crate::ops::shape::Checks;
use cron::Cron;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Milliseconds in an hour.
const HOUR: i64 = 3_600_000;
/// Hours in a UTC day: the longest window.
const HOURS: i64 = 24;
/// Characters in a ScheduleExpression, at most.
const EXPRESSION: usize = 256;
/// Days that AutomaticallyAfterDays may say, at most.
const AFTER_DAYS: i64 = 1000;
const EXPRESSION_PATTERN: &str = r"[0-9A-Za-z\(\)#\?\*\-\/, ]+";
const DURATION_PATTERN: &str = "[0-9h]+";

/// RotationRules as they stand in a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct RotationRules {
    /// Days between rotations, 1 to 1000. Not beside a ScheduleExpression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatically_after_days: Option<i64>,
    /// How long a window is: `1h` to `24h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// `rate(...)` or `cron(...)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_expression: Option<String>,
}

impl RotationRules {
    /// Checks them against the service model; whether they make a schedule, [`Schedule::of`] says.
    pub fn check(&self, checks: &mut Checks) {
        let days = self.automatically_after_days;
        checks.range("rotationRules.automaticallyAfterDays", days, 1, AFTER_DAYS);
        let (at, duration) = ("rotationRules.duration", self.duration.as_deref());
        checks.length(at, duration, 2, 3);
        checks.pattern(at, duration, DURATION_PATTERN, is_duration);
        let (at, text) = ("rotationRules.scheduleExpression", self.schedule_expression.as_deref());
        checks.length(at, text, 1, EXPRESSION);
        checks.pattern(at, text, EXPRESSION_PATTERN, is_expression);
    }
}

fn is_duration(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'h')
}

fn is_expression(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"()#?*-/, ".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// When a secret rotates, read from its [`RotationRules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    kind: Kind,
    /// How long a window is, in hours; it ends with its day all the same.
    length: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// So many days after the last rotation.
    Days(i64),
    /// Every so many hours, counted from a midnight.
    Hours(i64),
    Cron(Cron),
}

impl Schedule {
    /// Reads a schedule. Refused are rules that say nothing or two things, what is no expression,
    /// an expression that no date fits, and a window that reaches into the next one or the next day.
    pub fn of(rules: &RotationRules) -> Result<Self, Fault> {
        let kind = match (rules.automatically_after_days, &rules.schedule_expression) {
            (Some(_), Some(_)) => return Err(Fault::Both),
            (None, None) => return Err(Fault::Neither),
            (Some(days), None) if (1..=AFTER_DAYS).contains(&days) => Kind::Days(days),
            (Some(_), None) => return Err(Fault::AfterDays),
            (None, Some(text)) => expression(text)?,
        };
        let given = rules.duration.as_deref().map(hours).transpose()?;
        if let Some(hours) = given {
            kind.check_length(hours)?;
        }
        Ok(Self { kind, length: given.unwrap_or_else(|| kind.usual_length()) })
    }

    /// The first window that opens after both `after` and the last rotation. None in the years after
    /// 9999, which the calendar does not have.
    ///
    /// Days count from the last rotation, a change of the value by hand included, or from `created`,
    /// when the schedule was given, if there has been none. Hours count from the midnight at which
    /// the day of `created` began, from one day into the next; AWS does not say from where.
    ///
    /// A window that was missed is passed over. Whoever wants to know of it asks with the last
    /// rotation as `after`, or with `created` if the schedule is newer than that.
    pub fn next_window(
        &self,
        after: Time,
        last_rotated: Option<Time>,
        created: Time,
    ) -> Option<Window> {
        let after = last_rotated.map_or(after, |last| last.max(after));
        let opens = match &self.kind {
            Kind::Days(days) => {
                let first = last_rotated.unwrap_or(created).day();
                step_past(first.checked_mul(DAY)?, days * DAY, after)?
            }
            Kind::Hours(hours) => step_past(created.day().checked_mul(DAY)?, hours * HOUR, after)?,
            Kind::Cron(cron) => cron.next(after)?,
        };
        Window::open(opens, self.length)
    }

    /// What DescribeSecret and ListSecrets show as AutomaticallyAfterDays.
    ///
    /// AWS says no more than that it is calculated from the schedule after each rotation; its example
    /// has 14 for the 1st and the 15th of the month. So it is the days between two rotations or, with
    /// `cron`, from the last rotation to the next window. For a rate in hours, and where that is less
    /// than a day or more than the member may say, nothing is shown.
    /// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DescribeSecret.html>
    pub fn days_between(&self, last_rotated: Option<Time>) -> Option<i64> {
        match &self.kind {
            Kind::Days(days) => Some(*days),
            Kind::Hours(_) => None,
            Kind::Cron(cron) => {
                let last = last_rotated?;
                let days = cron.next(last)?.day() - last.day();
                (1..=AFTER_DAYS).contains(&days).then_some(days)
            }
        }
    }
}

impl Kind {
    /// A window's length in hours if no Duration is given: one hour for a schedule in hours, for one
    /// in days what is left of the day.
    fn usual_length(&self) -> i64 {
        match self {
            Self::Hours(_) => 1,
            Self::Cron(cron) if cron.gap().is_some() => 1,
            Self::Days(_) | Self::Cron(_) => HOURS,
        }
    }

    /// Refuses a window that reaches into the next one, or from a known hour into the next day. (A
    /// rate in hours comes to any hour: there the window is cut off at midnight.)
    fn check_length(&self, hours: i64) -> Result<(), Fault> {
        match self {
            Self::Hours(every) if hours > *every => Err(Fault::LongerThanRate),
            Self::Cron(cron) if cron.last_hour() + hours > HOURS => Err(Fault::PastMidnight),
            Self::Cron(cron) if cron.gap().is_some_and(|gap| hours > gap) => Err(Fault::Overlap),
            _ => Ok(()),
        }
    }
}

/// The first of `from`, `from + step` and so on, to both sides, that comes after `after`.
fn step_past(from: i64, step: i64, after: Time) -> Option<Time> {
    let steps = after.0.checked_sub(from)?.div_euclid(step).checked_add(1)?;
    from.checked_add(steps.checked_mul(step)?).map(Time)
}

/// Reads a ScheduleExpression.
fn expression(text: &str) -> Result<Kind, Fault> {
    if text.len() > EXPRESSION || !is_expression(text) {
        return Err(Flaw::Form.into());
    }
    let inside = |name| text.strip_prefix(name).and_then(|rest| rest.strip_suffix(')'));
    if let Some(text) = inside("rate(") {
        return rate(text);
    }
    let fields = inside("cron(").ok_or(Flaw::Form)?;
    Ok(Kind::Cron(Cron::parse(fields)?))
}

/// Reads what is between the parentheses of `rate(...)`: 4 to 23 hours, or 1 to 999 days.
fn rate(text: &str) -> Result<Kind, Fault> {
    let (number, unit) = text.split_once(' ').ok_or(Flaw::Rate)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Flaw::Rate.into());
    }
    // A number that is too long to be read is out of bounds like any other that is too large.
    let number = number.parse().unwrap_or(i64::MAX);
    match unit {
        "hour" | "hours" if (4..HOURS).contains(&number) => Ok(Kind::Hours(number)),
        "hour" | "hours" => Err(Fault::RateInHours),
        "day" | "days" if (1..1000).contains(&number) => Ok(Kind::Days(number)),
        "day" | "days" => Err(Fault::RateInDays),
        _ => Err(Flaw::Rate.into()),
    }
}

/// Reads a Duration: 1 to 24 hours.
fn hours(text: &str) -> Result<i64, Fault> {
    let number = text.strip_suffix('h').and_then(field::number).ok_or(Fault::Duration)?;
    let hours = i64::from(number);
    if (1..=HOURS).contains(&hours) { Ok(hours) } else { Err(Fault::Duration) }
}
