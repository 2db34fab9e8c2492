//! `strongroom policy list`, `add`, `show`, `delete`: managed policies.

use super::iam::{Iam, List, Listing, document, put_some, show};
use super::remote::Remote;
use crate::server::Error;
use clap::{Args, Subcommand};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Keep managed policies.
#[derive(Subcommand)]
pub(super) enum Keep {
    /// List managed policies: name, ARN, default version.
    List(Listing),
    /// Make a managed policy.
    Add(Add),
    /// Show a managed policy with its document.
    Show(ByArn),
    /// Delete a managed policy that is attached to nobody.
    Delete(ByArn),
}

#[derive(Args)]
pub(super) struct Add {
    /// Its name.
    name: String,
    /// The file with its document.
    #[arg(long, value_name = "FILE")]
    document: PathBuf,
    /// Its path.
    #[arg(long)]
    path: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
pub(super) struct ByArn {
    /// Its ARN.
    arn: String,
    #[command(flatten)]
    remote: Remote,
}

/// Managed policies of an account and of every account.
const POLICIES: List = List {
    action: "ListPolicies",
    items: "Policies",
    shown: &["PolicyName", "Arn", "DefaultVersionId"],
};

impl Keep {
    pub(super) fn run(self) -> Result<(), Error> {
        match self {
            Self::List(listing) => listing.run(&POLICIES, json!({})),
            Self::Add(add) => add.run(),
            Self::Show(policy) => policy.show(),
            Self::Delete(policy) => {
                let input = json!({"PolicyArn": policy.arn});
                Iam::of(&policy.remote)?.ask("DeletePolicy", &input).map(drop)
            }
        }
    }
}

impl Add {
    fn run(self) -> Result<(), Error> {
        let text = document(&self.document)?;
        let mut input = json!({"PolicyName": self.name, "PolicyDocument": text});
        put_some(&mut input, "Path", self.path.as_ref());
        put_some(&mut input, "Description", self.description.as_ref());
        show(&Iam::of(&self.remote)?.ask("CreatePolicy", &input)?);
        Ok(())
    }
}

impl ByArn {
    fn show(&self) -> Result<(), Error> {
        let iam = Iam::of(&self.remote)?;
        let mut shown = iam.ask("GetPolicy", &json!({"PolicyArn": self.arn}))?;
        let version = shown.pointer("/Policy/DefaultVersionId").cloned();
        let input = json!({"PolicyArn": self.arn, "VersionId": version});
        let got = iam.ask("GetPolicyVersion", &input)?;
        let document = got.pointer("/PolicyVersion/Document").and_then(Value::as_str);
        let document = percent_decode_str(document.unwrap_or_default()).decode_utf8_lossy();
        let document = serde_json::from_str(&document).unwrap_or(Value::Null);
        super::iam::put(&mut shown, "Document", document);
        show(&shown);
        Ok(())
    }
}
