//! `strongroom-password`: a new password in the secret, which nobody else has to be told.
//!
//! Of a secret whose value is a JSON object the member `password` is replaced, else the whole value.

use super::{Event, Failure, begun, promote};
use crate::ops::shape::SecretText;
use crate::rotate::inside::{Held, Inside};
use crate::rotate::rules::new_password;
use crate::rotate::secret_json::{Fault, SecretJson};
use crate::store::rotations::Step;

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
        Step::Finish => promote(inside, token).await,
    }
}

async fn create(inside: &Inside<'_>, name: &str, token: &str) -> Result<(), Failure> {
    if begun(inside, token).await? {
        return Ok(());
    }
    let password = new_password(inside, name).await?;
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
    let mut object = match SecretJson::read(text.0.expose()) {
        Ok(object) => object,
        Err(Fault::NotAnObject) => return Ok(password),
        Err(fault) => return Err(Failure::lasting(fault.to_string())),
    };
    let Ok(Some(_)) = object.text("password") else {
        return Err(Failure::lasting("the secret's value is JSON without a member `password`"));
    };
    object.set("password", password.0.expose_str().unwrap_or_default());
    let value = object.write().map_err(|fault| Failure::lasting(fault.to_string()))?;
    Ok(SecretText(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

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
        let expected = r#"{"username":"app","password":"new\"one","port":5432}"#;
        assert_eq!(object.as_deref(), Ok(expected), "the rest as it was");
        for odd in [r#"{"username": "app"}"#, r#"{"password": 1}"#, r#"{"a": 1, "a": 2}"#] {
            assert!(after(odd).is_err(), "{odd}");
        }
    }
}
