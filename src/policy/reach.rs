//! How far a resource's policy reaches, before it is put: whether it opens the resource to everybody,
//! whether it shuts its writer out.

use super::comparands::Network;
use super::decide::{denies, grants};
use super::document::{Condition, Document, Effect, Principal, Principals, Statement};
use super::{Policy, Request};

/// What is the matter with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// What it found.
    pub message: String,
}

/// What AWS checks of a secret's policy beyond its grammar: that it is not for everybody, and does
/// not lock its writer out
/// (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ValidateResourcePolicy.html>).
/// `request` is the writer's for the right to put the next policy.
pub fn findings(policy: &Policy, request: &Request<'_>) -> Vec<Finding> {
    let statements = policy.document().statements.iter().enumerate();
    let broad = statements.filter(|(_, s)| opens(s)).map(|(at, statement)| {
        let sid = statement.sid.as_ref().map(|sid| format!(" ({sid})")).unwrap_or_default();
        let message = format!(
            "This resource policy grants broad access to your secret: statement {}{sid}.",
            at + 1
        );
        Finding { check: "BroadAccess", message }
    });
    let mut found: Vec<Finding> = broad.collect();
    if shuts_out(policy, request) {
        let message = "Your requested changes will not allow you to manage this secret in the \
                       future.";
        found.push(Finding { check: "Lockout", message: message.to_owned() });
    }
    found
}

/// Whether a policy allows something to everybody, without a condition that limits whom it means:
/// a fixed value of one of the keys that AWS counts
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html#access-control-block-public-access-policy-status>).
/// Statements that deny are not set off against it.
pub fn grants_to_everybody(document: &Document) -> bool {
    document.statements.iter().any(opens)
}

/// Whether a policy forbids a request, whatever else is allowed.
pub fn shuts_out(policy: &Policy, request: &Request<'_>) -> bool {
    denies(policy, request)
}

/// Whether a policy that has the last word lets a request: allows it to the caller, or to the
/// caller's account, and does not forbid it. What the account hands on is not asked.
pub fn lets(policy: &Policy, request: &Request<'_>) -> bool {
    grants(policy, request)
}

fn opens(statement: &Statement) -> bool {
    statement.effect == Effect::Allow
        && statement.principals.as_ref().is_some_and(means_everybody)
        && !statement.conditions.iter().any(limits)
}

fn means_everybody(principals: &Principals) -> bool {
    principals.negated || principals.list.contains(&Principal::Everyone)
}

/// Keys that say who asks or from where.
const LIMITING: [&str; 13] = [
    "aws:PrincipalAccount",
    "aws:PrincipalArn",
    "aws:PrincipalOrgID",
    "aws:PrincipalOrgPaths",
    "aws:SourceAccount",
    "aws:SourceArn",
    "aws:SourceIp",
    "aws:SourceOrgID",
    "aws:SourceOwner",
    "aws:SourceVpc",
    "aws:SourceVpce",
    "aws:userid",
    "kms:CallerAccount",
];
/// Operators that want the key to have one of the values.
const EXACTING: [&str; 6] =
    ["StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike", "IpAddress"];

fn limits(condition: &Condition) -> bool {
    use super::document::Quantifier::ForAllValues;
    // ForAllValues and IfExists hold for a request without the key.
    condition.quantifier != Some(ForAllValues)
        && !condition.if_exists
        && EXACTING.contains(&condition.operator)
        && LIMITING.iter().any(|key| key.eq_ignore_ascii_case(&condition.key))
        && condition.values.iter().all(|value| is_fixed(&condition.key, value))
}

/// A value without wildcard or variable; for addresses a network that is not half the world.
fn is_fixed(key: &str, value: &str) -> bool {
    if key.eq_ignore_ascii_case("aws:SourceIp") {
        return Network::parse(value).is_some_and(|network| network.is_narrow());
    }
    !value.is_empty() && !value.contains(['*', '?', '$'])
}

#[cfg(test)]
mod tests {
    use super::super::document::{Kind, parse};
    use super::super::facts::{Facts, NoFacts, Values};
    use super::*;
    use crate::policy::Caller;

    fn document(statement: &str) -> Document {
        let text =
            format!(r#"{{"Version":"2012-10-17","Statement":{{"Resource":"*",{statement}}}}}"#);
        parse(&text, Kind::Resource).expect("a policy")
    }

    fn open(rest: &str) -> bool {
        let read = r#""Effect":"Allow","Action":"secretsmanager:GetSecretValue""#;
        grants_to_everybody(&document(&format!("{read},{rest}")))
    }

    #[test]
    fn a_policy_for_everybody_is_public_and_one_for_somebody_is_not() {
        assert!(open(r#""Principal":"*""#));
        assert!(open(r#""Principal":{"AWS":["111122223333","*"]}"#));
        assert!(open(r#""NotPrincipal":{"AWS":"111122223333"}"#));
        assert!(!open(r#""Principal":{"AWS":"111122223333"}"#));
        let deny = document(r#""Effect":"Deny","Action":"*","Principal":"*""#);
        assert!(!grants_to_everybody(&deny));
    }

    #[test]
    fn a_fixed_value_of_who_or_where_limits_everybody_to_somebody() {
        let with = |c: &str| open(&format!(r#""Principal":"*","Condition":{c}"#));
        for limited in [
            r#"{"StringEquals":{"aws:SourceVpc":"vpc-1"}}"#,
            r#"{"StringEquals":{"AWS:sourceaccount":["111122223333","444455556666"]}}"#,
            r#"{"ForAnyValue:StringLike":{"aws:PrincipalOrgID":"o-1"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"192.0.2.1"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"::ffff:10.0.0.0/104"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"2001:db8::/32"}}"#,
        ] {
            assert!(!with(limited), "{limited}");
        }
        for wide in [
            "{}",
            r#"{"StringEquals":{"aws:UserAgent":"curl"}}"#,
            r#"{"StringNotEquals":{"aws:SourceVpc":"vpc-1"}}"#,
            r#"{"StringEqualsIfExists":{"aws:SourceVpc":"vpc-1"}}"#,
            r#"{"ForAllValues:StringEquals":{"aws:SourceVpc":"vpc-1"}}"#,
            r#"{"StringLike":{"aws:SourceArn":"arn:aws:s3:::*"}}"#,
            r#"{"StringEquals":{"aws:SourceVpc":["vpc-1","*"]}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"2000::/3"}}"#,
            // All of IPv4, as IPv6 writes it, and a network that it is a part of.
            r#"{"IpAddress":{"aws:SourceIp":"::ffff:0.0.0.0/96"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"::/64"}}"#,
            r#"{"Bool":{"aws:SecureTransport":"true"}}"#,
        ] {
            assert!(with(wide), "{wide}");
        }
    }

    const ADMIN: &str = "arn:aws:iam::111122223333:user/admin";

    /// What a question about a policy answers for an administrator who would put the next one.
    fn asked<T>(
        statement: &str,
        question: impl FnOnce(&Policy, &Request<'_>) -> T,
        facts: &dyn Facts,
    ) -> T {
        let policy = Policy::compile("a policy", document(statement));
        let caller = Caller::user("111122223333", ADMIN, "AIDA");
        let request = Request {
            caller: &caller,
            action: "secretsmanager:PutResourcePolicy",
            resource: "arn:aws:secretsmanager:eu-central-1:111122223333:secret:a-AbCdEf",
            owner: "111122223333",
            facts,
        };
        question(&policy, &request)
    }

    struct FromVpc(&'static str);

    impl Facts for FromVpc {
        fn fact(&self, key: &str) -> Option<Values<'_>> {
            (key == "aws:sourcevpc").then(|| Values::one(self.0))
        }
    }

    #[test]
    fn a_writer_is_shut_out_by_a_denial_that_means_him_and_the_action() {
        let out = |rest: &str| asked(&format!(r#""Effect":"Deny",{rest}"#), shuts_out, &NoFacts);
        assert!(out(r#""Action":"secretsmanager:*","Principal":"*""#));
        assert!(out(r#""Action":"SecretsManager:put*Policy","Principal":{"AWS":"111122223333"}"#));
        assert!(out(r#""NotAction":"secretsmanager:Get*","NotPrincipal":{"AWS":"444455556666"}"#));
        assert!(!out(r#""Action":"secretsmanager:Get*","Principal":"*""#));
        assert!(!out(r#""Action":"*","Principal":{"AWS":"444455556666"}"#));
        let but_him = format!(r#""NotPrincipal":{{"AWS":["{ADMIN}","111122223333"]}}"#);
        assert!(!out(&format!(r#""Action":"*",{but_him}"#)));
    }

    #[test]
    fn conditions_count_as_they_hold_for_the_writer_now() {
        let deny = r#""Effect":"Deny","Action":"*","Principal":"*",
            "Condition":{"StringNotEquals":{"aws:SourceVpc":"vpc-1"}}"#;
        assert!(!asked(deny, shuts_out, &FromVpc("vpc-1")));
        assert!(asked(deny, shuts_out, &FromVpc("vpc-2")));
        let allow = r#""Effect":"Allow","Action":"*","Principal":{"AWS":"111122223333"},
            "Condition":{"StringEquals":{"aws:SourceVpc":"vpc-1"}}"#;
        assert!(asked(allow, lets, &FromVpc("vpc-1")));
        assert!(!asked(allow, lets, &FromVpc("vpc-2")));
        assert!(!asked(deny, lets, &FromVpc("vpc-1")), "nothing is allowed");
    }

    #[test]
    fn each_finding_names_its_statement() {
        let open = r#""Sid":"all","Effect":"Allow","Action":"*","Principal":"*""#;
        let found = asked(open, findings, &NoFacts);
        let message = "This resource policy grants broad access to your secret: statement 1 (all).";
        assert_eq!(found, [Finding { check: "BroadAccess", message: message.into() }]);
        let shut = r#""Effect":"Deny","Action":"*","Principal":"*""#;
        let found = asked(shut, findings, &NoFacts);
        assert_eq!(found.iter().map(|f| f.check).collect::<Vec<_>>(), ["Lockout"]);
        let fine = r#""Effect":"Allow","Action":"*","Principal":{"AWS":"111122223333"}"#;
        assert!(asked(fine, findings, &NoFacts).is_empty());
    }
}
