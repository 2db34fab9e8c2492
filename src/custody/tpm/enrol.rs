//! What a TPM does to be enrolled: see [`crate::custody::enrolment`].

use super::link::{ENDORSEMENT_PASSWORD, Link};
use super::{Action, DEVICE, errors, unavailable, unreached};
use crate::custody::enrolment::{Challenge, Identity};
use crate::custody::proof::Bytes;
use crate::custody::{Error, Result};
use crate::secret::Secret;
use tss_esapi::Error as Tss;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek};
use tss_esapi::handles::{AuthHandle, KeyHandle};
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, EncryptedSecret, IdObject, Nonce};
use tss_esapi::traits::Marshall as _;

/// The endorsement key that every TPM has (TCG EK Credential Profile, template L-1).
const ENDORSEMENT: AsymmetricAlgorithmSelection =
    AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048);

const NOT_MEANT: Error = Error::BadRequest("this challenge is for another TPM or another key");

/// What the TPM says of itself.
pub(in crate::custody) fn identity(device: Option<&str>) -> Result<Identity> {
    let device = device.unwrap_or(DEVICE);
    let identity = with_link(device, |link| {
        let (key, public) = link.attestation_key()?;
        link.flush(key)?;
        // Whether it keeps a certificate at all is the maker's choice.
        let certificate = ek::retrieve_ek_pubcert(link.context(), ENDORSEMENT).ok();
        Ok(Identity {
            attestation_key: Bytes(public.marshall()?),
            certificate: certificate.map(Bytes),
        })
    })?;
    identity.map_err(|error| failed(device, &error))
}

/// The secret in a challenge.
pub(in crate::custody) fn answer(device: Option<&str>, challenge: &Challenge) -> Result<Secret> {
    let device = device.unwrap_or(DEVICE);
    let activated = with_link(device, |link| {
        let (by, _) = link.attestation_key()?;
        let endorsement = ek::create_ek_object_2(link.context(), ENDORSEMENT, None)?;
        activate(link, by, endorsement, challenge)
    })?;
    activated.map_err(|error| match errors::action(&error) {
        // Of a seed that it can't decrypt a TPM may say no more than that it has failed.
        Action::Refused | Action::Rejected | Action::Suspect => NOT_MEANT,
        _ => failed(device, &error),
    })
}

/// Does this on a way to the TPM of its own; what is loaded and begun is flushed where that ends.
fn with_link<T>(
    device: &str,
    act: impl FnOnce(&mut Link) -> std::result::Result<T, Tss>,
) -> Result<std::result::Result<T, Tss>> {
    let link = Link::open(device, false);
    let mut link = link.map_err(|error| unavailable(device, &unreached(&error)))?;
    // Its place is needed: three keys are loaded at once at most, and none is used here.
    Ok(link.leave_primary().and_then(|()| act(&mut link)))
}

fn failed(device: &str, error: &Tss) -> Error {
    let told = errors::told(error);
    match errors::action(error) {
        Action::Unauthorised | Action::Pin => {
            unavailable(device, &format!("{ENDORSEMENT_PASSWORD}: {told}"))
        }
        _ => unavailable(device, &told),
    }
}

/// The endorsement key is used by whoever has the endorsement hierarchy's authorisation, which the
/// policy of its template asks for.
fn activate(
    link: &mut Link,
    key: KeyHandle,
    endorsement: KeyHandle,
    challenge: &Challenge,
) -> std::result::Result<Secret, Tss> {
    let credential = IdObject::try_from(challenge.credential.0.as_slice())?;
    let seed = EncryptedSecret::try_from(challenge.seed.0.as_slice())?;
    let policy = link.begin_policy()?;
    let session = PolicySession::try_from(policy)?;
    link.with_password(|context| {
        let (none, empty) = (Nonce::default(), Digest::default());
        let by = AuthHandle::Endorsement;
        context.policy_secret(session, by, none.clone(), empty, none, None)
    })?;
    let opened = link.with_both(AuthSession::Password, policy, |context| {
        context.activate_credential(key, endorsement, credential, seed)
    })?;
    Ok(Secret::copy_of(opened.value()))
}
