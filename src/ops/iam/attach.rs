//! Managed policies on users, groups and roles: AttachUserPolicy, DetachUserPolicy,
//! ListAttachedUserPolicies, and for groups and roles.

use super::entity::{Holder, Of, change};
use super::list::{Next, Paging, check_prefix};
use super::name::{Naming, policy_arn};
use super::{exceeded, no_such_entity, quota};
use crate::name::Service;
use crate::ops::authority::last_part;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::{Values, managed};
use crate::store::principals::ManagedPolicy;
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// Whether there is a managed policy with this ARN that the account's principals may have.
pub(super) fn attachable(rows: &mut Rows<'_>, account: &str, arn: &str) -> Result<bool> {
    if managed::find(arn).is_some() {
        return Ok(true);
    }
    let policy = rows.named::<ManagedPolicy>(account, last_part(arn))?;
    Ok(policy.is_some_and(|policy| policy.arn() == arn))
}

/// What [`Attach`] and [`Detach`] take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct AttachInput<N> {
    #[serde(flatten)]
    naming: N,
    policy_arn: Option<String>,
}

impl<N: Naming> Input for AttachInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        checks.required("policyArn", &self.policy_arn);
        checks.length("policyArn", self.policy_arn.as_deref(), 20, 2048);
    }
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        self.policy_arn.as_deref().filter(|_| key == "iam:policyarn").map(Values::one)
    }
}

impl<N: Naming> AttachInput<N> {
    fn arn(&self) -> Result<&str> {
        policy_arn(given(&self.policy_arn, "policyArn")?)
    }
}

/// AttachUserPolicy, AttachGroupPolicy, AttachRolePolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_AttachUserPolicy.html>.
pub struct Attach<D>(PhantomData<fn() -> D>);

impl<D: Holder> Operation for Attach<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS.attach.name;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = D::WORDS.attach.route;
    type Input = AttachInput<D::Naming>;
    type Target = Of<D>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        input.arn()?;
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<D>>, input: Self::Input) -> Result<Empty> {
        let arn = input.arn()?.to_owned();
        change(call, &target, move |entity, rows| {
            if !attachable(rows, entity.account(), &arn)? {
                let text = format!("Policy {arn} does not exist or is not attachable.");
                return Err(no_such_entity(text));
            }
            if entity.attached().contains(&arn) {
                return Ok(());
            }
            if entity.attached().len() >= quota::ATTACHED {
                return Err(exceeded(D::WORDS.quota, quota::ATTACHED));
            }
            entity.attached_mut().push(arn.clone());
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// DetachUserPolicy, DetachGroupPolicy, DetachRolePolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DetachUserPolicy.html>.
pub struct Detach<D>(PhantomData<fn() -> D>);

impl<D: Holder> Operation for Detach<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS.detach.name;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = D::WORDS.detach.route;
    type Input = AttachInput<D::Naming>;
    type Target = Of<D>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        input.arn()?;
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<D>>, input: Self::Input) -> Result<Empty> {
        let arn = input.arn()?.to_owned();
        change(call, &target, move |entity, _| {
            let before = entity.attached().len();
            entity.attached_mut().retain(|attached| *attached != arn);
            if entity.attached().len() == before {
                return Err(no_such_entity(format!("Policy {arn} was not found.")));
            }
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// ListAttachedUserPolicies, ListAttachedGroupPolicies, ListAttachedRolePolicies:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListAttachedUserPolicies.html>.
pub struct ListAttached<D>(PhantomData<fn() -> D>);

/// What [`ListAttached`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct ListAttachedInput<N> {
    #[serde(flatten)]
    naming: N,
    path_prefix: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

impl<N: Naming> Input for ListAttachedInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        check_prefix(checks, self.path_prefix.as_deref());
        self.paging.check(checks);
    }
}

/// An attached policy in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AttachedOut {
    policy_name: String,
    policy_arn: String,
}

impl AttachedOut {
    /// All of them.
    pub(super) fn all(arns: &[String]) -> Vec<Self> {
        let one =
            |arn: &String| Self { policy_name: last_part(arn).to_owned(), policy_arn: arn.clone() };
        arns.iter().map(one).collect()
    }
}

/// The path in a policy's ARN.
fn path_of(arn: &str) -> &str {
    let path = arn.split_once(":policy").map_or("/", |(_, rest)| rest);
    path.rfind('/').and_then(|end| path.get(..=end)).unwrap_or("/")
}

/// What [`ListAttached`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListAttachedOutput {
    attached_policies: Vec<AttachedOut>,
    #[serde(flatten)]
    next: Next,
}

impl<D: Holder> Operation for ListAttached<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS.list_attached.name;
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = D::WORDS.list_attached.route;
    type Input = ListAttachedInput<D::Naming>;
    type Target = Of<D>;
    type Output = ListAttachedOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<D>>,
        input: Self::Input,
    ) -> Result<ListAttachedOutput> {
        let entity = target.there()?;
        let below = input.path_prefix.as_deref().unwrap_or("/");
        let mut all = AttachedOut::all(entity.attached());
        all.retain(|policy| path_of(&policy.policy_arn).starts_with(below));
        let scope = [entity.id(), below].concat();
        let (attached_policies, next) =
            input.paging.page(call, &scope, all, |policy| policy.policy_arn.clone())?;
        Ok(ListAttachedOutput { attached_policies, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_s_path_stands_in_its_arn() {
        assert_eq!(path_of("arn:aws:iam::aws:policy/AdministratorAccess"), "/");
        assert_eq!(path_of("arn:aws:iam::111122223333:policy/a/b/name"), "/a/b/");
    }
}
