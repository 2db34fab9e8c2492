//! IAM: users, groups, roles, access keys, managed policies, as `aws iam` keeps them.
//!
//! Names differ by more than letter case, so they are found whatever the case. An answer shows a
//! policy document percent-encoded (RFC 3986), as AWS does.

pub mod access_keys;
pub mod account;
pub mod administrators;
pub mod attach;
pub mod boundary;
pub mod details;
mod documents;
pub mod entities;
mod entity;
pub mod groups;
pub mod inline;
pub mod list;
pub mod members;
pub mod name;
pub mod policies;
pub mod roles;
pub mod simulate;
pub mod tags;
pub mod users;
pub mod uses;
pub mod versions;

use super::Route;
use super::error::{Condition, Error};

/// What a quota allows an account to have (AWS's defaults).
pub mod quota {
    /// Users in an account.
    pub const USERS: i64 = 5000;
    /// Groups in an account.
    pub const GROUPS: i64 = 300;
    /// Roles in an account.
    pub const ROLES: i64 = 1000;
    /// Customer managed policies in an account.
    pub const POLICIES: i64 = 1500;
    /// Managed policies attached to one user, group or role.
    pub const ATTACHED: usize = 10;
    /// Groups that one user is in.
    pub const GROUPS_PER_USER: usize = 10;
    /// Versions of one managed policy.
    pub const VERSIONS: usize = 5;
    /// Access keys of one user.
    pub const ACCESS_KEYS: usize = 2;
    /// Tags on anything.
    pub const TAGS: usize = 50;
}

/// What an operation is called, at both doors.
#[derive(Clone, Copy)]
pub struct Called {
    name: &'static str,
    route: Route,
}

/// The name of an operation and its route: `called!("Attach", "User", "Policy")`.
macro_rules! called {
    ($($part:literal),+) => {
        $crate::ops::iam::Called {
            name: concat!($($part),+),
            route: $crate::ops::Route { method: "POST", path: concat!("/iam/", $($part),+) },
        }
    };
}
use called;

/// `POST /v1/iam/NAME`.
const fn route(path: &'static str) -> Route {
    Route { method: "POST", path }
}

fn no_such_entity(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Condition::NotFound, text)
}

fn conflict(text: &'static str) -> Error {
    Error::new(Condition::DeleteConflict, text)
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Condition::Validation, text)
}

/// AWS's text for a number that is reached.
fn exceeded(what: &str, most: impl std::fmt::Display) -> Error {
    Error::new(Condition::LimitExceeded, format!("Cannot exceed quota for {what}: {most}"))
}

/// A policy document as answers show it.
fn encoded(document: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(document, RESERVED).to_string()
}
