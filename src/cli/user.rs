//! `strongroom user`.

use super::iam::{Attach, Iam, List, Listing, Named, print, put, put_some, show};
use super::init::tell;
use super::remote::Remote;
use super::runtime;
use super::serve::prepare;
use crate::ops::iam::administrators::{self, Who};
use crate::server::{Appliance, Error};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Keep users.
#[derive(Args)]
pub(super) struct User {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List users: name, ARN, when they were made.
    List(Listing),
    /// Make a user.
    Add(Add),
    /// Show a user: what it is, its keys, groups and policies.
    Show(Named),
    /// Delete a user that nothing hangs on any more.
    Delete(Named),
    /// Make an access key and show its secret, this once.
    KeyAdd(Named),
    /// Delete an access key.
    KeyDelete(KeyDelete),
    /// Attach a managed policy.
    Attach(Attach),
    /// Detach a managed policy.
    Detach(Attach),
    /// Make a new administrator, or an access key of the root, on a data directory that nobody serves:
    /// for an account into which nobody gets any more.
    Recover(Recover),
}

#[derive(Args)]
struct Add {
    /// Its name.
    name: String,
    /// Its path.
    #[arg(long)]
    path: Option<String>,
    /// A managed policy that is attached to it; may be repeated.
    #[arg(long, value_name = "ARN")]
    policy: Vec<String>,
    /// Make an access key as well.
    #[arg(long)]
    key: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct KeyDelete {
    /// The user's name.
    name: String,
    /// The access key's id.
    access_key_id: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct Recover {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
    /// The account; the first one if it is left out.
    #[arg(long)]
    account: Option<String>,
    /// Make an access key of the account's root, and no administrator.
    #[arg(long)]
    root: bool,
}

/// Users of an account.
const USERS: List =
    List { action: "ListUsers", items: "Users", shown: &["UserName", "Arn", "CreateDate"] };
/// What `show` tells besides the user.
const HANGING: [List; 4] = [
    List { action: "ListAccessKeys", items: "AccessKeyMetadata", shown: &[] },
    List { action: "ListGroupsForUser", items: "Groups", shown: &[] },
    List { action: "ListAttachedUserPolicies", items: "AttachedPolicies", shown: &[] },
    List { action: "ListUserPolicies", items: "PolicyNames", shown: &[] },
];

fn named(name: &str) -> Value {
    json!({"UserName": name})
}

impl User {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::List(listing) => listing.run(&USERS, json!({})),
            Command::Add(add) => add.run(),
            Command::Show(user) => {
                Iam::of(&user.remote)?.show("GetUser", &named(&user.name), &HANGING)
            }
            Command::Delete(user) => {
                Iam::of(&user.remote)?.ask("DeleteUser", &named(&user.name)).map(drop)
            }
            Command::KeyAdd(user) => add_key(&Iam::of(&user.remote)?, &user.name),
            Command::KeyDelete(key) => {
                let mut input = named(&key.name);
                put(&mut input, "AccessKeyId", json!(key.access_key_id));
                Iam::of(&key.remote)?.ask("DeleteAccessKey", &input).map(drop)
            }
            Command::Attach(attach) => attach.run("AttachUserPolicy", "UserName"),
            Command::Detach(detach) => detach.run("DetachUserPolicy", "UserName"),
            Command::Recover(recover) => recover.run(),
        }
    }
}

impl Add {
    fn run(self) -> Result<(), Error> {
        let iam = Iam::of(&self.remote)?;
        let mut input = named(&self.name);
        put_some(&mut input, "Path", self.path.as_ref());
        show(&iam.ask("CreateUser", &input)?);
        for arn in &self.policy {
            let input = json!({"UserName": self.name, "PolicyArn": arn});
            iam.ask("AttachUserPolicy", &input)?;
        }
        if self.key { add_key(&iam, &self.name) } else { Ok(()) }
    }
}

fn add_key(iam: &Iam<'_>, user: &str) -> Result<(), Error> {
    let answer = iam.ask("CreateAccessKey", &named(user))?;
    let text = |member: &str| {
        let key = answer.get("AccessKey").and_then(|key| key.get(member));
        key.and_then(Value::as_str).unwrap_or_default()
    };
    print(&["export AWS_ACCESS_KEY_ID=", text("AccessKeyId")].concat());
    print(&["export AWS_SECRET_ACCESS_KEY=", text("SecretAccessKey")].concat());
    Ok(())
}

impl Recover {
    fn run(self) -> Result<(), Error> {
        let config = prepare(&self.config)?;
        let who = if self.root { Who::Root } else { Who::Administrator };
        let key = runtime()?.block_on(async {
            let appliance = Appliance::open(config).await?;
            let account = self.account.as_ref().unwrap_or(&appliance.site.account);
            let made = administrators::recover(&appliance.services, account, who).await?;
            appliance.services.recorder.flush().await?;
            Ok::<_, Error>(made)
        })?;
        print(&format!("made an access key of {}, shown this once:", key.arn));
        tell(&key);
        for id in &key.replaced {
            print(&format!("its oldest, {id}, is gone: there may be two"));
        }
        Ok(())
    }
}
