//! How far a resource's policy reaches, told from the document alone: whether it opens the resource
//! to everybody, whether it shuts its writer out.

use super::Caller;
use super::document::{Condition, Document, Effect, Patterns, Principal, Principals, Statement};

/// Whether a policy allows something to everybody, without a condition that limits whom it means:
/// a fixed value of one of the keys that AWS counts
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html#access-control-block-public-access-policy-status>).
pub fn grants_to_everybody(document: &Document) -> bool {
    document.statements.iter().any(|statement| {
        statement.effect == Effect::Allow
            && statement.principals.as_ref().is_some_and(means_everybody)
            && !statement.conditions.iter().any(limits)
    })
}

/// Whether a policy forbids `action` to `caller`, whatever else is allowed.
pub fn shuts_out(document: &Document, caller: &Caller, action: &str) -> bool {
    let forbids = |s: &&Statement| s.effect == Effect::Deny && s.conditions.is_empty();
    document.statements.iter().filter(forbids).any(|statement| {
        covers_action(&statement.actions, action)
            && statement.principals.as_ref().is_some_and(|p| p.negated != names(p, caller))
    })
}

fn means_everybody(principals: &Principals) -> bool {
    principals.negated || principals.list.contains(&Principal::Everyone)
}

fn names(principals: &Principals, caller: &Caller) -> bool {
    principals.list.iter().any(|principal| match principal {
        Principal::Everyone => true,
        Principal::Account(account) => *account == caller.account,
        Principal::Arn(arn) => *arn == caller.arn,
        Principal::Service(_) | Principal::Federated(_) => false,
    })
}

/// Keys that say who asks or from where.
const LIMITING: [&str; 10] = [
    "aws:PrincipalAccount",
    "aws:PrincipalArn",
    "aws:PrincipalOrgID",
    "aws:SourceAccount",
    "aws:SourceArn",
    "aws:SourceIp",
    "aws:SourceOwner",
    "aws:SourceVpc",
    "aws:SourceVpce",
    "aws:userid",
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
        let (address, bits) = value.split_once('/').unwrap_or((value, "128"));
        let least = if address.contains(':') { 32 } else { 8 };
        return address.parse::<std::net::IpAddr>().is_ok()
            && bits.parse::<u8>().is_ok_and(|bits| bits >= least);
    }
    !value.is_empty() && !value.contains(['*', '?', '$'])
}

/// Whether patterns speak of an action; letter case does not count.
fn covers_action(patterns: &Patterns, action: &str) -> bool {
    let action = action.to_ascii_lowercase();
    let hit = |p: &String| glob(p.to_ascii_lowercase().as_bytes(), action.as_bytes());
    !patterns.patterns.is_empty() && patterns.negated != patterns.patterns.iter().any(hit)
}

/// Matches `*` (any run) and `?` (any one byte), going back to the last `*` only, so that it takes
/// at most the product of both lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|b| *b == b'*'))
}

#[cfg(test)]
mod tests {
    use super::super::document::{Kind, parse};
    use super::*;

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
            r#"{"Bool":{"aws:SecureTransport":"true"}}"#,
        ] {
            assert!(with(wide), "{wide}");
        }
    }

    #[test]
    fn a_writer_is_shut_out_by_a_denial_that_means_him_and_the_action() {
        let caller = Caller::user("111122223333", "arn:aws:iam::111122223333:user/admin", "AIDA");
        let out = |rest: &str| {
            let policy = document(&format!(r#""Effect":"Deny",{rest}"#));
            shuts_out(&policy, &caller, "secretsmanager:PutResourcePolicy")
        };
        assert!(out(r#""Action":"secretsmanager:*","Principal":"*""#));
        assert!(out(r#""Action":"SecretsManager:put*Policy","Principal":{"AWS":"111122223333"}"#));
        assert!(out(r#""NotAction":"secretsmanager:Get*","NotPrincipal":{"AWS":"444455556666"}"#));
        assert!(!out(r#""Action":"secretsmanager:Get*","Principal":"*""#));
        assert!(!out(r#""Action":"*","Principal":{"AWS":"444455556666"}"#));
        assert!(!out(
            r#""Action":"*","NotPrincipal":{"AWS":"arn:aws:iam::111122223333:user/admin"}"#
        ));
        let narrow = r#""Condition":{"StringEquals":{"aws:SourceVpc":"vpc-1"}}"#;
        assert!(!out(&format!(r#""Action":"*","Principal":"*",{narrow}"#)));
    }

    #[test]
    fn wildcards_stand_for_any_run_and_any_one_character() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c*", "ac", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*ab", "aab", true),
            ("a*b", "acd", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
        let long = "a".repeat(2000);
        assert!(!glob(format!("{}b", "*a".repeat(500)).as_bytes(), long.as_bytes()));
    }
}
