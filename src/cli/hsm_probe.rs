//! `strongroom hsm probe`: what a token really does, without a server.

use super::with_environment;
use crate::clock::SystemRandom;
use crate::custody::claims::{Finding, Verdict, findings, proposal};
use crate::custody::pkcs11::probe::{Found, Target, probe};
use crate::custody::profile::{Kind, Profile};
use crate::custody::{self, Locator};
use crate::server::{Error, pin};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// The profile that a module is probed with that nobody has said anything about.
const ANY: &str = "pkcs11";

/// How many sessions are tried of one.
const SESSIONS: usize = 64;

/// Try everything that a profile claims on the real token, with keys that are destroyed again.
#[derive(Args)]
pub(super) struct Probe {
    /// The kind of token: a folder of hsm-profiles/, or, with a slash in it, a profile's file. None:
    /// nothing is claimed of it.
    #[arg(long, required_unless_present = "module")]
    profile: Option<String>,
    /// The PKCS#11 module, if it is at none of the places that the profile names.
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// The module's own configuration, for the environment variable that the profile names.
    #[arg(long, value_name = "FILE", requires = "profile")]
    configuration: Option<PathBuf>,
    /// The token's label, if the module has several.
    #[arg(long, conflicts_with = "serial")]
    token: Option<String>,
    /// The token's serial number, if the module has several.
    #[arg(long)]
    serial: Option<String>,
    /// A file of mode 0600 with the user PIN; without it the PIN comes from `STRONGROOM_PIN`.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print a profile for what was found, and the report on standard error.
    #[arg(long, conflicts_with = "json")]
    propose: bool,
}

impl Probe {
    pub(super) fn run(self) -> Result<(), Error> {
        let profile = Profile::named(self.profile.as_deref().unwrap_or(ANY))?;
        if profile.kind != Kind::Pkcs11 {
            let text = "only PKCS#11 tokens can be probed: `strongroom hsm bench` tries others";
            return Err(Error::Unknown(text.into()));
        }
        with_environment(profile.environment(self.configuration.as_deref()))?;
        let pin = pin::read("main", self.pin_file.as_deref())?;
        let label = self.token.clone().map(Locator::Label);
        let token = label.or_else(|| self.serial.clone().map(Locator::Serial));
        let module = self.module.as_deref();
        let sessions = if self.profile.is_some() { profile.limits.sessions } else { SESSIONS };
        let target = Target { profile: &profile, module, token, pin: &pin, sessions };
        let found = probe(target, &SystemRandom).map_err(|error| refused(error, &profile))?;
        let findings = findings(&profile, &found, self.profile.is_some());
        self.report(&profile, &found, &findings);
        judged(self.profile.is_some(), &found, &findings)
    }

    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "what the command is for")]
    fn report(&self, profile: &Profile, found: &Found, findings: &[Finding]) {
        if self.json {
            let claimed = self.profile.is_some().then_some(&profile.name);
            let report = json!({
                "Profile": claimed,
                "Token": found.token,
                "Removed": found.removed,
                "Mechanisms": found.mechanisms,
                "Findings": findings,
                "Proposal": proposal(found),
            });
            println!("{report}");
            return;
        }
        let text = self.text(profile, found, findings);
        match (self.propose, proposal(found)) {
            (false, _) => print!("{text}"),
            (true, Some(proposal)) => {
                eprint!("{text}");
                print!("{proposal}");
            }
            (true, None) => eprint!("{text}"),
        }
    }

    fn text(&self, profile: &Profile, found: &Found, findings: &[Finding]) -> String {
        let token = &found.token;
        let mut text = format!(
            "Token    {}, serial {}\n         {}, {}\n",
            shown(&token.label),
            shown(&token.serial),
            shown(&token.manufacturer),
            shown(&token.model),
        );
        match (&self.profile, &profile.tested_on) {
            (None, _) => text.push_str("Profile  none: nothing is claimed\n"),
            (Some(_), Some(on)) => {
                text.push_str(&format!("Profile  {} (tested on {on})\n", profile.name));
            }
            (Some(_), None) => {
                text.push_str(&format!("Profile  {} (untested so far)\n", profile.name));
            }
        }
        if found.removed > 0 {
            let count = found.removed;
            text.push_str(&format!("Removed  {count} objects that an earlier probe had left\n"));
        }
        let listed = found.mechanisms.len();
        text.push_str(&format!("Lists    {listed} mechanisms (--json names them)\n\n"));
        for finding in findings {
            text.push_str(&line(finding));
        }
        if self.profile.is_some() {
            for unknown in &profile.unknown {
                text.push_str(&format!("{:<8} {unknown}\n", "unknown"));
            }
        }
        text
    }
}

fn line(finding: &Finding) -> String {
    let mark = match finding.verdict {
        Verdict::Holds => "holds",
        Verdict::Fails => "FAILS",
        Verdict::Untold => "untold",
        Verdict::NotClaimed => "-",
    };
    let (what, seen) = (shown(&finding.what), shown(&finding.seen));
    let claimed = match (&finding.claimed, finding.verdict) {
        (Some(claimed), Verdict::Fails | Verdict::Untold) => format!(" (claimed: {claimed})"),
        _ => String::new(),
    };
    format!("{mark:<8} {what:<38} {seen}{claimed}\n")
}

/// A text without what could steer a terminal: what a token calls itself is its own choice.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Why a token could not be probed. A PIN that was refused may have had the wrong form.
fn refused(error: custody::Error, profile: &Profile) -> Error {
    match (error, &profile.login) {
        (custody::Error::Pin { token, why }, Some(login)) => {
            let why = format!("{why} (of this kind of token it is {login})");
            custody::Error::Pin { token, why }.into()
        }
        // Nothing was found out.
        (custody::Error::Unavailable { token, why }, _) => {
            Error::Unknown(format!("token `{token}` can't be probed: {why}"))
        }
        (other, _) => other.into(),
    }
}

/// The command's last word.
fn judged(claimed: bool, found: &Found, findings: &[Finding]) -> Result<(), Error> {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    match (count(Verdict::Fails), count(Verdict::Untold)) {
        (0, 0) if claimed || proposal(found).is_some() => Ok(()),
        (0, 0) => Err(Error::Tampered("Strongroom can't use this token".into())),
        (0, untold) => Err(Error::Unknown(format!("claims that could not be tried: {untold}"))),
        (fails, _) => Err(Error::Tampered(format!("claims that do not hold: {fails}"))),
    }
}
