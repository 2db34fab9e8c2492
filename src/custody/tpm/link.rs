//! The way to one TPM: the ESAPI context, the storage primary, the session that commands go in.

use super::{errors, shape};
pub(super) use crate::custody::proof::serial;
use std::str::FromStr;
use tss_esapi::attributes::SessionAttributes;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::constants::{CapabilityType, PropertyTag, SessionType, StartupType};
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Attest, Auth, CapabilityData, Data, Public, Signature, SignatureScheme, SymmetricDefinition,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::{Context, Error as Tss};

/// Where an operating system keeps the storage primary, if it does ("TCG TPM v2.0 Provisioning
/// Guidance", section 7.8).
pub(super) const KEPT_PRIMARY: u32 = 0x8100_0001;

/// Handles that a program left behind when it ended without flushing them, by their first number
/// (part 2, section 7.2): sessions, objects.
const LEAKY: [u32; 2] = [0x0200_0000, 0x8000_0000];

/// The most handles that are asked for at once.
const HANDLES: u32 = 64;

/// Keys that a TPM has room for at least (PC Client Platform TPM Profile, section 3.2).
const FEWEST_KEYS: usize = 3;

/// Why a TPM is neither enrolled nor attests.
pub(super) const ENDORSEMENT_PASSWORD: &str = "the endorsement hierarchy has a password";

/// What is secret in a command: the first parameter of the one direction or the other, which are what
/// can be encrypted (part 1, section 21). In a session all of both is authenticated.
#[derive(Clone, Copy)]
pub(super) enum Hidden {
    Nothing,
    Command,
    Answer,
}

/// The way to one TPM.
pub(super) struct Link {
    context: Context,
    /// The parent of every key.
    pub(super) primary: KeyHandle,
    /// Whether the operating system keeps the primary, so that it takes no place of its own.
    kept: bool,
    /// Tells this TPM from others: see [`serial`].
    pub(super) name: Vec<u8>,
    /// Salted with a secret that the primary alone can decrypt; none if the bus is not to be
    /// encrypted.
    session: Option<AuthSession>,
}

impl Link {
    /// Opens the way to the TPM that `tcti` names, starts it if nobody has, and finds its storage
    /// primary. Keys and sessions that somebody left behind are flushed.
    pub(super) fn open(tcti: &str, encrypt_bus: bool) -> Result<Self, Tss> {
        let mut context = Context::new(TctiNameConf::from_str(tcti)?)?;
        match context.startup(StartupType::Clear) {
            Err(e) if errors::kind(&e) != Some(Kind::Initialize) => return Err(e),
            Ok(()) | Err(_) => {}
        }
        flush_leaked(&mut context)?;
        let (primary, kept) = primary(&mut context)?;
        // Of the public area that the session is salted to: who alters the bus can have the TPM tell
        // the right name beside another's key.
        let name = context.tr_get_name(primary.into())?.value().to_vec();
        let session = encrypt_bus
            .then(|| session(&mut context, Some(primary), SessionType::Hmac))
            .transpose()?;
        Ok(Self { context, primary, kept, name, session })
    }

    /// Sends a command that needs an authorisation, with what is `hidden` encrypted.
    pub(super) fn authorized<T>(
        &mut self,
        hidden: Hidden,
        send: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        let session = match self.session {
            Some(session) => self.covering(session, hidden)?,
            None => AuthSession::Password,
        };
        self.context.execute_with_session(Some(session), send)
    }

    /// Sends a command with a key: in this policy's session, which ends, if the key is bound to one.
    pub(super) fn using<T>(
        &mut self,
        policy: Option<AuthSession>,
        hidden: Hidden,
        send: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        let Some(session) = policy else { return self.authorized(hidden, send) };
        // Without a salt there is nothing to encrypt by but the authorisation value.
        let hidden = if self.session.is_some() { hidden } else { Hidden::Nothing };
        let sent = match self.covering(session, hidden) {
            Ok(session) => self.context.execute_with_session(Some(session), send),
            Err(error) => Err(error),
        };
        self.end(session)?;
        sent
    }

    /// Begins a policy's session, salted if the bus is to be encrypted.
    pub(super) fn begin_policy(&mut self) -> tss_esapi::Result<AuthSession> {
        let salted = self.session.map(|_| self.primary);
        session(&mut self.context, salted, SessionType::Policy)
    }

    /// Ends a session.
    pub(super) fn end(&mut self, session: AuthSession) -> tss_esapi::Result<()> {
        self.context.flush_context(SessionHandle::from(session).into())
    }

    /// Sends a command that needs none. A TPM takes a password only where one is needed.
    pub(super) fn open_to_all<T>(
        &mut self,
        hidden: Hidden,
        send: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        let session = self.session.map(|session| self.covering(session, hidden)).transpose()?;
        self.context.execute_with_session(session, send)
    }

    fn covering(&mut self, session: AuthSession, hidden: Hidden) -> tss_esapi::Result<AuthSession> {
        let (attributes, mask) = SessionAttributes::builder()
            .with_continue_session(true)
            .with_decrypt(matches!(hidden, Hidden::Command))
            .with_encrypt(matches!(hidden, Hidden::Answer))
            .build();
        self.context.tr_sess_set_attributes(session, attributes, mask)?;
        Ok(session)
    }

    /// Makes the attestation key, which is the same each time.
    pub(super) fn attestation_key(&mut self) -> tss_esapi::Result<(KeyHandle, Public)> {
        let template = shape::attestation_key()?;
        let made = self.with_password(|context| {
            context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
        })?;
        Ok((made.key_handle, made.out_public))
    }

    /// Sends a command that an empty authorisation value is enough for.
    pub(super) fn with_password<T>(
        &mut self,
        send: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        self.context.execute_with_session(Some(AuthSession::Password), send)
    }

    /// Sends a command that needs two authorisations.
    pub(super) fn with_both<T>(
        &mut self,
        one: AuthSession,
        other: AuthSession,
        send: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        self.context.execute_with_sessions((Some(one), Some(other), None), send)
    }

    /// The context, for commands that need no authorisation.
    pub(super) fn context(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Gives up the primary's place, where it has one: no key of ours can be loaded after this.
    pub(super) fn leave_primary(&mut self) -> tss_esapi::Result<()> {
        if self.kept { Ok(()) } else { self.flush(self.primary) }
    }

    /// Has one key certified by another, which has no authorisation value.
    pub(super) fn certify(
        &mut self,
        key: KeyHandle,
        by: KeyHandle,
        nonce: Data,
    ) -> tss_esapi::Result<(Attest, Signature)> {
        let own = match self.session {
            Some(session) => self.covering(session, Hidden::Nothing)?,
            None => AuthSession::Password,
        };
        self.with_both(own, AuthSession::Password, |context| {
            context.certify(key.into(), by, nonce, SignatureScheme::Null)
        })
    }

    /// Says what commands with this key are authorised by.
    pub(super) fn set_auth(&mut self, key: KeyHandle, auth: Auth) -> tss_esapi::Result<()> {
        self.context.tr_set_auth(key.into(), auth)
    }

    /// Takes a key out of the TPM.
    pub(super) fn flush(&mut self, key: KeyHandle) -> tss_esapi::Result<()> {
        self.context.flush_context(key.into())
    }

    /// The keys that there is room for now, by the TPM's own estimate.
    pub(super) fn room(&mut self) -> tss_esapi::Result<usize> {
        let told = self.context.get_tpm_property(PropertyTag::HrTransientAvail)?;
        Ok(told.and_then(|n| usize::try_from(n).ok()).unwrap_or(FEWEST_KEYS))
    }

    /// The maker and the model, as the TPM calls itself.
    pub(super) fn maker(&mut self) -> tss_esapi::Result<(String, String)> {
        let id = self.context.get_tpm_property(PropertyTag::Manufacturer)?.unwrap_or_default();
        let maker = id.to_be_bytes().map(|byte| if byte.is_ascii_graphic() { byte } else { b' ' });
        let model = tss_esapi::utils::get_tpm_vendor(&mut self.context)?;
        let maker = String::from_utf8_lossy(&maker).trim().to_owned();
        Ok((maker, model.trim().to_owned()))
    }
}

/// The storage primary: the one that the operating system keeps, if it is of our kind, else made
/// anew; and which of both it was. The TPM derives it from a secret of its own and the template, so that it is the same each
/// time, until the TPM is cleared.
fn primary(context: &mut Context) -> Result<(KeyHandle, bool), Tss> {
    let template = shape::primary()?;
    if let Some(kept) = kept_primary(context)? {
        let (public, _, _) = context.read_public(kept)?;
        if shape::alike(&public, &template) {
            return Ok((kept, true));
        }
    }
    let made = context.execute_with_session(Some(AuthSession::Password), |context| {
        context.create_primary(Hierarchy::Owner, template, None, None, None, None)
    })?;
    Ok((made.key_handle, false))
}

fn kept_primary(context: &mut Context) -> Result<Option<KeyHandle>, Tss> {
    let kept = TpmHandle::Persistent(PersistentTpmHandle::new(KEPT_PRIMARY)?);
    if !handles(context, KEPT_PRIMARY)?.contains(&kept) {
        return Ok(None);
    }
    Ok(Some(KeyHandle::from(context.tr_from_tpm_public(kept)?)))
}

/// A session whose secret is encrypted to the primary, so that who listens on the bus can't follow.
fn session(
    context: &mut Context,
    primary: Option<KeyHandle>,
    kind: SessionType,
) -> Result<AuthSession, Tss> {
    let begun = context.start_auth_session(
        primary,
        None,
        None,
        kind,
        SymmetricDefinition::AES_128_CFB,
        HashingAlgorithm::Sha256,
    )?;
    begun.ok_or(Tss::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))
}

fn flush_leaked(context: &mut Context) -> Result<(), Tss> {
    for first in LEAKY {
        for handle in handles(context, first)? {
            let object = context.tr_from_tpm_public(handle)?;
            context.flush_context(object)?;
        }
    }
    Ok(())
}

/// The TPM's handles from this number on, of its kind.
fn handles(context: &mut Context, first: u32) -> Result<Vec<TpmHandle>, Tss> {
    let (listed, _) = context.get_capability(CapabilityType::Handles, first, HANDLES)?;
    match listed {
        CapabilityData::Handles(handles) => Ok(handles.into_inner()),
        _ => Ok(Vec::new()),
    }
}
