//! What a request says of itself: the values of condition keys.

use std::borrow::Cow;

/// The value of a condition key in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values<'a> {
    /// A key of one value.
    One(Cow<'a, str>),
    /// A key of many values (`aws:TagKeys`), maybe none.
    Many(Vec<Cow<'a, str>>),
}

impl<'a> Values<'a> {
    /// A key of one value that is there already.
    pub fn one(value: &'a str) -> Self {
        Self::One(Cow::Borrowed(value))
    }

    /// A key of one value that was made for the question.
    pub fn made(value: impl Into<String>) -> Self {
        Self::One(Cow::Owned(value.into()))
    }

    /// `true` or `false`.
    pub fn truth(value: bool) -> Self {
        Self::One(Cow::Borrowed(if value { "true" } else { "false" }))
    }
}

/// A request's condition keys. They are asked for one by one, and only when a statement that
/// already fits action, resource and principal has a condition on them.
pub trait Facts {
    /// The value of `key`, which is in lower case throughout (`aws:sourceip`,
    /// `aws:resourcetag/team`, `kms:encryptioncontext:app`); none if the request does not have it.
    fn fact(&self, key: &str) -> Option<Values<'_>>;
}

/// No condition key at all.
pub struct NoFacts;

impl Facts for NoFacts {
    fn fact(&self, _: &str) -> Option<Values<'_>> {
        None
    }
}
