//! How somebody far away learns that an attestation key is in a TPM whose maker they trust.
//!
//! The maker has certified the TPM's endorsement key, which signs nothing and can only decrypt. So who
//! enrols encrypts a secret to it together with the attestation key's name (MakeCredential; TPM 2.0
//! Library, part 1, section 24): the TPM gives the secret out only if that key is in it
//! (ActivateCredential).

use super::proof::{self, Bytes};
use super::{Result, left_out, profile};
use crate::secret::{Key, Secret};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use serde::{Deserialize, Serialize};

/// What a TPM says of itself to be enrolled.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Identity {
    /// The attestation key's public area.
    pub attestation_key: Bytes,
    /// The maker's certificate of the endorsement key (RSA-2048), DER, perhaps with something after
    /// it; none if the TPM keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Bytes>,
}

/// A secret that the TPM gives out only if it holds the attestation key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Challenge {
    /// `TPMS_ID_OBJECT`.
    pub credential: Bytes,
    /// The seed of what encrypts it, encrypted to the endorsement key.
    pub seed: Bytes,
}

impl Identity {
    /// The attestation key's name, if that is one: restricted, and fixed to its TPM.
    pub fn name(&self) -> Option<Vec<u8>> {
        let public = &self.attestation_key.0;
        proof::attestation_key(public).map(|_| proof::name(public))
    }
}

impl Challenge {
    /// Encrypts `secret` to the endorsement key for a TPM that holds the key of this name. Both keys
    /// are random, and used for this alone. `None` if the endorsement key can't be encrypted to.
    ///
    /// ```text
    /// seed       OAEP-SHA-256(endorsement key, seed, label "IDENTITY\0")
    /// encrypted  AES-128-CFB(KDFa(seed, "STORAGE", name, 128), iv 0, length || secret)
    /// credential length || HMAC-SHA-256(KDFa(seed, "INTEGRITY", 256), encrypted || name) || encrypted
    /// ```
    pub fn make(to: PublicEncryptingKey, name: &[u8], secret: &Key, seed: &Key) -> Option<Self> {
        let to = OaepPublicEncryptingKey::new(to).ok()?;
        let mut sealed = vec![0; to.ciphertext_size()];
        let seed_bytes = seed.expose();
        let label = Some(&b"IDENTITY\0"[..]);
        let sealed =
            to.encrypt(&OAEP_SHA256_MGF1SHA256, seed_bytes, &mut sealed, label).ok()?.to_vec();
        let storage = derived(seed, b"STORAGE", name, 128);
        let mut encrypted = [&[0, 32][..], secret.expose()].concat();
        let key = UnboundCipherKey::new(&AES_128, storage.expose().get(..16)?).ok()?;
        let start = EncryptionContext::Iv128(FixedLength::from([0; 16]));
        let key = EncryptingKey::cfb128(key).ok()?;
        key.less_safe_encrypt(&mut encrypted, start).ok()?;
        let integrity = derived(seed, b"INTEGRITY", &[], 256);
        let integrity = hmac::Key::new(hmac::HMAC_SHA256, integrity.expose());
        let tag = hmac::sign(&integrity, &[&encrypted, name].concat());
        let credential = [&[0, 32][..], tag.as_ref(), &encrypted].concat();
        Some(Self { credential: Bytes(credential), seed: Bytes(sealed) })
    }
}

/// KDFa with SHA-256 (part 1, section 11.4.10.2) for up to 256 bits: HMAC-SHA-256(key, 1 || label ||
/// 0 || context || bits), of which the first `bits` count.
fn derived(key: &Key, label: &[u8], context: &[u8], bits: u32) -> Secret {
    let input = [&1_u32.to_be_bytes()[..], label, &[0], context, &bits.to_be_bytes()].concat();
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), &input);
    Secret::copy_of(mac.as_ref())
}

/// What the TPM at `device` says of itself. Blocks.
///
/// # Errors
/// [`super::Error::Unavailable`] if it can't be reached, [`super::Error::Unsupported`] if the profile
/// is of no TPM.
#[cfg_attr(not(feature = "tpm"), expect(unused_variables, reason = "it is for a TPM"))]
pub fn identity(profile: &profile::Profile, device: Option<&str>) -> Result<Identity> {
    match profile.kind {
        #[cfg(feature = "tpm")]
        profile::Kind::Tpm => super::tpm::identity(device),
        _ => Err(not_here(profile)),
    }
}

/// The secret in a challenge, which the TPM at `device` gives out if it is the one that is meant.
/// Blocks.
///
/// # Errors
/// As [`identity`], and [`super::Error::BadRequest`] if the challenge is not for this TPM and its key.
#[cfg_attr(not(feature = "tpm"), expect(unused_variables, reason = "it is for a TPM"))]
pub fn answer(
    profile: &profile::Profile,
    device: Option<&str>,
    challenge: &Challenge,
) -> Result<Secret> {
    match profile.kind {
        #[cfg(feature = "tpm")]
        profile::Kind::Tpm => super::tpm::answer(device, challenge),
        _ => Err(not_here(profile)),
    }
}

fn not_here(profile: &profile::Profile) -> super::Error {
    if profile.kind == profile::Kind::Tpm {
        return left_out(profile.name.clone(), profile.kind);
    }
    let why = "only TPMs are enrolled".to_owned();
    super::Error::Unsupported { profile: profile.name.clone(), why }
}
