//! The command line: one file per command.

pub mod account;
pub mod audit;
pub mod dev;
mod function;
mod hsm;
mod hsm_bench;
mod hsm_enrol;
mod hsm_holder;
mod hsm_pcr;
mod hsm_probe;
mod hsm_seal;
mod hsm_verify;
mod iam;
pub mod init;
mod policies;
mod policy;
mod policy_explain;
mod policy_replay;
mod remote;
mod role;
mod secret;
mod seed;
pub mod serve;
mod serve_python;
mod session;
pub mod stand_in;
mod user;

use crate::config::Config;
use crate::custody::child::{Isolation, host};
use crate::custody::profile::Profile;
use crate::rotate::confined;
use crate::server::{Error, harden};
use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

/// AWS Secrets Manager and AWS KMS on your own premises, with the master keys in your own hardware.
#[derive(Parser)]
#[command(name = "strongroom", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an appliance: folder, token, database, first administrator.
    Init(Box<init::Init>),
    /// Serve an appliance.
    Serve(serve::Serve),
    /// Make or reopen a throw-away appliance with a token of its own, for tests and CI.
    Dev(dev::Dev),
    /// Verify an audit log offline, or prove that a record is in it.
    Audit(audit::Audit),
    /// Ask for evidence of what holds a key, check it offline; try what a token does.
    Hsm(hsm::Hsm),
    /// Keep managed policies; ask which statement decided a request, and what another would decide.
    Policy(policy::Policy),
    /// Keep users.
    User(user::User),
    /// Keep roles.
    Role(role::Role),
    /// Look at secrets.
    Secret(secret::Secret),
    /// Keep rotation functions; run one that is written for AWS Lambda.
    Function(function::Function),
    /// End sessions.
    Session(session::Session),
    /// Add and list accounts, on a data directory that nobody serves.
    Account(account::Account),
    /// Hold a token for the server that starts this.
    #[command(hide = true)]
    TokenHost,
    /// Run a program for the server that starts this.
    #[command(hide = true)]
    FunctionHost(FunctionHost),
}

/// What [`Command::FunctionHost`] is to run.
#[derive(clap::Args)]
struct FunctionHost {
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

impl FunctionHost {
    fn run(self) -> Result<(), Error> {
        harden::forbid_dumps().map_err(Error::Refused)?;
        confined::host::run(self.program).map_err(|e| Error::io(Path::new("the program's host"), e))
    }
}

/// Runs a command.
pub fn run(arguments: Arguments) -> Result<(), Error> {
    // What the host of a program writes to its standard error counts as the program's own.
    if !matches!(arguments.command, Command::FunctionHost(_)) {
        let filter = EnvFilter::try_from_env("STRONGROOM_LOG")
            .unwrap_or_else(|_| EnvFilter::new("warn,strongroom=info"));
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        harden::harden().map_err(Error::Refused)?;
    }
    match arguments.command {
        Command::Init(init) => init.run(),
        Command::Serve(serve) => serve.run(),
        Command::Dev(dev) => dev.run(),
        Command::Audit(audit) => audit.run(),
        Command::Hsm(hsm) => hsm.run(),
        Command::Policy(policy) => policy.run(),
        Command::User(user) => user.run(),
        Command::Role(role) => role.run(),
        Command::Secret(secret) => secret.run(),
        Command::Function(function) => function.run(),
        Command::Session(session) => session.run(),
        Command::Account(account) => account.run(),
        Command::FunctionHost(host) => host.run(),
        Command::TokenHost => {
            host::run().map_err(|e| Error::io(Path::new("the server's socket"), e))
        }
    }
}

/// Gives the libraries that this process is to run itself what they want in the environment. They read
/// it when they are loaded, and a process with threads must not change its own.
fn with_module_configurations(config: &Config) -> Result<(), Error> {
    let mut wanted = Vec::new();
    for token in config.token.iter().filter(|token| token.isolation == Isolation::None) {
        let profile = Profile::named(&token.profile)?;
        wanted.extend(profile.environment(token.configuration.as_deref()));
        wanted.extend(token.pin_sealed.iter().flat_map(|_| Profile::silent_tpm()));
    }
    with_environment(wanted)
}

/// Starts this program anew with these variables in the environment, unless they are there already.
fn with_environment(wanted: Vec<(String, PathBuf)>) -> Result<(), Error> {
    if wanted.iter().all(|(name, value)| std::env::var_os(name).is_some_and(|v| v == *value)) {
        return Ok(());
    }
    let this = std::env::current_exe().map_err(|e| Error::io(Path::new("/proc/self/exe"), e))?;
    let mut command = std::process::Command::new(&this);
    command.args(std::env::args_os().skip(1)).envs(wanted);
    Err(Error::io(&this, command.exec()))
}

/// The reactor: one thread a processor.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|e| Error::io(Path::new("the reactor"), e))
}

/// What waits for SIGTERM or SIGINT. They are heard from the call on, not from the first poll: one
/// that comes as soon as the server is ready must not end it as the system would.
fn shutdown() -> Result<impl Future<Output = ()>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let heard = |kind| signal(kind).map_err(|e| Error::io(Path::new("the signals"), e));
    let (mut term, mut int) = (heard(SignalKind::terminate())?, heard(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

/// Prints a report as JSON, with members that it does not hold itself.
#[expect(clippy::print_stdout, reason = "what the verifying commands are for")]
fn print_report<const N: usize>(report: &impl Serialize, more: [(&str, Value); N]) {
    let mut told = serde_json::to_value(report).unwrap_or_default();
    if let Some(members) = told.as_object_mut() {
        members.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    println!("{told}");
}
