//! Whatever stands in a policy, it is read or refused, and what is read decides without a panic;
//! a policy that allows nothing never lets a request pass.
//!
//! Input: lines `action`, `resource`, the value of every condition key; the rest is the document.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use strongroom::policy::document::{Effect, Kind, parse};
use strongroom::policy::{
    Caller, Decision, Facts, OfResource, Policies, Policy, Request, Values, decide, reach,
};

/// Condition keys that all have the same value; those of tags have it twice.
struct Same<'a>(&'a str);

impl Facts for Same<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        match key {
            "aws:tagkeys" => Some(Values::Many(vec![self.0.into(), self.0.into()])),
            key if key.ends_with("absent") => None,
            _ => Some(Values::one(self.0)),
        }
    }
}

const KINDS: [Kind; 6] = [
    Kind::Identity,
    Kind::Managed,
    Kind::Session,
    Kind::Trust,
    Kind::Resource,
    Kind::Key,
];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(4, '\n');
    let mut next = || parts.next().unwrap_or_default();
    let (action, resource, facts, text) = (next(), next(), Same(next()), next());
    let arn = "arn:aws:iam::111122223333:user/ada";
    let caller = Caller::user("111122223333", arn, "AIDAEXAMPLE");
    let request =
        Request { caller: &caller, action, resource, owner: "111122223333", facts: &facts };
    for kind in KINDS {
        let document = match parse(text, kind) {
            Ok(document) => document,
            Err(why) => {
                assert!(!why.aws_text(kind).is_empty());
                continue;
            }
        };
        let allows = document.statements.iter().any(|s| s.effect == Effect::Allow);
        let policy = Arc::new(Policy::compile("fuzzed", document));
        drop(reach::findings(&policy, &request));
        let identity = std::slice::from_ref(&policy);
        for (identity, resource) in [
            (identity, OfResource::None),
            (&[][..], OfResource::Adds(Some(&policy))),
            (&[][..], OfResource::Rules(&policy)),
        ] {
            let policies = Policies { identity, boundary: Some(&policy), resource };
            let decision = decide(&request, &policies);
            assert!(allows || !matches!(decision, Decision::Allow(_)));
        }
    }
});
