//! Grants: CreateGrant, ListGrants, ListRetirableGrants, RetireGrant, RevokeGrant, and what a grant
//! allows: <https://docs.aws.amazon.com/kms/latest/developerguide/grants.html>.

pub mod create;
pub mod end;
pub(super) mod held;
pub mod list;
mod terms;
pub(super) mod token;

use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;

/// Whether a text has the form of a grant's id: 64 hex digits.
fn is_grant_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Refuses a text that can be no grant's id.
fn check_grant_id(id: &str) -> Result<()> {
    if is_grant_id(id) {
        return Ok(());
    }
    Err(Error::new(Condition::InvalidGrantId, format!("Invalid grant ID '{id}'")))
}

/// AWS's answer that there is no such grant, or no more.
fn no_such_grant(id: &str) -> Error {
    Error::new(Condition::NotFound, format!("Grant ID '{id}' does not exist"))
}

/// The bounds of a principal's ARN.
fn check_principal(checks: &mut Checks, name: &str, arn: Option<&str>) {
    checks.length(name, arn, 1, 256);
    let fits = |text: &str| {
        let of_arn = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b);
        !text.is_empty() && text.bytes().all(of_arn)
    };
    checks.pattern(name, arn, "^[\\w+=,.@:/-]+$", fits);
}

/// The bounds of a service principal.
fn check_service(checks: &mut Checks, name: &str, service: Option<&str>) {
    checks.length(name, service, 1, 128);
    let fits = |text: &str| {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let part = |part: &str| !part.is_empty() && part.bytes().all(letter);
        text.split('.').count() >= 3 && text.split('.').all(part)
    };
    let pattern = "^([A-Za-z0-9\\-]+)\\.([A-Za-z0-9\\-]+)(\\.[A-Za-z0-9\\-]+)+$";
    checks.pattern(name, service, pattern, fits);
}

/// Refuses a service principal: there are no services of AWS's here that could use a grant, and one
/// who names one counts on it.
fn no_service(services: [&Option<String>; 2]) -> Result<()> {
    let Some(service) = services.into_iter().flatten().next() else { return Ok(()) };
    let text =
        format!("The service principal {service} is not supported: it makes no requests here.");
    Err(Error::new(Condition::Validation, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_lower_case_hex_digits() {
        assert!(check_grant_id(&"0a".repeat(32)).is_ok());
        for bad in ["", "0a", &"0A".repeat(32), &"0a".repeat(33), &"0g".repeat(32)] {
            let error = check_grant_id(bad).expect_err(bad);
            assert_eq!(error.condition, Condition::InvalidGrantId);
        }
    }

    #[test]
    fn service_principals_are_told_from_arns_and_refused() {
        let finding = |text: &str| {
            let mut checks = Checks::default();
            check_service(&mut checks, "granteeServicePrincipal", Some(text));
            checks.finish().is_err()
        };
        assert!(!finding("ec2.us-east-1.amazonaws.com") && !finding("ec2.amazonaws.com"));
        assert!(finding("amazonaws.com") && finding("a..b.c") && finding("a.b.c/d"));
        assert!(no_service([&None, &Some("ec2.amazonaws.com".to_owned())]).is_err());
        assert!(no_service([&None, &None]).is_ok());
    }
}
