//! `strongroom hsm holder`: which tokens hold which keys, of a running appliance, or of a data directory
//! that nobody serves.

mod desk;

use self::desk::{Desk, Which};
use super::iam::print;
use super::remote::{Problem, Remote};
use super::runtime;
use crate::name::ALIAS_PREFIX;
use crate::ops::keys::holders::add::Changed;
use crate::ops::keys::holders::list::{HoldingToken, KeyHolders, Resealing};
use crate::ops::keys::holders::store_key::StoreKeyHolders;
use crate::server::Error;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// How often a running appliance is asked how far it is.
const ASKING: Duration = Duration::from_secs(1);

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
    Add(Add),
    /// Have a token hold keys no more. Ciphertexts that callers keep are out of reach: the token
    /// opens them until they went through ReEncrypt.
    Remove(Remove),
    /// List the tokens that hold the store key and each KMS key.
    List(List),
}

/// Which appliance.
#[derive(Args)]
struct Place {
    /// The configuration that `strongroom init` wrote, of an appliance that is not running. Without it a
    /// running one is asked.
    #[arg(long, conflicts_with_all = ["endpoint_url", "region", "ca_bundle"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct Change {
    #[command(flatten)]
    place: Place,
    /// The token, by its name in the configuration.
    #[arg(long, value_name = "NAME")]
    token: String,
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
struct Wait {
    /// Wait until what the store holds is sealed to the holders of now, and say how far that is. To be
    /// repeated at will.
    #[arg(long, conflicts_with = "config")]
    wait: bool,
}

#[derive(Args)]
struct Add {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Args)]
struct Remove {
    #[command(flatten)]
    change: Change,
    /// The token is gone for good: it is not asked to destroy its keys. Then `--token` is its serial
    /// number if the configuration names it no more.
    #[arg(long)]
    lost: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    place: Place,
}

impl Holders {
    pub(super) fn run(self) -> Result<(), Error> {
        let runtime = runtime()?;
        match self.command {
            Command::Add(add) => runtime.block_on(add.run()),
            Command::Remove(remove) => runtime.block_on(remove.run()),
            Command::List(list) => runtime.block_on(list.run()),
        }
    }
}

impl Add {
    async fn run(self) -> Result<(), Error> {
        let Change { place, token, which } = self.change;
        let desk = Desk::open(place).await?;
        let keys = desk.keys(&which).await?;
        let (what, mut changed) = (format!("held by `{token}` now"), false);
        for (account, key) in &keys {
            let input = json!({ "KeyId": key, "Token": token });
            let added = desk.ask(account.as_deref(), "AddKeyHolder", &input).await?;
            changed |= told(key, which.all, added, &what)?;
        }
        if which.of_store() {
            let input = json!({ "Token": token });
            changed |= store_told(desk.ask(None, "AddStoreKeyHolder", &input).await?, &what)?;
        }
        desk.close().await?;
        settle(&desk, &keys, (changed, &self.wait)).await
    }
}

impl Remove {
    async fn run(self) -> Result<(), Error> {
        let Change { place, token, which } = self.change;
        let desk = Desk::open(place).await?;
        let keys = desk.keys(&which).await?;
        let (what, mut changed) = (format!("held by `{token}` no more"), false);
        for (account, key) in &keys {
            let input = json!({ "KeyId": key, "Token": token, "Lost": self.lost });
            let removed = desk.ask(account.as_deref(), "RemoveKeyHolder", &input).await?;
            changed |= told(key, which.all, removed, &what)?;
        }
        if which.of_store() {
            let input = json!({ "Token": token, "Lost": self.lost });
            changed |= store_told(desk.ask(None, "RemoveStoreKeyHolder", &input).await?, &what)?;
        }
        desk.close().await?;
        print(
            "Ciphertexts that callers keep are out of reach: whoever has that token and this \
             database opens them, until they went through ReEncrypt under a key that was rotated.",
        );
        settle(&desk, &keys, (changed, &self.wait)).await
    }
}

/// What came of one request: an answer, or the appliance's refusal.
type Answer<T> = Result<T, Problem>;

/// Says what came of one key; answers whether that was a change. Of all keys those are passed over that
/// can't have several holders, or have no other one.
fn told(key: &str, all: bool, outcome: Answer<Changed>, what: &str) -> Result<bool, Error> {
    const PASSED_OVER: [&str; 2] = ["UnsupportedOperationException", "KMSInvalidStateException"];
    match outcome {
        Ok(Changed { generations: 0, .. }) => Ok(false),
        Ok(changed) => {
            let (id, n) = (short(&changed.key_id), changed.generations);
            let generations = if n == 1 { "generation" } else { "generations" };
            print(&format!("key {id}: {what} ({n} {generations})"));
            Ok(true)
        }
        Err(problem) if all && PASSED_OVER.contains(&problem.title.as_str()) => {
            print(&format!("key {}: passed over, {problem}", short(key)));
            Ok(false)
        }
        Err(problem) => Err(refused(&format!("key {}", short(key)), &problem)),
    }
}

fn store_told(outcome: Answer<StoreKeyHolders>, what: &str) -> Result<bool, Error> {
    let told = outcome.map_err(|problem| refused("store key", &problem))?;
    if told.changed {
        print(&format!("store key: {what}"));
    }
    Ok(told.changed)
}

fn refused(what: &str, problem: &Problem) -> Error {
    Error::Remote(format!("{what}: {problem}"))
}

/// The id of a key's ARN; what is no ARN stays as it is.
fn short(key: &str) -> &str {
    key.rsplit_once(":key/").map_or(key, |(_, id)| id)
}

/// Says who seals what is stored; waits for that if it is wanted.
async fn settle(
    desk: &Desk,
    keys: &[(Option<String>, String)],
    (changed, wait): (bool, &Wait),
) -> Result<(), Error> {
    if !changed {
        print("Nothing was to be changed.");
    }
    if !wait.wait {
        if changed {
            let how = if desk.is_running() { "is being sealed" } else { "is sealed" };
            print(&format!(
                "What the store holds {how} to the holders by the server, in the background."
            ));
        }
        return Ok(());
    }
    for (_, key) in keys {
        wait_for(desk, key).await?;
    }
    print("What the store holds is sealed to the holders.");
    Ok(())
}

async fn wait_for(desk: &Desk, key: &str) -> Result<(), Error> {
    let mut before = None;
    loop {
        let held = held(desk, None, key).await?;
        if held.resealing.is_none() {
            return Ok(());
        }
        if held.resealing != before {
            print(&format!("key {}: {}", short(&held.key_id), progress(held.resealing.as_ref())));
            before = held.resealing;
        }
        tokio::time::sleep(ASKING).await;
    }
}

async fn held(desk: &Desk, account: Option<&str>, key: &str) -> Result<KeyHolders, Error> {
    let listed = desk.ask(account, "ListKeyHolders", &json!({ "KeyId": key })).await?;
    listed.map_err(|problem| refused(&format!("key {}", short(key)), &problem))
}

fn progress(resealing: Option<&Resealing>) -> String {
    let Some(Resealing { percent, waiting }) = resealing else { return String::new() };
    let mut text = format!("stored data keys are being sealed to them, {percent} %");
    for one in waiting {
        text.push_str(&format!("; {} wait for `{}`", one.data_keys, one.token));
    }
    text
}

impl List {
    async fn run(self) -> Result<(), Error> {
        let desk = Desk::open(self.place).await?;
        match desk.ask::<StoreKeyHolders>(None, "ListStoreKeyHolders", &json!({})).await? {
            Ok(held) => print(&format!("store key: {}", names(&held.holders, 1))),
            // It is the first account's.
            Err(problem) => print(&format!("store key: not shown, {problem}")),
        }
        let aliases = desk.aliases().await?;
        for (account, key) in desk.keys(&Which::all()).await? {
            let held = held(&desk, account.as_deref(), &key).await?;
            let named = aliases.get(short(&key)).map(|names| format!(" ({})", names.join(", ")));
            print(&line(&held, &named.unwrap_or_default(), desk.is_running()));
        }
        desk.close().await
    }
}

fn line(held: &KeyHolders, named: &str, running: bool) -> String {
    let (scheme, id) = (held.scheme, short(&held.key_id).trim_start_matches(ALIAS_PREFIX));
    let pending = match &held.resealing {
        None => String::new(),
        Some(_) if !running => "; stored data keys are yet to be sealed to them".to_owned(),
        resealing => format!("; {}", progress(resealing.as_ref())),
    };
    format!("key {id}{named}: {scheme}, {}{pending}", names(&held.holders, held.generations))
}

/// The names of tokens, with the serial numbers of those that the configuration does not name; and what
/// one lacks of so many generations.
fn names(holders: &[HoldingToken], generations: usize) -> String {
    let name = |one: &HoldingToken| {
        let name = match &one.token {
            Some(name) => format!("`{name}`"),
            None => format!("serial {}", one.token_serial),
        };
        match one.generations {
            all if all == generations => name,
            some => format!("{name} ({some} of {generations} generations)"),
        }
    };
    holders.iter().map(name).collect::<Vec<_>>().join(", ")
}
