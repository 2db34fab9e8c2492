//! What a TPM does to be enrolled: see [`crate::custody::enrolment`].

use super::link::Link;
use super::{Action, DEVICE, errors, unavailable, unreached};
use crate::custody::enrolment::{Challenge, Identity};
use crate::custody::proof::Bytes;
use crate::custody::{Error, Result};
use crate::secret::Secret;
use tss_esapi::Error as Tss;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek};
use tss_esapi::attributes::SessionAttributes;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, EncryptedSecret, IdObject, Nonce, SymmetricDefinition};
use tss_esapi::traits::Marshall as _;

/// The endorsement key that every TPM has (TCG EK Credential Profile, template L-1).
const ENDORSEMENT: AsymmetricAlgorithmSelection =
    AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048);

const NOT_MEANT: Error = Error::BadRequest("this challenge is for another TPM or another key");

/// What the TPM says of itself.
pub(in crate::custody) fn identity(device: Option<&str>) -> Result<Identity> {
    with_link(device, |link| {
        let (key, public) = link.attestation_key()?;
        link.flush(key)?;
        // Whether it keeps a certificate at all is the maker's choice.
        let certificate = ek::retrieve_ek_pubcert(link.context(), ENDORSEMENT).ok();
        Ok(Identity {
            attestation_key: Bytes(public.marshall()?),
            certificate: certificate.map(Bytes),
        })
    })
    .map_err(|(device, error)| unavailable(&device, &unreached(&error)))
}

/// The secret in a challenge.
pub(in crate::custody) fn answer(device: Option<&str>, challenge: &Challenge) -> Result<Secret> {
    let activated = with_link(device, |link| {
        let (by, _) = link.attestation_key()?;
        let endorsement = ek::create_ek_object_2(link.context(), ENDORSEMENT, None)?;
        let opened = activate(link, by, endorsement, challenge);
        link.flush(endorsement)?;
        link.flush(by)?;
        opened
    });
    activated.map_err(|(device, error)| match errors::action(&error) {
        // Of a seed that it can't decrypt a TPM may say no more than that it has failed.
        Action::Refused | Action::Rejected | Action::Suspect => NOT_MEANT,
        _ => unavailable(&device, &unreached(&error)),
    })
}

fn with_link<T>(
    device: Option<&str>,
    act: impl FnOnce(&mut Link) -> std::result::Result<T, Tss>,
) -> std::result::Result<T, (String, Tss)> {
    let device = device.unwrap_or(DEVICE);
    let done = Link::open(device, false).and_then(|mut link| {
        // Its place is needed: three keys are loaded at once at most, and none is used here.
        link.leave_primary()?;
        act(&mut link)
    });
    done.map_err(|error| (device.to_owned(), error))
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
    let policy = link.begin(SessionType::Policy)?;
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

impl Link {
    fn begin(&mut self, kind: SessionType) -> std::result::Result<AuthSession, Tss> {
        let begun = self.context().start_auth_session(
            None,
            None,
            None,
            kind,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )?;
        let session =
            begun.ok_or(Tss::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))?;
        let (attributes, mask) =
            SessionAttributes::builder().with_decrypt(true).with_encrypt(true).build();
        self.context().tr_sess_set_attributes(session, attributes, mask)?;
        Ok(session)
    }
}
