//! What is encrypted for keys of scheme `rsa-oaep`: RSAES-OAEP (RFC 8017, section 7.1) with SHA-256,
//! MGF1 with SHA-256 and [`OAEP_LABEL`].

use super::OAEP_LABEL;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};

/// The public exponent of every key that is made for it.
pub(super) const EXPONENT: [u8; 3] = [1, 0, 1];
/// The length of their moduli, in bytes: every TPM and every YubiKey has that one.
const MODULUS: usize = 256;

/// Encrypts `message`, which is shorter than the modulus by at least 66 bytes, for the key that this
/// SubjectPublicKeyInfo in DER is of; nothing if that can't be done.
pub fn encrypt(public: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let key = PublicEncryptingKey::from_der(public).ok()?;
    let key = OaepPublicEncryptingKey::new(key).ok()?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let algorithm = &OAEP_SHA256_MGF1SHA256;
    key.encrypt(algorithm, message, &mut ciphertext, Some(OAEP_LABEL)).ok()?;
    Some(ciphertext)
}

/// The SubjectPublicKeyInfo in DER of a modulus, which may have zeros before it, and [`EXPONENT`];
/// nothing for one of another length than 2,048 bits.
pub(super) fn public_key(modulus: &[u8]) -> Option<Vec<u8>> {
    let n = modulus.get(modulus.iter().position(|byte| *byte != 0)?..)?;
    let components = PublicKeyComponents { n, e: &EXPONENT[..] };
    let key: PublicEncryptingKey = components.try_into().ok()?;
    let der: PublicKeyX509Der<'_> = key.as_der().ok()?;
    (key.key_size_bits() == MODULUS.saturating_mul(8)).then(|| der.as_ref().to_vec())
}
