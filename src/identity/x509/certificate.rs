//! One end-entity certificate: what must be true of it by itself, its key, its serial number.

use super::{Error, MAX_CERTIFICATE};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Version;

/// The longest serial number, in bytes (RFC 5280, 4.1.2.2).
const MAX_SERIAL: usize = 20;

/// A certificate that was read. Nobody has vouched for it.
pub(super) struct Certificate<'d>(pub(super) X509Certificate<'d>);

/// The keys that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Rsa,
    P256,
    P384,
}

impl<'d> Certificate<'d> {
    /// Reads one certificate and nothing after it.
    pub(super) fn read(der: &'d [u8]) -> Result<Self, Error> {
        if der.len() > MAX_CERTIFICATE {
            return Err(Error::TooLong);
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Error::Malformed)?;
        let serial = certificate.raw_serial();
        let positive = serial.first().is_some_and(|first| *first < 0x80);
        if !rest.is_empty()
            || certificate.version() != X509Version::V3
            || serial.len() > MAX_SERIAL
            || !positive
        {
            return Err(Error::Malformed);
        }
        Ok(Self(certificate))
    }

    /// What AWS asks of an end-entity certificate: not a CA's, for digital signatures, with a key
    /// that is strong enough.
    pub(super) fn check(&self) -> Result<(), Error> {
        let basic = self.0.basic_constraints().map_err(|_| Error::Malformed)?;
        if basic.is_some_and(|constraints| constraints.value.ca) {
            return Err(Error::IsCa);
        }
        let usage = self.0.key_usage().map_err(|_| Error::Malformed)?;
        if !usage.is_some_and(|usage| usage.value.digital_signature()) {
            return Err(Error::NoDigitalSignature);
        }
        self.key_type().map(drop)
    }

    /// The type of its key, if it is accepted.
    pub(super) fn key_type(&self) -> Result<KeyType, Error> {
        let key = self.0.public_key();
        if key.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
            let PublicKey::RSA(rsa) = key.parsed().map_err(|_| Error::Key)? else {
                return Err(Error::Key);
            };
            let strong = (2048..=8192).contains(&bits(rsa.modulus));
            return strong.then_some(KeyType::Rsa).ok_or(Error::Key);
        }
        if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return Err(Error::Key);
        }
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        match curve.ok_or(Error::Key)? {
            curve if curve == OID_EC_P256 => Ok(KeyType::P256),
            curve if curve == OID_NIST_EC_P384 => Ok(KeyType::P384),
            _ => Err(Error::Key),
        }
    }

    /// Whether `signature` over `message` is its key's, by SHA-256.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> Result<bool, Error> {
        let how: &'static dyn VerificationAlgorithm = match self.key_type()? {
            KeyType::Rsa => &RSA_PKCS1_2048_8192_SHA256,
            KeyType::P256 => &ECDSA_P256_SHA256_ASN1,
            KeyType::P384 => &ECDSA_P384_SHA256_ASN1,
        };
        let key: &[u8] = &self.0.public_key().subject_public_key.data;
        Ok(UnparsedPublicKey::new(how, key).verify(message, signature).is_ok())
    }

    /// Its serial number in decimal, as it stands in a credential.
    pub(super) fn serial(&self) -> String {
        self.0.serial.to_string()
    }

    /// Its serial number in lower-case hex, two digits a byte, without a sign byte.
    pub(super) fn serial_hex(&self) -> String {
        let raw = self.0.raw_serial();
        let sign = if raw.len() > 1 && raw.first() == Some(&0) { 1 } else { 0 };
        raw.iter().skip(sign).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// How many bits a number has.
fn bits(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let first = significant.clone().next().map_or(0, |byte| byte.leading_zeros());
    (significant.count() * 8).saturating_sub(usize::try_from(first).unwrap_or(0))
}
