//! What the TPM's keys look like: their public areas, how one is checked, what it says of the key.

use crate::custody::{BackingKeyId, Error, Evidence, KeyCheck, oaep};
use tss_esapi::attributes::ObjectAttributes;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Digest, EccParameter, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme,
    KeyedHashScheme, Public, PublicBuilder, PublicEccParameters, PublicKeyRsa,
    PublicKeyedHashParameters, PublicRsaParameters, RsaExponent, RsaScheme,
    SymmetricDefinitionObject,
};

/// The length of a coordinate of P-256.
const COORDINATE: usize = 32;

const SHA256: HashScheme = HashScheme::new(HashingAlgorithm::Sha256);

/// What is wrong with a key that is not as ours are.
pub(super) const FOREIGN: &str = "its public area is not as it was made";

/// What a key in the TPM is for; each does this and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// HMAC-SHA-256: `hmac-kdf`.
    Mac,
    /// ECDH over P-256: `ecdh`.
    Agree,
    /// RSA-2048, OAEP with SHA-256: `rsa-oaep`.
    Unwrap,
    /// ECDSA over P-256 with SHA-256.
    Sign,
}

impl Role {
    /// The public area that such a key is made from; `local` if the TPM makes its value, `policy` if
    /// it is bound to boot states. Then the authorisation value alone uses it no longer; it still
    /// certifies it (`adminWithPolicy` is clear), which tells nothing and needs no boot state.
    ///
    /// `noDA`: the authorisation value is as strong as a PIN of 128 bits, so that counting wrong ones
    /// protects nothing. A TPM that counts locks all its users out when one of them errs, and takes
    /// each loss of power after the use of such a key for an error (part 1, section 19.8.6).
    pub(super) fn template(
        self,
        local: bool,
        policy: Option<&Digest>,
    ) -> tss_esapi::Result<Public> {
        let attributes = ObjectAttributes::builder()
            .with_fixed_tpm(true)
            .with_fixed_parent(true)
            .with_sensitive_data_origin(local)
            .with_user_with_auth(policy.is_none())
            .with_no_da(true)
            .with_decrypt(matches!(self, Self::Agree | Self::Unwrap))
            .with_sign_encrypt(matches!(self, Self::Mac | Self::Sign))
            .build()?;
        let public = PublicBuilder::new()
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(attributes)
            .with_auth_policy(policy.cloned().unwrap_or_default());
        let public = match self {
            Self::Mac => public
                .with_public_algorithm(PublicAlgorithm::KeyedHash)
                .with_keyed_hash_parameters(PublicKeyedHashParameters::new(
                    KeyedHashScheme::HMAC_SHA_256,
                ))
                .with_keyed_hash_unique_identifier(Digest::default()),
            Self::Agree => on_curve(public, EccScheme::EcDh(SHA256)),
            Self::Sign => on_curve(public, EccScheme::EcDsa(SHA256)),
            Self::Unwrap => public
                .with_public_algorithm(PublicAlgorithm::Rsa)
                .with_rsa_parameters(PublicRsaParameters::new(
                    SymmetricDefinitionObject::Null,
                    RsaScheme::Oaep(SHA256),
                    RsaKeyBits::Rsa2048,
                    RsaExponent::ZERO_EXPONENT,
                ))
                .with_rsa_unique_identifier(PublicKeyRsa::default()),
        };
        public.build()
    }

    /// The one thing that such a key does, by the name that PKCS#11 has for it.
    fn mechanism(self) -> &'static str {
        match self {
            Self::Mac => "CKM_SHA256_HMAC",
            Self::Agree => "CKM_ECDH1_DERIVE",
            Self::Unwrap => "CKM_RSA_PKCS_OAEP",
            Self::Sign => "CKM_ECDSA",
        }
    }

    /// What a key with this public area is for, if it is one of ours.
    pub(super) fn of(public: &Public) -> Option<Self> {
        let local = public.object_attributes().sensitive_data_origin();
        let all = [Self::Mac, Self::Agree, Self::Unwrap, Self::Sign];
        let policy = policy(public);
        all.into_iter()
            .find(|role| role.template(local, policy).is_ok_and(|made| alike(&made, public)))
    }

    /// Refuses a public area that is not as [`Self::template`] had it, whoever made the value.
    pub(super) fn verify(self, id: BackingKeyId, public: &Public) -> Result<(), Error> {
        let local = public.object_attributes().sensitive_data_origin();
        let why = match self.template(local, policy(public)) {
            Ok(template) if alike(public, &template) => return Ok(()),
            Ok(_) => FOREIGN,
            Err(_) => "there is no public area to compare it with",
        };
        Err(Error::KeyRejected { id, why: why.to_owned() })
    }

    /// What the public area says of the key.
    pub(super) fn evidence(self, public: &Public, check: KeyCheck) -> Evidence {
        let attributes = public.object_attributes();
        let fixed = attributes.fixed_tpm() && attributes.fixed_parent();
        let local = attributes.sensitive_data_origin();
        Evidence {
            // No command of a TPM's tells a private area.
            sensitive: true,
            extractable: !fixed,
            never_extractable: fixed && local,
            always_sensitive: local,
            local,
            mechanisms: vec![self.mechanism().to_owned()],
            check,
        }
    }

    /// The public key: an uncompressed point, or a SubjectPublicKeyInfo in DER; none of an HMAC key.
    pub(super) fn public_key(public: &Public) -> Option<Vec<u8>> {
        match public {
            Public::Ecc { unique, .. } => {
                Some([&[4][..], &padded(unique.x())?, &padded(unique.y())?].concat())
            }
            Public::Rsa { unique, .. } => oaep::public_key(unique.value()),
            Public::KeyedHash { .. } | Public::SymCipher { .. } => None,
        }
    }
}

/// The policy of a key that is bound to boot states.
pub(super) fn policy(public: &Public) -> Option<&Digest> {
    Some(public.auth_policy()).filter(|policy| !policy.value().is_empty())
}

/// A coordinate, or a half of a signature, in its full length: a TPM may leave leading zeros out.
pub(super) fn padded(number: &EccParameter) -> Option<[u8; COORDINATE]> {
    let mut full = [0; COORDINATE];
    let at = COORDINATE.checked_sub(number.value().len())?;
    full.get_mut(at..)?.copy_from_slice(number.value());
    Some(full)
}

/// A point of P-256 as the TPM takes it, from its uncompressed form.
pub(super) fn point(uncompressed: &[u8]) -> Option<EccPoint> {
    let (x, y) = uncompressed.strip_prefix(&[4])?.split_at_checked(COORDINATE)?;
    (y.len() == COORDINATE).then_some(())?;
    Some(EccPoint::new(EccParameter::try_from(x).ok()?, EccParameter::try_from(y).ok()?))
}

/// The public area of a sealed PIN. One that is bound to boot states is used by its policy alone, for
/// whatever (`adminWithPolicy`): it has no authorisation value that would be a secret. Of `noDA` see
/// [`Role::template`].
pub(super) fn data(policy: Option<&Digest>) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributes::builder()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(policy.is_none())
        .with_admin_with_policy(policy.is_some())
        .with_no_da(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy.cloned().unwrap_or_default())
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}

/// The storage primary's public area: the one that the TCG gives for storage keys of P-256 ("TPM 2.0
/// Provisioning Guidance", section 7.5.1), so that one that an operating system keeps at
/// [`super::link::KEPT_PRIMARY`] is the same key.
pub(super) fn primary() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributes::builder()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    let zeros = || EccParameter::try_from(vec![0; COORDINATE]);
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(PublicEccParameters::new(
            SymmetricDefinitionObject::AES_128_CFB,
            EccScheme::Null,
            EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::new(zeros()?, zeros()?))
        .build()
}

/// The attestation key's public area: it signs what the TPM itself has made, and nothing else. A
/// primary of the endorsement hierarchy, so that the TPM makes the same each time.
pub(super) fn attestation_key() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributes::builder()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()?;
    let public = PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes);
    on_curve(public, EccScheme::EcDsa(SHA256)).build()
}

/// Whether two public areas are of one kind of key, whatever the key.
pub(super) fn alike(one: &Public, other: &Public) -> bool {
    without_unique(one) == without_unique(other)
}

fn without_unique(public: &Public) -> Public {
    let mut public = public.clone();
    match &mut public {
        Public::Rsa { unique, .. } => *unique = PublicKeyRsa::default(),
        Public::Ecc { unique, .. } => *unique = EccPoint::default(),
        Public::KeyedHash { unique, .. } | Public::SymCipher { unique, .. } => {
            *unique = Digest::default();
        }
    }
    public
}

fn on_curve(public: PublicBuilder, scheme: EccScheme) -> PublicBuilder {
    public
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_ecc_parameters(PublicEccParameters::new(
            SymmetricDefinitionObject::Null,
            scheme,
            EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BackingKeyId = BackingKeyId([7; 16]);
    const ROLES: [Role; 4] = [Role::Mac, Role::Agree, Role::Unwrap, Role::Sign];

    #[test]
    fn a_key_serves_its_own_role_and_no_other() {
        for role in ROLES {
            for other in ROLES {
                for local in [true, false] {
                    let public = other.template(local, None).expect("sound");
                    assert_eq!(role.verify(ID, &public).is_ok(), role == other);
                }
            }
        }
    }

    #[test]
    fn a_loosened_public_area_is_refused() {
        type Loosen = fn(u32) -> u32;
        // The bits of TPMA_OBJECT (part 2, section 8.3).
        let ways: [Loosen; 8] = [
            |bits| bits & !(1 << 1),
            |bits| bits & !(1 << 4),
            |bits| bits & !(1 << 6),
            |bits| bits & !(1 << 10),
            |bits| bits | 1 << 7,
            |bits| bits | 1 << 11,
            |bits| bits | 1 << 16,
            |bits| bits | 1 << 17 | 1 << 18,
        ];
        for role in ROLES {
            for loosen in ways {
                let mut public = role.template(true, None).expect("sound");
                let (Public::Rsa { object_attributes, .. }
                | Public::Ecc { object_attributes, .. }
                | Public::KeyedHash { object_attributes, .. }
                | Public::SymCipher { object_attributes, .. }) = &mut public;
                *object_attributes = loosen(u32::from(*object_attributes)).into();
                assert!(role.verify(ID, &public).is_err(), "{role:?} {public:?}");
            }
        }
    }

    #[test]
    fn evidence_says_what_the_attributes_say() {
        let made =
            Role::Mac.evidence(&Role::Mac.template(true, None).expect("sound"), KeyCheck([0; 8]));
        assert!(made.local && made.never_extractable && made.always_sensitive && made.sensitive);
        assert!(!made.extractable);
        let brought = Role::Mac.template(false, None).expect("sound");
        let brought = Role::Mac.evidence(&brought, KeyCheck([0; 8]));
        assert!(!brought.local && !brought.never_extractable && !brought.always_sensitive);
        assert!(!brought.extractable && brought.sensitive);
    }

    #[test]
    fn points_and_numbers_have_their_full_length() {
        let bytes: Vec<u8> = std::iter::once(4).chain(1..=64).collect();
        let point = point(&bytes).expect("a point");
        assert_eq!(point.x().value(), &bytes[1..33]);
        assert!(super::point(&bytes[..64]).is_none());
        assert!(super::point(&bytes[1..]).is_none());
        let short = EccParameter::try_from(vec![9; 31]).expect("short");
        assert_eq!(padded(&short).expect("padded")[..2], [0, 9]);
        assert!(padded(&EccParameter::try_from(vec![9; 33]).expect("long")).is_none());
    }
}
