//! Published keys (JWK) and the algorithms that they verify.

use super::Error;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The most keys that one issuer may publish.
pub(super) const MAX_KEYS: usize = 100;

/// The signature algorithms that are accepted (RFC 7518, 3.1; RFC 8037, 3.1): none with a secret
/// that the verifier would know too, none without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    const ALL: [(&'static str, Self); 9] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// What an RSA key must be asked for; nothing if the algorithm is not RSA's.
    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 | Self::Es384 | Self::EdDsa => None,
        }
    }
}

/// What an issuer publishes, as far as it can be used.
pub(super) struct KeySet(Vec<Key>);

/// One published key.
pub(super) struct Key {
    id: Option<String>,
    /// The one algorithm that it is published for, if it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    /// Published for something else than signatures.
    OtherUse,
    Unusable(&'static str),
}

#[derive(Deserialize)]
struct WrittenSet<'j> {
    #[serde(borrow)]
    keys: Vec<&'j RawValue>,
}

#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Why what an issuer publishes is no key set.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetError {
    /// Not the JSON of RFC 7517, 5.
    #[error("it is no JSON Web Key Set: {0}")]
    Malformed(#[from] serde_json::Error),
    /// More keys than are looked at.
    #[error("it has {0} keys, and {MAX_KEYS} are the limit")]
    TooMany(usize),
}

impl KeySet {
    /// Reads a JSON Web Key Set. A key that can't be used is kept as such, so that a token which
    /// names it is told why; what is no key at all is passed over (RFC 7517, 5).
    pub(super) fn parse(json: &[u8]) -> Result<Self, SetError> {
        let written: WrittenSet<'_> = serde_json::from_slice(json)?;
        if written.keys.len() > MAX_KEYS {
            return Err(SetError::TooMany(written.keys.len()));
        }
        let key = |raw: &&RawValue| serde_json::from_str::<WrittenKey>(raw.get()).ok();
        Ok(Self(written.keys.iter().filter_map(key).map(Key::read).collect()))
    }

    /// Whether a key of this id is here; without an id, whether any key is.
    pub(super) fn knows(&self, id: Option<&str>) -> bool {
        self.0.iter().any(|key| id.is_none() || key.id.as_deref() == id)
    }

    /// The key of this id for this algorithm. A token without an id is taken only where a single
    /// key fits its algorithm, so that there is no choice to make.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, Error> {
        let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let mut fitting = self.0.iter().filter(named).filter(|key| key.fits(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (Some(key), Some(_)) if id.is_some() => Ok(key),
            (Some(_), Some(_)) => Err(Error::UnknownKey),
            (None, _) => Err(self.misfit(id)),
        }
    }

    fn misfit(&self, id: Option<&str>) -> Error {
        let key = id.and_then(|_| self.0.iter().find(|key| key.id.as_deref() == id));
        match key.map(|key| &key.material) {
            None => Error::UnknownKey,
            Some(Material::Unusable(why)) => Error::UnusableKey(why),
            Some(_) => Error::KeyMismatch,
        }
    }
}

impl Key {
    fn read(written: WrittenKey) -> Self {
        let algorithm = written.alg.as_deref().map(Algorithm::named);
        let verifies = written.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && written.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let material = match algorithm {
            _ if !verifies => Material::OtherUse,
            // Published for an algorithm that is not accepted.
            Some(None) => Material::OtherUse,
            _ => Material::read(&written),
        };
        Self { id: written.kid, algorithm: algorithm.flatten(), material }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let of_type = match self.material {
            Material::Rsa { .. } => algorithm.rsa().is_some(),
            Material::P256(_) => algorithm == Algorithm::Es256,
            Material::P384(_) => algorithm == Algorithm::Es384,
            Material::Ed25519(_) => algorithm == Algorithm::EdDsa,
            Material::OtherUse | Material::Unusable(_) => false,
        };
        of_type && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether `signature` over `message` is this key's.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Error> {
        let by = |how: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key).verify(message, signature)
        };
        let outcome = match &self.material {
            Material::Rsa { n, e } => {
                let parameters = algorithm.rsa().ok_or(Error::KeyMismatch)?;
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            Material::P256(point) => by(&ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => by(&ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(point) => by(&ED25519, point),
            Material::OtherUse | Material::Unusable(_) => return Err(Error::KeyMismatch),
        };
        outcome.map_err(|_| Error::Signature)
    }
}

impl Material {
    fn read(written: &WrittenKey) -> Self {
        let curve = written.crv.as_deref();
        match (written.kty.as_str(), curve) {
            ("RSA", _) => Self::rsa(written).unwrap_or(Self::Unusable("its numbers are damaged")),
            ("EC", Some("P-256")) => Self::point(written, 32).map_or(DAMAGED, Self::P256),
            ("EC", Some("P-384")) => Self::point(written, 48).map_or(DAMAGED, Self::P384),
            ("OKP", Some("Ed25519")) => {
                let x = number(written.x.as_ref()).filter(|x| x.len() == 32);
                x.map_or(DAMAGED, Self::Ed25519)
            }
            _ => Self::Unusable("its type or curve is not supported"),
        }
    }

    /// RFC 7518, 6.3.1: 2,048 to 8,192 bits.
    fn rsa(written: &WrittenKey) -> Option<Self> {
        let n = without_zeros(number(written.n.as_ref())?);
        let e = without_zeros(number(written.e.as_ref())?);
        let first = n.first()?;
        let bits = n.len() * 8 - usize::try_from(first.leading_zeros()).ok()?;
        Some(match bits {
            ..2048 => Self::Unusable("an RSA key must have 2048 bits at least"),
            8193.. => Self::Unusable("an RSA key must have 8192 bits at most"),
            _ => Self::Rsa { n, e },
        })
    }

    /// RFC 7518, 6.2.1, as SEC 1 writes a point: 4, then both coordinates in full.
    fn point(written: &WrittenKey, size: usize) -> Option<Vec<u8>> {
        let coordinate = |written| number(written).filter(|bytes| bytes.len() == size);
        let (x, y) = (coordinate(written.x.as_ref())?, coordinate(written.y.as_ref())?);
        Some([&[4], x.as_slice(), &y].concat())
    }
}

const DAMAGED: Material = Material::Unusable("its point is damaged");

fn number(text: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

/// Some issuers write a number's sign byte too.
fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.into_iter().skip(zeros).collect()
}
