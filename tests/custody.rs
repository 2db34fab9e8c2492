//! Custody against real tokens of two makers: one suite, which each of them passes; what a token's
//! profile says that it can't do is asked for all the same and must fail as told.
//!
//! A module keeps one state per process and reads its configuration when it is loaded, so each
//! scenario runs in a process of its own: a test starts this same binary again with the scenario's
//! name, and the token's profile and the module's configuration in the environment.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "custody/crashing.rs"]
mod crashing;
#[path = "custody/faulty.rs"]
mod faulty;
#[path = "custody/shim.rs"]
mod shim;
#[cfg(feature = "tpm")]
#[path = "custody/tpm.rs"]
mod tpm;

use aws_lc_rs::agreement::{
    self, ECDH_P256, PrivateKey, UnparsedPublicKey as UnparsedAgreementKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strongroom::clock::SystemRandom;
use strongroom::custody::child::{self, Program};
use strongroom::custody::claims::{Verdict, findings, proposal};
use strongroom::custody::lane::{Lane, Options};
use strongroom::custody::oaep::encrypt;
use strongroom::custody::pkcs11::init_token;
use strongroom::custody::pkcs11::probe::{Found, Target, probe};
use strongroom::custody::profile::Profile;
use strongroom::custody::{
    self, Access, BackingKeyId, Error, KeyCheck, Locator, Scheme, SigningScheme, TokenKey,
};
use strongroom::secret::{Key, Secret};

const DIRECTORY: &str = "STRONGROOM_TEST_DIRECTORY";
const PROFILE: &str = "STRONGROOM_TEST_PROFILE";
/// Set where the driver is to run in a process of its own.
const APART: &str = "STRONGROOM_TEST_APART";
/// The module's own configuration, in the directory.
const CONFIGURATION: &str = "module.conf";
const PIN: &str = "a user pin";
const SO_PIN: &str = "an officer's pin";
const LABEL: &str = "strongroom test";
const ID: BackingKeyId = BackingKeyId([1; 16]);
const OTHER: BackingKeyId = BackingKeyId([2; 16]);

// ---- processes -------------------------------------------------------------------------------

/// Runs `scenario` in a process of its own, with an empty token folder.
fn alone(name: &str, scenario: &str) {
    prepared(name, scenario, &[]);
}

/// The same on SoftHSM with the driver in a process of its own.
fn apart(scenario: &str) {
    prepared("softhsm2", scenario, &[(APART, "1")]);
}

fn prepared(name: &str, scenario: &str, environment: &[(&str, &str)]) {
    let directory = tempfile::tempdir().expect("a directory");
    let tokens = directory.path().join("tokens");
    std::fs::create_dir(&tokens).expect("tokens");
    let profile = Profile::built_in(name).expect("sound");
    let text = profile.configuration(tokens.to_str().expect("text")).expect("made here");
    std::fs::write(directory.path().join(CONFIGURATION), text).expect("configuration");
    again(scenario, &profile, directory.path(), environment);
}

/// Runs this binary again for one scenario; its failure is ours.
fn again(scenario: &str, profile: &Profile, directory: &Path, environment: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &format!("scenarios::{scenario}"), "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(PROFILE, &profile.name)
        .envs(environment.iter().copied())
        .envs(profile.environment(Some(&directory.join(CONFIGURATION))))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && text.contains("1 passed");
    assert!(ran, "{scenario}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The same from inside a scenario: another process on the same token.
fn another_process(scenario: &str) {
    again(scenario, &profile(), &directory(), &[]);
}

fn directory() -> PathBuf {
    std::env::var(DIRECTORY).expect("run by the test of the same name").into()
}

fn profile() -> Profile {
    let name = std::env::var(PROFILE).expect("run by the test of the same name");
    Profile::built_in(&name).expect("sound")
}

fn kryoptic() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder");
    let module = target.join("kryoptic/debug/libkryoptic_pkcs11.so");
    assert!(module.exists(), "no {}: run scripts/kryoptic", module.display());
    module
}

/// The module: where the profile looks for it, or, of Kryoptic, the one that scripts/kryoptic has
/// built.
fn module() -> PathBuf {
    if profile().name == "kryoptic" {
        return kryoptic();
    }
    let paths = profile().module.expect("a module").paths;
    paths.into_iter().find(|path| path.exists()).expect("installed by scripts/setup test")
}

// ---- tokens ----------------------------------------------------------------------------------

fn secret(text: &str) -> Secret {
    Secret::copy_of(text.as_bytes())
}

fn new_token() -> String {
    let made = init_token(&profile(), Some(&module()), LABEL, &secret(SO_PIN), &secret(PIN));
    made.expect("a token").serial
}

fn open_with(pin: &str, options: &Options) -> custody::Result<Lane> {
    let token = Locator::Label(LABEL.into());
    reach(Access { token, pin: secret(pin), module: Some(module()), device: None }, options)
}

/// A lane with the driver in this process, or in one of its own if [`APART`] is set.
fn reach(access: Access, options: &Options) -> custody::Result<Lane> {
    if std::env::var_os(APART).is_none() {
        return custody::open(profile(), access, options);
    }
    // What the module wants in its environment is in ours.
    let program = Program::at(Path::new(env!("CARGO_BIN_EXE_strongroom")), Vec::new());
    child::open(profile(), access, options, program)
}

/// A new token and a lane to it.
fn lane() -> Lane {
    new_token();
    open_with(PIN, &Options::default()).expect("a lane")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Asks until the token serves, and says how long that took.
async fn until_served(lane: &Lane, key: &TokenKey, check: KeyCheck) -> Duration {
    let start = Instant::now();
    loop {
        match lane.derive(key.clone(), check, b"x".to_vec()).await {
            Ok(_) => return start.elapsed(),
            Err(Error::Unavailable { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        assert!(start.elapsed() < Duration::from_secs(5), "never back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Another user of the module, in a process where no lane is open.
fn with_session<T>(act: impl FnOnce(&Session) -> T) -> T {
    let module = Pkcs11::new(module()).expect("module");
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("initialised");
    let slot = module.get_slots_with_initialized_token().expect("slots")[0];
    let session = module.open_rw_session(slot).expect("session");
    session.login(UserType::User, Some(&AuthPin::from(PIN.to_owned()))).expect("login");
    let result = act(&session);
    drop(session);
    module.finalize().expect("finalised");
    result
}

/// Whether the token is gone when its folder is. Kryoptic keeps its file open, so that it goes on
/// reading there; its profile says so.
fn notices_absence() -> bool {
    profile().cannot.iter().all(|cannot| cannot.what != "notice that its file was taken away")
}

fn take_away() {
    std::fs::rename(directory().join("tokens"), directory().join("away")).expect("away");
}

fn bring_back() {
    std::fs::rename(directory().join("away"), directory().join("tokens")).expect("back");
}

/// Derivations by several tasks at once, each of which is right or refused for now.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: tokio::task::JoinSet<(u64, u64)>,
}

impl Load {
    /// Begins, with a key of this value.
    fn start(tasks: u8, lane: &Lane, key: &TokenKey, check: KeyCheck, value: [u8; 32]) -> Self {
        let mut load = Self { stop: Arc::default(), tasks: tokio::task::JoinSet::new() };
        for task in 0..tasks {
            let (lane, stop, key) = (lane.clone(), Arc::clone(&load.stop), key.clone());
            load.tasks.spawn(async move {
                let (mut right, mut refused) = (0u64, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    let input = [[task; 8], right.to_be_bytes()].concat();
                    match lane.derive(key.clone(), check, input.clone()).await {
                        Ok(key) => {
                            assert_eq!(key.expose().as_slice(), host_mac(&value, &input));
                            right += 1;
                        }
                        Err(Error::Unavailable { .. }) => {
                            refused += 1;
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                (right, refused)
            });
        }
        load
    }

    /// Ends; tells how many each task had right and refused.
    async fn end(self) -> Vec<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await
    }
}

/// A key as ours are, with a given value, and with `change` made to its template.
fn foreign_key(session: &Session, value: [u8; 32], change: Option<Attribute>) {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Id(ID.0.to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Sign(true),
        Attribute::Verify(false),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::AllowedMechanisms(vec![MechanismType::SHA256_HMAC]),
        Attribute::Value(value.to_vec()),
    ];
    alter(&mut template, change);
    session.create_object(&template).expect("created");
}

fn alter(template: &mut Vec<Attribute>, change: Option<Attribute>) {
    if let Some(change) = change {
        template.retain(|a| a.attribute_type() != change.attribute_type());
        template.push(change);
    }
}

/// A pair as ours for this mechanism are, with `change` made to the private key's template.
fn foreign_pair(session: &Session, used_by: MechanismType, change: Option<Attribute>) {
    let agrees = used_by == MechanismType::ECDH1_DERIVE;
    let decrypts = used_by == MechanismType::RSA_PKCS_OAEP;
    let p256 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let (made_by, public) = if decrypts {
        let bits = Attribute::ModulusBits(2048.into());
        (Mechanism::RsaPkcsKeyPairGen, vec![bits, Attribute::PublicExponent(vec![1, 0, 1])])
    } else {
        (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(p256.to_vec())])
    };
    let public = [&[Attribute::Token(false)][..], &public].concat();
    let mut private = vec![
        Attribute::Id(ID.0.to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Sign(!agrees && !decrypts),
        Attribute::Derive(agrees),
        Attribute::Decrypt(decrypts),
        Attribute::Unwrap(false),
        Attribute::AllowedMechanisms(vec![used_by]),
    ];
    alter(&mut private, change);
    let made = session.generate_key_pair(&made_by, &public, &private);
    session.destroy_object(made.expect("made").0).expect("destroyed");
}

fn delete_key(session: &Session) {
    for key in session.find_objects(&[Attribute::Id(ID.0.to_vec())]).expect("found") {
        session.destroy_object(key).expect("destroyed");
    }
}

// ---- what is expected --------------------------------------------------------------------------

fn host_mac(value: &[u8; 32], input: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, value), input).as_ref().to_vec()
}

fn host_check(value: &[u8; 32]) -> KeyCheck {
    KeyCheck(host_mac(value, b"strongroom key check v1")[..8].try_into().expect("8 bytes"))
}

/// A peer's public key, and what it agrees on with `public`.
fn host_agreement(public: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let mine = PrivateKey::generate(&ECDH_P256).expect("a key");
    let peer = mine.compute_public_key().expect("public").as_ref().to_vec();
    let theirs = UnparsedAgreementKey::new(&ECDH_P256, public);
    let agreed = agreement::agree(&mine, theirs, (), |x| Ok(x.try_into().expect("32 bytes")));
    (peer, agreed.expect("agreed"))
}

fn key(value: [u8; 32]) -> Key {
    Key::take(&mut { value })
}

fn refusal<T>(result: custody::Result<T>) -> Error {
    result.err().expect("must be refused")
}

/// Each of these on each token, and with the driver in a process of its own.
macro_rules! conformance {
    ($($name:ident: $scenario:ident),+ $(,)?) => {
        mod softhsm2 {
            $(#[test] fn $name() { super::alone("softhsm2", stringify!($scenario)); })+
        }
        mod kryoptic {
            $(#[test] fn $name() { super::alone("kryoptic", stringify!($scenario)); })+
        }
        mod apart {
            $(#[test] fn $name() { super::apart(stringify!($scenario)); })+
        }
    };
}

conformance! {
    a_generated_key_derives_and_is_gone_once_destroyed: generate_derive_destroy,
    derivation_is_hmac_sha_256_of_the_key: derive_is_hmac,
    a_key_can_not_be_read_loosened_or_used_for_anything_else: key_is_closed,
    a_substituted_key_is_refused: substituted,
    a_loosened_key_is_refused: loosened,
    an_id_that_two_keys_carry_is_refused: duplicated,
    a_token_that_was_away_serves_again_without_a_restart: away_and_back,
    a_key_deleted_by_somebody_else_is_missing_and_the_token_is_not: deleted_behind_our_back,
    another_token_of_the_same_label_is_not_taken_for_ours: impostor,
    a_wrong_pin_is_told_and_not_tried_again: wrong_pin,
    a_pin_changed_meanwhile_is_not_tried_again: pin_changed,
    a_missing_token_or_directory_is_told_at_start: missing_at_start,
    a_full_queue_turns_away_at_once: overload,
    who_waits_too_long_is_told_at_the_deadline: deadline,
    under_load_a_flapping_token_gives_right_answers_or_clear_errors: flapping,
    random_bytes_come_in_bounds: random,
    a_pair_agrees_as_other_implementations_do: agree,
    a_pair_that_was_swapped_or_loosened_is_refused: swapped_pair,
    a_pair_decrypts_what_was_encrypted_for_it_or_is_not_made: unwrap,
    an_rsa_key_that_was_swapped_or_loosened_is_refused: swapped_rsa_key,
    a_probe_finds_that_all_claims_hold_and_leaves_nothing: probed,
    a_signer_signs_survives_an_absence_and_is_closed: signers,
    a_signer_that_was_swapped_or_loosened_is_refused: swapped_signer,
}

// Nobody finalises the library of a process that is another's.
#[test]
fn a_library_finalised_behind_our_back_is_initialised_again() {
    ["softhsm2", "kryoptic"].into_iter().for_each(|token| alone(token, "finalised"));
}

/// Not tests of their own: each is run by the test above that names it.
mod scenarios {
    use super::*;

    #[test]
    #[ignore = "run in its own process"]
    fn generate_derive_destroy() {
        let lane = lane();
        assert_eq!(lane.info().label, LABEL);
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made").evidence;
            assert!(made.sensitive && made.never_extractable && made.always_sensitive);
            assert!(made.local && !made.extractable);
            assert_eq!(made.mechanisms, ["CKM_SHA256_HMAC"]);
            assert_eq!(lane.inspect(ID.into()).await.expect("there"), made);

            let again = refusal(lane.generate(ID, Scheme::HmacKdf).await);
            assert!(matches!(again, Error::KeyRejected { id: ID, .. }), "{again}");

            let one = lane.derive(ID.into(), made.check, b"one".to_vec()).await.expect("derived");
            let same = lane.derive(ID.into(), made.check, b"one".to_vec()).await.expect("derived");
            let two = lane.derive(ID.into(), made.check, b"two".to_vec()).await.expect("derived");
            assert_eq!(one.expose(), same.expose());
            assert_ne!(one.expose(), two.expose());

            lane.destroy(ID).await.expect("destroyed");
            assert_eq!(refusal(lane.destroy(ID).await), Error::KeyNotFound(ID));
            assert_eq!(refusal(lane.inspect(ID.into()).await), Error::KeyNotFound(ID));
            let gone = lane.derive(ID.into(), made.check, b"one".to_vec()).await;
            assert_eq!(refusal(gone), Error::KeyNotFound(ID));
        });
        assert_eq!(lane.health().epoch, 1, "nothing of this needs another login");
    }

    #[test]
    #[ignore = "run in its own process"]
    fn agree() {
        let lane = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            let (evidence, public) = (made.evidence, made.public.expect("a pair"));
            assert!(evidence.sensitive && evidence.never_extractable && evidence.always_sensitive);
            assert!(evidence.local && !evidence.extractable);
            assert_eq!(evidence.mechanisms, ["CKM_ECDH1_DERIVE"]);
            assert_eq!(evidence.check, KeyCheck::of_public(&public));
            assert_eq!(lane.inspect(ID.into()).await.expect("there"), evidence);
            // Often enough to meet a coordinate that begins with a zero byte.
            for _ in 0..600 {
                let (peer, expected) = host_agreement(&public);
                let agreed = lane.agree(ID.into(), evidence.check, peer).await.expect("agreed");
                assert_eq!(agreed.expose(), &expected);
            }

            let (peer, _) = host_agreement(&public);
            let mut off_curve = peer.clone();
            off_curve[64] ^= 1;
            let refused = refusal(lane.agree(ID.into(), evidence.check, off_curve).await);
            assert!(matches!(refused, Error::BadRequest(_)), "{refused}");
            let derived = refusal(lane.derive(ID.into(), evidence.check, b"one".to_vec()).await);
            assert!(matches!(derived, Error::KeyRejected { id: ID, .. }), "{derived}");
            let import = refusal(lane.import(OTHER, Scheme::Ecdh, key([7; 32])).await);
            assert!(matches!(import, Error::Unsupported { .. }), "{import}");

            lane.destroy(ID).await.expect("destroyed");
            let gone = refusal(lane.agree(ID.into(), evidence.check, peer).await);
            assert_eq!(gone, Error::KeyNotFound(ID));
        });
        assert_eq!(lane.health().epoch, 1, "nothing of this needs another login");
        drop(lane);
        assert_empty();
    }

    /// Whether the token has the scheme; where it has not, that it says so, and makes nothing.
    fn has_rsa_oaep(lane: &Lane) -> bool {
        let has = profile().schemes.contains(&Scheme::RsaOaep);
        if !has {
            let refused = refusal(runtime().block_on(lane.generate(ID, Scheme::RsaOaep)));
            let why = "no keys of scheme rsa-oaep: no OAEP with SHA-256 and a label".to_owned();
            assert_eq!(refused, Error::Unsupported { profile: profile().name, why });
        }
        has
    }

    /// That no key of any kind is in the token.
    fn assert_empty() {
        let kinds = [ObjectClass::SECRET_KEY, ObjectClass::PUBLIC_KEY, ObjectClass::PRIVATE_KEY];
        for class in kinds.map(Attribute::Class) {
            let left = with_session(|session| session.find_objects(&[class]).expect("found"));
            assert!(left.is_empty(), "a key was left in the token");
        }
    }

    #[test]
    #[ignore = "run in its own process"]
    fn unwrap() {
        let lane = lane();
        if !has_rsa_oaep(&lane) {
            drop(lane);
            return no_other_oaep();
        }
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::RsaOaep).await.expect("made");
            let (evidence, public) = (made.evidence, made.public.expect("a pair"));
            assert!(evidence.sensitive && evidence.never_extractable && evidence.always_sensitive);
            assert!(evidence.local && !evidence.extractable);
            assert_eq!(evidence.mechanisms, ["CKM_RSA_PKCS_OAEP"]);
            assert_eq!(evidence.check, KeyCheck::of_public(&public));
            assert_eq!(lane.inspect(ID.into()).await.expect("there"), evidence);
            let sealed = |message: &[u8]| encrypt(&public, message).expect("encrypted");
            for message in 0..20 {
                let sealed = sealed(&[message; 32]);
                let opened = lane.unwrap(ID.into(), evidence.check, sealed).await.expect("opened");
                assert_eq!(opened.expose(), &[message; 32]);
            }

            let whole = sealed(&[7; 32]);
            let mut bent = whole.clone();
            bent[100] ^= 1;
            for wrong in [bent, whole[1..].to_vec(), vec![0xff; 256], vec![0; 256]] {
                let refused = refusal(lane.unwrap(ID.into(), evidence.check, wrong).await);
                assert!(matches!(refused, Error::BadRequest(_)), "{refused}");
            }
            lane.unwrap(ID.into(), evidence.check, whole.clone()).await.expect("well all the same");
            let agreed = refusal(lane.agree(ID.into(), evidence.check, vec![4; 65]).await);
            assert!(matches!(agreed, Error::KeyRejected { id: ID, .. }), "{agreed}");
            let import = refusal(lane.import(OTHER, Scheme::RsaOaep, key([7; 32])).await);
            assert!(matches!(import, Error::Unsupported { .. }), "{import}");

            lane.destroy(ID).await.expect("destroyed");
            let gone = refusal(lane.unwrap(ID.into(), evidence.check, whole).await);
            assert_eq!(gone, Error::KeyNotFound(ID));
        });
        assert_eq!(lane.health().epoch, 1, "nothing of this needs another login");
        drop(lane);
        assert_empty();
    }

    /// A profile that claims what the module has by another hash alone: the first key shows it, and
    /// is not kept.
    fn no_other_oaep() {
        let mut claiming = profile();
        claiming.schemes.push(Scheme::RsaOaep);
        claiming.facts.oaep_hashes = None;
        let token = Locator::Label(LABEL.into());
        let access = Access { token, pin: secret(PIN), module: Some(module()), device: None };
        let lane = custody::open(claiming, access, &Options::default()).expect("a lane");
        let refused = refusal(runtime().block_on(lane.generate(ID, Scheme::RsaOaep)));
        let told = refused.to_string();
        assert!(matches!(refused, Error::Unsupported { .. }), "{told}");
        assert!(told.contains("no RSA-OAEP with SHA-256 and a label: "), "{told}");
        drop(lane);
        assert_empty();
    }

    #[test]
    #[ignore = "run in its own process"]
    fn swapped_rsa_key() {
        let lane = lane();
        if !has_rsa_oaep(&lane) {
            return;
        }
        let (sealed, check) = runtime().block_on(async {
            let made = lane.generate(ID, Scheme::RsaOaep).await.expect("made");
            let sealed = encrypt(&made.public.expect("a pair"), &[7; 32]).expect("encrypted");
            (sealed, made.evidence.check)
        });
        drop(lane);
        // Another of the same kind; one that may be read; one that signs, too.
        let loose = [Attribute::Extractable(true), Attribute::Sign(true)];
        for change in [None].into_iter().chain(loose.map(Some)) {
            let why = if change.is_none() { "key-check value" } else { "not as it was made" };
            with_session(|session| {
                delete_key(session);
                foreign_pair(session, MechanismType::RSA_PKCS_OAEP, change);
            });
            let lane = open_with(PIN, &Options::default()).expect("a lane");
            let refused = runtime().block_on(lane.unwrap(ID.into(), check, sealed.clone()));
            let refused = refusal(refused);
            assert!(matches!(refused, Error::KeyRejected { id: ID, .. }), "{refused}");
            assert!(refused.to_string().contains(why), "{refused}");
        }
    }

    #[test]
    #[ignore = "run in its own process"]
    fn probed() {
        new_token();
        // As a probe would leave it that was killed.
        with_session(|session| {
            foreign_key(session, [7; 32], Some(Attribute::Label(b"strongroom probe".into())));
        });
        let profile = profile();
        let found = look(&profile);
        assert_eq!((found.removed, look(&profile).removed), (1, 0));
        for finding in findings(&profile, &found, true) {
            let fits = matches!(finding.verdict, Verdict::Holds | Verdict::NotClaimed);
            assert!(fits, "{finding:?}");
        }
        assert_empty();
        let proposed = Profile::parse(&proposal(&found).expect("usable")).expect("sound");
        assert_eq!((&proposed.schemes, &proposed.signing), (&profile.schemes, &profile.signing));
        assert!(proposed.quirks.allowed_mechanisms && proposed.quirks.modifiable);
        assert_eq!(proposed.facts, profile.facts);

        // What an nShield claims is false of either.
        let another = Profile::built_in("nshield").expect("sound");
        let wrong = findings(&another, &look(&another), true);
        let scheme = wrong.iter().find(|finding| finding.what == "scheme hmac-kdf");
        let scheme = scheme.expect("looked at");
        assert_eq!(scheme.verdict, Verdict::Fails);
        assert!(scheme.seen.contains("it would with"), "{scheme:?}");
    }

    fn look(profile: &Profile) -> Found {
        let (module, pin) = (module(), secret(PIN));
        let (token, sessions) = (Some(Locator::Label(LABEL.into())), profile.limits.sessions);
        let target = Target { profile, module: Some(&module), token, pin: &pin, sessions };
        probe(target, &SystemRandom).expect("probed")
    }

    #[test]
    #[ignore = "run in its own process"]
    fn swapped_pair() {
        let lane = lane();
        let (peer, check) = runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            let (peer, _) = host_agreement(&made.public.expect("a pair"));
            (peer, made.evidence.check)
        });
        drop(lane);
        // Another pair of the same kind; then one that may be read.
        for loosened in [false, true] {
            with_session(|session| {
                delete_key(session);
                let change = loosened.then_some(Attribute::Extractable(true));
                foreign_pair(session, MechanismType::ECDH1_DERIVE, change);
            });
            let lane = open_with(PIN, &Options::default()).expect("a lane");
            let refused = refusal(runtime().block_on(lane.agree(ID.into(), check, peer.clone())));
            let why = if loosened { "not as it was made" } else { "key-check value" };
            assert!(matches!(refused, Error::KeyRejected { id: ID, .. }), "{refused}");
            assert!(refused.to_string().contains(why), "{refused}");
        }
    }

    #[test]
    #[ignore = "run in its own process"]
    fn derive_is_hmac() {
        let lane = lane();
        runtime().block_on(async {
            let value = [0x42; 32];
            let made =
                lane.import(ID, Scheme::HmacKdf, key(value)).await.expect("imported").evidence;
            assert!(made.sensitive && !made.extractable);
            assert!(!made.local && !made.never_extractable && !made.always_sensitive);
            assert_eq!(made.check, host_check(&value));
            for input in [&b""[..], b"input", &[0; 1024]] {
                let derived =
                    lane.derive(ID.into(), made.check, input.to_vec()).await.expect("derived");
                assert_eq!(derived.expose().as_slice(), host_mac(&value, input));
            }
            let long = lane.derive(ID.into(), made.check, vec![0; 1025]).await;
            assert!(matches!(refusal(long), Error::BadRequest(_)));
            let label = lane.derive(ID.into(), made.check, KeyCheck::LABEL.to_vec()).await;
            assert!(matches!(refusal(label), Error::BadRequest(_)));
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn key_is_closed() {
        {
            let lane = lane();
            runtime().block_on(lane.generate(ID, Scheme::HmacKdf)).expect("made");
        }
        another_process("look_at_the_key");
    }

    #[test]
    #[ignore = "run by key_is_closed"]
    fn look_at_the_key() {
        with_session(|session| {
            let found = session.find_objects(&[Attribute::Id(ID.0.to_vec())]).expect("found");
            let [key] = found[..] else { panic!("{} keys", found.len()) };
            let value = session.get_attribute_info(key, &[AttributeType::Value]).expect("info");
            assert!(matches!(value[..], [AttributeInfo::Sensitive]), "{value:?}");
            let label = session.get_attributes(key, &[AttributeType::Label]).expect("label");
            assert_eq!(label, [Attribute::Label(format!("strongroom hmac-kdf {ID}").into())]);
            for loose in [Attribute::Extractable(true), Attribute::Sensitive(false)] {
                assert!(session.update_attributes(key, &[loose]).is_err());
            }
            for other in [Mechanism::Sha1Hmac, Mechanism::Sha384Hmac, Mechanism::Sha512Hmac] {
                assert!(session.sign(&other, key, b"x").is_err(), "{other:?}");
            }
            assert!(session.sign(&Mechanism::Sha256Hmac, key, b"x").is_ok());
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn substituted() {
        new_token();
        with_session(|session| foreign_key(session, [9; 32], None));
        let lane = open_with(PIN, &Options::default()).expect("a lane");
        runtime().block_on(async {
            let refused =
                refusal(lane.derive(ID.into(), host_check(&[8; 32]), b"x".to_vec()).await);
            assert!(matches!(&refused, Error::KeyRejected { id: ID, .. }), "{refused}");
            assert!(refused.to_string().contains("key-check value"), "{refused}");
            // The same key under its own check value shows that nothing else was wrong with it.
            lane.derive(ID.into(), host_check(&[9; 32]), b"x".to_vec()).await.expect("derived");
            let refused = lane.derive(ID.into(), host_check(&[8; 32]), b"x".to_vec()).await;
            assert!(matches!(refusal(refused), Error::KeyRejected { .. }), "also when known");
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn loosened() {
        new_token();
        let ways = [
            Attribute::Extractable(true),
            Attribute::Sensitive(false),
            Attribute::Modifiable(true),
            Attribute::Derive(true),
            Attribute::Wrap(true),
            Attribute::AllowedMechanisms(vec![
                MechanismType::SHA256_HMAC,
                MechanismType::SHA1_HMAC,
            ]),
            Attribute::Value(vec![9; 31]),
        ];
        for way in ways {
            with_session(|session| {
                delete_key(session);
                foreign_key(session, [9; 32], Some(way.clone()));
            });
            another_process("loosened_is_refused");
        }
    }

    #[test]
    #[ignore = "run by loosened"]
    fn loosened_is_refused() {
        let lane = open_with(PIN, &Options::default()).expect("a lane");
        runtime().block_on(async {
            let refused =
                refusal(lane.derive(ID.into(), host_check(&[9; 32]), b"x".to_vec()).await);
            assert!(refused.to_string().contains("not as it was made"), "{refused}");
            let refused = refusal(lane.inspect(ID.into()).await);
            assert!(matches!(refused, Error::KeyRejected { id: ID, .. }), "{refused}");
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn duplicated() {
        new_token();
        with_session(|session| {
            foreign_key(session, [9; 32], None);
            foreign_key(session, [9; 32], None);
        });
        let lane = open_with(PIN, &Options::default()).expect("a lane");
        runtime().block_on(async {
            let check = host_check(&[9; 32]);
            let refused = refusal(lane.derive(ID.into(), check, b"x".to_vec()).await);
            assert!(refused.to_string().contains("more than one"), "{refused}");
            assert!(matches!(refusal(lane.destroy(ID).await), Error::KeyRejected { .. }));
        });
    }

    /// What is asked of a token that does not notice that its folder is away: reading goes on, nothing
    /// is made or destroyed, and all is well when it is back.
    async fn goes_on_reading(lane: &Lane, check: KeyCheck) {
        let other = BackingKeyId([2; 16]);
        take_away();
        lane.derive(ID.into(), check, b"x".to_vec()).await.expect("derived");
        lane.inspect(ID.into()).await.expect("there");
        for error in
            [refusal(lane.destroy(ID).await), refusal(lane.generate(other, Scheme::HmacKdf).await)]
        {
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        }
        bring_back();
        assert_eq!(refusal(lane.inspect(other.into()).await), Error::KeyNotFound(other));
        lane.derive(ID.into(), check, b"x".to_vec()).await.expect("not destroyed");
        lane.generate(other, Scheme::HmacKdf).await.expect("made");
        lane.destroy(ID).await.expect("destroyed");
        assert_eq!(refusal(lane.inspect(ID.into()).await), Error::KeyNotFound(ID));
    }

    #[test]
    #[ignore = "run in its own process"]
    fn away_and_back() {
        let lane = lane();
        runtime().block_on(async {
            let check = lane.generate(ID, Scheme::HmacKdf).await.expect("made").evidence.check;
            if !notices_absence() {
                return goes_on_reading(&lane, check).await;
            }
            let before = lane.derive(ID.into(), check, b"x".to_vec()).await.expect("derived");
            for _ in 0..3 {
                take_away();
                let start = Instant::now();
                let asked = [
                    lane.derive(ID.into(), check, b"x".to_vec()).await.err(),
                    lane.inspect(ID.into()).await.err(),
                    lane.destroy(ID).await.err(),
                    lane.generate(BackingKeyId([2; 16]), Scheme::HmacKdf).await.err(),
                    // One that was never there: with the token away nobody can tell.
                    lane.inspect(BackingKeyId([3; 16]).into()).await.err(),
                ];
                for error in asked {
                    assert!(matches!(error, Some(Error::Unavailable { .. })), "{error:?}");
                }
                assert!(start.elapsed() < Duration::from_secs(2), "each well before its deadline");
                // The login of the last round may have been too short ago for another attempt.
                tokio::time::sleep(Duration::from_millis(210)).await;
                refusal(lane.derive(ID.into(), check, b"x".to_vec()).await);
                assert!(!lane.health().up && lane.health().why.is_some());
                bring_back();
                let took = until_served(&lane, &ID.into(), check).await;
                assert!(took < Duration::from_secs(1), "took {took:?}");
                assert!(lane.health().up);
            }
            let after = lane.derive(ID.into(), check, b"x".to_vec()).await.expect("derived");
            assert_eq!(before.expose(), after.expose());
            assert_eq!(
                refusal(lane.inspect(BackingKeyId([3; 16]).into()).await),
                Error::KeyNotFound(BackingKeyId([3; 16]))
            );
        });
        assert_eq!(lane.health().epoch >= 4, notices_absence());
    }

    /// Ends all that this process has in the module, as a careless second user of it would.
    fn finalise() {
        let module = Pkcs11::new(module()).expect("module");
        module.finalize().expect("finalised");
    }

    #[test]
    #[ignore = "run in its own process"]
    fn finalised() {
        let lane = lane();
        let (signer, scheme) = (BackingKeyId([2; 16]), SigningScheme::EcdsaP256);
        runtime().block_on(async {
            let check = lane.generate(ID, Scheme::HmacKdf).await.expect("made").evidence.check;
            let public = lane.generate_signer(signer, scheme).await.expect("made").public;
            let before = lane.derive(ID.into(), check, b"x".to_vec()).await.expect("derived");
            for epoch in 2..5 {
                finalise();
                let after = lane.derive(ID.into(), check, b"x".to_vec()).await.expect("derived");
                assert_eq!(before.expose(), after.expose());
                assert_eq!(lane.health().epoch, epoch);
                let signed =
                    lane.sign(signer.into(), scheme, public.clone(), MESSAGE.to_vec()).await;
                assert!(right(scheme, &public, MESSAGE, &signed.expect("signed")));
                // An attempt sooner than this is not made.
                tokio::time::sleep(Duration::from_millis(210)).await;
            }
            finalise();
            lane.destroy(ID).await.expect("destroyed");
            assert_eq!(refusal(lane.inspect(ID.into()).await), Error::KeyNotFound(ID));
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn deleted_behind_our_back() {
        let lane = lane();
        runtime().block_on(async {
            let check = lane.generate(ID, Scheme::HmacKdf).await.expect("made").evidence.check;
            lane.derive(ID.into(), check, b"x".to_vec()).await.expect("derived");
            another_process("delete_the_key");
            let start = Instant::now();
            let error = refusal(lane.derive(ID.into(), check, b"x".to_vec()).await);
            let vague = matches!(error, Error::Unavailable { .. }) && profile().name == "kryoptic";
            let gone = error == Error::KeyNotFound(ID);
            assert!(vague || gone, "{error} after {:?}", start.elapsed());
            let epoch = lane.health().epoch;
            for _ in 0..10 {
                let error = refusal(lane.derive(ID.into(), check, b"x".to_vec()).await);
                assert_eq!(error, Error::KeyNotFound(ID));
            }
            assert_eq!(lane.health().epoch, epoch, "asking for it again disturbs nobody");
            lane.generate(ID, Scheme::HmacKdf).await.expect("the token is well");
        });
    }

    #[test]
    #[ignore = "run by deleted_behind_our_back"]
    fn delete_the_key() {
        with_session(delete_key);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn impostor() {
        let lane = lane();
        runtime().block_on(async {
            let check = lane.generate(ID, Scheme::HmacKdf).await.expect("made").evidence.check;
            let before = lane.derive(ID.into(), check, b"x".to_vec()).await.expect("derived");
            take_away();
            std::fs::create_dir(directory().join("tokens")).expect("tokens");
            another_process("make_an_impostor");
            if !notices_absence() {
                let after = lane.derive(ID.into(), check, b"x".to_vec()).await.expect("derived");
                assert_eq!(before.expose(), after.expose(), "still the old token");
                let token = Locator::Serial(lane.info().serial.clone());
                drop(lane);
                let access =
                    Access { token, pin: secret(PIN), module: Some(module()), device: None };
                let error = custody::open(profile(), access, &Options::default());
                assert!(error.err().expect("refused").to_string().contains("in no slot"));
                return;
            }
            for _ in 0..3 {
                let error = refusal(lane.derive(ID.into(), check, b"x".to_vec()).await);
                assert!(matches!(error, Error::Unavailable { .. }), "{error}");
                tokio::time::sleep(Duration::from_millis(210)).await;
            }
            std::fs::remove_dir_all(directory().join("tokens")).expect("removed");
            bring_back();
            until_served(&lane, &ID.into(), check).await;
        });
    }

    #[test]
    #[ignore = "run by impostor"]
    fn make_an_impostor() {
        new_token();
        with_session(|session| foreign_key(session, [9; 32], None));
    }

    #[test]
    #[ignore = "run in its own process"]
    fn wrong_pin() {
        new_token();
        let error = open_with("not the pin", &Options::default()).err().expect("refused");
        assert!(matches!(&error, Error::Pin { .. }), "{error}");
        // The failed attempt left the module free for the next, and so does a lane that ends.
        for _ in 0..3 {
            let lane = open_with(PIN, &Options::default()).expect("a lane");
            runtime().block_on(lane.random(8)).expect("serves");
        }
        for _ in 0..10 {
            let error = open_with("not the pin", &Options::default()).err().expect("refused");
            assert!(matches!(&error, Error::Pin { .. }), "{error}");
        }
        let counts = profile().cannot.iter().all(|cannot| cannot.what != "count wrong PINs");
        let locked = matches!(open_with(PIN, &Options::default()), Err(Error::Pin { .. }));
        assert_eq!(locked, counts, "as the profile says");
        // The last try was left for a person, who logs in by other means.
        with_session(|_| ());
        drop(open_with(PIN, &Options::default()).expect("a lane"));
    }

    #[test]
    #[ignore = "run in its own process"]
    fn pin_changed() {
        let lane = lane();
        runtime().block_on(async {
            let check = lane.generate(ID, Scheme::HmacKdf).await.expect("made").evidence.check;
            another_process("change_the_pin");
            if !notices_absence() {
                lane.derive(ID.into(), check, b"x".to_vec()).await.expect("it is logged in");
                drop(lane);
                let error = open_with(PIN, &Options::default()).err().expect("refused");
                assert!(matches!(error, Error::Pin { .. }), "{error}");
                return;
            }
            take_away();
            refusal(lane.derive(ID.into(), check, b"x".to_vec()).await);
            bring_back();
            let start = Instant::now();
            let error = loop {
                match lane.derive(ID.into(), check, b"x".to_vec()).await {
                    Err(Error::Unavailable { .. }) if start.elapsed() < Duration::from_secs(5) => {}
                    other => break refusal(other),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert!(matches!(error, Error::Pin { .. }), "{error}");
            // Were the login tried again, it would now succeed.
            another_process("change_the_pin_back");
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(210)).await;
                let error = refusal(lane.derive(ID.into(), check, b"x".to_vec()).await);
                assert!(matches!(error, Error::Pin { .. }), "{error}");
            }
        });
    }

    fn change_pin(from: &str, to: &str) {
        let module = Pkcs11::new(module()).expect("module");
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        module.initialize(arguments).expect("initialised");
        let slot = module.get_slots_with_initialized_token().expect("slots")[0];
        let session = module.open_rw_session(slot).expect("session");
        let (from, to) = (AuthPin::from(from.to_owned()), AuthPin::from(to.to_owned()));
        session.login(UserType::User, Some(&from)).expect("login");
        session.set_pin(&from, &to).expect("changed");
    }

    #[test]
    #[ignore = "run by pin_changed"]
    fn change_the_pin() {
        change_pin(PIN, "another pin");
    }

    #[test]
    #[ignore = "run by pin_changed"]
    fn change_the_pin_back() {
        change_pin("another pin", PIN);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn missing_at_start() {
        let error = open_with(PIN, &Options::default()).err().expect("no token");
        assert!(matches!(&error, Error::Unavailable { .. }), "{error}");
        let serial = new_token();
        let twice = init_token(&profile(), Some(&module()), LABEL, &secret(SO_PIN), &secret(PIN));
        assert!(twice.expect_err("refused").to_string().contains("already"));
        take_away();
        let error = open_with(PIN, &Options::default()).err().expect("no directory");
        assert!(matches!(&error, Error::Unavailable { .. }), "{error}");
        bring_back();
        let access = |serial: &str, module: Option<&str>| Access {
            token: Locator::Serial(serial.into()),
            pin: secret(PIN),
            module: Some(module.map_or_else(super::module, PathBuf::from)),
            device: None,
        };
        let options = Options::default();
        let none = custody::open(profile(), access(&serial, Some("/nowhere.so")), &options);
        assert!(none.err().expect("no module").to_string().contains("can't be loaded"));
        let other = custody::open(profile(), access("0000000000000000", None), &options);
        assert!(matches!(other.err().expect("other serial"), Error::Unavailable { .. }));
        let lane = custody::open(profile(), access(&serial, None), &options).expect("a lane");
        assert_eq!(lane.info().serial, serial);
        let second = custody::open(profile(), access(&serial, None), &options);
        assert!(second.err().expect("one at a time").to_string().contains("in use"));
        runtime().block_on(lane.random(8)).expect("the first lane is unharmed");
    }

    #[test]
    #[ignore = "run in its own process"]
    fn overload() {
        new_token();
        let options = Options { workers: Some(1), queue: 2, ..Options::default() };
        let lane = open_with(PIN, &options).expect("a lane");
        runtime().block_on(async {
            let check = lane.generate(ID, Scheme::HmacKdf).await.expect("made").evidence.check;
            let start = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..500 {
                let lane = lane.clone();
                tasks
                    .spawn(async move { lane.derive(ID.into(), check, vec![0; 1024]).await.err() });
            }
            let errors = tasks.join_all().await;
            let refused = errors.iter().flatten().count();
            assert!(refused > 0 && refused < 500, "{refused} of 500 refused");
            for error in errors.into_iter().flatten() {
                assert_eq!(error, Error::Overloaded(LABEL.into()));
            }
            assert!(start.elapsed() < Duration::from_secs(1), "nobody waited for the deadline");
            lane.derive(ID.into(), check, b"x".to_vec())
                .await
                .expect("and then there is room again");
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn deadline() {
        new_token();
        with_session(|session| foreign_key(session, [9; 32], None));
        // As long as a busy machine may keep the one thread from its work: a token that is silent for
        // longer has stopped answering.
        let options = Options { workers: Some(1), queue: 50_000, deadline_ms: 250 };
        let lane = open_with(PIN, &options).expect("a lane");
        let check = host_check(&[9; 32]);
        // Servers that are tasks work on the reactor of who asks first: not on that of the crowd, which
        // has so much to do that it comes late to an answer that is there.
        let servers = runtime();
        let first = lane.derive(ID.into(), check, vec![0; 1024]);
        servers.block_on(first).expect("derived");
        runtime().block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..40_000 {
                let lane = lane.clone();
                tasks.spawn(async move {
                    let start = Instant::now();
                    (lane.derive(ID.into(), check, vec![0; 1024]).await.err(), start.elapsed())
                });
            }
            let outcomes = tasks.join_all().await;
            let late = outcomes.iter().filter(|(error, _)| error.is_some());
            assert!(late.clone().count() > 0, "40,000 in 250 ms");
            for (error, took) in late {
                assert_eq!(*error, Some(Error::Timeout(LABEL.into())));
                assert!(*took >= Duration::from_millis(245), "not before its deadline: {took:?}");
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn flapping() {
        const VALUE: [u8; 32] = [0x42; 32];
        let lane = lane();
        runtime().block_on(async {
            let check =
                lane.import(ID, Scheme::HmacKdf, key(VALUE)).await.expect("in").evidence.check;
            let load = Load::start(32, &lane, &ID.into(), check, VALUE);
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                take_away();
                tokio::time::sleep(Duration::from_millis(100)).await;
                bring_back();
                until_served(&lane, &ID.into(), check).await;
            }
            for (right, refused) in load.end().await {
                let seen = refused > 0;
                assert!(right > 0 && seen == notices_absence(), "{right} and {refused} refused");
            }
        });
        assert_eq!(lane.health().epoch > 10, notices_absence(), "{:?}", lane.health());
    }

    #[test]
    #[ignore = "run in its own process"]
    fn random() {
        let lane = lane();
        runtime().block_on(async {
            let one = lane.random(4096).await.expect("random");
            assert_eq!(one.len(), 4096);
            assert!(one != lane.random(4096).await.expect("random"));
            for len in [0, 4097] {
                assert!(matches!(refusal(lane.random(len).await), Error::BadRequest(_)));
            }
        });
    }

    fn right(scheme: SigningScheme, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        match scheme {
            SigningScheme::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
            }
            SigningScheme::EcdsaP256 => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
                key.verify(message, signature).is_ok()
            }
        }
    }

    const SIGNERS: [(BackingKeyId, SigningScheme); 2] =
        [(ID, SigningScheme::Ed25519), (BackingKeyId([2; 16]), SigningScheme::EcdsaP256)];
    const MESSAGE: &[u8] = b"strongroom/eu-central-1/1";

    #[test]
    #[ignore = "run in its own process"]
    fn signers() {
        let lane = lane();
        let can = profile().signing;
        assert_eq!(lane.signing(), can);
        runtime().block_on(async {
            for (id, scheme) in SIGNERS {
                if !can.contains(&scheme) {
                    let told = Error::Unsupported {
                        profile: profile().name,
                        why: format!("no signing by {scheme:?}"),
                    };
                    assert_eq!(refusal(lane.generate_signer(id, scheme).await), told);
                    continue;
                }
                let public = lane.generate_signer(id, scheme).await.expect("made").public;
                let again = refusal(lane.generate_signer(id, scheme).await);
                assert!(matches!(again, Error::KeyRejected { .. }), "{again}");
                let sign = || lane.sign(id.into(), scheme, public.clone(), MESSAGE.to_vec());
                assert!(right(scheme, &public, MESSAGE, &sign().await.expect("signed")));
                assert!(lane.derive(id.into(), KeyCheck([0; 8]), b"x".to_vec()).await.is_err());

                take_away();
                assert_eq!(sign().await.is_err(), notices_absence());
                bring_back();
                tokio::time::sleep(Duration::from_millis(300)).await;
                let signed = sign().await;
                let signed = if signed.is_err() { sign().await } else { signed };
                assert!(right(scheme, &public, MESSAGE, &signed.expect("signed again")));

                let long = lane.sign(id.into(), scheme, public.clone(), vec![0; 4097]).await;
                assert!(matches!(refusal(long), Error::BadRequest(_)));
            }
        });
        drop(lane);
        another_process("look_at_the_signers");
        let lane = open_with(PIN, &Options::default()).expect("a lane");
        runtime().block_on(async {
            for (id, scheme) in SIGNERS.into_iter().filter(|(_, scheme)| can.contains(scheme)) {
                lane.destroy(id).await.expect("destroyed");
                let gone = lane.sign(id.into(), scheme, vec![], MESSAGE.to_vec()).await;
                assert_eq!(refusal(gone), Error::KeyNotFound(id));
            }
        });
    }

    #[test]
    #[ignore = "run by signers"]
    fn look_at_the_signers() {
        with_session(|session| {
            let can = profile().signing;
            for (id, _) in SIGNERS.into_iter().filter(|(_, scheme)| can.contains(scheme)) {
                let found = session.find_objects(&[Attribute::Id(id.0.to_vec())]).expect("found");
                assert_eq!(found.len(), 1, "the private key alone");
                for attribute in [AttributeType::Value, AttributeType::Extractable] {
                    let info = session.get_attribute_info(found[0], &[attribute]).expect("told");
                    let hidden = matches!(info[0], AttributeInfo::Sensitive);
                    assert_eq!(hidden, attribute == AttributeType::Value, "{attribute}");
                }
                let asked = [AttributeType::NeverExtractable, AttributeType::Local];
                let told = session.get_attributes(found[0], &asked).expect("told");
                assert!(told.contains(&Attribute::NeverExtractable(true)));
                assert!(told.contains(&Attribute::Local(true)));
                let changed = session.update_attributes(found[0], &[Attribute::Derive(true)]);
                assert!(changed.is_err(), "it can't be loosened");
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn swapped_signer() {
        let scheme = SigningScheme::EcdsaP256;
        let lane = lane();
        let public = runtime().block_on(lane.generate_signer(ID, scheme)).expect("made").public;
        drop(lane);
        for (loosen, what) in [(None, "signatures"), (Some(true), "not as it was made")] {
            another_process(if loosen.is_none() { "swap_the_signer" } else { "loosen_the_signer" });
            let lane = open_with(PIN, &Options::default()).expect("a lane");
            let signed =
                runtime().block_on(lane.sign(ID.into(), scheme, public.clone(), MESSAGE.to_vec()));
            let why = refusal(signed).to_string();
            assert!(why.contains("not to be trusted") && why.contains(what), "{why}");
            drop(lane);
        }
    }

    /// Another pair in the place of ours.
    fn put_another(session: &Session, derive: bool) {
        delete_key(session);
        let change = derive.then_some(Attribute::Derive(true));
        foreign_pair(session, MechanismType::ECDSA, change);
    }

    #[test]
    #[ignore = "run by swapped_signer"]
    fn swap_the_signer() {
        with_session(|session| put_another(session, false));
    }

    #[test]
    #[ignore = "run by swapped_signer"]
    fn loosen_the_signer() {
        with_session(|session| put_another(session, true));
    }
}
