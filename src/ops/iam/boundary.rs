//! Permissions boundaries: PutUserPermissionsBoundary, DeleteUserPermissionsBoundary, and for roles.

use super::attach::attachable;
use super::entity::{Holder, Of, change};
use super::name::{Naming, OneInput};
use super::{Called, called, no_such_entity};
use crate::name::Service;
use crate::ops::call::{Allowed, Call};
use crate::ops::error::Result;
use crate::ops::shape::{Checks, Empty, given};
use crate::ops::{Access, Input, Operation, Route};
use crate::policy::Values;
use crate::store::principals::{Role, User};
use crate::store::records::Rows;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// A boundary in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct BoundaryOut {
    permissions_boundary_type: &'static str,
    permissions_boundary_arn: String,
}

impl BoundaryOut {
    /// The one with this ARN.
    pub(super) fn of(arn: Option<&str>) -> Option<Self> {
        let permissions_boundary_arn = arn?.to_owned();
        Some(Self {
            permissions_boundary_type: "PermissionsBoundaryPolicy",
            permissions_boundary_arn,
        })
    }
}

/// The service model's bounds.
pub(super) fn check(checks: &mut Checks, arn: Option<&str>) {
    checks.length("permissionsBoundary", arn, 20, 2048);
}

/// `iam:PermissionsBoundary` of a boundary that a request brings.
pub(super) fn fact<'a>(arn: Option<&'a str>, key: &str) -> Option<Values<'a>> {
    arn.filter(|_| key == "iam:permissionsboundary").map(Values::one)
}

/// Refuses a boundary that is no managed policy of the account's or of AWS's.
pub(super) fn there(rows: &mut Rows<'_>, account: &str, arn: Option<&str>) -> Result<()> {
    let Some(arn) = arn else { return Ok(()) };
    if attachable(rows, account, arn)? {
        return Ok(());
    }
    Err(no_such_entity(format!("Scope ARN: {arn} does not exist or is not attachable.")))
}

/// Whose permissions can be bounded.
pub trait Bounded: Holder {
    /// What the operations are called: Put, Delete.
    const BOUNDARY: [Called; 2];
    /// The boundary, to be changed.
    fn boundary_mut(&mut self) -> &mut Option<String>;
}

macro_rules! bounded {
    ($document:ty, $kind:literal) => {
        impl Bounded for $document {
            const BOUNDARY: [Called; 2] = [
                called!("Put", $kind, "PermissionsBoundary"),
                called!("Delete", $kind, "PermissionsBoundary"),
            ];
            fn boundary_mut(&mut self) -> &mut Option<String> {
                &mut self.boundary
            }
        }
    };
}

bounded!(User, "User");
bounded!(Role, "Role");

/// PutUserPermissionsBoundary, PutRolePermissionsBoundary:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_PutUserPermissionsBoundary.html>.
pub struct Put<D>(PhantomData<fn() -> D>);

/// What [`Put`] takes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct PutInput<N> {
    #[serde(flatten)]
    naming: N,
    permissions_boundary: Option<String>,
}

impl<N: Naming> Input for PutInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
        checks.required("permissionsBoundary", &self.permissions_boundary);
        check(checks, self.permissions_boundary.as_deref());
    }
    fn fact(&self, key: &str) -> Option<Values<'_>> {
        fact(self.permissions_boundary.as_deref(), key)
    }
}

impl<D: Bounded> Operation for Put<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::BOUNDARY[0].name;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = D::BOUNDARY[0].route;
    type Input = PutInput<D::Naming>;
    type Target = Of<D>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<D>>, input: Self::Input) -> Result<Empty> {
        let arn = given(&input.permissions_boundary, "permissionsBoundary")?.clone();
        change(call, &target, move |entity, rows| {
            there(rows, entity.account(), Some(&arn))?;
            *entity.boundary_mut() = Some(arn.clone());
            Ok(())
        })
        .await?;
        Ok(Empty {})
    }
}

/// DeleteUserPermissionsBoundary, DeleteRolePermissionsBoundary:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteUserPermissionsBoundary.html>.
pub struct Delete<D>(PhantomData<fn() -> D>);

impl<D: Bounded> Operation for Delete<D> {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = D::BOUNDARY[1].name;
    const ACCESS: Access = Access::Write;
    const ROUTE: Route = D::BOUNDARY[1].route;
    type Input = OneInput<D::Naming>;
    type Target = Of<D>;
    type Output = Empty;

    async fn locate(call: &Call, input: &Self::Input) -> Result<Of<D>> {
        Of::named(call, input.naming.name()?)
    }

    async fn run(call: &Call, target: Allowed<Of<D>>, _: Self::Input) -> Result<Empty> {
        change(call, &target, |entity, _| match entity.boundary_mut().take() {
            Some(_) => Ok(()),
            None => Err(no_such_entity(format!(
                "{} {} does not have a permissions boundary.",
                D::NOUN,
                entity.name()
            ))),
        })
        .await?;
        Ok(Empty {})
    }
}
