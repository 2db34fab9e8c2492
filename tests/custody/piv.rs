//! The YubiKey driver against a real PC/SC service with a virtual card: what every token does, and
//! what a card alone can suffer: pulled, put back, reset by somebody else, its service restarted.
//!
//! The PC/SC library reads once in a process where its service is, so each scenario runs in a process
//! of its own: a test starts this same binary again with the scenario's name.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may sleep"
)]

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{self, ECDSA_P256_SHA256_FIXED};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use strongroom::cli::stand_in::piv::{Card, SOCKET, Service, socket};
use strongroom::custody::attested::Policy;
use strongroom::custody::claims::{Verdict, device};
use strongroom::custody::lane::{Lane, Options};
use strongroom::custody::probe::{Found, probe};
use strongroom::custody::profile::{Profile, WantsPin};
use strongroom::custody::proof::Proof;
use strongroom::custody::{
    self, Access, BackingKeyId, Error, KeyCheck, Locator, Made, OAEP_LABEL, Scheme, SigningScheme,
};
use strongroom::secret::{Key, Secret};
use yubikey::piv::{AlgorithmId, RetiredSlotId, SlotId};
use yubikey::{MgmKey, PinPolicy, Serial, TouchPolicy, YubiKey};

const DIRECTORY: &str = "STRONGROOM_TEST_DIRECTORY";
const PIN: &str = "7c41e0a9";
const PUK: &str = "90b2f3d5";
const LABEL: &str = "strongroom test";
const SERIAL: u32 = 20_000_001;
const ID: BackingKeyId = BackingKeyId([1; 16]);
const OTHER: BackingKeyId = BackingKeyId([2; 16]);
/// Where the first key goes.
const FIRST: SlotId = SlotId::Retired(RetiredSlotId::R1);

/// After this long a PC/SC service has seen that a card is gone: it looks every 400 milliseconds.
const NOTICED: Duration = Duration::from_millis(600);

// ---- processes -------------------------------------------------------------------------------

/// Runs `scenario` in a process of its own, with an empty folder.
fn alone(scenario: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &format!("scenarios::{scenario}"), "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env(SOCKET, socket(directory.path()))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && text.contains("1 passed");
    assert!(ran, "{scenario}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn directory() -> PathBuf {
    std::env::var(DIRECTORY).expect("run by the test of the same name").into()
}

// ---- cards -----------------------------------------------------------------------------------

/// What scripts/piv-card has built.
fn program() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder");
    let program = target.join("piv-card/debug/piv-card");
    assert!(program.exists(), "no {}: run scripts/piv-card", program.display());
    program
}

fn service() -> Service {
    Service::start(&directory()).expect("a PC/SC service")
}

/// The card of this serial number, as it was when it was last pulled; waits until it answers.
fn plug_into(service: &Service, reader: u16, serial: u32, more: &[&str]) -> Card {
    let memory = directory().join(format!("{serial}.json"));
    let number = serial.to_string();
    let mut arguments = vec!["--state", memory.to_str().expect("text"), "--serial", &number];
    arguments.extend_from_slice(more);
    let card = service.plug(&program(), reader, &arguments).expect("a card");
    let deadline = Instant::now() + Duration::from_secs(10);
    while YubiKey::open_by_serial(Serial(serial)).is_err() {
        assert!(Instant::now() < deadline, "card {serial} does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    card
}

fn plug(service: &Service) -> Card {
    plug_into(service, 0, SERIAL, &[])
}

/// Pulls the card, and waits until the service has seen it: the virtual reader now and then takes a card
/// that was back before for none, and for ever.
fn pull(card: Card) {
    drop(card);
    std::thread::sleep(NOTICED);
}

/// Puts the card back and does not wait for it.
fn put_back(service: &Service) -> Card {
    let memory = directory().join(format!("{SERIAL}.json"));
    let arguments = ["--state", memory.to_str().expect("text")];
    service.plug(&program(), 0, &arguments).expect("a card")
}

fn secret(text: &str) -> Secret {
    Secret::copy_of(text.as_bytes())
}

fn profile() -> Profile {
    Profile::built_in("virtual-piv").expect("sound")
}

fn access(token: Locator, pin: &str) -> Access {
    Access { token, pin: secret(pin), module: None, device: None }
}

fn labelled() -> Locator {
    Locator::Label(LABEL.into())
}

fn provision() -> custody::Result<custody::TokenInfo> {
    custody::provision(&profile(), &access(labelled(), PIN), &secret(PUK), LABEL)
}

fn open_with(token: Locator, pin: &str) -> custody::Result<Lane> {
    let options = Options { deadline_ms: 60_000, ..Options::default() };
    custody::open(profile(), access(token, pin), &options)
}

/// A card that was set up, and a lane to it.
fn lane() -> (Service, Card, Lane) {
    let service = service();
    let card = plug(&service);
    provision().expect("set up");
    let lane = open_with(labelled(), PIN).expect("a lane");
    (service, card, lane)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Another program on the card, with every right; resets it when done.
fn somebody_else<T>(act: impl FnOnce(&mut YubiKey) -> T) -> T {
    let mut card = YubiKey::open_by_serial(Serial(SERIAL)).expect("open");
    card.verify_pin(PIN.as_bytes()).expect("the PIN");
    let key = MgmKey::get_protected(&mut card).expect("the management key");
    card.authenticate(key).expect("authenticated");
    act(&mut card)
}

fn tries() -> u8 {
    let mut card = YubiKey::open_by_serial(Serial(SERIAL)).expect("open");
    card.get_pin_retries().expect("told")
}

// ---- what is expected --------------------------------------------------------------------------

fn refusal<T>(result: custody::Result<T>) -> Error {
    result.err().expect("must be refused")
}

fn is_rejected(error: &Error) -> bool {
    matches!(error, Error::KeyRejected { .. })
}

/// What the host agrees on with a key: the peer's public key, and the x-coordinate.
fn host_agreement(public: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mine = PrivateKey::generate(&ECDH_P256).expect("made");
    let peer = mine.compute_public_key().expect("computed").as_ref().to_vec();
    let theirs = UnparsedPublicKey::new(&ECDH_P256, public);
    let secret = agree(&mine, theirs, (), |x| Ok(x.to_vec())).expect("agreed");
    (peer, secret)
}

fn host_encryption(info: &[u8], message: &[u8], label: &[u8]) -> Vec<u8> {
    let key = PublicEncryptingKey::from_der(info).expect("a SubjectPublicKeyInfo");
    let key = OaepPublicEncryptingKey::new(key).expect("fit for OAEP");
    let mut ciphertext = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, message, &mut ciphertext, Some(label)).expect("encrypted");
    ciphertext
}

fn public(made: &Made) -> &[u8] {
    made.public.as_deref().expect("a pair")
}

async fn agrees(lane: &Lane, id: BackingKeyId, made: &Made) -> custody::Result<()> {
    let (peer, expected) = host_agreement(public(made));
    let secret = lane.agree(id.into(), made.evidence.check, peer).await?;
    assert_eq!(secret.expose().as_slice(), expected, "a wrong answer");
    Ok(())
}

/// How long it takes until the key serves again. Errors on the way are clear ones.
async fn serves_again(lane: &Lane, made: &Made) -> Duration {
    let start = Instant::now();
    loop {
        match agrees(lane, ID, made).await {
            Ok(()) => return start.elapsed(),
            Err(Error::Unavailable { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", lane.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

macro_rules! scenarios {
    ($($name:ident: $scenario:ident),+ $(,)?) => {
        $(#[test] fn $name() { alone(stringify!($scenario)); })+
    };
}

scenarios! {
    a_generated_key_agrees_and_is_gone_once_destroyed: agreement,
    an_rsa_key_opens_what_is_encrypted_for_it_and_nothing_else: decryption,
    a_signer_signs_and_another_in_its_place_is_refused: signing,
    what_a_card_can_not_do_is_refused_as_its_profile_says: refusals,
    keys_are_found_by_id_on_a_card_that_was_away_and_by_another_process: found_again,
    the_card_holds_24_keys_and_the_slot_of_a_destroyed_one_is_used_again: capacity,
    a_key_made_or_brought_in_by_somebody_else_is_refused: substituted,
    what_broke_off_between_directory_and_key_is_destroyed_by_id: half_made,
    a_card_that_is_pulled_and_put_back_serves_again: pulled,
    a_service_that_was_restarted_is_found_again: restarted,
    under_load_a_flapping_card_gives_right_answers_or_clear_errors: flapping,
    a_card_that_somebody_else_has_reset_serves_the_same_request: reset_by_another,
    of_two_cards_the_one_of_our_serial_number_is_used: two_cards,
    a_wrong_pin_is_told_and_not_tried_again: wrong_pin,
    the_last_try_of_a_pin_is_never_used: last_try,
    a_pin_changed_meanwhile_is_tried_once_and_not_again: pin_changed,
    a_refused_pin_is_not_sent_again_on_a_connection_that_stays: pin_changed_beside,
    two_who_use_a_card_at_once_do_not_overwrite_each_others_keys: beside_another,
    a_key_whose_entry_another_process_overwrites_is_not_acknowledged: overtaken,
    a_card_that_was_reset_is_not_sent_the_pin: factory_reset,
    a_key_that_wants_the_pin_each_time_gets_it: pin_always,
    nothing_is_left_at_its_default: provisioned,
    a_card_that_is_not_as_from_the_factory_is_not_touched: not_provisioned,
    the_pin_is_in_no_log_at_any_level: logs,
    a_probe_finds_that_all_claims_hold_and_leaves_nothing: probed,
    a_probe_of_a_card_that_was_not_set_up_tells_how_it_is: probed_from_the_factory,
}

/// Not tests of their own: each is run by the test above that names it.
mod scenarios {
    use super::*;

    fn look(pin: &str) -> custody::Result<Found> {
        probe(&profile(), access(labelled(), pin))
    }

    fn seen(found: &Found, what: &str) -> String {
        let told = found.survey.told.iter().find(|(name, _)| *name == what);
        told.expect("told").1.clone()
    }

    #[test]
    #[ignore = "run in its own process"]
    fn probed() {
        let service = service();
        let card = plug(&service);
        provision().expect("set up");
        let found = look(PIN).expect("probed");
        assert_eq!((found.removed, found.survey.fits), (0, Some("virtual-piv")));
        for finding in device::findings(&profile(), &found, true) {
            let fits = matches!(finding.verdict, Verdict::Holds | Verdict::NotClaimed);
            assert!(fits, "{finding:?}");
        }
        let proposed = device::proposal(&profile(), &found).expect("usable");
        let proposed = Profile::parse(&proposed).expect("sound");
        assert_eq!((&proposed.name, &proposed.schemes), (&profile().name, &profile().schemes));
        // A slot that was used once holds a key that nobody uses; it is free all the same.
        let again = look(PIN).expect("probed");
        assert!(seen(&again, "slots").starts_with("24 of 24 free"), "{}", seen(&again, "slots"));

        // As a probe would leave it that was killed.
        let lane = open_with(labelled(), PIN).expect("a lane");
        let left = BackingKeyId(*b"strongroom probe");
        runtime().block_on(lane.generate(left, Scheme::Ecdh)).expect("made");
        drop(lane);
        assert_eq!(look(PIN).expect("probed").removed, 1);

        let before = tries();
        let refused = refusal(look("99999999"));
        assert!(matches!(refused, Error::Pin { .. }), "{refused}");
        assert_eq!(tries(), before - 1, "a wrong PIN is tried once");
        drop(card);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn probed_from_the_factory() {
        let service = service();
        let _card = plug(&service);
        let before = tries();
        let found = look(PIN).expect("looked at");
        assert_eq!(tries(), before, "no PIN is tried");
        assert!(seen(&found, "PIN").starts_with(&format!("{before} tries left")));
        assert!(seen(&found, "slots").ends_with("in 0 of all is one"));
        let findings = device::findings(&profile(), &found, true);
        let scheme = findings.iter().find(|one| one.what == "scheme ecdh").expect("told");
        assert_eq!(scheme.verdict, Verdict::Untold);
        assert!(scheme.seen.contains("not set up by `strongroom init`"), "{scheme:?}");
        assert_eq!(device::proposal(&profile(), &found), None);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn agreement() {
        let (_service, _card, lane) = lane();
        assert_eq!(lane.info().label, LABEL);
        assert_eq!(lane.info().serial, SERIAL.to_string());
        assert!(lane.info().model.contains("firmware 5.4.3"), "{}", lane.info().model);
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            let told = &made.evidence;
            assert!(told.sensitive && told.never_extractable && told.always_sensitive);
            assert!(told.local && !told.extractable && told.mechanisms.is_empty());
            assert_eq!(told.check, KeyCheck::of_public(public(&made)));
            assert_eq!(lane.inspect(ID.into()).await.expect("there"), *told);
            assert!(is_rejected(&refusal(lane.generate(ID, Scheme::Ecdh).await)), "twice");

            let proof = lane.attest(ID.into(), vec![1; 32]).await.expect("attested");
            let Proof::Card(attested) = proof else { panic!("no card's") };
            let serial = SERIAL.to_string();
            let policy = attested.check(Some(told.check), &serial).expect("right");
            assert_eq!(policy, Policy { pin: 2, touch: 1 });
            assert!(attested.check(Some(KeyCheck([0; 8])), &serial).is_err());
            assert!(attested.is_under(std::slice::from_ref(&attested.issuer.0)), "its own root");

            agrees(&lane, ID, &made).await.expect("agreed");
            let (peer, _) = host_agreement(public(&made));
            let wrong = lane.agree(ID.into(), KeyCheck([0; 8]), peer.clone()).await;
            assert!(is_rejected(&refusal(wrong)), "another check value");
            let mut off = peer.clone();
            off[64] ^= 1;
            let off = lane.agree(ID.into(), told.check, off).await;
            assert!(matches!(refusal(off), Error::BadRequest(_)), "a point off the curve");
            let other = lane.unwrap(ID.into(), told.check, vec![1; 256]).await;
            assert!(is_rejected(&refusal(other)), "another use");

            lane.destroy(ID).await.expect("destroyed");
            assert_eq!(refusal(lane.destroy(ID).await), Error::KeyNotFound(ID));
            assert_eq!(refusal(lane.inspect(ID.into()).await), Error::KeyNotFound(ID));
            let gone = lane.agree(ID.into(), told.check, peer).await;
            assert_eq!(refusal(gone), Error::KeyNotFound(ID));
        });
        assert_eq!(lane.health().epoch, 1, "nothing of this needs another connection");
        drop(lane);
        let mut card = YubiKey::open_by_serial(Serial(SERIAL)).expect("open");
        let left = yubikey::piv::metadata(&mut card, FIRST).expect("something");
        let info = left.public.expect("a key");
        assert_ne!(info.subject_public_key.raw_bytes()[1..9], [0; 8], "another key is over it");
    }

    #[test]
    #[ignore = "run in its own process"]
    fn decryption() {
        let (_service, _card, lane) = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::RsaOaep).await.expect("made");
            let check = made.evidence.check;
            assert_eq!(check, KeyCheck::of_public(public(&made)));
            let proof = lane.attest(ID.into(), vec![]).await.expect("attested");
            let Proof::Card(attested) = proof else { panic!("no card's") };
            attested.check(Some(check), &SERIAL.to_string()).expect("right");
            let opened = |ciphertext| lane.unwrap(ID.into(), check, ciphertext);
            for byte in [0, 0x5a, 0xff] {
                let ciphertext = host_encryption(public(&made), &[byte; 32], OAEP_LABEL);
                assert_eq!(opened(ciphertext).await.expect("opened").expose(), &[byte; 32]);
            }
            let mut changed = host_encryption(public(&made), &[1; 32], OAEP_LABEL);
            changed[200] ^= 1;
            for (why, ciphertext) in [
                ("another label", host_encryption(public(&made), &[1; 32], b"another")),
                ("shorter", host_encryption(public(&made), &[1; 31], OAEP_LABEL)),
                ("longer", host_encryption(public(&made), &[1; 33], OAEP_LABEL)),
                ("changed", changed),
                ("above the modulus", vec![0xff; 256]),
                ("too short", vec![1; 255]),
            ] {
                assert!(is_rejected(&refusal(opened(ciphertext).await)), "{why}");
            }
        });
        assert_eq!(lane.health().epoch, 1, "nothing of this needs another connection");
    }

    #[test]
    #[ignore = "run in its own process"]
    fn signing() {
        let (_service, _card, lane) = lane();
        let scheme = SigningScheme::EcdsaP256;
        runtime().block_on(async {
            let public = lane.generate_signer(ID, scheme).await.expect("made").public;
            let message = b"a message".to_vec();
            for _ in 0..20 {
                let signed = lane.sign(ID.into(), scheme, public.clone(), message.clone()).await;
                let signature = signed.expect("signed");
                signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public)
                    .verify(&message, &signature)
                    .expect("right");
            }
            let refused = lane.generate_signer(OTHER, SigningScheme::Ed25519).await;
            assert!(matches!(refusal(refused), Error::Unsupported { .. }));
            somebody_else(|card| {
                let (pin, touch) = (PinPolicy::Once, TouchPolicy::Never);
                yubikey::piv::generate(card, FIRST, AlgorithmId::EccP256, pin, touch).expect("made")
            });
            let refused = lane.sign(ID.into(), scheme, public, message).await;
            assert!(is_rejected(&refusal(refused)));
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn refusals() {
        let (_service, _card, lane) = lane();
        let cannot: Vec<_> = profile().cannot.into_iter().map(|cannot| cannot.what).collect();
        let says = |what: &str| assert!(cannot.iter().any(|one| one == what), "{what}");
        runtime().block_on(async {
            let unsupported = |error: Error| assert!(matches!(error, Error::Unsupported { .. }));
            says("do hmac-kdf");
            unsupported(refusal(lane.generate(ID, Scheme::HmacKdf).await));
            unsupported(refusal(lane.derive(ID.into(), KeyCheck([0; 8]), vec![1]).await));
            says("bring in key material");
            let material = Key::take(&mut [7; 32]);
            unsupported(refusal(lane.import(ID, Scheme::HmacKdf, material).await));
            says("give out random bytes");
            unsupported(refusal(lane.random(32).await));
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn found_again() {
        let (service, card, lane) = lane();
        let runtime = runtime();
        let made = runtime.block_on(lane.generate(ID, Scheme::Ecdh)).expect("made");
        drop(lane);
        pull(card);
        let _card = plug(&service);
        for token in [labelled(), Locator::Serial(SERIAL.to_string())] {
            let lane = open_with(token, PIN).expect("a lane");
            runtime.block_on(agrees(&lane, ID, &made)).expect("agreed");
        }
        let missing = open_with(Locator::Serial("7".into()), PIN);
        assert!(matches!(refusal(missing), Error::Unavailable { .. }));
        let missing = open_with(Locator::Label("another".into()), PIN);
        assert!(matches!(refusal(missing), Error::Unavailable { .. }));
    }

    #[test]
    #[ignore = "run in its own process"]
    fn capacity() {
        let (_service, _card, lane) = lane();
        runtime().block_on(async {
            let mut keys = Vec::new();
            for n in 1..=24 {
                let id = BackingKeyId([n; 16]);
                keys.push((id, lane.generate(id, Scheme::Ecdh).await.expect("made")));
            }
            let more = BackingKeyId([25; 16]);
            let full = refusal(lane.generate(more, Scheme::Ecdh).await);
            assert!(matches!(full, Error::Full { .. }), "{full}");
            for (id, made) in &keys {
                agrees(&lane, *id, made).await.expect("agreed");
            }
            let (gone, _) = keys.remove(9);
            lane.destroy(gone).await.expect("destroyed");
            keys.push((more, lane.generate(more, Scheme::Ecdh).await.expect("room again")));
            for (id, made) in &keys {
                agrees(&lane, *id, made).await.expect("agreed");
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn substituted() {
        let (_service, _card, lane) = lane();
        let (pin, touch) = (PinPolicy::Once, TouchPolicy::Never);
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            somebody_else(|card| {
                yubikey::piv::generate(card, FIRST, AlgorithmId::EccP256, pin, touch).expect("made")
            });
            let refused = refusal(agrees(&lane, ID, &made).await);
            assert!(refused.to_string().contains("key-check value"), "{refused}");

            somebody_else(|card| {
                let p256 = AlgorithmId::EccP256;
                yubikey::piv::import_ecc_key(card, FIRST, p256, &[7; 32], touch, pin).expect("in")
            });
            let refused = refusal(agrees(&lane, ID, &made).await);
            assert!(refused.to_string().contains("not made on the card"), "{refused}");
            let refused = refusal(lane.inspect(ID.into()).await);
            assert!(refused.to_string().contains("not made on the card"), "{refused}");
            assert!(is_rejected(&refusal(lane.attest(ID.into(), vec![]).await)));

            somebody_else(|card| {
                let rsa = AlgorithmId::Rsa2048;
                yubikey::piv::generate(card, FIRST, rsa, pin, touch).expect("made")
            });
            let refused = refusal(agrees(&lane, ID, &made).await);
            assert!(refused.to_string().contains("another kind"), "{refused}");
            lane.destroy(ID).await.expect("and can be destroyed all the same");
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn half_made() {
        let (_service, _card, lane) = lane();
        drop(lane);
        // The directory as it is written before the first key is made.
        let mut intent = [&[1, 4][..], b"half", &[1, 0x82, 1], &ID.0].concat();
        somebody_else(|card| card.save_object(0x5f_5352, &mut intent).expect("saved"));
        let lane = open_with(Locator::Label("half".into()), PIN).expect("a lane");
        runtime().block_on(async {
            assert!(is_rejected(&refusal(lane.inspect(ID.into()).await)));
            assert!(is_rejected(&refusal(lane.generate(ID, Scheme::Ecdh).await)), "taken");
            lane.destroy(ID).await.expect("destroyed");
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            agrees(&lane, ID, &made).await.expect("agreed");
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn pulled() {
        let (service, card, lane) = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            drop(card);
            for _ in 0..3 {
                let gone = refusal(agrees(&lane, ID, &made).await);
                assert!(matches!(gone, Error::Unavailable { .. }), "{gone}");
                assert!(!lane.health().up && lane.health().why.is_some());
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            let _card = put_back(&service);
            let took = serves_again(&lane, &made).await;
            println!("card put back: serves after {took:?}");
            assert!(took < Duration::from_secs(2), "{took:?}");
            assert!(lane.health().up);
            assert!(lane.health().epoch >= 2);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn restarted() {
        let (service, card, lane) = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            drop((card, service));
            let gone = refusal(agrees(&lane, ID, &made).await);
            assert!(matches!(gone, Error::Unavailable { .. }), "{gone}");
            let service = super::service();
            let _card = put_back(&service);
            let took = serves_again(&lane, &made).await;
            println!("service restarted: serves after {took:?}");
            assert!(took < Duration::from_secs(2), "{took:?}");
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn flapping() {
        let (service, card, lane) = lane();
        let runtime = runtime();
        let made = runtime.block_on(lane.generate(ID, Scheme::Ecdh)).expect("made");
        let until = Instant::now() + Duration::from_secs(8);
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (lane, made) = (lane.clone(), made.clone());
                runtime.spawn(async move {
                    let (mut right, mut failed) = (0_u32, 0_u32);
                    while Instant::now() < until {
                        match agrees(&lane, ID, &made).await {
                            Ok(()) => right += 1,
                            Err(Error::Unavailable { .. } | Error::Overloaded(_)) => {
                                failed += 1;
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                    (right, failed)
                })
            })
            .collect();
        let (mut card, mut flaps) = (Some(card), 0);
        while Instant::now() + Duration::from_secs(2) < until {
            std::thread::sleep(Duration::from_millis(300));
            if let Some(card) = card.take() {
                pull(card);
            }
            card = Some(put_back(&service));
            flaps += 1;
            std::thread::sleep(Duration::from_millis(700));
        }
        runtime.block_on(async {
            let (mut right, mut failed) = (0, 0);
            for worker in workers {
                let (r, f) = worker.await.expect("no wrong answer");
                (right, failed) = (right + r, failed + f);
            }
            println!("{flaps} flaps: {right} right answers, {failed} clear errors");
            assert!(right > 50 && failed > 0 && flaps > 2, "{right} {failed} {flaps}");
            assert!(serves_again(&lane, &made).await < Duration::from_secs(2));
        });
        if let Some(card) = card {
            pull(card);
        }
        // Every new connection sends the PIN, and the right one costs no try.
        let _card = plug(&service);
        assert_eq!(tries(), 3);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn reset_by_another() {
        let (_service, _card, lane) = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            for _ in 0..5 {
                // Letting go of it resets it.
                assert_eq!(tries(), 3);
                agrees(&lane, ID, &made).await.expect("the same request, made again");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn two_cards() {
        let service = service();
        let card = plug(&service);
        provision().expect("set up");
        let _other = plug_into(&service, 1, SERIAL + 1, &[]);
        let refused = refusal(provision());
        assert!(refused.to_string().contains("more than one card"), "{refused}");
        let lane = open_with(Locator::Serial(SERIAL.to_string()), PIN).expect("a lane");
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            drop(card);
            let gone = refusal(agrees(&lane, ID, &made).await);
            assert!(matches!(gone, Error::Unavailable { .. }), "not the other card: {gone}");
            tokio::time::sleep(NOTICED).await;
            let _card = put_back(&service);
            serves_again(&lane, &made).await;
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn wrong_pin() {
        let service = service();
        let _card = plug(&service);
        provision().expect("set up");
        let refused = refusal(open_with(labelled(), "00000000"));
        assert!(matches!(refused, Error::Pin { .. }), "{refused}");
        assert!(refused.to_string().contains("2 tries are left"), "{refused}");
        assert_eq!(tries(), 2);
        let refused = refusal(open_with(labelled(), "a pin of many bytes"));
        assert!(matches!(refused, Error::Pin { .. }), "{refused}");
        assert_eq!(tries(), 2);
        open_with(labelled(), PIN).expect("the right one");
        assert_eq!(tries(), 3);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn last_try() {
        let service = service();
        let _card = plug(&service);
        provision().expect("set up");
        for left in [2, 1] {
            let mut card = YubiKey::open_by_serial(Serial(SERIAL)).expect("open");
            let wrong = card.verify_pin(b"00000000");
            assert_eq!(wrong, Err(yubikey::Error::WrongPin { tries: left }));
        }
        let refused = refusal(open_with(labelled(), PIN));
        assert!(matches!(refused, Error::Pin { .. }), "{refused}");
        assert!(refused.to_string().contains("1 tries left"), "{refused}");
        assert_eq!(tries(), 1, "the right PIN is not tried either");
    }

    #[test]
    #[ignore = "run in its own process"]
    fn pin_changed() {
        let (_service, _card, lane) = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            let change = |from: &str, to: &str| {
                let mut card = YubiKey::open_by_serial(Serial(SERIAL)).expect("open");
                card.change_pin(from.as_bytes(), to.as_bytes()).expect("changed");
            };
            change(PIN, "11223344");
            for _ in 0..4 {
                let refused = refusal(agrees(&lane, ID, &made).await);
                assert!(matches!(refused, Error::Pin { .. }), "{refused}");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            assert_eq!(tries(), 2, "tried once");
            assert!(!lane.health().up);
            change("11223344", PIN);
            let refused = refusal(agrees(&lane, ID, &made).await);
            assert!(matches!(refused, Error::Pin { .. }), "until the next start: {refused}");
            assert_eq!(tries(), 3);
        });
    }

    /// What verifies the PIN anew (here: making a key) once sent it again each time, since the
    /// connection was still there.
    #[test]
    #[ignore = "run in its own process"]
    fn pin_changed_beside() {
        let (_service, _card, lane) = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            let mut card = YubiKey::open_by_serial(Serial(SERIAL)).expect("open");
            card.change_pin(PIN.as_bytes(), b"11223344").expect("changed");
            assert!(card.disconnect(pcsc::Disposition::LeaveCard).is_ok(), "and not reset");
            for _ in 0..3 {
                let refused = refusal(lane.generate(OTHER, Scheme::Ecdh).await);
                assert!(matches!(refused, Error::Pin { .. }), "{refused}");
            }
            let refused = refusal(agrees(&lane, ID, &made).await);
            assert!(matches!(refused, Error::Pin { .. }), "{refused}");
            assert_eq!(tries(), 2, "tried once");
        });
    }

    /// The second once put its key over the first one's: it knew the directory of its own start.
    #[test]
    #[ignore = "run in its own process"]
    fn beside_another() {
        let (_service, _card, lane) = lane();
        let beside = open_with(labelled(), PIN).expect("a lane");
        runtime().block_on(async {
            let first = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            let second = beside.generate(OTHER, Scheme::Ecdh).await.expect("made");
            agrees(&beside, OTHER, &second).await.expect("agreed");
            lane.destroy(OTHER).await.expect("known to the first by now");
            agrees(&lane, ID, &first).await.expect("still there");
        });
        assert_eq!([lane.health().epoch, beside.health().epoch], [1, 1]);
    }

    /// A key was once given out that the directory on the card no longer had: the next one went over it.
    #[test]
    #[ignore = "run in its own process"]
    fn overtaken() {
        let service = service();
        let card = plug_into(&service, 0, SERIAL, &["--overtaken"]);
        provision().expect("set up");
        let lane = open_with(labelled(), PIN).expect("a lane");
        runtime().block_on(async {
            let refused = refusal(lane.generate(ID, Scheme::Ecdh).await);
            assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
            assert!(refused.to_string().contains("another process has changed"), "{refused}");
            assert_eq!(refusal(lane.destroy(ID).await), Error::KeyNotFound(ID), "no trace of it");
            pull(card);
            let _card = plug(&service);
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            agrees(&lane, ID, &made).await.expect("agreed");
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn factory_reset() {
        let (service, card, lane) = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            pull(card);
            std::fs::remove_file(directory().join(format!("{SERIAL}.json"))).expect("removed");
            let _card = plug(&service);
            for _ in 0..3 {
                let refused = refusal(agrees(&lane, ID, &made).await);
                assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            assert_eq!(tries(), 3);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn pin_always() {
        let service = service();
        let _card = plug(&service);
        provision().expect("set up");
        let mut always = profile();
        always.policies.pin = WantsPin::Always;
        let options = Options::default();
        let lane = custody::open(always, access(labelled(), PIN), &options).expect("a lane");
        let runtime = runtime();
        let made = runtime.block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            for _ in 0..3 {
                agrees(&lane, ID, &made).await.expect("agreed");
            }
            lane.destroy(OTHER).await.expect_err("not there");
            lane.generate(OTHER, Scheme::Ecdh).await.expect("made");
            made
        });
        assert_eq!(lane.health().epoch, 1, "no use of it failed first");
        drop(lane);
        // The key keeps what it was made with, whatever the profile says by now.
        let lane = open_with(labelled(), PIN).expect("a lane");
        runtime.block_on(async {
            for _ in 0..3 {
                agrees(&lane, ID, &made).await.expect("agreed");
            }
        });
        assert_eq!(lane.health().epoch, 1);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn provisioned() {
        let service = service();
        let _card = plug(&service);
        let info = provision().expect("set up");
        assert_eq!((info.label.as_str(), info.serial), (LABEL, SERIAL.to_string()));
        let again = provision().expect("an init that broke off goes on");
        assert_eq!(again.label, LABEL);
        let mut card = YubiKey::open_by_serial(Serial(SERIAL)).expect("open");
        use yubikey::piv::ManagementSlotId::{Management, Pin, Puk};
        for which in [Pin, Puk, Management] {
            let told = yubikey::piv::metadata(&mut card, SlotId::Management(which)).expect("told");
            assert_eq!(told.default, Some(false), "{which:?}");
        }
        assert!(card.authenticate(MgmKey::default()).is_err());
        assert!(MgmKey::get_protected(&mut card).is_err(), "behind the PIN");
        card.change_puk(PUK.as_bytes(), PUK.as_bytes()).expect("the PUK that was given");
    }

    #[test]
    #[ignore = "run in its own process"]
    fn not_provisioned() {
        let service = service();
        let why = |expected: &str| {
            let refused = refusal(provision());
            assert!(refused.to_string().contains(expected), "{refused}");
        };
        why("no YubiKey");
        {
            let _card = plug_into(&service, 0, 7, &["--aes"]);
            why("change-management-key");
        }
        let with_card = |serial: u32, act: &dyn Fn(&mut YubiKey), expected: &str| {
            let _card = plug_into(&service, 0, serial, &[]);
            let memory = directory().join(format!("{serial}.json"));
            act(&mut YubiKey::open_by_serial(Serial(serial)).expect("open"));
            let before = std::fs::read(&memory).expect("read");
            why(expected);
            assert!(before == std::fs::read(&memory).expect("read"), "nothing was changed");
        };
        let occupied = |card: &mut YubiKey| {
            card.authenticate(MgmKey::default()).expect("authenticated");
            let (slot, p256) = (SlotId::Signature, AlgorithmId::EccP256);
            let (pin, touch) = (PinPolicy::Once, TouchPolicy::Never);
            yubikey::piv::generate(card, slot, p256, pin, touch).expect("made");
        };
        with_card(8, &occupied, "slot 9c holds a key");
        let changed = |card: &mut YubiKey| card.change_pin(b"123456", b"654321").expect("changed");
        with_card(9, &changed, "PIN or PUK is not the factory's");
        let managed = |card: &mut YubiKey| {
            card.authenticate(MgmKey::default()).expect("authenticated");
            MgmKey::generate().set_manual(card, false).expect("set");
        };
        with_card(10, &managed, "management key is not the factory's");
        {
            let _card = plug_into(&service, 0, 11, &[]);
            let other = access(Locator::Label("other".into()), PIN);
            custody::provision(&profile(), &other, &secret(PUK), "other").expect("set up");
            why("the token `other` already");
        }
        let _card = plug_into(&service, 0, 12, &[]);
        for (pin, puk, label) in [
            ("12345", PUK, LABEL),
            ("123456789", PUK, LABEL),
            (PIN, "1234567", LABEL),
            (PIN, PUK, ""),
        ] {
            let access = access(labelled(), pin);
            let refused = custody::provision(&profile(), &access, &secret(puk), label);
            assert!(matches!(refusal(refused), Error::BadRequest(_)));
        }
    }

    #[test]
    #[ignore = "run in its own process"]
    fn logs() {
        use log::{LevelFilter, Log, Metadata, Record};
        use std::sync::Mutex;

        struct Everything(Mutex<String>);
        impl Log for Everything {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }
            fn log(&self, record: &Record<'_>) {
                let line = format!("{} {} {}\n", record.level(), record.target(), record.args());
                self.0.lock().expect("unpoisoned").push_str(&line);
            }
            fn flush(&self) {}
        }
        static LOG: Everything = Everything(Mutex::new(String::new()));

        log::set_logger(&LOG).expect("the only one");
        log::set_max_level(LevelFilter::Trace);
        let (_service, _card, lane) = lane();
        runtime().block_on(async {
            let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
            agrees(&lane, ID, &made).await.expect("agreed");
        });
        let text = LOG.0.lock().expect("unpoisoned").clone();
        assert!(text.contains("INFO yubikey"), "the crate does log: {text}");
        // Commands are written as lists of numbers.
        let numbers: Vec<_> = PIN.bytes().map(|byte| byte.to_string()).collect();
        assert!(!text.contains(&numbers.join(", ")) && !text.contains(PIN), "{text}");
        assert!(!text.contains("TRACE") && !text.contains("DEBUG"), "{text}");
    }
}
