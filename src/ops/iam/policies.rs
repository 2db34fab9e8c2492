//! Managed policies: CreatePolicy, GetPolicy, ListPolicies, DeletePolicy.

use super::account::Everything;
use super::entity::{Holder, Of, add, attribute, remove};
use super::list::{Next, Paging, check_prefix};
use super::name::{self, Naming, OneInput, PolicyArn, PolicyName, check_path};
use super::tags::{self, TagPair};
use super::users::Everybody;
use super::{conflict, documents, no_such_entity, route};
use crate::envelope::access_key::random_id;
use crate::name::{Arn, Service};
use crate::ops::authority::last_part;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene::iso;
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::policy::document::Kind;
use crate::policy::managed::{self, Managed};
use crate::store::principals::{ManagedPolicy, PolicyVersion};
use crate::store::records::Rows;
use aws_lc_rs::digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// When the managed policies that every account has were written.
pub(super) const PUBLISHED: &str = "2026-01-01T00:00:00Z";
/// The one version that each of them has.
pub(super) const FIRST_VERSION: &str = "v1";

/// A managed policy that a request names by its ARN.
pub enum PolicyTarget {
    /// One that every account has.
    Ours {
        /// Its ARN.
        arn: String,
        /// The account that asks.
        account: String,
        /// The policy.
        policy: &'static Managed,
    },
    /// The account's own, there or not.
    Customers {
        /// The ARN that the request gave.
        arn: String,
        /// The account in it.
        owner: String,
        /// The one of that name, if the whole ARN fits.
        policy: Of<ManagedPolicy>,
    },
}

impl Target for PolicyTarget {
    fn arn(&self) -> &str {
        let (Self::Ours { arn, .. } | Self::Customers { arn, .. }) = self;
        arn
    }
    fn owner(&self) -> &str {
        match self {
            Self::Ours { account, .. } => account,
            Self::Customers { owner, .. } => owner,
        }
    }
    fn fact<'a>(&'a self, _: &'a Call, key: &str) -> Option<Values<'a>> {
        match self {
            Self::Customers { policy, .. } => attribute(&**policy.there().ok()?, key),
            Self::Ours { .. } => None,
        }
    }
}

impl PolicyTarget {
    /// The policy with this ARN.
    ///
    /// # Errors
    /// [`Condition::InvalidParameter`] for a text that is no policy's ARN; those of the database.
    pub(super) fn locate(call: &Call, arn: &str) -> Result<Self> {
        let arn = name::policy_arn(arn)?.to_owned();
        if let Some(policy) = managed::find(&arn) {
            return Ok(Self::Ours { arn, account: call.caller.account.clone(), policy });
        }
        let owner = match Arn::parse(&arn).map(|parsed| parsed.account) {
            Some("aws") | None => call.caller.account.clone(),
            Some(account) => account.to_owned(),
        };
        let found = Of::<ManagedPolicy>::named(call, last_part(&arn))?;
        let fits = found.arn() == arn;
        let policy = if fits { found } else { Of::new(call, "/", last_part(&arn)) };
        Ok(Self::Customers { arn, owner, policy })
    }

    /// The customer's own policy, there or not.
    ///
    /// # Errors
    /// [`Condition::AccessDenied`] for one that every account has: nobody changes those.
    pub(super) fn customers(&self) -> Result<&Of<ManagedPolicy>> {
        match self {
            Self::Customers { policy, arn, .. } => {
                policy.there().map_err(|_| missing(arn))?;
                Ok(policy)
            }
            Self::Ours { .. } => {
                Err(Error::new(Condition::AccessDenied, "Policy is outside your own account."))
            }
        }
    }
}

/// AWS's answer that there is no such policy.
pub(super) fn missing(arn: &str) -> Error {
    no_such_entity(format!("Policy {arn} was not found."))
}

/// How often each policy is in use: attached, as a boundary.
#[derive(Default)]
pub(super) struct Usage(HashMap<String, (i64, i64)>);

impl Usage {
    /// Counts them all.
    pub(super) fn read(rows: &mut Rows<'_>, account: &str) -> Result<Self> {
        Ok(Self::of(&Everybody::read(rows, account)?))
    }

    /// The same of principals that are at hand.
    pub(super) fn of(everybody: &Everybody) -> Self {
        let mut usage = Self::default();
        everybody.users.iter().for_each(|user| usage.count(user));
        everybody.groups.iter().for_each(|group| usage.count(group));
        everybody.roles.iter().for_each(|role| usage.count(role));
        usage
    }

    fn count<D: Holder>(&mut self, holder: &D) {
        for arn in holder.attached() {
            self.0.entry(arn.clone()).or_default().0 += 1;
        }
        if let Some(arn) = holder.boundary() {
            self.0.entry(arn.to_owned()).or_default().1 += 1;
        }
    }

    fn get(&self, arn: &str) -> (i64, i64) {
        self.0.get(arn).copied().unwrap_or_default()
    }
}

/// A policy in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyOut {
    policy_name: String,
    policy_id: String,
    arn: String,
    path: String,
    default_version_id: String,
    attachment_count: i64,
    permissions_boundary_usage_count: i64,
    is_attachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    create_date: String,
    update_date: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<TagPair>>,
}

impl PolicyOut {
    /// Without its description and tags, as lists have it.
    pub(super) fn short(policy: &ManagedPolicy, usage: &Usage) -> Self {
        let arn = policy.arn();
        let (attached, bounding) = usage.get(&arn);
        Self {
            policy_name: policy.name.clone(),
            policy_id: policy.id.clone(),
            arn,
            path: policy.path.clone(),
            default_version_id: policy.default.clone(),
            attachment_count: attached,
            permissions_boundary_usage_count: bounding,
            is_attachable: true,
            description: None,
            create_date: iso(policy.created),
            update_date: iso(policy.updated),
            tags: None,
        }
    }

    fn of(policy: &ManagedPolicy, usage: &Usage) -> Self {
        Self {
            description: policy.description.clone(),
            tags: tags::shown(&policy.tags),
            ..Self::short(policy, usage)
        }
    }

    /// One that every account has.
    pub(super) fn ours(policy: &Managed, usage: &Usage) -> Self {
        let arn = [managed::PREFIX, policy.name].concat();
        let (attached, bounding) = usage.get(&arn);
        Self {
            policy_name: policy.name.to_owned(),
            policy_id: our_id(policy.name),
            arn,
            path: "/".to_owned(),
            default_version_id: FIRST_VERSION.to_owned(),
            attachment_count: attached,
            permissions_boundary_usage_count: bounding,
            is_attachable: true,
            description: Some(policy.description.to_owned()),
            create_date: PUBLISHED.to_owned(),
            update_date: PUBLISHED.to_owned(),
            tags: None,
        }
    }
}

/// The id of a policy that every account has: made of its name.
fn our_id(name: &str) -> String {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let letter = |byte: &u8| alphabet.get(usize::from(byte & 31)).copied().unwrap_or(b'A');
    let letters = digest.as_ref().iter().take(16).map(|byte| char::from(letter(byte)));
    "ANPA".chars().chain(letters).collect()
}

/// CreatePolicy: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreatePolicy.html>.
pub struct CreatePolicy;

/// What [`CreatePolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreatePolicyInput {
    #[serde(flatten)]
    naming: PolicyName,
    path: Option<String>,
    policy_document: Option<String>,
    description: Option<String>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    tags: Option<Vec<TagPair>>,
}

impl Input for CreatePolicyInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        check_path(checks, "path", self.path.as_deref());
        checks.required("policyDocument", &self.policy_document);
        documents::check(checks, "policyDocument", self.policy_document.as_deref());
        checks.length("description", self.description.as_deref(), 0, 1000);
        tags::check(checks, self.tags.as_deref());
    }
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        tags::brought(self.tags.as_deref(), key)
    }
}

/// What [`CreatePolicy`] and [`GetPolicy`] answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyOutput {
    policy: PolicyOut,
}

/// A managed policy's document, if it is one and not too long.
pub(super) fn sound(document: &str) -> Result<String> {
    documents::sound(document, Kind::Managed)?;
    Ok(document.to_owned())
}

impl Operation for CreatePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreatePolicy";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/CreatePolicy");
    type Input = CreatePolicyInput;
    type Target = Of<ManagedPolicy>;
    type Output = PolicyOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<ManagedPolicy>> {
        Ok(Of::new(call, name::path(input.path.as_deref())?, input.naming.name()?))
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<ManagedPolicy>>,
        input: CreatePolicyInput,
    ) -> Result<PolicyOutput> {
        let tags = tags::allowed(call, "TagPolicy", target.into_inner(), input.tags.as_deref())?;
        let document = sound(given(&input.policy_document, "policyDocument")?)?;
        let first = PolicyVersion { id: FIRST_VERSION.to_owned(), document, created: call.now };
        let policy = ManagedPolicy {
            account: call.caller.account.clone(),
            name: input.naming.name()?.to_owned(),
            path: name::path(input.path.as_deref())?.to_owned(),
            id: random_id(&*call.world.random, "ANPA")?,
            description: input.description,
            created: call.now,
            updated: call.now,
            versions: vec![first],
            default: FIRST_VERSION.to_owned(),
            next: 2,
            tags,
            revision: 1,
        };
        let output = PolicyOutput { policy: PolicyOut::of(&policy, &Usage::default()) };
        call.answering(&output)?;
        call.commit(move |rows| add(rows, &policy)).await?;
        Ok(output)
    }
}

/// GetPolicy: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetPolicy.html>.
pub struct GetPolicy;

impl Operation for GetPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetPolicy";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/GetPolicy");
    type Input = OneInput<PolicyArn>;
    type Target = PolicyTarget;
    type Output = PolicyOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, given(input.naming.value(), "policyArn")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<PolicyTarget>,
        _: Self::Input,
    ) -> Result<PolicyOutput> {
        let account = call.caller.account.clone();
        let usage = call.records.scan::<_, Error>(move |rows| Usage::read(rows, &account)).await?;
        let policy = match &*target {
            PolicyTarget::Ours { policy, .. } => PolicyOut::ours(policy, &usage),
            PolicyTarget::Customers { .. } => PolicyOut::of(target.customers()?.there()?, &usage),
        };
        Ok(PolicyOutput { policy })
    }
}

/// ListPolicies: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListPolicies.html>.
pub struct ListPolicies;

/// What [`ListPolicies`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListPoliciesInput {
    scope: Option<String>,
    only_attached: Option<bool>,
    path_prefix: Option<String>,
    policy_usage_filter: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListPoliciesInput {
    fn check(&self, checks: &mut Checks) {
        checks.one_of("scope", self.scope.as_deref(), &["All", "AWS", "Local"]);
        check_prefix(checks, self.path_prefix.as_deref());
        let usages = ["PermissionsPolicy", "PermissionsBoundary"];
        checks.one_of("policyUsageFilter", self.policy_usage_filter.as_deref(), &usages);
        self.paging.check(checks);
    }
}

impl ListPoliciesInput {
    fn wants(&self, policy: &PolicyOut) -> bool {
        let below = self.path_prefix.as_deref().unwrap_or("/");
        let (attached, bounding) =
            (policy.attachment_count > 0, policy.permissions_boundary_usage_count > 0);
        let used = match self.policy_usage_filter.as_deref() {
            None => !self.only_attached.unwrap_or(false) || attached || bounding,
            Some("PermissionsBoundary") => bounding,
            Some(_) => attached,
        };
        used && policy.path.starts_with(below)
    }

    /// What else shapes the list, for its markers.
    fn shape(&self) -> String {
        let text = |member: &Option<String>| member.clone().unwrap_or_default();
        let only = self.only_attached.unwrap_or(false);
        let usage = text(&self.policy_usage_filter);
        format!("{} {only} {usage} {}", text(&self.scope), text(&self.path_prefix))
    }
}

/// What [`ListPolicies`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListPoliciesOutput {
    policies: Vec<PolicyOut>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListPolicies {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListPolicies";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListPolicies");
    type Input = ListPoliciesInput;
    type Target = Everything;
    type Output = ListPoliciesOutput;

    async fn locate(call: &Call, _: &ListPoliciesInput) -> Result<Everything> {
        Ok(Everything::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<Everything>,
        input: ListPoliciesInput,
    ) -> Result<ListPoliciesOutput> {
        let account = call.caller.account.clone();
        let read = call.records.scan::<_, Error>(move |rows| {
            Ok((Usage::read(rows, &account)?, rows.all_named::<ManagedPolicy>(&account)?))
        });
        let (usage, customers) = read.await?;
        let scope = input.scope.as_deref().unwrap_or("All");
        let mut all = Vec::new();
        if scope != "AWS" {
            all.extend(customers.iter().map(|policy| PolicyOut::short(policy, &usage)));
        }
        if scope != "Local" {
            all.extend(managed::ALL.iter().map(|policy| PolicyOut::ours(policy, &usage)));
        }
        all.retain(|policy| input.wants(policy));
        let (policies, next) =
            input.paging.page(call, &input.shape(), all, |policy| policy.arn.clone())?;
        Ok(ListPoliciesOutput { policies, next })
    }
}

/// DeletePolicy: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeletePolicy.html>.
pub struct DeletePolicy;

impl Operation for DeletePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeletePolicy";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/DeletePolicy");
    type Input = OneInput<PolicyArn>;
    type Target = PolicyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, given(input.naming.value(), "policyArn")?)
    }

    async fn run(call: &Call, target: Allowed<PolicyTarget>, _: Self::Input) -> Result<Empty> {
        remove(call, target.customers()?, |policy, rows| {
            if Usage::read(rows, &policy.account)?.get(&policy.arn()) != (0, 0) {
                return Err(conflict("Cannot delete a policy attached to entities."));
            }
            if policy.versions.len() > 1 {
                return Err(conflict(
                    "This policy has more than one version. Before you delete a policy, you must \
                     delete the policy's versions. The default version is deleted with the policy.",
                ));
            }
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}
