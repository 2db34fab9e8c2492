//! What concerns an account as a whole: GetAccountSummary, ListAccountAliases; and the target of
//! lists.

use super::list::{BelowInput, Next, Paging};
use super::users::Everybody;
use super::{quota, route};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Error, Result};
use crate::ops::shape::Checks;
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::quotas;
use crate::store::principals::ManagedPolicy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything of a kind in the caller's account: what a list's policy names.
pub struct Everything {
    arn: String,
    account: String,
}

impl Target for Everything {
    fn arn(&self) -> &str {
        &self.arn
    }
    fn owner(&self) -> &str {
        &self.account
    }
}

impl Everything {
    /// Everything of a kind below a path, as AWS names it: `arn:aws:iam::ACCOUNT:user/a/b/`.
    pub(super) fn below(call: &Call, kind: &str, input: &BelowInput) -> Self {
        let account = call.caller.account.clone();
        let below = input.path_prefix.as_deref().unwrap_or("/");
        Self { arn: crate::store::principals::arn(kind, &account, below, ""), account }
    }

    /// The account itself, for actions without a resource.
    pub(super) fn of(call: &Call) -> Self {
        let arn = crate::ops::call::NO_RESOURCE.to_owned();
        Self { arn, account: call.caller.account.clone() }
    }
}

/// GetAccountSummary:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccountSummary.html>.
pub struct GetAccountSummary;

/// What operations take that take nothing.
#[derive(Deserialize, JsonSchema)]
pub struct NothingInput {}

impl Input for NothingInput {
    fn check(&self, _: &mut Checks) {}
}

/// What [`GetAccountSummary`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetAccountSummaryOutput {
    summary_map: BTreeMap<&'static str, i64>,
}

impl Operation for GetAccountSummary {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetAccountSummary";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/GetAccountSummary");
    type Input = NothingInput;
    type Target = Everything;
    type Output = GetAccountSummaryOutput;

    async fn locate(call: &Call, _: &NothingInput) -> Result<Everything> {
        Ok(Everything::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<Everything>,
        _: NothingInput,
    ) -> Result<GetAccountSummaryOutput> {
        let account = call.caller.account.clone();
        let read = call.records.scan::<_, Error>(move |rows| {
            let everybody = Everybody::read(rows, &account)?;
            let policies = rows.all_named::<ManagedPolicy>(&account)?;
            let root_keys = rows.access_keys_of(&account, &account)?.len();
            Ok((everybody, policies, root_keys))
        });
        let (everybody, policies, root_keys) = read.await?;
        Ok(GetAccountSummaryOutput { summary_map: summary(&everybody, &policies, root_keys) })
    }
}

fn summary(
    everybody: &Everybody,
    policies: &[ManagedPolicy],
    root_keys: usize,
) -> BTreeMap<&'static str, i64> {
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let versions = policies.iter().map(|policy| policy.versions.len()).sum();
    BTreeMap::from([
        ("Users", number(everybody.users.len())),
        ("UsersQuota", quota::USERS),
        ("Groups", number(everybody.groups.len())),
        ("GroupsQuota", quota::GROUPS),
        ("Roles", number(everybody.roles.len())),
        ("RolesQuota", quota::ROLES),
        ("Policies", number(policies.len())),
        ("PoliciesQuota", quota::POLICIES),
        ("PolicyVersionsInUse", number(versions)),
        ("PolicySizeQuota", number(quotas::MANAGED)),
        ("VersionsPerPolicyQuota", number(quota::VERSIONS)),
        ("GroupsPerUserQuota", number(quota::GROUPS_PER_USER)),
        ("AccessKeysPerUserQuota", number(quota::ACCESS_KEYS)),
        ("AttachedPoliciesPerUserQuota", number(quota::ATTACHED)),
        ("AttachedPoliciesPerGroupQuota", number(quota::ATTACHED)),
        ("AttachedPoliciesPerRoleQuota", number(quota::ATTACHED)),
        ("UserPolicySizeQuota", number(quotas::INLINE_USER)),
        ("GroupPolicySizeQuota", number(quotas::INLINE_GROUP)),
        ("RolePolicySizeQuota", number(quotas::INLINE_ROLE)),
        ("AssumeRolePolicySizeQuota", number(quotas::TRUST)),
        ("AccountAccessKeysPresent", i64::from(root_keys > 0)),
        ("AccountMFAEnabled", 0),
        ("MFADevices", 0),
        ("MFADevicesInUse", 0),
        ("Providers", 0),
    ])
}

/// ListAccountAliases:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListAccountAliases.html>. Accounts have
/// no aliases here: there is no sign-in page that would know them.
pub struct ListAccountAliases;

/// What [`ListAccountAliases`] takes.
#[derive(Deserialize, JsonSchema)]
pub struct ListAccountAliasesInput {
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListAccountAliasesInput {
    fn check(&self, checks: &mut Checks) {
        self.paging.check(checks);
    }
}

/// What [`ListAccountAliases`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListAccountAliasesOutput {
    account_aliases: Vec<String>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListAccountAliases {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListAccountAliases";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListAccountAliases");
    type Input = ListAccountAliasesInput;
    type Target = Everything;
    type Output = ListAccountAliasesOutput;

    async fn locate(call: &Call, _: &ListAccountAliasesInput) -> Result<Everything> {
        Ok(Everything::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<Everything>,
        input: ListAccountAliasesInput,
    ) -> Result<ListAccountAliasesOutput> {
        let (account_aliases, next) = input.paging.page(call, "", Vec::new(), String::clone)?;
        Ok(ListAccountAliasesOutput { account_aliases, next })
    }
}
