//! `strongroom account`: the tenants of an appliance, on a data directory that nobody serves.

use super::iam::print;
use super::init::{random_account, tell};
use super::runtime;
use super::serve::prepare;
use crate::name::is_account;
use crate::ops;
use crate::ops::iam::administrators::{self, Who};
use crate::server::{Appliance, Error};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Add and list accounts.
#[derive(Args)]
pub struct Account {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an account with its default KMS key and an access key of its first administrator.
    Add(Add),
    /// List accounts: id, when they were made.
    List(List),
}

#[derive(Args)]
struct Add {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
    /// The account's id: 12 digits; random if it is left out.
    #[arg(long)]
    account: Option<String>,
    /// Make an access key of the account's root, and no administrator.
    #[arg(long)]
    root: bool,
}

#[derive(Args)]
struct List {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
}

impl Account {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Add(add) => add.run(),
            Command::List(list) => list.run(),
        }
    }
}

impl Add {
    fn run(self) -> Result<(), Error> {
        let config = prepare(&self.config)?;
        let account = match self.account {
            Some(account) => account,
            None => random_account()?,
        };
        if !is_account(&account) {
            return Err(Error::Refused(format!("account `{account}` is not 12 digits")));
        }
        let who = if self.root { Who::Root } else { Who::Administrator };
        let key = runtime()?.block_on(async {
            let appliance = Appliance::open(config).await?;
            let services = &appliance.services;
            // The key first: an account that is there has one.
            ops::keys::create::create_service_key(services, &account).await?;
            let made = administrators::found_account(services, &account, who).await?;
            services.recorder.flush().await?;
            Ok::<_, Error>(made)
        })?;
        print(&format!("made account {account}"));
        print(&format!("\nThe access key of {}, shown this once:", key.arn));
        tell(&key);
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Error> {
        let config = prepare(&self.config)?;
        let accounts = runtime()?.block_on(async {
            let appliance = Appliance::open(config).await?;
            Ok::<_, Error>(appliance.services.records.read(|rows| rows.accounts())?)
        })?;
        for account in accounts {
            print(&format!("{}\t{}", account.id, ops::scene::iso(account.created)));
        }
        Ok(())
    }
}
