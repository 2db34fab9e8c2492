//! Statements, made ready once: what decisions read instead of a document.

use super::document::{self, Document, Effect, Patterns, Principals, Version};
use super::facts::Facts;
use super::operators::Condition;
use super::pattern::{Pattern, Reading};

/// A statement, ready to be asked.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    pub(super) principals: Option<Principals>,
    actions: Actions,
    resources: Resources,
    conditions: Box<[Condition]>,
}

/// Which actions a statement speaks of.
#[derive(Debug)]
struct Actions {
    negated: bool,
    /// In lower case.
    patterns: Box<[Pattern]>,
    /// One bit for each service that it may speak of.
    services: u64,
}

/// Which resources a statement speaks of.
#[derive(Debug)]
struct Resources {
    negated: bool,
    patterns: Box<[Pattern]>,
}

/// An action as decisions compare it: in lower case, with the bit of its service.
pub(super) struct Action<'a> {
    pub(super) name: &'a str,
    pub(super) service: u64,
}

/// The bit that stands for a service. Two services may share one: it only says where to look.
pub(super) fn service_bit(action: &str) -> u64 {
    let service = action.split(':').next().unwrap_or_default();
    // FNV-1a, <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>.
    let hash = service.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    1 << (hash % 64)
}

/// Makes the statements of a document ready.
pub(super) fn statements(document: &Document) -> Box<[Statement]> {
    let version = document.version;
    document.statements.iter().map(|statement| Statement::new(statement, version)).collect()
}

/// The services that statements may speak of.
pub(super) fn services(statements: &[Statement]) -> u64 {
    statements.iter().fold(0, |all, statement| all | statement.actions.services)
}

impl Statement {
    fn new(written: &document::Statement, version: Version) -> Self {
        let conditions = written.conditions.iter();
        Self {
            effect: written.effect,
            principals: written.principals.clone(),
            actions: Actions::new(&written.actions),
            resources: Resources::new(&written.resources, version),
            conditions: conditions.map(|c| Condition::new(c, version)).collect(),
        }
    }

    /// Whether it speaks of an action on a resource, its principals and conditions aside.
    pub(super) fn speaks_of(&self, action: &Action<'_>, resource: &str, facts: &dyn Facts) -> bool {
        self.actions.services & action.service != 0
            && self.actions.cover(action.name)
            && self.resources.cover(resource, facts)
    }

    /// Whether its conditions hold.
    pub(super) fn applies(&self, facts: &dyn Facts) -> bool {
        self.conditions.iter().all(|condition| condition.holds(facts))
    }
}

impl Actions {
    fn new(written: &Patterns) -> Self {
        let patterns: Box<[Pattern]> = written
            .patterns
            .iter()
            // Policy variables mean nothing here.
            .map(|p| Pattern::new(&p.to_ascii_lowercase(), Reading::Like, Version::V2008))
            .collect();
        let bit = |text: &String| if text.contains(':') { service_bit(text) } else { u64::MAX };
        let services = match (written.negated, written.patterns.is_empty()) {
            (_, true) => 0,
            (true, false) => u64::MAX,
            (false, false) => written.patterns.iter().fold(0, |all, text| all | bit(text)),
        };
        Self { negated: written.negated, patterns, services }
    }

    fn cover(&self, action: &str) -> bool {
        let hit = |pattern: &Pattern| pattern.fits(action, &super::facts::NoFacts) == Some(true);
        self.negated != self.patterns.iter().any(hit)
    }
}

impl Resources {
    fn new(written: &Patterns, version: Version) -> Self {
        let pattern = |text: &String| Pattern::new(text, Reading::Resource, version);
        Self { negated: written.negated, patterns: written.patterns.iter().map(pattern).collect() }
    }

    /// A pattern with a variable that has no value fits nothing; where all but the patterns are
    /// meant, nothing is meant then.
    fn cover(&self, resource: &str, facts: &dyn Facts) -> bool {
        let (mut hit, mut unknown) = (false, false);
        for pattern in &self.patterns {
            match pattern.fits(resource, facts) {
                Some(fits) => hit |= fits,
                None => unknown = true,
            }
            if hit {
                break;
            }
        }
        match self.negated {
            false => hit,
            true => !self.patterns.is_empty() && !hit && !unknown,
        }
    }
}
