//! `strongroom hsm seal-pin`: a token's PIN, sealed to a TPM.

use super::init::typed;
use super::with_environment;
use crate::custody::boot::{Binding, at};
use crate::custody::profile::Profile;
use crate::custody::sealed::{Sealed, seal};
use crate::secret::Secret;
use crate::server::found::replace_private;
use crate::server::{Error, pin};
use clap::{ArgGroup, Args};
use std::path::PathBuf;

/// Seal a token's PIN to this machine's TPM.
#[derive(Args)]
#[command(group = ArgGroup::new("bound").args(["pcr_policy", "no_boot_binding"]).required(true))]
pub(super) struct SealPin {
    /// The TPM, by its TCTI; without it the kernel's resource manager (`device:/dev/tpmrm0`).
    #[arg(long, value_name = "TCTI")]
    tpm: Option<String>,
    /// A file of mode 0600 with the PIN; without it the PIN comes from `STRONGROOM_PIN`, or the terminal
    /// is asked.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// The public key (PEM, P-256) of the operator who approves the boot states in which the TPM opens it.
    #[arg(long, value_name = "FILE")]
    pcr_policy: Option<PathBuf>,
    /// The PCRs that make a boot state.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,2,4,7",
        conflicts_with = "no_boot_binding"
    )]
    pcrs: Vec<u8>,
    /// Bind it to no boot state: whatever is booted on this machine can open it.
    #[arg(long)]
    no_boot_binding: bool,
    /// Where to write it: then name the file as `token.pin_sealed`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl SealPin {
    pub(super) fn run(self) -> Result<(), Error> {
        with_environment(Profile::silent_tpm())?;
        let device = self.tpm.as_deref();
        // The folder of approvals is the configuration's matter.
        let bound = |key: &PathBuf| Binding::new(key, &self.pcrs, PathBuf::new());
        let binding = self.pcr_policy.as_ref().map(bound).transpose()?;
        // Before a person is asked to type.
        at(device, &self.pcrs)?;
        let sealed = seal(device, &self.pin()?, binding.as_ref())?;
        replace_private(&self.out, &sealed.written())?;
        self.report(&sealed);
        Ok(())
    }

    fn pin(&self) -> Result<Secret, Error> {
        match pin::read("main", self.pin_file.as_deref()) {
            Err(pin::Error::None) => {}
            found => return Ok(found?),
        }
        let pin = typed("PIN to seal")?;
        // Whoever mistypes it would only hear of it from the token, which may count wrong ones.
        if typed("the same again")? == pin {
            return Ok(pin);
        }
        Err(Error::Refused("two different PINs were typed".to_owned()))
    }

    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn report(&self, sealed: &Sealed) {
        println!("sealed to {}: {}", sealed.tpm(), self.out.display());
        if sealed.is_bound() {
            println!(
                "It opens in boot states that the operator has approved: see `strongroom hsm pcr`."
            );
        } else {
            println!("It opens whatever is booted on this machine.");
        }
    }
}
