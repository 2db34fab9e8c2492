//! Inline policies of users, groups and roles: PutUserPolicy, GetUserPolicy, DeleteUserPolicy,
//! ListUserPolicies, and for groups and roles.

use super::entity::{Entity, Holder, Of, change};
use super::list::{Next, PagedInput};
use super::name::{Naming, PolicyName};
use super::{documents, encoded, no_such_entity};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::document::Kind;
use crate::policy::malformed::too_long_inline;
use crate::policy::quotas;
use crate::store::principals::{Group, Inline, Role, User};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// PutUserPolicy, PutGroupPolicy, PutRolePolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_PutUserPolicy.html>.
pub struct Put<D>(PhantomData<fn() -> D>);

/// What [`Put`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct PutInput<N> {
    #[serde(flatten)]
    naming: N,
    #[serde(flatten)]
    policy: PolicyName,
    policy_document: Option<String>,
}

impl<N: Naming> Input for PutInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        self.policy.check(checks);
        checks.required("policyDocument", &self.policy_document);
        documents::check(checks, "policyDocument", self.policy_document.as_deref());
    }
}

impl<D: Holder> Operation for Put<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS.put.name;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = D::WORDS.put.route;
    type Input = PutInput<D::Naming>;
    type Target = Of<D>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        input.policy.name()?;
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<D>>, input: Self::Input) -> Result<Empty> {
        let holder = target.there()?;
        let name = input.policy.name()?.to_owned();
        let document = given(&input.policy_document, "policyDocument")?.clone();
        if quotas::size(&document) > D::INLINE_SIZE {
            return Err(too_long(&**holder));
        }
        documents::sound(&document, Kind::Identity)?;
        change(call, &target, move |entity, _| {
            put(entity.inline_mut(), &name, &document);
            fits(entity)
        })
        .await?;
        Ok(Empty {})
    }
}

/// Puts a policy over the one of its name, or among the others by name.
fn put(inline: &mut Vec<Inline>, name: &str, document: &str) {
    let new = Inline { name: name.to_owned(), document: document.to_owned() };
    match inline.iter_mut().find(|policy| policy.name == name) {
        Some(policy) => *policy = new,
        None => {
            let at = inline.partition_point(|policy| policy.name.as_str() < name);
            inline.insert(at, new);
        }
    }
}

/// Refuses inline policies that are too long together.
fn fits<D: Holder>(entity: &D) -> Result<()> {
    let size: usize = entity.inline().iter().map(|p| quotas::size(&p.document)).sum();
    if size <= D::INLINE_SIZE { Ok(()) } else { Err(too_long(entity)) }
}

fn too_long<D: Holder>(entity: &D) -> Error {
    let whose = [D::NOUN, " ", entity.name()].concat();
    Error::new(Condition::LimitExceeded, too_long_inline(D::INLINE_SIZE, &whose))
}

/// What [`Get`] and [`Delete`] take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct InlineInput<N> {
    #[serde(flatten)]
    naming: N,
    #[serde(flatten)]
    policy: PolicyName,
}

impl<N: Naming> Input for InlineInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        self.policy.check(checks);
    }
}

fn missing<D: Entity>(name: &str) -> Error {
    no_such_entity(format!("The {} policy with name {name} cannot be found.", D::NOUN))
}

/// An inline policy, with the member that names its holder.
pub trait Shown: Holder {
    /// The answer.
    type Answer: Serialize + JsonSchema + Send;
    /// Makes it.
    fn shown(&self, policy: &Inline) -> Self::Answer;
}

macro_rules! shown {
    ($document:ty, $answer:ident, $field:ident) => {
        #[doc = concat!("An inline policy of a [`", stringify!($document), "`].")]
        #[derive(Serialize, JsonSchema)]
        #[serde(rename_all = "PascalCase")]
        pub struct $answer {
            $field: String,
            policy_name: String,
            policy_document: String,
        }

        impl Shown for $document {
            type Answer = $answer;
            fn shown(&self, policy: &Inline) -> $answer {
                $answer {
                    $field: self.name.clone(),
                    policy_name: policy.name.clone(),
                    policy_document: encoded(&policy.document),
                }
            }
        }
    };
}

shown!(User, UserPolicyOutput, user_name);
shown!(Group, GroupPolicyOutput, group_name);
shown!(Role, RolePolicyOutput, role_name);

/// GetUserPolicy, GetGroupPolicy, GetRolePolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetUserPolicy.html>.
pub struct Get<D>(PhantomData<fn() -> D>);

impl<D: Shown> Operation for Get<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS.get.name;
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = D::WORDS.get.route;
    type Input = InlineInput<D::Naming>;
    type Target = Of<D>;
    type Output = D::Answer;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        input.policy.name()?;
        Of::named(call, input.naming.name()?)
    }

    async fn run(_: &Call, target: Allowed<Of<D>>, input: Self::Input) -> Result<D::Answer> {
        let (entity, name) = (target.there()?, input.policy.name()?);
        let policy = entity.inline().iter().find(|policy| policy.name == name);
        Ok(entity.shown(policy.ok_or_else(|| missing::<D>(name))?))
    }
}

/// DeleteUserPolicy, DeleteGroupPolicy, DeleteRolePolicy:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteUserPolicy.html>.
pub struct Delete<D>(PhantomData<fn() -> D>);

impl<D: Holder> Operation for Delete<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS.delete.name;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = D::WORDS.delete.route;
    type Input = InlineInput<D::Naming>;
    type Target = Of<D>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        input.policy.name()?;
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<D>>, input: Self::Input) -> Result<Empty> {
        let name = input.policy.name()?.to_owned();
        change(call, &target, move |entity, _| {
            let before = entity.inline().len();
            entity.inline_mut().retain(|policy| policy.name != name);
            if entity.inline().len() == before { Err(missing::<D>(&name)) } else { Ok(()) }
        })
        .await?;
        Ok(Empty {})
    }
}

/// ListUserPolicies, ListGroupPolicies, ListRolePolicies:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListUserPolicies.html>.
pub struct List<D>(PhantomData<fn() -> D>);

/// What [`List`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListPolicyNamesOutput {
    policy_names: Vec<String>,
    #[serde(flatten)]
    next: Next,
}

impl<D: Holder> Operation for List<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::WORDS.list.name;
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = D::WORDS.list.route;
    type Input = PagedInput<D::Naming>;
    type Target = Of<D>;
    type Output = ListPolicyNamesOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(
        call: &Call,
        target: Allowed<Of<D>>,
        input: Self::Input,
    ) -> Result<ListPolicyNamesOutput> {
        let entity = target.there()?;
        let all = entity.inline().iter().map(|policy| policy.name.clone()).collect();
        let (policy_names, next) = input.paging.page(call, entity.id(), all, String::clone)?;
        Ok(ListPolicyNamesOutput { policy_names, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_policies_stand_by_name_and_one_of_a_name() {
        let mut inline = Vec::new();
        for (name, document) in [("b", "1"), ("c", "1"), ("a", "1"), ("b", "2")] {
            put(&mut inline, name, document);
        }
        let all: String = inline.iter().map(|p| [p.name.as_str(), &p.document].concat()).collect();
        assert_eq!(all, "a1b2c1");
    }
}
