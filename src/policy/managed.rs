//! Managed policies that every account has (`arn:aws:iam::aws:policy/...`), under the names that
//! AWS gives them; each allows what its namesake allows of the services here.

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
pub static ALL: &[Managed] = &[Managed {
    name: "AdministratorAccess",
    description: "Provides full access to all services and resources.",
    document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
}];

/// The managed policy with this ARN.
pub fn find(arn: &str) -> Option<&'static Managed> {
    let name = arn.strip_prefix(PREFIX)?;
    ALL.iter().find(|managed| managed.name == name)
}
