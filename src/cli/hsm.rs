//! `strongroom hsm`.

use super::hsm_bench::Bench;
use super::hsm_enrol::Enrol;
use super::hsm_holder::Holders;
use super::hsm_pcr::Pcr;
use super::hsm_probe::Probe;
use super::hsm_seal::SealPin;
use super::hsm_verify::{Plain, Verify};
use super::iam::print;
use super::remote::Remote;
use super::runtime;
use crate::config::Config;
use crate::custody::profile::Profile;
use crate::custody::tokens::cluster_id;
use crate::name::Service;
use crate::ops::keys::attest::is_nonce;
use crate::ops::keys::attestation::{Attestation, Statement};
use crate::server::Error;
use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::PathBuf;

/// Evidence of what holds a key, and which tokens do.
#[derive(Args)]
pub(super) struct Hsm {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the token what it says of a key's material, signed by a key in the same token.
    Attest(Attest),
    /// Check such an attestation offline: exit 0 if every key was made in the token and can't leave
    /// it, by the token's word; 1 if it is forged or a key is not as it must be; 2 if it proves
    /// nothing, as with a software token, or that can't be told.
    Verify(Verify),
    /// Show an auditor that a TPM's attestation key is in a TPM whose maker they trust.
    Enrol(Enrol),
    /// Show a TPM's boot state, and approve one by an operator's offline key.
    Pcr(Pcr),
    /// Seal a token's PIN to a TPM, which opens it in boot states that an operator has approved.
    SealPin(SealPin),
    /// Try everything that a profile claims on the real token, with keys that are destroyed again:
    /// exit 0 if all claims hold, 1 if one does not, 2 if that can't be told.
    Probe(Probe),
    /// Measure the configured tokens under load, with keys that are destroyed again.
    Bench(Bench),
    /// Change which tokens hold which keys: of a running appliance, or on a data directory that nobody
    /// serves.
    Holder(Holders),
    /// List the configuration's tokens: name, serial number, profile, and what a custom key store names
    /// each by (`CloudHsmClusterId`). The first is the default one, which can't be a custom key
    /// store's.
    Tokens(Tokens),
}

#[derive(Args)]
struct Attest {
    /// The key: its id, ARN or alias.
    key: String,
    /// 16 to 64 bytes in hexadecimal, of the auditor's choice, which the statement repeats.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    /// Write the attestation to this file, for `strongroom hsm verify`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the attestation.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct Tokens {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
}

impl Tokens {
    /// What the configuration says; no token is asked.
    fn run(self) -> Result<(), Error> {
        for token in Config::read(&self.config)?.token {
            let cluster = cluster_id(&token.serial);
            print(&[token.name, token.serial, token.profile, cluster].join("\t"));
        }
        Ok(())
    }
}

impl Hsm {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Attest(attest) => attest.run(),
            Command::Verify(verify) => verify.run(),
            Command::Enrol(enrol) => enrol.run(),
            Command::Pcr(pcr) => pcr.run(),
            Command::SealPin(seal) => seal.run(),
            Command::Probe(probe) => probe.run(),
            Command::Bench(bench) => bench.run(),
            Command::Holder(holders) => holders.run(),
            Command::Tokens(tokens) => tokens.run(),
        }
    }
}

impl Attest {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn run(self) -> Result<(), Error> {
        let mut path =
            format!("/keys/{}/attestation", utf8_percent_encode(&self.key, NON_ALPHANUMERIC));
        if let Some(nonce) = &self.nonce {
            if !is_nonce(nonce) {
                let text = format!("`{nonce}` is no nonce: 16 to 64 bytes in hexadecimal");
                return Err(Error::Remote(text));
            }
            path = format!("{path}?Nonce={nonce}");
        }
        let asking = self.remote.ask::<Attestation>(Service::Kms, Method::GET, &path, None);
        let attestation = runtime()?.block_on(asking)?;
        let text = serde_json::to_string_pretty(&attestation).unwrap_or_default();
        if let Some(file) = &self.out {
            std::fs::write(file, format!("{text}\n")).map_err(|e| Error::io(file, e))?;
        }
        if self.json {
            println!("{text}");
            return Ok(());
        }
        let statement: Statement = serde_json::from_str(&attestation.statement)
            .map_err(|error| Error::Remote(format!("a statement that can't be read: {error}")))?;
        print!("{}", Plain(&statement));
        for token in &statement.tokens {
            let profile = Profile::built_in(&token.profile.name).ok();
            if let Some(warning) = profile.and_then(|profile| profile.warning()) {
                println!("\nnote: {warning}");
            }
        }
        println!("\nThe signature was not checked: see `strongroom hsm verify`.");
        Ok(())
    }
}
