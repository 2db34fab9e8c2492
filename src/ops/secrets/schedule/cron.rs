//! `cron(Minutes Hours Day-of-month Month Day-of-week Year)` in Secrets Manager's dialect:
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_schedule.html>.
//!
//! Beyond that page, and as lenient as it is silent: letter case does not count, a field may list
//! whatever it may hold, and hours may have `*`, lists and ranges as long as they are 4 hours apart
//! within a day (that a day's first hour may follow sooner on the last one of the day before, as
//! with `/7`, is taken from there being no rule against it). Ranges do not go round the end.

use super::fault::Flaw;
use super::field::{DATE, HOUR, MONTH, Set, WEEKDAY, bit, has, number};
use crate::clock::Time;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan as _};

/// How long a date may be in coming, in months: a fifth Monday in February needs a leap year that
/// begins on the right day, and where a century's last year is none, 40 years pass.
const MONTHS: usize = 40 * 12;
/// Hours between rotations, at least.
const APART: i64 = 4;

/// The hours at which windows open and the days on which they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cron {
    hours: Set,
    days: Days,
    months: Set,
}

impl Cron {
    /// Reads what is between the parentheses. Refused is, too, what no date ever fits.
    pub(super) fn parse(text: &str) -> Result<Self, Flaw> {
        let text = text.to_ascii_uppercase();
        let fields: Vec<&str> = text.split(' ').filter(|field| !field.is_empty()).collect();
        let [minutes, hours, dates, months, weekdays, year] = fields[..] else {
            return Err(Flaw::Fields);
        };
        if number(minutes) != Some(0) {
            return Err(Flaw::Minutes);
        }
        if year != "*" {
            return Err(Flaw::Year);
        }
        let hours = HOUR.list(hours).ok_or(Flaw::Field(HOUR.name))?;
        let months = MONTH.list(months).ok_or(Flaw::Field(MONTH.name))?;
        Self { hours, days: Days::parse(dates, weekdays)?, months }.checked()
    }

    fn checked(self) -> Result<Self, Flaw> {
        if self.gap().is_some_and(|gap| gap < APART) {
            return Err(Flaw::TooOften);
        }
        if !self.days.come_in(self.months) {
            return Err(Flaw::Never);
        }
        Ok(self)
    }

    /// The least number of hours between two of a day; none if there is one a day.
    pub(super) fn gap(&self) -> Option<i64> {
        (1..24).find(|gap| self.hours & (self.hours >> gap) != 0)
    }

    /// The last hour of a day at which a window opens.
    pub(super) fn last_hour(&self) -> i64 {
        i64::from(self.hours.checked_ilog2().unwrap_or(0))
    }

    /// The first opening after `after`; none after the year 9999.
    pub(super) fn next(&self, after: Time) -> Option<Time> {
        let after = Offset::UTC.to_datetime(Timestamp::from_millisecond(after.0).ok()?);
        let opens = match self.later_that_day(after) {
            Some(opens) => opens,
            None => {
                self.next_date(after.date().tomorrow().ok()?)?.at(self.first_hour(-1)?, 0, 0, 0)
            }
        };
        Some(Time(Offset::UTC.to_timestamp(opens).ok()?.as_millisecond()))
    }

    fn later_that_day(&self, after: DateTime) -> Option<DateTime> {
        let date = after.date();
        let hour = self.first_hour(after.hour()).filter(|_| self.on(date))?;
        Some(date.at(hour, 0, 0, 0))
    }

    /// The first hour after `hour`.
    fn first_hour(&self, hour: i8) -> Option<i8> {
        (hour + 1..24).find(|hour| has(self.hours, *hour))
    }

    fn on(&self, date: Date) -> bool {
        has(self.months, date.month()) && self.days.hold(date)
    }

    /// The first date from `from` on.
    fn next_date(&self, from: Date) -> Option<Date> {
        let mut month = from.first_of_month();
        for _ in 0..=MONTHS {
            let found = self.dates_of(month).find(|date| *date >= from);
            if found.is_some() {
                return found;
            }
            month = month.checked_add(1.month()).ok()?;
        }
        None
    }

    /// Its dates in a month.
    fn dates_of(&self, month: Date) -> impl Iterator<Item = Date> {
        let days = if has(self.months, month.month()) { month.days_in_month() } else { 0 };
        (1..=days)
            .filter_map(move |day| Date::new(month.year(), month.month(), day).ok())
            .filter(|date| self.days.hold(*date))
    }
}

/// Days of a month: those that any of the members names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Days {
    /// Days of the month, from 1.
    dates: Set,
    /// The last day of the month.
    last: bool,
    /// Days of the week, Sunday being 1.
    weekdays: Set,
    /// Days of the week that are the nth in their month, as [`nth`] numbers them.
    nth: Set,
    /// Days of the week that are the last in their month.
    last_weekdays: Set,
}

impl Days {
    /// Reads the two fields for days, of which one must be `?`.
    fn parse(dates: &str, weekdays: &str) -> Result<Self, Flaw> {
        let mut days = Self::default();
        let (field, read) = match (dates, weekdays) {
            ("?", "?") => return Err(Flaw::Days),
            (dates, "?") => (DATE, dates.split(',').try_for_each(|item| days.add_date(item))),
            ("?", items) => (WEEKDAY, items.split(',').try_for_each(|item| days.add_weekday(item))),
            _ => return Err(Flaw::Days),
        };
        read.map(|()| days).ok_or(Flaw::Field(field.name))
    }

    /// Adds an item of Day-of-month. `SUNL` stands there in AWS's table.
    fn add_date(&mut self, item: &str) -> Option<()> {
        if item == "L" {
            self.last = true;
        } else if let Some(day) = item.strip_suffix('L') {
            self.last_weekdays |= bit(WEEKDAY.named(day)?)?;
        } else {
            self.dates |= DATE.item(item)?;
        }
        Some(())
    }

    /// Adds an item of Day-of-week. `L` alone is the last day of the week.
    fn add_weekday(&mut self, item: &str) -> Option<()> {
        if item == "L" {
            self.weekdays |= WEEKDAY.item("SAT")?;
        } else if let Some(day) = item.strip_suffix('L') {
            self.last_weekdays |= bit(WEEKDAY.value(day)?)?;
        } else if let Some((day, n)) = item.split_once('#') {
            let n = number(n).filter(|n| (1..=5).contains(n))?;
            self.nth |= bit(nth(WEEKDAY.value(day)?, n))?;
        } else {
            self.weekdays |= WEEKDAY.item(item)?;
        }
        Some(())
    }

    /// Whether a date is among them.
    fn hold(&self, date: Date) -> bool {
        let (day, length) = (date.day(), date.days_in_month());
        let weekday = date.weekday().to_sunday_one_offset();
        has(self.dates, day)
            || has(self.weekdays, weekday)
            || has(self.nth, nth(weekday, (day + 6) / 7))
            || self.last && day == length
            || has(self.last_weekdays, weekday) && day + 7 > length
    }

    /// Whether a date among them comes in one of these months. Of all days only the 30th and 31st are
    /// ones that a month never has; whatever goes by weekdays comes in each month, in some year.
    fn come_in(&self, months: Set) -> bool {
        let by_weekday = self.weekdays | self.nth | self.last_weekdays;
        let longest = |month| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut dates =
            (1..=12).filter(|month| has(months, *month)).flat_map(|month| 1..=longest(month));
        self.last || by_weekday != 0 || dates.any(|date| has(self.dates, date))
    }
}

/// The number of the nth such weekday in a month: below 42, so that it goes into a [`Set`].
fn nth(weekday: i8, n: i8) -> i8 {
    (n - 1) * 7 + weekday
}
