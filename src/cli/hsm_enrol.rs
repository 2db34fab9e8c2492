//! `strongroom hsm enrol`: how an auditor learns that an attestation key is in a TPM of a maker whom
//! they trust. Four steps, by turns on the appliance and on the auditor's machine; what is carried
//! between them is no secret.

use super::serve::prepare;
use crate::clock::{Random, SystemRandom, random_key};
use crate::config::Token;
use crate::custody::enrolment::{self, Challenge, Identity};
use crate::custody::profile::Profile;
use crate::custody::proof::Bytes;
use crate::secret::{Key, Secret};
use crate::server::Error;
use crate::server::found::write_private;
use aws_lc_rs::rsa::PublicEncryptingKey;
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// tcg-kp-EKCertificate, 2.23.133.8.1 (TCG EK Credential Profile), without tag and length.
const ENDORSEMENT: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];

/// The largest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Show that an attestation key is in a TPM.
#[derive(Args)]
pub(super) struct Enrol {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// On the appliance, first: what the TPM says of itself.
    Request(Request),
    /// On the auditor's machine, second: a secret that this TPM alone can open.
    Challenge(Make),
    /// On the appliance, third: have the TPM open it.
    Answer(Answer),
    /// On the auditor's machine, fourth: was it the secret? Tells the attestation key's name, for
    /// `strongroom hsm verify --attestation-key`.
    Confirm(Confirm),
}

#[derive(Args)]
pub(super) struct Which {
    /// The configuration that `strongroom init` wrote.
    #[arg(long)]
    config: PathBuf,
    /// The token, by its name in the configuration.
    #[arg(long, value_name = "NAME", default_value = "main")]
    token: String,
}

#[derive(Args)]
struct Request {
    #[command(flatten)]
    which: Which,
    /// The maker's certificate of the endorsement key (DER), if the TPM does not keep it.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Make {
    /// What `request` wrote.
    request: PathBuf,
    /// The certificates of the TPM makers' CAs that are trusted (PEM), from the root.
    #[arg(long, value_name = "FILE")]
    roots: PathBuf,
    /// CAs in between (PEM).
    #[arg(long, value_name = "FILE")]
    intermediates: Option<PathBuf>,
    /// Where to keep the secret, for `confirm`; it stays on this machine.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Where to write the challenge.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Answer {
    #[command(flatten)]
    which: Which,
    /// What `challenge` wrote.
    challenge: PathBuf,
    /// Where to write the answer.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Confirm {
    /// What `answer` wrote.
    answer: PathBuf,
    /// What `challenge` kept.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
}

/// What the auditor keeps between the steps.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    name: Bytes,
    secret: Bytes,
}

/// What the TPM has opened.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Opened {
    secret: Bytes,
}

impl Enrol {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Request(request) => request.run(),
            Command::Challenge(make) => make.run(),
            Command::Answer(answer) => answer.run(),
            Command::Confirm(confirm) => confirm.run(),
        }
    }
}

impl Which {
    /// The token and what it is.
    pub(super) fn token(&self) -> Result<(Profile, Token), Error> {
        let config = prepare(&self.config)?;
        let named = config.token.into_iter().find(|token| token.name == self.token);
        let token =
            named.ok_or_else(|| Error::Refused(format!("no token is called `{}`", self.token)))?;
        Ok((Profile::named(&token.profile)?, token))
    }
}

impl Request {
    fn run(self) -> Result<(), Error> {
        let (profile, token) = self.which.token()?;
        let mut identity = enrolment::identity(&profile, token.device.as_deref())?;
        if let Some(file) = &self.certificate {
            identity.certificate = Some(Bytes(read(file)?));
        }
        if identity.certificate.is_none() {
            let text = "this TPM keeps no certificate of its endorsement key: give it one by \
                        --certificate, from its maker";
            return Err(Error::Refused(text.to_owned()));
        }
        write(&self.out, &identity)
    }
}

impl Make {
    fn run(self) -> Result<(), Error> {
        let identity: Identity = parsed(&self.request)?;
        let name = identity.name().ok_or_else(|| {
            Error::Tampered("the attestation key is not restricted to what its TPM makes".into())
        })?;
        let certificate = identity.certificate.map(|bytes| bytes.0).unwrap_or_default();
        let endorsement = self.endorsed(&certificate)?;
        let (secret, seed) = (random()?, random()?);
        let challenge = Challenge::make(endorsement, &name, &secret, &seed)
            .ok_or_else(|| Error::Refused("the endorsement key is no RSA key".to_owned()))?;
        let kept = Kept { name: Bytes(name), secret: Bytes(secret.expose().to_vec()) };
        write_private(&self.secret, Secret::new(json(&kept)).expose())?;
        write(&self.out, &challenge)
    }

    /// The public key in a certificate that one of the trusted CAs vouches for now.
    fn endorsed(&self, certificate: &[u8]) -> Result<PublicEncryptingKey, Error> {
        let bad = |why: &dyn Display| {
            Error::Tampered(format!(
                "the endorsement key's certificate is not to be trusted: {why}"
            ))
        };
        let (rest, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|e| bad(&e))?;
        // Where a TPM keeps it there may be room after it.
        let length = certificate.len().saturating_sub(rest.len());
        let der = CertificateDer::from(certificate.get(..length).unwrap_or_default());
        let roots = certificates(&self.roots)?;
        let between = self.intermediates.as_deref().map(certificates).transpose()?;
        let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>();
        let anchors = anchors.map_err(|e| bad(&e))?;
        let now = SystemTime::UNIX_EPOCH.elapsed().map_err(|e| bad(&e))?;
        EndEntityCert::try_from(&der)
            .and_then(|leaf| {
                let usage = KeyUsage::required_if_present(ENDORSEMENT);
                let (between, now) = (between.unwrap_or_default(), UnixTime::since_unix_epoch(now));
                let algorithms = ALL_VERIFICATION_ALGS;
                leaf.verify_for_usage(algorithms, &anchors, &between, now, usage, None, None)
                    .map(drop)
            })
            .map_err(|e| bad(&e))?;
        PublicEncryptingKey::from_der(parsed.public_key().raw).map_err(|e| bad(&e))
    }
}

impl Answer {
    fn run(self) -> Result<(), Error> {
        let (profile, token) = self.which.token()?;
        let challenge: Challenge = parsed(&self.challenge)?;
        let secret = enrolment::answer(&profile, token.device.as_deref(), &challenge)?;
        write(&self.out, &Opened { secret: Bytes(secret.expose().to_vec()) })
    }
}

impl Confirm {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn run(self) -> Result<(), Error> {
        let (opened, kept): (Opened, Kept) = (parsed(&self.answer)?, parsed(&self.secret)?);
        if Secret::new(opened.secret.0) != Secret::new(kept.secret.0) {
            return Err(Error::Tampered("this is not the secret: nothing was shown".into()));
        }
        let name: String = kept.name.0.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{name}");
        Ok(())
    }
}

fn random() -> Result<Key, Error> {
    let random: &dyn Random = &SystemRandom;
    Ok(random_key(random)?)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unread = |why: &dyn Display| Error::Refused(format!("`{}`: {why}", file.display()));
    let all = CertificateDer::pem_slice_iter(&read(file)?).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|e| unread(&e))?;
    if all.is_empty() { Err(unread(&"no certificate in it")) } else { Ok(all) }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).map_err(|e| Error::io(file, e))?;
    open.take(LONGEST).read_to_end(&mut bytes).map_err(|e| Error::io(file, e))?;
    Ok(bytes)
}

pub(super) fn parsed<T: DeserializeOwned>(file: &Path) -> Result<T, Error> {
    let unread = |e| Error::Refused(format!("`{}` can't be read: {e}", file.display()));
    serde_json::from_slice(&read(file)?).map_err(unread)
}

pub(super) fn write(file: &Path, what: &impl Serialize) -> Result<(), Error> {
    std::fs::write(file, json(what)).map_err(|e| Error::io(file, e))
}

fn json(what: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(what).unwrap_or_default()
}
