//! The one table that says what each PKCS#11 return value means for the server.
//!
//! `docs/hardware.md` carries the same table for operators; a test holds the two together.

use cryptoki::error::{Error as Cryptoki, RvError};

/// What the server does about a return value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The token won't do what was asked, and would not the next time: say so.
    Refused,
    /// The token has ended this thread's session: open another, ask again. The old one is not
    /// closed, since its number may be another session's by now.
    NewSession,
    /// This thread's session is in the middle of something: close it, open another, ask again.
    CloseSession,
    /// The login is gone: log in again, which starts a new epoch.
    LoginAgain,
    /// The library lost its state: finalise, initialise, find the token, log in.
    Reinitialize,
    /// The token is not there: as `Reinitialize`, which finds it when it is back.
    TokenGone,
    /// The key's handle is not valid: the key is gone, or the token was. As `Reinitialize`; only a
    /// fresh search on a token that is there may call the key missing.
    StaleHandle,
    /// The device failed and doesn't say how: ask for the token's serial number. If it answers,
    /// this request has failed; if not, `TokenGone`.
    Suspect,
    /// The PIN: no further login until the server is started again, so that nothing locks it.
    Pin,
    /// Out of something that comes back: this request has failed, the next may succeed.
    Busy,
    /// The device or library says that it must not be used: fail, heal nothing.
    Stop,
}

impl Action {
    /// Every action, in the order of the documentation.
    #[cfg(test)]
    pub(super) const ALL: [Self; 11] = [
        Self::Refused,
        Self::NewSession,
        Self::CloseSession,
        Self::LoginAgain,
        Self::Reinitialize,
        Self::TokenGone,
        Self::StaleHandle,
        Self::Suspect,
        Self::Pin,
        Self::Busy,
        Self::Stop,
    ];
}

/// The action for whatever the binding reports.
pub(super) fn action(error: &Cryptoki) -> Action {
    match error {
        Cryptoki::Pkcs11(value, _) => classify(*value),
        Cryptoki::NotSupported | Cryptoki::NullFunctionPointer | Cryptoki::PinNotSet => {
            Action::Refused
        }
        Cryptoki::LibraryLoading(_) | Cryptoki::MissingSymbol(_) => Action::Stop,
        // The device said something that can't be read as what the standard says it is.
        Cryptoki::TryFromInt(_)
        | Cryptoki::TryFromSlice(_)
        | Cryptoki::ParseInt(_)
        | Cryptoki::Utf8(_)
        | Cryptoki::NulError(_)
        | Cryptoki::InvalidValue => Action::Suspect,
    }
}

/// The action for a return value (PKCS#11 3.1, section 5.1). No wildcard: a new value of the
/// binding's must be given its place here.
pub(super) fn classify(value: RvError) -> Action {
    use Action as A;
    use RvError as E;
    match value {
        E::ArgumentsBad
        | E::NoEvent
        | E::AttributeReadOnly
        | E::AttributeSensitive
        | E::AttributeTypeInvalid
        | E::AttributeValueInvalid
        | E::ActionProhibited
        | E::DataInvalid
        | E::DataLenRange
        | E::EncryptedDataInvalid
        | E::EncryptedDataLenRange
        | E::FunctionNotParallel
        | E::FunctionNotSupported
        | E::FunctionRejected
        | E::CurveNotSupported
        | E::KeySizeRange
        | E::KeyTypeInconsistent
        | E::KeyNotNeeded
        | E::KeyNeeded
        | E::KeyIndigestible
        | E::KeyFunctionNotPermitted
        | E::KeyNotWrappable
        | E::KeyUnextractable
        | E::MechanismInvalid
        | E::MechanismParamInvalid
        | E::SessionParallelNotSupported
        | E::SignatureInvalid
        | E::SignatureLenRange
        | E::TemplateIncomplete
        | E::TemplateInconsistent
        | E::TokenWriteProtected
        | E::UnwrappingKeySizeRange
        | E::UnwrappingKeyTypeInconsistent
        | E::UserTypeInvalid
        | E::WrappedKeyInvalid
        | E::WrappedKeyLenRange
        | E::WrappingKeySizeRange
        | E::WrappingKeyTypeInconsistent
        | E::RandomSeedNotSupported
        | E::RandomNoRng
        | E::DomainParamsInvalid
        | E::BufferTooSmall
        | E::InformationSensitive
        | E::StateUnsaveable
        | E::ExceededMaxIterations
        | E::PublicKeyInvalid => A::Refused,

        E::SessionClosed | E::SessionHandleInvalid => A::NewSession,

        E::OperationActive
        | E::OperationNotInitialized
        | E::SessionReadOnly
        | E::SavedStateInvalid
        | E::Cancel
        | E::FunctionCanceled => A::CloseSession,

        E::UserNotLoggedIn
        | E::UserAnotherAlreadyLoggedIn
        | E::UserAlreadyLoggedIn
        | E::UserTooManyTypes
        | E::SessionExists
        | E::SessionReadOnlyExists
        | E::SessionReadWriteSoExists => A::LoginAgain,

        E::CryptokiNotInitialized
        | E::CryptokiAlreadyInitialized
        | E::MutexBad
        | E::MutexNotLocked => A::Reinitialize,

        E::DeviceRemoved | E::TokenNotPresent | E::TokenNotRecognized | E::SlotIdInvalid => {
            A::TokenGone
        }

        E::ObjectHandleInvalid
        | E::KeyHandleInvalid
        | E::KeyChanged
        | E::UnwrappingKeyHandleInvalid
        | E::WrappingKeyHandleInvalid => A::StaleHandle,

        E::GeneralError
        | E::FunctionFailed
        | E::DeviceError
        | E::DeviceMemory
        | E::VendorDefined(_)
        | E::UnknownErrorCode(_) => A::Suspect,

        E::PinIncorrect
        | E::PinInvalid
        | E::PinLenRange
        | E::PinExpired
        | E::PinLocked
        | E::PinTooWeak
        | E::UserPinNotInitialized
        | E::NewPinMode
        | E::NextOtp => A::Pin,

        E::HostMemory | E::SessionCount => A::Busy,

        E::NeedToCreateThreads | E::CantLock | E::FipsSelfTestFailed | E::LibraryLoadFailed => {
            A::Stop
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::documented::{HARDWARE, listed};
    use RvError as E;

    /// Every value that the binding can report.
    #[rustfmt::skip]
    const VALUES: [RvError; 95] = [
        E::Cancel, E::HostMemory, E::SlotIdInvalid, E::GeneralError,
        E::FunctionFailed, E::ArgumentsBad, E::NoEvent, E::NeedToCreateThreads,
        E::CantLock, E::AttributeReadOnly, E::AttributeSensitive, E::AttributeTypeInvalid,
        E::AttributeValueInvalid, E::ActionProhibited, E::DataInvalid, E::DataLenRange,
        E::DeviceError, E::DeviceMemory, E::DeviceRemoved, E::EncryptedDataInvalid,
        E::EncryptedDataLenRange, E::FunctionCanceled, E::FunctionNotParallel, E::FunctionNotSupported,
        E::CurveNotSupported, E::KeyHandleInvalid, E::KeySizeRange, E::KeyTypeInconsistent,
        E::KeyNotNeeded, E::KeyChanged, E::KeyNeeded, E::KeyIndigestible,
        E::KeyFunctionNotPermitted, E::KeyNotWrappable, E::KeyUnextractable, E::MechanismInvalid,
        E::MechanismParamInvalid, E::ObjectHandleInvalid, E::OperationActive, E::OperationNotInitialized,
        E::PinIncorrect, E::PinInvalid, E::PinLenRange, E::PinExpired,
        E::PinLocked, E::SessionClosed, E::SessionCount, E::SessionHandleInvalid,
        E::SessionParallelNotSupported, E::SessionReadOnly, E::SessionExists, E::SessionReadOnlyExists,
        E::SessionReadWriteSoExists, E::SignatureInvalid, E::SignatureLenRange, E::TemplateIncomplete,
        E::TemplateInconsistent, E::TokenNotPresent, E::TokenNotRecognized, E::TokenWriteProtected,
        E::UnwrappingKeyHandleInvalid, E::UnwrappingKeySizeRange, E::UnwrappingKeyTypeInconsistent, E::UserAlreadyLoggedIn,
        E::UserNotLoggedIn, E::UserPinNotInitialized, E::UserTypeInvalid, E::UserAnotherAlreadyLoggedIn,
        E::UserTooManyTypes, E::WrappedKeyInvalid, E::WrappedKeyLenRange, E::WrappingKeyHandleInvalid,
        E::WrappingKeySizeRange, E::WrappingKeyTypeInconsistent, E::RandomSeedNotSupported, E::RandomNoRng,
        E::DomainParamsInvalid, E::BufferTooSmall, E::SavedStateInvalid, E::InformationSensitive,
        E::StateUnsaveable, E::CryptokiNotInitialized, E::CryptokiAlreadyInitialized, E::MutexBad,
        E::MutexNotLocked, E::NewPinMode, E::NextOtp, E::ExceededMaxIterations,
        E::FipsSelfTestFailed, E::LibraryLoadFailed, E::PinTooWeak, E::PublicKeyInvalid,
        E::FunctionRejected, E::VendorDefined(0x8000_0001), E::UnknownErrorCode(0x7fff_ffff),
    ];

    /// `KeyHandleInvalid` -> `CKR_KEY_HANDLE_INVALID`.
    fn standard_name(value: RvError) -> String {
        let debug = format!("{value:?}");
        let name = debug.split('(').next().expect("a name");
        name.chars().fold("CKR".to_owned(), |mut text, c| {
            if c.is_ascii_uppercase() {
                text.push('_');
            }
            text.push(c.to_ascii_uppercase());
            text
        })
    }

    /// The action's row in the documentation: its name, what is done, the values.
    fn row(action: Action) -> (String, Vec<String>) {
        let values = VALUES.into_iter().filter(|value| classify(*value) == action);
        let names = values.map(|value| format!("`{}`", standard_name(value))).collect();
        (format!("| {action:?} |"), names)
    }

    #[test]
    fn the_documentation_lists_every_value_under_its_action() {
        for action in Action::ALL {
            let (head, names) = row(action);
            assert_eq!(listed(HARDWARE, &head), names, "{action:?}: {}", names.join(", "));
        }
    }

    #[test]
    fn no_wrong_pin_leads_to_another_login() {
        for value in VALUES.into_iter().filter(|value| format!("{value:?}").starts_with("Pin")) {
            assert_eq!(classify(value), Action::Pin);
        }
    }

    #[test]
    fn what_softhsm_answers_without_its_directory_leads_to_healing_or_to_a_question() {
        assert_eq!(classify(E::ObjectHandleInvalid), Action::StaleHandle);
        assert_eq!(classify(E::GeneralError), Action::Suspect);
    }
}
