//! Keys of scheme `rsa-oaep`: how a pair is made, checked and used.
//!
//! A private key's object tells its modulus. That it is the one that the key works by is not believed
//! but tried: the key must decrypt what this machine has encrypted for it, in the way in which it will
//! be asked to. So a module that does OAEP by SHA-1 alone, or without a label, is found out when the
//! first key is made.

use super::errors::{Action, action};
use super::pairs::{Over, Pair, Use};
use super::{Fault, keys};
use crate::custody::profile::Quirks;
use crate::custody::{BackingKeyId, Evidence, KeyCheck, OAEP_LABEL, oaep};
use crate::secret::{Key, Secret};
use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::error::Error as Cryptoki;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;

type Result<T> = std::result::Result<T, Fault>;

const PAIR: Pair = Pair {
    over: Over::Modulus(2048),
    kind: KeyType::RSA,
    made_by: Mechanism::RsaPkcsKeyPairGen,
    used_by: MechanismType::RSA_PKCS_OAEP,
    usage: Use::Decrypt,
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

/// Reads the private key's attributes back, refuses one that is not as it was made, tries it, and
/// tells what the token says of it, with its public key, a SubjectPublicKeyInfo in DER.
pub(super) fn verify(
    session: &Session,
    id: BackingKeyId,
    key: ObjectHandle,
    quirks: &Quirks,
) -> Result<(Evidence, Vec<u8>)> {
    let have = PAIR.verify(session, id, key, quirks)?;
    let public = public_key(session, id, key)?;
    prove(session, id, key, &public)?;
    Ok((keys::evidence(&have, KeyCheck::of_public(&public)), public))
}

fn public_key(session: &Session, id: BackingKeyId, key: ObjectHandle) -> Result<Vec<u8>> {
    let read = session.get_attributes(key, &[AttributeType::Modulus])?.into_iter().next();
    let modulus = match read {
        Some(Attribute::Modulus(modulus)) => oaep::public_key(&modulus),
        _ => None,
    };
    modulus.ok_or_else(|| keys::rejected(id, "its modulus is not one of 2,048 bits"))
}

/// Has the key decrypt what was encrypted for its public half.
fn prove(session: &Session, id: BackingKeyId, key: ObjectHandle, public: &[u8]) -> Result<()> {
    let message = digest(&SHA256, public);
    let ciphertext = oaep::encrypt(public, message.as_ref())
        .ok_or_else(|| keys::rejected(id, "its public key can't be used"))?;
    let opened = unwrap(session, key, &ciphertext).map_err(|fault| match fault {
        Fault::Device { error, .. } if action(&error) == Action::Refused => {
            Fault::Unable(format!("no RSA-OAEP with SHA-256 and a label: {error}"))
        }
        other => other,
    })?;
    let right = opened.expose().as_slice() == message.as_ref();
    right.then_some(()).ok_or_else(|| keys::rejected(id, "it is not the one of its modulus"))
}

/// The 32 bytes that were encrypted for the key. The binding asks for their length first, so that this
/// is C_DecryptInit and two C_Decrypt, of which one computes.
pub(super) fn unwrap(session: &Session, key: ObjectHandle, ciphertext: &[u8]) -> Result<Key> {
    let label = PkcsOaepSource::data_specified(OAEP_LABEL);
    let parameters = PkcsOaepParams::new(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, label);
    let message = session.decrypt(&Mechanism::RsaPkcsOaep(parameters), key, ciphertext)?;
    let unread = || Fault::Device { error: Cryptoki::InvalidValue, halfway: false };
    Key::from_secret(&Secret::new(message)).ok_or_else(unread)
}
