//! `strongroom-password`: a new password in the secret, which nobody else has to be told.
//!
//! Of a secret whose value is a JSON object the member `password` is replaced, else the whole value.
//! The rules are tags of the secret's, `strongroom:password:MEMBER`, MEMBER being one of
//! GetRandomPassword's (`PasswordLength`, `ExcludeCharacters` and so on).

use super::{Event, Failure};
use crate::ops::shape::SecretText;
use crate::rotate::inside::{Held, Inside};
use crate::secret::Secret;
use crate::store::rotations::Step;
use serde_json::{Map, Value};

/// What the tags begin with that are rules.
const RULE: &str = "strongroom:password:";

/// Does a step.
pub(in crate::rotate) async fn invoke(
    inside: &Inside<'_>,
    name: &str,
    event: &Event<'_>,
) -> Result<(), Failure> {
    let token = event.client_request_token;
    match event.step {
        Step::Create => create(inside, name, token).await,
        // There is no target.
        Step::Set => Ok(()),
        Step::Test => match inside.value("AWSPENDING", Some(token)).await? {
            Some(_) => Ok(()),
            None => Err(Failure::passing("AWSPENDING has no value")),
        },
        Step::Finish => {
            let current = inside.value("AWSCURRENT", None).await?;
            let from = current.as_ref().map(|current| current.version_id.as_str());
            Ok(inside.promote(token, from).await?)
        }
    }
}

async fn create(inside: &Inside<'_>, name: &str, token: &str) -> Result<(), Failure> {
    if inside.value("AWSPENDING", Some(token)).await?.is_some() {
        return Ok(());
    }
    let rules = rules(&inside.tags(name)?)?;
    let password = inside.password(&rules).await.map_err(|error| {
        Failure::lasting(format!("the secret's rules for passwords: {}", error.message))
    })?;
    let current = inside.value("AWSCURRENT", None).await?;
    let value = match current {
        Some(current) => renewed(&current, password)?,
        None => password,
    };
    Ok(inside.put_pending(token, (Some(value), None)).await?)
}

/// A value with another password.
fn renewed(current: &Held, password: SecretText) -> Result<SecretText, Failure> {
    let Some(text) = &current.secret_string else {
        return Err(Failure::lasting("the secret's value is binary, not a password"));
    };
    let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(text.0.expose()) else {
        return Ok(password);
    };
    let Some(member @ Value::String(_)) = object.get_mut("password") else {
        return Err(Failure::lasting("the secret's value is JSON without a member `password`"));
    };
    *member = Value::from(password.0.expose_str().unwrap_or_default());
    let text = serde_json::to_vec(&object);
    let text = text.map_err(|_| Failure::lasting("the secret's value can't be written"))?;
    Ok(SecretText(Secret::new(text)))
}

/// The input of GetRandomPassword that tags spell out.
fn rules(tags: &[(String, String)]) -> Result<Value, Failure> {
    let mut rules = Map::new();
    for (key, value) in tags {
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
        | "RequireEachIncludedType" => value.parse::<bool>().map(Value::from).map_err(|_| wrong()),
        _ => Err(Failure::lasting(format!("the tag `{RULE}{member}` is no rule for passwords"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str) -> Held {
        let secret_string = Some(SecretText(Secret::copy_of(text.as_bytes())));
        Held { version_id: "v".into(), secret_string, secret_binary: None }
    }

    fn after(text: &str) -> Result<String, String> {
        let password = SecretText(Secret::copy_of(b"new\"one"));
        let value = renewed(&held(text), password).map_err(|failure| failure.why)?;
        Ok(value.0.expose_str().expect("text").to_owned())
    }

    #[test]
    fn of_a_json_object_the_password_is_replaced_and_of_anything_else_all_of_it() {
        assert_eq!(after("old").as_deref(), Ok("new\"one"));
        assert_eq!(after("[1]").as_deref(), Ok("new\"one"));
        let object = after(r#"{"username": "app", "password": "old", "port": 5432}"#);
        let object: Value = serde_json::from_str(&object.expect("a value")).expect("JSON");
        assert_eq!(object["password"], "new\"one");
        assert_eq!((&object["username"], &object["port"]), (&"app".into(), &5432.into()));
        assert!(after(r#"{"username": "app"}"#).is_err());
    }

    #[test]
    fn tags_are_rules_if_they_say_so_and_nonsense_is_told() {
        let tags = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let made = rules(&tags(&[
            ("team", "a"),
            ("strongroom:password:PasswordLength", "40"),
            ("strongroom:password:ExcludePunctuation", "true"),
        ]));
        let expected = serde_json::json!({"PasswordLength": 40, "ExcludePunctuation": true});
        assert_eq!(made.expect("rules"), expected);
        for nonsense in [("PasswordLength", "x"), ("IncludeSpace", "yes"), ("Colour", "red")] {
            let key = format!("strongroom:password:{}", nonsense.0);
            let failure = rules(&tags(&[(&key, nonsense.1)])).expect_err("nonsense");
            assert!(failure.why.contains(&key) && !failure.again, "{}", failure.why);
        }
    }
}
