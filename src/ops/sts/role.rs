//! Roles as what is assumed: their trust policies have the last word.

use crate::name::{Arn, is_account};
use crate::ops::authority::{compile, last_part};
use crate::ops::call::{Call, OwnPolicy, Target};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::scene::tag;
use crate::policy::Values;
use crate::policy::document::Kind;
use crate::store::principals::Role;
use std::sync::Arc;

/// A role that a request names, whether it is there or not.
#[derive(Clone)]
pub struct RoleTarget {
    arn: String,
    account: String,
    role: Option<Arc<Role>>,
}

impl RoleTarget {
    /// The role of an ARN.
    ///
    /// # Errors
    /// [`Condition::Validation`] if the text is no ARN of a role; those of the database.
    pub(super) fn find(call: &Call, arn: &str) -> Result<Self> {
        let parsed = Arn::parse(arn).filter(|a| a.service == "iam" && a.region.is_empty());
        let parsed = parsed.filter(|a| a.partition == "aws" && is_account(a.account));
        let parsed = parsed.filter(|a| a.resource.starts_with("role/"));
        let parsed =
            parsed.ok_or_else(|| Error::new(Condition::Validation, format!("{arn} is invalid")))?;
        let role = call.records.named::<Role>(parsed.account, last_part(arn))?;
        let role = role.filter(|role| role.arn() == arn);
        Ok(Self { arn: arn.to_owned(), account: parsed.account.to_owned(), role })
    }

    /// The role; who asks for one that is not there is told no more than who may not have it.
    pub(super) fn there(&self, call: &Call, action: &str) -> Result<&Arc<Role>> {
        self.role.as_ref().ok_or_else(|| refused(call, action, &self.arn))
    }
}

/// AWS's refusal, which does not say why.
pub(super) fn refused(call: &Call, action: &str, arn: &str) -> Error {
    if call.vouched.is_some() {
        let text = format!("Not authorized to perform sts:{action}");
        return Error::new(Condition::AccessDenied, text);
    }
    let who = &call.caller.arn;
    let text = format!("User: {who} is not authorized to perform: sts:{action} on resource: {arn}");
    Error::new(Condition::AccessDenied, text)
}

impl Target for RoleTarget {
    fn arn(&self) -> &str {
        &self.arn
    }

    fn owner(&self) -> &str {
        &self.account
    }

    fn policy(&self) -> Result<OwnPolicy> {
        let Some(role) = &self.role else { return Ok(OwnPolicy::None) };
        let compile = || compile("trust policy", &role.trust, Kind::Trust, &role.trust_holders);
        let trust = role.made.get_or(compile)?;
        Ok(OwnPolicy::Rules(trust))
    }

    fn fact<'a>(&'a self, call: &'a Call, key: &str) -> Option<Values<'a>> {
        if let Some(value) = call.vouched.as_deref().and_then(|vouched| vouched.fact(key)) {
            return Some(value);
        }
        let role = self.role.as_ref()?;
        let wanted = ["aws:resourcetag/", "iam:resourcetag/"];
        wanted.iter().find_map(|prefix| tag(&role.tags, key.strip_prefix(prefix)?))
    }
}
