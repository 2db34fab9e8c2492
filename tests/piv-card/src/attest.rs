//! Attestation: a certificate for the key in a slot, in the form that Yubico's have, under a root
//! of this card's own.

use crate::memory::{Memory, Private, Stored};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use std::str::FromStr;
use std::time::Duration;
use x509_cert::der::asn1::{BitString, OctetString};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::Validity;
use x509_cert::{Certificate, TbsCertificate, Version};

const ISSUER: &str = "CN=Virtual PIV card (proves nothing)";
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
/// Yubico's: firmware version, serial number, PIN and touch policy.
const FIRMWARE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.3");
const SERIAL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.7");
const POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.8");
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The certificate of the key that signs, which signs itself; in DER.
pub(crate) fn root(memory: &Memory) -> Option<Vec<u8>> {
    let key = SigningKey::from_slice(&memory.attestation).ok()?;
    let spki = key.verifying_key().to_public_key_der().ok()?;
    let authority = (BASIC_CONSTRAINTS, true, vec![0x30, 0x03, 0x01, 0x01, 0xff]);
    certificate(&key, ISSUER, spki.as_bytes(), vec![authority])
}

/// The certificate of a key that was made here; in DER.
pub(crate) fn slot(
    memory: &Memory,
    slot: u8,
    stored: &Stored,
    version: [u8; 3],
) -> Option<Vec<u8>> {
    let key = SigningKey::from_slice(&memory.attestation).ok()?;
    let spki = match stored.private()? {
        Private::Ec(key) => key.public_key().to_public_key_der().ok()?,
        Private::Rsa(key) => key.to_public_key().to_public_key_der().ok()?,
    };
    let extensions = vec![
        (FIRMWARE, false, version.to_vec()),
        (SERIAL, false, memory.serial.to_der().ok()?),
        (POLICY, false, vec![stored.pin_policy, stored.touch_policy]),
    ];
    let subject = format!("CN=YubiKey PIV Attestation {slot:02x}");
    certificate(&key, &subject, spki.as_bytes(), extensions)
}

fn certificate(
    key: &SigningKey,
    subject: &str,
    spki: &[u8],
    extensions: Vec<(ObjectIdentifier, bool, Vec<u8>)>,
) -> Option<Vec<u8>> {
    let extension = |(extn_id, critical, value): (ObjectIdentifier, bool, Vec<u8>)| {
        Some(Extension { extn_id, critical, extn_value: OctetString::new(value).ok()? })
    };
    let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None };
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&[1]).ok()?,
        signature: algorithm.clone(),
        issuer: Name::from_str(ISSUER).ok()?,
        validity: Validity::from_now(TEN_YEARS).ok()?,
        subject: Name::from_str(subject).ok()?,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(spki).ok()?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions.into_iter().map(extension).collect::<Option<_>>()?),
    };
    let signature: DerSignature = key.sign(&tbs_certificate.to_der().ok()?);
    let signature = BitString::from_bytes(signature.as_bytes()).ok()?;
    let whole = Certificate { tbs_certificate, signature_algorithm: algorithm, signature };
    whole.to_der().ok()
}
