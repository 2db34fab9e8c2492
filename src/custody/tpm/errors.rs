//! The one table that says what each TPM response code means for the server.
//!
//! `docs/hardware.md` carries the same table for operators; a test holds the two together.

use tss_esapi::Error as Tss;
use tss_esapi::constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind as Kind};

/// What the server does about a response code. No command that the server sends changes what the
/// TPM keeps, so each may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The TPM won't do what was asked, and would not the next time: say so.
    Refused,
    /// The wrapped key is not one that this TPM has made, or was altered since.
    Rejected,
    /// Every place for a key in the TPM is taken: flush the key that was used longest ago, ask
    /// again.
    MakeRoom,
    /// The TPM is in the middle of something: wait a moment, ask again.
    Again,
    /// The TPM was restarted, or the way to it is broken: open another way, load keys anew, ask
    /// again.
    Reconnect,
    /// The TPM failed and doesn't say how: ask it for something else. If it answers, this request
    /// has failed; if not, `Reconnect`.
    Suspect,
    /// What was used does not take the authorisation that it was given, which the TPM does not count:
    /// this key, or the PIN.
    Unauthorised,
    /// The PIN, and the TPM has counted it: nothing is tried until the server is started again.
    Pin,
    /// The TPM takes no authorisation for a while, since somebody gave it wrong ones: leave it alone
    /// for as long as [`super::LOCKOUT_PAUSE`].
    Lockout,
    /// Out of something that comes back: this request has failed, the next may succeed.
    Busy,
    /// The TPM says that it must not be used: fail, heal nothing.
    Stop,
}

impl Action {
    /// Every action, in the order of the documentation.
    #[cfg(test)]
    pub(super) const ALL: [Self; 11] = [
        Self::Refused,
        Self::Rejected,
        Self::MakeRoom,
        Self::Again,
        Self::Reconnect,
        Self::Suspect,
        Self::Unauthorised,
        Self::Pin,
        Self::Lockout,
        Self::Busy,
        Self::Stop,
    ];
}

/// Bits 16 to 23 of a code name the layer that it comes from (TSS 2.0 Overview, section 3.3.2). The
/// TPM's own, and those that a resource manager passes on or answers in its stead.
const TPM_LAYERS: [u32; 3] = [0, 11, 12];

/// The host's own codes (the same section), whatever layer of the TSS they come from.
mod host {
    pub(super) const NOT_IMPLEMENTED: u32 = 2;
    pub(super) const NOT_SUPPORTED: u32 = 21;
    pub(super) const MEMORY: u32 = 23;
}

/// The action for whatever the binding reports.
pub(super) fn action(error: &Tss) -> Action {
    match error {
        // The binding could not make sense of what it got, or of what it was given.
        Tss::WrapperError(_) => Action::Suspect,
        Tss::Tss2Error(code) => match raw(code) {
            Some(raw) if !TPM_LAYERS.contains(&(raw >> 16 & 0xff)) => host_action(raw & 0xffff),
            _ => code.kind().map_or(Action::Suspect, classify),
        },
    }
}

/// What kind of response code it is, if it is the TPM's.
pub(super) fn kind(error: &Tss) -> Option<Kind> {
    match error {
        Tss::Tss2Error(code) if TPM_LAYERS.contains(&(raw(code)? >> 16 & 0xff)) => code.kind(),
        _ => None,
    }
}

/// The error in words, with its number: what one searches for.
pub(super) fn told(error: &Tss) -> String {
    match error {
        Tss::Tss2Error(code) => match raw(code) {
            Some(raw) => format!("{error} ({raw:#x})"),
            None => error.to_string(),
        },
        Tss::WrapperError(_) => error.to_string(),
    }
}

/// The number itself. The binding drops the layer from what it calls the kind, and gives the whole
/// away in a text alone.
fn raw(code: &Tss2ResponseCode) -> Option<u32> {
    let text = match code {
        Tss2ResponseCode::Success => return Some(0),
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    let (_, digits) = text.rsplit_once("0x")?;
    u32::from_str_radix(digits, 16).ok()
}

/// What the host's side reports is about the way to the TPM, or the state that it keeps of it.
fn host_action(number: u32) -> Action {
    match number {
        host::NOT_IMPLEMENTED | host::NOT_SUPPORTED => Action::Refused,
        host::MEMORY => Action::Busy,
        _ => Action::Reconnect,
    }
}

/// The action for a response code (TPM 2.0 Library, part 2, section 6.6). No wildcard: a new code of
/// the binding's must be given its place here.
pub(super) fn classify(kind: Kind) -> Action {
    use Action as A;
    match kind {
        Kind::Sequence
        | Kind::Private
        | Kind::Hmac
        | Kind::Disabled
        | Kind::Exclusive
        | Kind::AuthType
        | Kind::AuthMissing
        | Kind::Policy
        | Kind::Pcr
        | Kind::AuthUnavailable
        | Kind::Unbalanced
        | Kind::CommandSize
        | Kind::CommandCode
        | Kind::AuthSize
        | Kind::NvRange
        | Kind::NvSize
        | Kind::NvLocked
        | Kind::NvAuthorization
        | Kind::NvUninitialized
        | Kind::NvSpace
        | Kind::NvDefined
        | Kind::CpHash
        | Kind::NoResult
        | Kind::Asymmetric
        | Kind::Attributes
        | Kind::Hash
        | Kind::Value
        | Kind::Hierarchy
        | Kind::KeySize
        | Kind::Mgf
        | Kind::Mode
        | Kind::Type
        | Kind::Kdf
        | Kind::Range
        | Kind::Pp
        | Kind::Scheme
        | Kind::Size
        | Kind::Symmetric
        | Kind::Tag
        | Kind::Selector
        | Kind::Insufficient
        | Kind::Signature
        | Kind::Key
        | Kind::PolicyFail
        | Kind::Ticket
        | Kind::ReservedBits
        | Kind::Expired
        | Kind::PolicyCc
        | Kind::Curve
        | Kind::EccPoint
        | Kind::Locality => A::Refused,

        Kind::Integrity | Kind::Sensitive | Kind::Binding => A::Rejected,

        Kind::ObjectMemory | Kind::ObjectHandles | Kind::Memory => A::MakeRoom,

        // Any PCR was extended while a policy's session was open.
        Kind::PcrChanged
        | Kind::Yielded
        | Kind::Canceled
        | Kind::Testing
        | Kind::Retry
        | Kind::NeedsTest => A::Again,

        Kind::Initialize
        | Kind::TooManyContexts
        | Kind::AuthContext
        | Kind::BadContext
        | Kind::Parent
        | Kind::Handle
        | Kind::Nonce
        | Kind::ContextGap
        | Kind::SessionMemory
        | Kind::SessionHandles
        | Kind::ReferenceH0
        | Kind::ReferenceH1
        | Kind::ReferenceH2
        | Kind::ReferenceH3
        | Kind::ReferenceH4
        | Kind::ReferenceH5
        | Kind::ReferenceH6
        | Kind::ReferenceS0
        | Kind::ReferenceS1
        | Kind::ReferenceS2
        | Kind::ReferenceS3
        | Kind::ReferenceS4
        | Kind::ReferenceS5
        | Kind::ReferenceS6 => A::Reconnect,

        Kind::Success | Kind::Failure | Kind::TpmVendorSpecific => A::Suspect,

        // Part 3, section 5.6: of what has `noDA`, as all keys of ours.
        Kind::BadAuth => A::Unauthorised,

        Kind::AuthFail => A::Pin,

        Kind::Lockout => A::Lockout,

        Kind::NvRate | Kind::NvUnavailable => A::Busy,

        Kind::Upgrade | Kind::Reboot => A::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::documented::{HARDWARE, listed};
    use Kind as K;

    /// Every response code of the standard's that the binding knows.
    #[rustfmt::skip]
    const CODES: [Kind; 95] = [
        K::Initialize, K::Failure, K::Sequence, K::Private,
        K::Hmac, K::Disabled, K::Exclusive, K::AuthType,
        K::AuthMissing, K::Policy, K::Pcr, K::PcrChanged,
        K::Upgrade, K::TooManyContexts, K::AuthUnavailable, K::Reboot,
        K::Unbalanced, K::CommandSize, K::CommandCode, K::AuthSize,
        K::AuthContext, K::NvRange, K::NvSize, K::NvLocked,
        K::NvAuthorization, K::NvUninitialized, K::NvSpace, K::NvDefined,
        K::BadContext, K::CpHash, K::Parent, K::NeedsTest,
        K::NoResult, K::Sensitive, K::Asymmetric, K::Attributes,
        K::Hash, K::Value, K::Hierarchy, K::KeySize,
        K::Mgf, K::Mode, K::Type, K::Handle,
        K::Kdf, K::Range, K::AuthFail, K::Nonce,
        K::Pp, K::Scheme, K::Size, K::Symmetric,
        K::Tag, K::Selector, K::Insufficient, K::Signature,
        K::Key, K::PolicyFail, K::Integrity, K::Ticket,
        K::ReservedBits, K::BadAuth, K::Expired, K::PolicyCc,
        K::Binding, K::Curve, K::EccPoint, K::ContextGap,
        K::ObjectMemory, K::SessionMemory, K::Memory, K::SessionHandles,
        K::ObjectHandles, K::Locality, K::Yielded, K::Canceled,
        K::Testing, K::ReferenceH0, K::ReferenceH1, K::ReferenceH2,
        K::ReferenceH3, K::ReferenceH4, K::ReferenceH5, K::ReferenceH6,
        K::ReferenceS0, K::ReferenceS1, K::ReferenceS2, K::ReferenceS3,
        K::ReferenceS4, K::ReferenceS5, K::ReferenceS6, K::NvRate,
        K::Lockout, K::Retry, K::NvUnavailable,
    ];

    /// `KeySize` -> `TPM_RC_KEY_SIZE`.
    fn standard_name(kind: Kind) -> String {
        if kind == K::CpHash {
            return "TPM_RC_CPHASH".to_owned();
        }
        format!("{kind:?}").chars().fold("TPM_RC".to_owned(), |mut text, c| {
            if c.is_ascii_uppercase() {
                text.push('_');
            }
            text.push(c.to_ascii_uppercase());
            text
        })
    }

    #[test]
    fn the_documentation_lists_every_code_under_its_action() {
        let (_, section) = HARDWARE.split_once("### When a TPM fails").expect("a section");
        for action in Action::ALL {
            let codes = CODES.into_iter().filter(|code| classify(*code) == action);
            let names: Vec<_> = codes.map(|code| format!("`{}`", standard_name(code))).collect();
            let head = format!("| {action:?} |");
            assert_eq!(listed(section, &head), names, "{action:?}: {}", names.join(", "));
        }
    }

    #[test]
    fn what_the_tpm_counts_is_not_tried_again() {
        assert_eq!(classify(K::AuthFail), Action::Pin);
        assert_eq!(classify(K::BadAuth), Action::Unauthorised);
        assert_eq!(classify(K::Lockout), Action::Lockout);
    }
}
