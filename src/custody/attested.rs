//! A YubiKey's attestation: a certificate for the key in a slot, which the card signs with a key that
//! its maker certified (slot F9), and gives of no key that was not made on it.
//!
//! Checked are signatures and what the certificates say, not their times: a card has no clock, and its
//! maker's certificates are not revoked by list.

use super::KeyCheck;
use super::proof::Bytes;
use aws_lc_rs::signature as verify;
use aws_lc_rs::signature::UnparsedPublicKey;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::oid_registry as oids;

/// Yubico's extensions: the serial number of the card, a DER INTEGER; the PIN and touch policy, a byte
/// each.
const SERIAL: Oid<'static> = oid!(1.3.6.1.4.1.41482.3.7);
const POLICY: Oid<'static> = oid!(1.3.6.1.4.1.41482.3.8);

/// A key's certificate, and that of the key which has signed it; in DER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attested {
    /// The key's.
    pub certificate: Bytes,
    /// That of slot F9.
    pub issuer: Bytes,
}

/// What a card's certificate says of how its key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// 1 never wants the PIN, 2 once, 3 always.
    pub pin: u8,
    /// 1 never wants a touch, 2 always, 3 when the last one is more than 15 seconds ago.
    pub touch: u8,
}

impl Attested {
    /// Whether the card of this serial number has certified this key.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, check: Option<KeyCheck>, serial: &str) -> Result<Policy, &'static str> {
        let unread = "its certificate can't be read";
        let certificate = parse(&self.certificate.0).ok_or(unread)?;
        let issuer = parse(&self.issuer.0).ok_or("its issuer's certificate can't be read")?;
        if !has_signed(&issuer, &certificate) {
            return Err("the key of slot F9 has not signed its certificate");
        }
        let bits = &*certificate.public_key().subject_public_key.data;
        let info = certificate.public_key().raw;
        let known = [bits, info].map(|public| Some(KeyCheck::of_public(public)));
        if check.is_none() || !known.contains(&check) {
            return Err("the card has certified another key");
        }
        let told = extension(&certificate, &SERIAL).and_then(number).ok_or(unread)?;
        if told.to_string() != serial {
            return Err("another card has certified it");
        }
        match extension(&certificate, &POLICY) {
            Some([pin, touch]) => Ok(Policy { pin: *pin, touch: *touch }),
            _ => Err(unread),
        }
    }

    /// Whether one of these certificates, in DER, has signed the card's own.
    pub fn is_under(&self, roots: &[Vec<u8>]) -> bool {
        let Some(issuer) = parse(&self.issuer.0) else { return false };
        // A key in a slot has a certificate too, but signs whatever its user likes.
        let authority = issuer.is_ca();
        let above = roots.iter().filter_map(|root| parse(root));
        authority && above.into_iter().any(|root| has_signed(&root, &issuer))
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    rest.is_empty().then_some(certificate)
}

fn extension<'a>(certificate: &'a X509Certificate<'_>, id: &Oid<'_>) -> Option<&'a [u8]> {
    certificate.get_extension_unique(id).ok().flatten().map(|found| found.value)
}

/// A DER INTEGER of at most four bytes, and one for the sign.
fn number(der: &[u8]) -> Option<u32> {
    let [0x02, length, bytes @ ..] = der else { return None };
    let fits = usize::from(*length) == bytes.len() && (1..=5).contains(&bytes.len());
    let bytes = bytes.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(bytes);
    (fits && bytes.len() <= 4)
        .then(|| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// Whether the key of `issuer` has signed `certificate` (RFC 5280, section 4.1.1.3).
fn has_signed(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    let key = &*issuer.public_key().subject_public_key.data;
    let algorithm = &certificate.signature_algorithm.algorithm;
    // 65 bytes are a point of P-256, 97 one of P-384, all else an RSAPublicKey.
    let way: &dyn verify::VerificationAlgorithm = match key.len() {
        65 if *algorithm == oids::OID_SIG_ECDSA_WITH_SHA256 => &verify::ECDSA_P256_SHA256_ASN1,
        97 if *algorithm == oids::OID_SIG_ECDSA_WITH_SHA256 => &verify::ECDSA_P384_SHA256_ASN1,
        97 if *algorithm == oids::OID_SIG_ECDSA_WITH_SHA384 => &verify::ECDSA_P384_SHA384_ASN1,
        _ if *algorithm == oids::OID_PKCS1_SHA256WITHRSA => &verify::RSA_PKCS1_2048_8192_SHA256,
        _ if *algorithm == oids::OID_PKCS1_SHA384WITHRSA => &verify::RSA_PKCS1_2048_8192_SHA384,
        _ if *algorithm == oids::OID_PKCS1_SHA512WITHRSA => &verify::RSA_PKCS1_2048_8192_SHA512,
        _ => return false,
    };
    let named = certificate.issuer() == issuer.subject();
    let signed = certificate.tbs_certificate.as_ref();
    let signature = &certificate.signature_value.data;
    named && UnparsedPublicKey::new(way, key).verify(signed, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
        PublicKeyData as _,
    };

    /// A root, a card under it, and a key on that card.
    struct Scene {
        root: Vec<u8>,
        attested: Attested,
        check: KeyCheck,
    }

    fn params(name: &str, is_ca: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }
        params
    }

    fn key() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key")
    }

    fn scene(card_is_ca: bool) -> Scene {
        let (root_key, card_key, slot_key) = (key(), key(), key());
        let root = params("root", true).self_signed(&root_key).expect("signed");
        let root_issuer = Issuer::new(params("root", true), root_key);
        let card = params("card", card_is_ca).signed_by(&card_key, &root_issuer).expect("signed");
        let mut slot = params("slot", false);
        let serial = vec![0x02, 0x04, 0x01, 0x31, 0x2d, 0x01];
        slot.custom_extensions = vec![
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 41482, 3, 7], serial),
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 41482, 3, 8], vec![2, 1]),
        ];
        let card_issuer = Issuer::new(params("card", card_is_ca), card_key);
        let certificate = slot.signed_by(&slot_key, &card_issuer).expect("signed");
        Scene {
            root: root.der().to_vec(),
            attested: Attested {
                certificate: Bytes(certificate.der().to_vec()),
                issuer: Bytes(card.der().to_vec()),
            },
            check: KeyCheck::of_public(slot_key.der_bytes()),
        }
    }

    #[test]
    fn a_key_that_a_card_under_the_root_certifies_is_good() {
        let Scene { root, attested, check } = scene(true);
        assert_eq!(attested.check(Some(check), "20000001"), Ok(Policy { pin: 2, touch: 1 }));
        assert!(attested.is_under(&[scene(true).root, root]));
    }

    #[test]
    fn another_key_card_or_root_is_not() {
        let Scene { root, attested, check } = scene(true);
        assert!(attested.check(Some(KeyCheck([0; 8])), "20000001").is_err());
        assert!(attested.check(None, "20000001").is_err());
        assert!(attested.check(Some(check), "20000002").is_err());
        assert!(!attested.is_under(&[scene(true).root]));
        assert!(!attested.is_under(&[]));
        let other = Attested { issuer: scene(true).attested.issuer, ..attested.clone() };
        assert!(other.check(Some(check), "20000001").is_err());
        // Who has a certified key in a slot can sign another with it.
        let Scene { root: above, attested: loose, .. } = scene(false);
        assert!(!loose.is_under(&[above]));
        assert!(attested.is_under(&[root]));
    }

    #[test]
    fn nothing_of_it_can_be_altered() {
        let Scene { root, attested, check } = scene(true);
        // What is signed, after the four bytes that say how long the whole is.
        let signed = |der: &[u8]| 4..4 + parse(der).expect("sound").tbs_certificate.as_ref().len();
        for at in signed(&attested.certificate.0) {
            let mut bent = attested.clone();
            bent.certificate.0[at] ^= 1;
            assert!(bent.check(Some(check), "20000001").is_err(), "byte {at}");
        }
        for at in signed(&attested.issuer.0) {
            let mut bent = attested.clone();
            bent.issuer.0[at] ^= 1;
            assert!(!bent.is_under(std::slice::from_ref(&root)), "byte {at}");
        }
    }

    #[test]
    fn numbers_are_of_four_bytes() {
        assert_eq!(number(&[2, 1, 7]), Some(7));
        assert_eq!(number(&[2, 5, 0, 0xff, 0xff, 0xff, 0xff]), Some(u32::MAX));
        assert_eq!(number(&[2, 1, 0]), Some(0));
        for bad in [&[2, 5, 1, 0, 0, 0, 0][..], &[2, 0], &[2, 2, 1], &[3, 1, 1], &[]] {
            assert_eq!(number(bad), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            certificate in proptest::collection::vec(any::<u8>(), 0..200),
            issuer in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let noise = Attested { certificate: Bytes(certificate), issuer: Bytes(issuer.clone()) };
            prop_assert!(noise.check(Some(KeyCheck([0; 8])), "1").is_err());
            prop_assert!(!noise.is_under(&[issuer]));
        }
    }
}
