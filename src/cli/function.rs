//! `strongroom function`: the rotation functions that an account registers with a running appliance, and a
//! runner of AWS Lambda's handlers in Python.

use super::iam::{document, print, put_some};
use super::remote::Remote;
use super::runtime;
use super::serve_python::ServePython;
use crate::name::Service;
use crate::server::Error;
use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Keep rotation functions.
#[derive(Args)]
pub(super) struct Function {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Register a function behind a Lambda Invoke endpoint for the account; prints its ARN.
    Add(Add),
    /// List what the account has registered: ARN, endpoint, deadline in seconds, whether it is given
    /// credentials.
    List(List),
    /// Take a function away; refused while it rotates a secret.
    Remove(Remove),
    /// Run a Lambda handler in Python, unmodified, behind an Invoke endpoint on loopback.
    ServePython(ServePython),
}

#[derive(Args)]
struct Add {
    /// Its name: 1 to 64 letters, digits, hyphens and underscores.
    name: String,
    /// The URL before `/2015-03-31/functions/NAME/invocations`: `https://`, or `http://` on the
    /// appliance's own loopback.
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// A file of the authorities (PEM) that the appliance is to trust there; the appliance's system's by
    /// default.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long a step may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=900))]
    deadline: u16,
    /// Give it no credentials: it has its own.
    #[arg(long)]
    no_credentials: bool,
    /// Let it take the place of a function of its name.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct Remove {
    /// Its name.
    name: String,
    /// Even if it rotates secrets, whose rotations then fail.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Function {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Add(add) => add.run(),
            Command::List(list) => list.run(),
            Command::Remove(remove) => remove.run(),
            Command::ServePython(serve) => serve.run(),
        }
    }
}

fn ask(remote: &Remote, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
    runtime()?.block_on(remote.ask(Service::SecretsManager, method, path, body))
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or("-")
}

impl Add {
    fn run(self) -> Result<(), Error> {
        let mut input = json!({
            "FunctionName": self.name,
            "Endpoint": self.endpoint,
            "DeadlineSeconds": self.deadline,
            "Credentials": !self.no_credentials,
            "Replace": self.replace,
        });
        let ca = self.ca.as_deref().map(document).transpose()?;
        put_some(&mut input, "CertificateAuthorities", ca.as_ref());
        let made = ask(&self.remote, Method::POST, "/functions", Some(&input))?;
        print(text(&made, "ARN"));
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Error> {
        let listed = ask(&self.remote, Method::GET, "/functions", None)?;
        for function in listed.get("Functions").and_then(Value::as_array).into_iter().flatten() {
            let plain = |member| function.get(member).unwrap_or(&Value::Null).to_string();
            let (arn, endpoint) = (text(function, "ARN"), text(function, "Endpoint"));
            let (deadline, credentials) = (plain("DeadlineSeconds"), plain("Credentials"));
            print(&[arn, endpoint, &deadline, &credentials].join("\t"));
        }
        Ok(())
    }
}

impl Remove {
    fn run(self) -> Result<(), Error> {
        let name = utf8_percent_encode(&self.name, NON_ALPHANUMERIC);
        let path = format!("/functions/{name}?Force={}", self.force);
        ask(&self.remote, Method::DELETE, &path, None).map(drop)
    }
}
