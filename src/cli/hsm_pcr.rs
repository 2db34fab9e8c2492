//! `strongroom hsm pcr`: boot states of a TPM, and their approval by an operator's offline key.

use super::hsm_enrol::{Which, parsed, write};
use crate::custody::boot::{Approval, State, current};
use crate::secret::Secret;
use crate::server::{Error, binding};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// The longest file of a private key, in bytes: one of P-256 has some 240, with what may stand before it.
const LONGEST_KEY: usize = 16 << 10;

/// Keep the boot states in which a TPM's keys may be used.
#[derive(Args)]
pub(super) struct Pcr {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// On the appliance: what the PCRs hold now, and whether the operator has approved it.
    Show(Show),
    /// On the operator's machine: approve a boot state. Takes no TPM.
    Sign(Sign),
}

#[derive(Args)]
struct Show {
    #[command(flatten)]
    which: Which,
    /// Write the state to this file, for `sign`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct Sign {
    /// The operator's private key (PEM, P-256).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What `show` wrote.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Where to write the approval: then copy it to the folder `token.pcr_approvals`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Pcr {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Show(show) => show.run(),
            Command::Sign(sign) => sign.run(),
        }
    }
}

impl Show {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn run(self) -> Result<(), Error> {
        let (profile, token) = self.which.token()?;
        let state = current(&profile, token.device.as_deref(), &token.pcrs)?;
        print(&state);
        match binding(&token, &profile)? {
            None => println!("New keys are bound to no boot state: `pcr_policy` is not set."),
            Some(bound) => {
                println!("policy of bound keys {}", String::from(bound.policy()));
                println!("{}", bound.verdict(&state));
            }
        }
        self.out.map_or(Ok(()), |file| write(&file, &state))
    }
}

impl Sign {
    fn run(self) -> Result<(), Error> {
        let state: State = parsed(&self.state)?;
        let key = operators_key(&self.key)?;
        print(&state);
        write(&self.out, &Approval::sign(state, &key)?)
    }
}

fn operators_key(path: &Path) -> Result<Secret, Error> {
    let read = std::fs::File::open(path).and_then(|file| Secret::read(file, LONGEST_KEY));
    read.map_err(|e| Error::io(path, e))?.ok_or_else(|| {
        Error::Refused(format!("`{}` has more than {LONGEST_KEY} bytes", path.display()))
    })
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn print(state: &State) {
    for (pcr, value) in &state.pcrs {
        println!("PCR {pcr:<17} {}", String::from(*value));
    }
    println!("digest to sign        {}", String::from(state.policy));
}
