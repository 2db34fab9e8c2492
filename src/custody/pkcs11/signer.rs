//! Keys that sign: how a pair is made, checked and used.
//!
//! The private key stays in the token; the public one leaves it once, when the pair is made, and is
//! known from then on to whoever asks for signatures.

use super::{Fault, keys};
use crate::custody::profile::Quirks;
use crate::custody::{BackingKeyId, SigningScheme};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

type Result<T> = std::result::Result<T, Fault>;

/// OBJECT IDENTIFIER id-Ed25519, 1.3.101.112 (RFC 8410), in DER.
const ED25519_CURVE: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
/// OBJECT IDENTIFIER prime256v1, 1.2.840.10045.3.1.7 (RFC 5480), in DER.
const P256_CURVE: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Makes a pair; answers the private key's handle and the public key. The public half is not kept
/// in the token, so that one object carries the id.
pub(super) fn generate(
    session: &Session,
    id: BackingKeyId,
    scheme: SigningScheme,
    quirks: &Quirks,
) -> Result<(ObjectHandle, Vec<u8>)> {
    let curve = match scheme {
        SigningScheme::Ed25519 => ED25519_CURVE.to_vec(),
        SigningScheme::EcdsaP256 => P256_CURVE.to_vec(),
    };
    let public = [
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(curve),
    ];
    let mut private = required(id, scheme, quirks);
    private.push(Attribute::Label(format!("strongroom signer {id}").into_bytes()));
    let mechanism = match scheme {
        SigningScheme::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
        SigningScheme::EcdsaP256 => Mechanism::EccKeyPairGen,
    };
    let made = session.generate_key_pair(&mechanism, &public, &private);
    let (public, private) = made.map_err(Fault::halfway)?;
    let point = session.get_attributes(public, &[AttributeType::EcPoint]).map_err(Fault::halfway);
    session.destroy_object(public).map_err(Fault::halfway)?;
    let point = match point?.as_slice() {
        [Attribute::EcPoint(point)] => public_key(scheme, point),
        _ => None,
    };
    match point {
        Some(point) => Ok((private, point)),
        None => {
            keys::destroy(session, private)?;
            Err(keys::rejected(id, "its public key can't be read"))
        }
    }
}

/// The public key in `CKA_EC_POINT`: an OCTET STRING in DER as PKCS#11 says, or bare, as some tokens
/// have it.
fn public_key(scheme: SigningScheme, point: &[u8]) -> Option<Vec<u8>> {
    let length: u8 = match scheme {
        SigningScheme::Ed25519 => 32,
        SigningScheme::EcdsaP256 => 65,
    };
    let bare = point.strip_prefix(&[0x04, length]).unwrap_or(point);
    (bare.len() == usize::from(length)).then(|| bare.to_vec())
}

/// Reads the private key's attributes back and refuses one that is not as it was made.
pub(super) fn verify(
    session: &Session,
    id: BackingKeyId,
    key: ObjectHandle,
    scheme: SigningScheme,
    quirks: &Quirks,
) -> Result<()> {
    let wanted = required(id, scheme, quirks);
    let have = keys::read_back(session, id, key, &wanted, &[])?;
    match keys::deviation(&have, &wanted) {
        Some(why) => Err(keys::rejected(id, &why)),
        None => Ok(()),
    }
}

/// Signs, and checks that the signature is one of `public`.
pub(super) fn sign(
    session: &Session,
    id: BackingKeyId,
    key: ObjectHandle,
    scheme: SigningScheme,
    public: &[u8],
    message: &[u8],
) -> Result<Vec<u8>> {
    let (signature, right) = match scheme {
        SigningScheme::Ed25519 => {
            let pure = EddsaParams::new(EddsaSignatureScheme::Pure);
            let signature = session.sign(&Mechanism::Eddsa(pure), key, message)?;
            let right = UnparsedPublicKey::new(&ED25519, public).verify(message, &signature);
            (signature, right)
        }
        SigningScheme::EcdsaP256 => {
            let hash = digest(&SHA256, message);
            let signature = session.sign(&Mechanism::Ecdsa, key, hash.as_ref())?;
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
            let right = public.verify(message, &signature);
            (signature, right)
        }
    };
    right
        .map_err(|_| keys::rejected(id, "its signatures are not those of the key that was made"))?;
    Ok(signature)
}

/// What a private key must be, so that it signs and does nothing else.
fn required(id: BackingKeyId, scheme: SigningScheme, quirks: &Quirks) -> Vec<Attribute> {
    let (kind, mechanism) = match scheme {
        SigningScheme::Ed25519 => (KeyType::EC_EDWARDS, MechanismType::EDDSA),
        SigningScheme::EcdsaP256 => (KeyType::EC, MechanismType::ECDSA),
    };
    let mut all = vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(kind),
        Attribute::Id(id.0.to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    if quirks.modifiable {
        all.push(Attribute::Modifiable(false));
    }
    if quirks.allowed_mechanisms {
        all.push(Attribute::AllowedMechanisms(vec![mechanism]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_wrapped_or_bare_and_in_no_other_length() {
        let wrapped = [&[0x04, 32][..], &[7; 32]].concat();
        assert_eq!(public_key(SigningScheme::Ed25519, &wrapped), Some(vec![7; 32]));
        assert_eq!(public_key(SigningScheme::Ed25519, &[7; 32]), Some(vec![7; 32]));
        assert_eq!(public_key(SigningScheme::Ed25519, &[7; 33]), None);
        let point = [&[0x04][..], &[1; 64]].concat();
        let wrapped = [&[0x04, 65][..], &point].concat();
        assert_eq!(public_key(SigningScheme::EcdsaP256, &wrapped), Some(point.clone()));
        assert_eq!(public_key(SigningScheme::EcdsaP256, &point), Some(point));
    }
}
