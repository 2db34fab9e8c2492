//! `strongroom hsm pcr`: boot states of a TPM, and their approval by an operator's offline key.

use super::hsm_enrol::{Which, parsed, write};
use super::with_environment;
use crate::config::Token;
use crate::custody::boot::{Approval, Binding, State, at, current};
use crate::custody::profile::{Kind, Profile};
use crate::secret::Secret;
use crate::server::{Error, binding, pin};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// The longest file of a private key, in bytes: one of P-256 has some 240, with what may stand before it.
const LONGEST_KEY: usize = 16 << 10;

/// Keep the boot states in which a TPM's keys may be used, and a sealed PIN be opened.
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
    which: Option<Which>,
    /// The TPM, by its TCTI, where no configuration names it yet.
    #[arg(
        long,
        value_name = "TCTI",
        conflicts_with = "config",
        required_unless_present = "config"
    )]
    tpm: Option<String>,
    /// The PCRs of that TPM that make a boot state.
    #[arg(long, value_delimiter = ',', default_value = "0,2,4,7", requires = "tpm")]
    pcrs: Vec<u8>,
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
    fn run(self) -> Result<(), Error> {
        let state = match &self.which {
            None => unconfigured(self.tpm.as_deref(), &self.pcrs)?,
            Some(which) => {
                let (profile, token) = which.token()?;
                match sealed(&token, &profile)? {
                    Some(binding) => of_pin(&token, &binding)?,
                    None => of_keys(&token, &profile)?,
                }
            }
        };
        self.out.map_or(Ok(()), |file| write(&file, &state))
    }
}

/// The boot state of a TPM that is in no configuration.
fn unconfigured(device: Option<&str>, pcrs: &[u8]) -> Result<State, Error> {
    with_environment(Profile::silent_tpm())?;
    let state = at(device, pcrs)?;
    print(&state);
    Ok(state)
}

/// What a token's sealed PIN is bound to, unless its keys are.
fn sealed(token: &Token, profile: &Profile) -> Result<Option<Binding>, Error> {
    let Some(file) = token.pin_sealed.as_deref().filter(|_| token.pcr_policy.is_none()) else {
        return Ok(None);
    };
    let approvals = token.pcr_approvals.clone().unwrap_or_default();
    let binding = pin::sealed(file)?.binding(approvals);
    match profile.kind {
        Kind::Tpm => Ok(binding),
        _ => binding.map(Some).ok_or_else(|| Error::Refused(UNBOUND.to_owned())),
    }
}

const UNBOUND: &str = "the token's sealed PIN is bound to no boot state";

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn of_pin(token: &Token, bound: &Binding) -> Result<State, Error> {
    let state = at(token.pin_tpm.as_deref(), &bound.pcrs)?;
    print(&state);
    println!("The token's PIN is sealed: {}", bound.verdict(&state));
    Ok(state)
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn of_keys(token: &Token, profile: &Profile) -> Result<State, Error> {
    let state = current(profile, token.device.as_deref(), &token.pcrs)?;
    print(&state);
    match binding(token, profile)? {
        None => println!("New keys are bound to no boot state: `pcr_policy` is not set."),
        Some(bound) => {
            println!("policy of bound keys {}", String::from(bound.policy()));
            println!("{}", bound.verdict(&state));
        }
    }
    Ok(state)
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
