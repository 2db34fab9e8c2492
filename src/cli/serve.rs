//! `strongroom serve`.

use super::{runtime, shutdown, with_module_configurations};
use crate::config::Config;
use crate::custody::profile::Profile;
use crate::server::{Error, staged};
use clap::Args;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Serve an appliance.
#[derive(Args)]
pub struct Serve {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Error> {
        runtime()?.block_on(async {
            let shutdown = shutdown()?;
            staged::serve(|| prepare(&self.config), announce, shutdown).await
        })
    }
}

/// Reads a configuration, and sees to it that modules find their own.
pub(super) fn prepare(file: &Path) -> Result<Config, Error> {
    let config = Config::read(file)?;
    with_module_configurations(&config)?;
    for token in &config.token {
        let profile = Profile::named(&token.profile)?;
        if profile.software {
            tracing::warn!(token = token.name, "{}", profile.statement);
        }
        if let Some(warning) = profile.warning() {
            tracing::warn!(token = token.name, "{warning}");
        }
    }
    Ok(config)
}

/// Tells a person where it is and what to try, and systemd that it is ready.
#[expect(clippy::print_stdout, reason = "what a person who starts it reads")]
fn announce(region: &str, addresses: &[(SocketAddr, bool)]) {
    for (address, tls) in addresses {
        let endpoint = format!("{}://{address}", if *tls { "https" } else { "http" });
        println!("serving {endpoint} (region {region})\n");
        println!("Try, with the administrator's access key in the environment:");
        let aws = format!("  aws --endpoint-url {endpoint} --region {region}");
        println!("{aws} secretsmanager create-secret --name demo --secret-string hunter2");
        println!("{aws} secretsmanager get-secret-value --secret-id demo");
        println!("{aws} kms create-key --description demo");
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
