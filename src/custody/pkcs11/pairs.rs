//! Pairs of keys: what signing, agreeing and decrypting have in common.
//!
//! The private key stays in the token. The public half leaves it when the pair is made and is not
//! kept there, so that one object carries the id.

use super::{Fault, keys};
use crate::custody::profile::Quirks;
use crate::custody::{BackingKeyId, oaep};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

type Result<T> = std::result::Result<T, Fault>;

/// OBJECT IDENTIFIER prime256v1, 1.2.840.10045.3.1.7 (RFC 5480), in DER.
pub(super) const P256_CURVE: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The one thing that a private key is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Sign,
    Agree,
    Decrypt,
}

/// What a pair's numbers are taken from.
#[derive(Clone, Copy)]
pub(super) enum Over {
    /// A curve, by its OBJECT IDENTIFIER in DER.
    Curve(&'static [u8]),
    /// An RSA modulus of so many bits.
    Modulus(u64),
}

/// What a pair is to be.
pub(super) struct Pair {
    pub(super) over: Over,
    pub(super) kind: KeyType,
    pub(super) made_by: Mechanism<'static>,
    pub(super) used_by: MechanismType,
    pub(super) usage: Use,
}

impl Pair {
    /// Makes one; answers the private key's handle, and `CKA_EC_POINT` if the token tells it.
    pub(super) fn generate(
        &self,
        session: &Session,
        id: BackingKeyId,
        label: String,
        quirks: &Quirks,
    ) -> Result<(ObjectHandle, Option<Vec<u8>>)> {
        let mut public = vec![
            Attribute::Token(false),
            Attribute::Private(false),
            match self.usage {
                Use::Sign => Attribute::Verify(true),
                Use::Agree => Attribute::Derive(true),
                Use::Decrypt => Attribute::Encrypt(true),
            },
        ];
        match self.over {
            Over::Curve(curve) => public.push(Attribute::EcParams(curve.to_vec())),
            Over::Modulus(bits) => public.extend([
                Attribute::ModulusBits(bits.into()),
                Attribute::PublicExponent(oaep::EXPONENT.to_vec()),
            ]),
        }
        let mut private = self.required(id, quirks);
        private.push(Attribute::Label(label.into_bytes()));
        let made = session.generate_key_pair(&self.made_by, &public, &private);
        let (public, private) = made.map_err(Fault::halfway)?;
        let point =
            session.get_attributes(public, &[AttributeType::EcPoint]).map_err(Fault::halfway);
        session.destroy_object(public).map_err(Fault::halfway)?;
        match point?.into_iter().next() {
            Some(Attribute::EcPoint(point)) => Ok((private, Some(point))),
            _ => Ok((private, None)),
        }
    }

    /// Reads the private key's attributes back, as far as the token has them, and refuses one that
    /// is not as it was made.
    pub(super) fn verify(
        &self,
        session: &Session,
        id: BackingKeyId,
        key: ObjectHandle,
        quirks: &Quirks,
    ) -> Result<Vec<Attribute>> {
        let wanted = self.required(id, quirks);
        let everything = self.required(id, &Quirks { bare_templates: false, ..*quirks });
        let have = keys::read_back(session, id, key, &everything, &keys::TELLING)?;
        match keys::deviation(&have, &wanted) {
            Some(why) => Err(keys::rejected(id, &why)),
            None => Ok(have),
        }
    }

    /// What a private key must be, so that it does its work and nothing else.
    fn required(&self, id: BackingKeyId, quirks: &Quirks) -> Vec<Attribute> {
        let mut all = vec![
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(self.kind),
            Attribute::Id(id.0.to_vec()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(self.usage == Use::Sign),
            Attribute::Derive(self.usage == Use::Agree),
            Attribute::Decrypt(self.usage == Use::Decrypt),
            Attribute::Unwrap(false),
        ];
        if quirks.bare_templates {
            let curve = matches!(self.over, Over::Curve(_));
            all.retain(|attribute| match attribute {
                Attribute::Decrypt(_) | Attribute::Unwrap(_) => !curve,
                Attribute::Derive(_) => curve,
                _ => true,
            });
        }
        if quirks.modifiable {
            all.push(Attribute::Modifiable(false));
        }
        if quirks.allowed_mechanisms {
            all.push(Attribute::AllowedMechanisms(vec![self.used_by]));
        }
        all
    }
}
