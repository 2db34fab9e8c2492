//! Callers by their ARNs, condition keys from a map, decisions in words.

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use strongroom::clock::Time;
use strongroom::policy::document::{Kind, parse};
use strongroom::policy::{Caller, Decision, Facts, Policy, PrincipalKind, Session, Values};

/// A policy of a test.
pub(crate) fn policy(document: &Value, kind: Kind) -> Arc<Policy> {
    let text = document.to_string();
    let document = parse(&text, kind).unwrap_or_else(|e| panic!("{e}: {text}"));
    Arc::new(Policy::compile("a policy", document))
}

/// The caller with this ARN, under these session policies.
pub(crate) fn caller(arn: &str, policies: Vec<Arc<Policy>>) -> Caller {
    let account = arn.split(':').nth(4).expect("an account");
    let resource = arn.split(':').nth(5).expect("a resource");
    let name = resource.split('/').nth(1).unwrap_or_default();
    let (kind, issuer) = match resource.split('/').next() {
        Some("root") => (PrincipalKind::Root, None),
        Some("assumed-role") => (PrincipalKind::AssumedRole, Some("role")),
        Some("federated-user") => (PrincipalKind::User, Some("user")),
        Some("oidc-provider") => (PrincipalKind::WebIdentity, None),
        Some("trust-anchor") => (PrincipalKind::Certificate, None),
        _ => (PrincipalKind::User, None),
    };
    let session = issuer.map(|class| {
        Arc::new(Session {
            issuer_arn: format!("arn:aws:iam::{account}:{class}/{name}"),
            issuer_id: "AROAEXAMPLE".into(),
            name: "session".into(),
            policies,
            tags: Vec::new(),
            transitive: Vec::new(),
            issued: Time(0),
            expires: Time(i64::MAX),
            source_identity: None,
            provider: None,
            chained: false,
        })
    });
    Caller { kind, session, ..Caller::user(account, arn, "AIDAEXAMPLE") }
}

/// Condition keys of a test, by their names in lower case.
#[derive(Default)]
pub(crate) struct Context(BTreeMap<String, Vec<String>>, Vec<String>);

impl Context {
    /// From an object whose members are texts, or lists of them.
    pub(crate) fn new(object: &Value) -> Self {
        let mut context = Self::default();
        for (key, value) in object.as_object().into_iter().flatten() {
            let key = key.to_lowercase();
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            match value {
                Value::Array(all) => {
                    context.1.push(key.clone());
                    context.0.insert(key, all.iter().map(text).collect());
                }
                one => drop(context.0.insert(key, vec![text(one)])),
            }
        }
        context
    }
}

impl Facts for Context {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let values = self.0.get(key)?;
        match values.as_slice() {
            [one] if !self.1.iter().any(|many| many == key) => Some(Values::one(one)),
            many => Some(Values::Many(many.iter().map(|v| v.as_str().into()).collect())),
        }
    }
}

/// A decision as the tests write it.
pub(crate) fn words(decision: &Decision<'_>) -> String {
    let (what, source) = match decision {
        Decision::Allow(_) => return "allow".to_owned(),
        Decision::ExplicitDeny(reason) => ("explicit", reason.source),
        Decision::ImplicitDeny(source) => ("implicit", *source),
    };
    format!("{what} deny: {source:?}").to_lowercase()
}
