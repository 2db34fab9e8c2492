//! ListGrants and ListRetirableGrants.

use super::terms::ConstraintsShape;
use super::{check_grant_id, check_principal, check_service, no_service};
use crate::name::{Arn, Service, key_arn};
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::holder::{account_arn, find, shown};
use crate::ops::keys::list::{Next, Paging, one_more};
use crate::ops::keys::{KeyTarget, check_key_id, locate_key};
use crate::ops::shape::{Checks, Epoch, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::grants::Grant;
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of both lists.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GrantListEntry {
    key_id: String,
    grant_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    creation_date: Epoch,
    grantee_principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retiring_principal: Option<String>,
    issuing_account: String,
    operations: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    constraints: Option<ConstraintsShape>,
}

impl GrantListEntry {
    fn of(call: &Call, grant: Grant) -> Result<Self> {
        Ok(Self {
            key_id: key_arn(&call.region, &grant.account, &grant.key),
            grant_id: grant.id,
            name: grant.name,
            creation_date: Epoch(grant.created),
            grantee_principal: shown(&call.records, &grant.grantee)?,
            retiring_principal: grant
                .retiring
                .map(|holder| shown(&call.records, &holder))
                .transpose()?,
            issuing_account: account_arn(&grant.issuer),
            operations: grant.operations,
            constraints: ConstraintsShape::of(grant.constraints),
        })
    }
}

/// What both operations answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GrantsOutput {
    grants: Vec<GrantListEntry>,
    #[serde(flatten)]
    next: Next,
}

impl GrantsOutput {
    /// A page: what `load` finds after a position, as many as it is told.
    async fn page(
        call: &Call,
        paging: &Paging,
        scope: &str,
        load: impl Fn(&mut Rows<'_>, &str, i64) -> Result<Vec<Grant>> + Send + 'static,
    ) -> Result<Self> {
        let (after, limit) = paging.start(call, scope, 50, 100)?;
        let found = call.records.scan(move |rows| load(rows, &after, one_more(limit))).await?;
        let of = |grant| GrantListEntry::of(call, grant);
        let mut grants = found.into_iter().map(of).collect::<Result<Vec<_>>>()?;
        let next = Next::cut(call, scope, &mut grants, limit, |entry| &entry.grant_id);
        Ok(Self { grants, next })
    }
}

/// ListGrants: <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListGrants.html>.
pub struct ListGrants;

/// What [`ListGrants`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListGrantsInput {
    key_id: Option<String>,
    grant_id: Option<String>,
    grantee_principal: Option<String>,
    grantee_service_principal: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListGrantsInput {
    fn check(&self, checks: &mut Checks) {
        check_key_id(checks, &self.key_id);
        checks.length("grantId", self.grant_id.as_deref(), 1, 128);
        check_principal(checks, "granteePrincipal", self.grantee_principal.as_deref());
        let service = self.grantee_service_principal.as_deref();
        check_service(checks, "granteeServicePrincipal", service);
        self.paging.check(checks);
    }

    fn fact(&self, key: &str) -> Option<Values<'_>> {
        (key == "kms:grantisforawsresource").then(|| Values::truth(false))
    }
}

impl Operation for ListGrants {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListGrants";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/keys/{KeyId}/grants" };
    type Input = ListGrantsInput;
    type Target = KeyTarget;
    type Output = GrantsOutput;

    async fn locate(call: &Call, input: &ListGrantsInput) -> Result<KeyTarget> {
        no_service([&input.grantee_service_principal, &None])?;
        input.grant_id.as_deref().map_or(Ok(()), check_grant_id)?;
        locate_key(call, given(&input.key_id, "keyId")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<KeyTarget>,
        input: ListGrantsInput,
    ) -> Result<GrantsOutput> {
        let key = target.key()?.id.clone();
        let grantee = input.grantee_principal.map(|arn| find(&call.records, &arn)).transpose()?;
        let (grantee, id) = (grantee.map(|holder| holder.id), input.grant_id);
        let shape = [grantee.as_deref().unwrap_or_default(), id.as_deref().unwrap_or_default()];
        let scope = [&key, "/", &shape.join("/")].concat();
        GrantsOutput::page(call, &input.paging, &scope, move |rows, after, limit| match &id {
            Some(id) => one(rows, &key, grantee.as_deref(), id, after),
            None => Ok(rows.grants_on(&key, grantee.as_deref(), after, limit)?),
        })
        .await
    }
}

/// The grant of this id, if the other filters let it through.
fn one(
    rows: &mut Rows<'_>,
    key: &str,
    grantee: Option<&str>,
    id: &str,
    after: &str,
) -> Result<Vec<Grant>> {
    let fits = |grant: &Grant| {
        grant.key == key
            && grantee.is_none_or(|grantee| grant.grantee.id == grantee)
            && grant.id.as_str() > after
    };
    Ok(rows.grant(id)?.filter(fits).into_iter().collect())
}

/// ListRetirableGrants:
/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_ListRetirableGrants.html>.
pub struct ListRetirableGrants;

/// What [`ListRetirableGrants`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListRetirableGrantsInput {
    retiring_principal: Option<String>,
    retiring_service_principal: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListRetirableGrantsInput {
    fn check(&self, checks: &mut Checks) {
        check_principal(checks, "retiringPrincipal", self.retiring_principal.as_deref());
        let service = self.retiring_service_principal.as_deref();
        check_service(checks, "retiringServicePrincipal", service);
        self.paging.check(checks);
    }
}

impl Operation for ListRetirableGrants {
    const SERVICE: Service = Service::Kms;
    const NAME: &'static str = "ListRetirableGrants";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "GET", path: "/grants" };
    type Input = ListRetirableGrantsInput;
    type Target = OwnAccount;
    type Output = GrantsOutput;

    async fn locate(call: &Call, input: &ListRetirableGrantsInput) -> Result<OwnAccount> {
        no_service([&input.retiring_service_principal, &None])?;
        let arn = input.retiring_principal.as_deref().ok_or_else(|| {
            let text = "Either RetiringPrincipal or RetiringServicePrincipal must be specified.";
            Error::new(Condition::Validation, text)
        })?;
        if Arn::parse(arn).is_none_or(|arn| arn.account != call.caller.account) {
            let text = format!("{arn} is no principal of account {}", call.caller.account);
            return Err(Error::new(Condition::InvalidArn, text));
        }
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: ListRetirableGrantsInput,
    ) -> Result<GrantsOutput> {
        let arn = given(&input.retiring_principal, "retiringPrincipal")?;
        let retiring = find(&call.records, arn)?.id;
        let scope = retiring.clone();
        GrantsOutput::page(call, &input.paging, &scope, move |rows, after, limit| {
            Ok(rows.grants_retired_by(&retiring, after, limit)?)
        })
        .await
    }
}
