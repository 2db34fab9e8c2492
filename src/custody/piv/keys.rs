//! Keys in slots: how they are made, found, checked and used.

use super::card::{Card, Contents};
use super::directory::{Directory, Entry, Use};
use super::{Fault, oaep};
use crate::custody::attested::Attested;
use crate::custody::profile::{Policies, Profile, WantsPin, WantsTouch};
use crate::custody::proof::{Bytes, Proof};
use crate::custody::{
    BackingKeyId, Error, Evidence, KeyCheck, Made, NewSigner, Request, Response, Scheme,
    SigningScheme,
};
use crate::secret::{Key, Secret};
use aws_lc_rs::agreement::{ECDH_P256, ParsedPublicKey, UnparsedPublicKey as Peer};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use std::collections::HashMap;
use yubikey::piv::{AlgorithmId, SlotId};
use yubikey::{PinPolicy, TouchPolicy};

type Result<T> = std::result::Result<T, Fault>;

/// A connection and what is known of the card since it began.
pub(super) struct Epoch {
    pub(super) card: Card,
    pub(super) directory: Directory,
    /// Keys that were looked at on this connection.
    pub(super) known: HashMap<BackingKeyId, (SlotId, Contents)>,
}

/// One request on one connection.
pub(super) struct Call<'a> {
    pub(super) profile: &'a Profile,
    pub(super) pin: &'a Secret,
    pub(super) epoch: &'a mut Epoch,
}

impl Call<'_> {
    pub(super) fn serve(&mut self, request: &Request) -> Result<Response> {
        Ok(match request {
            Request::Agree { key, check, peer } => {
                Response::MessageSecret(self.agree(key.id, *check, peer)?)
            }
            Request::Unwrap { key, check, ciphertext } => {
                Response::MessageSecret(self.unwrap(key.id, *check, ciphertext)?)
            }
            Request::Sign { key, scheme, public, message } => {
                Response::Signature(self.sign(key.id, *scheme, public, message)?)
            }
            Request::Generate { id, scheme } => Response::Made(self.generate(*id, *scheme)?),
            Request::GenerateSigner { id, scheme } => {
                Response::Signer(self.generate_signer(*id, *scheme)?)
            }
            Request::Attest { key, .. } => Response::Proof(Proof::Card(self.attest(key.id)?)),
            Request::Inspect { key } => Response::Evidence(self.inspect(key.id)?),
            Request::Destroy { id } => {
                self.destroy(*id)?;
                Response::Destroyed
            }
            Request::Derive { .. } => return Err(self.unable("no scheme hmac-kdf")),
            Request::Import { .. } => return Err(self.unable("keys are made on it alone")),
            Request::Random { .. } => return Err(self.unable("it gives out no random bytes")),
        })
    }

    fn unable(&self, why: &str) -> Fault {
        Error::Unsupported { profile: self.profile.name.clone(), why: why.to_owned() }.into()
    }

    fn agree(&mut self, id: BackingKeyId, check: KeyCheck, peer: &[u8]) -> Result<Key> {
        // A point off the curve is refused here: the card would only say that something is wrong.
        if ParsedPublicKey::try_from(Peer::new(&ECDH_P256, peer)).is_err() {
            return Err(Error::BadRequest("a peer's public key is a point of P-256").into());
        }
        let (slot, contents) = self.key(id, Use::Ecdh, Some(check))?;
        self.prove_again(&contents)?;
        let secret = self.epoch.card.agree(slot, peer)?;
        Key::from_secret(&secret).ok_or(yubikey::Error::ParseError.into())
    }

    fn unwrap(&mut self, id: BackingKeyId, check: KeyCheck, ciphertext: &[u8]) -> Result<Key> {
        let (slot, contents) = self.key(id, Use::RsaOaep, Some(check))?;
        let foreign = || rejected(id, "what is to be decrypted was not encrypted for it");
        if !contents.is_ciphertext(ciphertext) {
            return Err(foreign());
        }
        self.prove_again(&contents)?;
        let encoded = self.epoch.card.raw(slot, ciphertext)?;
        oaep::decode(encoded).ok_or_else(foreign)
    }

    fn sign(
        &mut self,
        id: BackingKeyId,
        scheme: SigningScheme,
        public: &[u8],
        message: &[u8],
    ) -> Result<Vec<u8>> {
        if scheme != SigningScheme::EcdsaP256 {
            return Err(self.unable(&format!("no signing by {scheme:?}")));
        }
        let (slot, contents) = self.key(id, Use::EcdsaP256, None)?;
        self.prove_again(&contents)?;
        let der = self.epoch.card.sign(slot, digest(&SHA256, message).as_ref())?;
        let signature = fixed(&der).ok_or(yubikey::Error::ParseError)?;
        let right = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
        right
            .verify(message, &signature)
            .map_err(|_| rejected(id, "its signatures are not those of the key that was made"))?;
        Ok(signature)
    }

    fn generate(&mut self, id: BackingKeyId, scheme: Scheme) -> Result<Made> {
        let used = match scheme {
            Scheme::Ecdh => Use::Ecdh,
            Scheme::RsaOaep => Use::RsaOaep,
            Scheme::HmacKdf => return Err(self.unable("no scheme hmac-kdf")),
        };
        if !self.profile.schemes.contains(&scheme) {
            return Err(self.unable(&format!("no scheme {scheme}")));
        }
        let contents = self.make(id, used)?;
        let evidence = evidence(&contents);
        Ok(Made { evidence, wrapped: None, public: Some(contents.public) })
    }

    fn generate_signer(&mut self, id: BackingKeyId, scheme: SigningScheme) -> Result<NewSigner> {
        if scheme != SigningScheme::EcdsaP256 || !self.profile.signing.contains(&scheme) {
            return Err(self.unable(&format!("no signing by {scheme:?}")));
        }
        let public = self.make(id, Use::EcdsaP256)?.public;
        Ok(NewSigner { public, wrapped: None })
    }

    /// Makes a key in the first free slot. The directory says so before the slot does: what breaks
    /// off between them is found, and destroyed, by its id.
    fn make(&mut self, id: BackingKeyId, used: Use) -> Result<Contents> {
        let mut directory = self.directory_for_change()?;
        if directory.find(id).is_some() {
            return Err(rejected(id, "a key of this id is in the token already"));
        }
        let Some(slot) = directory.free() else { return Err(self.full()) };
        directory.entries.push(Entry { slot, used, id });
        self.epoch.card.save(&directory)?;
        self.unchanged(&directory).map_err(Fault::also_halfway)?;
        self.epoch.known.remove(&id);
        let made = self.epoch.card.generate(slot, used.algorithm(), self.policies())?;
        self.unchanged(&directory).map_err(Fault::also_halfway)?;
        let (_, contents) = self.key(id, used, None).map_err(Fault::also_halfway)?;
        if contents.public != made.public {
            return Err(rejected(id, "the card tells another public key than it has just made"));
        }
        Ok(contents)
    }

    /// With the right to change the card: the directory as it is now. One that was read when the
    /// connection began may lack a key that another process has made since, in whose slot the next one
    /// would go.
    fn directory_for_change(&mut self) -> Result<Directory> {
        self.epoch.card.manage(self.pin)?;
        self.directory()
    }

    fn directory(&mut self) -> Result<Directory> {
        let card = &mut self.epoch.card;
        let directory = card.directory()?.ok_or_else(|| Error::Unavailable {
            token: card.serial().to_string(),
            why: "its directory of keys is gone".to_owned(),
        })?;
        self.epoch.directory = directory.clone();
        Ok(directory)
    }

    /// Refuses to go on if another process has written its directory over the one that was saved. The
    /// binding has a transaction for each command alone, and no other connection may have one
    /// meanwhile: so this is seen afterwards, not prevented.
    fn unchanged(&mut self, saved: &Directory) -> Result<()> {
        if self.directory()? == *saved {
            return Ok(());
        }
        let token = self.epoch.card.serial().to_string();
        let why = "another process has changed its directory of keys at the same time".to_owned();
        Err(Error::Unavailable { token, why }.into())
    }

    fn full(&self) -> Fault {
        let token = self.epoch.card.serial().to_string();
        let why = format!("all {} slots hold keys", super::directory::slots().count());
        Error::Full { token, why }.into()
    }

    fn inspect(&mut self, id: BackingKeyId) -> Result<Evidence> {
        let used = self.epoch.directory.find(id).ok_or(Error::KeyNotFound(id))?.used;
        // Told then and there, not remembered.
        self.epoch.known.remove(&id);
        let (_, contents) = self.key(id, used, None)?;
        Ok(evidence(&contents))
    }

    /// A certificate for what is in a key's slot, whatever that is: who reads it compares.
    fn attest(&mut self, id: BackingKeyId) -> Result<Attested> {
        let slot = self.epoch.directory.find(id).ok_or(Error::KeyNotFound(id))?.slot;
        let certificate = self.epoch.card.attest(slot).map_err(|fault| match fault {
            Fault::Device { error: yubikey::Error::GenericError, .. } => {
                rejected(id, "the card does not attest that it was made there")
            }
            other => other,
        })?;
        let issuer = self.epoch.card.issuer()?;
        Ok(Attested { certificate: Bytes(certificate), issuer: Bytes(issuer) })
    }

    /// Destroys a key by making another over it, which no id leads to.
    fn destroy(&mut self, id: BackingKeyId) -> Result<()> {
        let directory = self.directory_for_change()?;
        let slot = directory.find(id).ok_or(Error::KeyNotFound(id))?.slot;
        self.epoch.known.remove(&id);
        self.epoch.card.generate(slot, AlgorithmId::EccP256, self.policies())?;
        // That took its time: another process may have made a key meanwhile.
        let mut directory = self.directory()?;
        directory.entries.retain(|entry| entry.id != id);
        self.epoch.card.save(&directory)?;
        self.epoch.directory = directory;
        Ok(())
    }

    /// The slot of a key for this use, and what is in it, looked at once on every connection.
    fn key(
        &mut self,
        id: BackingKeyId,
        used: Use,
        check: Option<KeyCheck>,
    ) -> Result<(SlotId, Contents)> {
        let known = self.epoch.known.get(&id).cloned();
        let (slot, contents) = match known {
            Some(known) => known,
            None => self.look(id)?,
        };
        let entry = self.epoch.directory.find(id).ok_or(Error::KeyNotFound(id))?;
        if entry.used != used {
            return Err(rejected(id, "it is a key for another use"));
        }
        if check.is_some_and(|check| check != KeyCheck::of_public(&contents.public)) {
            // Looked at again the next time.
            self.epoch.known.remove(&id);
            return Err(rejected(id, "its key-check value is another than expected"));
        }
        Ok((slot, contents))
    }

    fn look(&mut self, id: BackingKeyId) -> Result<(SlotId, Contents)> {
        let Entry { slot, used, .. } =
            self.epoch.directory.find(id).ok_or(Error::KeyNotFound(id))?;
        let Some(contents) = self.epoch.card.contents(slot)? else {
            return Err(rejected(id, "its slot is empty, or what is in it can't be told"));
        };
        if !contents.generated {
            return Err(rejected(id, "it was not made on the card"));
        }
        if contents.algorithm != used.algorithm() {
            return Err(rejected(id, "it is a key of another kind"));
        }
        self.epoch.known.insert(id, (slot, contents.clone()));
        Ok((slot, contents))
    }

    /// The PIN right before the use of a key that wants it so.
    fn prove_again(&mut self, contents: &Contents) -> Result<()> {
        match contents.pin.unwrap_or(self.policies().0) {
            PinPolicy::Always => self.epoch.card.prove(self.pin),
            PinPolicy::Default | PinPolicy::Never | PinPolicy::Once => Ok(()),
        }
    }

    /// What a new key is made with.
    fn policies(&self) -> (PinPolicy, TouchPolicy) {
        let Policies { pin, touch } = self.profile.policies;
        let pin = match pin {
            WantsPin::Once => PinPolicy::Once,
            WantsPin::Always => PinPolicy::Always,
        };
        let touch = match touch {
            WantsTouch::Never => TouchPolicy::Never,
            WantsTouch::Cached => TouchPolicy::Cached,
        };
        (pin, touch)
    }
}

impl Use {
    fn algorithm(self) -> AlgorithmId {
        match self {
            Self::Ecdh | Self::EcdsaP256 => AlgorithmId::EccP256,
            Self::RsaOaep => AlgorithmId::Rsa2048,
        }
    }
}

/// What the card says, in the words of PKCS#11: no private key of the PIV application can be read, so
/// one that was made on the card never could be. It has no such thing as allowed mechanisms: a key of
/// P-256 signs and agrees, one of RSA does the raw operation.
fn evidence(contents: &Contents) -> Evidence {
    Evidence {
        sensitive: true,
        extractable: false,
        never_extractable: contents.generated,
        always_sensitive: contents.generated,
        local: contents.generated,
        mechanisms: Vec::new(),
        check: KeyCheck::of_public(&contents.public),
    }
}

pub(super) fn rejected(id: BackingKeyId, why: &str) -> Fault {
    Error::KeyRejected { id, why: why.to_owned() }.into()
}

/// r || s, 64 bytes, of an ECDSA-Sig-Value in DER (RFC 5480, appendix A).
fn fixed(der: &[u8]) -> Option<Vec<u8>> {
    let [0x30, length, body @ ..] = der else { return None };
    let (r, rest) = integer(body)?;
    let (s, rest) = integer(rest)?;
    let whole = rest.is_empty() && usize::from(*length) == body.len();
    whole.then(|| [r, s].concat())
}

/// A number below 2^256, and what follows it.
fn integer(der: &[u8]) -> Option<([u8; 32], &[u8])> {
    let [0x02, length, rest @ ..] = der else { return None };
    let (number, rest) = rest.split_at_checked(usize::from(*length))?;
    let number = number.strip_prefix(&[0]).unwrap_or(number);
    let mut fixed = [0; 32];
    fixed.get_mut(32_usize.checked_sub(number.len())?..)?.copy_from_slice(number);
    Some((fixed, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_64_bytes_whatever_its_numbers() {
        let der = [&[0x30, 38, 0x02, 1, 5, 0x02, 33, 0][..], &[0xff; 32]].concat();
        let signature = fixed(&der).expect("well-formed");
        assert_eq!(signature[..32], [&[0; 31][..], &[5]].concat());
        assert_eq!(signature[32..], [0xff; 32]);
        for length in 0..der.len() {
            assert!(fixed(&der[..length]).is_none());
        }
        assert!(fixed(&[&der[..], &[0]].concat()).is_none());
        assert!(fixed(&[&[0x30, 38, 0x02, 1, 5, 0x02, 33][..], &[0xff; 33]].concat()).is_none());
    }
}
