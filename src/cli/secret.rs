//! `strongroom secret`.

use super::iam::show;
use super::remote::Remote;
use super::runtime;
use crate::name::Service;
use crate::server::Error;
use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Look at secrets.
#[derive(Args)]
pub(super) struct Secret {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say how far a secret's rotation is, and why the last one failed.
    Rotation(Named),
    /// Say whether what is stored logs in still, of a secret with the tag `strongroom:probe`.
    Probe(Named),
}

#[derive(Args)]
struct Named {
    /// The secret's name or ARN.
    secret: String,
    #[command(flatten)]
    remote: Remote,
}

impl Secret {
    pub(super) fn run(self) -> Result<(), Error> {
        let (Named { secret, remote }, what) = match self.command {
            Command::Rotation(named) => (named, "rotation"),
            Command::Probe(named) => (named, "probe"),
        };
        let id = utf8_percent_encode(&secret, NON_ALPHANUMERIC);
        let path = format!("/secrets/{id}/{what}");
        let asked =
            remote.ask::<serde_json::Value>(Service::SecretsManager, Method::GET, &path, None);
        show(&runtime()?.block_on(asked)?);
        Ok(())
    }
}
