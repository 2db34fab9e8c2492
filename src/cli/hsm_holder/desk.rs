//! Who does it: a running appliance, or this process on a data directory that nobody serves. Both run the
//! same operations.

use super::{Answer, Place};
use crate::cli::remote::{Problem, Remote};
use crate::cli::serve::prepare;
use crate::name::{KeyRef, Service};
use crate::ops::call::Call;
use crate::ops::error::Error as Refusal;
use crate::server::{Appliance, Error};
use crate::store;
use clap::Args;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Which keys.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub(super) struct Which {
    /// A KMS key: its id, ARN or alias. May be repeated.
    #[arg(long)]
    key: Vec<String>,
    /// The store key, without which the appliance does not start.
    #[arg(long)]
    store: bool,
    /// The store key, and all KMS keys of the account that can have several holders; with `--config`
    /// those of all accounts.
    #[arg(long)]
    pub(super) all: bool,
}

impl Which {
    pub(super) fn all() -> Self {
        Self { key: Vec::new(), store: false, all: true }
    }

    pub(super) fn of_store(&self) -> bool {
        self.store || self.all
    }
}

/// Why nothing is done beside a server.
const SERVED: &str = "one process alone has tokens and database: leave `--config` out, and the server \
does it itself (`--endpoint-url`)";

/// What SigV4 leaves as it is: unreserved characters (RFC 3986 section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Who is asked.
pub(super) enum Desk {
    /// A running appliance.
    There(Box<Remote>),
    /// This process.
    Here(Box<Appliance>),
}

/// A page of a list.
#[derive(Deserialize)]
struct Page {
    #[serde(rename = "NextMarker")]
    next: Option<String>,
    #[serde(flatten)]
    rest: Value,
}

impl Desk {
    pub(super) async fn open(place: Place) -> Result<Self, Error> {
        let Some(config) = place.config else { return Ok(Self::There(Box::new(place.remote))) };
        match Appliance::open(prepare(&config)?).await {
            Ok(appliance) => Ok(Self::Here(Box::new(appliance))),
            Err(Error::Store(in_use @ store::Error::InUse(_))) => {
                Err(Error::Refused(format!("{in_use}; {SERVED}")))
            }
            Err(other) => Err(other),
        }
    }

    /// Whether a server goes on with it.
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::There(_))
    }

    /// Sees to it that what was done stands in the audit log.
    pub(super) async fn close(&self) -> Result<(), Error> {
        match self {
            Self::There(_) => Ok(()),
            Self::Here(appliance) => {
                Ok(appliance.services.recorder.flush().await.map_err(Refusal::from)?)
            }
        }
    }

    /// Has an operation of KMS done: as the caller; here as the account, the first one if none is named.
    ///
    /// # Errors
    /// Those of reaching it. A refusal is an answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        account: Option<&str>,
        operation: &'static str,
        input: &Value,
    ) -> Result<Answer<T>, Error> {
        match self {
            Self::There(remote) => ask_there(remote, operation, input).await,
            Self::Here(appliance) => {
                let account = account.unwrap_or(&appliance.site.account);
                ask_here(appliance, account, operation, input).await
            }
        }
    }

    /// The KMS keys that are meant, each with its account if that is not the caller's.
    pub(super) async fn keys(&self, which: &Which) -> Result<Vec<(Option<String>, String)>, Error> {
        if !which.all {
            return which.key.iter().map(|key| self.key(key)).collect();
        }
        let mut keys = Vec::new();
        for account in self.accounts().await? {
            for key in self.list(account.as_deref(), "ListKeys", "Keys").await? {
                let id = key.get("KeyArn").and_then(Value::as_str).unwrap_or_default();
                keys.push((account.clone(), id.to_owned()));
            }
        }
        Ok(keys)
    }

    /// The names of keys, by their ids.
    pub(super) async fn aliases(&self) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let mut names = BTreeMap::<_, Vec<_>>::new();
        for account in self.accounts().await? {
            for alias in self.list(account.as_deref(), "ListAliases", "Aliases").await? {
                let text = |name| alias.get(name).and_then(Value::as_str).unwrap_or_default();
                names.entry(text("TargetKeyId").into()).or_default().push(text("AliasName").into());
            }
        }
        Ok(names)
    }

    /// A key that was named; here an id or an ARN says whose it is.
    fn key(&self, named: &str) -> Result<(Option<String>, String), Error> {
        let Self::Here(appliance) = self else { return Ok((None, named.to_owned())) };
        let account = match KeyRef::parse(named) {
            Some(KeyRef::Id { arn: Some(arn), .. } | KeyRef::Alias { arn: Some(arn), .. }) => {
                Some(arn.account.to_owned())
            }
            Some(KeyRef::Id { id, .. }) => {
                appliance.services.records.key(id)?.map(|key| key.account.clone())
            }
            _ => None,
        };
        Ok((account, named.to_owned()))
    }

    async fn accounts(&self) -> Result<Vec<Option<String>>, Error> {
        let Self::Here(appliance) = self else { return Ok(vec![None]) };
        let records = &appliance.services.records;
        let mut accounts = BTreeSet::new();
        for id in records.scan(|rows| Ok::<_, Refusal>(rows.key_ids()?)).await? {
            accounts.extend(records.key(&id)?.map(|key| key.account.clone()));
        }
        Ok(accounts.into_iter().map(Some).collect())
    }

    /// Every page of a list.
    async fn list(
        &self,
        account: Option<&str>,
        operation: &'static str,
        items: &str,
    ) -> Result<Vec<Value>, Error> {
        let (mut all, mut input) = (Vec::new(), json!({}));
        loop {
            let page: Answer<Page> = self.ask(account, operation, &input).await?;
            let mut page = page.map_err(|problem| Error::Remote(problem.to_string()))?;
            if let Some(Value::Array(more)) = page.rest.get_mut(items).map(Value::take) {
                all.extend(more);
            }
            match page.next {
                Some(marker) => input = json!({ "Marker": marker }),
                None => return Ok(all),
            }
        }
    }
}

async fn ask_here<T: DeserializeOwned>(
    appliance: &Appliance,
    account: &str,
    operation: &'static str,
    input: &Value,
) -> Result<Answer<T>, Error> {
    let services = appliance.services.clone();
    let call = Call::of_system(services, Service::Kms, operation, account)?;
    let answered = match call.row.run(&call, input.to_string().as_bytes()).await {
        Ok(body) => serde_json::from_slice(body.into_secret().expose()),
        Err(refusal) => {
            let title = (call.code_of)(call.row, refusal.condition).to_owned();
            let why = refusal.log.map(|log| format!(" ({log})")).unwrap_or_default();
            return Ok(Err(Problem { title, detail: format!("{}{why}", refusal.message) }));
        }
    };
    let answer = answered
        .map_err(|error| Error::Remote(format!("{operation} answered something else: {error}")));
    answer.map(Ok)
}

/// By the operation's REST route. What does not stand in the path stands in the query: one member at
/// most has a value.
async fn ask_there<T: DeserializeOwned>(
    remote: &Remote,
    operation: &'static str,
    input: &Value,
) -> Result<Answer<T>, Error> {
    let row = crate::ops::find(Service::Kms, operation)
        .ok_or_else(|| Error::Remote(format!("no operation is named {operation}")))?;
    let (mut path, mut query) = (row.route.path.to_owned(), String::new());
    for (name, value) in input.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let text = utf8_percent_encode(&text, ENCODED).to_string();
        let place = format!("{{{name}}}");
        match path.contains(&place) {
            true => path = path.replace(&place, &text),
            false if value != &Value::Bool(false) => query = format!("?{name}={text}"),
            false => {}
        }
    }
    let method = Method::from_bytes(row.route.method.as_bytes())
        .map_err(|error| Error::Remote(error.to_string()))?;
    remote.ask_whether(Service::Kms, method, &(path + &query), None).await
}
