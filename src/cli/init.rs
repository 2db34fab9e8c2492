//! `strongroom init`.

use super::runtime;
use crate::clock::{Random, SystemRandom, random_bytes};
use crate::custody::Locator;
use crate::custody::child::Isolation;
use crate::custody::profile::{Kind, Profile};
use crate::ops::iam::administrators::NewKey;
use crate::secret::Secret;
use crate::server::Error;
use crate::server::found::{Boot, Existing, MAIN, PinSource, Plan, SECOND, TokenPlan};
use clap::{ArgGroup, Args};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Make an appliance.
#[derive(Args)]
pub struct Init {
    /// The folder to make it in.
    #[arg(long)]
    dir: PathBuf,
    /// The kind of token: a folder of hsm-profiles/, or, with a slash in it, the file of a profile.
    #[arg(long, default_value = "softhsm2")]
    profile: String,
    /// The token's PKCS#11 module, if it is at none of the places that the profile names.
    #[arg(long, value_name = "FILE")]
    token_module: Option<PathBuf>,
    /// How the token is reached, if it has no module: of a TPM the TCTI (`device:/dev/tpmrm0`).
    #[arg(long, value_name = "TCTI")]
    token_device: Option<String>,
    #[command(flatten)]
    there: There,
    #[command(flatten)]
    states: States,
    #[command(flatten)]
    second: Second,
    /// Found the appliance on a single TPM or YubiKey, whose death loses every secret.
    #[arg(long, conflicts_with = "second_profile")]
    no_recovery: bool,
    /// The region (site) in every ARN; it looks like one of AWS's and can't be changed later.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// The first account's id: 12 digits; random if it is left out.
    #[arg(long)]
    account: Option<String>,
    /// The loopback address to serve at, without TLS; TLS is set up in the configuration.
    #[arg(long, default_value = "127.0.0.1:8200")]
    listen: SocketAddr,
}

/// A token that exists already.
#[derive(Args)]
#[command(group = ArgGroup::new("existing").args(["token_label", "token_serial"]))]
struct There {
    /// A token that exists already, by its label: none is made.
    #[arg(long, value_name = "LABEL", conflicts_with = "token_serial")]
    token_label: Option<String>,
    /// The same by its serial number.
    #[arg(long, value_name = "SERIAL")]
    token_serial: Option<String>,
    /// The file of mode 0600 with its PIN, which stays there; without it the terminal is asked.
    #[arg(long, value_name = "FILE", requires = "existing")]
    pin_file: Option<PathBuf>,
    /// Instead: what `strongroom hsm seal-pin` has written, which stays there.
    #[arg(long, value_name = "FILE", requires = "existing", conflicts_with = "pin_file")]
    pin_sealed: Option<PathBuf>,
    /// The TPM that opens it, by its TCTI; without it the kernel's resource manager.
    #[arg(long, value_name = "TCTI", requires = "pin_sealed")]
    pin_tpm: Option<String>,
    /// The configuration of its module, if it needs to be told of one.
    #[arg(long, value_name = "FILE", requires = "existing")]
    module_configuration: Option<PathBuf>,
}

/// Boot states.
#[derive(Args)]
#[command(group = ArgGroup::new("bound").args(["pcr_policy", "pin_sealed", "second_pin_sealed"]).multiple(true))]
struct States {
    /// The public key (PEM, P-256) of the operator who approves the boot states that the keys in TPMs
    /// are used in: all that are made from the first one on.
    #[arg(long, value_name = "FILE", requires = "pcr_approvals")]
    pcr_policy: Option<PathBuf>,
    /// The PCRs that make a boot state.
    #[arg(long, value_delimiter = ',', default_value = "0,2,4,7", requires = "pcr_policy")]
    pcrs: Vec<u8>,
    /// The folder of approvals, of which one is for today's state: the server reads it while it runs.
    #[arg(long, value_name = "FOLDER", requires = "bound")]
    pcr_approvals: Option<PathBuf>,
}

impl States {
    /// Those of one of the tokens.
    fn of(&self, profile: &Profile, existing: Option<&Existing>) -> Boot {
        let policy = self.pcr_policy.clone().filter(|_| profile.kind == Kind::Tpm);
        let sealed = existing.is_some_and(|there| matches!(there.pin, PinSource::Sealed(..)));
        let approvals = self.pcr_approvals.clone().filter(|_| sealed || policy.is_some());
        Boot { policy, pcrs: self.pcrs.clone(), approvals }
    }
}

/// A second token, which holds the same keys as the first.
#[derive(Args)]
#[command(group = ArgGroup::new("second_existing").args(["second_label", "second_serial"]))]
struct Second {
    /// Found the appliance on a second token too, of this kind: each of the two opens everything.
    #[arg(long, value_name = "PROFILE")]
    second_profile: Option<String>,
    /// As --token-module, of the second token.
    #[arg(long, value_name = "FILE", requires = "second_profile")]
    second_module: Option<PathBuf>,
    /// As --token-device, of the second token.
    #[arg(long, value_name = "TCTI", requires = "second_profile")]
    second_device: Option<String>,
    /// As --token-label, of the second token.
    #[arg(
        long,
        value_name = "LABEL",
        requires = "second_profile",
        conflicts_with = "second_serial"
    )]
    second_label: Option<String>,
    /// As --token-serial, of the second token.
    #[arg(long, value_name = "SERIAL", requires = "second_profile")]
    second_serial: Option<String>,
    /// As --pin-file, of the second token.
    #[arg(long, value_name = "FILE", requires = "second_existing")]
    second_pin_file: Option<PathBuf>,
    /// As --pin-sealed, of the second token.
    #[arg(
        long,
        value_name = "FILE",
        requires = "second_existing",
        conflicts_with = "second_pin_file"
    )]
    second_pin_sealed: Option<PathBuf>,
    /// As --pin-tpm, of the second token.
    #[arg(long, value_name = "TCTI", requires = "second_pin_sealed")]
    second_pin_tpm: Option<String>,
    /// As --module-configuration, of the second token.
    #[arg(long, value_name = "FILE", requires = "second_existing")]
    second_module_configuration: Option<PathBuf>,
}

impl There {
    fn existing(self) -> Result<Option<Existing>, Error> {
        let label = self.token_label.map(Locator::Label);
        let Some(token) = label.or(self.token_serial.map(Locator::Serial)) else { return Ok(None) };
        let pin = match (self.pin_file, self.pin_sealed) {
            (Some(file), _) => PinSource::File(file),
            (None, Some(file)) => PinSource::Sealed(file, self.pin_tpm),
            (None, None) => PinSource::Typed(typed(&format!("PIN of token `{token}`"))?),
        };
        Ok(Some(Existing { token, pin, configuration: self.module_configuration }))
    }
}

impl Second {
    fn plan(self, states: &States) -> Result<Option<TokenPlan>, Error> {
        let Some(profile_name) = self.second_profile else { return Ok(None) };
        let there = There {
            token_label: self.second_label,
            token_serial: self.second_serial,
            pin_file: self.second_pin_file,
            pin_sealed: self.second_pin_sealed,
            pin_tpm: self.second_pin_tpm,
            module_configuration: self.second_module_configuration,
        };
        let (profile, existing) = (Profile::named(&profile_name)?, there.existing()?);
        Ok(Some(TokenPlan {
            name: SECOND,
            boot: states.of(&profile, existing.as_ref()),
            profile,
            profile_name,
            module: self.second_module,
            device: self.second_device,
            existing,
        }))
    }
}

/// A PIN from the terminal, which does not show it.
pub(super) fn typed(which: &str) -> Result<Secret, Error> {
    if !std::io::stdin().is_terminal() {
        let text = format!("no {which}: name a file that holds it (--pin-file)");
        return Err(Error::Refused(text));
    }
    let typed = rpassword::prompt_password(format!("{which}: "));
    let pin = Secret::new(typed.map_err(|e| Error::io(Path::new("/dev/tty"), e))?.into_bytes());
    if pin.is_empty() { Err(Error::Refused("no PIN was typed".into())) } else { Ok(pin) }
}

impl Init {
    pub(super) fn run(self) -> Result<(), Error> {
        let account = match self.account {
            Some(account) => account,
            None => random_account()?,
        };
        let (profile, existing) = (Profile::named(&self.profile)?, self.there.existing()?);
        let plan = Plan {
            dir: self.dir,
            token: TokenPlan {
                name: MAIN,
                boot: self.states.of(&profile, existing.as_ref()),
                profile,
                profile_name: self.profile,
                module: self.token_module,
                device: self.token_device,
                existing,
            },
            second: self.second.plan(&self.states)?,
            no_recovery: self.no_recovery,
            isolation: Isolation::Process,
            region: self.region,
            account,
            listen: self.listen,
        };
        let bound = [&plan.token].into_iter().chain(&plan.second).any(|t| t.boot.policy.is_some());
        if self.states.pcr_policy.is_some() && !bound {
            let text = "only a TPM's keys are bound to boot states (--pcr-policy)";
            return Err(Error::Refused(text.to_owned()));
        }
        plan.prepare()?;
        let (administrator, _) = runtime()?.block_on(plan.found())?;
        report(&plan, &administrator);
        Ok(())
    }
}

/// A random account id that does not begin with a zero.
pub(super) fn random_account() -> Result<String, Error> {
    let random: &dyn Random = &SystemRandom;
    let number = u64::from_be_bytes(random_bytes::<8>(random)?);
    Ok((100_000_000_000 + number % 900_000_000_000).to_string())
}

#[expect(clippy::print_stdout, reason = "shown once, to the person who makes the appliance")]
fn report(plan: &Plan, administrator: &NewKey) {
    println!("made {} (account {}, region {})", plan.dir.display(), plan.account, plan.region);
    for profile in [&plan.token].into_iter().chain(&plan.second).map(|token| &token.profile) {
        if profile.software {
            println!("note: {}", profile.statement);
        }
        if let Some(warning) = profile.warning() {
            println!("note: {warning}");
        }
    }
    println!("\nKeep a copy of this key elsewhere; it verifies the audit log:");
    let key = plan.dir.join("audit").join("checkpoint.pub");
    println!("  {}", std::fs::read_to_string(key).unwrap_or_default().trim_end());
    println!("\nThe first administrator's access key, shown this once:");
    tell(administrator);
    println!("  export AWS_DEFAULT_REGION={}\n", plan.region);
}

/// An access key, as a shell takes it.
#[expect(clippy::print_stdout, reason = "shown once, to the person who asked for it")]
pub(super) fn tell(key: &NewKey) {
    println!("  export AWS_ACCESS_KEY_ID={}", key.access_key_id);
    let secret = key.secret_access_key.expose_str().unwrap_or_default();
    println!("  export AWS_SECRET_ACCESS_KEY={secret}");
}
