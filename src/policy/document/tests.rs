use super::*;
use proptest::prelude::*;

fn resource(statement: &str) -> Result<Document, Malformed> {
    parse(&format!(r#"{{"Version":"2012-10-17","Statement":{statement}}}"#), Kind::Resource)
}

const ALLOW: &str = r#""Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"*""#;

fn with_principal(principal: &str) -> Result<Document, Malformed> {
    resource(&format!(r#"{{{ALLOW},"Principal":{principal}}}"#))
}

fn is_syntax<T>(outcome: Result<T, Malformed>) -> bool {
    matches!(outcome, Err(Malformed::Syntax(_)))
}

#[test]
fn one_statement_may_stand_without_brackets_and_so_may_one_of_anything() {
    let one = with_principal(r#"{"AWS":"arn:aws:iam::111122223333:user/a/b"}"#);
    let many = resource(
        r#"[{"Effect":"Allow","Action":["secretsmanager:GetSecretValue"],"Resource":["*"],
                 "Principal":{"AWS":["arn:aws:iam::111122223333:user/a/b"]}}]"#,
    );
    assert_eq!(one, many);
    assert_eq!(
        one.map(|d| d.statements[0].principals.clone().map(|p| p.list)),
        Ok(Some(vec![Principal::Arn("arn:aws:iam::111122223333:user/a/b".into())]))
    );
}

#[test]
fn the_root_of_an_account_is_the_account() {
    let root = with_principal(r#"{"AWS":"arn:aws:iam::111122223333:root"}"#);
    assert_eq!(root, with_principal(r#"{"AWS":"111122223333"}"#));
    assert_eq!(with_principal(r#""*""#), with_principal(r#"{"AWS":"*"}"#));
}

#[test]
fn what_can_t_be_a_principal_is_told_from_what_breaks_the_grammar() {
    for bad in [
        "arn:aws:iam::111122223333:user/",
        "arn:aws:iam::111122223333:user/a*",
        "arn:aws:iam::111122223333:group/admins",
        "arn:aws:iam::1111:user/a",
        "arn:aws:s3:::bucket",
        "AIDAEXAMPLE",
        "",
    ] {
        let outcome = with_principal(&format!(r#"{{"AWS":"{bad}"}}"#));
        assert_eq!(outcome, Err(Malformed::Principal(bad.into())));
    }
    for bad in ["lambda", "lambda.example.com", ".amazonaws.com", "*.amazonaws.com"] {
        let outcome = with_principal(&format!(r#"{{"Service":"{bad}"}}"#));
        assert_eq!(outcome, Err(Malformed::ServicePrincipal(bad.into())));
    }
    assert!(with_principal(r#"{"Service":"lambda.amazonaws.com"}"#).is_ok());
    assert!(is_syntax(with_principal(r#"{"Robot":"r2d2"}"#)));
    assert!(is_syntax(with_principal(r#""arn:aws:iam::111122223333:root""#)));
    assert_eq!(with_principal("{}"), Err(Malformed::NoPrincipal));
    assert_eq!(resource(&format!("{{{ALLOW}}}")), Err(Malformed::NoPrincipal));
}

#[test]
fn nothing_is_skipped_over() {
    let everyone = format!(r#"{ALLOW},"Principal":"*""#);
    assert!(resource(&format!("{{{everyone}}}")).is_ok());
    for more in [
        r#""Actions":"*""#,
        r#""effect":"Deny""#,
        r#""Effect":"Allow""#,
        r#""Sid":null"#,
        r#""Sid":1"#,
        r#""NotAction":"*""#,
        r#""NotResource":"*""#,
        r#""NotPrincipal":"*""#,
        r#""Condition":[]"#,
    ] {
        assert!(is_syntax(resource(&format!("{{{everyone},{more}}}"))), "{more}");
    }
    assert!(is_syntax(resource("[]")));
    assert!(is_syntax(parse(r#"{"Version":"2012-10-17"}"#, Kind::Resource)));
    for text in ["", "null", "[]", "{}", "{\"Statement\":", "\u{feff}{}"] {
        assert!(is_syntax(parse(text, Kind::Resource)), "{text}");
    }
    let twice = format!(r#"{{"Statement":[{{{everyone}}}],"Statement":[{{{everyone}}}]}}"#);
    assert!(is_syntax(parse(&twice, Kind::Resource)));
    let after = format!(r#"{{"Statement":[{{{everyone}}}]}} x"#);
    assert!(is_syntax(parse(&after, Kind::Resource)));
}

/// serde's derived structures are read from lists of their members' values as well.
#[test]
fn documents_and_statements_are_objects() {
    let whole = format!(r#"["2012-10-17","id",{{{ALLOW},"Principal":"*"}}]"#);
    assert!(is_syntax(parse(&whole, Kind::Resource)));
    let statement = r#"{"Statement":[["a","Allow","*"]]}"#;
    assert!(is_syntax(parse(statement, Kind::Key)));
}

/// The text of a value of the wrong type stood in the answer and in the audit log.
#[test]
fn a_value_that_does_not_fit_is_not_repeated() {
    for (document, told) in [
        (r#""a secret, expected \" ` x""#, "invalid type: string, expected an object"),
        (r#"{"Id":4711,"Statement":[]}"#, "invalid type: integer, expected a string"),
        (r#"{"Version":{"secret":1}}"#, "invalid type: map, expected a string"),
        (r#"{"Statement":"a secret"}"#, "invalid type: string, expected an object"),
        (
            r#"{"Statement":{"Principal":"a secret"}}"#,
            "invalid value: string, expected \"*\" or a map of principals",
        ),
    ] {
        let why = parse(document, Kind::Resource).expect_err(document).to_string();
        assert_eq!(why.split(" at line ").next(), Some(told), "{why}");
    }
}

#[test]
fn versions_effects_actions_and_resources_are_those_of_the_grammar() {
    let with = |effect: &str, action: &str, to: &str| {
        resource(&format!(
            r#"{{"Effect":"{effect}","Principal":"*","Action":{action},"Resource":{to}}}"#
        ))
    };
    assert!(with("Deny", r#""secretsmanager:Get*""#, r#""*""#).is_ok());
    assert!(with("Allow", r#""*""#, r#""arn:aws:secretsmanager:*:*:secret:a-??????""#).is_ok());
    assert!(is_syntax(with("AllowSomething", r#""*""#, r#""*""#)));
    for action in ["[]", r#""GetSecretValue""#, r#""a:""#, r#"":a""#, r#""a:b c""#, "1", "{}"] {
        assert!(is_syntax(with("Allow", action, r#""*""#)), "{action}");
    }
    for to in ["[]", r#""""#, r#""secret""#, r#""arn:aws:kms""#, "null"] {
        assert!(is_syntax(with("Allow", r#""*""#, to)), "{to}");
    }
    let version = |v: &str| {
        let text = format!(r#"{{"Version":{v},"Statement":{{{ALLOW},"Principal":"*"}}}}"#);
        parse(&text, Kind::Resource).map(|d| d.version)
    };
    assert_eq!(version(r#""2008-10-17""#), Ok(Version::V2008));
    assert!(is_syntax(version(r#""2019-10-19""#)));
    let none = format!(r#"{{"Statement":{{{ALLOW},"Principal":"*"}}}}"#);
    assert_eq!(parse(&none, Kind::Resource).map(|d| d.version), Ok(Version::V2008));
}

fn with_condition(condition: &str) -> Result<Vec<Condition>, Malformed> {
    let statement = format!(r#"{{{ALLOW},"Principal":"*","Condition":{condition}}}"#);
    resource(&statement).map(|d| d.statements[0].conditions.clone())
}

#[test]
fn conditions_are_taken_apart() {
    let found = with_condition(
        r#"{"ForAnyValue:StringLikeIfExists":{"aws:TagKeys":["a","b*"]},
                "Bool":{"aws:SecureTransport":true},"NumericLessThan":{"a:b":1.5}}"#,
    );
    let found = found.expect("three conditions");
    assert_eq!(found[0].quantifier, Some(Quantifier::ForAnyValue));
    assert_eq!((found[0].operator, found[0].if_exists), ("StringLike", true));
    assert_eq!(found[0].values, ["a", "b*"]);
    assert_eq!(found[1].values, ["true"]);
    assert_eq!(found[2].values, ["1.5"]);
    assert_eq!(with_condition("{}"), Ok(vec![]));
    for bad in [
        r#"{"StringIs":{"a:b":"c"}}"#,
        r#"{"NullIfExists":{"a:b":"true"}}"#,
        r#"{"ForSomeValues:StringLike":{"a:b":"c"}}"#,
        r#"{"StringLike":{"ab":"c"}}"#,
        r#"{"StringLike":{"a:b":[]}}"#,
        r#"{"StringLike":{"a:b":{"c":"d"}}}"#,
        r#"{"StringLike":{"a:b":null}}"#,
        r#"{"StringLike":{"a:b":"c","a:b":"d"}}"#,
        r#"{"Bool":{"a:b":"perhaps"}}"#,
        r#"{"NumericEquals":{"a:b":"one"}}"#,
    ] {
        assert!(with_condition(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_identity_s_policy_names_no_principal_and_its_sids_are_unique() {
    let parse = |text: &str| parse(&format!(r#"{{"Statement":[{text}]}}"#), Kind::Identity);
    assert!(parse(&format!("{{{ALLOW}}}")).is_ok());
    assert!(is_syntax(parse(&format!(r#"{{{ALLOW},"Principal":"*"}}"#))));
    let named = format!(r#"{{{ALLOW},"Sid":"A1"}}"#);
    assert!(parse(&named).is_ok());
    assert!(is_syntax(parse(&format!("{named},{named}"))));
    assert!(is_syntax(parse(&format!(r#"{{{ALLOW},"Sid":"with space"}}"#))));
}

#[test]
fn a_key_s_statement_may_lack_action_or_resource_and_then_speaks_of_nothing() {
    let text = r#"{"Statement":{"Sid":"with space","Effect":"Allow","Principal":"*"}}"#;
    let found = parse(text, Kind::Key).map(|d| d.statements[0].clone());
    assert_eq!(found.map(|s| (s.actions, s.resources)), Ok(Default::default()));
    assert!(is_syntax(parse(text, Kind::Resource)));
}

/// What IAM says of a document whose one statement has these members.
fn iam(kind: Kind, members: &str) -> String {
    let text = format!(r#"{{"Version":"2012-10-17","Statement":{{{members}}}}}"#);
    parse(&text, kind).map_or_else(|e| e.aws_text(kind).into_owned(), |_| "taken".to_owned())
}

#[test]
fn iam_s_own_words_are_known() {
    let to = r#""Resource":"*""#;
    let of = |rest: &str| iam(Kind::Managed, &format!(r#""Effect":"Allow",{rest}"#));
    for (members, expected) in [
        (format!(r#""Action":"kms:Get*",{to}"#), "taken"),
        (to.to_owned(), "Policy statement must contain actions."),
        (r#""Action":"*""#.to_owned(), "Policy statement must contain resources."),
        (
            format!(r#""Principal":"*","Action":"*",{to}"#),
            "Policy document should not specify a principal.",
        ),
        (
            format!(r#""Action":"Decrypt",{to}"#),
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (format!(r#""Action":"a a:b",{to}"#), "Vendor a a is not valid"),
        (format!(r#""Action":"a:b:c",{to}"#), "Actions/Condition can contain only one colon."),
        (
            format!(r#""Action":"*","NotAction":"*",{to}"#),
            "Syntax errors in policy. a statement has either Action or NotAction",
        ),
        (
            r#""Action":"*","Resource":"secret""#.to_owned(),
            "Resource secret must be in ARN format or \"*\".",
        ),
        (
            r#""Action":"*","Resource":"arn:x:kms:::k""#.to_owned(),
            "Partition \"x\" is not valid for resource \"arn:x:kms:::k\".",
        ),
        (
            r#""Action":"*","Resource":"arn:aws:s3::b""#.to_owned(),
            "The policy failed legacy parsing",
        ),
        (
            r#""Action":"*","Resource":"arn:aws:kms:*:${aws:PrincipalAccount}:key/*""#.to_owned(),
            "The policy failed legacy parsing",
        ),
        (
            format!(r#""Action":"*",{to},"Condition":{{"DateLessThan":{{"a:b":"soon"}}}}"#),
            "The policy failed legacy parsing",
        ),
        (
            format!(r#""Action":"*",{to},"Condition":{{"StringIs":{{"a:b":"c"}}}}"#),
            "Syntax errors in policy. `StringIs` is not a condition operator",
        ),
    ] {
        assert_eq!(of(&members), expected, "{members}");
    }
    assert_eq!(
        iam(Kind::Managed, r#""Effect":"allow","Action":"*","Resource":"*""#),
        "The policy failed legacy parsing"
    );
    let old =
        r#"{"Version":"2008-10-17","Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#;
    assert!(parse(old, Kind::Identity).is_ok());
    let refused = parse(old, Kind::Managed).expect_err("an old version");
    assert_eq!(
        refused.aws_text(Kind::Managed),
        "Policy document must be version 2012-10-17 or greater."
    );
}

#[test]
fn a_trust_policy_names_who_may_assume_the_role_and_no_resource() {
    let of = |rest: &str| iam(Kind::Trust, &format!(r#""Effect":"Allow",{rest}"#));
    let who = r#""Principal":{"AWS":"111122223333"}"#;
    let assume = r#""Action":"sts:AssumeRole""#;
    for (members, expected) in [
        (format!("{who},{assume}"), "taken"),
        (format!(r#"{who},"Action":["sts:AssumeRole","sts:TagSession"],"Sid":"""#), "taken"),
        (assume.to_owned(), "Missing required field Principal"),
        (who.to_owned(), "Missing required field Action"),
        (
            format!(r#"{who},"Action":"*""#),
            "AssumeRole policy may only specify STS AssumeRole actions.",
        ),
        (format!(r#"{who},{assume},"Resource":"*""#), "Has prohibited field Resource"),
        (
            format!(r#"{who},{assume},"NotResource":"*""#),
            "AssumeRole policy must not contain resources.",
        ),
        (
            format!(r#""NotPrincipal":{{"AWS":"111122223333"}},{assume}"#),
            "Allow with NotPrincipal is not allowed.",
        ),
        (
            format!(r#""Principal":{{"AWS":"ada"}},{assume}"#),
            "Invalid principal in policy: \"AWS\":\"ada\"",
        ),
        (
            format!(r#""Principal":{{"Service":"ec2"}},{assume}"#),
            "Invalid principal in policy: \"SERVICE\":\"ec2\"",
        ),
        (
            format!(r#""Principal":{{"Federated":"login.example.com/"}},{assume}"#),
            "Invalid principal in policy: \"FEDERATED\":\"login.example.com/\"",
        ),
    ] {
        assert_eq!(of(&members), expected, "{members}");
    }
    let read =
        parse(&format!(r#"{{"Statement":{{"Effect":"Allow",{who},{assume}}}}}"#), Kind::Trust);
    let resources = read.map(|d| d.statements[0].resources.patterns.clone());
    assert_eq!(resources, Ok(vec!["*".to_owned()]), "the role itself");
    let key = r#"{"StringEquals":{"oidc.example.com/id/1:sub":"system:serviceaccount:a:b"}}"#;
    assert_eq!(of(&format!(r#"{who},{assume},"Condition":{key}"#)), "taken");
}

#[test]
fn white_space_does_not_count_in_iam_s_policies() {
    let with = |filler: &str, count: usize| {
        format!("{{\"Statement\":{{{ALLOW}}}{}}}", filler.repeat(count))
    };
    assert!(parse(&with(" ", 100_000), Kind::Session).is_ok());
    assert!(matches!(parse(&with(" ", 300_000), Kind::Session), Err(Malformed::TooLong(2048))));
    let long = parse(&with("x", 2048), Kind::Session);
    assert_eq!(long, Err(Malformed::TooLong(2048)));
    let text = |kind| Malformed::TooLong(8192).aws_text(kind).into_owned();
    assert_eq!(text(Kind::Trust), "Cannot exceed quota for ACLSizePerRole: 8192");
    assert_eq!(text(Kind::Managed), "Cannot exceed quota for PolicySize: 8192");
}

#[test]
fn values_that_an_operator_can_t_compare_with_are_refused() {
    for bad in [
        r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/33"}}"#,
        r#"{"NotIpAddress":{"aws:SourceIp":["10.0.0.0/8","here"]}}"#,
        r#"{"DateGreaterThan":{"aws:CurrentTime":"2026-02-30"}}"#,
        r#"{"BinaryEquals":{"a:b":"*"}}"#,
        r#"{"NumericEquals":{"a:b":"${aws:username}"}}"#,
        r#"{"Null":{"a:b":"maybe"}}"#,
        r#"{"StringEquals":{"a:b":"${aws:username"}}"#,
    ] {
        assert!(is_syntax(with_condition(bad)), "{bad}");
    }
    assert!(with_condition(r#"{"IpAddress":{"aws:SourceIp":"::ffff:10.0.0.0/104"}}"#).is_ok());
    assert!(with_condition(r#"{"ArnLike":{"aws:PrincipalArn":"*"}}"#).is_ok());
}

#[test]
fn length_and_depth_are_bounded() {
    let long = " ".repeat(20_481);
    assert_eq!(parse(&long, Kind::Resource), Err(Malformed::TooLong(20_480)));
    let deep = "[".repeat(20_000);
    assert!(is_syntax(parse(&deep, Kind::Resource)));
    assert!(is_syntax(parse(&format!(r#"{{"Statement":{deep}"#), Kind::Resource)));
    let maps = r#"{"Statement":"#.repeat(1500);
    assert!(is_syntax(parse(&maps, Kind::Resource)));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        for kind in [Kind::Identity, Kind::Managed, Kind::Trust, Kind::Resource, Kind::Key] {
            drop(parse(&text, kind));
        }
    }

    #[test]
    fn any_member_may_hold_any_json(
        member in "(Version|Id|Statement|Principal|Action|Resource|Condition|Effect)",
        json in r#"(null|true|-1|1e999|"[*a:]{0,3}"|\[\]|\{\}|\[\[1\]\]|\{"a":\{"b":1\}\})"#,
    ) {
        let statement = format!(r#"{{{ALLOW},"Principal":"*","{member}":{json}}}"#);
        drop(resource(&statement));
        drop(parse(&format!(r#"{{"{member}":{json}}}"#), Kind::Key));
    }
}
