//! `strongroom policy`.

use super::policies::Keep;
use super::policy_explain::Explain;
use crate::server::Error;
use clap::{Args, Subcommand};

/// Keep managed policies, and ask what policies decide.
#[derive(Args)]
pub(super) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say which statement of which policy decided a request.
    Explain(Explain),
    #[command(flatten)]
    Keep(Keep),
}

impl Policy {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Explain(explain) => explain.run(),
            Command::Keep(keep) => keep.run(),
        }
    }
}
