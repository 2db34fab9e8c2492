//! What a TPM tells of itself before a key is made.

use super::link::Link;
use super::{errors, reach, unavailable};
use crate::custody::probe::Survey;
use crate::custody::profile::Profile;
use crate::custody::{Access, Result};
use tss_esapi::constants::PropertyTag;

/// Makers of TPMs that are a chip of their own, and of those in a processor's firmware, by their ids in
/// the TCG's registry of TPM vendors.
const CHIPS: [&str; 9] = ["ATML", "BRCM", "IFX", "NSM", "NTC", "NTZ", "SMSC", "STM", "WEC"];
const FIRMWARE: [&str; 3] = ["AMD", "INTC", "QCOM"];

/// What swtpm calls itself: IBM wrote its library.
const SWTPM: (&str, &str) = ("IBM", "SW   TPM");

/// Looks at the TPM; no key of ours is needed, and none is made.
pub(in crate::custody) fn survey(profile: &Profile, access: &Access) -> Result<Survey> {
    let (mut link, token) = reach(profile, access)?;
    let told =
        properties(&mut link).map_err(|error| unavailable(&token.label, &errors::told(&error)))?;
    let fits = fits(&token.manufacturer, &token.model);
    Ok(Survey { token, told, fits, closed: None })
}

fn properties(link: &mut Link) -> tss_esapi::Result<Vec<(&'static str, String)>> {
    let mut number = |tag| link.context().get_tpm_property(tag).map(Option::unwrap_or_default);
    let firmware = number(PropertyTag::FirmwareVersion1)?;
    let (wrong, most) = (number(PropertyTag::LockoutCounter)?, number(PropertyTag::MaxAuthFail)?);
    let (loaded, kept) =
        (number(PropertyTag::HrTransientAvail)?, number(PropertyTag::HrPersistentAvail)?);
    Ok(vec![
        ("firmware", format!("{}.{}", firmware >> 16, firmware & 0xffff)),
        // Keys of ours are not counted (`noDA`).
        ("wrong authorisations", format!("{wrong} counted, of {most} that lock it")),
        ("room", format!("{loaded} more keys loaded at a time, {kept} more kept by others")),
    ])
}

/// The profile for a TPM of this maker and model, where these tell.
fn fits(maker: &str, model: &str) -> Option<&'static str> {
    match maker {
        _ if (maker, model) == SWTPM => Some("swtpm"),
        chip if CHIPS.contains(&chip) => Some("tpm2"),
        firmware if FIRMWARE.contains(&firmware) => Some("tpm2-firmware"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maker_tells_which_profile_and_an_unknown_one_none() {
        assert_eq!(fits("IFX", "SLB9670"), Some("tpm2"));
        assert_eq!(fits("INTC", "Intel"), Some("tpm2-firmware"));
        assert_eq!(fits("IBM", "SW   TPM"), Some("swtpm"));
        assert_eq!(fits("IBM", "another"), None);
        assert_eq!(fits("", ""), None);
    }
}
