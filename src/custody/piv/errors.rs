//! The one table that says what each code of PC/SC, and each status of the card, means for the
//! server.
//!
//! `docs/hardware.md` carries the same table for operators; a test holds the two together.

use pcsc::Error as Pcsc;
use yubikey::Error as Status;

/// What the server does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The card won't do what was asked, and would not the next time: say so.
    Refused,
    /// The connection is of no more use: the card was pulled, reset or put back, or the PC/SC service
    /// ended. Let go of it and open another, service included.
    Reopen,
    /// Somebody has selected another application on the card, or the card failed and doesn't say how:
    /// as `Reopen`; what fails on a new connection too is the card's answer.
    Suspect,
    /// The PIN: it is not tried again until the server is started again, so that nothing locks it.
    Pin,
    /// Out of something that comes back: this request has failed, the next may succeed.
    Busy,
}

impl Action {
    /// Every action, in the order of the documentation.
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] =
        [Self::Refused, Self::Reopen, Self::Suspect, Self::Pin, Self::Busy];
}

/// The action for whatever the binding reports.
pub(super) fn action(error: Status) -> Action {
    match error {
        Status::PcscError { inner: Some(code) } => classify(code),
        // A panic of the binding's at what the card said.
        Status::PcscError { inner: None } => Action::Suspect,
        Status::WrongPin { .. } | Status::PinLocked => Action::Pin,
        Status::AlgorithmError
        | Status::ArgumentError
        | Status::InvalidObject
        | Status::NotFound
        | Status::NotSupported
        | Status::RangeError => Action::Refused,
        Status::MemoryError => Action::Busy,
        // `GenericError` is any status word without a name of its own; `AuthenticationError` is
        // 6982, which a verified PIN answers when another application was selected meanwhile.
        _ => Action::Suspect,
    }
}

/// The action for a code of PC/SC's. No wildcard: a new code of the binding's must be given its place
/// here.
pub(super) fn classify(code: Pcsc) -> Action {
    use Action as A;
    use Pcsc as E;
    match code {
        E::InvalidParameter
        | E::InvalidTarget
        | E::InvalidValue
        | E::InsufficientBuffer
        | E::CantDispose
        | E::PciTooSmall
        | E::ReaderUnsupported
        | E::DuplicateReader
        | E::CardUnsupported
        | E::UnsupportedCard
        | E::UnsupportedFeature
        | E::InvalidAtr
        | E::IccInstallation
        | E::IccCreateorder
        | E::DirNotFound
        | E::FileNotFound
        | E::NoDir
        | E::NoFile
        | E::NoAccess
        | E::WriteTooMany
        | E::BadSeek
        | E::NoSuchCertificate
        | E::CertificateUnavailable
        | E::NoKeyContainer
        | E::Eof
        | E::CacheItemNotFound
        | E::CacheItemStale
        | E::CacheItemTooBig => A::Refused,

        E::Cancelled
        | E::CancelledByUser
        | E::InvalidHandle
        | E::UnknownReader
        | E::Timeout
        | E::NoSmartcard
        | E::UnknownCard
        | E::ProtoMismatch
        | E::NotReady
        | E::SystemCancelled
        | E::CommError
        | E::CommDataLost
        | E::NotTransacted
        | E::ReaderUnavailable
        | E::NoReadersAvailable
        | E::Shutdown
        | E::NoService
        | E::ServiceStopped
        | E::UnresponsiveCard
        | E::UnpoweredCard
        | E::ResetCard
        | E::RemovedCard => A::Reopen,

        E::InternalError
        | E::WaitedTooLong
        | E::UnknownError
        | E::UnknownResMng
        | E::SecurityViolation
        | E::CardNotAuthenticated => A::Suspect,

        E::InvalidChv | E::WrongChv | E::ChvBlocked => A::Pin,

        E::NoMemory | E::SharingViolation | E::ServerTooBusy => A::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::documented::{HARDWARE, listed};
    use Pcsc as E;

    /// Every code that the binding can report.
    #[rustfmt::skip]
    const CODES: [Pcsc; 62] = [
        E::InternalError, E::Cancelled, E::InvalidHandle, E::InvalidParameter, E::InvalidTarget,
        E::NoMemory, E::WaitedTooLong, E::InsufficientBuffer, E::UnknownReader, E::Timeout,
        E::SharingViolation, E::NoSmartcard, E::UnknownCard, E::CantDispose, E::ProtoMismatch,
        E::NotReady, E::InvalidValue, E::SystemCancelled, E::CommError, E::UnknownError,
        E::InvalidAtr, E::NotTransacted, E::ReaderUnavailable, E::Shutdown, E::PciTooSmall,
        E::ReaderUnsupported, E::DuplicateReader, E::CardUnsupported, E::NoService, E::ServiceStopped,
        E::IccInstallation, E::IccCreateorder, E::UnsupportedFeature, E::DirNotFound, E::FileNotFound,
        E::NoDir, E::NoFile, E::NoAccess, E::WriteTooMany, E::BadSeek,
        E::InvalidChv, E::UnknownResMng, E::NoSuchCertificate, E::CertificateUnavailable, E::NoReadersAvailable,
        E::CommDataLost, E::NoKeyContainer, E::ServerTooBusy, E::UnsupportedCard, E::UnresponsiveCard,
        E::UnpoweredCard, E::ResetCard, E::RemovedCard, E::SecurityViolation, E::WrongChv,
        E::ChvBlocked, E::Eof, E::CancelledByUser, E::CardNotAuthenticated, E::CacheItemNotFound,
        E::CacheItemStale, E::CacheItemTooBig,
    ];

    /// The action's row in the documentation: its name, what is done, the codes.
    fn row(action: Action) -> (String, Vec<String>) {
        let codes = CODES.into_iter().filter(|code| classify(*code) == action);
        (format!("| {action:?} (card) |"), codes.map(|code| format!("`{code:?}`")).collect())
    }

    #[test]
    fn the_documentation_lists_every_code_under_its_action() {
        for action in Action::ALL {
            let (head, names) = row(action);
            assert_eq!(listed(HARDWARE, &head), names, "{action:?}: {}", names.join(", "));
        }
    }

    #[test]
    fn no_wrong_pin_leads_to_another_try() {
        for code in [E::InvalidChv, E::WrongChv, E::ChvBlocked] {
            assert_eq!(classify(code), Action::Pin);
        }
        assert_eq!(action(Status::WrongPin { tries: 2 }), Action::Pin);
        assert_eq!(action(Status::PinLocked), Action::Pin);
    }

    #[test]
    fn what_a_card_that_was_pulled_and_put_back_answers_leads_to_a_new_connection() {
        for code in [
            E::NotTransacted,
            E::RemovedCard,
            E::NoSmartcard,
            E::ResetCard,
            E::ProtoMismatch,
            E::NoService,
        ] {
            assert_eq!(classify(code), Action::Reopen);
        }
    }
}
