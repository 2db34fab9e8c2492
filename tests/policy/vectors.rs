//! AWS's documented examples: each vector is one request with the policies that speak to it, the
//! decision that the documentation names, and where it does.

use crate::scene::{Context, caller, policy, words};
use serde_json::Value;
use std::fs;
use std::path::Path;
use strongroom::policy::document::Kind;
use strongroom::policy::{OfResource, Policies, Request, decide};

fn vectors() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/policy");
    let files = fs::read_dir(folder).expect("the vectors").map(|entry| entry.expect("an entry"));
    let read = |path: &Path| -> Vec<Value> {
        let text = fs::read_to_string(path).expect("a readable file");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let named = |path: &Path| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        read(path).into_iter().map(move |case| (name.clone(), case)).collect::<Vec<_>>()
    };
    files.flat_map(|file| named(&file.path())).collect()
}

/// What is decided in one vector.
fn decided(case: &Value) -> String {
    let text =
        |member: &str| case[member].as_str().unwrap_or_else(|| panic!("no {member}: {case}"));
    let all = |member: &str, kind| -> Vec<_> {
        case[member].as_array().into_iter().flatten().map(|d| policy(d, kind)).collect()
    };
    let one = |member: &str, kind| case.get(member).map(|document| policy(document, kind));
    let caller = caller(text("caller"), all("session", Kind::Session));
    let identity = all("identity", Kind::Identity);
    let boundary = one("boundary", Kind::Managed);
    let (secret, key) = (one("secret", Kind::Resource), one("key", Kind::Key));
    let trust = one("trust", Kind::Trust);
    let context = Context::new(&case["context"]);
    let request = Request {
        caller: &caller,
        action: text("action"),
        resource: text("resource"),
        owner: text("owner"),
        facts: &context,
    };
    let resource = match key.as_deref().or(trust.as_deref()) {
        Some(policy) => OfResource::Rules(policy),
        None if case.get("none").is_some() => OfResource::None,
        None => OfResource::Adds(secret.as_deref()),
    };
    let policies = Policies { identity: &identity, boundary: boundary.as_deref(), resource };
    words(&decide(&request, &policies))
}

#[test]
fn decisions_are_those_that_aws_documents() {
    let vectors = vectors();
    assert!(vectors.len() >= 60, "only {} vectors", vectors.len());
    let wrong: Vec<String> = vectors
        .iter()
        .filter_map(|(file, case)| {
            let (expected, found) = (&case["expect"], decided(case));
            let source = case["source"].as_str().expect("a source");
            assert!(source.starts_with("https://docs.aws.amazon.com/"), "{source}");
            (*expected != *found).then(|| {
                format!("{file}: {}\n  {source}\n  expected {expected}, found {found}", case["why"])
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}
