//! What `strongroom user`, `role` and `policy` have in common: they call IAM's operations of a running
//! appliance, as `aws iam` does, and need the same rights.

use super::remote::Remote;
use super::runtime;
use crate::name::Service;
use crate::server::Error;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

/// The longest policy file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Calls IAM's operations.
pub(super) struct Iam<'a> {
    remote: &'a Remote,
    runtime: tokio::runtime::Runtime,
}

/// What an answer lists, by the members of the answer and of its items.
pub(super) struct List {
    pub(super) action: &'static str,
    pub(super) items: &'static str,
    pub(super) shown: &'static [&'static str],
}

impl<'a> Iam<'a> {
    /// Of this appliance.
    pub(super) fn of(remote: &'a Remote) -> Result<Self, Error> {
        Ok(Self { remote, runtime: runtime()? })
    }

    /// One operation.
    pub(super) fn ask(&self, action: &str, input: &Value) -> Result<Value, Error> {
        let path = ["/iam/", action].concat();
        self.runtime.block_on(self.remote.ask(Service::Iam, Method::POST, &path, Some(input)))
    }

    /// Every page of a list.
    pub(super) fn all(&self, list: &List, input: &Value) -> Result<Vec<Value>, Error> {
        let (mut all, mut input) = (Vec::new(), input.clone());
        loop {
            let mut page = self.ask(list.action, &input)?;
            if let Some(Value::Array(items)) = page.get_mut(list.items).map(Value::take) {
                all.extend(items);
            }
            match page.get("Marker").filter(|marker| marker.is_string()) {
                Some(marker) => put(&mut input, "Marker", marker.clone()),
                None => return Ok(all),
            }
        }
    }

    /// Prints an entity with the lists of what hangs on it.
    pub(super) fn show(&self, action: &str, input: &Value, hanging: &[List]) -> Result<(), Error> {
        let mut shown = self.ask(action, input)?;
        for list in hanging {
            put(&mut shown, list.items, Value::Array(self.all(list, input)?));
        }
        show(&shown);
        Ok(())
    }

    /// Prints a list, one item a line.
    pub(super) fn print_all(&self, list: &List, input: &Value) -> Result<(), Error> {
        for item in self.all(list, input)? {
            let text = |name: &&str| item.get(*name).and_then(Value::as_str).unwrap_or("-");
            let line: Vec<&str> = list.shown.iter().map(text).collect();
            print(&line.join("\t"));
        }
        Ok(())
    }
}

/// Puts a member into an input.
pub(super) fn put(input: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = input {
        members.insert(name.to_owned(), value);
    }
}

/// Puts a member into an input if there is one.
pub(super) fn put_some(input: &mut Value, name: &str, value: Option<&String>) {
    if let Some(value) = value {
        put(input, name, json!(value));
    }
}

/// Prints an answer for people.
pub(super) fn show(value: &Value) {
    print(&serde_json::to_string_pretty(value).unwrap_or_default());
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(super) fn print(line: &str) {
    println!("{line}");
}

/// A policy document from a file.
pub(super) fn document(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_err(|e| Error::io(path, e))?;
    Ok(text)
}

/// Which entity, on which appliance.
#[derive(Args)]
pub(super) struct Named {
    /// Its name.
    pub(super) name: String,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// A managed policy for a user or role.
#[derive(Args)]
pub(super) struct Attach {
    /// The name of whom it is for.
    pub(super) name: String,
    /// The policy's ARN.
    pub(super) policy_arn: String,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// A list of an appliance's.
#[derive(Args)]
pub(super) struct Listing {
    /// Only what is below this path.
    #[arg(long)]
    path_prefix: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Listing {
    /// Prints it.
    pub(super) fn run(&self, list: &List, mut input: Value) -> Result<(), Error> {
        put_some(&mut input, "PathPrefix", self.path_prefix.as_ref());
        Iam::of(&self.remote)?.print_all(list, &input)
    }
}

impl Attach {
    /// Attaches or detaches.
    pub(super) fn run(&self, action: &str, member: &str) -> Result<(), Error> {
        let input = json!({member: self.name, "PolicyArn": self.policy_arn});
        Iam::of(&self.remote)?.ask(action, &input).map(drop)
    }
}
