//! Policy documents that requests bring: what IAM takes, and what it says to the rest.

use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::policy::document::{self, Document, Kind, Malformed};

/// The service model's bounds of a policy document.
pub(super) fn check(checks: &mut Checks, member: &str, text: Option<&str>) {
    checks.length(member, text, 1, 131_072);
    let fits =
        |text: &str| text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{ff}'));
    let pattern = "[\\u0009\\u000A\\u000D\\u0020-\\u00FF]+";
    checks.pattern(member, text, pattern, fits);
}

/// Refuses a text that is no policy of this kind.
///
/// # Errors
/// [`Condition::MalformedPolicy`], [`Condition::LimitExceeded`].
pub(super) fn sound(text: &str, kind: Kind) -> Result<Document> {
    document::parse(text, kind).map_err(|why| refusal(&why, kind))
}

/// AWS's answer to a text that is no policy.
pub(super) fn refusal(why: &Malformed, kind: Kind) -> Error {
    let condition = match why {
        Malformed::TooLong(_) => Condition::LimitExceeded,
        _ => Condition::MalformedPolicy,
    };
    Error::new(condition, why.aws_text(kind))
}
