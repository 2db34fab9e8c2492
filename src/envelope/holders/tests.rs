use super::super::store_key::{NOBODY, StoreKey, WrappedStoreKey};
use super::super::{Envelope, Envelopes, HEADER, Resealed};
use super::*;
use crate::clock::{SystemRandom, Time};
use crate::custody::lane::{Lane, Options};
use crate::custody::profile::Profile;
use crate::custody::tokens::Member;
use crate::custody::{Driver, Health, Request, Response, Token, TokenInfo, Worker};
use crate::store::keys::{Key as KmsKey, KeyManager, KeyState};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::OAEP_SHA256_MGF1SHA256;
use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

type Context = BTreeMap<String, String>;

const PROFILE: &str = "name = 'test'\ntitle = 't'\nkind = 'tpm'\nsoftware = true\nstatement = 's'\n\
                       schemes = ['ecdh', 'rsa-oaep']\n[limits]\nsessions = 4\nrandom_bytes = 32\n";

enum Private {
    Ec(agreement::PrivateKey),
    Rsa(OaepPrivateDecryptingKey),
}

/// A token in memory: what the envelope is tested against. Real tokens do the same in
/// tests/custody.rs.
struct Fake {
    info: TokenInfo,
    keys: Mutex<HashMap<BackingKeyId, Private>>,
    calls: AtomicUsize,
    away: AtomicBool,
}

struct Seat(Arc<Fake>);

impl Driver for Fake {
    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(Seat(self))
    }
}

impl Token for Fake {
    fn info(&self) -> &TokenInfo {
        &self.info
    }
    fn health(&self) -> Health {
        Health { up: !self.away.load(Ordering::SeqCst), why: None, epoch: 1, waiting: 0, seated: 0 }
    }
}

impl Worker for Seat {
    fn serve(&mut self, request: &Request) -> custody::Result<Response> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        if self.0.away.load(Ordering::SeqCst) {
            let token = self.0.info.serial.clone();
            return Err(custody::Error::Unavailable { token, why: "away".into() });
        }
        let keys = self.0.keys.lock();
        let secret = match request {
            Request::Agree { key, peer, .. } => match keys.get(&key.id) {
                Some(Private::Ec(private)) => {
                    let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, peer);
                    agreement::agree(private, peer, (), |agreed| Ok(agreed.to_vec())).ok()
                }
                _ => None,
            },
            Request::Unwrap { key, ciphertext, .. } => match keys.get(&key.id) {
                Some(Private::Rsa(private)) => {
                    let mut out = vec![0; private.min_output_size()];
                    let label = Some(custody::OAEP_LABEL);
                    private
                        .decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut out, label)
                        .map(|plaintext| plaintext.to_vec())
                        .ok()
                }
                _ => None,
            },
            _ => None,
        };
        let secret = secret.and_then(|bytes| Key::from_secret(&Secret::new(bytes)));
        secret.map(Response::MessageSecret).ok_or(custody::Error::BadRequest("refused"))
    }
}

impl Fake {
    fn new(serial: &str) -> Arc<Self> {
        let text = String::new;
        let info =
            TokenInfo { label: text(), serial: serial.into(), manufacturer: text(), model: text() };
        let (calls, away) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { info, keys: Mutex::default(), calls, away })
    }

    /// A key with this id, as a holder.
    fn holder(&self, id: u8, scheme: Scheme) -> KeyHolder {
        let key = BackingKeyId([id; 16]);
        let (private, public) = match scheme {
            Scheme::RsaOaep => {
                let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key");
                let public = private.public_key().as_der().expect("DER").as_ref().to_vec();
                let private = OaepPrivateDecryptingKey::new(private).expect("for OAEP");
                (Private::Rsa(private), public)
            }
            _ => {
                let private =
                    agreement::PrivateKey::generate(&agreement::ECDH_P256).expect("a key");
                let public = private.compute_public_key().expect("public").as_ref().to_vec();
                (Private::Ec(private), public)
            }
        };
        self.keys.lock().insert(key, private);
        KeyHolder {
            key,
            token: self.info.serial.clone(),
            check: KeyCheck::of_public(&public),
            wrapped: None,
            public: Some(PublicKey(public.into())),
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn tokens(fakes: &[&Arc<Fake>]) -> Tokens {
    let member = |fake: &&Arc<Fake>| {
        let settings = Options::default().check(&Profile::parse(PROFILE).expect("sound"));
        let lane = Lane::of_driver((*fake).clone(), settings.expect("sound")).expect("a lane");
        Member::reached(&fake.info.serial, lane)
    };
    Tokens::new(fakes.iter().map(member).collect()).expect("tokens")
}

fn envelopes(tokens: Tokens) -> Envelopes {
    Envelopes::new(tokens, Arc::new(SystemRandom), "eu-central-1")
}

fn kms_key(scheme: Scheme, holders: Vec<KeyHolder>, envelopes: &Envelopes) -> KmsKey {
    let mut backing = Backing {
        id: BackingKeyId([1; 16]),
        scheme,
        holders,
        authenticator: None,
        created: Time(0),
        material_id: String::new(),
        rotation: None,
        imported: false,
    };
    backing.authenticator = Some(envelopes.new_authenticator(&backing).expect("sealed"));
    KmsKey {
        id: "1234abcd-12ab-34cd-56ef-1234567890ab".into(),
        account: "111122223333".into(),
        description: String::new(),
        state: KeyState::Enabled,
        manager: KeyManager::Customer,
        created: Time(0),
        due: None,
        window_days: None,
        policy: String::new(),
        policy_holders: vec![],
        tags: vec![],
        backing: vec![backing],
        rotation: None,
        store: None,
        resealing: false,
        revision: 0,
        made: Default::default(),
    }
}

async fn opened(envelopes: &Envelopes, key: &KmsKey, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let envelope = Envelope::parse(bytes)?;
    let plaintext = envelopes.open(key, &Context::new(), envelope).await?;
    Ok(plaintext.expose().to_vec())
}

#[tokio::test]
async fn any_one_holder_opens_what_was_sealed_to_all() {
    for scheme in [Scheme::Ecdh, Scheme::RsaOaep] {
        let (a, b) = (Fake::new("a"), Fake::new("b"));
        let envelopes = envelopes(tokens(&[&a, &b]));
        let key = kms_key(scheme, vec![a.holder(1, scheme), b.holder(2, scheme)], &envelopes);
        let sealed = envelopes.seal(&key, &Context::new(), b"hunter2").await.expect("sealed");
        for away in [&a, &b] {
            away.away.store(true, Ordering::SeqCst);
            assert_eq!(opened(&envelopes, &key, &sealed).await.expect("opens"), b"hunter2");
            away.away.store(false, Ordering::SeqCst);
        }
        for fake in [&a, &b] {
            fake.away.store(true, Ordering::SeqCst);
        }
        assert!(matches!(opened(&envelopes, &key, &sealed).await, Err(Error::Custody(_))));
    }
}

#[tokio::test]
async fn sealing_asks_no_token_once_the_authenticator_is_open() {
    let a = Fake::new("a");
    let envelopes = envelopes(tokens(&[&a]));
    let key = kms_key(Scheme::Ecdh, vec![a.holder(1, Scheme::Ecdh)], &envelopes);
    for _ in 0..3 {
        envelopes.seal(&key, &Context::new(), b"x").await.expect("sealed");
    }
    assert_eq!(a.calls(), 1);
}

#[tokio::test]
async fn one_altered_byte_is_refused_before_a_token_is_asked() {
    for scheme in [Scheme::Ecdh, Scheme::RsaOaep] {
        let a = Fake::new("a");
        let envelopes = envelopes(tokens(&[&a]));
        let key = kms_key(scheme, vec![a.holder(1, scheme)], &envelopes);
        let sealed = envelopes.seal(&key, &Context::new(), b"x").await.expect("sealed");
        let before = a.calls();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            let refused = opened(&envelopes, &key, &altered).await;
            assert!(matches!(refused, Err(Error::Invalid)), "{at}");
            assert!(opened(&envelopes, &key, &sealed[..at]).await.is_err(), "{at}");
        }
        assert_eq!(a.calls(), before);
    }
}

#[tokio::test]
async fn who_has_the_public_keys_alone_makes_no_envelope() {
    let (a, forger) = (Fake::new("a"), Fake::new("f"));
    let holder = a.holder(1, Scheme::Ecdh);
    let envelopes = envelopes(tokens(&[&a, &forger]));
    let key = kms_key(Scheme::Ecdh, vec![holder.clone()], &envelopes);
    // A forger seals to the same public key with an authenticator of their own.
    let own = forger.holder(1, Scheme::Ecdh);
    let mut forged = kms_key(Scheme::Ecdh, vec![own.clone()], &envelopes);
    let theirs = Envelopes::new(tokens(&[&forger]), Arc::new(SystemRandom), "eu-central-1");
    theirs.seal(&forged, &Context::new(), b"x").await.expect("opens their authenticator");
    forged.backing[0].holders = vec![holder];
    let sealed = theirs.seal(&forged, &Context::new(), b"forged").await.expect("sealed");
    envelopes.seal(&key, &Context::new(), b"x").await.expect("opens the authenticator");
    let before = a.calls();
    assert!(matches!(opened(&envelopes, &key, &sealed).await, Err(Error::Invalid)));
    assert_eq!(a.calls(), before);
}

#[tokio::test]
async fn an_envelope_is_sealed_to_other_holders_without_its_body_being_touched() {
    let (a, b) = (Fake::new("a"), Fake::new("b"));
    let before = envelopes(tokens(&[&a, &b]));
    let one = kms_key(Scheme::Ecdh, vec![a.holder(1, Scheme::Ecdh)], &before);
    let sealed = before.seal(&one, &Context::new(), b"x").await.expect("sealed");
    let mut both = one.clone();
    both.backing[0].holders.push(b.holder(2, Scheme::Ecdh));
    let (first, then) = (&one.backing[0], &both.backing[0]);
    let authenticator = before.reseal_authenticator(first, then).await.expect("sealed");
    both.backing[0].authenticator = Some(authenticator);

    let envelope = Envelope::parse(&sealed).expect("parses");
    let reseal = async |envelope: &Envelope, away: &mut Away| {
        before.reseal(&both, &Context::new(), envelope, away).await.expect("no fault")
    };
    let Resealed::Fresh(fresh) = reseal(&envelope, &mut Away::default()).await else {
        panic!("it was for one holder")
    };
    assert_eq!(fresh[..HEADER], sealed[..HEADER]);
    assert_eq!(fresh[fresh.len() - 17..], sealed[sealed.len() - 17..]);
    let again = Envelope::parse(&fresh).expect("parses");
    assert_eq!(reseal(&again, &mut Away::default()).await, Resealed::Already);

    // While the one that can open it is away it is asked once, however many wait.
    a.away.store(true, Ordering::SeqCst);
    let (mut away, asked) = (Away::default(), a.calls());
    for _ in 0..3 {
        assert_eq!(reseal(&envelope, &mut away).await, Resealed::Waits(vec!["a".into()]));
    }
    assert_eq!(a.calls(), asked + 1);

    // Another process, in which the first token is gone for good.
    let after = envelopes(tokens(&[&a, &b]));
    assert_eq!(opened(&after, &both, &fresh).await.expect("opens"), b"x");
    assert!(opened(&after, &both, &sealed).await.is_err(), "it was for the first alone");
}

#[tokio::test]
async fn as_many_hold_a_key_as_leave_room_for_the_longest_plaintext() {
    let a = Fake::new("a");
    let envelopes = envelopes(tokens(&[&a]));
    for (scheme, most) in [(Scheme::Ecdh, MOST), (Scheme::RsaOaep, 7)] {
        let holder = a.holder(1, scheme);
        let key = kms_key(scheme, vec![holder.clone(); most], &envelopes);
        let sealed = envelopes.seal(&key, &Context::new(), &[7; 4096]).await.expect("sealed");
        assert!(sealed.len() <= MAX_LEN, "{}", sealed.len());
        let mut more = key.backing[0].clone();
        more.holders.push(holder);
        assert!(matches!(envelopes.new_authenticator(&more), Err(Error::TooLong)), "{scheme:?}");
    }
}

#[tokio::test]
async fn the_store_key_is_held_by_several_tokens_and_by_no_public_key() {
    let (a, b) = (Fake::new("a"), Fake::new("b"));
    let all = tokens(&[&a, &b]);
    let key = StoreKey::create(&SystemRandom).expect("made");
    let mut wraps = Vec::new();
    for fake in [&a, &b] {
        let lane = all.of(&fake.info.serial).expect("there");
        let holder = (fake.holder(1, Scheme::Ecdh), Scheme::Ecdh);
        wraps.push(key.wrap(lane, &SystemRandom, "eu-central-1", holder).await.expect("wrapped"));
    }
    let rsa = (a.holder(2, Scheme::RsaOaep), Scheme::RsaOaep);
    let lane = all.of("a").expect("there");
    assert!(key.wrap(lane, &SystemRandom, "eu-central-1", rsa).await.is_err());
    let wrapped = WrappedStoreKey { wraps };
    let wanted = key.derive("x").expect("derives");
    for away in [&a, &b] {
        away.away.store(true, Ordering::SeqCst);
        let opened = StoreKey::unwrap(&all, "eu-central-1", &wrapped).await.expect("unwraps");
        assert_eq!(opened.derive("x").expect("derives").expose(), wanted.expose());
        assert!(StoreKey::unwrap(&all, "eu-central-2", &wrapped).await.is_err());
        away.away.store(false, Ordering::SeqCst);
    }
}

/// Nobody chose the point: its x-coordinate is a hash. That it is on the curve the agreement checks.
#[test]
fn nobody_s_point_is_as_it_is_said_to_be() {
    let hash = digest::digest(&digest::SHA256, b"strongroom point of nobody v1\x00");
    assert_eq!(NOBODY[1..33], *hash.as_ref());
    assert_eq!((NOBODY[0], NOBODY[64] & 1), (4, 0));
    let private = agreement::PrivateKey::generate(&agreement::ECDH_P256).expect("a key");
    let point = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, NOBODY);
    agreement::agree(&private, point, (), |_| Ok(())).expect("on the curve");
}

proptest! {
    #[test]
    fn arbitrary_wraps_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..700),
        count in 0u8..20,
    ) {
        let mut counted = vec![count];
        counted.extend(&bytes);
        for scheme in [Scheme::Ecdh, Scheme::RsaOaep] {
            for bytes in [&bytes, &counted] {
                if let Some(wraps) = Wraps::parse(scheme, bytes) {
                    prop_assert!((1..=MOST).contains(&wraps.entries.len()));
                }
                if let Ok(room) = room(scheme, bytes) {
                    prop_assert!(room < bytes.len());
                }
            }
        }
    }
}

/// A published vector: tests/vectors/envelope/holders.json, made by another implementation.
#[derive(serde::Deserialize)]
struct Vector {
    why: String,
    result: String,
    account: String,
    region: String,
    key_id: String,
    backing_key_id: String,
    holders: Vec<String>,
    authenticator: String,
    nonce: String,
    shared_secret: String,
    ephemeral_key: String,
    context: Context,
    plaintext: String,
    envelope: String,
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

fn key(hex: &str) -> Key {
    Key::take(&mut bytes(hex).try_into().expect("32 bytes"))
}

/// A generator that delivers what it was given.
struct Given(Mutex<std::collections::VecDeque<u8>>);

impl Random for Given {
    fn fill(&self, out: &mut [u8]) -> Result<(), crate::clock::NoRandomness> {
        let mut left = self.0.lock();
        for byte in out {
            *byte = left.pop_front().ok_or(crate::clock::NoRandomness)?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn envelopes_are_as_published_and_altered_ones_are_refused() {
    let vectors = include_str!("../../../tests/vectors/envelope/holders.json");
    let vectors: Vec<Vector> = serde_json::from_str(vectors).expect("vectors");
    assert!(vectors.iter().any(|v| v.result == "valid") && vectors.len() > 8);
    for vector in vectors {
        let fake = Fake::new("a");
        let id = BackingKeyId(bytes(&vector.backing_key_id).try_into().expect("16 bytes"));
        let holders = (1..).zip(&vector.holders).map(|(n, number)| {
            let curve = &agreement::ECDH_P256;
            let private = agreement::PrivateKey::from_private_key(curve, &bytes(number));
            let private = private.expect("a key");
            let public = private.compute_public_key().expect("public").as_ref().to_vec();
            fake.keys.lock().insert(BackingKeyId([n; 16]), Private::Ec(private));
            KeyHolder {
                key: BackingKeyId([n; 16]),
                token: "a".into(),
                check: KeyCheck::of_public(&public),
                wrapped: None,
                public: Some(PublicKey(public.into())),
            }
        });
        let holders: Vec<_> = holders.collect();
        let tokens = tokens(&[&fake]);
        let mut kms = kms_key(Scheme::Ecdh, holders, &envelopes(tokens.clone()));
        kms.id.clone_from(&vector.key_id);
        kms.account.clone_from(&vector.account);
        let backing = &mut kms.backing[0];
        backing.id = id;
        let authenticator = Authenticator::new(key(&vector.authenticator)).expect("made");
        backing.authenticator = Some(authenticator.sealed(&SystemRandom, backing).expect("sealed"));

        let drawn = [&vector.nonce, &vector.shared_secret, &vector.ephemeral_key];
        let random = Given(Mutex::new(drawn.iter().flat_map(|hex| bytes(hex)).collect()));
        let envelopes = Envelopes::new(tokens, Arc::new(random), &vector.region);
        let plaintext = bytes(&vector.plaintext);
        let made = envelopes.seal(&kms, &vector.context, &plaintext).await.expect("sealed");
        let published = bytes(&vector.envelope);
        let opened = match Envelope::parse(&published) {
            Ok(envelope) => envelopes.open(&kms, &vector.context, envelope).await,
            Err(error) => Err(error),
        };
        let why = &vector.why;
        if vector.result == "valid" {
            assert_eq!(made, published, "{why}");
            assert_eq!(opened.expect(why).expose(), plaintext, "{why}");
        } else {
            assert_ne!(made, published, "{why}");
            assert!(matches!(opened, Err(Error::Invalid)), "{why}");
        }
    }
}
