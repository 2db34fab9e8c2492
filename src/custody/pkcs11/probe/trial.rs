//! One throw-away key: made as this driver makes keys, checked, used, and attacked.

use super::{Device, LABEL, Tried, text};
use crate::custody::pkcs11::{Fault, agreement, keys, signer, transport};
use crate::custody::profile::Quirks;
use crate::custody::trial::{agrees, derives, timed, unwraps};
use crate::custody::{BackingKeyId, Error, Evidence, Scheme, SigningScheme};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use std::time::Duration;

/// What a key is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Holds(Scheme),
    Signs(SigningScheme),
}

/// A key that was made and that works.
pub struct Trial {
    /// What the token says of it; nothing of a pair that signs.
    pub evidence: Option<Evidence>,
    /// Its value can't be read, and it can't be made to be.
    pub sensitive: Tried<()>,
    /// It can't be made to be extractable.
    pub extractable: Tried<()>,
    /// No other mechanism can use it; none if that could not be tried.
    pub allowed_mechanisms: Option<Tried<()>>,
    /// Its label can't be changed; none if it was not made so.
    pub modifiable: Option<Tried<()>>,
    /// The time of one use, the best of three.
    pub time: Duration,
}

/// Makes a key, tries it, and destroys it whatever happened.
pub(super) fn trial(device: &Device<'_>, kind: Kind, quirks: &Quirks) -> Tried<Trial> {
    let id = device.id()?;
    let made = make(device, kind, id, quirks);
    let tried = made.and_then(|(key, public)| {
        let session = device.session;
        let (evidence, time) = match kind {
            Kind::Holds(Scheme::HmacKdf) => {
                let evidence = keys::verify(session, id, key, quirks).map_err(fault)?;
                let derive = |input: &[u8]| keys::mac(session, key, input).map_err(fault);
                (Some(evidence), derives(derive)?)
            }
            Kind::Holds(Scheme::Ecdh) => {
                let told = agreement::verify(session, id, key, quirks).map_err(fault)?;
                let agree = |peer: &[u8]| agreement::agree(session, key, peer).map_err(fault);
                (Some(told.0), agrees(&told.1, agree)?)
            }
            Kind::Holds(Scheme::RsaOaep) => {
                let told = transport::verify(session, id, key, quirks).map_err(fault)?;
                let unwrap = |sealed: &[u8]| transport::unwrap(session, key, sealed).map_err(fault);
                (Some(told.0), unwraps(&told.1, unwrap)?)
            }
            Kind::Signs(scheme) => {
                signer::verify(session, id, key, scheme, quirks).map_err(fault)?;
                let sign = || signer::sign(session, id, key, scheme, &public, b"probe");
                (None, timed(|| sign().map(drop).map_err(fault))?)
            }
        };
        Ok(attack(device, kind, key, quirks, evidence, time))
    });
    // Also what was made halfway, and by a token that labels its keys as it likes.
    let left = device.clean().and_then(|_| device.destroy_all(&[Attribute::Id(id.0.to_vec())]));
    left.map_err(|e| e.to_string()).and(tried)
}

fn make(
    device: &Device<'_>,
    kind: Kind,
    id: BackingKeyId,
    quirks: &Quirks,
) -> Tried<(ObjectHandle, Vec<u8>)> {
    let (session, label) = (device.session, LABEL.to_owned());
    let made = match kind {
        Kind::Holds(Scheme::HmacKdf) => {
            keys::generate(session, id, label, quirks).map(|key| (key, Vec::new()))
        }
        Kind::Holds(Scheme::Ecdh) => {
            agreement::generate(session, id, label, quirks).map(|key| (key, Vec::new()))
        }
        Kind::Holds(Scheme::RsaOaep) => {
            transport::generate(session, id, label, quirks).map(|key| (key, Vec::new()))
        }
        Kind::Signs(scheme) => signer::generate(session, id, scheme, label, quirks),
    };
    made.map_err(fault)
}

/// Tries to read, to loosen and to misuse the key.
fn attack(
    device: &Device<'_>,
    kind: Kind,
    key: ObjectHandle,
    quirks: &Quirks,
    evidence: Option<Evidence>,
    time: Duration,
) -> Trial {
    let change = |to| device.session.update_attributes(key, &[to]).is_ok();
    let has = |attribute: Attribute| {
        let read = device.session.get_attributes(key, &[attribute.attribute_type()]);
        read.is_ok_and(|read| read.contains(&attribute))
    };
    let refused = |changed: bool, why: &str| if changed { Err(why.to_owned()) } else { Ok(()) };
    let modifiable = quirks.modifiable.then(|| {
        let changed = change(Attribute::Label(LABEL.into()));
        refused(changed, "a key that was made with CKA_MODIFIABLE = false can be changed")
    });
    // An answer of CKR_OK alone is no change: some say so and change nothing.
    let loosened = change(Attribute::Sensitive(false)) && has(Attribute::Sensitive(false));
    let read = device.session.get_attributes(key, &[AttributeType::Value]);
    let readable = read.is_ok_and(|read| !read.is_empty());
    let let_out = change(Attribute::Extractable(true)) && has(Attribute::Extractable(true));
    Trial {
        evidence,
        sensitive: refused(loosened, "CKA_SENSITIVE can be taken away")
            .and(refused(readable, "its value can be read")),
        extractable: refused(let_out, "CKA_EXTRACTABLE can be given"),
        allowed_mechanisms: (quirks.allowed_mechanisms && kind == Kind::Holds(Scheme::HmacKdf))
            .then(|| misuse(device, key))
            .flatten(),
        modifiable,
        time,
    }
}

/// Uses a key that is for HMAC-SHA-256 alone with other hashes, if the token has any.
fn misuse(device: &Device<'_>, key: ObjectHandle) -> Option<Tried<()>> {
    let others =
        [("CKM_SHA_1_HMAC", Mechanism::Sha1Hmac), ("CKM_SHA384_HMAC", Mechanism::Sha384Hmac)];
    let mut tried = others.iter().filter(|(name, _)| device.listed(name).is_ok()).peekable();
    tried.peek()?;
    let misused = tried.find(|(_, other)| device.session.sign(other, key, b"probe").is_ok());
    Some(match misused {
        Some((name, _)) => Err(format!("{name} can use a key that is for CKM_SHA256_HMAC alone")),
        None => Ok(()),
    })
}

/// What went wrong, in few words.
pub(super) fn fault(fault: Fault) -> String {
    match fault {
        // The key has no name that anybody knows.
        Fault::Answer(Error::KeyRejected { why, .. }) => why,
        Fault::Answer(error) => error.to_string(),
        Fault::Device { error, .. } => text(&error),
        Fault::Gone => "the token is gone".to_owned(),
        Fault::Unable(why) => why,
    }
}
