//! What is wrong with RotationRules.

use crate::ops::error::{Condition, Error};

/// What is wrong with RotationRules; all of it is AWS's InvalidParameterException.
///
/// Texts that end with a full stop are AWS's. No page of AWS's lists them: the first one stands in
/// <https://github.com/hashicorp/terraform-provider-aws/issues/33329>, the others are as
/// <https://github.com/badmintoncryer/cdk-preflight> quotes them. The rest are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// AutomaticallyAfterDays and ScheduleExpression.
    #[error("You cannot specify both rotation frequency and schedule expression together.")]
    Both,
    /// No member that says when.
    #[error("RotationRules needs AutomaticallyAfterDays or ScheduleExpression")]
    Neither,
    /// AutomaticallyAfterDays is out of its bounds.
    #[error("AutomaticallyAfterDays must be between 1 and 1000")]
    AfterDays,
    /// The ScheduleExpression can't be read, or no date fits it.
    #[error("Invalid schedule expression.")]
    Expression(#[from] Flaw),
    /// A rate in hours out of its bounds.
    #[error("Rate in hour should be least 4 and less than 24.")]
    RateInHours,
    /// A rate in days out of its bounds.
    #[error("Rate in day should be greater than 0 and less than 1000.")]
    RateInDays,
    /// A Duration that is none.
    #[error("Duration must be at least 1 hour, at most 24 hour.")]
    Duration,
    /// A window that reaches into the next one of a rate in hours.
    #[error("Duration cannot be greater than Rate in hour.")]
    LongerThanRate,
    /// A window that reaches into the next UTC day.
    #[error("Starting hour and duration must be within a day.")]
    PastMidnight,
    /// A window that reaches into the next one of a `cron` with several hours.
    #[error("the rotation window must not extend into the next rotation window")]
    Overlap,
}

/// Why an expression is refused: AWS's text for it doesn't say, the log does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Neither of the two forms, or too long, or with characters that no expression has.
    #[error("it is neither rate(...) nor cron(...)")]
    Form,
    /// What is in `rate(...)`.
    #[error("a rate is a number, a space and hour, hours, day or days")]
    Rate,
    /// The number of fields in `cron(...)`.
    #[error("cron has six fields")]
    Fields,
    /// A field with a value that it can't have.
    #[error("the field {0} of cron can't be read")]
    Field(&'static str),
    /// Minutes other than 0: windows open on the hour.
    #[error("the minutes of cron must be 0")]
    Minutes,
    /// A year: schedules that are more than a year apart are not supported.
    #[error("the year of cron must be *")]
    Year,
    /// Both days or neither.
    #[error("one of cron's day-of-month and day-of-week must be ?, and not both")]
    Days,
    /// Hours that are too close.
    #[error("the hours of cron must be at least 4 apart")]
    TooOften,
    /// No such date, as the 31st of February.
    #[error("no date ever fits it")]
    Never,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let error = Self::new(Condition::InvalidParameter, fault.to_string());
        match fault {
            Fault::Expression(flaw) => error.logged(flaw.to_string()),
            _ => error,
        }
    }
}
