//! `strongroom hsm probe`: what a token really does, without a server.

use super::with_environment;
use crate::clock::{SystemRandom, random_bytes};
use crate::custody::claims::{Finding, Verdict, device, findings, proposal};
use crate::custody::pkcs11::probe::{Target, probe};
use crate::custody::profile::{Kind, Profile};
use crate::custody::{self, Access, Locator, TokenInfo};
use crate::secret::Secret;
use crate::server::{Error, pin};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;

/// How many sessions are tried of one.
const SESSIONS: usize = 64;

/// Try everything that a profile claims on the real token, with keys that are destroyed again.
#[derive(Args)]
pub(super) struct Probe {
    /// The kind of token: a folder of hsm-profiles/, or, with a slash in it, a profile's file. None:
    /// nothing is claimed of it.
    #[arg(long, required_unless_present_any = ["module", "kind"])]
    profile: Option<String>,
    /// What speaks to a token that nothing is claimed of.
    #[arg(long, conflicts_with = "profile", default_value = "pkcs11")]
    kind: Spoken,
    /// How a TPM is reached: a TCTI, as in `token.device` of the configuration.
    #[arg(long, value_name = "TCTI")]
    device: Option<String>,
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
    /// A file of mode 0600 with the user PIN; without it the PIN comes from `STRONGROOM_PIN`. A TPM has
    /// none: keys made for the probe get one of their own.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print a profile for what was found, and the report on standard error.
    #[arg(long, conflicts_with = "json")]
    propose: bool,
}

/// What speaks to a token.
#[derive(Clone, Copy, ValueEnum)]
enum Spoken {
    Pkcs11,
    Tpm,
    Yubikey,
}

impl Spoken {
    /// The profile by which one is probed that nobody has said anything about.
    fn profile(self) -> &'static str {
        match self {
            Self::Pkcs11 => "pkcs11",
            Self::Tpm => "tpm2",
            Self::Yubikey => "yubikey",
        }
    }
}

/// What came of it, whatever the token.
struct Report {
    token: TokenInfo,
    removed: usize,
    /// Of PKCS#11.
    mechanisms: Option<Vec<String>>,
    findings: Vec<Finding>,
    proposal: Option<String>,
}

impl Probe {
    pub(super) fn run(self) -> Result<(), Error> {
        let name = self.profile.as_deref().unwrap_or(self.kind.profile());
        let profile = Profile::named(name)?;
        with_environment(profile.environment(self.configuration.as_deref()))?;
        let found = match profile.kind {
            Kind::Pkcs11 => self.module(&profile),
            Kind::Tpm | Kind::YubiKey => self.device(&profile),
        };
        let report = found?;
        self.report(&profile, &report);
        judged(self.profile.is_some(), &report)
    }

    fn pin(&self) -> Result<Secret, Error> {
        Ok(pin::read("main", self.pin_file.as_deref())?)
    }

    fn token(&self) -> Option<Locator> {
        let label = self.token.clone().map(Locator::Label);
        label.or_else(|| self.serial.clone().map(Locator::Serial))
    }

    fn module(&self, profile: &Profile) -> Result<Report, Error> {
        let (pin, module, token) = (self.pin()?, self.module.as_deref(), self.token());
        let sessions = if self.profile.is_some() { profile.limits.sessions } else { SESSIONS };
        let target = Target { profile, module, token, pin: &pin, sessions };
        let found = probe(target, &SystemRandom).map_err(|error| refused(error, profile))?;
        Ok(Report {
            findings: findings(profile, &found, self.profile.is_some()),
            proposal: proposal(&found),
            token: found.token,
            removed: found.removed,
            mechanisms: Some(found.mechanisms),
        })
    }

    fn device(&self, profile: &Profile) -> Result<Report, Error> {
        let pin = match profile.kind {
            // What its keys are authorised by is theirs alone.
            Kind::Tpm => {
                let bytes: [u8; 32] = random_bytes(&SystemRandom)?;
                Secret::copy_of(&bytes)
            }
            Kind::Pkcs11 | Kind::YubiKey => self.pin()?,
        };
        let token = self.token().unwrap_or(Locator::Label("?".to_owned()));
        let access = Access { token, pin, module: None, device: self.device.clone() };
        let found = custody::probe::probe(profile, access).map_err(|e| refused(e, profile))?;
        Ok(Report {
            findings: device::findings(profile, &found, self.profile.is_some()),
            proposal: device::proposal(profile, &found),
            token: found.survey.token,
            removed: found.removed,
            mechanisms: None,
        })
    }

    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "what the command is for")]
    fn report(&self, profile: &Profile, report: &Report) {
        if self.json {
            let claimed = self.profile.is_some().then_some(&profile.name);
            let report = json!({
                "Profile": claimed,
                "Token": report.token,
                "Removed": report.removed,
                "Mechanisms": report.mechanisms,
                "Findings": report.findings,
                "Proposal": report.proposal,
            });
            println!("{report}");
            return;
        }
        let text = self.text(profile, report);
        match (self.propose, &report.proposal) {
            (false, _) => print!("{text}"),
            (true, Some(proposal)) => {
                eprint!("{text}");
                print!("{proposal}");
            }
            (true, None) => eprint!("{text}"),
        }
    }

    fn text(&self, profile: &Profile, found: &Report) -> String {
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
        if let Some(listed) = found.mechanisms.as_ref().map(Vec::len) {
            text.push_str(&format!("Lists    {listed} mechanisms (--json names them)\n"));
        }
        text.push('\n');
        for finding in &found.findings {
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
fn judged(claimed: bool, report: &Report) -> Result<(), Error> {
    let count =
        |verdict| report.findings.iter().filter(|finding| finding.verdict == verdict).count();
    match (count(Verdict::Fails), count(Verdict::Untold)) {
        (0, 0) if claimed || report.proposal.is_some() => Ok(()),
        (0, 0) => Err(Error::Tampered("Strongroom can't use this token".into())),
        (0, untold) => Err(Error::Unknown(format!("claims that could not be tried: {untold}"))),
        (fails, _) => Err(Error::Tampered(format!("claims that do not hold: {fails}"))),
    }
}
