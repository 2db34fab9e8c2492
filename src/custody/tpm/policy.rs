//! How a key that is bound to boot states is used: see [`crate::custody::boot`].

use super::link::Link;
use super::seat::{Epoch, Usable, rejected};
use super::{Action, DEVICE, Fault, errors, link, shape, unavailable, unreached};
use crate::custody::boot::{Approval, Binding, Hash, REFERENCE, State};
use crate::custody::proof::name;
use crate::custody::{BackingKeyId, Error};
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::str::FromStr as _;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Digest, EccParameter, EccSignature, Name, Nonce, PcrSelectionList, PcrSlot, Public, Signature,
    VerifiedTicket,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::UnMarshall as _;
use tss_esapi::tss2_esys::TPMT_TK_VERIFIED;
use tss_esapi::{Context, Error as Tss};

type Result<T> = std::result::Result<T, Fault>;

/// The most values in one answer (`TPML_DIGEST`; part 2, section 10.9.3).
const AT_ONCE: usize = 8;

/// What keys are bound to, and the approval that was used last.
pub(super) struct Bound {
    binding: Binding,
    policy: Digest,
    operator: Public,
    /// The state that it is for, and what the TPM gave for having seen the operator's signature: that
    /// holds until the TPM is cleared.
    seen: Option<(State, TPMT_TK_VERIFIED)>,
}

impl Bound {
    pub(super) fn new(binding: &Binding) -> std::result::Result<Self, Tss> {
        let policy = Digest::try_from(&binding.policy().0[..])?;
        let operator = Public::unmarshall(&binding.area())?;
        Ok(Self { binding: binding.clone(), policy, operator, seen: None })
    }

    /// The policy of every key that is bound.
    pub(super) fn policy(&self) -> &Digest {
        &self.policy
    }
}

impl Epoch {
    /// Refuses a key that is bound to what nobody here could approve.
    pub(super) fn bindable(&self, id: BackingKeyId, public: &Public) -> Result<()> {
        match (shape::policy(public), &self.bound) {
            (None, _) => Ok(()),
            (Some(policy), Some(bound)) if *policy == bound.policy => Ok(()),
            (Some(_), Some(_)) => Err(rejected(id, "it is bound to another operator's approvals")),
            (Some(_), None) => Err(rejected(id, "it is bound to boot states: set `pcr_policy`")),
        }
    }

    /// The session in which a key that is bound may be used once.
    pub(super) fn approved(&mut self, key: Usable) -> Result<Option<AuthSession>> {
        if !key.bound {
            return Ok(None);
        }
        Ok(Some(self.begin_approved(true)?))
    }

    /// A session in which what is bound to boot states may be used once: a key, by who `has_pin`; or
    /// sealed data.
    pub(super) fn begin_approved(&mut self, has_pin: bool) -> Result<AuthSession> {
        let (state, ticket) = self.seen()?;
        let operator = self.bound.as_ref().map(|bound| name(&bound.binding.area()));
        let session = self.link.begin_policy()?;
        let operator = operator.unwrap_or_default();
        let fulfilled = self.link.fulfil(session, &state, &operator, ticket);
        match fulfilled.and_then(|()| self.link.by_pin(session, has_pin)) {
            Ok(()) => Ok(session),
            Err(error) => {
                self.link.end(session)?;
                Err(self.refused(error))
            }
        }
    }

    /// The state of now, and what shows the TPM that the operator has signed it.
    fn seen(&mut self) -> Result<(State, TPMT_TK_VERIFIED)> {
        let Some(bound) = &self.bound else { return Err(Fault::UNREADABLE) };
        let now = boot_state(self.link.context(), &bound.binding.pcrs)?;
        if let Some((state, ticket)) = bound.seen.as_ref().filter(|(state, _)| *state == now) {
            return Ok((state.clone(), *ticket));
        }
        let label = format!("tpm-{}", link::serial(&self.link.name));
        let approval = bound.binding.approval(&now).map_err(|why| unavailable(&label, &why))?;
        let operator = bound.operator.clone();
        let ticket = self.verified(operator, &approval)?;
        if let Some(bound) = &mut self.bound {
            bound.seen = Some((now.clone(), ticket));
        }
        Ok((now, ticket))
    }

    fn verified(&mut self, operator: Public, approval: &Approval) -> Result<TPMT_TK_VERIFIED> {
        let key = self.with_room(|epoch| {
            epoch.link.context().load_external_public(operator.clone(), Hierarchy::Owner)
        })?;
        let verified = self.link.verify(key, approval);
        self.link.flush(key)?;
        verified.map_err(|error| self.refused(error))
    }

    /// A policy that the TPM does not see fulfilled is not the request's fault.
    fn refused(&self, error: Tss) -> Fault {
        if errors::action(&error) != Action::Refused {
            return error.into();
        }
        let label = format!("tpm-{}", link::serial(&self.link.name));
        let why =
            format!("the TPM does not take the boot state's approval: {}", errors::told(&error));
        unavailable(&label, &why).into()
    }
}

impl Link {
    fn verify(
        &mut self,
        key: KeyHandle,
        approval: &Approval,
    ) -> tss_esapi::Result<TPMT_TK_VERIFIED> {
        let signed = digest(&SHA256, &[&approval.state.policy.0[..], REFERENCE].concat());
        let (r, s) = approval.signature.0.split_at_checked(32).unwrap_or_default();
        let (r, s) = (EccParameter::try_from(r)?, EccParameter::try_from(s)?);
        let signature = Signature::EcDsa(EccSignature::create(HashingAlgorithm::Sha256, r, s)?);
        let signed = Digest::try_from(signed.as_ref())?;
        self.context().verify_signature(key, signed, signature)?.try_into()
    }

    /// Shows that the PCRs are as they were approved.
    fn fulfil(
        &mut self,
        session: AuthSession,
        state: &State,
        operator: &[u8],
        ticket: TPMT_TK_VERIFIED,
    ) -> tss_esapi::Result<()> {
        let policy = PolicySession::try_from(session)?;
        let pcrs: Vec<u8> = state.pcrs.keys().copied().collect();
        let approved = Digest::try_from(&state.policy.0[..])?;
        let (reference, operator) =
            (Nonce::try_from(REFERENCE)?, Name::try_from(operator.to_vec())?);
        let context = self.context();
        context.policy_pcr(policy, Digest::default(), selection(&pcrs)?)?;
        context.policy_authorize(
            policy,
            approved,
            reference,
            &operator,
            VerifiedTicket::try_from(ticket)?,
        )
    }

    /// Says that the PIN will be shown, too.
    fn by_pin(&mut self, session: AuthSession, needed: bool) -> tss_esapi::Result<()> {
        if !needed {
            return Ok(());
        }
        self.context().policy_auth_value(PolicySession::try_from(session)?)
    }
}

fn selection(pcrs: &[u8]) -> tss_esapi::Result<PcrSelectionList> {
    let slot = |pcr: &u8| PcrSlot::try_from(1_u32.checked_shl(u32::from(*pcr)).unwrap_or(0));
    let slots = pcrs.iter().map(slot).collect::<tss_esapi::Result<Vec<_>>>()?;
    PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, &slots).build()
}

fn boot_state(context: &mut Context, pcrs: &[u8]) -> Result<State> {
    let mut values = BTreeMap::new();
    for some in pcrs.chunks(AT_ONCE) {
        let (_, _, read) = context.pcr_read(selection(some)?)?;
        if read.len() != some.len() {
            return Err(Fault::UNREADABLE);
        }
        for (pcr, value) in some.iter().zip(read.value()) {
            let value = value.value().try_into().map_err(|_| Fault::UNREADABLE)?;
            values.insert(*pcr, Hash(value));
        }
    }
    Ok(State::new(values))
}

/// What these PCRs of a TPM hold now. A server that uses the TPM is not disturbed.
pub(in crate::custody) fn current(
    device: Option<&str>,
    pcrs: &[u8],
) -> std::result::Result<State, Error> {
    let device = device.unwrap_or(DEVICE);
    let context = TctiNameConf::from_str(device).and_then(Context::new).map_err(Fault::from);
    context.and_then(|mut context| boot_state(&mut context, pcrs)).map_err(|fault| match fault {
        Fault::Answer(error) => error,
        Fault::Unable(why) => unavailable(device, why),
        Fault::Device(error) | Fault::Input(error, _) | Fault::Unauthorised(error, _) => {
            unavailable(device, &unreached(&error))
        }
    })
}
