//! `strongroom init`.

use super::runtime;
use crate::clock::{Random, SystemRandom, random_bytes};
use crate::custody::child::Isolation;
use crate::custody::profile::Profile;
use crate::ops::iam::administrators::NewKey;
use crate::server::Error;
use crate::server::found::Plan;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Make an appliance.
#[derive(Args)]
pub struct Init {
    /// The folder to make it in.
    #[arg(long)]
    dir: PathBuf,
    /// The kind of token: a folder of hsm-profiles/.
    #[arg(long, default_value = "softhsm2")]
    profile: String,
    /// The token's PKCS#11 module, if it is at none of the places that the profile names.
    #[arg(long, value_name = "FILE")]
    token_module: Option<PathBuf>,
    /// How the token is reached, if it has no module: of a TPM the TCTI (`device:/dev/tpmrm0`).
    #[arg(long, value_name = "TCTI")]
    token_device: Option<String>,
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

impl Init {
    pub(super) fn run(self) -> Result<(), Error> {
        let account = match self.account {
            Some(account) => account,
            None => random_account()?,
        };
        let plan = Plan {
            dir: self.dir,
            profile: Profile::built_in(&self.profile)?,
            module: self.token_module,
            device: self.token_device,
            isolation: Isolation::Process,
            region: self.region,
            account,
            listen: self.listen,
        };
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
    if plan.profile.software {
        println!("note: {}", plan.profile.statement);
    }
    if let Some(warning) = plan.profile.warning() {
        println!("note: {warning}");
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
