//! Stand-ins for hardware, which `strongroom dev` starts and ends.

#[cfg(feature = "yubikey")]
pub mod piv;
pub mod swtpm;

use crate::custody::profile::Profile;
use crate::server::Error;
use std::path::Path;
use swtpm::Swtpm;

/// What is there in the place of hardware as long as this lives, or as this process does.
pub struct Beside(Option<Swtpm>);

impl Beside {
    /// Starts what a token of this profile takes, with its state in the folder of an appliance of
    /// `strongroom dev`; `card` is the program that is the virtual card, if it is not where
    /// `scripts/piv-card` puts it. For a card this process is started anew, so call it before there
    /// are threads.
    ///
    /// # Errors
    /// What it takes is not installed, or does not start.
    pub fn start(dir: &Path, profile: &Profile, card: Option<&Path>) -> Result<Self, Error> {
        let folder = dir.join("tokens");
        match &*profile.name {
            "swtpm" => Swtpm::start(&folder).map(Some).map(Self),
            "virtual-piv" => attach(&folder, card).map(|()| Self(None)),
            _ => Ok(Self(None)),
        }
    }

    /// How the device is reached, as the configuration has it.
    pub fn device(&self) -> Option<String> {
        self.0.as_ref().map(Swtpm::device)
    }
}

#[cfg(feature = "yubikey")]
fn attach(folder: &Path, card: Option<&Path>) -> Result<(), Error> {
    let folder = std::path::absolute(folder).map_err(|e| Error::io(folder, e))?;
    piv::attach(&folder, card).map_err(|e| Error::io(&folder, e))
}

#[cfg(not(feature = "yubikey"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
fn attach(_: &Path, _: Option<&Path>) -> Result<(), Error> {
    // The driver will say that it is left out.
    Ok(())
}
