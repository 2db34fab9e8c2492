//! Where the token's PIN comes from: a file, a systemd credential, or the environment. Never from
//! the command line, never logged.

use crate::secret::Secret;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The longest PIN that is read, in bytes.
const MAX: usize = 256;

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
    /// No source.
    #[error(
        "no PIN: set `token.pin_file`, the systemd credential `hsm-pin`, or STRONGROOM_PIN in the \
         environment"
    )]
    None,
}

/// The PIN of the token of this name, from the systemd credential `hsm-pin-NAME`, else from the file
/// that is named, else from `STRONGROOM_PIN_NAME`. That of the token `main` goes without `-main` and
/// `_MAIN`, too.
pub fn read(name: &str, file: Option<&Path>) -> Result<Secret, Error> {
    let plain = (name == "main").then_some("hsm-pin".to_owned());
    if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) {
        let names = [format!("hsm-pin-{name}")].into_iter().chain(plain.clone());
        if let Some(path) = names.map(|name| dir.join(name)).find(|path| path.exists()) {
            return from_file(&path);
        }
    }
    if let Some(path) = file {
        return from_file(path);
    }
    let own = format!("STRONGROOM_PIN_{}", name.to_ascii_uppercase().replace('-', "_"));
    // One that is set to nothing is not set.
    let set = |name: &str| std::env::var(name).ok().filter(|pin| !pin.is_empty());
    let pin = set(&own).or_else(|| plain.and_then(|_| set("STRONGROOM_PIN"))).ok_or(Error::None)?;
    Ok(Secret::new(pin.into_bytes()))
}

/// The PIN in this file, which nobody but its owner may read.
pub(super) fn from_file(path: &Path) -> Result<Secret, Error> {
    let shown = path.display().to_string();
    let fail = |why| Error::Unreadable { path: shown.clone(), why };
    let file = std::fs::File::open(path).map_err(fail)?;
    // systemd hands credentials over with mode 0440, in a folder that no one else may enter.
    let open_to = if credential(path) { 0o007 } else { 0o077 };
    if file.metadata().map_err(fail)?.mode() & open_to != 0 {
        return Err(Error::Exposed(shown));
    }
    let pin = Secret::read(file, MAX).map_err(fail)?;
    let Some(mut pin) = pin else { return Err(Error::NotAPin(shown)) };
    while pin.expose().last().is_some_and(u8::is_ascii_whitespace) {
        pin.expose_mut().pop();
    }
    if pin.is_empty() {
        return Err(Error::NotAPin(shown));
    }
    Ok(pin)
}

fn credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.starts_with(dir))
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
