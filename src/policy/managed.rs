//! Managed policies that every account has (`arn:aws:iam::aws:policy/...`), under the names that
//! AWS gives them; each allows what its namesake allows of the services here
//! (<https://docs.aws.amazon.com/aws-managed-policy/latest/reference/policy-list.html>).

/// A managed policy of ours: nobody can change it.
pub struct Managed {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// The document.
    pub document: &'static str,
}

/// What their ARNs begin with.
pub const PREFIX: &str = "arn:aws:iam::aws:policy/";

/// All of them.
pub static ALL: &[Managed] = &[
    Managed {
        name: "AdministratorAccess",
        description: "Provides full access to all services and resources.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    },
    Managed {
        name: "PowerUserAccess",
        description: "Provides full access to all services, but to no users, groups and roles.",
        document: r#"{"Version":"2012-10-17","Statement":[
{"Effect":"Allow","NotAction":["iam:*"],"Resource":"*"},
{"Effect":"Allow","Action":["iam:ListRoles"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "ReadOnlyAccess",
        description: "Provides read access to all services and resources, but to no secret's value.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[
"cloudtrail:Describe*","cloudtrail:Get*","cloudtrail:List*","cloudtrail:LookupEvents",
"iam:Generate*","iam:Get*","iam:List*","iam:Simulate*",
"kms:Describe*","kms:Get*","kms:List*",
"secretsmanager:Describe*","secretsmanager:GetResourcePolicy","secretsmanager:List*",
"sts:GetAccessKeyInfo","sts:GetCallerIdentity","sts:GetSessionToken"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "SecretsManagerReadWrite",
        description: "Provides full access to Secrets Manager, and a look at the KMS keys there are.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[
"secretsmanager:*","kms:DescribeKey","kms:ListAliases","kms:ListKeys"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "AWSKeyManagementServicePowerUser",
        description: "Provides making and looking at KMS keys; using them is for key policies to allow.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[
"kms:CreateAlias","kms:CreateKey","kms:DeleteAlias","kms:Describe*","kms:GenerateRandom",
"kms:Get*","kms:List*","kms:TagResource","kms:UntagResource",
"iam:ListGroups","iam:ListRoles","iam:ListUsers"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "IAMFullAccess",
        description: "Provides full access to users, groups, roles and policies.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "IAMReadOnlyAccess",
        description: "Provides read access to users, groups, roles and policies.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[
"iam:GenerateCredentialReport","iam:GenerateServiceLastAccessedDetails","iam:Get*","iam:List*",
"iam:SimulateCustomPolicy","iam:SimulatePrincipalPolicy"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "AWSCloudTrail_ReadOnlyAccess",
        description: "Provides read access to the audit log.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[
"cloudtrail:Get*","cloudtrail:Describe*","cloudtrail:List*","cloudtrail:LookupEvents"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "AWSDenyAll",
        description: "Denies all access.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":["*"],"Resource":"*"}]}"#,
    },
];

/// The managed policy with this ARN.
pub fn find(arn: &str) -> Option<&'static Managed> {
    let name = arn.strip_prefix(PREFIX)?;
    ALL.iter().find(|managed| managed.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::document::{Kind, parse};
    use super::super::facts::NoFacts;
    use super::super::{Caller, Decision, OfResource, Policies, Policy, Request, decide};
    use super::*;
    use std::sync::Arc;

    /// Whether the policy of this name lets a user do something.
    fn lets(name: &str, action: &str) -> bool {
        let managed = find(&format!("{PREFIX}{name}")).expect(name);
        let document = parse(managed.document, Kind::Managed).expect(name);
        let identity = [Arc::new(Policy::compile(name, document))];
        let caller = Caller::user("111122223333", "arn:aws:iam::111122223333:user/ada", "AIDA");
        let request = Request {
            caller: &caller,
            action,
            resource: "*",
            owner: "111122223333",
            facts: &NoFacts,
        };
        let policies = Policies { identity: &identity, boundary: None, resource: OfResource::None };
        matches!(decide(&request, &policies), Decision::Allow(_))
    }

    #[test]
    fn each_lets_what_its_name_says_and_no_more() {
        for (name, yes, no) in [
            ("AdministratorAccess", "iam:CreateUser", ""),
            ("PowerUserAccess", "kms:Decrypt", "iam:CreateUser"),
            ("ReadOnlyAccess", "secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"),
            ("ReadOnlyAccess", "kms:GetKeyPolicy", "kms:Decrypt"),
            ("SecretsManagerReadWrite", "secretsmanager:PutSecretValue", "kms:Decrypt"),
            ("AWSKeyManagementServicePowerUser", "kms:CreateKey", "kms:ScheduleKeyDeletion"),
            ("IAMFullAccess", "iam:CreateAccessKey", "kms:Decrypt"),
            ("IAMReadOnlyAccess", "iam:ListUsers", "iam:CreateAccessKey"),
            ("AWSCloudTrail_ReadOnlyAccess", "cloudtrail:LookupEvents", "iam:ListUsers"),
        ] {
            assert!(lets(name, yes), "{name} {yes}");
            assert!(no.is_empty() || !lets(name, no), "{name} {no}");
        }
        assert!(!lets("AWSDenyAll", "sts:GetCallerIdentity"));
    }

    #[test]
    fn names_are_unique_and_documents_are_policies() {
        for (at, managed) in ALL.iter().enumerate() {
            assert!(parse(managed.document, Kind::Managed).is_ok(), "{}", managed.name);
            assert!(!ALL[..at].iter().any(|other| other.name == managed.name), "{}", managed.name);
        }
        assert!(find("arn:aws:iam::111122223333:policy/AdministratorAccess").is_none());
    }
}
