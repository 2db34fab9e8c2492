//! The Security Token Service: who somebody is, and credentials that end by themselves.

pub mod identity;

use super::call::{Call, Target};

/// What everybody may ask, whatever the policies say: who they are.
pub struct Oneself {
    account: String,
}

impl Oneself {
    fn of(call: &Call) -> Self {
        Self { account: call.caller.account.clone() }
    }
}

impl Target for Oneself {
    fn arn(&self) -> &str {
        super::call::NO_RESOURCE
    }
    fn owner(&self) -> &str {
        &self.account
    }
    fn free(&self) -> bool {
        true
    }
}
