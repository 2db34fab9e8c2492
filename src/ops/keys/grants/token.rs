//! Grant tokens. AWS gives them out so that a new grant can be used before all of AWS knows it
//! (<https://docs.aws.amazon.com/kms/latest/developerguide/using-grant-token.html>). Here a grant
//! counts as soon as it is made: a token is checked and never needed, but for RetireGrant, which
//! takes it for the grant's name.
//!
//! A token is `key id/grant id/nonce` in the form of a page token, under the same MAC and a scope
//! that no list has.

use crate::clock::random_bytes;
use crate::ops::call::Call;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::page::Pages;
use crate::store::grants::Grant;

/// Scopes of lists begin with an account.
const SCOPE: &str = "grant token";

/// A new token for a grant; no two are the same.
pub(super) fn issue(call: &Call, grant: &Grant) -> Result<String> {
    let nonce = u64::from_be_bytes(random_bytes(&*call.world.random)?);
    Ok(written(&call.pages, grant, nonce))
}

fn written(pages: &Pages, grant: &Grant, nonce: u64) -> String {
    pages.token(SCOPE, &format!("{}/{}/{nonce:016x}", grant.key, grant.id))
}

/// The ids of the key and of the grant that a token stands for.
///
/// # Errors
/// [`Condition::InvalidGrantToken`] for a token that was not given out here.
pub(super) fn read(pages: &Pages, token: &str) -> Result<(String, String)> {
    let invalid = || Error::new(Condition::InvalidGrantToken, "Invalid grant token");
    let position = pages.position(SCOPE, token).map_err(|_| invalid())?;
    let mut parts = position.split('/');
    match (parts.next(), parts.next()) {
        (Some(key), Some(grant)) => Ok((key.to_owned(), grant.to_owned())),
        _ => Err(invalid()),
    }
}

/// Refuses a request that brings a token which was not given out here.
pub(in crate::ops::keys) fn check(call: &Call, tokens: Option<&[String]>) -> Result<()> {
    tokens.unwrap_or_default().iter().try_for_each(|token| read(&call.pages, token).map(drop))
}

#[cfg(test)]
mod tests {
    use super::super::terms::tests::grant;
    use super::*;
    use crate::secret::Key;

    #[test]
    fn a_token_names_its_grant_and_no_other_text_is_one() {
        let pages = Pages::new(&Key::take(&mut [1; 32]));
        let made = grant(&["Decrypt"]);
        let (one, two) = (written(&pages, &made, 1), written(&pages, &made, 2));
        assert_ne!(one, two);
        for token in [&one, &two] {
            let named = read(&pages, token).expect("given out");
            assert_eq!(named, (made.key.clone(), made.id.clone()));
        }
        let of_a_list =
            pages.token("111122223333/ListGrants/", &format!("{}/{}", made.key, made.id));
        let cut: String = one.chars().skip(1).collect();
        for bad in ["", "AAAA", &cut, &of_a_list] {
            let error = read(&pages, bad).expect_err(bad);
            assert_eq!(error.condition, Condition::InvalidGrantToken);
        }
    }
}
