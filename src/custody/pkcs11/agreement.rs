//! Keys of scheme `ecdh`: how a pair is made, checked and used.
//!
//! An agreement is an x-coordinate, which is the same for a private key and its negative. So a
//! private key has two public ones, of which the one with an even y-coordinate is given out; it
//! follows from what the private key makes of the curve's base point. A key is known by it: no
//! copy of the public half in the token need be trusted.

use super::pairs::{Over, P256_CURVE, Pair, Use};
use super::{Fault, keys};
use crate::custody::profile::Quirks;
use crate::custody::{BackingKeyId, Error, Evidence, KeyCheck};
use crate::secret::{Key, Secret};
use aws_lc_rs::agreement::{ECDH_P256, ParsedPublicKey, UnparsedPublicKey};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{self, ECDSA_P256_SHA256_FIXED};
use cryptoki::error::Error as Cryptoki;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

type Result<T> = std::result::Result<T, Fault>;

/// The length of an uncompressed point of P-256 (SEC 1, 2.3.3), in bytes.
const POINT: usize = 65;

/// The base point of P-256 (SP 800-186, 3.2.1.3), uncompressed.
const BASE_POINT: [u8; POINT] = [
    0x04, //
    0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
    0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96,
    0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16,
    0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

const PAIR: Pair = Pair {
    over: Over::Curve(P256_CURVE),
    kind: KeyType::EC,
    made_by: Mechanism::EccKeyPairGen,
    used_by: MechanismType::ECDH1_DERIVE,
    usage: Use::Agree,
};

/// Makes a pair; answers the private key's handle.
pub(super) fn generate(
    session: &Session,
    id: BackingKeyId,
    label: String,
    quirks: &Quirks,
) -> Result<ObjectHandle> {
    PAIR.generate(session, id, label, quirks).map(|(private, _)| private)
}

/// Reads the private key's attributes back, refuses one that is not as it was made, and tells what
/// the token says of it, with its public key.
pub(super) fn verify(
    session: &Session,
    id: BackingKeyId,
    key: ObjectHandle,
    quirks: &Quirks,
) -> Result<(Evidence, Vec<u8>)> {
    let have = PAIR.verify(session, id, key, quirks)?;
    let public = public_key(session, id, key)?;
    Ok((keys::evidence(&have, KeyCheck::of_public(&public)), public))
}

/// The public key with an even y-coordinate: see above.
fn public_key(session: &Session, id: BackingKeyId, key: ObjectHandle) -> Result<Vec<u8>> {
    let x = shared(session, key, &BASE_POINT)?;
    let compressed = [&[0x02][..], x.expose()].concat();
    decompressed(&compressed)
        .ok_or_else(|| keys::rejected(id, "what it makes of the base point is on no curve"))
}

/// A point that is given as its x-coordinate and which y-coordinate is meant (SEC 1, 2.3.3).
fn decompressed(point: &[u8]) -> Option<Vec<u8>> {
    let parsed = signature::ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
    // A SubjectPublicKeyInfo ends with the point.
    let der = parsed.as_der().ok()?;
    let point = der.as_ref().last_chunk::<POINT>()?;
    (point.first() == Some(&0x04)).then(|| point.to_vec())
}

/// The x-coordinate that the key and the peer's public key agree on.
pub(super) fn agree(session: &Session, key: ObjectHandle, peer: &[u8]) -> Result<Key> {
    let on_curve = ParsedPublicKey::try_from(UnparsedPublicKey::new(&ECDH_P256, peer));
    if on_curve.is_err() {
        return Err(Error::BadRequest("a peer's public key is a point of P-256").into());
    }
    shared(session, key, peer)
}

/// C_DeriveKey without a key derivation function. The token gives it as an object, which this session
/// reads and destroys at once.
fn shared(session: &Session, key: ObjectHandle, peer: &[u8]) -> Result<Key> {
    let parameters = Ecdh1DeriveParams::new(EcKdf::null(), peer);
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::ValueLen(32.into()),
    ];
    let secret = session.derive_key(&Mechanism::Ecdh1Derive(parameters), key, &template)?;
    let read = session.get_attributes(secret, &[AttributeType::Value]).map(value);
    // Before an error is told, so that no copy stays in the token. Where this fails the session is
    // closed, and the object ends with it: see `Seat::serve`.
    session.destroy_object(secret)?;
    let unread = || Fault::Device { error: Cryptoki::InvalidValue, halfway: false };
    read?.as_ref().and_then(Key::from_secret).ok_or_else(unread)
}

/// The value among what was read, which is wiped however it goes on.
fn value(read: Vec<Attribute>) -> Option<Secret> {
    match read.into_iter().next() {
        Some(Attribute::Value(value)) => Some(Secret::new(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_decompressed() {
        let mut compressed = BASE_POINT[..33].to_vec();
        // The base point's y-coordinate is odd.
        compressed[0] = 0x03;
        assert_eq!(decompressed(&compressed), Some(BASE_POINT.to_vec()));
        compressed[0] = 0x02;
        let other = decompressed(&compressed).expect("a point");
        assert_eq!(other[..33], BASE_POINT[..33]);
        assert_eq!(other[64] % 2, 0);
        assert_eq!(decompressed(&[0xff; 33]), None);
    }
}
