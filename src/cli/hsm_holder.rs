//! `strongroom hsm holder`: which tokens hold which keys, on a data directory that nobody serves.

use super::iam::print;
use super::runtime;
use super::serve::prepare;
use crate::name::{ALIAS_PREFIX, KeyRef};
use crate::ops::error::{Condition, Error as Refusal};
use crate::ops::keys::holders;
use crate::server::{Appliance, Error};
use crate::store;
use crate::store::keys::Key;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Which tokens hold which keys.
#[derive(Args)]
pub(super) struct Holders {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Have a token hold keys too, so that it opens what is sealed from now on. What the store holds
    /// is sealed to it by the server, in the background.
    Add(Change),
    /// Have a token hold keys no more. Ciphertexts that callers keep are out of reach: the token
    /// opens them until they went through ReEncrypt.
    Remove(Remove),
    /// List the tokens that hold the store key and each KMS key.
    List(List),
}

#[derive(Args)]
struct Change {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
    /// The token, by its name in the configuration.
    #[arg(long, value_name = "NAME")]
    token: String,
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
struct Remove {
    #[command(flatten)]
    change: Change,
    /// The token is gone for good: it is not asked to destroy its keys. Then `--token` is its serial
    /// number if the configuration names it no more.
    #[arg(long)]
    lost: bool,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Which {
    /// A KMS key: its id, ARN, or an alias of the first account. May be repeated.
    #[arg(long)]
    key: Vec<String>,
    /// The store key, without which the appliance does not start.
    #[arg(long)]
    store: bool,
    /// The store key and all KMS keys of all accounts that can have several holders.
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
struct List {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
}

impl Holders {
    pub(super) fn run(self) -> Result<(), Error> {
        let ran = match self.command {
            Command::Add(add) => add.add(),
            Command::Remove(remove) => remove.run(),
            Command::List(list) => list.run(),
        };
        ran.map_err(|error| match error {
            Error::Store(in_use @ store::Error::InUse(_)) => {
                Error::Refused(format!("{in_use}; {SERVED}"))
            }
            other => other,
        })
    }
}

/// Why nothing is done beside a server.
const SERVED: &str = "a server that runs keeps in memory who holds the store key, and whether stored \
data keys are to be sealed anew, and one process alone has tokens and database: stop the server \
(`systemctl stop strongroom`), run this, start the server";

impl Change {
    fn add(self) -> Result<(), Error> {
        let config = prepare(&self.config)?;
        runtime()?.block_on(async {
            let mut appliance = Appliance::open(config).await?;
            let token = serial(&appliance, &self.token)?;
            if self.which.of_store() && appliance.add_store_holder(&token).await? {
                print(&format!("store key: held by `{}` now", self.token));
            }
            for id in self.which.keys(&appliance).await? {
                let added = holders::add(&appliance.services, &id, &token).await;
                told(&id, self.which.all, added, &format!("held by `{}` now", self.token))?;
            }
            appliance.services.recorder.flush().await?;
            print(
                "What the store holds is sealed to the holders by the server, in the background.",
            );
            Ok(())
        })
    }
}

impl Remove {
    fn run(self) -> Result<(), Error> {
        let Change { config, token: name, which } = self.change;
        let config = prepare(&config)?;
        runtime()?.block_on(async {
            let mut appliance = Appliance::open(config).await?;
            let token = match serial(&appliance, &name) {
                Err(_) if self.lost => name.clone(),
                known => known?,
            };
            for id in which.keys(&appliance).await? {
                let removed = holders::remove(&appliance.services, &id, &token, self.lost).await;
                told(&id, which.all, removed, &format!("held by `{name}` no more"))?;
            }
            if which.of_store() && appliance.remove_store_holder(&token).await? {
                print(&format!("store key: held by `{name}` no more"));
            }
            if self.lost && which.all {
                holders::forget(&appliance.services, &token).await?;
            }
            appliance.services.recorder.flush().await?;
            print(
                "Ciphertexts that callers keep are out of reach: whoever has that token and this \
                 database opens them, until they went through ReEncrypt under a key that was rotated.",
            );
            Ok(())
        })
    }
}

/// Says what came of one key. Of all keys those are passed over that can't have several holders, or
/// have no other one.
fn told(id: &str, all: bool, outcome: Result<usize, Refusal>, what: &str) -> Result<(), Error> {
    match outcome {
        Ok(0) => {}
        Ok(n) => print(&format!("key {id}: {what} ({n} generations)")),
        Err(error)
            if all
                && matches!(error.condition, Condition::Unsupported | Condition::InvalidState) =>
        {
            print(&format!("key {id}: passed over, {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

impl Which {
    fn of_store(&self) -> bool {
        self.store || self.all
    }

    /// The ids of the keys that are meant.
    async fn keys(&self, appliance: &Appliance) -> Result<Vec<String>, Error> {
        if self.all {
            let ids = appliance.services.records.scan(|rows| Ok::<_, Refusal>(rows.key_ids()?));
            return Ok(ids.await?);
        }
        self.key.iter().map(|key| key_id(appliance, key)).collect()
    }
}

fn key_id(appliance: &Appliance, text: &str) -> Result<String, Error> {
    let unknown = || Error::Refused(format!("there is no key `{text}`"));
    match KeyRef::parse(text).ok_or_else(unknown)? {
        KeyRef::Id { id, .. } => Ok(id.to_owned()),
        KeyRef::Alias { name, arn } => {
            let account = arn.map_or(appliance.site.account.as_str(), |arn| arn.account);
            let alias = appliance.services.records.alias(account, name)?;
            Ok(alias.ok_or_else(unknown)?.target.clone())
        }
    }
}

fn serial(appliance: &Appliance, name: &str) -> Result<String, Error> {
    let member = appliance.services.tokens.all().iter().find(|member| member.name == name);
    let unknown = || Error::Refused(format!("the configuration names no token `{name}`"));
    member.map(|member| member.serial().to_owned()).ok_or_else(unknown)
}

impl List {
    fn run(self) -> Result<(), Error> {
        let config = prepare(&self.config)?;
        runtime()?.block_on(async {
            let appliance = Appliance::open(config).await?;
            let wrapped = appliance.wrapped_store_key()?;
            let held = wrapped.wraps.iter().map(|wrap| wrap.holder.token.as_str());
            print(&format!("store key: {}", names(&appliance, held)));
            let records = &appliance.services.records;
            for id in records.scan(|rows| Ok::<_, Refusal>(rows.key_ids()?)).await? {
                if let Some(key) = records.key(&id)? {
                    print(&line(&appliance, &key));
                }
            }
            Ok(())
        })
    }
}

fn line(appliance: &Appliance, key: &Key) -> String {
    let scheme = key.current().map(|backing| backing.scheme.to_string()).unwrap_or_default();
    let current = key.current().into_iter().flat_map(|backing| &backing.holders);
    let held = names(appliance, current.map(|holder| holder.token.as_str()));
    let aliases = appliance.services.records.read(|rows| rows.aliases_of(&key.account, &key.id));
    let aliases: Vec<_> = aliases.unwrap_or_default().into_iter().map(|alias| alias.name).collect();
    let named =
        if aliases.is_empty() { String::new() } else { format!(" ({})", aliases.join(", ")) };
    let pending = if key.resealing { "; stored data keys are being sealed to them" } else { "" };
    format!("key {}{named}: {scheme}, {held}{pending}", key.id.trim_start_matches(ALIAS_PREFIX))
}

/// The names of tokens, with the serial numbers of those that the configuration does not name.
fn names<'a>(appliance: &Appliance, serials: impl Iterator<Item = &'a str>) -> String {
    let known = appliance.services.tokens.all();
    let name = |serial: &str| match known.iter().find(|member| member.serial() == serial) {
        Some(member) => format!("`{}`", member.name),
        None => format!("serial {serial}"),
    };
    serials.map(name).collect::<Vec<_>>().join(", ")
}
