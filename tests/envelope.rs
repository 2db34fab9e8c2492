//! The published vectors of the envelope, through a real SoftHSM token: each backing key is brought
//! in, then every envelope is made again byte for byte, opened, or refused.
//!
//! As in `tests/custody.rs`, each scenario runs in a process of its own.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use strongroom::clock::{NoRandomness, Random, Time};
use strongroom::custody::lane::{Lane, Options};
use strongroom::custody::pkcs11::init_token;
use strongroom::custody::profile::Profile;
use strongroom::custody::{self, Access, BackingKeyId, KeyCheck, Locator, Scheme};
use strongroom::envelope::context::Context;
use strongroom::envelope::store_key::{StoreKey, WrappedStoreKey};
use strongroom::envelope::{Envelope, Envelopes, Error, value};
use strongroom::secret::{Key as SecretKey, Secret};
use strongroom::store::keys::{Backing, Key, KeyHolder, KeyManager, KeyState};

const CHILD: &str = "STRONGROOM_TEST_ENVELOPE";
const LABEL: &str = "strongroom test";

// ---- vectors ---------------------------------------------------------------------------------

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Valid,
    Invalid,
}

/// Bytes in hex.
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
        let digits = digits.ok_or_else(|| serde::de::Error::custom("not hex"))?;
        let byte = |pair: &[u32]| u8::try_from(pair.iter().fold(0, |n, digit| n * 16 + digit));
        let bytes: Result<_, _> = digits.chunks(2).map(byte).collect();
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

impl Hex {
    fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().expect("the right length")
    }
}

#[derive(Deserialize)]
struct EnvelopeVector {
    why: String,
    result: Outcome,
    account: String,
    region: String,
    key_id: String,
    scheme: Scheme,
    backing_key_id: Hex,
    backing_key: Hex,
    nonce: Hex,
    context: Context,
    plaintext: Hex,
    envelope: Hex,
}

#[derive(Deserialize)]
struct ValueVector {
    why: String,
    result: Outcome,
    data_key: Hex,
    secret_arn: String,
    version_id: String,
    kind: String,
    value: Hex,
    sealed: Hex,
}

#[derive(Deserialize)]
struct StoreKeyVector {
    site: String,
    backing_key: Hex,
    backing_key_id: Hex,
    nonce: Hex,
    store_key: Hex,
    wrapped: Hex,
    derived_label: String,
    derived: Hex,
}

fn vectors<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/vectors/envelope/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("vectors");
    serde_json::from_str(&text).expect("as described")
}

// ---- the token -------------------------------------------------------------------------------

/// Runs `scenario` in a process of its own, with an empty token directory.
fn alone(scenario: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let tokens = directory.path().join("tokens");
    std::fs::create_dir(&tokens).expect("tokens");
    let configuration = directory.path().join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
    std::fs::write(&configuration, text).expect("configuration");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &format!("scenarios::{scenario}"), "--ignored", "--nocapture"])
        .env(CHILD, directory.path())
        .envs(profile().environment(Some(Path::new(&configuration))))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && text.contains("1 passed");
    assert!(ran, "{scenario}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn profile() -> Profile {
    Profile::built_in("softhsm2").expect("sound")
}

fn lane() -> Lane {
    assert!(std::env::var(CHILD).is_ok(), "run by the test of the same name");
    let pin = || Secret::copy_of(b"a user pin");
    let officer = Secret::copy_of(b"an officer's pin");
    init_token(&profile(), None, LABEL, &officer, &pin()).expect("a token");
    let token = Locator::Label(LABEL.into());
    let access = Access { token, pin: pin(), module: None, device: None };
    custody::open(profile(), access, &Options::default()).expect("a lane")
}

fn run(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(scenario);
}

/// A generator that delivers what it was given, and then nothing.
struct Given(Mutex<Vec<u8>>);

impl Given {
    fn new(bytes: &[&Hex]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(bytes.iter().flat_map(|hex| hex.0.clone()).collect())))
    }
}

impl Random for Given {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        let mut left = self.0.lock().expect("one thread");
        let taken = out.len().min(left.len());
        let rest = left.split_off(taken);
        let next = std::mem::replace(&mut *left, rest);
        out.copy_from_slice(next.get(..out.len()).ok_or(NoRandomness)?);
        Ok(())
    }
}

/// Brings backing keys in, each once.
struct Tokens {
    lane: Lane,
    checks: HashMap<[u8; 16], KeyCheck>,
}

impl Tokens {
    async fn bring(&mut self, id: &Hex, material: &Hex) -> (BackingKeyId, KeyCheck) {
        let id: [u8; 16] = id.array();
        if !self.checks.contains_key(&id) {
            let material = SecretKey::take(&mut material.array());
            let made = self.lane.import(BackingKeyId(id), Scheme::HmacKdf, material).await;
            self.checks.insert(id, made.expect("brought in").evidence.check);
        }
        (BackingKeyId(id), self.checks.get(&id).copied().expect("known"))
    }
}

fn holder(lane: &Lane, (key, check): (BackingKeyId, KeyCheck)) -> KeyHolder {
    KeyHolder { key, token: lane.info().serial.clone(), check, wrapped: None, public: None }
}

fn kms_key(vector: &EnvelopeVector, holder: KeyHolder) -> Key {
    let backing = Backing {
        id: holder.key,
        scheme: vector.scheme,
        holders: vec![holder],
        authenticator: None,
        created: Time(0),
        material_id: String::new(),
        rotation: None,
        imported: false,
    };
    Key {
        id: vector.key_id.clone(),
        account: vector.account.clone(),
        description: String::new(),
        state: KeyState::Enabled,
        manager: KeyManager::Customer,
        created: Time(0),
        due: None,
        window_days: None,
        policy: String::new(),
        policy_holders: Vec::new(),
        tags: vec![],
        backing: vec![backing],
        rotation: None,
        store: None,
        resealing: false,
        revision: 0,
        made: Default::default(),
    }
}

#[test]
fn the_token_makes_opens_and_refuses_the_published_envelopes() {
    alone("envelopes");
}

#[test]
fn the_token_wraps_and_unwraps_the_published_store_key() {
    alone("store_keys");
}

#[test]
fn sealed_values_are_as_published() {
    for vector in vectors::<ValueVector>("value") {
        let ValueVector { why, secret_arn, version_id, .. } = &vector;
        let key = SecretKey::take(&mut vector.data_key.array());
        let kind = if vector.kind == "S" { value::Kind::Text } else { value::Kind::Binary };
        let given = Secret::copy_of(&vector.value.0);
        let made = value::seal(&key, secret_arn, version_id, kind, &given).expect("seals");
        let opened = value::open(&key, secret_arn, version_id, &vector.sealed.0);
        match vector.result {
            Outcome::Valid => {
                assert_eq!(made, vector.sealed.0, "{why}");
                let (found, opened) = opened.expect("opens");
                assert_eq!((found, opened.expose()), (kind, given.expose()), "{why}");
            }
            Outcome::Invalid => assert!(matches!(opened, Err(Error::Invalid)), "{why}"),
        }
    }
}

/// Not tests of their own: each is run by the test above that names it.
mod scenarios {
    use super::*;

    #[test]
    #[ignore = "run in its own process"]
    fn envelopes() {
        let mut tokens = Tokens { lane: lane(), checks: HashMap::new() };
        run(async {
            for vector in vectors::<EnvelopeVector>("envelope") {
                let backing = tokens.bring(&vector.backing_key_id, &vector.backing_key).await;
                let key = kms_key(&vector, holder(&tokens.lane, backing));
                let random = Given::new(&[&vector.nonce]);
                let known = custody::tokens::Tokens::one(tokens.lane.clone());
                let envelopes = Envelopes::new(known, random, &vector.region);
                let (why, context) = (&vector.why, &vector.context);
                let made = envelopes.seal(&key, context, &vector.plaintext.0).await.expect("seals");
                let opened = match Envelope::parse(&vector.envelope.0) {
                    Ok(envelope) => envelopes.open(&key, context, envelope).await,
                    Err(error) => Err(error),
                };
                match vector.result {
                    Outcome::Valid => {
                        assert_eq!(made, vector.envelope.0, "{why}");
                        let opened = opened.unwrap_or_else(|error| panic!("{why}: {error}"));
                        assert_eq!(opened.expose(), vector.plaintext.0, "{why}");
                    }
                    Outcome::Invalid => assert!(matches!(opened, Err(Error::Invalid)), "{why}"),
                }
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn store_keys() {
        let mut tokens = Tokens { lane: lane(), checks: HashMap::new() };
        run(async {
            for vector in vectors::<StoreKeyVector>("store-key") {
                let (id, check) = tokens.bring(&vector.backing_key_id, &vector.backing_key).await;
                let random = Given::new(&[&vector.store_key, &vector.nonce]);
                let key = StoreKey::create(&*random).expect("made");
                let holder = (holder(&tokens.lane, (id, check)), Scheme::HmacKdf);
                let wrap = key.wrap(&tokens.lane, &*random, &vector.site, holder).await;
                let wrap = wrap.expect("wraps");
                let shown = serde_json::to_value(&wrap).expect("a document");
                assert_eq!(shown.get("wrapped"), Some(&base64(&vector.wrapped.0)));
                assert_eq!(shown.get("nonce"), Some(&base64(&vector.nonce.0)));
                let known = custody::tokens::Tokens::one(tokens.lane.clone());
                let wrapped = WrappedStoreKey { wraps: vec![wrap] };
                let opened = StoreKey::unwrap(&known, &vector.site, &wrapped).await;
                let derived = opened.expect("unwraps").derive(&vector.derived_label);
                assert_eq!(derived.expect("derives").expose().as_slice(), vector.derived.0);
                let elsewhere = StoreKey::unwrap(&known, "eu-central-2", &wrapped).await;
                assert!(matches!(elsewhere, Err(Error::Invalid)), "another site");
            }
        });
    }

    fn base64(bytes: &[u8]) -> serde_json::Value {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(bytes).into()
    }
}
