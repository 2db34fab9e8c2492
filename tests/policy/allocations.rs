//! A decision without policy variables and conditions takes no memory.

use crate::scene::{caller, policy};
use allocation_counter::measure;
use serde_json::json;
use strongroom::policy::document::Kind;
use strongroom::policy::facts::NoFacts;
use strongroom::policy::{Decision, OfResource, Policies, Request, decide};

#[test]
fn a_decision_without_variables_and_conditions_allocates_nothing() {
    let document = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Deny", "NotAction": ["secretsmanager:*", "kms:*"], "Resource": "*" },
        { "Effect": "Deny", "Action": "*", "Resource": "arn:aws:iam::*:user/?da" },
        { "Effect": "Allow", "Action": ["secretsmanager:Get*", "secretsmanager:*Value"],
          "Resource": "arn:aws:secretsmanager:eu-*-1:111122223333:secret:db/*-??????" },
    ] });
    let own = json!({ "Statement": { "Effect": "Allow", "Principal": { "AWS": "111122223333" },
        "Action": "secretsmanager:*", "Resource": "*" } });
    let identity = [policy(&document, Kind::Identity)];
    let boundary = policy(&document, Kind::Managed);
    let own = policy(&own, Kind::Resource);
    let session = vec![policy(&document, Kind::Session)];
    let caller = caller("arn:aws:sts::111122223333:assumed-role/app/i-1", session);
    let request = Request {
        caller: &caller,
        action: "secretsmanager:GetSecretValue",
        resource: "arn:aws:secretsmanager:eu-central-1:111122223333:secret:db/prod-AbCdEf",
        owner: "111122223333",
        facts: &NoFacts,
    };
    let policies = Policies {
        identity: &identity,
        boundary: Some(&boundary),
        resource: OfResource::Adds(Some(&own)),
    };
    let mut allowed = false;
    let taken = measure(|| {
        allowed = matches!(decide(&request, &policies), Decision::Allow(_));
    });
    assert!(allowed);
    assert_eq!(taken.count_total, 0);
}
