//! One thread at the token: its session, one attempt at a request, and what is done after a fault.

use super::errors::{self, Action};
use super::{
    DESTROYING_WAITS, Driver, Epoch, Fault, State, Verified, agreement, keys, signer, transport,
};
use crate::custody::{
    BackingKeyId, Error, Evidence, KeyCheck, Made, NewSigner, Request, Response, Result, Scheme,
    SigningScheme, Worker,
};
use crate::secret::{Key, Secret};
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use std::sync::Arc;

const NOT_A_CIPHERTEXT: &str = "what is to be decrypted was not encrypted for the key";

/// How often one request is tried: a new session, then a new login, then no more.
const ATTEMPTS: usize = 3;

/// One thread's place at the token: its session, and the epoch that the session belongs to.
pub(super) struct Seat {
    driver: Arc<Driver>,
    session: Option<(u64, Session)>,
}

impl Seat {
    pub(super) fn new(driver: Arc<Driver>) -> Self {
        Self { driver, session: None }
    }
}

impl Worker for Seat {
    fn serve(&mut self, request: &Request) -> Result<Response> {
        let driver = Arc::clone(&self.driver);
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let (seen, fault) = match self.attempt(&driver, request) {
                Ok(response) => {
                    driver.is_well(request);
                    return Ok(response);
                }
                Err((_, Fault::Answer(error))) => return Err(error),
                Err((_, Fault::Unable(why))) => return Err(driver.unable(why)),
                Err(other) => other,
            };
            let (what, why, halfway) = match &fault {
                Fault::Device { error, halfway } => {
                    (errors::action(error), error.to_string(), *halfway)
                }
                _ => (Action::TokenGone, "it is not in its slot any more".to_owned(), false),
            };
            if what == Action::Suspect {
                driver.forget(seen, request);
            }
            // What two keys agreed on may be an object of this session's still, which ends with it.
            // Not one that the token has ended: its number may be another's.
            if matches!(request, Request::Agree { .. }) && what != Action::NewSession {
                self.close(&driver);
            }
            if what == Action::StaleHandle && driver.is_chronic(seen, request) {
                let why = format!("{why}, again and again; other keys are served");
                return Err(driver.unavailable(&why));
            }
            self.remedy(&driver, seen, what, &why)?;
            if halfway {
                let why = format!("{why}; whether the key was changed is to be looked up");
                return Err(driver.unavailable(&why));
            }
            last = why;
        }
        Err(driver.unavailable(&last))
    }
}

impl Seat {
    /// One attempt, and the epoch it was made in.
    fn attempt(
        &mut self,
        driver: &Driver,
        request: &Request,
    ) -> std::result::Result<Response, (u64, Fault)> {
        let state = driver.enter().map_err(|e| (0, e.into()))?;
        let epoch = state.epoch(driver)?;
        let served = self
            .session(driver, epoch)
            .and_then(|session| Call { driver, epoch, session }.serve(request));
        let (id, key) = match served {
            Ok(Served::Response(response)) => return Ok(response),
            Ok(Served::Destroy(id, key)) => (id, key),
            Err(fault) => return Err((epoch.number, fault)),
        };
        let seen = epoch.number;
        drop(state);
        self.destroy(driver, seen, id, key).map_err(|fault| (seen, fault))
    }

    /// Destroys a key of epoch `seen` with no other call in flight: see the barrier.
    fn destroy(
        &mut self,
        driver: &Driver,
        seen: u64,
        id: BackingKeyId,
        key: ObjectHandle,
    ) -> std::result::Result<Response, Fault> {
        let Some(state) = driver.gate.try_write_for(DESTROYING_WAITS) else {
            return Err(driver
                .unavailable("a call to it does not end; no key was destroyed")
                .into());
        };
        match &*state {
            State::Up(epoch) if epoch.number == seen => {
                let session = self.session(driver, epoch)?;
                epoch.forget(id);
                keys::destroy(session, key)?;
                // Kryoptic says that it has destroyed a key even when its file can't be written.
                if keys::gone(session, id)? {
                    return Ok(Response::Destroyed);
                }
                Err(driver.unavailable("a key that it destroyed is there still").into())
            }
            _ => Err(Fault::Gone),
        }
    }

    /// This thread's session in this epoch. One of an earlier epoch died with it.
    fn session(&mut self, driver: &Driver, epoch: &Epoch) -> std::result::Result<&Session, Fault> {
        if self.session.as_ref().is_none_or(|(number, _)| *number != epoch.number) {
            self.session = None;
            let session = driver.library.session(epoch.slot).map_err(|e| match e {
                Cryptoki::Pkcs11(RvError::SessionCount, _) => {
                    Error::NoSession(driver.info.label.clone()).into()
                }
                other => Fault::from(other),
            })?;
            self.session = Some((epoch.number, session));
        }
        let open = self.session.as_ref().map(|(_, session)| session);
        open.ok_or(Fault::Gone)
    }

    /// Closes this thread's session, if it is of the present epoch.
    fn close(&mut self, driver: &Driver) {
        let Some((number, session)) = self.session.take() else { return };
        let Ok(state) = driver.enter() else { return };
        if matches!(&*state, State::Up(epoch) if epoch.number == number) {
            // If it can't be closed, it ends with the epoch.
            drop(session.close());
        }
    }

    /// Does what the table says. `Ok`: the request may be tried again.
    fn remedy(&mut self, driver: &Driver, seen: u64, what: Action, why: &str) -> Result<()> {
        match what {
            Action::NewSession => {
                self.session = None;
                Ok(())
            }
            Action::CloseSession => {
                self.close(driver);
                Ok(())
            }
            Action::LoginAgain | Action::Reinitialize | Action::TokenGone | Action::StaleHandle => {
                driver.heal(seen, why)
            }
            Action::Suspect if driver.answers(seen) => Err(driver.unavailable(why)),
            Action::Suspect => driver.heal(seen, why),
            Action::Pin => Err(driver.locked(why)),
            Action::Busy => Err(Error::Overloaded(driver.info.label.clone())),
            Action::Stop => Err(driver.unavailable(why)),
            Action::Refused => Err(driver.unable(why.to_owned())),
        }
    }
}

/// One request in one epoch on one session.
struct Call<'a> {
    driver: &'a Driver,
    epoch: &'a Epoch,
    session: &'a Session,
}

/// Whether it can't be told what failed, the key, the ciphertext or the token: many say no more than
/// that it has.
fn is_unclear(unwrapped: &std::result::Result<Key, Fault>) -> bool {
    let Err(Fault::Device { error, .. }) = unwrapped else { return false };
    matches!(errors::action(error), Action::Refused | Action::Suspect)
}

/// What came of a request under the read guard.
enum Served {
    Response(Response),
    /// This key is to be destroyed behind the barrier.
    Destroy(BackingKeyId, ObjectHandle),
}

impl Call<'_> {
    fn serve(&self, request: &Request) -> std::result::Result<Served, Fault> {
        let response = match request {
            Request::Derive { key, check, input } => {
                Response::MessageSecret(self.derive(key.id, *check, input)?)
            }
            Request::Agree { key, check, peer } => {
                Response::MessageSecret(self.agree(key.id, *check, peer)?)
            }
            Request::Unwrap { key, check, ciphertext } => {
                Response::MessageSecret(self.unwrap(key.id, *check, ciphertext)?)
            }
            Request::Generate { id, scheme } => Response::Made(self.create(*id, *scheme, None)?),
            Request::Import { id, scheme, material } => {
                Response::Made(self.create(*id, *scheme, Some(material))?)
            }
            Request::Attest { .. } => {
                return Err(Fault::Unable("PKCS#11 has no proofs".to_owned()));
            }
            Request::Inspect { key } => {
                let handle = self.find(key.id)?;
                let scheme = keys::scheme(self.session, handle)?;
                Response::Evidence(self.verify(key.id, handle, scheme)?.0)
            }
            Request::Random { len } => Response::Random(self.random(*len)?),
            Request::GenerateSigner { id, scheme } => {
                let public = self.create_signer(*id, *scheme)?;
                Response::Signer(NewSigner { public, wrapped: None })
            }
            Request::Sign { key, scheme, public, message } => {
                Response::Signature(self.sign(key.id, *scheme, public, message)?)
            }
            Request::Destroy { id } => return Ok(Served::Destroy(*id, self.find(*id)?)),
        };
        Ok(Served::Response(response))
    }

    fn derive(
        &self,
        id: BackingKeyId,
        check: KeyCheck,
        input: &[u8],
    ) -> std::result::Result<Key, Fault> {
        let key = self.verified(id, check, Scheme::HmacKdf)?;
        keys::mac(self.session, key, input)
    }

    fn agree(
        &self,
        id: BackingKeyId,
        check: KeyCheck,
        peer: &[u8],
    ) -> std::result::Result<Key, Fault> {
        let key = self.verified(id, check, Scheme::Ecdh)?;
        agreement::agree(self.session, key, peer)
    }

    fn unwrap(
        &self,
        id: BackingKeyId,
        check: KeyCheck,
        ciphertext: &[u8],
    ) -> std::result::Result<Key, Fault> {
        let attempt = |key| transport::unwrap(self.session, key, ciphertext);
        let first = attempt(self.verified(id, check, Scheme::RsaOaep)?);
        if !is_unclear(&first) {
            return first;
        }
        // If the key is well, which looking at it anew shows, and it fails again, the ciphertext is what
        // is wrong.
        self.epoch.forget(id);
        let second = attempt(self.verified(id, check, Scheme::RsaOaep)?);
        if is_unclear(&second) {
            return Err(Error::BadRequest(NOT_A_CIPHERTEXT).into());
        }
        second
    }

    /// The handle of a key of this scheme and check value, verified in this epoch.
    fn verified(
        &self,
        id: BackingKeyId,
        check: KeyCheck,
        scheme: Scheme,
    ) -> std::result::Result<ObjectHandle, Fault> {
        let known = self.epoch.keys.read().get(&id).copied();
        let key = match known {
            Some(key) => key,
            None => {
                let handle = self.find(id)?;
                Verified { handle, scheme, check: self.verify(id, handle, scheme)?.0.check }
            }
        };
        if key.scheme != scheme {
            return Err(keys::rejected(id, "it is a key of another scheme"));
        }
        if key.check != check {
            return Err(keys::rejected(id, "its key-check value is another than expected"));
        }
        Ok(key.handle)
    }

    fn create(
        &self,
        id: BackingKeyId,
        scheme: Scheme,
        material: Option<&Key>,
    ) -> std::result::Result<Made, Fault> {
        if !self.driver.profile.schemes.contains(&scheme) {
            return Err(self.no_scheme(scheme));
        }
        if keys::find(self.session, id)?.is_some() {
            return Err(keys::rejected(id, "a key of this id is in the token already"));
        }
        let quirks = &self.driver.profile.quirks;
        let key = match (scheme, material) {
            (Scheme::HmacKdf, Some(material)) => keys::import(self.session, id, material, quirks)?,
            (Scheme::HmacKdf, None) => {
                keys::generate(self.session, id, keys::label("hmac-kdf", id), quirks)?
            }
            (Scheme::Ecdh, None) => {
                agreement::generate(self.session, id, keys::label("ecdh", id), quirks)?
            }
            (Scheme::RsaOaep, None) => {
                transport::generate(self.session, id, keys::label("rsa-oaep", id), quirks)?
            }
            (Scheme::Ecdh | Scheme::RsaOaep, Some(_)) => return Err(self.no_scheme(scheme)),
        };
        let (evidence, public) =
            self.verify(id, key, scheme).map_err(|fault| self.unusable(key, fault))?;
        Ok(Made { evidence, wrapped: None, public })
    }

    /// Why a key that was just made is not given out. One that the token did not make as told must
    /// not stay.
    fn unusable(&self, key: ObjectHandle, fault: Fault) -> Fault {
        match fault {
            Fault::Answer(_) | Fault::Unable(_) => {
                keys::destroy(self.session, key).err().unwrap_or(fault)
            }
            Fault::Device { error, .. } => Fault::halfway(error),
            Fault::Gone => Fault::Gone,
        }
    }

    fn no_scheme(&self, scheme: Scheme) -> Fault {
        let short = scheme == Scheme::RsaOaep && self.driver.profile.facts.deny_oaep();
        let because = if short { ": no OAEP with SHA-256 and a label" } else { "" };
        Fault::Unable(format!("no keys of scheme {scheme}{because}"))
    }

    fn create_signer(
        &self,
        id: BackingKeyId,
        scheme: SigningScheme,
    ) -> std::result::Result<Vec<u8>, Fault> {
        let profile = &self.driver.profile;
        if !profile.signing.contains(&scheme) {
            return Err(Fault::Unable(format!("no signing by {scheme:?}")));
        }
        if keys::find(self.session, id)?.is_some() {
            return Err(keys::rejected(id, "a key of this id is in the token already"));
        }
        let label = keys::label("signer", id);
        let (key, public) = signer::generate(self.session, id, scheme, label, &profile.quirks)?;
        let usable = signer::verify(self.session, id, key, scheme, &profile.quirks);
        usable
            .and_then(|()| signer::sign(self.session, id, key, scheme, &public, b""))
            .map_err(|fault| self.unusable(key, fault))?;
        Ok(public)
    }

    fn sign(
        &self,
        id: BackingKeyId,
        scheme: SigningScheme,
        public: &[u8],
        message: &[u8],
    ) -> std::result::Result<Vec<u8>, Fault> {
        let signers = &self.epoch.signers;
        let known = signers.read().get(&id).copied();
        let key = match known {
            Some(key) => key,
            None => {
                let key = self.find(id)?;
                signer::verify(self.session, id, key, scheme, &self.driver.profile.quirks)?;
                signers.write().insert(id, key);
                key
            }
        };
        signer::sign(self.session, id, key, scheme, public, message)
    }

    /// The key's handle; a key counts as missing only while the token is there to say so.
    fn find(&self, id: BackingKeyId) -> std::result::Result<ObjectHandle, Fault> {
        match keys::find(self.session, id)? {
            Some(key) => Ok(key),
            None if self.driver.present(self.epoch) => Err(Error::KeyNotFound(id).into()),
            None => Err(Fault::Gone),
        }
    }

    /// Checks the key and notes it for the rest of the epoch; tells the public half of a pair too.
    fn verify(
        &self,
        id: BackingKeyId,
        handle: ObjectHandle,
        scheme: Scheme,
    ) -> std::result::Result<(Evidence, Option<Vec<u8>>), Fault> {
        let quirks = &self.driver.profile.quirks;
        let (evidence, public) = match scheme {
            Scheme::HmacKdf => (keys::verify(self.session, id, handle, quirks)?, None),
            Scheme::Ecdh => {
                let (evidence, public) = agreement::verify(self.session, id, handle, quirks)?;
                (evidence, Some(public))
            }
            Scheme::RsaOaep => {
                let (evidence, public) = transport::verify(self.session, id, handle, quirks)?;
                (evidence, Some(public))
            }
        };
        let verified = Verified { handle, scheme, check: evidence.check };
        self.epoch.keys.write().insert(id, verified);
        Ok((evidence, public))
    }

    fn random(&self, len: usize) -> std::result::Result<Secret, Fault> {
        let most = self.driver.profile.limits.random_bytes;
        let mut bytes = Secret::new(vec![0; len]);
        for part in bytes.expose_mut().chunks_mut(most) {
            self.session.generate_random_slice(part)?;
        }
        Ok(bytes)
    }
}
