//! A token of a new appliance: made here, or there already.

use super::{Error, on_thread, quoted, write_private, written};
use crate::clock::{World, random_bytes};
use crate::custody::child::{self, Isolation, Program};
use crate::custody::profile::{Kind, Profile};
use crate::custody::{self, Access, Locator, lane, provision};
use crate::name::Scheme;
use crate::secret::Secret;
use crate::server::pin;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Which token, and how it is reached.
pub struct TokenPlan {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its profile: one that comes with the program, or the path of a file.
    pub profile_name: String,
    /// The same, read.
    pub profile: Profile,
    /// Its module, if it is at none of the places that the profile names.
    pub module: Option<PathBuf>,
    /// How it is reached, if it has no module: of a TPM the TCTI.
    pub device: Option<String>,
    /// What is known of it, if it is there already.
    pub existing: Option<Existing>,
    /// The boot states that its keys, or its sealed PIN, are used in.
    pub boot: Boot,
}

/// Boot states of a TPM, as the configuration has them.
#[derive(Default)]
pub struct Boot {
    /// The public key of the operator who approves those that keys are used in: the first ones, too.
    pub policy: Option<PathBuf>,
    /// The PCRs that make one.
    pub pcrs: Vec<u8>,
    /// The folder of approvals.
    pub approvals: Option<PathBuf>,
}

/// A token that its vendor's tools have made.
pub struct Existing {
    /// Which one.
    pub token: Locator,
    /// Where its PIN is.
    pub pin: PinSource,
    /// The module's own configuration, if it is to be told of one.
    pub configuration: Option<PathBuf>,
}

/// Where the PIN of a token that is there already comes from.
pub enum PinSource {
    /// A file of mode 0600 or 0400, which stays where it is.
    File(PathBuf),
    /// A file that `strongroom hsm seal-pin` has written, which stays where it is, and the TPM that opens
    /// it.
    Sealed(PathBuf, Option<String>),
    /// A person; it is kept in the data directory as that of a token that is made here.
    Typed(Secret),
}

impl TokenPlan {
    /// The first token, made here by a profile that comes with the program.
    pub fn made_here(profile: Profile) -> Self {
        let profile_name = profile.name.clone();
        Self {
            name: super::MAIN,
            profile_name,
            profile,
            module: None,
            device: None,
            existing: None,
            boot: Boot::default(),
        }
    }

    /// The name of a file of this token's: those of the first one are as they always were.
    fn own(&self, name: &str, extension: &str) -> String {
        let of_whom = if self.name == super::MAIN { "" } else { "-second" };
        format!("{name}{of_whom}{extension}")
    }

    /// The module's own configuration, if the server is to tell the module of one.
    pub fn module_configuration(&self, dir: &Path) -> Option<PathBuf> {
        match &self.existing {
            Some(existing) => existing.configuration.clone(),
            None if self.profile.module.is_none() => None,
            None => Some(dir.join(self.own(&self.profile.name, ".conf"))),
        }
    }

    /// Checks what will stand in the configuration, and makes what must be there before a module is
    /// loaded. May be repeated.
    pub(super) fn prepare(&self, dir: &Path) -> Result<(), Error> {
        for device in
            self.device.as_deref().into_iter().chain(self.sealed().and_then(|(_, tpm)| tpm))
        {
            if device.contains(|c: char| c.is_control() || c == '\'') {
                let text = format!("`{device}` can't stand in a configuration file");
                return Err(Error::Refused(text));
            }
        }
        if self.existing.is_some() {
            return Ok(());
        }
        let tokens = dir.join(self.own("tokens", ""));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&tokens)
            .map_err(|e| Error::io(&tokens, e))?;
        let tokens = written(&tokens)?;
        let Some(file) = self.module_configuration(dir).filter(|file| !file.exists()) else {
            return Ok(());
        };
        let text = self.profile.configuration(&tokens).ok_or_else(|| self.not_made_here())?;
        write_private(&file, text.as_bytes())
    }

    fn not_made_here(&self) -> Error {
        let (profile, which) = match self.name {
            super::MAIN => (&self.profile.name, "--token-label or --token-serial, and --pin-file"),
            _ => (&self.profile.name, "--second-label or --second-serial, and --second-pin-file"),
        };
        Error::Refused(format!(
            "a token of profile `{profile}` is not made here: initialise it with its vendor's tools, \
             with a user PIN, then name it with {which}"
        ))
    }

    /// Makes the token, or opens the one that is there, once; answers its entry of the configuration.
    pub(super) async fn reach(
        &self,
        (dir, isolation): (&Path, Isolation),
        label: &str,
        world: &World,
    ) -> Result<Entry, Error> {
        let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|e| Error::io(path, e));
        let configuration = self.module_configuration(dir);
        let file = configuration.as_ref().map(absolute).transpose()?;
        let module = self.module.as_deref().map(written).transpose()?;
        let (pin, so_pin, locator) = match &self.existing {
            Some(existing) => {
                (self.pin_of(existing, isolation).await?, None, existing.token.clone())
            }
            None => {
                let pin = self.new_pin(dir, "hsm-pin", world)?;
                let so_pin = self.new_pin(dir, "hsm-so-pin", world)?;
                (pin, Some(so_pin), Locator::Label(label.to_owned()))
            }
        };
        let (profile, label) = (self.profile.clone(), label.to_owned());
        let access = Access {
            token: locator,
            pin,
            module: module.as_ref().map(PathBuf::from),
            device: self.device.clone(),
        };
        let token = on_thread(move || {
            let program = Program::this(profile.environment(file.as_deref()));
            Ok(match (so_pin, isolation) {
                (None, _) => looked_at(profile, access, isolation, program)?,
                (Some(so_pin), Isolation::Process) => {
                    child::provision(&profile, &access, &so_pin, &label, &program)?
                }
                (Some(so_pin), Isolation::None) => provision(&profile, &access, &so_pin, &label)?,
            })
        })
        .await?;
        let access = format!("{}{}", self.pin_lines(dir)?, self.boot.lines()?);
        self.entry(dir, &token.serial, (module, access))
    }

    /// The file of a sealed PIN, and the TPM that opens it.
    fn sealed(&self) -> Option<(&Path, Option<&str>)> {
        match &self.existing.as_ref()?.pin {
            PinSource::Sealed(file, tpm) => Some((file, tpm.as_deref())),
            PinSource::File(_) | PinSource::Typed(_) => None,
        }
    }

    /// The PIN of a token that is there already.
    async fn pin_of(&self, existing: &Existing, isolation: Isolation) -> Result<Secret, Error> {
        match &existing.pin {
            PinSource::File(file) => Ok(pin::read(self.name, Some(file))?),
            PinSource::Typed(pin) => Ok(Secret::copy_of(pin.expose())),
            PinSource::Sealed(file, tpm) => {
                let (name, approvals) = (self.name, self.boot.approvals.clone());
                let opener = pin::opener_of(file, tpm.clone(), approvals)?;
                on_thread(move || Ok(pin::opened(&opener, isolation, name)?)).await
            }
        }
    }

    /// Where the server will find the PIN, as lines of the configuration; one that was typed is put
    /// there.
    fn pin_lines(&self, dir: &Path) -> Result<String, Error> {
        let kept = self.own("hsm-pin", "");
        let file = match self.existing.as_ref().map(|existing| &existing.pin) {
            Some(PinSource::File(file)) => written(file)?,
            Some(PinSource::Sealed(file, tpm)) => {
                let tpm = tpm.iter().map(|tpm| format!("pin_tpm = '{tpm}'\n"));
                let tpm: String = tpm.collect();
                return Ok(format!("pin_sealed = {}\n{tpm}", quoted(&written(file)?)));
            }
            Some(PinSource::Typed(pin)) => {
                write_private(&dir.join(&kept), pin.expose())?;
                kept
            }
            None => kept,
        };
        Ok(format!("pin_file = {}\n", quoted(&file)))
    }

    fn entry(
        &self,
        dir: &Path,
        serial: &str,
        (module, access): (Option<String>, String),
    ) -> Result<Entry, Error> {
        if serial.contains(|c: char| c.is_control() || "\"\\'".contains(c)) {
            let text = format!("serial number `{serial}` can't stand in a configuration file");
            return Err(Error::Refused(text));
        }
        let configuration = match &self.existing {
            Some(existing) => existing.configuration.as_deref().map(written).transpose()?,
            None => self.module_configuration(dir).map(|_| self.own(&self.profile.name, ".conf")),
        };
        let file = self.profile_name.contains('/');
        let profile =
            if file { written(Path::new(&self.profile_name))? } else { self.profile_name.clone() };
        Ok(Entry {
            name: self.name,
            profile,
            serial: serial.to_owned(),
            module,
            device: self.device.clone(),
            configuration,
            access,
        })
    }

    /// A random PIN of 32 hex digits, or 8, which is all that a card takes and it counts wrong ones;
    /// kept in a file of mode 0600.
    fn new_pin(&self, dir: &Path, name: &str, world: &World) -> Result<Secret, Error> {
        let path = dir.join(self.own(name, ""));
        if path.exists() {
            return Ok(pin::from_file(&path)?);
        }
        let mut pin = Secret::new(Vec::with_capacity(32));
        let bytes = if self.profile.kind == Kind::YubiKey { 4 } else { 16 };
        for byte in random_bytes::<16>(&*world.random)?.into_iter().take(bytes) {
            for digit in [byte >> 4, byte & 15] {
                pin.expose_mut()
                    .push(b"0123456789abcdef".get(usize::from(digit)).copied().unwrap_or(b'0'));
            }
        }
        write_private(&path, pin.expose())?;
        Ok(pin)
    }

    /// Whether losing it loses everything, and nothing of it can be copied.
    pub(super) fn dies_alone(&self) -> bool {
        self.profile.kind != Kind::Pkcs11 && !self.profile.software
    }

    /// # Errors
    /// [`Error::Refused`] if its keys can't be held by several tokens.
    pub(super) fn shares(&self) -> Result<(), Error> {
        if self.profile.schemes.contains(&Scheme::Ecdh) {
            return Ok(());
        }
        let profile = &self.profile.name;
        Err(Error::Refused(format!(
            "a token of profile `{profile}` has no scheme `ecdh`, by which two tokens hold one key"
        )))
    }
}

impl Boot {
    /// As lines of the configuration.
    fn lines(&self) -> Result<String, Error> {
        let mut lines = String::new();
        for (name, path) in [("pcr_policy", &self.policy), ("pcr_approvals", &self.approvals)] {
            if let Some(path) = path {
                lines.push_str(&format!("{name} = {}\n", quoted(&written(path)?)));
            }
        }
        if self.policy.is_some() {
            lines.push_str(&format!("pcrs = {:?}\n", self.pcrs));
        }
        Ok(lines)
    }
}

/// Opens a token once, so that a wrong PIN or another kind of token is found before anything is made.
fn looked_at(
    profile: Profile,
    access: Access,
    isolation: Isolation,
    program: Program,
) -> custody::Result<custody::TokenInfo> {
    let options = lane::Options::default();
    let lane = match isolation {
        Isolation::Process => child::open(profile, access, &options, program)?,
        Isolation::None => custody::open(profile, access, &options)?,
    };
    Ok(lane.info().clone())
}

/// A token as the configuration has it.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) profile: String,
    pub(super) serial: String,
    pub(super) module: Option<String>,
    pub(super) device: Option<String>,
    pub(super) configuration: Option<String>,
    /// Lines with the PIN, and the boot states.
    pub(super) access: String,
}

impl Entry {
    /// The table of a token that holds every new key besides the first one.
    pub(super) fn table(&self) -> String {
        let settings = [
            ("name", Some(self.name)),
            ("profile", Some(&*self.profile)),
            ("serial", Some(&*self.serial)),
            ("scheme", Some("ecdh")),
            ("configuration", self.configuration.as_deref()),
            ("module", self.module.as_deref()),
            ("device", self.device.as_deref()),
        ];
        let settings = settings.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let lines: String = settings.map(|(name, value)| format!("{name} = '{value}'\n")).collect();
        format!(
            "# Holds every new key besides the first one.\n[[token]]\n{lines}{}holds_new_keys = true\n",
            self.access
        )
    }
}
