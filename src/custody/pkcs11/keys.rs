//! Keys of scheme `hmac-kdf`: how they are made, found, checked and used.

use super::Fault;
use crate::custody::profile::{HmacKey, Quirks};
use crate::custody::{BackingKeyId, Error, Evidence, KeyCheck, Scheme};
use crate::secret::{Key, Secret};
use cryptoki::error::Error as Cryptoki;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::Zeroize;

type Result<T> = std::result::Result<T, Fault>;

const KEY_LEN: u64 = 32;

/// What only keys of other types can be for.
const OTHER_USES: [Attribute; 4] = [
    Attribute::Encrypt(false),
    Attribute::Decrypt(false),
    Attribute::Wrap(false),
    Attribute::Unwrap(false),
];

/// What a token tells of a key besides what it was told when the key was made.
pub(super) const TELLING: [AttributeType; 4] = [
    AttributeType::NeverExtractable,
    AttributeType::AlwaysSensitive,
    AttributeType::Local,
    AttributeType::AllowedMechanisms,
];

/// CKM_NC_SHA256_HMAC_KEY_GEN: nShield makes no keys for HMAC by any other.
const NSHIELD_KEY_GEN: u64 = 0xde43_6997;

/// The mechanism that makes keys for HMAC-SHA-256.
fn made_by(form: HmacKey) -> Mechanism<'static> {
    match (form, MechanismType::new_vendor_defined(NSHIELD_KEY_GEN)) {
        (HmacKey::Nshield, Ok(theirs)) => {
            Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(theirs, None))
        }
        _ => Mechanism::GenericSecretKeyGen,
    }
}

/// Every object that carries this id. More than one is a fault of the token's contents.
pub(super) fn find(session: &Session, id: BackingKeyId) -> Result<Option<ObjectHandle>> {
    match session.find_objects(&[Attribute::Id(id.0.to_vec())])?.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => match secrets(session, several)?.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            [_, _, ..] => Err(rejected(id, "more than one object carries its id")),
        },
    }
}

/// Whether nothing secret carries this id any more. What cards keep beside it goes with it.
pub(super) fn gone(session: &Session, id: BackingKeyId) -> Result<bool> {
    let left = session.find_objects(&[Attribute::Id(id.0.to_vec())])?;
    let secrets = secrets(session, &left)?;
    for object in left.into_iter().filter(|object| !secrets.contains(object)) {
        destroy(session, object)?;
    }
    Ok(secrets.is_empty())
}

/// Those that are neither public keys nor certificates: cards keep these beside their private keys
/// under the same id, whatever they are told.
fn secrets(session: &Session, objects: &[ObjectHandle]) -> Result<Vec<ObjectHandle>> {
    let mut secrets = Vec::new();
    for object in objects {
        match class(session, *object)? {
            Some(ObjectClass::PUBLIC_KEY | ObjectClass::CERTIFICATE) => {}
            _ => secrets.push(*object),
        }
    }
    Ok(secrets)
}

fn class(session: &Session, object: ObjectHandle) -> Result<Option<ObjectClass>> {
    match session.get_attributes(object, &[AttributeType::Class])?.as_slice() {
        [Attribute::Class(class)] => Ok(Some(*class)),
        _ => Ok(None),
    }
}

/// The scheme of a key that is in the token, by what kind of object it is.
pub(super) fn scheme(session: &Session, key: ObjectHandle) -> Result<Scheme> {
    if class(session, key)? != Some(ObjectClass::PRIVATE_KEY) {
        return Ok(Scheme::HmacKdf);
    }
    match session.get_attributes(key, &[AttributeType::KeyType])?.as_slice() {
        [Attribute::KeyType(KeyType::RSA)] => Ok(Scheme::RsaOaep),
        _ => Ok(Scheme::Ecdh),
    }
}

/// Makes a key inside the token.
pub(super) fn generate(
    session: &Session,
    id: BackingKeyId,
    label: String,
    quirks: &Quirks,
) -> Result<ObjectHandle> {
    let mut template = required(id, quirks);
    template.extend(length(quirks));
    template.push(Attribute::Label(label.into_bytes()));
    session.generate_key(&made_by(quirks.hmac_key), &template).map_err(Fault::halfway)
}

/// Brings a key's value in.
pub(super) fn import(
    session: &Session,
    id: BackingKeyId,
    material: &Key,
    quirks: &Quirks,
) -> Result<ObjectHandle> {
    let mut template = required(id, quirks);
    template.push(Attribute::Label(label("hmac-kdf", id).into_bytes()));
    template.push(Attribute::Value(material.expose().to_vec()));
    let made = session.create_object(&template).map_err(Fault::halfway);
    if let Some(Attribute::Value(copy)) = template.last_mut() {
        copy.zeroize();
    }
    made
}

/// Destroys a key.
pub(super) fn destroy(session: &Session, key: ObjectHandle) -> Result<()> {
    session.destroy_object(key).map_err(Fault::halfway)
}

/// HMAC-SHA-256(key, input). The binding asks for the length first, so that this is C_SignInit and
/// two C_Sign, of which one computes; its multi-part calls would be four.
pub(super) fn mac(session: &Session, key: ObjectHandle, input: &[u8]) -> Result<Key> {
    let mac = Secret::new(session.sign(&Mechanism::Sha256Hmac, key, input)?);
    Key::from_secret(&mac).ok_or(Fault::Device { error: Cryptoki::InvalidValue, halfway: false })
}

/// The key's check value: see [`KeyCheck`].
pub(super) fn check_value(session: &Session, key: ObjectHandle) -> Result<KeyCheck> {
    let mac = mac(session, key, KeyCheck::LABEL)?;
    let mut value = [0; 8];
    value.iter_mut().zip(mac.expose()).for_each(|(to, from)| *to = *from);
    Ok(KeyCheck(value))
}

/// Reads the key's attributes back, refuses a key that is not as it was made, and tells what the
/// token says of it.
pub(super) fn verify(
    session: &Session,
    id: BackingKeyId,
    key: ObjectHandle,
    quirks: &Quirks,
) -> Result<Evidence> {
    let have = attributes(session, id, key, quirks)?;
    let mut wanted = required(id, quirks);
    wanted.extend(length(quirks));
    if let Some(why) = deviation(&have, &wanted) {
        return Err(rejected(id, &why));
    }
    Ok(evidence(&have, check_value(session, key)?))
}

/// What a token says of a key, in the attributes that it has.
pub(super) fn evidence(have: &[Attribute], check: KeyCheck) -> Evidence {
    let says = |attribute: Attribute| have.contains(&attribute);
    Evidence {
        sensitive: says(Attribute::Sensitive(true)),
        extractable: !says(Attribute::Extractable(false)),
        never_extractable: says(Attribute::NeverExtractable(true)),
        always_sensitive: says(Attribute::AlwaysSensitive(true)),
        local: says(Attribute::Local(true)),
        mechanisms: have.iter().flat_map(mechanism_names).collect(),
        check,
    }
}

/// A mechanism's standard name, or its maker's.
pub(super) fn mechanism_name(mechanism: MechanismType) -> String {
    if *mechanism == NSHIELD_KEY_GEN {
        return "CKM_NC_SHA256_HMAC_KEY_GEN".to_owned();
    }
    mechanism.to_string()
}

fn mechanism_names(attribute: &Attribute) -> Vec<String> {
    match attribute {
        Attribute::AllowedMechanisms(list) => list.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

/// What a key must be, so that it serves its scheme and nothing else.
fn required(id: BackingKeyId, quirks: &Quirks) -> Vec<Attribute> {
    let mut all = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(match quirks.hmac_key {
            HmacKey::GenericSecret => KeyType::GENERIC_SECRET,
            HmacKey::Sha256Hmac | HmacKey::Nshield => KeyType::SHA256_HMAC,
        }),
        Attribute::Id(id.0.to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Verify(false),
        Attribute::Derive(false),
    ];
    if !quirks.bare_templates {
        all.extend(OTHER_USES);
    }
    if quirks.modifiable {
        all.push(Attribute::Modifiable(false));
    }
    if quirks.allowed_mechanisms {
        all.push(Attribute::AllowedMechanisms(vec![MechanismType::SHA256_HMAC]));
    }
    all
}

/// What a key of this name is labelled with, for people.
pub(super) fn label(name: &str, id: BackingKeyId) -> String {
    format!("strongroom {name} {id}")
}

/// The length of a key, where that is not for the token to choose.
fn length(quirks: &Quirks) -> Option<Attribute> {
    let told = quirks.hmac_key != HmacKey::Sha256Hmac;
    told.then(|| Attribute::ValueLen(KEY_LEN.into()))
}

/// The attributes that [`verify`] looks at, as far as the token has them.
fn attributes(
    session: &Session,
    id: BackingKeyId,
    key: ObjectHandle,
    quirks: &Quirks,
) -> Result<Vec<Attribute>> {
    let everything = Quirks {
        allowed_mechanisms: false,
        modifiable: true,
        bare_templates: false,
        hmac_key: quirks.hmac_key,
    };
    let mut wanted = required(id, &everything);
    wanted.extend(length(quirks));
    read_back(session, id, key, &wanted, &TELLING)
}

/// The attributes of these types, and those in `also`, as far as the token has them.
pub(super) fn read_back(
    session: &Session,
    id: BackingKeyId,
    key: ObjectHandle,
    wanted: &[Attribute],
    also: &[AttributeType],
) -> Result<Vec<Attribute>> {
    let mut types: Vec<_> = wanted.iter().map(Attribute::attribute_type).collect();
    let more: Vec<_> = also.iter().filter(|kind| !types.contains(*kind)).copied().collect();
    types.extend(more);
    session.get_attributes(key, &types).map_err(|e| match e {
        Cryptoki::Pkcs11(..) => e.into(),
        // Something that no key of ours has, such as a mechanism without a name.
        other => rejected(id, &format!("its attributes can't be read: {other}")),
    })
}

/// The first way in which a key differs from what is required of it.
pub(super) fn deviation(have: &[Attribute], required: &[Attribute]) -> Option<String> {
    // Also where nothing is required of them: see `Quirks::bare_templates`.
    const LOOSE: [Attribute; 5] = [
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
        Attribute::Derive(true),
    ];
    let missing = required.iter().find(|want| !have.contains(want));
    let loose = || LOOSE.iter().find(|use_| have.contains(use_) && !required.contains(use_));
    let kind = missing.or_else(loose)?.attribute_type();
    let found = have.iter().find(|attribute| attribute.attribute_type() == kind);
    Some(match found {
        Some(found) => format!("{kind} is not as it was made: {found:?}"),
        None => format!("{kind} can't be read"),
    })
}

pub(super) fn rejected(id: BackingKeyId, why: &str) -> Fault {
    Fault::Answer(Error::KeyRejected { id, why: why.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BackingKeyId = BackingKeyId([7; 16]);
    const QUIRKS: Quirks = Quirks {
        allowed_mechanisms: true,
        modifiable: true,
        bare_templates: false,
        hmac_key: HmacKey::GenericSecret,
    };

    fn as_made() -> Vec<Attribute> {
        let mut have = required(ID, &QUIRKS);
        have.push(Attribute::ValueLen(KEY_LEN.into()));
        have
    }

    fn found_wrong(have: &[Attribute]) -> Option<String> {
        deviation(have, &as_made())
    }

    #[test]
    fn a_key_as_it_was_made_has_no_deviation() {
        assert_eq!(found_wrong(&as_made()), None);
    }

    #[test]
    fn every_required_attribute_is_missed_when_it_is_not_there() {
        for n in 0..as_made().len() {
            let mut have = as_made();
            let gone = have.remove(n).attribute_type();
            let why = found_wrong(&have).expect("a deviation");
            assert_eq!(why, format!("{gone} can't be read"));
        }
    }

    #[test]
    fn a_use_that_was_not_spoken_of_is_noticed() {
        let bare = required(ID, &Quirks { bare_templates: true, ..QUIRKS });
        assert_eq!(deviation(&bare, &bare), None);
        let loose = [&bare[..], &[Attribute::Wrap(true)]].concat();
        let why = deviation(&loose, &bare).expect("a deviation");
        assert!(why.contains("not as it was made"), "{why}");
    }

    #[test]
    fn the_use_that_a_key_is_for_is_no_deviation_and_any_other_is() {
        let decrypts = [Attribute::Decrypt(true)];
        assert_eq!(deviation(&decrypts, &decrypts), None);
        for other in [Attribute::Unwrap(true), Attribute::Derive(true)] {
            let why = deviation(&[Attribute::Decrypt(true), other], &decrypts);
            assert!(why.is_some_and(|why| why.contains("not as it was made")));
        }
    }

    #[test]
    fn a_loosened_key_is_noticed() {
        let loosened = [
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::Modifiable(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(true),
            Attribute::Derive(true),
            Attribute::ValueLen(16.into()),
            Attribute::AllowedMechanisms(vec![
                MechanismType::SHA256_HMAC,
                MechanismType::SHA1_HMAC,
            ]),
            Attribute::AllowedMechanisms(vec![]),
        ];
        for loose in loosened {
            let kind = loose.attribute_type();
            let mut have = as_made();
            have.retain(|attribute| attribute.attribute_type() != kind);
            have.push(loose);
            let why = found_wrong(&have).expect("a deviation");
            assert!(why.contains("not as it was made"), "{why}");
        }
    }
}
