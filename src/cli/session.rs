//! `strongroom session`.

use super::remote::Remote;
use super::runtime;
use crate::name::Service;
use crate::server::Error;
use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// End sessions.
#[derive(Args)]
pub(super) struct Session {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// End one session from the next request on.
    End(End),
}

#[derive(Args)]
struct End {
    /// Its access key id (`ASIA...`), as the audit log has it.
    access_key_id: String,
    #[command(flatten)]
    remote: Remote,
}

impl Session {
    pub(super) fn run(self) -> Result<(), Error> {
        let Command::End(End { access_key_id, remote }) = self.command;
        let id = utf8_percent_encode(&access_key_id, NON_ALPHANUMERIC);
        let path = format!("/sts/sessions/{id}");
        let asked = remote.ask::<serde_json::Value>(Service::Sts, Method::DELETE, &path, None);
        runtime()?.block_on(asked)?;
        Ok(())
    }
}
