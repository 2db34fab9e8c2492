//! Where the token's PIN comes from: a file, a systemd credential, the environment, or sealed to a TPM.
//! Never from the command line, never logged.

use crate::config::Token;
use crate::custody;
use crate::custody::child::{self, Isolation, Program};
use crate::custody::profile::Profile;
use crate::custody::sealed::{Opener, Sealed};
use crate::secret::{FileError, Secret};
use std::path::{Path, PathBuf};

/// The longest PIN that is read, in bytes.
const MAX: usize = 256;
/// The longest file with one: white space may follow it.
const MAX_FILE: usize = 512;
/// The longest file with a sealed one.
const MAX_SEALED: usize = 16 << 10;

/// Why there is no PIN.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("the PIN file `{path}` can't be read: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// Others could read the file.
    #[error("the PIN file `{0}` can be read by others: run `chmod 600 {0}`")]
    Exposed(String),
    /// Nothing in it, or too much.
    #[error("the PIN file `{0}` holds no PIN of 1 to 256 bytes")]
    NotAPin(String),
    /// Not what `hsm seal-pin` writes.
    #[error(
        "`{0}` is no sealed PIN, or was damaged: seal the PIN anew with `strongroom hsm seal-pin`"
    )]
    NotSealed(String),
    /// Nobody could approve a boot state.
    #[error("the PIN in `{0}` is bound to boot states: set `pcr_approvals`")]
    NoApprovals(String),
    /// A sealed PIN, and another source: whichever was used, somebody thinks that it is the other.
    #[error(
        "the PIN of token `{0}` is sealed (`pin_sealed`) and there is another, as a systemd \
         credential or in the environment: take that away"
    )]
    Several(String),
    /// No source.
    #[error(
        "no PIN: set `token.pin_file`, `token.pin_sealed`, the systemd credential `hsm-pin`, or \
         STRONGROOM_PIN in the environment"
    )]
    None,
}

/// The PIN of a token of the configuration. Blocks, and may start a process.
///
/// # Errors
/// Why there is none, or why a sealed one is not opened (yet).
pub(super) fn of(token: &Token) -> Result<Secret, super::Error> {
    match opener(token)? {
        Some(opener) => Ok(opened(&opener, token.isolation, &token.name)?),
        None => Ok(read(&token.name, token.pin_file.as_deref())?),
    }
}

/// Whether there is a PIN, as far as that shows without a TPM.
pub(super) fn check(token: &Token) -> Result<(), Error> {
    match opener(token)? {
        Some(_) => Ok(()),
        None => read(&token.name, token.pin_file.as_deref()).map(drop),
    }
}

/// What opens a token's PIN, if it is a sealed one.
fn opener(token: &Token) -> Result<Option<Opener>, Error> {
    let Some(file) = &token.pin_sealed else { return Ok(None) };
    if credential(&token.name).is_some() || variable(&token.name).is_some() {
        return Err(Error::Several(token.name.clone()));
    }
    Ok(Some(opener_of(file, token.pin_tpm.clone(), token.pcr_approvals.clone())?))
}

/// What opens the sealed PIN in this file, at a TPM, with the approvals in a folder.
pub(super) fn opener_of(
    file: &Path,
    tpm: Option<String>,
    approvals: Option<PathBuf>,
) -> Result<Opener, Error> {
    let sealed = sealed(file)?;
    if sealed.is_bound() && approvals.is_none() {
        return Err(Error::NoApprovals(file.display().to_string()));
    }
    Ok(sealed.opener(tpm, approvals))
}

/// The sealed PIN in this file, which nobody but its owner may read.
pub(crate) fn sealed(file: &Path) -> Result<Sealed, Error> {
    let bytes = private(file, MAX_SEALED)?;
    let sealed = bytes.and_then(|bytes| Sealed::read(bytes.expose()));
    sealed.ok_or_else(|| Error::NotSealed(file.display().to_string()))
}

/// Opens a token's sealed PIN where the token's driver runs: not in the server, unless that is wanted.
pub(super) fn opened(
    opener: &Opener,
    isolation: Isolation,
    token: &str,
) -> custody::Result<Secret> {
    let opened = match isolation {
        Isolation::Process => child::unseal(opener, &Program::this(Profile::silent_tpm())),
        Isolation::None => opener.open(),
    };
    opened.map_err(|error| told(error, token))
}

/// What went wrong at the TPM, as the token's trouble whose PIN it is.
fn told(error: custody::Error, token: &str) -> custody::Error {
    let token = token.to_owned();
    match error {
        custody::Error::Unavailable { token: tpm, why } => {
            let why = format!("its PIN can't be unsealed by `{tpm}`: {why}");
            custody::Error::Unavailable { token, why }
        }
        custody::Error::Sealed { token: tpm, why } => custody::Error::Sealed {
            token,
            why: format!("{why} (TPM `{tpm}`); seal the PIN anew with `strongroom hsm seal-pin`"),
        },
        other => other,
    }
}

/// The PIN of the token of this name, from the systemd credential `hsm-pin-NAME`, else from the file
/// that is named, else from `STRONGROOM_PIN_NAME`. That of the token `main` goes without `-main` and
/// `_MAIN`, too.
pub fn read(name: &str, file: Option<&Path>) -> Result<Secret, Error> {
    if let Some(path) = credential(name).as_deref().or(file) {
        return from_file(path);
    }
    variable(name).ok_or(Error::None)
}

/// Whether it is the token that the names without a token's name are for.
fn is_main(name: &str) -> bool {
    name == "main"
}

/// The systemd credential with a token's PIN.
fn credential(name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)?;
    let plain = is_main(name).then(|| "hsm-pin".to_owned());
    let names = [format!("hsm-pin-{name}")].into_iter().chain(plain);
    names.map(|name| dir.join(name)).find(|path| path.exists())
}

/// A token's PIN in the environment.
fn variable(name: &str) -> Option<Secret> {
    let own = format!("STRONGROOM_PIN_{}", name.to_ascii_uppercase().replace('-', "_"));
    // One that is set to nothing is not set.
    let set = |name: &str| std::env::var(name).ok().filter(|pin| !pin.is_empty());
    let pin = set(&own).or_else(|| is_main(name).then(|| set("STRONGROOM_PIN")).flatten());
    pin.map(|pin| Secret::new(pin.into_bytes()))
}

/// The PIN in this file, which nobody but its owner may read.
pub(super) fn from_file(path: &Path) -> Result<Secret, Error> {
    let shown = path.display().to_string();
    let Some(mut pin) = private(path, MAX_FILE)? else { return Err(Error::NotAPin(shown)) };
    while pin.expose().last().is_some_and(u8::is_ascii_whitespace) {
        pin.expose_mut().pop();
    }
    if pin.is_empty() || pin.len() > MAX {
        return Err(Error::NotAPin(shown));
    }
    Ok(pin)
}

/// What is in a file that nobody but its owner may read; nothing if that is more than `most` bytes.
fn private(path: &Path, most: usize) -> Result<Option<Secret>, Error> {
    let shown = || path.display().to_string();
    Secret::read_private(path, most).map_err(|error| match error {
        FileError::Unreadable(why) => Error::Unreadable { path: shown(), why },
        FileError::Exposed => Error::Exposed(shown()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(mode: u32, text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("pin");
        std::fs::write(&path, text).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        (dir, path)
    }

    #[test]
    fn a_private_file_is_read_without_its_line_feed() {
        let (_dir, path) = file(0o600, "123456\n");
        assert!(read("main", Some(&path)).is_ok_and(|pin| pin.expose() == b"123456"));
    }

    #[test]
    fn the_longest_pin_may_end_its_line() {
        for (length, fits) in [(MAX, true), (MAX + 1, false)] {
            let (_dir, path) = file(0o600, &format!("{}\r\n", "9".repeat(length)));
            assert_eq!(read("main", Some(&path)).is_ok_and(|pin| pin.len() == length), fits);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_what_to_do() {
        let (_dir, path) = file(0o640, "123456\n");
        let error = read("main", Some(&path)).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("chmod 600"), "{error}");
        assert!(!error.contains("123456"));
    }

    #[test]
    fn an_empty_or_endless_file_is_no_pin() {
        for text in ["", " \n", &"9".repeat(300)] {
            let (_dir, path) = file(0o600, text);
            assert!(matches!(read("main", Some(&path)), Err(Error::NotAPin(_))));
        }
    }
}
