//! Policy documents that requests bring: what IAM takes, and what it says to the rest.

use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::policy::document::{self, Document, Kind, Malformed, Version};

/// The service model's bounds of a policy document.
pub(super) fn check(checks: &mut Checks, member: &str, text: Option<&str>) {
    checks.length(member, text, 1, 131_072);
    let fits =
        |text: &str| text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{ff}'));
    let pattern = "[\\u0009\\u000A\\u000D\\u0020-\\u00FF]+";
    checks.pattern(member, text, pattern, fits);
}

/// The characters of a document that count against a quota: all but white space.
pub(super) fn size(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}

/// Reads a policy of an identity: a user's, a group's, a role's, a managed one.
///
/// # Errors
/// [`Condition::MalformedPolicy`].
pub(super) fn identity(text: &str) -> Result<Document> {
    let policy = document::parse(text, Kind::Identity).map_err(|why| malformed(&why))?;
    if policy.version != Version::V2012 {
        return Err(refused("Policy document must be version 2012-10-17 or greater."));
    }
    Ok(policy)
}

/// Reads a role's trust policy.
///
/// # Errors
/// [`Condition::MalformedPolicy`].
pub(super) fn trust(text: &str) -> Result<Document> {
    let policy = document::parse(text, Kind::Trust).map_err(|why| malformed(&why))?;
    let actions = policy.statements.iter().flat_map(|s| &s.actions.patterns);
    for action in actions {
        let service = action.split_once(':').map_or("sts", |(service, _)| service);
        if !service.eq_ignore_ascii_case("sts") {
            return Err(refused("AssumeRole policy may only specify STS AssumeRole actions."));
        }
    }
    Ok(policy)
}

fn refused(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Condition::MalformedPolicy, text)
}

fn malformed(why: &Malformed) -> Error {
    match why {
        Malformed::TooLong(most) => Error::new(
            Condition::LimitExceeded,
            format!("Cannot exceed quota for PolicySize: {most}"),
        ),
        Malformed::Syntax(why) => refused(format!("Syntax errors in policy: {why}")),
        Malformed::NoPrincipal => refused("Missing required field Principal"),
        Malformed::Principal(name) => {
            refused(format!("Invalid principal in policy: \"AWS\":\"{name}\""))
        }
        Malformed::ServicePrincipal(name) => {
            refused(format!("Invalid principal in policy: \"SERVICE\":\"{name}\""))
        }
    }
}
