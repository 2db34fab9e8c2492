//! Keys that sign: how a pair is made, checked and used.
//!
//! The private key stays in the token; the public one leaves it once, when the pair is made, and is
//! known from then on to whoever asks for signatures.

use super::pairs::{Over, P256_CURVE, Pair, Use};
use super::{Fault, keys};
use crate::custody::profile::Quirks;
use crate::custody::{BackingKeyId, SigningScheme};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{KeyType, ObjectHandle};
use cryptoki::session::Session;

type Result<T> = std::result::Result<T, Fault>;

/// OBJECT IDENTIFIER id-Ed25519, 1.3.101.112 (RFC 8410), in DER.
const ED25519_CURVE: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// What a pair of this scheme is.
fn pair(scheme: SigningScheme) -> Pair {
    let usage = Use::Sign;
    match scheme {
        SigningScheme::Ed25519 => Pair {
            usage,
            over: Over::Curve(ED25519_CURVE),
            kind: KeyType::EC_EDWARDS,
            made_by: Mechanism::EccEdwardsKeyPairGen,
            used_by: MechanismType::EDDSA,
        },
        SigningScheme::EcdsaP256 => Pair {
            usage,
            over: Over::Curve(P256_CURVE),
            kind: KeyType::EC,
            made_by: Mechanism::EccKeyPairGen,
            used_by: MechanismType::ECDSA,
        },
    }
}

/// Makes a pair; answers the private key's handle and the public key.
pub(super) fn generate(
    session: &Session,
    id: BackingKeyId,
    scheme: SigningScheme,
    label: String,
    quirks: &Quirks,
) -> Result<(ObjectHandle, Vec<u8>)> {
    let (private, point) = pair(scheme).generate(session, id, label, quirks)?;
    match point.and_then(|point| public_key(scheme, &point)) {
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
    pair(scheme).verify(session, id, key, quirks).map(drop)
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
