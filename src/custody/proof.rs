//! What hardware signs about its own keys, and how that is checked without the hardware.
//!
//! A TPM's: `TPM2_Certify` by an attestation key, which is restricted to signing what the TPM itself
//! has made (TPM 2.0 Library, part 1, section 31). That the attestation key is in a TPM at all is what
//! its enrolment shows, not this.

use super::attested::Attested;
use super::{KeyCheck, Scheme, oaep};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What hardware signs about a key of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// By a TPM.
    Tpm(Certified),
    /// By a YubiKey; over no nonce.
    Card(Attested),
}

/// A key certified by a TPM, in the TPM's own structures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Certified {
    /// The key's public area (`TPMT_PUBLIC`).
    pub public: Bytes,
    /// What was signed (`TPMS_ATTEST`).
    pub attest: Bytes,
    /// ECDSA over P-256 with SHA-256: r || s.
    pub signature: Bytes,
    /// The attestation key's public area.
    pub attestation_key: Bytes,
}

/// Bytes that are written in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// The longest structure that is read, in bytes.
const LONGEST: usize = 2048;

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        match bytes.len() {
            0..=LONGEST => Ok(Self(bytes)),
            _ => Err(serde::de::Error::custom("longer than any structure of a TPM's or card's")),
        }
    }
}

/// Bits of `TPMA_OBJECT` (part 2, section 8.3): fixedTPM, fixedParent, noDA.
const FIXED: u32 = 1 << 1 | 1 << 4 | 1 << 10;
/// userWithAuth, which a key that is bound to a policy lacks.
const BY_PIN: u32 = 1 << 6;
/// sensitiveDataOrigin: the TPM made the key's value.
const LOCAL: u32 = 1 << 5;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

/// `TPM_ALG_SHA256`, which each name begins with.
const SHA_256: [u8; 2] = [0, 0x0b];
/// `TPM_GENERATED_VALUE`, which no restricted key signs from outside, and `TPM_ST_ATTEST_CERTIFY`.
const CERTIFIED: [u8; 6] = [0xff, b'T', b'C', b'G', 0x80, 0x17];
/// The length of `TPMS_CLOCK_INFO` and the firmware's version after it.
const CLOCK_AND_FIRMWARE: usize = 17 + 8;

impl Certified {
    /// Whether the attestation key has signed, for this nonce, that the TPM holds a key that serves
    /// this scheme and nothing else, can't leave the TPM, and was made in it unless `imported`. A
    /// pair must have this key-check value; that of an HMAC key no TPM signs.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        nonce: &[u8],
        scheme: Scheme,
        imported: bool,
        check: Option<KeyCheck>,
    ) -> Result<(), &'static str> {
        let signer = attestation_key(&self.attestation_key.0)
            .ok_or("its attestation key is not restricted to what its TPM makes")?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, signer)
            .verify(&self.attest.0, &self.signature.0)
            .map_err(|_| "the attestation key has not signed it")?;
        let said = Said::read(&self.attest.0).ok_or("it is not what TPM2_Certify signs")?;
        if said.nonce != nonce {
            return Err("the TPM has not signed it for this nonce");
        }
        if said.name != name(&self.public.0) {
            return Err("the TPM has certified another public area");
        }
        let (_, unique) = key_area(&self.public.0, scheme, imported)
            .ok_or("its public area is not that of a key that serves its scheme alone")?;
        match public_key(scheme, unique) {
            Some(public) if Some(KeyCheck::of_public(&public)) != check => {
                Err("the TPM has certified another key")
            }
            None if scheme.has_holders() => Err("its public key can't be read"),
            _ => Ok(()),
        }
    }

    /// The policy under which alone its TPM uses the key, if there is one; true where [`Self::check`]
    /// finds nothing. That of boot states is [`super::boot::Binding::policy`].
    pub fn policy(&self) -> Option<&[u8]> {
        let (_, rest) = self.public.0.split_at_checked(8)?;
        sized(rest).map(|(policy, _)| policy).filter(|policy| !policy.is_empty())
    }
}

/// What stands in a `TPMS_ATTEST` of TPM2_Certify's.
struct Said<'a> {
    nonce: &'a [u8],
    name: &'a [u8],
}

impl<'a> Said<'a> {
    fn read(attest: &'a [u8]) -> Option<Self> {
        let rest = attest.strip_prefix(&CERTIFIED)?;
        let (_signer, rest) = sized(rest)?;
        let (nonce, rest) = sized(rest)?;
        let (_, rest) = rest.split_at_checked(CLOCK_AND_FIRMWARE)?;
        let (name, rest) = sized(rest)?;
        let (_qualified, rest) = sized(rest)?;
        rest.is_empty().then_some(Self { nonce, name })
    }
}

/// A public area's name (part 1, section 16).
pub fn name(public: &[u8]) -> Vec<u8> {
    [&SHA_256[..], digest(&SHA256, public).as_ref()].concat()
}

/// The serial number that a TPM goes by: the first 8 bytes of SHA-256 over its storage primary's
/// name, in hexadecimal. It changes when the TPM is cleared, as do all its keys.
pub(super) fn serial(name: &[u8]) -> String {
    let hash = digest(&SHA256, name);
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The public key in the area of an attestation key: an uncompressed point.
pub(super) fn attestation_key(public: &[u8]) -> Option<Vec<u8>> {
    let attributes = FIXED | LOCAL | RESTRICTED | SIGN;
    let parameters = [0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
    let (policy, unique) = area(public, [0, 0x23], attributes, &parameters)?;
    policy.is_empty().then_some(())?;
    point(unique)
}

/// What is different in the areas of any two keys of one scheme: the policy, none or one, and the end.
fn key_area(public: &[u8], scheme: Scheme, imported: bool) -> Option<(&[u8], &[u8])> {
    let local = if imported { FIXED } else { FIXED | LOCAL };
    match scheme {
        Scheme::HmacKdf => area(public, [0, 8], local | SIGN, &[0, 5, 0, 0x0b]),
        Scheme::Ecdh => {
            let parameters = [0, 0x10, 0, 0x19, 0, 0x0b, 0, 3, 0, 0x10];
            area(public, [0, 0x23], local | DECRYPT, &parameters)
        }
        Scheme::RsaOaep => {
            let parameters = [0, 0x10, 0, 0x17, 0, 0x0b, 8, 0, 0, 0, 0, 0];
            area(public, [0, 1], local | DECRYPT, &parameters)
        }
    }
}

/// The policy and the end of a `TPMT_PUBLIC` of this type, with these attributes and parameters. It
/// is used by its authorisation value, or by a policy and by nothing else.
fn area<'a>(
    public: &'a [u8],
    kind: [u8; 2],
    attributes: u32,
    parameters: &[u8],
) -> Option<(&'a [u8], &'a [u8])> {
    let rest = public.strip_prefix(&kind)?.strip_prefix(&SHA_256)?;
    let (told, rest) = rest.split_first_chunk::<4>()?;
    let (policy, rest) = sized(rest)?;
    let by_pin = if policy.is_empty() { BY_PIN } else { 0 };
    let right = u32::from_be_bytes(*told) == attributes | by_pin && matches!(policy.len(), 0 | 32);
    right.then_some((policy, rest.strip_prefix(parameters)?))
}

/// The public key as `custody` has it; none of a symmetric key.
fn public_key(scheme: Scheme, unique: &[u8]) -> Option<Vec<u8>> {
    match scheme {
        Scheme::HmacKdf => None,
        Scheme::Ecdh => point(unique),
        Scheme::RsaOaep => {
            let (n, rest) = sized(unique)?;
            rest.is_empty().then_some(())?;
            oaep::public_key(n)
        }
    }
}

/// A `TPMS_ECC_POINT` of P-256, uncompressed. A TPM may leave leading zeros out.
fn point(bytes: &[u8]) -> Option<Vec<u8>> {
    let (x, rest) = sized(bytes)?;
    let (y, rest) = sized(rest)?;
    rest.is_empty().then_some(())?;
    let mut point = vec![4];
    for coordinate in [x, y] {
        let missing = 32_usize.checked_sub(coordinate.len())?;
        point.extend(std::iter::repeat_n(0, missing));
        point.extend_from_slice(coordinate);
    }
    Some(point)
}

/// A buffer after its length, and what follows.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use proptest::prelude::*;

    const NONCE: [u8; 16] = [7; 16];

    fn buffer(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
    }

    fn attest(nonce: &[u8], public: &[u8]) -> Vec<u8> {
        let clock = [0; CLOCK_AND_FIRMWARE];
        let (signer, name) = (buffer(&[9; 34]), buffer(&name(public)));
        [&CERTIFIED[..], &signer, &buffer(nonce), &clock, &name, &signer].concat()
    }

    fn mac_area(attributes: u32, policy: &[u8]) -> Vec<u8> {
        let head = [0, 8, 0, 0x0b];
        let (policy, tail) = (buffer(policy), [0, 5, 0, 0x0b]);
        [&head[..], &attributes.to_be_bytes(), &policy, &tail, &buffer(&[3; 32])].concat()
    }

    /// An HMAC key with these attributes, certified by a key with those.
    fn certified(attributes: u32, by: u32) -> Certified {
        certified_area(mac_area(attributes, &[]), by)
    }

    fn certified_area(public: Vec<u8>, by: u32) -> Certified {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = key.public_key().as_ref();
        let head = [&[0, 0x23, 0, 0x0b][..], &by.to_be_bytes(), &[0, 0]].concat();
        let parameters = [0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
        let unique = [buffer(&point[1..33]), buffer(&point[33..])].concat();
        let attest = attest(&NONCE, &public);
        let signature = key.sign(&SystemRandom::new(), &attest).expect("signed");
        Certified {
            public: Bytes(public),
            attest: Bytes(attest),
            signature: Bytes(signature.as_ref().to_vec()),
            attestation_key: Bytes([&head[..], &parameters, &unique].concat()),
        }
    }

    const KEY: u32 = FIXED | BY_PIN | LOCAL | SIGN;
    const SIGNER: u32 = KEY | RESTRICTED;

    fn checked(certified: &Certified, nonce: &[u8]) -> Result<(), &'static str> {
        certified.check(nonce, Scheme::HmacKdf, false, None)
    }

    #[test]
    fn a_key_that_its_tpm_certifies_for_this_nonce_is_good() {
        let good = certified(KEY, SIGNER);
        assert_eq!(checked(&good, &NONCE), Ok(()));
        assert!(checked(&good, &[8; 16]).expect_err("refused").contains("nonce"));
        let other = good.check(&NONCE, Scheme::Ecdh, false, None);
        assert!(other.expect_err("refused").contains("public area"));
        let brought = certified(KEY ^ LOCAL, SIGNER);
        assert!(checked(&brought, &NONCE).is_err());
        assert_eq!(brought.check(&NONCE, Scheme::HmacKdf, true, None), Ok(()));
    }

    #[test]
    fn loose_keys_and_loose_signers_are_not() {
        for bit in [1, 4, 5, 6, 7, 10, 11, 16, 17, 18] {
            assert!(checked(&certified(KEY ^ 1 << bit, SIGNER), &NONCE).is_err(), "{bit}");
            let error = checked(&certified(KEY, SIGNER ^ 1 << bit), &NONCE).expect_err("refused");
            assert!(error.contains("restricted"), "{bit}: {error}");
        }
    }

    #[test]
    fn a_key_is_used_by_its_pin_or_by_a_policy_that_is_told_and_never_by_both() {
        assert_eq!(certified(KEY, SIGNER).policy(), None);
        let bound = certified_area(mac_area(KEY ^ BY_PIN, &[5; 32]), SIGNER);
        assert_eq!(checked(&bound, &NONCE), Ok(()));
        assert_eq!(bound.policy(), Some(&[5; 32][..]));
        for (attributes, policy) in
            [(KEY, &[5; 32][..]), (KEY ^ BY_PIN, &[]), (KEY ^ BY_PIN, &[5; 31])]
        {
            let loose = certified_area(mac_area(attributes, policy), SIGNER);
            assert!(checked(&loose, &NONCE).is_err(), "{attributes:x} {policy:?}");
        }
    }

    #[test]
    fn nothing_of_it_can_be_altered() {
        let good = certified(KEY, SIGNER);
        let parts: [fn(&mut Certified) -> &mut Vec<u8>; 4] = [
            |c| &mut c.public.0,
            |c| &mut c.attest.0,
            |c| &mut c.signature.0,
            |c| &mut c.attestation_key.0,
        ];
        for part in parts {
            for at in 0..part(&mut good.clone()).len() {
                let mut bent = good.clone();
                part(&mut bent)[at] ^= 1;
                assert!(checked(&bent, &NONCE).is_err(), "byte {at}");
            }
        }
        let mut swapped = good.clone();
        swapped.public = Bytes(mac_area(KEY | DECRYPT, &[]));
        assert!(checked(&swapped, &NONCE).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            public in proptest::collection::vec(any::<u8>(), 0..200),
            attest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let noise = Certified {
                public: Bytes(public.clone()),
                attest: Bytes(attest.clone()),
                signature: Bytes(attest),
                attestation_key: Bytes(public),
            };
            for scheme in [Scheme::HmacKdf, Scheme::Ecdh, Scheme::RsaOaep] {
                prop_assert!(noise.check(&NONCE, scheme, false, None).is_err());
            }
            let _said = Said::read(&noise.attest.0);
        }
    }
}
