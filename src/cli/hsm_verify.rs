//! `strongroom hsm verify`: works on an attestation's file, without a server, a token or a PIN.

use super::audit::verifier;
use super::print_report;
use super::remote::hex;
use crate::custody::proof::Proof;
use crate::ops::keys::attestation::{
    Attributes, BackingKey, LONGEST, Report, Statement, Trusted, Verdict,
};
use crate::server::Error;
use clap::Args;
use serde_json::json;
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// What an attestation of a PKCS#11 token is worth at best.
const WORTH: &str = "This is the token's word, as the appliance passed it on and signed it with a \
key in the same token: no vendor has certified it.";

/// What one is worth that the hardware has signed itself, under what was given.
const SIGNED: &str = "Its hardware has signed that itself, and you know whose it is.";

/// The name of an attestation key.
#[derive(Clone)]
struct Name(Vec<u8>);

/// A name of SHA-256: 34 bytes, of which the first two say so.
fn attestation_key(text: &str) -> Result<Name, String> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<_>> = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    let right = |name: &Vec<u8>| text.len() == 68 && name.starts_with(&[0, 0x0b]);
    bytes.filter(right).map(Name).ok_or_else(|| "a name has 68 hexadecimal digits".to_owned())
}

/// Check an attestation offline.
#[derive(Args)]
pub(super) struct Verify {
    /// The attestation, as `strongroom hsm attest --out` or the REST call gave it.
    file: PathBuf,
    /// The key: `audit/checkpoint.pub` as it was when the appliance was made, kept elsewhere.
    #[arg(long)]
    key: PathBuf,
    /// The nonce that it was asked for with.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    /// The name of an attestation key that is known to be in a TPM, as `strongroom hsm enrol` says it;
    /// may be repeated. With it a TPM's own signature is asked for.
    #[arg(long, value_name = "HEX", value_parser = attestation_key)]
    attestation_key: Vec<Name>,
    /// Certificates (PEM) that have signed the certificates of YubiKeys, as Yubico publishes them. With
    /// them a card's own signature is asked for.
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Error> {
        let key = verifier(&self.key)?;
        let trusted = Trusted {
            attestation_keys: self.attestation_key.iter().map(|name| name.0.clone()).collect(),
            roots: self.roots.as_deref().map(certificates).transpose()?.unwrap_or_default(),
        };
        let report = Report::of(&read(&self.file)?, &key, self.nonce.as_deref(), &trusted);
        if self.json {
            print_report(&report, [("verdict", json!(report.verdict()))]);
        } else {
            let signed = !(trusted.attestation_keys.is_empty() && trusted.roots.is_empty());
            print(&report, self.nonce.is_some(), if signed { SIGNED } else { WORTH });
        }
        match report.verdict() {
            Verdict::Good => Ok(()),
            Verdict::Bad => Err(Error::Tampered("this is no good evidence for the key".into())),
            Verdict::Unproven => Err(Error::Unknown("this proves nothing about the key".into())),
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let unread = |why: &dyn Display| Error::Unknown(format!("`{}`: {why}", file.display()));
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(|e| unread(&e))?;
    open.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(|e| unread(&e))?;
    if bytes.len() > LONGEST {
        return Err(unread(&"too long for an attestation"));
    }
    Ok(bytes)
}

/// The certificates in a PEM file, one at least.
fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let pem = read(file)?;
    let all = CertificateDer::pem_slice_iter(&pem).map(|found| found.map(|der| der.to_vec()));
    let all: Result<Vec<_>, _> = all.collect();
    let all = all.map_err(|e| Error::Unknown(format!("`{}`: {e}", file.display())))?;
    match all.as_slice() {
        [] => Err(Error::Unknown(format!("`{}`: no certificate is in it", file.display()))),
        _ => Ok(all),
    }
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn print(report: &Report, fresh: bool, worth: &str) {
    if let Some(statement) = &report.statement {
        println!("{}", Plain(statement));
    }
    for finding in &report.findings {
        println!("WRONG: {}", shown(finding));
    }
    for doubt in &report.doubts {
        println!("{}", shown(doubt));
    }
    let tokens = report.statement.iter().flat_map(|statement| &statement.tokens);
    for token in tokens.filter(|token| token.profile.software) {
        println!("{}", shown(&token.profile.statement));
    }
    if report.verdict() != Verdict::Good {
        return;
    }
    println!("Every backing key was made in the token and can't leave it. {worth}");
    if !fresh {
        println!("No nonce was given: it may be as old as it says, or older.");
    }
}

/// A text without what could steer a terminal: what a token calls itself is its own choice.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A statement for people.
pub(super) struct Plain<'a>(pub(super) &'a Statement);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "Key      {}", shown(&self.0.key_arn))?;
        writeln!(f, "Time     {}", shown(&self.0.time))?;
        if let Some(nonce) = &self.0.nonce {
            writeln!(f, "Nonce    {}", shown(nonce))?;
        }
        for token in &self.0.tokens {
            let kind = if token.profile.software { "software" } else { "hardware" };
            let (label, serial) = (shown(&token.label), shown(&token.serial));
            writeln!(f, "Token    {label}, serial {serial}")?;
            writeln!(f, "         {}, {}", shown(&token.manufacturer), shown(&token.model))?;
            writeln!(f, "Profile  {} ({kind})", shown(&token.profile.name))?;
        }
        let last = self.0.backing_keys.last().map(|key| &key.key_material_id);
        for key in &self.0.backing_keys {
            let which = if Some(&key.key_material_id) == last { "current" } else { "older" };
            writeln!(f, "\nBacking key {} ({which})", shown(&key.id))?;
            backing(f, key)?;
        }
        Ok(())
    }
}

fn backing(f: &mut Formatter<'_>, key: &BackingKey) -> fmt::Result {
    if let Some(fault) = key.fault {
        writeln!(f, "  FAULT              {fault:?}")?;
    }
    if key.imported {
        writeln!(f, "  brought in from outside")?;
    }
    if let Some(Proof::Tpm(certified)) = &key.proof
        && let Some(policy) = certified.policy()
    {
        writeln!(f, "  used under policy  {}", hex(policy))?;
    }
    let Some(told) = &key.attributes else { return Ok(()) };
    let Attributes { mechanisms, key_check_value, .. } = told;
    for (name, value) in [
        ("local", told.local),
        ("sensitive", told.sensitive),
        ("extractable", told.extractable),
        ("never extractable", told.never_extractable),
        ("always sensitive", told.always_sensitive),
    ] {
        writeln!(f, "  {name:<18} {}", if value { "yes" } else { "no" })?;
    }
    writeln!(f, "  mechanisms         {}", shown(&mechanisms.join(", ")))?;
    writeln!(f, "  key-check value    {}", shown(key_check_value))
}
