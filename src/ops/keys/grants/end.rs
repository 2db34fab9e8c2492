//! RetireGrant and RevokeGrant: two ways to end a grant, which differ in who may.

use super::terms::RETIRE;
use super::{check_grant_id, held, no_such_grant, token};
use crate::name::{Service, key_arn};
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::holder::identities;
use crate::ops::keys::terms::unless_dry;
use crate::ops::keys::{KeyTarget, check_key_id, facts, locate_key};
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Caller, Request, Values};
use crate::store::grants::{Grant, Holder};
use crate::store::keys::Key;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

/// RevokeGrant: <https://docs.aws.amazon.com/kms/latest/APIReference/API_RevokeGrant.html>.
pub struct RevokeGrant;

/// What [`RevokeGrant`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RevokeGrantInput {
    key_id: Option<String>,
    grant_id: Option<String>,
    dry_run: Option<bool>,
}

impl Input for RevokeGrantInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.required("grantId", &self.grant_id);
        checks.length("grantId", self.grant_id.as_deref(), 1, 128);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        (key == "kms:grantisforawsresource").then(|| Values::truth(false))
    }
}

impl Operation for RevokeGrant {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "RevokeGrant";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/keys/{KeyId}/grants/{GrantId}" };
    type Input = RevokeGrantInput;
    type Target = KeyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &RevokeGrantInput) -> Result<KeyTarget> {
        check_grant_id(given(&input.grant_id, "grantId")?)?;
        locate_key(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: RevokeGrantInput,
    ) -> Result<Empty> {
        let key = target.key()?.id.clone();
        end(call, &key, given(&input.grant_id, "grantId")?, input.dry_run).await
    }
}

/// Ends a grant on a key. Neither way asks for the key's state.
async fn end(call: &Call, key: &str, id: &str, dry_run: Option<bool>) -> Result<Empty> {
    let known = call.records.read(|rows| rows.grant(id))?;
    if known.is_none_or(|grant| grant.key != key) {
        return Err(no_such_grant(id));
    }
    unless_dry(dry_run)?;
    let (key, id) = (key.to_owned(), id.to_owned());
    call.commit(move |rows| {
        let grant = rows.grant(&id)?.filter(|grant| grant.key == key);
        Ok(rows.delete_grant(&grant.ok_or_else(|| no_such_grant(&id))?)?)
    })
    .await?;
    Ok(Empty {})
}

/// RetireGrant: <https://docs.aws.amazon.com/kms/latest/APIReference/API_RetireGrant.html>.
pub struct RetireGrant;

/// What [`RetireGrant`] takes: a token, or a key and a grant's id.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct RetireGrantInput {
    grant_token: Option<String>,
    key_id: Option<String>,
    grant_id: Option<String>,
    dry_run: Option<bool>,
}

impl Input for RetireGrantInput {
    fn check(&self, checks: &mut Checks) {
        checks.length("grantToken", self.grant_token.as_deref(), 1, 8192);
        checks.length("keyId", self.key_id.as_deref(), 1, 2048);
        checks.length("grantId", self.grant_id.as_deref(), 1, 128);
    }
}

impl RetireGrantInput {
    /// The key, and the id of the grant that is meant.
    fn named(&self, call: &Call) -> Result<(KeyTarget, String)> {
        match (&self.grant_token, &self.key_id, &self.grant_id) {
            (Some(token), None, None) => {
                let (key, grant) = token::read(&call.pages, token)?;
                let key = call.records.key(&key)?.ok_or_else(|| no_such_grant(&grant))?;
                Ok((KeyTarget::found(&call.region, key), grant))
            }
            (None, Some(key), Some(grant)) => {
                check_grant_id(grant)?;
                Ok((locate_key(call, key)?, grant.clone()))
            }
            _ => {
                let text = "Specify either GrantToken, or both KeyId and GrantId.";
                Err(Error::new(Condition::Validation, text))
            }
        }
    }
}

/// A grant that a request names, there or not.
///
/// The grant says who may retire it, without any policy: its retiring principal, and its grantee if
/// the operation is among its own. The account that made it may, too, and an account that it names as
/// one of the two; these hand the right on to their users by `kms:RetireGrant` in identity policies,
/// which counts nowhere else, and not in key policies. A denial of it counts as ever.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/grant-delete.html>
pub struct Retirable {
    arn: String,
    /// The account whose identity policies may allow it.
    owner: String,
    key: Option<Arc<Key>>,
    id: String,
    grant: Option<Grant>,
}

impl Target for Retirable {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.owner
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        facts::of_key(call, self.key.as_deref()?, key)
    }
    fn granted(&self, call: &Call, request: &Request<'_>) -> Result<Option<String>> {
        let Some(grant) = &self.grant else { return Ok(None) };
        for (id, arn) in identities(request.caller) {
            // The grant's word stands in both accounts; what a boundary or a session policy takes
            // away is gone here as well.
            let own = Request { owner: &request.caller.account, ..*request };
            if retirers(grant).any(|holder| holder.id == id)
                && held::lets(call, &own, &held::as_key_policy(arn)?)?
            {
                return Ok(Some(grant.id.clone()));
            }
        }
        Ok(None)
    }
}

/// The principals that a grant lets retire it.
fn retirers(grant: &Grant) -> impl Iterator<Item = &Holder> {
    let by_grantee = grant.operations.iter().any(|name| name == RETIRE);
    grant.retiring.iter().chain(by_grantee.then_some(&grant.grantee))
}

/// The account whose identity policies count: the caller's, if it made the grant or the grant lets it
/// retire it as a whole.
fn decider(grant: &Grant, caller: &Caller) -> String {
    let account = &caller.account;
    let may = grant.issuer == *account || retirers(grant).any(|holder| holder.id == *account);
    if may { account.clone() } else { grant.issuer.clone() }
}

impl Operation for RetireGrant {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "RetireGrant";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/grants:retire" };
    type Input = RetireGrantInput;
    type Target = Retirable;
    type Output = Empty;

    async fn locate(call: &Call, input: &RetireGrantInput) -> Result<Retirable> {
        let (target, id) = input.named(call)?;
        let key = target.key().ok().cloned();
        let grant = call.records.read(|rows| rows.grant(&id))?;
        let here = |grant: &Grant| key.as_ref().is_some_and(|key| key.id == grant.key);
        let grant = grant.filter(here);
        let owner = match &grant {
            Some(grant) => decider(grant, &call.caller),
            None => target.owner().to_owned(),
        };
        let arn = match &key {
            Some(key) => key_arn(&call.region, &key.account, &key.id),
            None => target.arn().to_owned(),
        };
        Ok(Retirable { arn, owner, key, id, grant })
    }

    async fn run(
        call: &Call,
        target: Allowed<Retirable>,
        input: RetireGrantInput,
    ) -> Result<Empty> {
        let key = target.key.as_ref().ok_or_else(|| {
            Error::new(Condition::NotFound, format!("Key '{}' does not exist", target.arn))
        })?;
        end(call, &key.id, &target.id, input.dry_run).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::terms::tests::grant;
    use super::*;

    fn holder(id: &str) -> Holder {
        Holder { arn: format!("arn of {id}"), id: id.to_owned() }
    }

    fn may_retire(grant: &Grant) -> Vec<&str> {
        retirers(grant).map(|holder| holder.id.as_str()).collect()
    }

    #[test]
    fn a_grant_is_retired_by_whom_it_names_for_that() {
        let made = grant(&["Decrypt"]);
        assert!(may_retire(&made).is_empty());
        assert_eq!(may_retire(&grant(&["Decrypt", RETIRE])), ["AIDA1"]);
        let made = Grant { retiring: Some(holder("AIDA2")), ..grant(&[RETIRE]) };
        assert_eq!(may_retire(&made), ["AIDA2", "AIDA1"]);
    }

    #[test]
    fn identity_policies_count_in_the_account_that_made_it_and_in_those_it_names() {
        let of = |account: &str| Caller::user(account, "arn:aws:iam::1:user/x", "AIDA9");
        let (own, named, other) = ("111122223333", "444455556666", "777788889999");
        let made = Grant { retiring: Some(holder(named)), ..grant(&["Decrypt"]) };
        assert_eq!(decider(&made, &of(own)), own);
        assert_eq!(decider(&made, &of(named)), named);
        assert_eq!(decider(&made, &of(other)), own);
        // The account of the key is not that of the grant.
        let foreign = Grant { account: other.to_owned(), ..made };
        assert_eq!(decider(&foreign, &of(other)), own);
        let to_account = Grant { grantee: holder(other), ..grant(&["Decrypt"]) };
        assert_eq!(decider(&to_account, &of(other)), own);
    }
}
