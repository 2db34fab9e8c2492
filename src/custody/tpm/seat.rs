//! One request at the TPM: one attempt at it, and what is done after a fault.

use super::errors::{self, Action};
use super::link::{ENDORSEMENT_PASSWORD, Hidden, Link};
use super::policy::Bound;
use super::shape::{self, Role};
use super::slots::Slots;
use super::{Fault, blob};
use crate::custody::boot::Binding;
use crate::custody::proof::{Bytes, Certified, Proof};
use crate::custody::{
    BackingKeyId, Error, Evidence, KeyCheck, Made, NewSigner, OAEP_LABEL, Request, Response,
    Scheme, TokenKey, WrappedKey,
};
use crate::secret::{Key, Secret};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use tss_esapi::Error as Tss;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{
    Auth, Data, Digest, HashScheme, HashcheckTicket, MaxBuffer, Private, Public, PublicKeyRsa,
    RsaDecryptionScheme, SensitiveData, Signature, SignatureScheme,
};
use tss_esapi::traits::Marshall as _;
use tss_esapi::tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK};

type Result<T> = std::result::Result<T, Fault>;

/// The most random bytes in one command: what every TPM gives, the length of a SHA-256.
const RANDOM: usize = 32;

/// One way to the TPM and the keys that are loaded by it.
pub(super) struct Epoch {
    pub(super) link: Link,
    keys: Slots<Loaded>,
    /// What every key of ours is authorised by: see [`super::authorisation`].
    auth: Auth,
    /// The boot states that new keys are bound to.
    pub(super) bound: Option<Bound>,
}

/// A key in the TPM that was found to be what it was made as.
#[derive(Clone, Copy)]
struct Loaded {
    key: Usable,
    role: Role,
    check: KeyCheck,
}

/// A key in the TPM, and whether it is used in approved boot states alone.
#[derive(Clone, Copy)]
pub(super) struct Usable {
    handle: KeyHandle,
    pub(super) bound: bool,
}

impl Epoch {
    pub(super) fn new(
        mut link: Link,
        auth: Auth,
        boot: Option<&Binding>,
    ) -> std::result::Result<Self, Tss> {
        let keys = Slots::new(link.room()?);
        let bound = boot.map(Bound::new).transpose()?;
        Ok(Self { link, keys, auth, bound })
    }

    /// One attempt at a request.
    pub(super) fn serve(&mut self, request: &Request) -> Result<Response> {
        match request {
            Request::Derive { key, check, input } => {
                let loaded = self.loaded(key, Role::Mac, Some(*check))?;
                let mac = self.mac(loaded.key, input);
                Ok(Response::MessageSecret(mac.map_err(|fault| fault.of_use(key.id))?))
            }
            Request::Agree { key, check, peer } => {
                let loaded = self.loaded(key, Role::Agree, Some(*check))?;
                let agreed = self.agree(loaded.key, peer);
                Ok(Response::MessageSecret(agreed.map_err(|fault| fault.of_use(key.id))?))
            }
            Request::Unwrap { key, check, ciphertext } => {
                let loaded = self.loaded(key, Role::Unwrap, Some(*check))?;
                let plain = self.unwrap(loaded.key, ciphertext);
                Ok(Response::MessageSecret(plain.map_err(|fault| fault.of_use(key.id))?))
            }
            Request::Sign { key, public, message, .. } => {
                let id = key.id;
                let key = self.loaded(key, Role::Sign, None)?;
                let signed = self.sign(id, key.key, public, message);
                Ok(Response::Signature(signed.map_err(|fault| fault.of_use(id))?))
            }
            Request::Generate { id, scheme } => {
                Ok(Response::Made(self.create(*id, role(*scheme), None)?))
            }
            Request::Import { id, scheme, material } => {
                Ok(Response::Made(self.create(*id, role(*scheme), Some(material))?))
            }
            Request::GenerateSigner { id, .. } => {
                let Made { public, wrapped, .. } = self.create(*id, Role::Sign, None)?;
                let public = public.ok_or(Fault::UNREADABLE)?;
                Ok(Response::Signer(NewSigner { public, wrapped }))
            }
            Request::Attest { key, nonce } => {
                Ok(Response::Proof(Proof::Tpm(self.certify(key, nonce)?)))
            }
            Request::Inspect { key } => Ok(Response::Evidence(self.inspect(key)?)),
            Request::Destroy { id } => {
                self.unload(*id)?;
                Ok(Response::Destroyed)
            }
            Request::Random { len } => Ok(Response::Random(self.random(*len)?)),
        }
    }

    /// Whether the TPM answers at all.
    pub(super) fn answers(&mut self) -> bool {
        self.random(1).is_ok()
    }

    /// Makes a key, loads it, and looks at what came out.
    fn create(&mut self, id: BackingKeyId, role: Role, material: Option<&Key>) -> Result<Made> {
        let policy = self.bound.as_ref().map(Bound::policy);
        let template = role.template(material.is_none(), policy)?;
        let made = self.with_room(|epoch| {
            let (parent, auth) = (epoch.link.primary, epoch.auth.clone());
            let value = material.map(|key| SensitiveData::try_from(key.expose().as_slice()));
            let (value, template) = (value.transpose()?, template.clone());
            epoch.link.authorized(Hidden::Command, |context| {
                context.create(parent, template, Some(auth), value, None, None)
            })
        })?;
        let (public, private) = (made.out_public, made.out_private);
        let wrapped = blob::write(&public, &private)?;
        let wrapped = WrappedKey::new(&wrapped).ok_or(Fault::UNREADABLE)?;
        let loaded = self.load(id, role, public.clone(), private)?;
        Ok(Made {
            evidence: role.evidence(&public, loaded.check),
            wrapped: Some(wrapped),
            public: Role::public_key(&public),
        })
    }

    /// Reads a key's public area back, from a key that is loaded for it, and tells what it says.
    fn inspect(&mut self, key: &TokenKey) -> Result<Evidence> {
        let (public, private) = opened(key)?;
        let role = Role::of(&public).ok_or_else(|| rejected(key.id, shape::FOREIGN))?;
        self.unload(key.id)?;
        let loaded = self.load(key.id, role, public, private)?;
        let (public, _, _) = self
            .link
            .open_to_all(Hidden::Answer, |context| context.read_public(loaded.key.handle))?;
        role.verify(key.id, &public)?;
        Ok(role.evidence(&public, loaded.check))
    }

    /// Has a key certified by the attestation key. Keys that are loaded leave, since two places are
    /// needed at once. The attestation key comes second: loading a key that is bound may take the
    /// place of the operator's.
    fn certify(&mut self, key: &TokenKey, nonce: &[u8]) -> Result<Certified> {
        let nonce = Data::try_from(nonce)?;
        let (public, private) = opened(key)?;
        let role = Role::of(&public).ok_or_else(|| rejected(key.id, shape::FOREIGN))?;
        while self.flush_oldest()? {}
        let loaded = self.load(key.id, role, public.clone(), private)?;
        let (by, attestation_key) = self.attestation_key()?;
        let certified = self.link.certify(loaded.key.handle, by, nonce);
        self.link.flush(by)?;
        let certified = certified.map_err(|error| Fault::Device(error).of_use(key.id));
        let (attest, signature) = certified?;
        let bytes = |area: &Public| Ok::<_, Tss>(Bytes(area.marshall()?));
        Ok(Certified {
            public: bytes(&public)?,
            attest: Bytes(attest.marshall()?),
            signature: Bytes(halves(&signature).ok_or(Fault::UNREADABLE)?),
            attestation_key: bytes(&attestation_key)?,
        })
    }

    /// A password of the endorsement hierarchy's is not the PIN: keys are used as before.
    fn attestation_key(&mut self) -> Result<(KeyHandle, Public)> {
        self.link.attestation_key().map_err(|error| match errors::action(&error) {
            Action::Unauthorised | Action::Pin => Fault::Unable(ENDORSEMENT_PASSWORD),
            _ => error.into(),
        })
    }

    /// The key, loaded; `check` is what its check value must be.
    fn loaded(&mut self, key: &TokenKey, role: Role, check: Option<KeyCheck>) -> Result<Loaded> {
        let loaded = match self.keys.find(key.id).filter(|loaded| loaded.role == role) {
            Some(loaded) => loaded,
            None => {
                self.unload(key.id)?;
                let (public, private) = opened(key)?;
                self.load(key.id, role, public, private)?
            }
        };
        if check.is_some_and(|check| check != loaded.check) {
            // What was loaded may be another's wrapped key: the next request brings its own.
            self.unload(key.id)?;
            return Err(rejected(key.id, "its key-check value is another than expected"));
        }
        Ok(loaded)
    }

    /// Loads a key into the TPM, which refuses areas that it has not made itself, and checks it.
    fn load(
        &mut self,
        id: BackingKeyId,
        role: Role,
        public: Public,
        private: Private,
    ) -> Result<Loaded> {
        role.verify(id, &public)?;
        self.bindable(id, &public)?;
        while self.keys.full() && self.flush_oldest()? {}
        let handle = self.with_room(|epoch| {
            let (parent, private, public) = (epoch.link.primary, private.clone(), public.clone());
            epoch
                .link
                .authorized(Hidden::Nothing, |context| context.load(parent, private, public))
                .inspect_err(|error| {
                    if errors::action(error) == Action::MakeRoom {
                        epoch.keys.learn();
                    }
                })
        });
        let handle = handle.map_err(|fault| fault.of_key(id))?;
        let checked = self.checked(handle, role, &public);
        match checked {
            Ok(loaded) => {
                self.keys.note(id, loaded);
                Ok(loaded)
            }
            Err(fault) => {
                self.link.flush(handle)?;
                Err(fault.of_use(id))
            }
        }
    }

    fn checked(&mut self, handle: KeyHandle, role: Role, public: &Public) -> Result<Loaded> {
        let auth = self.auth.clone();
        self.link.set_auth(handle, auth)?;
        let key = Usable { handle, bound: shape::policy(public).is_some() };
        let check = match Role::public_key(public) {
            Some(public) => KeyCheck::of_public(&public),
            None => {
                let mac = self.mac(key, KeyCheck::LABEL)?;
                let mut value = [0; 8];
                value.iter_mut().zip(mac.expose()).for_each(|(to, from)| *to = *from);
                KeyCheck(value)
            }
        };
        Ok(Loaded { key, role, check })
    }

    /// Sends a command that needs a place for a key, and makes room for as long as there is none.
    pub(super) fn with_room<T>(
        &mut self,
        mut send: impl FnMut(&mut Self) -> std::result::Result<T, Tss>,
    ) -> Result<T> {
        loop {
            match send(self) {
                Err(error) if errors::action(&error) == Action::MakeRoom => {
                    if !self.flush_oldest()? {
                        return Err(error.into());
                    }
                }
                other => return Ok(other?),
            }
        }
    }

    fn flush_oldest(&mut self) -> Result<bool> {
        let Some(oldest) = self.keys.forget_oldest() else { return Ok(false) };
        self.link.flush(oldest.key.handle)?;
        Ok(true)
    }

    fn unload(&mut self, id: BackingKeyId) -> Result<()> {
        match self.keys.forget(id) {
            Some(loaded) => Ok(self.link.flush(loaded.key.handle)?),
            None => Ok(()),
        }
    }

    /// HMAC-SHA-256(key, input).
    fn mac(&mut self, key: Usable, input: &[u8]) -> Result<Key> {
        let input = MaxBuffer::try_from(input)?;
        let policy = self.approved(key)?;
        let mac = self.link.using(policy, Hidden::Answer, |context| {
            context.hmac(key.handle.into(), input, HashingAlgorithm::Sha256)
        })?;
        secret_of(mac.value())
    }

    /// The x-coordinate of the point that the key and a peer's public key have in common.
    fn agree(&mut self, key: Usable, peer: &[u8]) -> Result<Key> {
        let peer = shape::point(peer).ok_or(Fault::Answer(NOT_A_POINT))?;
        let policy = self.approved(key)?;
        let shared = self
            .link
            .using(policy, Hidden::Answer, |context| context.ecdh_z_gen(key.handle, peer))
            .map_err(|error| Fault::of_input(error, NOT_A_POINT))?;
        let mut x = shape::padded(shared.x()).ok_or(Fault::UNREADABLE)?;
        Ok(Key::take(&mut x))
    }

    /// The 32 bytes that were encrypted by RSA-OAEP with SHA-256 to this key.
    fn unwrap(&mut self, key: Usable, ciphertext: &[u8]) -> Result<Key> {
        let ciphertext = PublicKeyRsa::try_from(ciphertext)?;
        let (label, scheme) = (Data::try_from(OAEP_LABEL)?, RsaDecryptionScheme::Oaep(SHA_256));
        let policy = self.approved(key)?;
        let plain = self
            .link
            .using(policy, Hidden::Answer, |context| {
                context.rsa_decrypt(key.handle, ciphertext, scheme, label)
            })
            .map_err(|error| Fault::of_input(error, NOT_A_CIPHERTEXT))?;
        match plain.value() {
            plain if plain.len() == 32 => secret_of(plain),
            _ => Err(Fault::Answer(NOT_A_CIPHERTEXT)),
        }
    }

    /// ECDSA over P-256 of a message's SHA-256: r || s, and one of `public`.
    fn sign(
        &mut self,
        id: BackingKeyId,
        key: Usable,
        public: &[u8],
        message: &[u8],
    ) -> Result<Vec<u8>> {
        let hash = Digest::try_from(digest(&SHA256, message).as_ref())?;
        let scheme = SignatureScheme::EcDsa { hash_scheme: SHA_256 };
        let ticket = hashed_outside()?;
        let policy = self.approved(key)?;
        let signed = self.link.using(policy, Hidden::Nothing, |context| {
            context.sign(key.handle, hash, scheme, ticket)
        })?;
        let signature = halves(&signed).ok_or(Fault::UNREADABLE)?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
        if public.verify(message, &signature).is_err() {
            // As in `loaded`: the next request brings its own.
            self.unload(id)?;
            return Err(rejected(id, "its signatures are not those of the key that was made"));
        }
        Ok(signature)
    }

    fn random(&mut self, len: usize) -> Result<Secret> {
        let mut bytes = Secret::new(Vec::with_capacity(len));
        while bytes.len() < len {
            let wanted = (len - bytes.len()).min(RANDOM);
            let more =
                self.link.open_to_all(Hidden::Answer, |context| context.get_random(wanted))?;
            let more = more.value();
            // A TPM may give fewer bytes than it was asked for, but none is a fault.
            if more.is_empty() || more.len() > wanted {
                return Err(Fault::UNREADABLE);
            }
            bytes.expose_mut().extend_from_slice(more);
        }
        Ok(bytes)
    }
}

const SHA_256: HashScheme = HashScheme::new(HashingAlgorithm::Sha256);
const NOT_A_POINT: Error = Error::BadRequest("not a point of P-256");
const NOT_A_CIPHERTEXT: Error =
    Error::BadRequest("not 32 bytes that were encrypted to this key by RSA-OAEP");

fn role(scheme: Scheme) -> Role {
    match scheme {
        Scheme::HmacKdf => Role::Mac,
        Scheme::Ecdh => Role::Agree,
        Scheme::RsaOaep => Role::Unwrap,
    }
}

/// The areas of a key that the store has kept.
fn opened(key: &TokenKey) -> Result<(Public, Private)> {
    let Some(wrapped) = &key.wrapped else { return Err(Error::KeyNotFound(key.id).into()) };
    blob::read(wrapped.bytes()).ok_or_else(|| rejected(key.id, blob::MALFORMED))
}

fn secret_of(bytes: &[u8]) -> Result<Key> {
    let secret = Secret::copy_of(bytes);
    Key::from_secret(&secret).ok_or(Fault::UNREADABLE)
}

/// r || s of an ECDSA signature over P-256.
fn halves(signature: &Signature) -> Option<Vec<u8>> {
    let Signature::EcDsa(signed) = signature else { return None };
    let (r, s) = (shape::padded(signed.signature_r())?, shape::padded(signed.signature_s())?);
    Some([r, s].concat())
}

/// What a TPM wants to be told by who signs a hash that it has not made itself: nothing. It takes
/// that from keys alone that are not restricted to what it says itself.
fn hashed_outside() -> Result<HashcheckTicket> {
    let nothing = TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: TPM2B_DIGEST::default(),
    };
    Ok(HashcheckTicket::try_from(nothing)?)
}

pub(super) fn rejected(id: BackingKeyId, why: &str) -> Fault {
    Fault::Answer(Error::KeyRejected { id, why: why.to_owned() })
}
