//! How a PIN is sealed and opened again: see [`crate::custody::sealed`].
//!
//! The bus is always encrypted here, whatever the profile says: what crosses it is the PIN itself.

use super::link::{Hidden, Link};
use super::seat::Epoch;
use super::{Action, DEVICE, Fault, blob, errors, shape, unavailable, unreached};
use crate::custody::boot::Binding;
use crate::custody::sealed::{LONGEST, Opener, Sealed};
use crate::custody::{Error, Result};
use crate::secret::Secret;
use tss_esapi::structures::{Auth, Digest, Private, Public, SensitiveData};

const ALTERED: &str = "it was altered";

/// Seals a PIN to the TPM at `device`.
pub(in crate::custody) fn seal(
    device: Option<&str>,
    pin: &Secret,
    binding: Option<&Binding>,
) -> Result<Sealed> {
    let device = device.unwrap_or(DEVICE);
    let mut link = reach(device)?;
    let object = object(&mut link, pin, binding);
    let object = object.map_err(|error| unavailable(device, &errors::told(&error)))?;
    Ok(Sealed::new(&link.name, object, binding))
}

/// Opens a sealed PIN.
pub(in crate::custody) fn unseal(opener: &Opener) -> Result<Secret> {
    let device = opener.device.as_deref().unwrap_or(DEVICE);
    let binding = opener.binding.as_ref();
    let template = template(binding).map_err(|error| unavailable(device, &errors::told(&error)))?;
    let (public, private) = blob::read(&opener.sealed.object.0)
        .filter(|(public, _)| shape::alike(public, &template))
        .ok_or_else(|| refused(device, ALTERED))?;
    let link = reach(device)?;
    // Before anything is asked in its session: that is salted to this very key.
    if link.name != opener.sealed.storage_key.0 {
        let why = "it was sealed to another TPM, or this one was cleared since";
        return Err(refused(device, why));
    }
    let epoch = Epoch::new(link, Auth::default(), binding).map_err(Fault::from);
    let opened = epoch.and_then(|mut epoch| epoch.unseal(binding.is_some(), &public, &private));
    let pin = opened.map_err(|fault| failed(device, fault))?;
    if (1..=LONGEST).contains(&pin.len()) {
        Ok(pin)
    } else {
        Err(refused(device, "what is in it is no PIN"))
    }
}

fn reach(device: &str) -> Result<Link> {
    Link::open(device, true).map_err(|error| unavailable(device, &unreached(&error)))
}

fn template(binding: Option<&Binding>) -> tss_esapi::Result<Public> {
    let policy = binding.map(|binding| Digest::try_from(&binding.policy_of_data().0[..]));
    shape::data(policy.transpose()?.as_ref())
}

/// The two areas of an object with this PIN in it.
fn object(link: &mut Link, pin: &Secret, binding: Option<&Binding>) -> tss_esapi::Result<Vec<u8>> {
    let (template, parent) = (template(binding)?, link.primary);
    let value = SensitiveData::try_from(pin.expose())?;
    let made = link.authorized(Hidden::Command, |context| {
        context.create(parent, template, None, Some(value), None, None)
    })?;
    blob::write(&made.out_public, &made.out_private)
}

impl Epoch {
    fn unseal(
        &mut self,
        bound: bool,
        public: &Public,
        private: &Private,
    ) -> std::result::Result<Secret, Fault> {
        let handle = self.with_room(|epoch| {
            let (parent, private, public) = (epoch.link.primary, private.clone(), public.clone());
            epoch.link.authorized(Hidden::Nothing, |context| context.load(parent, private, public))
        })?;
        let policy = if bound { Some(self.begin_approved(false)?) } else { None };
        let data =
            self.link.using(policy, Hidden::Answer, |context| context.unseal(handle.into()))?;
        Ok(Secret::copy_of(data.value()))
    }
}

/// What a fault means for a sealed PIN: the object is not to be used, or it is the TPM's moment.
fn failed(device: &str, fault: Fault) -> Error {
    let error = match fault {
        Fault::Answer(error) => return error,
        Fault::Unable(why) => return unavailable(device, why),
        Fault::Device(error) | Fault::Input(error, _) | Fault::Unauthorised(error, _) => error,
    };
    let told = errors::told(&error);
    match errors::action(&error) {
        Action::Rejected => refused(device, &format!("this TPM has not sealed it, or {ALTERED}")),
        Action::Refused | Action::Pin | Action::Unauthorised => {
            refused(device, &format!("the TPM refuses it: {told}"))
        }
        _ => unavailable(device, &told),
    }
}

fn refused(device: &str, why: &str) -> Error {
    Error::Sealed { token: device.to_owned(), why: why.to_owned() }
}
