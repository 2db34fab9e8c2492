//! May they: pure functions, no I/O, no clock.
//!
//! So far the only principals are an account's root and its administrators, and they may do
//! everything in their own account and nothing in another. Policies that callers store (resource
//! and key policies) are parsed and validated in [`document`]; they are not evaluated yet.

pub mod document;
pub mod reach;
mod written;

use crate::name::Caller;

/// What is to be done to what.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The IAM action, `kms:Decrypt`.
    pub action: &'a str,
    /// The ARN of the resource; `*` where an action has none.
    pub resource: &'a str,
    /// The account that owns the resource.
    pub owner: &'a str,
}

/// The answer, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow,
    /// Nothing allows it.
    ImplicitDeny,
}

/// Decides. Nothing but `Allow` lets a request pass.
pub fn decide(caller: &Caller, request: &Request<'_>) -> Decision {
    if caller.account == request.owner { Decision::Allow } else { Decision::ImplicitDeny }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PrincipalKind;

    #[test]
    fn an_administrator_acts_in_the_own_account_alone() {
        let caller = Caller {
            account: "111111111111".into(),
            arn: "arn:aws:iam::111111111111:user/admin".into(),
            principal_id: "AIDA".into(),
            kind: PrincipalKind::User,
            access_key_id: None,
        };
        let to = |owner| decide(&caller, &Request { action: "kms:Decrypt", resource: "*", owner });
        assert_eq!(to("111111111111"), Decision::Allow);
        assert_eq!(to("222222222222"), Decision::ImplicitDeny);
    }
}
