//! CreateAlias, UpdateAlias, DeleteAlias, ListAliases.

use super::list::{Next, Paging, one_more};
use super::{KeyTarget, Named, alias_not_found, locate_own, not_pending, parse};
use crate::name::{ALIAS_PREFIX, RESERVED_ALIAS_PREFIX, Service, alias_arn};
use crate::ops::call::{Allowed, Call, OwnAccount, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::store::keys::{Alias, Key};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Aliases that one key may have (AWS's quota).
pub(super) const MOST_PER_KEY: usize = 50;

/// An alias that a request names, there or not; of the caller's own account.
pub struct AliasTarget {
    arn: String,
    account: String,
    name: String,
}

impl Target for AliasTarget {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.account
    }
}

impl AliasTarget {
    fn not_found(&self) -> Error {
        Error::new(Condition::NotFound, alias_not_found(&self.arn))
    }

    /// The alias as it is now, inside the transaction, if it still names the key that the caller was
    /// found to have the right on: the same request again is decided anew.
    fn of_key(&self, rows: &mut Rows<'_>, id: &str) -> Result<Alias> {
        let alias = rows.alias(&self.account, &self.name)?.ok_or_else(|| self.not_found())?;
        if alias.target == id {
            return Ok(alias);
        }
        Err(Error::new(Condition::Throttled, "Rate exceeded")
            .logged(format!("{} was moved to another key meanwhile", self.arn)))
    }
}

/// The alias of this name, if it may be one of a customer's.
fn locate_alias(call: &Call, name: &str) -> Result<AliasTarget> {
    check_name(name)?;
    let account = call.caller.account.clone();
    let arn = alias_arn(&call.region, &account, name);
    Ok(AliasTarget { arn, account, name: name.to_owned() })
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let Some(rest) = name.strip_prefix(ALIAS_PREFIX) else {
        let text = "Alias must start with the prefix \"alias/\". Please see \
                    https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html";
        return Err(Error::new(Condition::Validation, text));
    };
    if name.starts_with(RESERVED_ALIAS_PREFIX) {
        return Err(Error::new(Condition::NotAuthorized, ""));
    }
    if rest.contains(':') {
        let text = format!("{name} contains invalid characters for an alias");
        return Err(Error::new(Condition::Validation, text));
    }
    Ok(())
}

/// The key that an alias is to point to: the customer's own, not waiting for its deletion, and of
/// the alias's account. The caller needs the right on the key as well as on the alias.
fn new_target(call: &Call, named: &str) -> Result<Allowed<KeyTarget>> {
    if let Named::Alias { .. } = parse(call, &call.caller.account, named)? {
        let text = "Aliases must refer to keys. Not aliases";
        return Err(Error::new(Condition::Validation, text));
    }
    let target = call.allow(call.row.action, locate_own(call, named)?)?;
    let key = target.customers(call)?;
    not_pending(key, target.arn())?;
    Ok(target)
}

/// The key an alias is to point to, as it is now, inside the transaction.
fn recheck(rows: &mut Rows<'_>, id: &str, arn: &str) -> Result<Key> {
    let gone = || Error::new(Condition::NotFound, format!("Key '{arn}' does not exist"));
    let key = rows.key(id)?.ok_or_else(gone)?;
    not_pending(&key, arn)?;
    Ok(key)
}

/// Refuses one more alias for a key that has all it may have.
fn check_number(rows: &mut Rows<'_>, key: &Key, arn: &str) -> Result<()> {
    if rows.aliases_of(&key.account, &key.id)?.len() < MOST_PER_KEY {
        return Ok(());
    }
    let text = format!("{arn} has {MOST_PER_KEY} aliases, the most that a KMS key can have");
    Err(Error::new(Condition::LimitExceeded, text))
}

/// What [`CreateAlias`] and [`UpdateAlias`] take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PointInput {
    alias_name: Option<String>,
    target_key_id: Option<String>,
}

impl Input for PointInput {
    fn check(&self, checks: &mut Checks) {
        check_alias_name(checks, &self.alias_name);
        checks.required("targetKeyId", &self.target_key_id);
        checks.length("targetKeyId", self.target_key_id.as_deref(), 1, 2048);
    }
}

pub(super) fn check_alias_name(checks: &mut Checks, name: &Option<String>) {
    checks.required("aliasName", name);
    checks.length("aliasName", name.as_deref(), 1, 256);
    let fits = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":/_-".contains(&b))
    };
    checks.pattern("aliasName", name.as_deref(), "^[a-zA-Z0-9:/_-]+$", fits);
}

/// CreateAlias: <https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateAlias.html>.
pub struct CreateAlias;

impl Operation for CreateAlias {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "CreateAlias";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "POST", path: "/aliases" };
    type Input = PointInput;
    type Target = AliasTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &PointInput) -> Result<AliasTarget> {
        let name = given(&input.alias_name, "aliasName")?;
        if name == ALIAS_PREFIX {
            let text = "An alias needs a name after the prefix \"alias/\"";
            return Err(Error::new(Condition::InvalidAliasName, text));
        }
        locate_alias(call, name)
    }

    async fn run(call: &Call, target: Allowed<AliasTarget>, input: PointInput) -> Result<Empty> {
        let to = new_target(call, given(&input.target_key_id, "targetKeyId")?)?;
        let (id, key_arn, now) = (to.key()?.id.clone(), to.arn().to_owned(), call.now);
        let AliasTarget { arn, account, name } = target.into_inner();
        call.commit(move |rows| {
            let key = recheck(rows, &id, &key_arn)?;
            if rows.alias(&account, &name)?.is_some() {
                let text = format!("An alias with the name {arn} already exists");
                return Err(Error::new(Condition::AlreadyExists, text));
            }
            check_number(rows, &key, &key_arn)?;
            let (account, name) = (account.clone(), name.clone());
            Ok(rows.put_alias(&Alias {
                account,
                name,
                target: key.id,
                created: now,
                updated: now,
            })?)
        })
        .await?;
        Ok(Empty {})
    }
}

/// UpdateAlias: <https://docs.aws.amazon.com/kms/latest/APIReference/API_UpdateAlias.html>.
pub struct UpdateAlias;

impl Operation for UpdateAlias {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "UpdateAlias";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "PUT", path: "/aliases/{AliasName}" };
    type Input = PointInput;
    type Target = AliasTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &PointInput) -> Result<AliasTarget> {
        locate_alias(call, given(&input.alias_name, "aliasName")?)
    }

    async fn run(call: &Call, target: Allowed<AliasTarget>, input: PointInput) -> Result<Empty> {
        let from = allow_key_of(call, &target)?;
        let to = new_target(call, given(&input.target_key_id, "targetKeyId")?)?;
        let (id, key_arn, now) = (to.key()?.id.clone(), to.arn().to_owned(), call.now);
        call.commit(move |rows| {
            let key = recheck(rows, &id, &key_arn)?;
            let alias = target.of_key(rows, &from)?;
            if alias.target != key.id {
                check_number(rows, &key, &key_arn)?;
            }
            Ok(rows.put_alias(&Alias { target: key.id, updated: now, ..alias })?)
        })
        .await?;
        Ok(Empty {})
    }
}

/// DeleteAlias: <https://docs.aws.amazon.com/kms/latest/APIReference/API_DeleteAlias.html>.
pub struct DeleteAlias;

/// What [`DeleteAlias`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteAliasInput {
    alias_name: Option<String>,
}

impl Input for DeleteAliasInput {
    fn check(&self, checks: &mut Checks) {
        check_alias_name(checks, &self.alias_name);
    }
}

impl Operation for DeleteAlias {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "DeleteAlias";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = Route { method: "DELETE", path: "/aliases/{AliasName}" };
    type Input = DeleteAliasInput;
    type Target = AliasTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &DeleteAliasInput) -> Result<AliasTarget> {
        locate_alias(call, given(&input.alias_name, "aliasName")?)
    }

    async fn run(call: &Call, target: Allowed<AliasTarget>, _: DeleteAliasInput) -> Result<Empty> {
        let from = allow_key_of(call, &target)?;
        call.commit(move |rows| {
            target.of_key(rows, &from)?;
            Ok(rows.delete_alias(&target.account, &target.name)?)
        })
        .await?;
        Ok(Empty {})
    }
}

/// Who moves or takes away an alias needs the right on the key that it names, too; answers that key's
/// id.
fn allow_key_of(call: &Call, target: &AliasTarget) -> Result<String> {
    let alias = call.records.alias(&target.account, &target.name)?;
    let id = alias.ok_or_else(|| target.not_found())?.target.clone();
    if let Some(key) = call.records.key(&id)? {
        call.allow(call.row.action, KeyTarget::found(&call.region, key))?;
    }
    Ok(id)
}

/// ListAliases: <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListAliases.html>.
pub struct ListAliases;

/// What [`ListAliases`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListAliasesInput {
    key_id: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListAliasesInput {
    fn check(&self, checks: &mut Checks) {
        checks.length("keyId", self.key_id.as_deref(), 1, 2048);
        self.paging.check(checks);
    }
}

/// A line of [`ListAliases`]'s answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AliasListEntry {
    alias_name: String,
    alias_arn: String,
    target_key_id: String,
    creation_date: Epoch,
    last_updated_date: Epoch,
}

/// What [`ListAliases`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListAliasesOutput {
    aliases: Vec<AliasListEntry>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListAliases {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListAliases";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/aliases" };
    type Input = ListAliasesInput;
    type Target = OwnAccount;
    type Output = ListAliasesOutput;

    async fn locate(call: &Call, _: &ListAliasesInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: ListAliasesInput,
    ) -> Result<ListAliasesOutput> {
        // AWS asks for no right on the key: the list without it tells as much.
        let of = input.key_id.as_deref().map(|named| locate_own(call, named)).transpose()?;
        let of = of.as_ref().map(KeyTarget::key).transpose()?.map(|key| key.id.clone());
        let scope = of.clone().unwrap_or_default();
        let (after, limit) = input.paging.start(call, &scope, 50, 100)?;
        let account = call.caller.account.clone();
        let found = call
            .records
            .scan(move |rows| aliases(rows, &account, of.as_deref(), &after, limit))
            .await?;
        let mut aliases: Vec<_> =
            found.into_iter().map(|alias| entry(&call.region, alias)).collect();
        let next = Next::cut(call, &scope, &mut aliases, limit, |entry| &entry.alias_name);
        Ok(ListAliasesOutput { aliases, next })
    }
}

/// Aliases after `after`, of one key or of all: one more than `limit`, if there are as many.
fn aliases(
    rows: &mut Rows<'_>,
    account: &str,
    of: Option<&str>,
    after: &str,
    limit: usize,
) -> Result<Vec<Alias>> {
    let Some(key) = of else { return Ok(rows.aliases(account, after, one_more(limit))?) };
    let all = rows.aliases_of(account, key)?.into_iter();
    Ok(all.filter(|alias| alias.name.as_str() > after).take(limit + 1).collect())
}

fn entry(region: &str, alias: Alias) -> AliasListEntry {
    AliasListEntry {
        alias_arn: alias_arn(region, &alias.account, &alias.name),
        alias_name: alias.name,
        target_key_id: alias.target,
        creation_date: Epoch(alias.created),
        last_updated_date: Epoch(alias.updated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_customer_s_alias_may_have() {
        let condition = |name| check_name(name).expect_err(name).condition;
        assert_eq!(condition("orders"), Condition::Validation);
        assert_eq!(condition("Alias/orders"), Condition::Validation);
        assert_eq!(condition("alias/orders:eu"), Condition::Validation);
        assert_eq!(condition("alias/aws/secretsmanager"), Condition::NotAuthorized);
        for name in ["alias/orders", "alias/aws-orders", "alias/a/b_c-1"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
    }
}
