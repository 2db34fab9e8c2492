//! Decisions on random policies and requests, against the evaluator of the crate iam-rs.
//!
//! Where the two differ, [`DIFFERENCES`] says who is right and where AWS says so; random cases
//! with such a trait are not compared, and each of them is shown to differ still.

use crate::scene::{Context, caller, policy, words};
use iam_rs::{
    Arn, ContextValue, Decision, IAMPolicy, IAMRequest, Principal, PrincipalId, evaluate_policy,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};
use strongroom::policy::document::{Kind, parse};
use strongroom::policy::{OfResource, Policies, Request, decide};

const USER: &str = "arn:aws:iam::111122223333:user/ada";

/// What we decide: `allow`, `explicit deny: identity` or `implicit deny: identity`.
fn ours(document: &Value, action: &str, resource: &str, context: &Value) -> String {
    let (caller, context) = (caller(USER, Vec::new()), Context::new(context));
    let request =
        Request { caller: &caller, action, resource, owner: "111122223333", facts: &context };
    let identity = [policy(document, Kind::Identity)];
    let policies = Policies { identity: &identity, boundary: None, resource: OfResource::None };
    words(&decide(&request, &policies))
}

/// What iam-rs decides, in the same words; its refusal to decide where there is one.
fn theirs(document: &Value, action: &str, resource: &str, context: &Value) -> String {
    let policy: IAMPolicy = match serde_json::from_value(document.clone()) {
        Ok(policy) => policy,
        Err(error) => return format!("unread: {error}"),
    };
    let mut known = iam_rs::Context::new();
    for (key, value) in context.as_object().into_iter().flatten() {
        known.insert(key.clone(), typed(value));
    }
    let principal = Principal::Aws(PrincipalId::String(USER.to_owned()));
    let arn = Arn::parse(resource).expect("an ARN");
    let request = IAMRequest::new_with_context(principal, action, arn, known);
    match evaluate_policy(&policy, &request) {
        Ok(Decision::Allow) => "allow".to_owned(),
        Ok(Decision::Deny) => "explicit deny: identity".to_owned(),
        Ok(Decision::NotApplicable) => "implicit deny: identity".to_owned(),
        Err(error) => format!("undecided: {error}"),
    }
}

fn typed(value: &Value) -> ContextValue {
    match value {
        Value::Array(all) => ContextValue::StringList(
            all.iter().filter_map(|v| v.as_str()).map(str::to_owned).collect(),
        ),
        Value::String(text) => match text.as_str() {
            "true" => ContextValue::Boolean(true),
            "false" => ContextValue::Boolean(false),
            text => ContextValue::String(text.to_owned()),
        },
        other => panic!("a context value {other}"),
    }
}

const ACTIONS: [&str; 5] = [
    "secretsmanager:GetSecretValue",
    "secretsmanager:PutSecretValue",
    "secretsmanager:DescribeSecret",
    "kms:Decrypt",
    "iam:GetUser",
];

const ACTION_PATTERNS: [&str; 9] = [
    "*",
    "secretsmanager:*",
    "secretsmanager:Get*",
    "SecretsManager:getSECRETvalue",
    "secretsmanager:???SecretValue",
    "secretsmanager:*Secret*",
    "kms:Decrypt",
    "kms:De*t",
    "iam:Get?ser",
];

const RESOURCES: [&str; 6] = [
    "arn:aws:secretsmanager:eu-central-1:111122223333:secret:db/prod-AbCdEf",
    "arn:aws:secretsmanager:us-east-1:111122223333:secret:db/test-AbCdEf",
    "arn:aws:secretsmanager:eu-central-1:444455556666:secret:home/ada/x-AbCdEf",
    "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "arn:aws:kms:eu-central-1:111122223333:alias/app",
    "arn:aws:iam::111122223333:user/team/ada",
];

const RESOURCE_PATTERNS: [&str; 12] = [
    "*",
    "arn:aws:secretsmanager:*:*:secret:*",
    "arn:aws:secretsmanager:eu-*-1:111122223333:secret:db/*",
    "arn:aws:secretsmanager:*:111122223333:secret:db/prod-??????",
    "arn:aws:secretsmanager:*:*:secret:home/${aws:username}/*",
    "arn:aws:secretsmanager:*:*:secret:home/${aws:userid, 'ada'}/*",
    "arn:aws:kms:*:*:key/*",
    "arn:aws:kms:eu-central-1:111122223333:alias/app",
    "arn:aws:kms:eu-central-1:111122223333:*",
    "arn:aws:iam::111122223333:user/*/ada",
    "arn:aws:iam::111122223333:user/team/ad?",
    "arn:aws:iam::*:user/${aws:username}",
];

type Texts = &'static [&'static str];

/// Condition keys, the values that requests have, the operators that suit, and those that policies
/// compare with.
const KEYS: [(&str, Texts, Texts, Texts); 6] = [
    (
        "aws:username",
        &["ada", "Ada", "eve", ""],
        &[
            "StringEquals",
            "StringNotEquals",
            "StringEqualsIgnoreCase",
            "StringNotEqualsIgnoreCase",
            "StringLike",
            "StringNotLike",
        ],
        &["ada", "ADA", "a*", "?d?", "*", "eve"],
    ),
    (
        "secretsmanager:recoverywindowindays",
        &["7", "30", "7.0", "-1"],
        &[
            "NumericEquals",
            "NumericNotEquals",
            "NumericLessThan",
            "NumericLessThanEquals",
            "NumericGreaterThan",
            "NumericGreaterThanEquals",
        ],
        &["7", "10", "30", "7.5"],
    ),
    (
        "aws:currenttime",
        &["2026-01-31T12:00:00Z", "2026-06-01T00:00:00+02:00", "1769860800"],
        &[
            "DateEquals",
            "DateNotEquals",
            "DateLessThan",
            "DateLessThanEquals",
            "DateGreaterThan",
            "DateGreaterThanEquals",
        ],
        &["2026-01-31T12:00:00Z", "1769860800", "2026-05-31T22:00:00Z", "2027-01-01T00:00:00Z"],
    ),
    ("aws:securetransport", &["true", "false"], &["Bool"], &["true", "false"]),
    (
        "aws:sourceip",
        &["10.1.2.3", "203.0.113.7", "2001:db8::1"],
        &["IpAddress", "NotIpAddress"],
        &["10.0.0.0/8", "203.0.113.7", "203.0.113.0/24", "2001:db8::/32", "0.0.0.0/0"],
    ),
    (
        "aws:principalarn",
        &["arn:aws:iam::111122223333:user/ada", "arn:aws:iam::111122223333:role/a/b"],
        &["ArnLike", "ArnNotLike", "ArnEquals", "ArnNotEquals"],
        &[
            "arn:aws:iam::111122223333:user/ada",
            "arn:aws:iam::*:role/*",
            "arn:aws:iam::111122223333:user/?da",
            "arn:*:iam::1111*:*",
        ],
    ),
];

const TAG_KEYS: &str = "aws:tagkeys";
const SETS: [&str; 2] = ["ForAllValues:", "ForAnyValue:"];
const STRINGS: [&str; 4] = ["StringEquals", "StringNotEquals", "StringLike", "StringNotLike"];

fn some(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Value> {
    subsequence(of, 1..=most).prop_map(|texts| json!(texts))
}

/// One operator with one key, as a pair.
fn condition() -> impl Strategy<Value = (String, Value)> {
    let single = (select(&KEYS[..]), any::<bool>(), any::<bool>()).prop_flat_map(
        |((key, _, operators, values), if_exists, null)| {
            let operator = select(operators).prop_map(move |operator| match (null, if_exists) {
                (true, _) => "Null".to_owned(),
                (false, true) => format!("{operator}IfExists"),
                (false, false) => operator.to_owned(),
            });
            let values: &'static [&'static str] = if null { &["true", "false"] } else { values };
            let most = if null { 1 } else { values.len().min(3) };
            (operator, some(values, most)).prop_map(move |(o, v)| (o, json!({ key: v })))
        },
    );
    let set = (select(&SETS[..]), select(&STRINGS[..]), some(&["a", "b", "c*"], 2)).prop_map(
        |(set, operator, values)| (format!("{set}{operator}"), json!({ TAG_KEYS: values })),
    );
    prop_oneof![3 => single, 1 => set]
}

fn statement() -> impl Strategy<Value = Value> {
    let parts = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        some(&ACTION_PATTERNS, 3),
        some(&RESOURCE_PATTERNS, 3),
        proptest::collection::vec(condition(), 0..3),
    );
    parts.prop_map(|(deny, not_action, not_resource, actions, resources, conditions)| {
        let mut statement = Map::new();
        statement.insert("Effect".into(), json!(if deny { "Deny" } else { "Allow" }));
        statement.insert(if not_action { "NotAction" } else { "Action" }.into(), actions);
        statement.insert(if not_resource { "NotResource" } else { "Resource" }.into(), resources);
        if !conditions.is_empty() {
            statement.insert("Condition".into(), Value::Object(conditions.into_iter().collect()));
        }
        Value::Object(statement)
    })
}

fn document() -> impl Strategy<Value = Value> {
    proptest::collection::vec(statement(), 1..4)
        .prop_map(|statements| json!({ "Version": "2012-10-17", "Statement": statements }))
}

fn context() -> impl Strategy<Value = Value> {
    let single = KEYS.map(|(key, values, ..)| {
        proptest::option::of(select(values)).prop_map(move |value| value.map(|v| (key, json!(v))))
    });
    let tags = proptest::option::of(subsequence(&["a", "b", "c1"], 0..=3));
    let tags = tags.prop_map(|tags| tags.map(|tags| (TAG_KEYS, json!(tags))));
    (single, tags).prop_map(|(single, tags)| {
        let all = single.into_iter().chain([tags]).flatten();
        Value::Object(all.map(|(key, value)| (key.to_owned(), value)).collect())
    })
}

/// Where the two evaluators differ, by one example. In each of them AWS's documentation is on our
/// side.
struct Difference {
    about: &'static str,
    /// Where AWS says so.
    source: &'static str,
    /// What a statement that allows everything has besides, or in place of it.
    statement: &'static str,
    context: &'static str,
    ours: &'static str,
    theirs: &'static str,
}

const RESOURCE: &str = RESOURCES[0];
const YES: &str = "allow";
const NO: &str = "implicit deny: identity";
const OPERATORS: &str = "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html";
const VARIABLES: &str =
    "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html";

const DIFFERENCES: [Difference; 6] = [
    Difference {
        about: "A variable without a value makes the statement void; theirs is the empty text.",
        source: VARIABLES,
        statement: r#"{"NotResource": "arn:aws:iam::*:user/${aws:username}"}"#,
        context: "{}",
        ours: NO,
        theirs: YES,
    },
    Difference {
        about: "A variable's value is no pattern.",
        source: VARIABLES,
        statement: r#"{"Resource": "arn:aws:secretsmanager:*:*:secret:${aws:username}/*"}"#,
        context: r#"{"aws:username": "d*"}"#,
        ours: NO,
        theirs: YES,
    },
    Difference {
        about: "ArnEquals is ArnLike.",
        source: OPERATORS,
        statement: r#"{"Condition": {"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::*:user/ada"}}}"#,
        context: r#"{"aws:PrincipalArn": "arn:aws:iam::111122223333:user/ada"}"#,
        ours: YES,
        theirs: NO,
    },
    Difference {
        about: "ArnLike compares part by part.",
        source: OPERATORS,
        statement: r#"{"Condition": {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam:*:user/ada"}}}"#,
        context: r#"{"aws:PrincipalArn": "arn:aws:iam::111122223333:user/ada"}"#,
        ours: NO,
        theirs: YES,
    },
    Difference {
        about: "Base64 knows letter case.",
        source: OPERATORS,
        statement: r#"{"Condition": {"BinaryEquals": {"a:b": "QUJD"}}}"#,
        context: r#"{"a:b": "qujd"}"#,
        ours: NO,
        theirs: YES,
    },
    Difference {
        about: "A set operator may end in IfExists.",
        source: OPERATORS,
        statement: r#"{"Condition": {"ForAnyValue:StringEqualsIfExists": {"aws:TagKeys": "a"}}}"#,
        context: "{}",
        ours: YES,
        theirs: "unread",
    },
];

#[test]
fn where_the_two_differ_is_known() {
    for difference in &DIFFERENCES {
        let Difference { about, source, ours: o, theirs: t, .. } = difference;
        let mut statement = json!({ "Effect": "Allow", "Action": "*", "Resource": "*" });
        let members: Value = serde_json::from_str(difference.statement).expect(about);
        let context: Value = serde_json::from_str(difference.context).expect(about);
        let object = statement.as_object_mut().expect("an object");
        if members.get("NotResource").is_some() {
            object.remove("Resource");
        }
        object.extend(members.as_object().expect(about).clone());
        let document = json!({ "Version": "2012-10-17", "Statement": statement });
        let found = ours(&document, ACTIONS[0], RESOURCE, &context);
        assert_eq!(found, *o, "{about} {source}");
        let found = theirs(&document, ACTIONS[0], RESOURCE, &context);
        assert!(found.starts_with(t), "theirs: {found}; {about}");
    }
}

/// Whether a condition has one of these traits.
fn differs_in_condition(operator: &str, values: &Value) -> bool {
    let wild = |v: &Value| v.as_str().is_some_and(|v| v.contains(['*', '?']));
    (operator.starts_with("ArnEquals") || operator.starts_with("ArnNotEquals"))
        && values.as_array().into_iter().flatten().any(wild)
}

/// Whether a resource pattern has one of these traits.
fn differs_in_resource(pattern: &Value, context: &Value) -> bool {
    let variable = pattern.as_str().is_some_and(|p| p.contains("${aws:username}"));
    variable && context.get("aws:username").is_none()
}

/// Whether a random document has a trait in which the two differ.
fn differs(document: &Value, context: &Value) -> bool {
    let statements = document["Statement"].as_array().expect("statements");
    statements.iter().any(|statement| {
        let operators = statement["Condition"].as_object().into_iter().flatten();
        let mut conditions = operators.flat_map(|(operator, keys)| {
            keys.as_object().into_iter().flatten().map(move |(_, values)| (operator, values))
        });
        let members = ["Resource", "NotResource"].map(|member| statement[member].as_array());
        let mut resources = members.into_iter().flatten().flatten();
        conditions.any(|(operator, values)| differs_in_condition(operator, values))
            || resources.any(|pattern| differs_in_resource(pattern, context))
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1000),
        max_global_rejects: 1 << 20,
        ..ProptestConfig::default()
    })]
    #[test]
    fn random_policies_are_decided_as_another_evaluator_decides_them(
        document in document(),
        context in context(),
        action in select(&ACTIONS[..]),
        resource in select(&RESOURCES[..]),
    ) {
        prop_assume!(!differs(&document, &context));
        let theirs = theirs(&document, action, resource, &context);
        prop_assert_eq!(ours(&document, action, resource, &context), theirs);
    }

    #[test]
    fn a_document_means_the_same_however_it_is_written(document in document()) {
        let read = |text: &str| parse(text, Kind::Identity).expect("a policy");
        let pretty = serde_json::to_string_pretty(&document).expect("JSON");
        let bare = bare(&document).to_string();
        prop_assert_eq!(read(&document.to_string()), read(&pretty));
        prop_assert_eq!(read(&document.to_string()), read(&bare));
    }
}

/// The same document without brackets around single things.
fn bare(value: &Value) -> Value {
    match value {
        Value::Array(all) if all.len() == 1 => bare(&all[0]),
        Value::Array(all) => Value::Array(all.iter().map(bare).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(k, v)| (k.clone(), bare(v))).collect())
        }
        other => other.clone(),
    }
}
