//! What the card remembers, in a file.

use p256::SecretKey;
use rand_core::OsRng;
use rsa::RsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Result;
use std::path::{Path, PathBuf};

pub(crate) const RSA_2048: u8 = 0x07;
pub(crate) const ECC_P256: u8 = 0x11;

/// What a new card has: the same on every YubiKey.
pub(crate) const PIN: &[u8; 8] = b"123456\xff\xff";
pub(crate) const PUK: &[u8; 8] = b"12345678";
pub(crate) const MANAGEMENT_KEY: [u8; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];

/// A PIN or PUK and the tries that are left.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) value: [u8; 8],
    pub(crate) most: u8,
    pub(crate) left: u8,
}

impl Reference {
    pub(crate) fn new(value: &[u8; 8], most: u8) -> Self {
        Self { value: *value, most, left: most }
    }
}

/// A private key in a slot.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) algorithm: u8,
    pub(crate) pin_policy: u8,
    pub(crate) touch_policy: u8,
    pub(crate) generated: bool,
    private: Vec<u8>,
}

pub(crate) enum Private {
    Ec(SecretKey),
    Rsa(Box<RsaPrivateKey>),
}

impl Stored {
    pub(crate) fn generate(algorithm: u8, pin_policy: u8, touch_policy: u8) -> Option<Self> {
        let private = match algorithm {
            ECC_P256 => SecretKey::random(&mut OsRng).to_bytes().to_vec(),
            RSA_2048 => {
                let key = RsaPrivateKey::new(&mut OsRng, 2048).ok()?;
                key.to_pkcs8_der().ok()?.as_bytes().to_vec()
            }
            _ => return None,
        };
        Some(Self { algorithm, pin_policy, touch_policy, generated: true, private })
    }

    /// A P-256 key from outside.
    pub(crate) fn import(scalar: &[u8], pin_policy: u8, touch_policy: u8) -> Option<Self> {
        let private = SecretKey::from_slice(scalar).ok()?.to_bytes().to_vec();
        Some(Self { algorithm: ECC_P256, pin_policy, touch_policy, generated: false, private })
    }

    pub(crate) fn private(&self) -> Option<Private> {
        match self.algorithm {
            ECC_P256 => SecretKey::from_slice(&self.private).ok().map(Private::Ec),
            _ => RsaPrivateKey::from_pkcs8_der(&self.private).ok().map(|k| Private::Rsa(k.into())),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Memory {
    #[serde(skip)]
    file: PathBuf,
    pub(crate) serial: u32,
    pub(crate) pin: Reference,
    pub(crate) puk: Reference,
    /// Not to be used by this card if it is of AES: there to be refused.
    pub(crate) aes: bool,
    pub(crate) management_key: Vec<u8>,
    pub(crate) objects: BTreeMap<u32, Vec<u8>>,
    pub(crate) keys: BTreeMap<u8, Stored>,
    /// The key of slot F9, which signs attestations.
    pub(crate) attestation: Vec<u8>,
}

impl Memory {
    pub(crate) fn load(file: &Path, serial: u32, aes: bool) -> Result<Self> {
        let mut memory = match std::fs::read(file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(_) => Self::new(serial, aes),
        };
        memory.file = file.to_owned();
        memory.save()?;
        Ok(memory)
    }

    fn new(serial: u32, aes: bool) -> Self {
        Self {
            file: PathBuf::new(),
            serial,
            pin: Reference::new(PIN, 3),
            puk: Reference::new(PUK, 3),
            aes,
            management_key: MANAGEMENT_KEY.to_vec(),
            objects: BTreeMap::new(),
            keys: BTreeMap::new(),
            attestation: SecretKey::random(&mut OsRng).to_bytes().to_vec(),
        }
    }

    /// Forgets everything but who it is.
    pub(crate) fn reset(&mut self) {
        let fresh = Self::new(self.serial, self.aes);
        let (file, attestation) = (self.file.clone(), self.attestation.clone());
        *self = Self { file, attestation, ..fresh };
    }

    pub(crate) fn save(&self) -> Result<()> {
        let new = self.file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(&new, &self.file)
    }
}
