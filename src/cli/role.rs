//! `strongroom role`.

use super::iam::{Attach, Iam, List, Listing, Named, document, put, put_some, show};
use super::remote::Remote;
use crate::server::Error;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Keep roles.
#[derive(Args)]
pub(super) struct Role {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List roles: name, ARN, when they were made.
    List(Listing),
    /// Make a role.
    Add(Add),
    /// Show a role: what it is, whom it trusts, its policies.
    Show(Named),
    /// Delete a role that no policy hangs on any more.
    Delete(Named),
    /// Attach a managed policy.
    Attach(Attach),
    /// Detach a managed policy.
    Detach(Attach),
}

#[derive(Args)]
struct Add {
    /// Its name.
    name: String,
    /// The file with its trust policy.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Its path.
    #[arg(long)]
    path: Option<String>,
    /// A managed policy that is attached to it; may be repeated.
    #[arg(long, value_name = "ARN")]
    policy: Vec<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Roles of an account.
const ROLES: List =
    List { action: "ListRoles", items: "Roles", shown: &["RoleName", "Arn", "CreateDate"] };
/// What `show` tells besides the role.
const HANGING: [List; 2] = [
    List { action: "ListAttachedRolePolicies", items: "AttachedPolicies", shown: &[] },
    List { action: "ListRolePolicies", items: "PolicyNames", shown: &[] },
];

fn named(name: &str) -> Value {
    json!({"RoleName": name})
}

impl Role {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::List(listing) => listing.run(&ROLES, json!({})),
            Command::Add(add) => add.run(),
            Command::Show(role) => {
                Iam::of(&role.remote)?.show("GetRole", &named(&role.name), &HANGING)
            }
            Command::Delete(role) => {
                Iam::of(&role.remote)?.ask("DeleteRole", &named(&role.name)).map(drop)
            }
            Command::Attach(attach) => attach.run("AttachRolePolicy", "RoleName"),
            Command::Detach(detach) => detach.run("DetachRolePolicy", "RoleName"),
        }
    }
}

impl Add {
    fn run(self) -> Result<(), Error> {
        let iam = Iam::of(&self.remote)?;
        let mut input = named(&self.name);
        put(&mut input, "AssumeRolePolicyDocument", json!(document(&self.trust)?));
        put_some(&mut input, "Path", self.path.as_ref());
        show(&iam.ask("CreateRole", &input)?);
        for arn in &self.policy {
            iam.ask("AttachRolePolicy", &json!({"RoleName": self.name, "PolicyArn": arn}))?;
        }
        Ok(())
    }
}
