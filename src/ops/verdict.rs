//! What decided a request: how its audit record and its refusal tell of it.

use crate::json::Object;
use crate::policy::{Decision, Reason, Source};

/// What decided.
pub(super) enum Verdict<'a> {
    /// Policies.
    Policy(Decision<'a>),
    /// A grant, by its id.
    Grant(String),
}

impl Verdict<'_> {
    /// Why it refuses, in AWS's words, `{action}` standing for the action; none if it allows.
    pub(super) fn refusal(&self) -> Option<String> {
        match self {
            Self::Grant(_) | Self::Policy(Decision::Allow(_)) => None,
            Self::Policy(Decision::ExplicitDeny(Reason { source, .. })) => {
                let article = if *source == Source::Identity { "an" } else { "a" };
                Some(format!("with an explicit deny in {article} {}", source.words()))
            }
            Self::Policy(Decision::ImplicitDeny(source)) => {
                Some(format!("because no {} allows the {{action}} action", source.words()))
            }
        }
    }

    pub(super) fn write(&self, object: &mut Object<'_>) {
        let (effect, reason) = match self {
            Self::Grant(id) => {
                object.text("effect", "Allow").text("source", "grant").text("grant", id);
                return;
            }
            Self::Policy(Decision::Allow(reason)) => ("Allow", reason),
            Self::Policy(Decision::ExplicitDeny(reason)) => ("ExplicitDeny", reason),
            Self::Policy(Decision::ImplicitDeny(source)) => {
                object.text("effect", "ImplicitDeny").text("source", source.words());
                return;
            }
        };
        object.text("effect", effect).text("source", reason.source.words());
        let Some(policy) = reason.policy else { return };
        object.text("policy", &policy.name).raw("statement", &reason.statement.to_string());
        if let Some(sid) = policy.sid(reason.statement) {
            object.text("sid", sid);
        }
    }
}
