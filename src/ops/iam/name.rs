//! The members that name things, and the names that IAM takes.

use super::invalid;
use crate::ops::Input;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, given};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};

/// The member of an input that names what the operation acts on.
pub trait Naming: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The member in lower-camel case, as messages have it.
    const MEMBER: &'static str;
    /// The longest value.
    const MOST: usize;

    /// What the request says.
    fn value(&self) -> &Option<String>;

    /// The service model's bounds.
    fn check(&self, checks: &mut Checks) {
        checks.required(Self::MEMBER, self.value());
        checks.length(Self::MEMBER, self.value().as_deref(), 1, Self::MOST);
    }

    /// The name, if it may be one.
    fn name(&self) -> Result<&str> {
        let name = given(self.value(), Self::MEMBER)?;
        well_formed(Self::MEMBER, name)?;
        Ok(name)
    }
}

macro_rules! naming {
    ($(#[$doc:meta])* $naming:ident, $field:ident, $member:literal, $most:literal) => {
        $(#[$doc])*
        #[derive(Deserialize, JsonSchema)]
        #[serde(rename_all = "PascalCase")]
        pub struct $naming {
            $field: Option<String>,
        }

        impl Naming for $naming {
            const MEMBER: &'static str = $member;
            const MOST: usize = $most;
            fn value(&self) -> &Option<String> {
                &self.$field
            }
        }
    };
}

naming!(
    /// `UserName`.
    UserName, user_name, "userName", 64
);
naming!(
    /// `GroupName`.
    GroupName, group_name, "groupName", 128
);
naming!(
    /// `RoleName`.
    RoleName, role_name, "roleName", 64
);
naming!(
    /// `PolicyArn`.
    PolicyArn, policy_arn, "policyArn", 2048
);
naming!(
    /// `PolicyName` of an inline policy.
    PolicyName, policy_name, "policyName", 128
);

/// What operations take that name one thing and want no more.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", bound = "N: Naming")]
pub struct OneInput<N> {
    #[serde(flatten)]
    pub(super) naming: N,
}

impl<N: Naming> Input for OneInput<N> {
    fn check(&self, checks: &mut Checks) {
        self.naming.check(checks);
    }
}

/// Refuses a name with characters that IAM does not take.
pub(super) fn well_formed(member: &str, name: &str) -> Result<()> {
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b)) {
        return Ok(());
    }
    Err(invalid(format!(
        "The specified value for {member} is invalid. It must contain only alphanumeric characters \
         and/or the following: +=,.@_-"
    )))
}

/// The path of a new thing: `/` if none is given.
pub(super) fn path(given: Option<&str>) -> Result<&str> {
    let Some(path) = given else { return Ok("/") };
    let fits = path == "/"
        || path.len() >= 3
            && path.starts_with('/')
            && path.ends_with('/')
            && path.bytes().all(|b| (0x21..0x7f).contains(&b));
    if fits {
        return Ok(path);
    }
    Err(invalid(
        "The specified value for path is invalid. It must begin and end with / and contain only \
         alphanumeric characters and/or / characters.",
    ))
}

/// The service model's bounds of a path.
pub(super) fn check_path(checks: &mut Checks, member: &str, path: Option<&str>) {
    checks.length(member, path, 1, 512);
}

/// Refuses a text that can't be the ARN of a managed policy.
pub(super) fn policy_arn(arn: &str) -> Result<&str> {
    if arn.len() >= 20 && arn.starts_with("arn:") && arn.contains(":policy/") {
        return Ok(arn);
    }
    Err(Error::new(Condition::InvalidParameter, format!("ARN {arn} is not valid.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_as_iam_has_them() {
        assert!(well_formed("userName", "a+=,.@_-9").is_ok());
        for bad in ["a b", "a/b", "ü", "a:b", "a*"] {
            let text = well_formed("userName", bad).expect_err(bad).message;
            assert!(text.starts_with("The specified value for userName is invalid."), "{text}");
        }
        assert_eq!(path(None).ok(), Some("/"));
        for good in ["/", "/a/", "/a/b/", "/a!~/"] {
            assert!(path(Some(good)).is_ok(), "{good}");
        }
        for bad in ["", "a", "/a", "a/", "//", "/a b/", "/ü/"] {
            assert!(path(Some(bad)).is_err(), "{bad}");
        }
        assert!(policy_arn("arn:aws:iam::aws:policy/AdministratorAccess").is_ok());
        assert!(policy_arn("AdministratorAccess").is_err());
    }
}
