//! What a token really does: everything that a profile can speak of, tried with keys that are thrown
//! away.
//!
//! Nothing stays behind: every key carries the label `strongroom probe`, and whatever carries it is
//! destroyed at the end, and at the beginning if an earlier probe broke off.

mod trial;

use super::keys;
use super::library::Library;
use crate::clock::{Random, random_bytes};
use crate::custody::profile::{GcmIv, HmacKey, Profile, Quirks};
use crate::custody::trial::Tried;
use crate::custody::{BackingKeyId, Locator, OAEP_LABEL, Result, Scheme, SigningScheme, TokenInfo};
use crate::secret::Secret;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use cryptoki::error::Error as Cryptoki;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use std::path::Path;
use std::time::{Duration, Instant};
pub use trial::Trial;
use trial::{Kind, trial};

/// What every key of a probe is labelled with.
const LABEL: &str = "strongroom probe";

/// The lengths of random requests that are tried, in bytes, the largest that a profile may name last.
const RANDOM: [usize; 5] = [32, 256, 1024, 2048, 4096];

/// What was found out about a token.
pub struct Found {
    /// Which one it is.
    pub token: TokenInfo,
    /// Keys that an earlier probe had left, and that were destroyed.
    pub removed: usize,
    /// The mechanisms that it lists, by their standard names, sorted.
    pub mechanisms: Vec<String>,
    /// Keys of each scheme that this driver has.
    pub schemes: Vec<(Scheme, Keys)>,
    /// Pairs that sign.
    pub signing: Vec<(SigningScheme, Keys)>,
    /// Sessions that were open at a time, up to what was asked for.
    pub sessions: usize,
    /// The longest random request that was answered, in bytes.
    pub random: Tried<usize>,
    /// Who makes the nonce of GCM.
    pub gcm_iv: Tried<GcmIv>,
    /// Mechanisms that wrap an AES key by another.
    pub key_wrap: Vec<(&'static str, Tried<()>)>,
    /// Hashes that OAEP takes.
    pub oaep: Vec<(&'static str, Tried<()>)>,
    /// How long a search for one key takes.
    pub find: Tried<Duration>,
}

/// What came of making and using keys of one kind.
pub struct Keys {
    /// As the profile has it.
    pub as_claimed: Tried<Trial>,
    /// As confined as this token can make them, and under which quirks.
    pub confined: Tried<(Quirks, Trial)>,
}

/// Which token is to be probed.
pub struct Target<'a> {
    /// What it is said to be.
    pub profile: &'a Profile,
    /// The module, if it is at none of the places that the profile names.
    pub module: Option<&'a Path>,
    /// Which token; none if the module has one alone.
    pub token: Option<Locator>,
    /// The user PIN, which is tried once.
    pub pin: &'a Secret,
    /// How many sessions are opened at most.
    pub sessions: usize,
}

/// Tries everything. Blocks, a slow card for minutes. The module is finalised when this returns.
///
/// # Errors
/// [`super::Error::Unavailable`] if the module can't be used, if there is no such token, or if it went away
/// in the middle; [`super::Error::Pin`] if it refuses the PIN.
pub fn probe(target: Target<'_>, random: &dyn Random) -> Result<Found> {
    let name = target.token.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    let library = Library::load(target.profile, target.module, name)?;
    library.initialize()?;
    let found = look(&library, &target, random);
    library.finalize();
    found
}

fn look(library: &Library, target: &Target<'_>, random: &dyn Random) -> Result<Found> {
    let (slot, token) = match &target.token {
        Some(locator) => library.find(locator)?,
        None => library.only()?,
    };
    let session = library.login(slot, UserType::User, target.pin)?;
    let mechanisms = library.mechanisms(slot)?;
    let device = Device { library, slot, session: &session, mechanisms: &mechanisms, random };
    let removed = device.clean()?;
    let found = device.everything(target, token, removed);
    device.clean()?;
    found
}

/// A token that is being probed.
struct Device<'a> {
    library: &'a Library,
    slot: Slot,
    session: &'a Session,
    mechanisms: &'a [String],
    random: &'a dyn Random,
}

impl Device<'_> {
    fn everything(&self, target: &Target<'_>, token: TokenInfo, removed: usize) -> Result<Found> {
        let mut mechanisms = self.mechanisms.to_vec();
        mechanisms.sort();
        let schemes = [Scheme::HmacKdf, Scheme::Ecdh, Scheme::RsaOaep];
        let signing = [SigningScheme::Ed25519, SigningScheme::EcdsaP256];
        let oaep = self.oaep();
        let keys = |kind| self.keys(kind, &target.profile.quirks, &oaep);
        let found = Found {
            schemes: schemes.map(|scheme| (scheme, keys(Kind::Holds(scheme)))).into(),
            signing: signing.map(|scheme| (scheme, keys(Kind::Signs(scheme)))).into(),
            sessions: self.sessions(target.sessions),
            random: self.random(),
            gcm_iv: self.gcm_iv(),
            key_wrap: self.key_wrap(),
            find: self.find(),
            token,
            removed,
            mechanisms,
            oaep,
        };
        // A token that went away has refused everything since: that is no finding.
        match self.library.token_info(self.slot) {
            Some(info) if info == found.token => Ok(found),
            _ => Err(self.library.unavailable("it went away while it was probed")),
        }
    }

    /// Keys of one kind: as the profile has them, and as confined as they can be. A token without the
    /// OAEP that `rsa-oaep` takes is not made to make pairs in vain, which may take seconds each.
    fn keys(&self, kind: Kind, claimed: &Quirks, oaep: &[(&'static str, Tried<()>)]) -> Keys {
        let needed = oaep.iter().find(|(hash, _)| *hash == "sha-256");
        if kind == Kind::Holds(Scheme::RsaOaep)
            && let Some((_, Err(why))) = needed
        {
            return Keys { as_claimed: Err(why.clone()), confined: Err(why.clone()) };
        }
        let as_claimed = trial(self, kind, claimed);
        let mut confined = Err("no way of making such a key works".to_owned());
        for quirks in ways(kind, claimed.hmac_key) {
            match trial(self, kind, &quirks) {
                Ok(tried) => {
                    confined = Ok((quirks, tried));
                    break;
                }
                Err(why) => confined = Err(why),
            }
        }
        Keys { as_claimed, confined }
    }

    fn id(&self) -> Tried<BackingKeyId> {
        random_bytes(self.random).map(BackingKeyId).map_err(|e| e.to_string())
    }

    /// Destroys what a probe has made, and counts it.
    fn clean(&self) -> Result<usize> {
        self.destroy_all(&[Attribute::Label(LABEL.into())])
    }

    /// Destroys what has these attributes, and counts it.
    fn destroy_all(&self, like: &[Attribute]) -> Result<usize> {
        let failed = |e: Cryptoki| self.library.failed(&e);
        let left = self.session.find_objects(like).map_err(failed)?;
        for object in &left {
            self.session.destroy_object(*object).map_err(failed)?;
        }
        match self.session.find_objects(like).map_err(failed)?.as_slice() {
            [] => Ok(left.len()),
            _ => Err(self.library.unavailable("keys of the probe can't be destroyed")),
        }
    }

    /// Opens sessions until there are so many, with the one that is open.
    fn sessions(&self, most: usize) -> usize {
        let mut open = Vec::new();
        while open.len().saturating_add(1) < most {
            match self.library.session(self.slot) {
                Ok(session) => open.push(session),
                Err(_) => break,
            }
        }
        let count = open.len().saturating_add(1);
        for session in open {
            // What can't be closed ends when the library is finalised.
            drop(session.close());
        }
        count
    }

    fn random(&self) -> Tried<usize> {
        let mut longest = Err("the generator gives nothing".to_owned());
        for len in RANDOM {
            let mut twice = [vec![0; len], vec![0; len]];
            for bytes in &mut twice {
                if let Err(error) = self.session.generate_random_slice(bytes) {
                    return longest.map_err(|_: String| text(&error));
                }
            }
            let [one, two] = twice;
            if one == two {
                return Err("the generator repeats itself".into());
            }
            longest = Ok(len);
        }
        longest
    }

    /// An AES key of this session's.
    fn aes(&self, uses: &[Attribute]) -> Tried<ObjectHandle> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Token(false),
            Attribute::ValueLen(32.into()),
            Attribute::Label(LABEL.into()),
        ];
        template.extend_from_slice(uses);
        self.session.generate_key(&Mechanism::AesKeyGen, &template).map_err(|e| text(&e))
    }

    /// Encrypts twice with one nonce. Who ignores it gives another ciphertext each time, and may
    /// write its own in the place of it.
    fn gcm_iv(&self) -> Tried<GcmIv> {
        self.listed("CKM_AES_GCM")?;
        let key = self.aes(&[Attribute::Encrypt(true), Attribute::Decrypt(true)])?;
        let encrypt = || -> Tried<([u8; 12], Vec<u8>)> {
            let mut nonce = [7; 12];
            let mechanism = GcmParams::new(&mut nonce, b"", 128.into()).map(Mechanism::AesGcm);
            let sealed = mechanism.and_then(|m| self.session.encrypt(&m, key, b"probe"));
            sealed.map(|sealed| (nonce, sealed)).map_err(|e| text(&e))
        };
        let tried = encrypt().and_then(|first| Ok((first, encrypt()?)));
        self.session.destroy_object(key).map_err(|e| text(&e))?;
        let (first, second) = tried?;
        let callers = first == second && first.0 == [7; 12];
        Ok(if callers { GcmIv::Caller } else { GcmIv::Token })
    }

    fn key_wrap(&self) -> Vec<(&'static str, Tried<()>)> {
        let ways = [
            ("CKM_AES_KEY_WRAP", Mechanism::AesKeyWrap),
            ("CKM_AES_KEY_WRAP_PAD", Mechanism::AesKeyWrapPad),
        ];
        ways.map(|(name, mechanism)| (name, self.wrap(name, &mechanism))).into()
    }

    fn wrap(&self, name: &str, mechanism: &Mechanism<'_>) -> Tried<()> {
        self.listed(name)?;
        let uses = [Attribute::Wrap(true), Attribute::Unwrap(true)];
        let wrapping = self.aes(&uses)?;
        let key = self.aes(&[Attribute::Extractable(true), Attribute::Encrypt(true)])?;
        let wrapped = self.session.wrap_key(mechanism, wrapping, key).map_err(|e| text(&e));
        for object in [wrapping, key] {
            self.session.destroy_object(object).map_err(|e| text(&e))?;
        }
        // 32 bytes and the integrity check value (RFC 3394).
        match wrapped?.len() {
            40 => Ok(()),
            other => Err(format!("32 bytes are wrapped into {other}")),
        }
    }

    /// Decrypts what this machine has encrypted, under each hash.
    fn oaep(&self) -> Vec<(&'static str, Tried<()>)> {
        const HASHES: [(&str, MechanismType, PkcsMgfType, &OaepAlgorithm); 4] = [
            ("sha-1", MechanismType::SHA1, PkcsMgfType::MGF1_SHA1, &OAEP_SHA1_MGF1SHA1),
            ("sha-256", MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, &OAEP_SHA256_MGF1SHA256),
            ("sha-384", MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, &OAEP_SHA384_MGF1SHA384),
            ("sha-512", MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, &OAEP_SHA512_MGF1SHA512),
        ];
        let pair = self.listed("CKM_RSA_PKCS_OAEP").and_then(|()| self.rsa());
        let tried = HASHES.map(|(name, hash, mgf, algorithm)| {
            let outcome = pair.as_ref().map_err(Clone::clone).and_then(|(private, _, modulus)| {
                let sealed = sealed(modulus, algorithm)?;
                let label = PkcsOaepSource::data_specified(OAEP_LABEL);
                let mechanism = Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mgf, label));
                match self.session.decrypt(&mechanism, *private, &sealed) {
                    Ok(opened) if opened == [7; 32] => Ok(()),
                    Ok(_) => Err("it decrypts to something else".into()),
                    Err(error) => Err(text(&error)),
                }
            });
            (name, outcome)
        });
        if let Ok((private, public, _)) = pair {
            for object in [private, public] {
                // Whatever stays is found by its label, at the end.
                drop(self.session.destroy_object(object));
            }
        }
        tried.into()
    }

    /// A pair of RSA keys of 2,048 bits of this session's, with its modulus.
    fn rsa(&self) -> Tried<(ObjectHandle, ObjectHandle, Vec<u8>)> {
        let public = [
            Attribute::Token(false),
            Attribute::Encrypt(true),
            Attribute::ModulusBits(2048.into()),
            Attribute::PublicExponent(vec![1, 0, 1]),
            Attribute::Label(LABEL.into()),
        ];
        let private = [
            Attribute::Token(false),
            Attribute::Sensitive(true),
            Attribute::Decrypt(true),
            Attribute::Label(LABEL.into()),
        ];
        let made = self.session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private);
        let (public, private) = made.map_err(|e| text(&e))?;
        let read = self.session.get_attributes(public, &[AttributeType::Modulus]);
        match read.map_err(|e| text(&e))?.into_iter().next() {
            Some(Attribute::Modulus(modulus)) => Ok((private, public, modulus)),
            _ => Err("a public key can't be read".into()),
        }
    }

    /// The time of a search for a key that is not there, the best of three.
    fn find(&self) -> Tried<Duration> {
        let id = self.id()?;
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            keys::find(self.session, id).map_err(trial::fault)?;
            best = best.min(start.elapsed());
        }
        Ok(best)
    }

    fn listed(&self, mechanism: &str) -> Tried<()> {
        let listed = self.mechanisms.iter().any(|have| have == mechanism);
        if listed { Ok(()) } else { Err(format!("the token has no {mechanism}")) }
    }
}

/// 32 bytes, encrypted for the RSA key of this modulus and exponent 65,537.
fn sealed(modulus: &[u8], algorithm: &'static OaepAlgorithm) -> Tried<Vec<u8>> {
    let none = "a public key can't be used";
    let (n, e) = (modulus, &[1, 0, 1][..]);
    let key: PublicEncryptingKey =
        PublicKeyComponents { n, e }.try_into().map_err(|_| none.to_owned())?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| none.to_owned())?;
    let mut sealed = vec![0; key.ciphertext_size()];
    let written = key.encrypt(algorithm, &[7; 32], &mut sealed, Some(OAEP_LABEL));
    written.map(|sealed| sealed.to_vec()).map_err(|_| none.to_owned())
}

/// The ways in which a key may be made, the most confined first.
fn ways(kind: Kind, claimed: HmacKey) -> Vec<Quirks> {
    let mut forms = vec![claimed];
    if kind == Kind::Holds(Scheme::HmacKdf) {
        let others = [HmacKey::GenericSecret, HmacKey::Sha256Hmac, HmacKey::Nshield];
        forms.extend(others.into_iter().filter(|form| *form != claimed));
    }
    let mut ways = Vec::new();
    for hmac_key in forms {
        for bare_templates in [false, true] {
            for (allowed_mechanisms, modifiable) in
                [(true, true), (true, false), (false, true), (false, false)]
            {
                ways.push(Quirks { allowed_mechanisms, modifiable, bare_templates, hmac_key });
            }
        }
    }
    ways
}

/// A token's refusal, in few words: the name of the return value.
fn text(error: &Cryptoki) -> String {
    match error {
        Cryptoki::Pkcs11(value, function) => format!("{function:?}: {value:?}"),
        other => other.to_string(),
    }
}
