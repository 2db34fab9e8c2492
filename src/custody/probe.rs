//! What a TPM or a YubiKey really does: everything that a profile can claim of it, asked for through the
//! driver that the server uses, with keys that are destroyed again.
//!
//! PKCS#11 tokens have a probe of their own ([`super::pkcs11::probe`]), which also tries in which ways
//! keys can be made. What a key must do is the same for all ([`super::trial`]).

use super::profile::Profile;
use super::proof::Proof;
use super::trial::{Tried, agrees, derives, timed, unwraps};
use super::{
    Access, BackingKeyId, Error, Evidence, Locator, Made, Request, Response, Result, Scheme,
    SigningScheme, TokenInfo, TokenKey, Worker,
};
use crate::secret::{Key, Secret};
use std::time::Duration;

/// The one key that there is at a time, so that the next probe finds what one that was killed has left.
const ID: BackingKeyId = BackingKeyId(*b"strongroom probe");

/// What the hardware signs besides what a key is.
const NONCE: &[u8; 16] = b"strongroom probe";

/// What a device tells before its PIN is given.
pub struct Survey {
    /// Which one it is.
    pub token: TokenInfo,
    /// How it is: what, and what was seen of it.
    pub told: Vec<(&'static str, String)>,
    /// The profile that comes with the program for its maker and version, if those tell.
    pub fits: Option<&'static str>,
    /// Why no key can be tried on it, if none can.
    pub closed: Option<String>,
}

/// What was found out about a device.
pub struct Found {
    /// What it told by itself.
    pub survey: Survey,
    /// Keys that an earlier probe had left, and that were destroyed.
    pub removed: usize,
    /// Keys of each scheme.
    pub schemes: Vec<(Scheme, Tried<Held>)>,
    /// Pairs that sign, of the profile's schemes, and the time of a signature.
    pub signing: Vec<(SigningScheme, Tried<Duration>)>,
    /// The longest random request that was answered, in bytes, up to the profile's limit.
    pub random: Tried<usize>,
}

/// A key that was made and that works.
pub struct Held {
    /// What the token says of it.
    pub evidence: Evidence,
    /// The time of one use, the best of three.
    pub time: Duration,
    /// Whether the hardware has signed what it is.
    pub attested: Tried<()>,
}

/// Tries everything. Blocks, a slow card for minutes. A PIN is given once, and not at all to a card that
/// has one try left.
///
/// # Errors
/// [`Error::Unavailable`] if the device can't be reached, or went away in the middle; [`Error::Pin`] if
/// it refuses the PIN.
pub fn probe(profile: &Profile, access: Access) -> Result<Found> {
    let survey = super::survey(profile, &access)?;
    let token = Locator::Serial(survey.token.serial.clone());
    if matches!(access.token, Locator::Serial(_)) && access.token != token {
        let (token, why) = (access.token.to_string(), "it is not the one that is there".into());
        return Err(Error::Unavailable { token, why });
    }
    if let Some(why) = survey.closed.clone() {
        return Ok(untried(profile, survey, &why));
    }
    let driver = super::driver(profile.clone(), Access { token, ..access })?;
    let mut device = Device(driver.clone().worker());
    let removed = device.clean()?;
    let schemes = [Scheme::HmacKdf, Scheme::Ecdh, Scheme::RsaOaep];
    let found = Found {
        survey,
        removed,
        schemes: schemes.map(|scheme| (scheme, device.hold(scheme, driver.info()))).into(),
        signing: profile.signing.iter().map(|scheme| (*scheme, device.sign(*scheme))).collect(),
        random: device.random(profile.limits.random_bytes),
    };
    device.clean()?;
    match driver.health().why {
        None => Ok(found),
        Some(why) => Err(Error::Unavailable { token: driver.info().label.clone(), why }),
    }
}

/// What there is to say of a device whose keys can't be tried.
fn untried(profile: &Profile, survey: Survey, why: &str) -> Found {
    let (schemes, signing) = (profile.schemes.iter(), profile.signing.iter());
    Found {
        survey,
        removed: 0,
        schemes: schemes.map(|scheme| (*scheme, Err(why.to_owned()))).collect(),
        signing: signing.map(|scheme| (*scheme, Err(why.to_owned()))).collect(),
        random: Err(why.to_owned()),
    }
}

/// A device that is being probed.
struct Device(Box<dyn Worker>);

impl Device {
    /// Destroys the probe's key, and counts it; a token that keeps no keys has none of them.
    fn clean(&mut self) -> Result<usize> {
        let there = self.0.serve(&Request::Inspect { key: ID.into() });
        match self.0.serve(&Request::Destroy { id: ID }) {
            Ok(_) => Ok(usize::from(!matches!(there, Err(Error::KeyNotFound(_))))),
            Err(Error::KeyNotFound(_)) => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, request: &Request) -> Tried<Response> {
        self.0.serve(request).map_err(|error| match error {
            // Which profile and which key is known.
            Error::Unsupported { why, .. } | Error::KeyRejected { why, .. } => why,
            other => other.to_string(),
        })
    }

    fn secret(&mut self, request: &Request) -> Tried<Key> {
        match self.ask(request)? {
            Response::MessageSecret(key) => Ok(key),
            _ => Err(odd()),
        }
    }

    /// Makes a key, tries it, and destroys it whatever happened.
    fn hold(&mut self, scheme: Scheme, token: &TokenInfo) -> Tried<Held> {
        let tried = match self.ask(&Request::Generate { id: ID, scheme }) {
            Ok(Response::Made(made)) => self.used(scheme, made, token),
            Ok(_) => Err(odd()),
            Err(why) => Err(why),
        };
        self.clean().map_err(|error| error.to_string()).and(tried)
    }

    fn used(&mut self, scheme: Scheme, made: Made, token: &TokenInfo) -> Tried<Held> {
        let key = TokenKey { id: ID, wrapped: made.wrapped };
        let (check, public) = (made.evidence.check, made.public.unwrap_or_default());
        let time = match scheme {
            Scheme::HmacKdf => derives(|input| {
                let (key, input) = (key.clone(), input.to_vec());
                self.secret(&Request::Derive { key, check, input })
            }),
            Scheme::Ecdh => agrees(&public, |peer| {
                let (key, peer) = (key.clone(), peer.to_vec());
                self.secret(&Request::Agree { key, check, peer })
            }),
            Scheme::RsaOaep => unwraps(&public, |sealed| {
                let (key, ciphertext) = (key.clone(), sealed.to_vec());
                self.secret(&Request::Unwrap { key, check, ciphertext })
            }),
        }?;
        let attested = self.attested(&key, scheme, &made.evidence, token);
        match self.ask(&Request::Inspect { key })? {
            Response::Evidence(evidence) if evidence == made.evidence => {
                Ok(Held { evidence, time, attested })
            }
            _ => Err("it says another thing of its key than when it was made".into()),
        }
    }

    /// Has the hardware sign what the key is, and checks that.
    fn attested(
        &mut self,
        key: &TokenKey,
        scheme: Scheme,
        evidence: &Evidence,
        token: &TokenInfo,
    ) -> Tried<()> {
        let request = Request::Attest { key: key.clone(), nonce: NONCE.to_vec() };
        let Response::Proof(proof) = self.ask(&request)? else { return Err(odd()) };
        let check = Some(evidence.check);
        let checked = match proof {
            Proof::Tpm(certified) => certified.check(NONCE, scheme, false, check),
            Proof::Card(attested) => attested.check(check, &token.serial).map(drop),
        };
        checked.map_err(str::to_owned)
    }

    /// Makes a pair that signs, has it sign, and destroys it. The driver checks each signature.
    fn sign(&mut self, scheme: SigningScheme) -> Tried<Duration> {
        let tried = match self.ask(&Request::GenerateSigner { id: ID, scheme }) {
            Ok(Response::Signer(made)) => timed(|| {
                let key = TokenKey { id: ID, wrapped: made.wrapped.clone() };
                let (public, message) = (made.public.clone(), b"probe".to_vec());
                self.ask(&Request::Sign { key, scheme, public, message }).map(drop)
            }),
            Ok(_) => Err(odd()),
            Err(why) => Err(why),
        };
        self.clean().map_err(|error| error.to_string()).and(tried)
    }

    fn random(&mut self, len: usize) -> Tried<usize> {
        let mut ask = || -> Tried<Secret> {
            match self.ask(&Request::Random { len })? {
                Response::Random(bytes) if bytes.len() == len => Ok(bytes),
                _ => Err(odd()),
            }
        };
        let (one, two) = (ask()?, ask()?);
        if one == two {
            return Err("the generator repeats itself".into());
        }
        Ok(len)
    }
}

fn odd() -> String {
    "it answers something else".to_owned()
}
