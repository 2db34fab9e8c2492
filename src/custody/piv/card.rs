//! The connection to one card: what is asked of it, and that its PIN is never tried to death.

use super::Fault;
use super::directory::{self, Directory};
use super::errors::{self, Action};
use super::oaep::MODULUS;
use crate::custody::{Error, Locator};
use crate::secret::Secret;
use pcsc::Disposition;
use std::panic::{AssertUnwindSafe, catch_unwind};
use yubikey::piv::{self, AlgorithmId, Origin, SlotId};
use yubikey::{Context, MgmKey, PinPolicy, Serial, TouchPolicy, YubiKey};

type Result<T> = std::result::Result<T, Fault>;

// The crate writes raw commands into its log at level trace, the PIN in them.
const _: () = assert!(
    log::STATIC_MAX_LEVEL as usize <= log::LevelFilter::Info as usize,
    "the log of crate yubikey must be capped when it is compiled"
);

/// SubjectPublicKeyInfo (RFC 5280) of an RSA key of 2,048 bits with a public exponent of three bytes,
/// up to the RSAPublicKey in it.
const RSA_2048_INFO: [u8; 24] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
    0x01, 0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00,
];
/// The length of that RSAPublicKey, and where in it the modulus stands.
const RSA_2048_KEY: usize = 270;
const MODULUS_AT: usize = RSA_2048_INFO.len() + 9;

/// Where Yubico keeps the certificate of slot F9.
const ATTESTATION: yubikey::ObjectId = 0x5f_ff01;

/// What a slot holds, as the card tells it.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) algorithm: AlgorithmId,
    /// Of P-256 an uncompressed point, of RSA a SubjectPublicKeyInfo in DER.
    pub(super) public: Vec<u8>,
    /// Made on the card, not brought in.
    pub(super) generated: bool,
    /// When it wants the PIN, if the card tells.
    pub(super) pin: Option<PinPolicy>,
}

impl Contents {
    /// From what stands in a SubjectPublicKeyInfo's BIT STRING, whose length tells the two apart.
    fn new(bits: &[u8], generated: bool, pin: Option<PinPolicy>) -> Option<Self> {
        let (algorithm, public) = match bits.len() {
            65 if bits.first() == Some(&4) => (AlgorithmId::EccP256, bits.to_vec()),
            RSA_2048_KEY => (AlgorithmId::Rsa2048, [&RSA_2048_INFO[..], bits].concat()),
            _ => return None,
        };
        Some(Self { algorithm, public, generated, pin })
    }

    /// Whether this, of the modulus's length, is less than the modulus, as what is encrypted is.
    pub(super) fn is_ciphertext(&self, bytes: &[u8]) -> bool {
        let modulus = self.public.get(MODULUS_AT..MODULUS_AT.saturating_add(MODULUS));
        bytes.len() == MODULUS && modulus.is_some_and(|modulus| bytes < modulus)
    }
}

/// One card, connected.
pub(super) struct Card {
    key: YubiKey,
}

impl Card {
    /// Connects to the card that is meant, and reads its directory, if it has one.
    pub(super) fn open(token: &Locator) -> Result<(Self, Option<Directory>)> {
        match token {
            Locator::Serial(serial) => {
                let number = serial.parse::<u32>();
                let number = number.map_err(|_| missing(token, "a serial number is a number"))?;
                let key = guarded(|| YubiKey::open_by_serial(Serial(number))).map_err(|e| {
                    if e == yubikey::Error::NotFound { missing(token, ABSENT) } else { e.into() }
                })?;
                let mut card = Self { key };
                let directory = card.directory()?;
                Ok((card, directory))
            }
            Locator::Label(label) => Self::open_labelled(token, label),
        }
    }

    fn open_labelled(token: &Locator, label: &str) -> Result<(Self, Option<Directory>)> {
        let mut found = None;
        for mut card in Self::all()? {
            match card.directory() {
                Ok(Some(directory)) if directory.label == label => {
                    if found.is_some() {
                        card.leave();
                        return Err(missing(token, "more than one card bears this label"));
                    }
                    found = Some((card, Some(directory)));
                }
                _ => card.leave(),
            }
        }
        found.ok_or_else(|| missing(token, ABSENT))
    }

    /// Every card that answers as a YubiKey does.
    pub(super) fn all() -> Result<Vec<Self>> {
        guarded(|| {
            let mut context = Context::open()?;
            let cards = context.iter()?.filter_map(|reader| reader.open().ok());
            Ok(cards.map(|key| Self { key }).collect())
        })
        .map_err(Fault::from)
    }

    /// Lets go of a card that is not ours without resetting it under those who use it.
    pub(super) fn leave(self) {
        drop(self.key.disconnect(Disposition::LeaveCard));
    }

    pub(super) fn serial(&self) -> u32 {
        self.key.serial().0
    }

    /// The reader, as PC/SC calls it: of a YubiKey it begins with its maker's name.
    pub(super) fn reader(&self) -> &str {
        self.key.name()
    }

    pub(super) fn version(&self) -> yubikey::Version {
        self.key.version()
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut YubiKey) -> yubikey::Result<T>,
    ) -> yubikey::Result<T> {
        guarded(|| call(&mut self.key))
    }

    /// Verifies the PIN, unless a wrong one would be the last but one try or less: who locks the card
    /// is a person, never this program.
    pub(super) fn prove(&mut self, pin: &Secret) -> Result<()> {
        let left = self.tries()?;
        if left <= 1 {
            return Err(self.pin(&format!("it has {left} tries left; none of them is used")));
        }
        match self.call(|key| key.verify_pin(pin.expose())) {
            Ok(()) => Ok(()),
            Err(yubikey::Error::WrongPin { tries }) => {
                Err(self.pin(&format!("it is wrong; {tries} tries are left")))
            }
            Err(yubikey::Error::SizeError) => Err(self.pin("a PIN has at most 8 bytes")),
            Err(e) if errors::action(e) == Action::Pin => Err(self.pin(&e.to_string())),
            Err(e) => Err(e.into()),
        }
    }

    /// How many wrong PINs in a row the card takes before it is locked; asking uses none up.
    pub(super) fn tries(&mut self) -> Result<u8> {
        Ok(self.call(YubiKey::get_pin_retries)?)
    }

    pub(super) fn pin(&self, why: &str) -> Fault {
        Error::Pin { token: self.serial().to_string(), why: why.to_owned() }.into()
    }

    /// Authenticates by the management key that is kept on the card behind the PIN.
    pub(super) fn manage(&mut self, pin: &Secret) -> Result<()> {
        self.prove(pin)?;
        let key = self.call(MgmKey::get_protected)?;
        Ok(self.call(|card| card.authenticate(key))?)
    }

    /// Our directory; none on a card that was not set up, which is not for us to use.
    pub(super) fn directory(&mut self) -> Result<Option<Directory>> {
        match self.call(|key| key.fetch_object(directory::OBJECT)) {
            Ok(bytes) => match Directory::read(&bytes) {
                Some(directory) => Ok(Some(directory)),
                None => Err(self.unreadable()),
            },
            Err(yubikey::Error::NotFound) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn unreadable(&self) -> Fault {
        let why = "its directory of keys can't be read: it was written by a newer version, or not \
                   by this program"
            .to_owned();
        Error::Unavailable { token: self.serial().to_string(), why }.into()
    }

    pub(super) fn save(&mut self, directory: &Directory) -> Result<()> {
        let mut bytes = directory.to_bytes();
        self.call(|key| key.save_object(directory::OBJECT, &mut bytes)).map_err(Fault::halfway)
    }

    /// Makes a key in a slot, over whatever is there.
    pub(super) fn generate(
        &mut self,
        slot: SlotId,
        algorithm: AlgorithmId,
        (pin, touch): (PinPolicy, TouchPolicy),
    ) -> Result<Contents> {
        let made = self.call(|key| {
            let info = piv::generate(key, slot, algorithm, pin, touch)?;
            Ok(Contents::new(info.subject_public_key.raw_bytes(), true, Some(pin)))
        });
        made.map_err(Fault::halfway)?.ok_or_else(|| Fault::halfway(yubikey::Error::ParseError))
    }

    /// What is in a slot: by its metadata (firmware 5.3 and later), else by its attestation, which
    /// the card gives of keys alone that were made on it.
    pub(super) fn contents(&mut self, slot: SlotId) -> Result<Option<Contents>> {
        match self.call(|key| piv::metadata(key, slot)) {
            Ok(told) => Ok(told.public.and_then(|info| {
                let bits = info.subject_public_key.raw_bytes();
                let pin = told.policy.map(|(pin, _)| pin);
                Contents::new(bits, told.origin == Some(Origin::Generated), pin)
            })),
            Err(yubikey::Error::NotSupported) => self.attested(slot),
            // "Reference data not found", among others: an empty slot.
            Err(yubikey::Error::GenericError) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn attested(&mut self, slot: SlotId) -> Result<Option<Contents>> {
        let certificate = match self.attest(slot) {
            Err(Fault::Device { error: yubikey::Error::GenericError, .. }) => return Ok(None),
            other => other?,
        };
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&certificate) else {
            return Ok(None);
        };
        Ok(Contents::new(&certificate.public_key().subject_public_key.data, true, None))
    }

    /// Whether there is a key in a slot, of whatever kind. Firmware before 5.3 doesn't tell of one that
    /// was brought in.
    pub(super) fn is_occupied(&mut self, slot: SlotId) -> Result<bool> {
        match self.call(|key| piv::metadata(key, slot)) {
            // A kind of key that the binding does not know is one all the same.
            Ok(_) | Err(yubikey::Error::AlgorithmError) => Ok(true),
            Err(yubikey::Error::NotSupported) => Ok(self.attested(slot)?.is_some()),
            Err(yubikey::Error::GenericError) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the PIN and the PUK are what every YubiKey comes with, as far as the card tells
    /// (firmware 5.3 and later) without using up a try; and whether there are tries to be used.
    pub(super) fn has_factory_pins(&mut self) -> Result<bool> {
        for which in [piv::ManagementSlotId::Pin, piv::ManagementSlotId::Puk] {
            match self.call(|key| piv::metadata(key, SlotId::Management(which))) {
                Ok(told) if told.default == Some(false) => return Ok(false),
                Ok(_) | Err(yubikey::Error::NotSupported) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(self.call(YubiKey::get_pin_retries)? > 1)
    }

    /// The certificate by which the card says that the key in a slot was made on it; in DER.
    pub(super) fn attest(&mut self, slot: SlotId) -> Result<Vec<u8>> {
        Ok(self.call(|key| piv::attest(key, slot))?.to_vec())
    }

    /// The certificate of the key that attests (slot F9); in DER.
    pub(super) fn issuer(&mut self) -> Result<Vec<u8>> {
        let object = self.call(|key| key.fetch_object(ATTESTATION))?;
        // NIST SP 800-73-4, part 1, appendix A: the certificate has tag 70. Its length has two bytes.
        match object.as_slice() {
            [0x70, 0x82, high, low, rest @ ..] => {
                let certificate = rest.get(..usize::from(u16::from_be_bytes([*high, *low])));
                Ok(certificate.ok_or(yubikey::Error::ParseError)?.to_vec())
            }
            _ => Err(yubikey::Error::ParseError.into()),
        }
    }

    /// The x-coordinate that the key in a slot and a point agree on.
    pub(super) fn agree(&mut self, slot: SlotId, peer: &[u8]) -> Result<Secret> {
        self.decrypt(slot, AlgorithmId::EccP256, peer)
    }

    /// The raw RSA operation.
    pub(super) fn raw(&mut self, slot: SlotId, ciphertext: &[u8]) -> Result<Secret> {
        self.decrypt(slot, AlgorithmId::Rsa2048, ciphertext)
    }

    fn decrypt(&mut self, slot: SlotId, algorithm: AlgorithmId, input: &[u8]) -> Result<Secret> {
        let answer = self.call(|key| piv::decrypt_data(key, input, algorithm, slot))?;
        Ok(Secret::copy_of(&answer))
    }

    /// An ECDSA signature of a hash, in DER.
    pub(super) fn sign(&mut self, slot: SlotId, hash: &[u8]) -> Result<Vec<u8>> {
        let signed = self.call(|key| piv::sign_data(key, hash, AlgorithmId::EccP256, slot))?;
        Ok(signed.to_vec())
    }

    /// Whether the management key is one that the binding can use; nothing where the firmware (before
    /// 5.3) can't tell, which knows no other.
    pub(super) fn management_key_is_triple_des(&mut self) -> Result<Option<bool>> {
        let slot = SlotId::Management(piv::ManagementSlotId::Management);
        match self.call(|key| piv::metadata(key, slot)) {
            Ok(told) => Ok(Some(told.algorithm == piv::ManagementAlgorithmId::ThreeDes)),
            // An algorithm that the binding does not know: AES.
            Err(yubikey::Error::AlgorithmError) => Ok(Some(false)),
            Err(yubikey::Error::NotSupported) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn authenticate(&mut self, key: MgmKey) -> Result<()> {
        Ok(self.call(|card| card.authenticate(key))?)
    }

    pub(super) fn protect(&mut self, key: &MgmKey) -> Result<()> {
        self.call(|card| key.set_protected(card)).map_err(Fault::halfway)
    }

    pub(super) fn change_pin(&mut self, old: &[u8], new: &Secret) -> Result<()> {
        self.call(|key| key.change_pin(old, new.expose())).map_err(Fault::halfway)
    }

    pub(super) fn change_puk(&mut self, old: &[u8], new: &Secret) -> Result<()> {
        self.call(|key| key.change_puk(old, new.expose())).map_err(Fault::halfway)
    }
}

const ABSENT: &str = "no such card is in a reader";

fn missing(token: &Locator, why: &str) -> Fault {
    Error::Unavailable { token: token.to_string(), why: why.to_owned() }.into()
}

/// A call into the binding. It indexes into what the card answers without looking: a panic is a card
/// that answered nonsense.
fn guarded<T>(call: impl FnOnce() -> yubikey::Result<T>) -> yubikey::Result<T> {
    let panicked = yubikey::Error::PcscError { inner: None };
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(panicked))
}
