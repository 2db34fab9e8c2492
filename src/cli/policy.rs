//! `strongroom policy`.

use super::policies::Keep;
use super::policy_explain::Explain;
use super::policy_replay::Replay;
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
    /// Judge the recorded requests of the last days by a proposed policy.
    Replay(Replay),
    #[command(flatten)]
    Keep(Keep),
}

impl Policy {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Explain(explain) => explain.run(),
            Command::Replay(replay) => replay.run(),
            Command::Keep(keep) => keep.run(),
        }
    }
}
