//! What is measured: the kinds of requests that a token serves all day.

use crate::clock::{SystemRandom, random_bytes};
use crate::custody::profile::Profile;
use crate::custody::{
    self, BackingKeyId, Made, NewSigner, Request, Response, Scheme, SigningScheme, TokenKey,
};
use crate::server::Error;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};

/// Random bytes in one request.
const RANDOM: usize = 32;

/// One kind of request.
pub(super) struct Work {
    pub(super) name: String,
    pub(super) request: Box<dyn Fn() -> Request + Send + Sync>,
}

/// The keys that are made for it, and destroyed at the end.
pub(super) struct Keys {
    pub(super) holder: BackingKeyId,
    pub(super) signer: BackingKeyId,
}

impl Keys {
    pub(super) fn new() -> Result<Self, Error> {
        let id = || random_bytes(&SystemRandom).map(BackingKeyId);
        Ok(Self { holder: id()?, signer: id()? })
    }
}

impl Work {
    fn new(name: &str, request: impl Fn() -> Request + Send + Sync + 'static) -> Self {
        Self { name: name.to_owned(), request: Box::new(request) }
    }

    /// What a token of this profile does, with keys of its preferred schemes, which `ask` makes.
    pub(super) async fn all(
        profile: &Profile,
        keys: &Keys,
        mut ask: impl AsyncFnMut(Request) -> custody::Result<Response>,
    ) -> Result<Vec<Self>, Error> {
        let mut all = Vec::new();
        if let Some(scheme) = profile.preferred_scheme() {
            match ask(Request::Generate { id: keys.holder, scheme }).await? {
                Response::Made(made) => all.push(Self::of_holder(keys.holder, scheme, made)?),
                _ => return Err(odd()),
            }
        }
        // Not every token gives some out.
        if !matches!(
            ask(Request::Random { len: RANDOM }).await,
            Err(custody::Error::Unsupported { .. })
        ) {
            let name = format!("random ({RANDOM} bytes)");
            all.push(Self::new(&name, || Request::Random { len: RANDOM }));
        }
        if let Some(scheme) = profile.signing.first().copied() {
            match ask(Request::GenerateSigner { id: keys.signer, scheme }).await? {
                Response::Signer(made) => all.push(Self::of_signer(keys.signer, scheme, made)),
                _ => return Err(odd()),
            }
        }
        Ok(all)
    }

    fn of_holder(id: BackingKeyId, scheme: Scheme, made: Made) -> Result<Self, Error> {
        let (key, check) = (TokenKey { id, wrapped: made.wrapped }, made.evidence.check);
        let public = made.public.unwrap_or_default();
        Ok(match scheme {
            Scheme::HmacKdf => Self::new("derive (hmac-kdf)", move || Request::Derive {
                key: key.clone(),
                check,
                input: vec![7; 64],
            }),
            Scheme::Ecdh => {
                let peer = peer()?;
                Self::new("agree (ecdh)", move || Request::Agree {
                    key: key.clone(),
                    check,
                    peer: peer.clone(),
                })
            }
            Scheme::RsaOaep => {
                let sealed = sealed(&public)?;
                Self::new("unwrap (rsa-oaep)", move || Request::Unwrap {
                    key: key.clone(),
                    check,
                    ciphertext: sealed.clone(),
                })
            }
        })
    }

    fn of_signer(id: BackingKeyId, scheme: SigningScheme, made: NewSigner) -> Self {
        let key = TokenKey { id, wrapped: made.wrapped };
        let name = match scheme {
            SigningScheme::Ed25519 => "sign (ed25519)",
            SigningScheme::EcdsaP256 => "sign (ecdsa-p256)",
        };
        Self::new(name, move || Request::Sign {
            key: key.clone(),
            scheme,
            public: made.public.clone(),
            message: vec![7; 64],
        })
    }
}

fn odd() -> Error {
    Error::Refused("the token answered another question than was asked".into())
}

/// Another's public key.
fn peer() -> Result<Vec<u8>, Error> {
    let key = PrivateKey::generate(&ECDH_P256).and_then(|key| key.compute_public_key());
    let key = key.map_err(|_| Error::Refused("this machine makes no keys".into()))?;
    Ok(key.as_ref().to_vec())
}

/// 32 bytes, encrypted for an RSA key.
fn sealed(public: &[u8]) -> Result<Vec<u8>, Error> {
    let odd = || Error::Refused("the token gave a public key that can't be used".into());
    custody::oaep::encrypt(public, &[7; 32]).ok_or_else(odd)
}
