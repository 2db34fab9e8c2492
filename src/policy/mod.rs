//! May they: pure functions, no I/O, no clock.
//!
//! [`document`] reads a policy, [`Policy`] is what is made of it once, [`decide()`] asks all policies
//! that speak to a request. Explicit denials win; nothing but [`Decision::Allow`] lets a request pass.

pub mod caller;
mod comparands;
mod compiled;
mod decide;
pub mod document;
pub mod facts;
pub mod glob;
mod grammar;
pub mod malformed;
pub mod managed;
mod operators;
mod pattern;
pub mod quotas;
pub mod reach;
mod written;

pub use caller::{Caller, PrincipalKind, Session, Vouched};
pub use decide::decide;
pub use facts::{Facts, Values};

use document::Document;
use std::sync::Arc;

/// A policy, compiled.
#[derive(Debug)]
pub struct Policy {
    /// What decisions call it: its ARN, or the name of an inline policy.
    pub name: String,
    document: Document,
    statements: Box<[compiled::Statement]>,
    /// The services that it may speak of, one bit each.
    services: u64,
}

impl Policy {
    /// Compiles a document.
    pub fn compile(name: impl Into<String>, document: Document) -> Self {
        let statements = compiled::statements(&document);
        let services = compiled::services(&statements);
        Self { name: name.into(), document, statements, services }
    }

    /// What the writer of a statement called it.
    pub fn sid(&self, statement: usize) -> Option<&str> {
        self.document.statements.get(statement)?.sid.as_deref()
    }

    /// The document that it was made of.
    pub fn document(&self) -> &Document {
        &self.document
    }
}

/// What is to be done, by whom, to what.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Who calls.
    pub caller: &'a Caller,
    /// The IAM action, `kms:Decrypt`.
    pub action: &'a str,
    /// The ARN of the resource; `*` where an action has none.
    pub resource: &'a str,
    /// The account that owns the resource; empty if nobody does.
    pub owner: &'a str,
    /// Condition keys.
    pub facts: &'a dyn Facts,
}

/// The policies that speak to a request, session policies aside: those are the caller's.
#[derive(Clone, Copy)]
pub struct Policies<'a> {
    /// The caller's identity policies: inline, attached, those of groups.
    pub identity: &'a [Arc<Policy>],
    /// The caller's permissions boundary.
    pub boundary: Option<&'a Policy>,
    /// The resource's own policy.
    pub resource: OfResource<'a>,
}

/// What a resource's own policy counts for.
#[derive(Clone, Copy)]
pub enum OfResource<'a> {
    /// It can't have one: identity policies decide, in the own account alone.
    None,
    /// It adds to identity policies (secrets); across accounts both sides must allow.
    Adds(Option<&'a Policy>),
    /// It has the last word (KMS keys, roles' trust policies): identity policies count only as far
    /// as it lets the caller's account.
    Rules(&'a Policy),
}

/// The kinds of policy, in the words of AWS's refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An identity-based policy.
    Identity,
    /// A resource-based policy, a key policy or a trust policy.
    Resource,
    /// A permissions boundary.
    Boundary,
    /// A session policy.
    Session,
}

impl Source {
    /// What AWS calls it in a refusal.
    pub fn words(self) -> &'static str {
        match self {
            Self::Identity => "identity-based policy",
            Self::Resource => "resource-based policy",
            Self::Boundary => "permissions boundary",
            Self::Session => "session policy",
        }
    }
}

/// The statement that decided.
#[derive(Clone, Copy, Debug)]
pub struct Reason<'a> {
    /// Which kind of policy it stands in.
    pub source: Source,
    /// The policy; none where the account's root needs none.
    pub policy: Option<&'a Policy>,
    /// Which statement of it, from 0.
    pub statement: usize,
}

/// The answer, with its reason.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// Allowed, by this statement.
    Allow(Reason<'a>),
    /// Forbidden by this statement.
    ExplicitDeny(Reason<'a>),
    /// Nothing of this kind allows it.
    ImplicitDeny(Source),
}
