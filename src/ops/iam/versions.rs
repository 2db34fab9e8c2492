//! Versions of managed policies: CreatePolicyVersion, GetPolicyVersion, ListPolicyVersions,
//! SetDefaultPolicyVersion, DeletePolicyVersion.

use super::entity::{Of, change};
use super::list::{Next, PagedInput};
use super::name::{Naming, PolicyArn};
use super::policies::{FIRST_VERSION, PUBLISHED, PolicyTarget, sound};
use super::{conflict, documents, encoded, no_such_entity, quota, route};
use crate::name::Service;
use crate::ops::call::{Allowed, Call, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene::iso;
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::managed::Managed;
use crate::store::principals::{ManagedPolicy, PolicyVersion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A version in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct VersionOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    version_id: String,
    is_default_version: bool,
    create_date: String,
}

impl VersionOut {
    fn short(policy: &ManagedPolicy, version: &PolicyVersion) -> Self {
        Self {
            document: None,
            version_id: version.id.clone(),
            is_default_version: version.id == policy.default,
            create_date: iso(version.created),
        }
    }

    /// With its document.
    pub(super) fn of(policy: &ManagedPolicy, version: &PolicyVersion) -> Self {
        let document = Some(encoded(&version.document));
        Self { document, ..Self::short(policy, version) }
    }

    /// The one version of a policy that every account has.
    pub(super) fn ours(policy: &Managed) -> Self {
        Self {
            document: Some(encoded(policy.document)),
            version_id: FIRST_VERSION.to_owned(),
            is_default_version: true,
            create_date: PUBLISHED.to_owned(),
        }
    }
}

/// What operations answer with a version.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct VersionOutput {
    policy_version: VersionOut,
}

/// CreatePolicyVersion:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreatePolicyVersion.html>.
pub struct CreatePolicyVersion;

/// What [`CreatePolicyVersion`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreatePolicyVersionInput {
    #[serde(flatten)]
    naming: PolicyArn,
    policy_document: Option<String>,
    set_as_default: Option<bool>,
}

impl Input for CreatePolicyVersionInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        checks.required("policyDocument", &self.policy_document);
        documents::check(checks, "policyDocument", self.policy_document.as_deref());
    }
}

impl Operation for CreatePolicyVersion {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreatePolicyVersion";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/CreatePolicyVersion");
    type Input = CreatePolicyVersionInput;
    type Target = PolicyTarget;
    type Output = VersionOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, given(input.naming.value(), "policyArn")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<PolicyTarget>,
        input: Self::Input,
    ) -> Result<VersionOutput> {
        let target = target.customers()?;
        let document = sound(given(&input.policy_document, "policyDocument")?)?;
        let is_default_version = input.set_as_default.unwrap_or(false);
        let known = target.there()?;
        let mut next = known.next;
        // The record, which commits with the version, says which one it is: that is looked up before.
        loop {
            let id = format!("v{next}");
            let version = PolicyVersion { id, document: document.clone(), created: call.now };
            let policy_version = VersionOut {
                document: None,
                version_id: version.id.clone(),
                is_default_version,
                create_date: iso(version.created),
            };
            let output = VersionOutput { policy_version };
            call.answering(&output)?;
            let added = change(call, target, move |policy, _| {
                if policy.next != next {
                    return Err(Error::new(Condition::Conflict, "Another version came first."));
                }
                add(policy, version.clone(), is_default_version)
            });
            match added.await {
                Err(error) if error.condition == Condition::Conflict => {
                    next = Of::<ManagedPolicy>::named(call, &known.name)?.there()?.next;
                }
                done => return done.map(|()| output),
            }
        }
    }
}

/// Gives a policy its next version.
fn add(policy: &mut ManagedPolicy, version: PolicyVersion, is_default: bool) -> Result<()> {
    if policy.versions.len() >= quota::VERSIONS {
        let text = "A managed policy can have up to 5 versions. Before you create a new version, you \
                    must delete an existing version.";
        return Err(Error::new(Condition::LimitExceeded, text));
    }
    policy.next += 1;
    policy.updated = version.created;
    if is_default {
        policy.default.clone_from(&version.id);
    }
    policy.versions.push(version);
    Ok(())
}

/// What operations on one version take.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct VersionInput {
    #[serde(flatten)]
    naming: PolicyArn,
    version_id: Option<String>,
}

impl Input for VersionInput {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        checks.required("versionId", &self.version_id);
        let fits = |text: &str| {
            let rest = text.strip_prefix('v').unwrap_or_default();
            let number = rest.split('.').next().unwrap_or_default();
            number.bytes().next().is_some_and(|b| (b'1'..=b'9').contains(&b))
                && number.bytes().all(|b| b.is_ascii_digit())
        };
        let pattern = "v[1-9][0-9]*(\\.[A-Za-z0-9-]*)?";
        checks.pattern("versionId", self.version_id.as_deref(), pattern, fits);
    }
}

impl VersionInput {
    fn arn(&self) -> Result<&String> {
        given(self.naming.value(), "policyArn")
    }

    fn id(&self) -> Result<&String> {
        given(&self.version_id, "versionId")
    }
}

fn missing(arn: &str, id: &str) -> Error {
    no_such_entity(format!("Policy {arn} version {id} does not exist or is not attachable."))
}

/// GetPolicyVersion:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetPolicyVersion.html>.
pub struct GetPolicyVersion;

impl Operation for GetPolicyVersion {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetPolicyVersion";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/GetPolicyVersion");
    type Input = VersionInput;
    type Target = PolicyTarget;
    type Output = VersionOutput;

    async fn locate(call: &Call, input: &VersionInput) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, input.arn()?)
    }

    async fn run(
        _: &Call,
        target: Allowed<PolicyTarget>,
        input: VersionInput,
    ) -> Result<VersionOutput> {
        let id = input.id()?;
        let policy_version = match &*target {
            PolicyTarget::Ours { policy, .. } if id == FIRST_VERSION => {
                Some(VersionOut::ours(policy))
            }
            PolicyTarget::Ours { .. } => None,
            PolicyTarget::Customers { .. } => {
                let policy = target.customers()?.there()?;
                let version = policy.versions.iter().find(|version| version.id == *id);
                version.map(|version| VersionOut::of(policy, version))
            }
        };
        let policy_version = policy_version.ok_or_else(|| missing(target.arn(), id))?;
        Ok(VersionOutput { policy_version })
    }
}

/// ListPolicyVersions:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListPolicyVersions.html>.
pub struct ListPolicyVersions;

/// What [`ListPolicyVersions`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListPolicyVersionsOutput {
    versions: Vec<VersionOut>,
    #[serde(flatten)]
    next: Next,
}

impl Operation for ListPolicyVersions {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListPolicyVersions";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = route("/iam/ListPolicyVersions");
    type Input = PagedInput<PolicyArn>;
    type Target = PolicyTarget;
    type Output = ListPolicyVersionsOutput;

    async fn locate(call: &Call, input: &Self::Input) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, given(input.naming.value(), "policyArn")?)
    }

    async fn run(
        call: &Call,
        target: Allowed<PolicyTarget>,
        input: Self::Input,
    ) -> Result<ListPolicyVersionsOutput> {
        let all = match &*target {
            PolicyTarget::Ours { policy, .. } => {
                vec![VersionOut { document: None, ..VersionOut::ours(policy) }]
            }
            PolicyTarget::Customers { .. } => {
                let policy = target.customers()?.there()?;
                policy.versions.iter().map(|v| VersionOut::short(policy, v)).collect()
            }
        };
        let (versions, next) = input
            .paging
            .page(call, target.arn(), all, |version| newest_first(&version.version_id))?;
        Ok(ListPolicyVersionsOutput { versions, next })
    }
}

/// The place of a version in its list: the newest comes first.
fn newest_first(id: &str) -> String {
    let number = id.get(1..).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    format!("{:010}", u32::MAX - number)
}

/// SetDefaultPolicyVersion:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_SetDefaultPolicyVersion.html>.
pub struct SetDefaultPolicyVersion;

impl Operation for SetDefaultPolicyVersion {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "SetDefaultPolicyVersion";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/SetDefaultPolicyVersion");
    type Input = VersionInput;
    type Target = PolicyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &VersionInput) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, input.arn()?)
    }

    async fn run(call: &Call, target: Allowed<PolicyTarget>, input: VersionInput) -> Result<Empty> {
        let (id, now, arn) = (input.id()?.clone(), call.now, target.arn().to_owned());
        change(call, target.customers()?, move |policy, _| {
            if !policy.versions.iter().any(|version| version.id == id) {
                return Err(missing(&arn, &id));
            }
            policy.default.clone_from(&id);
            policy.updated = now;
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// DeletePolicyVersion:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeletePolicyVersion.html>.
pub struct DeletePolicyVersion;

impl Operation for DeletePolicyVersion {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeletePolicyVersion";
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = route("/iam/DeletePolicyVersion");
    type Input = VersionInput;
    type Target = PolicyTarget;
    type Output = Empty;

    async fn locate(call: &Call, input: &VersionInput) -> Result<PolicyTarget> {
        PolicyTarget::locate(call, input.arn()?)
    }

    async fn run(call: &Call, target: Allowed<PolicyTarget>, input: VersionInput) -> Result<Empty> {
        let (id, arn) = (input.id()?.clone(), target.arn().to_owned());
        change(call, target.customers()?, move |policy, _| {
            if !policy.versions.iter().any(|version| version.id == id) {
                return Err(missing(&arn, &id));
            }
            if policy.default == id {
                return Err(conflict("Cannot delete the default version of a policy."));
            }
            policy.versions.retain(|version| version.id != id);
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first() {
        let mut ids = ["v2", "v10", "v1"];
        ids.sort_by_key(|id| newest_first(id));
        assert_eq!(ids, ["v10", "v2", "v1"]);
    }
}
