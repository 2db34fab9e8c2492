//! A new password by the rules of its secret, for whichever built-in function needs one.
//!
//! The rules are tags of the secret's, `strongroom:password:MEMBER`, MEMBER being one of
//! GetRandomPassword's. What no tag says is as in AWS's own rotation functions: 32 characters, one at
//! least of each type, none of [`EXCLUDED`].

use super::function::Failure;
use super::inside::Inside;
use crate::ops::error::Condition;
use crate::ops::shape::SecretText;
use crate::store::keys::Tag;
use serde_json::{Map, Value};

/// What the tags begin with that are rules.
const RULE: &str = "strongroom:password:";
/// What is left out unless a tag says otherwise: what ends a password in URLs, connection strings and
/// quotes. The default of `EXCLUDE_CHARACTERS` in AWS's functions:
/// <https://github.com/aws-samples/aws-secrets-manager-rotation-lambdas>.
const EXCLUDED: &str = ":/@\"'\\";

/// A password by the rules of the secret of this name.
pub(super) async fn new_password(inside: &Inside<'_>, secret: &str) -> Result<SecretText, Failure> {
    let rules = rules(&inside.tags(secret)?)?;
    inside.password(&rules).await.map_err(|error| match error.condition {
        Condition::Validation | Condition::InvalidParameter => {
            Failure::lasting(format!("the secret's rules for passwords: {}", error.message))
        }
        _ => error.into(),
    })
}

/// The input of GetRandomPassword that tags spell out.
fn rules(tags: &[Tag]) -> Result<Value, Failure> {
    let mut rules = Map::new();
    rules.insert("ExcludeCharacters".to_owned(), EXCLUDED.into());
    for Tag { key, value } in tags {
        let Some(member) = key.strip_prefix(RULE) else { continue };
        rules.insert(member.to_owned(), rule(member, value)?);
    }
    Ok(Value::Object(rules))
}

fn rule(member: &str, value: &str) -> Result<Value, Failure> {
    let wrong = || Failure::lasting(format!("the tag `{RULE}{member}` can't be `{value}`"));
    match member {
        "PasswordLength" => value.parse::<i64>().map(Value::from).map_err(|_| wrong()),
        "ExcludeCharacters" => Ok(Value::from(value)),
        "ExcludeNumbers"
        | "ExcludePunctuation"
        | "ExcludeUppercase"
        | "ExcludeLowercase"
        | "IncludeSpace"
        | "RequireEachIncludedType" => {
            value.to_ascii_lowercase().parse::<bool>().map(Value::from).map_err(|_| wrong())
        }
        _ => Err(Failure::lasting(format!("the tag `{RULE}{member}` is no rule for passwords"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(pairs: &[(&str, &str)]) -> Result<Value, Failure> {
        let tag = |(key, value): &(&str, &str)| Tag {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        rules(&pairs.iter().map(tag).collect::<Vec<_>>())
    }

    #[test]
    fn tags_are_rules_if_they_say_so_and_what_they_leave_open_is_as_in_aws_s_functions() {
        let plain = json!({"ExcludeCharacters": ":/@\"'\\"});
        assert_eq!(made(&[("team", "a"), ("PasswordLength", "8")]).expect("rules"), plain);
        let said = made(&[
            ("strongroom:password:PasswordLength", "40"),
            ("strongroom:password:ExcludeCharacters", ""),
            ("strongroom:password:ExcludeNumbers", "false"),
            ("strongroom:password:ExcludePunctuation", "true"),
            ("strongroom:password:ExcludeUppercase", "TRUE"),
            ("strongroom:password:ExcludeLowercase", "False"),
            ("strongroom:password:IncludeSpace", "true"),
            ("strongroom:password:RequireEachIncludedType", "false"),
        ]);
        let expected = json!({
            "PasswordLength": 40, "ExcludeCharacters": "", "ExcludeNumbers": false,
            "ExcludePunctuation": true, "ExcludeUppercase": true, "ExcludeLowercase": false,
            "IncludeSpace": true, "RequireEachIncludedType": false,
        });
        assert_eq!(said.expect("rules"), expected);
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_told_and_stays_so() {
        for nonsense in [("PasswordLength", "x"), ("IncludeSpace", "yes"), ("Colour", "red")] {
            let key = format!("strongroom:password:{}", nonsense.0);
            let failure = made(&[(&key, nonsense.1)]).expect_err("nonsense");
            assert!(failure.why.contains(&key) && !failure.again, "{}", failure.why);
        }
    }
}
