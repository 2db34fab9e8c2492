//! SimulateCustomPolicy and SimulatePrincipalPolicy: the evaluator that decides requests, asked for
//! the sake of the answer.

use super::account::Everything;
use super::entity::{Entity, Holder, Of};
use super::list::{Next, Paging};
use super::route;
use crate::name::{Arn, Service, is_account};
use crate::ops::authority::{compiled, group_of, last_part, managed_policy};
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::document::{self, Kind};
use crate::policy::{
    Caller, Decision, Facts, OfResource, Policies, Policy, Reason, Request, Source, Values, decide,
    managed,
};
use crate::store::principals::{Group, Role, User};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most pairs of action and resource in one request.
const MOST: usize = 10_000;

/// A condition key that the simulated request has.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ContextEntry {
    context_key_name: Option<String>,
    context_key_values: Option<Vec<String>>,
    context_key_type: Option<String>,
}

/// What both operations take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Scenario {
    policy_input_list: Option<Vec<String>>,
    permissions_boundary_policy_input_list: Option<Vec<String>>,
    action_names: Option<Vec<String>>,
    resource_arns: Option<Vec<String>>,
    resource_policy: Option<String>,
    resource_owner: Option<String>,
    caller_arn: Option<String>,
    #[serde(default, deserialize_with = "crate::ops::shape::objects")]
    context_entries: Option<Vec<ContextEntry>>,
    #[serde(flatten)]
    paging: Paging,
}

impl Scenario {
    fn check(&self, checks: &mut Checks) {
        checks.required("actionNames", &self.action_names);
        for (n, action) in (1..).zip(self.action_names.as_deref().unwrap_or_default()) {
            checks.length(&format!("actionNames.{n}.member"), Some(action), 3, 128);
        }
        for (n, arn) in (1..).zip(self.resource_arns.as_deref().unwrap_or_default()) {
            checks.length(&format!("resourceArns.{n}.member"), Some(arn), 1, 2048);
        }
        checks.length("resourceOwner", self.resource_owner.as_deref(), 1, 2048);
        checks.length("callerArn", self.caller_arn.as_deref(), 1, 2048);
        for (n, entry) in (1..).zip(self.context_entries.as_deref().unwrap_or_default()) {
            let name = format!("contextEntries.{n}.member.contextKeyName");
            checks.length(&name, entry.context_key_name.as_deref(), 5, 256);
        }
        self.paging.check(checks);
    }
}

fn refused(text: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Condition::InvalidParameter, text)
}

/// The policies that are simulated.
struct Cast {
    caller: Caller,
    identity: Vec<Arc<Policy>>,
    boundary: Option<Arc<Policy>>,
    resource: Option<Arc<Policy>>,
}

/// A policy of the request's.
fn written(member: &str, text: &str, kind: Kind) -> Result<Arc<Policy>> {
    match document::parse(text, kind) {
        Ok(document) => Ok(Arc::new(Policy::compile(member, document))),
        Err(why) => Err(refused(format!("{member} is not a valid policy: {why}"))),
    }
}

fn all_written(member: &str, texts: Option<&[String]>) -> Result<Vec<Arc<Policy>>> {
    let numbered = (1..).zip(texts.unwrap_or_default());
    numbered.map(|(n, text)| written(&format!("{member}.{n}"), text, Kind::Identity)).collect()
}

impl Cast {
    /// Adds the request's policies to those of a principal.
    fn new(
        scenario: &Scenario,
        caller: Caller,
        mut identity: Vec<Arc<Policy>>,
        boundary: Option<Arc<Policy>>,
    ) -> Result<Self> {
        identity.extend(all_written("PolicyInputList", scenario.policy_input_list.as_deref())?);
        let bounds = scenario.permissions_boundary_policy_input_list.as_deref();
        if bounds.is_some_and(|bounds| bounds.len() > 1) {
            return Err(refused("There is one permissions boundary at most."));
        }
        let given = all_written("PermissionsBoundaryPolicyInputList", bounds)?;
        let resource = scenario.resource_policy.as_deref();
        let resource = resource.map(|text| {
            // A key's policy may lack what others must have.
            written("ResourcePolicy", text, Kind::Key)
        });
        Ok(Self {
            caller,
            identity,
            boundary: given.into_iter().next().or(boundary),
            resource: resource.transpose()?,
        })
    }

    fn result(&self, scenario: &Scenario, action: &str, resource: &str) -> ResultOut {
        let facts = Context { scenario, caller: &self.caller, missing: RefCell::default() };
        let owner = scenario.resource_owner.as_deref().and_then(account_of);
        let owner = owner.unwrap_or(&self.caller.account);
        let request = Request { caller: &self.caller, action, resource, owner, facts: &facts };
        let policies = Policies {
            identity: &self.identity,
            boundary: self.boundary.as_deref(),
            resource: self.of_resource(resource),
        };
        let decision = decide(&request, &policies);
        let (eval_decision, reason) = match &decision {
            Decision::Allow(reason) => ("allowed", Some(reason)),
            Decision::ExplicitDeny(reason) => ("explicitDeny", Some(reason)),
            Decision::ImplicitDeny(_) => ("implicitDeny", None),
        };
        let matched = reason.and_then(matched).into_iter().collect();
        let bounded = self.boundary.as_ref().map(|boundary| {
            let alone = std::slice::from_ref(boundary);
            let policies = Policies { identity: alone, boundary: None, resource: OfResource::None };
            let at_home = Request { owner: &self.caller.account, ..request };
            let allowed = matches!(decide(&at_home, &policies), Decision::Allow(_));
            BoundaryDetail { allowed_by_permissions_boundary: allowed }
        });
        ResultOut {
            eval_action_name: action.to_owned(),
            eval_resource_name: resource.to_owned(),
            eval_decision,
            matched_statements: matched,
            missing_context_values: self.as_written(&facts.missing.into_inner()),
            permissions_boundary_decision_detail: bounded,
        }
    }

    fn of_resource(&self, arn: &str) -> OfResource<'_> {
        match self.resource.as_deref() {
            Some(policy) if arn.starts_with("arn:aws:kms:") => OfResource::Rules(policy),
            policy => OfResource::Adds(policy),
        }
    }

    /// Condition keys as the policies write them.
    fn as_written(&self, keys: &BTreeSet<String>) -> Vec<String> {
        let own = self.boundary.iter().chain(&self.resource);
        let policies: Vec<_> = self.identity.iter().chain(own).collect();
        let written = |key: &String| {
            let statements = policies.iter().flat_map(|p| &p.document().statements);
            let mut conditions = statements.flat_map(|s| &s.conditions);
            let found = conditions.find(|c| c.key.eq_ignore_ascii_case(key));
            found.map_or_else(|| key.clone(), |c| c.key.clone())
        };
        keys.iter().map(written).collect()
    }
}

/// The account that an ARN or a bare id names.
fn account_of(text: &str) -> Option<&str> {
    Arn::parse(text).map_or(Some(text), |arn| Some(arn.account)).filter(|id| is_account(id))
}

/// The condition keys of the simulated request, and those that were asked for in vain.
struct Context<'a> {
    scenario: &'a Scenario,
    caller: &'a Caller,
    missing: RefCell<BTreeSet<String>>,
}

impl Facts for Context<'_> {
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        let entries = self.scenario.context_entries.as_deref().unwrap_or_default();
        let named = |e: &&ContextEntry| {
            e.context_key_name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(key))
        };
        let given = entries.iter().find(named).and_then(values);
        let found = given.or_else(|| of_caller(self.caller, key));
        if found.is_none() {
            self.missing.borrow_mut().insert(key.to_owned());
        }
        found
    }
}

fn values(entry: &ContextEntry) -> Option<Values<'_>> {
    let values = entry.context_key_values.as_deref()?;
    let list = entry.context_key_type.as_deref().is_some_and(|kind| kind.ends_with("List"));
    match values {
        [one] if !list => Some(Values::one(one)),
        all => Some(Values::Many(all.iter().map(|v| Cow::Borrowed(v.as_str())).collect())),
    }
}

/// What the caller says by itself.
fn of_caller<'a>(caller: &'a Caller, key: &str) -> Option<Values<'a>> {
    match key {
        "aws:principalarn" => Some(Values::one(&caller.arn)),
        "aws:principalaccount" => Some(Values::one(&caller.account)),
        "aws:username" if caller.arn.contains(":user/") => {
            Some(Values::one(last_part(&caller.arn)))
        }
        "aws:userid" if !caller.principal_id.is_empty() => Some(Values::one(&caller.principal_id)),
        _ => None,
    }
}

/// A statement that decided.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct StatementOut {
    source_policy_id: String,
    source_policy_type: &'static str,
}

fn matched(reason: &Reason<'_>) -> Option<StatementOut> {
    let name = &reason.policy?.name;
    let kind = ["user", "group", "role"]
        .into_iter()
        .find(|kind| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('_')));
    let (id, kind) = match kind {
        _ if reason.source == Source::Resource => (name.as_str(), "resource"),
        _ if name.starts_with(managed::PREFIX) => (last_part(name), "aws-managed"),
        _ if name.starts_with("arn:") => (last_part(name), "user-managed"),
        kind => (name.as_str(), kind.unwrap_or("none")),
    };
    Some(StatementOut { source_policy_id: id.to_owned(), source_policy_type: kind })
}

/// What a boundary says by itself.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct BoundaryDetail {
    allowed_by_permissions_boundary: bool,
}

/// The answer for one action on one resource.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ResultOut {
    eval_action_name: String,
    eval_resource_name: String,
    eval_decision: &'static str,
    matched_statements: Vec<StatementOut>,
    missing_context_values: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions_boundary_decision_detail: Option<BoundaryDetail>,
}

/// What both operations answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct SimulateOutput {
    evaluation_results: Vec<ResultOut>,
    #[serde(flatten)]
    next: Next,
}

/// Evaluates one page of actions and resources.
fn play(call: &Call, scenario: &Scenario, cast: &Cast) -> Result<SimulateOutput> {
    let actions = given(&scenario.action_names, "actionNames")?;
    let anything = [crate::ops::call::NO_RESOURCE.to_owned()];
    let resources = scenario.resource_arns.as_deref().filter(|arns| !arns.is_empty());
    let resources = resources.unwrap_or(&anything);
    if actions.len().saturating_mul(resources.len()) > MOST {
        return Err(refused(format!("More than {MOST} pairs of action and resource.")));
    }
    let pairs: Vec<_> =
        actions.iter().flat_map(|a| resources.iter().map(move |r| (a, r))).enumerate().collect();
    let (page, next) = scenario.paging.page(call, "", pairs, |(at, _)| format!("{at:06}"))?;
    let one = |(_, (action, resource)): &(usize, (&String, &String))| {
        cast.result(scenario, action, resource)
    };
    Ok(SimulateOutput { evaluation_results: page.iter().map(one).collect(), next })
}

/// The caller of a simulated request: the one that is named, or a user of the caller's account.
fn caller(call: &Call, named: Option<&str>, source: Option<(String, &str)>) -> Result<Caller> {
    let (arn, id) = match (named, source) {
        (Some(arn), _) => (arn.to_owned(), ""),
        (None, Some((arn, id))) => (arn, id),
        (None, None) => (call.caller.arn.clone(), ""),
    };
    let account = Arn::parse(&arn).map(|parsed| parsed.account).filter(|id| is_account(id));
    let account = account.ok_or_else(|| refused(format!("Invalid Entity Arn: {arn}")))?;
    Ok(Caller::user(account, &arn, id))
}

/// SimulateCustomPolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulateCustomPolicy.html>.
pub struct SimulateCustomPolicy;

/// What [`SimulateCustomPolicy`] takes.
#[derive(Deserialize, JsonSchema)]
pub struct CustomInput {
    #[serde(flatten)]
    scenario: Scenario,
}

impl Input for CustomInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("policyInputList", &self.scenario.policy_input_list);
        self.scenario.check(checks);
    }
}

impl Operation for SimulateCustomPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "SimulateCustomPolicy";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/SimulateCustomPolicy");
    type Input = CustomInput;
    type Target = Everything;
    type Output = SimulateOutput;

    async fn locate(call: &Call, _: &CustomInput) -> Result<Everything> {
        Ok(Everything::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<Everything>,
        input: CustomInput,
    ) -> Result<SimulateOutput> {
        let caller = caller(call, input.scenario.caller_arn.as_deref(), None)?;
        let cast = Cast::new(&input.scenario, caller, Vec::new(), None)?;
        play(call, &input.scenario, &cast)
    }
}

/// SimulatePrincipalPolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html>.
pub struct SimulatePrincipalPolicy;

/// What [`SimulatePrincipalPolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PrincipalInput {
    policy_source_arn: Option<String>,
    #[serde(flatten)]
    scenario: Scenario,
}

impl Input for PrincipalInput {
    fn check(&self, checks: &mut Checks) {
        checks.required("policySourceArn", &self.policy_source_arn);
        checks.length("policySourceArn", self.policy_source_arn.as_deref(), 20, 2048);
        self.scenario.check(checks);
    }
}

/// Whose policies are simulated, there or not.
pub enum PolicySource {
    /// A user's and its groups'.
    User(Of<User>),
    /// A group's.
    Group(Of<Group>),
    /// A role's.
    Role(Of<Role>),
}

impl PolicySource {
    fn locate(call: &Call, arn: &str) -> Result<Self> {
        let invalid = || refused(format!("Invalid Entity Arn: {arn}"));
        let parsed = Arn::parse(arn).filter(|a| a.service == Service::Iam.prefix());
        let parsed = parsed.filter(|a| a.account == call.caller.account).ok_or_else(invalid)?;
        let name = last_part(arn);
        match parsed.resource.split_once('/').map(|(kind, _)| kind) {
            Some("user") => Ok(Self::User(Of::named(call, name)?)),
            Some("group") => Ok(Self::Group(Of::named(call, name)?)),
            Some("role") => Ok(Self::Role(Of::named(call, name)?)),
            _ => Err(invalid()),
        }
    }
}

impl Target for PolicySource {
    fn arn(&self) -> &str {
        match self {
            Self::User(user) => user.arn(),
            Self::Group(group) => group.arn(),
            Self::Role(role) => role.arn(),
        }
    }
    fn owner(&self) -> &str {
        match self {
            Self::User(user) => user.owner(),
            Self::Group(group) => group.owner(),
            Self::Role(role) => role.owner(),
        }
    }
    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        match self {
            Self::User(user) => user.fact(call, key),
            Self::Group(group) => group.fact(call, key),
            Self::Role(role) => role.fact(call, key),
        }
    }
}

/// The policies that hang on one holder.
fn hanging<D: Holder>(rows: &mut Rows<'_>, holder: &D) -> Result<Vec<Arc<Policy>>> {
    let mut all = Vec::new();
    for policy in holder.inline() {
        let name = [D::NOUN, "_", holder.name(), "_", &policy.name].concat();
        all.push(compiled(&name, &policy.document)?);
    }
    for arn in holder.attached() {
        all.push(managed_policy(rows, holder.account(), arn)?);
    }
    Ok(all)
}

fn boundary<D: Entity>(rows: &mut Rows<'_>, entity: &D) -> Result<Option<Arc<Policy>>> {
    entity.boundary().map(|arn| managed_policy(rows, entity.account(), arn)).transpose()
}

/// Identity policies and boundary of whom a request names.
type Having = (Vec<Arc<Policy>>, Option<Arc<Policy>>);

fn having(rows: &mut Rows<'_>, source: &PolicySource) -> Result<Having> {
    match source {
        PolicySource::User(user) => {
            let user = user.there()?;
            let mut all = hanging(rows, &**user)?;
            for name in &user.groups {
                let group = group_of(rows, &user.account, name)?;
                all.extend(hanging(rows, &group)?);
            }
            Ok((all, boundary(rows, &**user)?))
        }
        PolicySource::Group(group) => Ok((hanging(rows, &**group.there()?)?, None)),
        PolicySource::Role(role) => {
            let role = role.there()?;
            Ok((hanging(rows, &**role)?, boundary(rows, &**role)?))
        }
    }
}

impl Operation for SimulatePrincipalPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "SimulatePrincipalPolicy";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/SimulatePrincipalPolicy");
    type Input = PrincipalInput;
    type Target = PolicySource;
    type Output = SimulateOutput;

    async fn locate(call: &Call, input: &PrincipalInput) -> Result<PolicySource> {
        PolicySource::locate(call, given(&input.policy_source_arn, "policySourceArn")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<PolicySource>,
        input: PrincipalInput,
    ) -> Result<SimulateOutput> {
        let (identity, boundary) = call.records.read(|rows| having(rows, &target))?;
        let id = match &*target {
            PolicySource::User(user) => user.there()?.id.as_str(),
            PolicySource::Group(_) => "",
            PolicySource::Role(role) => role.there()?.id.as_str(),
        };
        let source = (target.arn().to_owned(), id);
        let caller = caller(call, input.scenario.caller_arn.as_deref(), Some(source))?;
        let cast = Cast::new(&input.scenario, caller, identity, boundary)?;
        play(call, &input.scenario, &cast)
    }
}
