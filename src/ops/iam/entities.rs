//! ListEntitiesForPolicy.

use super::entity::Holder;
use super::list::{Next, Paging, check_prefix};
use super::name::{Naming, PolicyArn};
use super::policies::PolicyTarget;
use super::route;
use super::users::Everybody;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Error, Result};
use crate::ops::shape::{Checks, given};
use crate::ops::{Access, Input, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// ListEntitiesForPolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListEntitiesForPolicy.html>.
pub struct ListEntitiesForPolicy;

/// What [`ListEntitiesForPolicy`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListEntitiesForPolicyInput {
    #[serde(flatten)]
    naming: PolicyArn,
    entity_filter: Option<String>,
    path_prefix: Option<String>,
    policy_usage_filter: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl Input for ListEntitiesForPolicyInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        let kinds = ["User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy"];
        checks.one_of("entityFilter", self.entity_filter.as_deref(), &kinds);
        check_prefix(checks, self.path_prefix.as_deref());
        let usages = ["PermissionsPolicy", "PermissionsBoundary"];
        checks.one_of("policyUsageFilter", self.policy_usage_filter.as_deref(), &usages);
        self.paging.check(checks);
    }
}

impl ListEntitiesForPolicyInput {
    fn wants<D: Holder>(&self, holder: &D, arn: &str) -> bool {
        let below = self.path_prefix.as_deref().unwrap_or("/");
        let attached = holder.attached().iter().any(|a| a == arn);
        let bounded = holder.boundary() == Some(arn);
        let used = match self.policy_usage_filter.as_deref() {
            None => attached || bounded,
            Some("PermissionsBoundary") => bounded,
            Some(_) => attached,
        };
        let kind = self.entity_filter.as_deref();
        used && kind.is_none_or(|kind| kind.eq_ignore_ascii_case(D::NOUN))
            && holder.path().starts_with(below)
    }

    fn shape(&self, arn: &str) -> String {
        let text = |member: &Option<String>| member.clone().unwrap_or_default();
        let (kind, usage) = (text(&self.entity_filter), text(&self.policy_usage_filter));
        format!("{arn} {kind} {usage} {}", text(&self.path_prefix))
    }
}

/// A user that has the policy.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyUser {
    user_name: String,
    user_id: String,
}

/// A group that has the policy.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyGroup {
    group_name: String,
    group_id: String,
}

/// A role that has the policy.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyRole {
    role_name: String,
    role_id: String,
}

/// What [`ListEntitiesForPolicy`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListEntitiesForPolicyOutput {
    policy_groups: Vec<PolicyGroup>,
    policy_users: Vec<PolicyUser>,
    policy_roles: Vec<PolicyRole>,
    #[serde(flatten)]
    next: Next,
}

/// One that has the policy: kind, name, id.
type Having = (&'static str, String, String);

fn having<D: Holder>(holders: &[D], input: &ListEntitiesForPolicyInput, arn: &str) -> Vec<Having> {
    let wanted = holders.iter().filter(|holder| input.wants(*holder, arn));
    wanted.map(|h| (D::NOUN, h.name().to_owned(), h.id().to_owned())).collect()
}

impl Operation for ListEntitiesForPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListEntitiesForPolicy";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListEntitiesForPolicy");
    type Input = ListEntitiesForPolicyInput;
    type Target = PolicyTarget;
    type Output = ListEntitiesForPolicyOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, given(input.naming.value(), "policyArn")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<PolicyTarget>,
        input: Self::Input,
    ) -> Result<ListEntitiesForPolicyOutput> {
        if let PolicyTarget::Customers { .. } = &*target {
            target.customers()?;
        }
        let account = call.caller.account.clone();
        let read = call.records.scan::<_, Error>(move |rows| Everybody::read(rows, &account));
        let (everybody, arn) = (read.await?, target.arn());
        let mut all = having(&everybody.groups, &input, arn);
        all.extend(having(&everybody.users, &input, arn));
        all.extend(having(&everybody.roles, &input, arn));
        let place = |(kind, name, _): &Having| [kind, "/", &name.to_ascii_lowercase()].concat();
        let (page, next) = input.paging.page(call, &input.shape(arn), all, place)?;
        let mut output = ListEntitiesForPolicyOutput {
            policy_groups: Vec::new(),
            policy_users: Vec::new(),
            policy_roles: Vec::new(),
            next,
        };
        for (kind, name, id) in page {
            match kind {
                "group" => {
                    output.policy_groups.push(PolicyGroup { group_name: name, group_id: id })
                }
                "user" => output.policy_users.push(PolicyUser { user_name: name, user_id: id }),
                _ => output.policy_roles.push(PolicyRole { role_name: name, role_id: id }),
            }
        }
        Ok(output)
    }
}
