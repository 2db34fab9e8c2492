//! Custody in a TPM: what the suite asks of PKCS#11 tokens, asked of swtpm, and what only a TPM does.
//!
//! Each test has a swtpm of its own, so that it can be killed and its state swapped.

use super::{ID, Load, host_check, host_mac, key, refusal, runtime, secret, until_served};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use aws_lc_rs::{agreement, rand::SystemRandom};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strongroom::custody::boot::{self, Approval, Binding, State};
use strongroom::custody::claims::{Verdict, device};
use strongroom::custody::enrolment::{self, Challenge};
use strongroom::custody::lane::{Lane, Options};
use strongroom::custody::probe::{Found, probe};
use strongroom::custody::profile::Profile;
use strongroom::custody::proof::{self, Proof};
use strongroom::custody::sealed::{Sealed, seal};
use strongroom::custody::{
    self, Access, BackingKeyId, Error, Evidence, KeyCheck, Locator, Made, OAEP_LABEL, Scheme,
    SigningScheme, TokenKey, WrappedKey,
};
use strongroom::secret::Secret;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek};
use tss_esapi::attributes::ObjectAttributes;
use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{AuthHandle, PcrHandle, PersistentTpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, CapabilityData, Digest, DigestValues, EccParameter, EccPoint, EccScheme,
    KeyDerivationFunctionScheme, KeyedHashScheme, Public, PublicBuilder, PublicEccParameters,
    PublicKeyedHashParameters, SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall as _, UnMarshall as _};
use tss_esapi::{Context, TctiNameConf};

const PIN: &str = "0123456789abcdef0123456789abcdef";

// ---- swtpm -----------------------------------------------------------------------------------

struct Swtpm {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Swtpm {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("state")).expect("state");
        for _ in 0..20 {
            let port = two_free_ports();
            if let Some(child) = start(&directory.path().join("state"), port) {
                return Self { child, port, directory };
            }
        }
        panic!("swtpm does not start: run scripts/setup test");
    }

    fn state(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// As a loss of power.
    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    fn start(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if let Some(child) = start(&self.state("state"), self.port) {
                self.child = child;
                return;
            }
        }
        panic!("swtpm does not start again");
    }

    fn device(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    fn access(&self, pin: &str, token: Locator) -> Access {
        Access { token, pin: secret(pin), module: None, device: Some(self.device()) }
    }

    fn open(&self, pin: &str, options: &Options) -> custody::Result<Lane> {
        custody::open(profile(), self.access(pin, Locator::Label("any".into())), options)
    }

    fn lane(&self) -> Lane {
        self.open(PIN, &Options::default()).expect("a lane")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.kill();
    }
}

fn two_free_ports() -> u16 {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = first.local_addr().expect("an address").port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return port;
        }
    }
}

fn start(state: &Path, port: u16) -> Option<Child> {
    let mut child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .args(["--tpmstate", &format!("dir={}", state.display())])
        .args(["--server", &format!("type=tcp,port={port},bindaddr=127.0.0.1,disconnect")])
        .args(["--ctrl", &format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("swtpm: run scripts/setup test");
    loop {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Some(child);
        }
        if child.try_wait().expect("looked at").is_some() {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn profile() -> Profile {
    Profile::built_in("swtpm").expect("sound")
}

fn token_key(id: BackingKeyId, made: &Made) -> TokenKey {
    TokenKey { id, wrapped: made.wrapped.clone() }
}

fn id(n: u8) -> BackingKeyId {
    BackingKeyId([n; 16])
}

// ---- another user of the same TPM --------------------------------------------------------------

fn context(tpm: &Swtpm) -> Context {
    Context::new(TctiNameConf::from_str(&tpm.device()).expect("a TCTI")).expect("a context")
}

fn with_password<T>(
    context: &mut Context,
    act: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
) -> T {
    context.execute_with_session(Some(AuthSession::Password), act).expect("done")
}

/// The storage primary as the driver makes it.
fn primary(context: &mut Context) -> tss_esapi::handles::KeyHandle {
    let attributes = ObjectAttributes::builder()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true);
    let zeros = || EccParameter::try_from(vec![0; 32]).expect("zeros");
    let public = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes.build().expect("attributes"))
        .with_ecc_parameters(PublicEccParameters::new(
            SymmetricDefinitionObject::AES_128_CFB,
            EccScheme::Null,
            tss_esapi::interface_types::ecc::EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::new(zeros(), zeros()));
    let public = public.build().expect("a template");
    with_password(context, |context| {
        context.create_primary(Hierarchy::Owner, public, None, None, None, None)
    })
    .key_handle
}

/// An HMAC key of the same TPM with these attributes, in the driver's own wrapping.
fn foreign_key(tpm: &Swtpm, attributes: ObjectAttributes) -> TokenKey {
    let mut context = context(tpm);
    let parent = primary(&mut context);
    let public = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::HMAC_SHA_256))
        .with_keyed_hash_unique_identifier(Digest::default());
    let public = public.build().expect("a template");
    let made = with_password(&mut context, |context| {
        context.create(parent, public, None, None, None, None)
    });
    wrapped(&made.out_public, made.out_private.value())
}

fn wrapped(public: &Public, private: &[u8]) -> TokenKey {
    let mut blob = vec![1];
    for area in [public.marshall().expect("marshalled").as_slice(), private] {
        blob.extend_from_slice(&u16::try_from(area.len()).expect("short").to_be_bytes());
        blob.extend_from_slice(area);
    }
    TokenKey { id: ID, wrapped: WrappedKey::new(&blob) }
}

// ---- the suite -------------------------------------------------------------------------------

#[test]
fn a_generated_key_derives_and_says_what_it_is() {
    let tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        let key = token_key(ID, &made);
        let Evidence { sensitive, extractable, never_extractable, always_sensitive, local, .. } =
            made.evidence;
        assert!(sensitive && never_extractable && always_sensitive && local && !extractable);
        assert_eq!(made.evidence.mechanisms, ["CKM_SHA256_HMAC"]);
        assert!(made.public.is_none());
        assert_eq!(lane.inspect(key.clone()).await.expect("there"), made.evidence);

        let check = made.evidence.check;
        let one = lane.derive(key.clone(), check, b"one".to_vec()).await.expect("derived");
        let same = lane.derive(key.clone(), check, b"one".to_vec()).await.expect("derived");
        let two = lane.derive(key.clone(), check, b"two".to_vec()).await.expect("derived");
        assert_eq!(one.expose(), same.expose());
        assert_ne!(one.expose(), two.expose());

        // Nothing is in the TPM: what was destroyed is back with its wrapped form.
        lane.destroy(ID).await.expect("destroyed");
        lane.destroy(ID).await.expect("destroyed again");
        let back = lane.derive(key, check, b"one".to_vec()).await.expect("derived");
        assert_eq!(one.expose(), back.expose());
        let lost = lane.derive(id(9).into(), check, b"one".to_vec()).await;
        assert_eq!(refusal(lost), Error::KeyNotFound(id(9)));
    });
    assert_eq!(lane.health().epoch, 1, "nothing of this needs another context");
}

/// The handles of everything that is loaded into the TPM, or kept in it.
fn occupied(tpm: &Swtpm) -> usize {
    let name = TctiNameConf::from_str(&tpm.device()).expect("a TCTI");
    let mut context = Context::new(name).expect("a context");
    let (transient, persistent) = (0x8000_0000, 0x8100_0000);
    [transient, persistent]
        .map(|first| {
            let listed = context.get_capability(CapabilityType::Handles, first, 100);
            match listed.expect("listed").0 {
                CapabilityData::Handles(handles) => handles.len(),
                _ => panic!("no handles"),
            }
        })
        .iter()
        .sum()
}

fn probed(tpm: &Swtpm, profile: &Profile) -> Found {
    probe(profile, tpm.access(PIN, Locator::Label("any".into()))).expect("probed")
}

#[test]
fn a_probe_finds_that_all_claims_hold_and_leaves_nothing() {
    let tpm = Swtpm::new();
    let found = probed(&tpm, &profile());
    assert_eq!((found.removed, found.survey.fits), (0, Some("swtpm")));
    for finding in device::findings(&profile(), &found, true) {
        let fits = matches!(finding.verdict, Verdict::Holds | Verdict::NotClaimed);
        assert!(fits, "{finding:?}");
    }
    assert_eq!(occupied(&tpm), 0);
    let proposed = device::proposal(&profile(), &found).expect("usable");
    let proposed = Profile::parse(&proposed).expect("sound");
    assert_eq!((&proposed.name, &proposed.schemes), (&profile().name, &profile().schemes));

    // Of a TPM in a processor swtpm has all but the maker.
    let another = Profile::built_in("tpm2-firmware").expect("sound");
    let wrong = device::findings(&another, &probed(&tpm, &another), true);
    let wrong: Vec<_> = wrong.iter().filter(|one| one.verdict == Verdict::Fails).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert_eq!(wrong[0].what, "profile for its maker and version");

    let serial = Locator::Serial("0000000000000000".into());
    let refused = refusal(probe(&profile(), tpm.access(PIN, serial)));
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
}

#[test]
fn derivation_is_hmac_sha_256_of_the_key() {
    let tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let value = [0x42; 32];
        let made = lane.import(ID, Scheme::HmacKdf, key(value)).await.expect("imported");
        let evidence = &made.evidence;
        assert!(evidence.sensitive && !evidence.extractable);
        assert!(!evidence.local && !evidence.never_extractable && !evidence.always_sensitive);
        assert_eq!(evidence.check, host_check(&value));
        for input in [&b""[..], b"input", &[0; 1024]] {
            let derived = lane.derive(token_key(ID, &made), evidence.check, input.to_vec()).await;
            assert_eq!(derived.expect("derived").expose().as_slice(), host_mac(&value, input));
        }
        let long = lane.derive(token_key(ID, &made), evidence.check, vec![0; 1025]).await;
        assert!(matches!(refusal(long), Error::BadRequest(_)));
    });
}

#[test]
fn more_keys_than_the_tpm_has_room_for_serve_in_turn() {
    let tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let mut keys = Vec::new();
        for n in 0..8 {
            keys.push(lane.generate(id(n), Scheme::HmacKdf).await.expect("made"));
        }
        for _ in 0..3 {
            for (n, made) in (0..).zip(&keys) {
                let key = token_key(id(n), made);
                lane.derive(key, made.evidence.check, b"x".to_vec()).await.expect("derived");
            }
        }
    });
    assert_eq!(lane.health().epoch, 1);
}

#[test]
fn ecdh_agrees_with_what_the_host_computes() {
    let tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::Ecdh).await.expect("made");
        let (check, public) = (made.evidence.check, made.public.clone().expect("a public key"));
        assert_eq!(check, KeyCheck::of_public(&public));
        assert_eq!(made.evidence.mechanisms, ["CKM_ECDH1_DERIVE"]);
        let random = SystemRandom::new();
        let own = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &random);
        let own = own.expect("a key");
        let peer = own.compute_public_key().expect("a public key").as_ref().to_vec();
        let theirs = lane.agree(token_key(ID, &made), check, peer.clone()).await.expect("agreed");
        let public = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, &public);
        let wrong = aws_lc_rs::error::Unspecified;
        let same = agreement::agree_ephemeral(own, public, wrong, |ours| {
            assert_eq!(ours, theirs.expose());
            Ok(())
        });
        same.expect("agreed");

        let mut off = peer.clone();
        off[64] ^= 1;
        for bad in [off, peer[..64].to_vec(), vec![0; 65]] {
            let refused = lane.agree(token_key(ID, &made), check, bad).await;
            assert!(matches!(refusal(refused), Error::BadRequest(_)));
        }
        let misused = lane.derive(token_key(ID, &made), check, b"x".to_vec()).await;
        assert!(matches!(refusal(misused), Error::KeyRejected { .. }));
    });
}

#[test]
fn rsa_opens_what_was_encrypted_under_the_label_and_nothing_else() {
    let tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::RsaOaep).await.expect("made");
        let (check, public) = (made.evidence.check, made.public.clone().expect("a public key"));
        assert_eq!(check, KeyCheck::of_public(&public));
        let public = PublicEncryptingKey::from_der(&public).expect("a SubjectPublicKeyInfo");
        let public = OaepPublicEncryptingKey::new(public).expect("for OAEP");
        let encrypt = |plain: &[u8], label: &[u8]| {
            let mut out = vec![0; public.ciphertext_size()];
            let written = public.encrypt(&OAEP_SHA256_MGF1SHA256, plain, &mut out, Some(label));
            written.expect("encrypted").to_vec()
        };
        let open = |ciphertext| lane.unwrap(token_key(ID, &made), check, ciphertext);
        let opened = open(encrypt(&[7; 32], OAEP_LABEL)).await.expect("opened");
        assert_eq!(opened.expose(), &[7; 32]);
        let bad = [
            encrypt(&[7; 32], b"another label\0"),
            encrypt(&[7; 31], OAEP_LABEL),
            vec![1; 256],
            vec![0xff; 256],
            vec![1; 7],
        ];
        for ciphertext in bad {
            let refused = refusal(open(ciphertext).await);
            assert!(matches!(refused, Error::BadRequest(_)), "{refused}");
        }
        // A TPM says of such a ciphertext that it has failed; it was not taken for a dead one.
        assert_eq!(lane.health().epoch, 1);
    });
}

#[test]
fn a_signer_signs_and_its_substitute_is_refused() {
    let tpm = Swtpm::new();
    let lane = tpm.lane();
    let (scheme, message) = (SigningScheme::EcdsaP256, b"strongroom/eu-central-1/1");
    runtime().block_on(async {
        let one = lane.generate_signer(ID, scheme).await.expect("made");
        let key = TokenKey { id: ID, wrapped: one.wrapped.clone() };
        let sign = |key: TokenKey| lane.sign(key, scheme, one.public.clone(), message.to_vec());
        let signature = sign(key.clone()).await.expect("signed");
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &one.public);
        public.verify(message, &signature).expect("right");

        let other = lane.generate_signer(id(2), scheme).await.expect("made");
        let swapped = TokenKey { id: id(3), wrapped: other.wrapped };
        let why = refusal(sign(swapped).await).to_string();
        assert!(why.contains("not to be trusted") && why.contains("signatures"), "{why}");
        // What was put in its place does not stay there.
        let right = TokenKey { id: id(3), wrapped: one.wrapped.clone() };
        sign(right).await.expect("signed");
        assert!(lane.derive(key, KeyCheck([0; 8]), b"x".to_vec()).await.is_err());
        let none = refusal(lane.generate_signer(ID, SigningScheme::Ed25519).await);
        assert!(matches!(none, Error::Unsupported { .. }), "{none}");
    });
}

#[test]
fn a_substituted_key_is_refused() {
    let tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.import(ID, Scheme::HmacKdf, key([9; 32])).await.expect("imported");
        let key = token_key(ID, &made);
        for _ in 0..2 {
            let other = host_check(&[8; 32]);
            let refused = refusal(lane.derive(key.clone(), other, b"x".to_vec()).await);
            assert!(refused.to_string().contains("key-check value"), "{refused}");
            let own = host_check(&[9; 32]);
            lane.derive(key.clone(), own, b"x".to_vec()).await.expect("derived");
        }
    });
}

#[test]
fn a_key_of_another_kind_altered_or_of_another_tpm_is_refused() {
    let (tpm, other) = (Swtpm::new(), Swtpm::new());
    let attributes = |fixed: bool, duplicable: bool| {
        ObjectAttributes::builder()
            .with_fixed_tpm(fixed)
            .with_fixed_parent(fixed)
            .with_encrypted_duplication(duplicable)
            .with_sensitive_data_origin(true)
            .with_user_with_auth(true)
            .with_no_da(true)
            .with_sign_encrypt(true)
            .build()
            .expect("attributes")
    };
    let loose =
        [foreign_key(&tpm, attributes(false, false)), foreign_key(&tpm, attributes(false, true))];
    let theirs = foreign_key(&other, attributes(true, false));
    let lane = tpm.lane();
    runtime().block_on(async {
        for key in loose {
            let refused = refusal(lane.inspect(key.clone()).await);
            assert!(refused.to_string().contains("not as it was made"), "{refused}");
            let refused = refusal(lane.derive(key, KeyCheck([0; 8]), b"x".to_vec()).await);
            assert!(refused.to_string().contains("not as it was made"), "{refused}");
        }
        let refused = refusal(lane.inspect(theirs).await);
        assert!(refused.to_string().contains("this TPM has not made it"), "{refused}");

        let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        let whole = made.wrapped.expect("wrapped").bytes().to_vec();
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0x10;
            let key = TokenKey { id: ID, wrapped: WrappedKey::new(&bent) };
            let refused = refusal(lane.inspect(key).await);
            assert!(matches!(refused, Error::KeyRejected { .. }), "byte {at}: {refused}");
        }
        assert_eq!(lane.health().epoch, 1, "none of this was taken for a dead TPM");
    });
}

#[test]
fn random_bytes_come_in_bounds() {
    let tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let one = lane.random(4096).await.expect("random");
        assert_eq!(one.len(), 4096);
        assert!(one != lane.random(4096).await.expect("random"));
    });
}

#[test]
fn a_wrong_pin_is_told_and_not_tried_again_and_locks_nothing() {
    let mut tpm = Swtpm::new();
    let (made, second) = runtime().block_on(async {
        let lane = tpm.lane();
        let one = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        (one, lane.generate(id(2), Scheme::HmacKdf).await.expect("made"))
    });
    let (key, check) = (token_key(ID, &made), made.evidence.check);
    let (other, of_other) = (token_key(id(2), &second), second.evidence.check);
    let short = tpm.open("0123456789abcde", &Options::default());
    assert!(matches!(refusal(short), Error::BadRequest(_)));
    // Far more often than a TPM's own counter allows.
    for _ in 0..40 {
        let lane = tpm.open("not the pin, not the pin", &Options::default()).expect("a lane");
        runtime().block_on(async {
            let refused = refusal(lane.derive(key.clone(), check, b"x".to_vec()).await);
            assert!(matches!(refused, Error::KeyRejected { .. }), "it may be that key: {refused}");
            assert!(refused.to_string().contains("the PIN is wrong, or"), "{refused}");
            let unsure = refusal(lane.generate(id(3), Scheme::HmacKdf).await);
            assert!(matches!(unsure, Error::Unavailable { .. }), "{unsure}");
            let refused = refusal(lane.derive(other.clone(), of_other, b"x".to_vec()).await);
            assert!(matches!(refused, Error::Pin { .. }), "it is not both keys: {refused}");
        });
        assert!(!lane.health().up);
    }
    let lane = tpm.open("not the pin, not the pin", &Options::default()).expect("a lane");
    runtime().block_on(async {
        refusal(lane.derive(key.clone(), check, b"x".to_vec()).await);
        refusal(lane.derive(other.clone(), of_other, b"x".to_vec()).await);
        tpm.kill();
        let refused = refusal(lane.derive(key.clone(), check, b"x".to_vec()).await);
        assert!(matches!(refused, Error::Pin { .. }), "the TPM is not even asked: {refused}");
        tpm.start();
    });
    drop(lane);
    let lane = tpm.lane();
    runtime().block_on(lane.derive(key, check, b"x".to_vec())).expect("the right one still works");
}

/// One such key once took the whole TPM out of service until the next start.
#[test]
fn a_key_of_another_pin_is_refused_alone_first_thing_or_later() {
    let tpm = Swtpm::new();
    let theirs = runtime().block_on(async {
        let lane = tpm.open("another PIN of 16 bytes or more", &Options::default());
        lane.expect("a lane").generate(id(7), Scheme::Ecdh).await.expect("made")
    });
    let point = theirs.public.clone().expect("a public key");
    let foreign = token_key(id(7), &theirs);
    let lane = tpm.lane();
    let made = runtime().block_on(lane.generate(ID, Scheme::HmacKdf)).expect("made");
    drop(lane);
    for first in [true, false] {
        let lane = tpm.lane();
        runtime().block_on(async {
            let derive = || lane.derive(token_key(ID, &made), made.evidence.check, b"x".to_vec());
            if !first {
                derive().await.expect("derived");
            }
            for told in ["the PIN is wrong, or", "other keys take it"] {
                let agreed = lane.agree(foreign.clone(), theirs.evidence.check, point.clone());
                let refused = refusal(agreed.await);
                assert!(matches!(refused, Error::KeyRejected { id, .. } if id == foreign.id));
                let told = if first { told } else { "other keys take it" };
                assert!(refused.to_string().contains(told), "{refused}");
                derive().await.expect("derived");
            }
            lane.generate(id(3), Scheme::HmacKdf).await.expect("the PIN is right");
        });
        assert!(lane.health().up && lane.health().epoch == 1);
    }
}

#[test]
fn a_tpm_that_is_not_there_or_is_another_is_told() {
    let mut tpm = Swtpm::new();
    let lane = tpm.lane();
    let serial = lane.info().serial.clone();
    assert_eq!(serial.len(), 16);
    drop(lane);
    let open = |tpm: &Swtpm, serial: &str| {
        let access = tpm.access(PIN, Locator::Serial(serial.to_owned()));
        custody::open(profile(), access, &Options::default())
    };
    assert_eq!(open(&tpm, &serial).expect("a lane").info().serial, serial);
    let other = refusal(open(&tpm, "0000000000000000"));
    assert!(other.to_string().contains("another TPM"), "{other}");
    tpm.kill();
    let gone = refusal(open(&tpm, &serial));
    assert!(matches!(gone, Error::Unavailable { .. }), "{gone}");
    tpm.start();
    open(&tpm, &serial).expect("the same one after a restart");
}

#[test]
fn a_tpm_that_was_restarted_serves_again_without_a_restart_of_ours() {
    let mut tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        let (key, check) = (token_key(ID, &made), made.evidence.check);
        let before = lane.derive(key.clone(), check, b"x".to_vec()).await.expect("derived");
        for _ in 0..3 {
            tpm.kill();
            let error = refusal(lane.derive(key.clone(), check, b"x".to_vec()).await);
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
            assert!(!lane.health().up && lane.health().why.is_some());
            tpm.start();
            let took = until_served(&lane, &key, check).await;
            assert!(took < Duration::from_secs(1), "took {took:?}");
            assert!(lane.health().up);
        }
        // Restarted between two requests: the second does not even notice.
        tokio::time::sleep(Duration::from_millis(210)).await;
        tpm.kill();
        tpm.start();
        let after = lane.derive(key.clone(), check, b"x".to_vec()).await.expect("derived");
        assert_eq!(before.expose(), after.expose());
        assert!(lane.health().epoch >= 5, "{:?}", lane.health());
    });
}

#[test]
fn another_tpm_in_its_place_is_not_taken_for_ours() {
    let mut tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        let (key, check) = (token_key(ID, &made), made.evidence.check);
        tpm.kill();
        std::fs::rename(tpm.state("state"), tpm.state("away")).expect("away");
        std::fs::create_dir(tpm.state("state")).expect("blank");
        tpm.start();
        for _ in 0..3 {
            let error = refusal(lane.derive(key.clone(), check, b"x".to_vec()).await);
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
            assert!(error.to_string().contains("another TPM"), "{error}");
            tokio::time::sleep(Duration::from_millis(210)).await;
        }
        tpm.kill();
        std::fs::remove_dir_all(tpm.state("state")).expect("removed");
        std::fs::rename(tpm.state("away"), tpm.state("state")).expect("back");
        tpm.start();
        until_served(&lane, &key, check).await;
    });
}

#[test]
fn what_a_crashed_program_left_in_the_tpm_is_flushed() {
    let tpm = Swtpm::new();
    // Whoever ends without flushing leaves the three places taken.
    for _ in 0..3 {
        let context = Box::leak(Box::new(context(&tpm)));
        primary(context);
    }
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        let key = token_key(ID, &made);
        lane.derive(key, made.evidence.check, b"x".to_vec()).await.expect("derived");
    });
}

/// Gives a hierarchy a password, as an operating system's installer may.
fn set_password(context: &mut Context, of: AuthHandle) {
    let password = Auth::try_from(b"password".as_slice()).expect("short");
    with_password(context, |c| c.hierarchy_change_auth(of, password));
}

#[test]
fn under_an_owner_s_password_the_storage_key_that_the_system_keeps_is_used() {
    let tpm = Swtpm::new();
    let (serial, made) = {
        let lane = tpm.lane();
        let made = runtime().block_on(lane.generate(ID, Scheme::HmacKdf)).expect("made");
        (lane.info().serial.clone(), made)
    };
    {
        let mut context = context(&tpm);
        let key = primary(&mut context);
        let handle = PersistentTpmHandle::new(0x8100_0001).expect("a handle");
        with_password(&mut context, |context| {
            context.evict_control(Provision::Owner, key.into(), Persistent::Persistent(handle))
        });
        set_password(&mut context, AuthHandle::Owner);
    }
    let lane = tpm.lane();
    assert_eq!(lane.info().serial, serial, "the same key");
    runtime().block_on(async {
        let (key, check) = (token_key(ID, &made), made.evidence.check);
        lane.derive(key, check, b"x".to_vec()).await.expect("derived");
        for n in 0..6 {
            lane.generate(id(n), Scheme::HmacKdf).await.expect("made");
        }
    });
    assert_eq!(lane.health().epoch, 1);

    let other = Swtpm::new();
    set_password(&mut context(&other), AuthHandle::Owner);
    let error = refusal(other.open(PIN, &Options::default())).to_string();
    assert!(error.contains("owner hierarchy has a password"), "{error}");
}

#[test]
fn a_full_queue_turns_away_at_once() {
    let tpm = Swtpm::new();
    let lane = tpm.open(PIN, &Options { queue: 2, ..Options::default() }).expect("a lane");
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        let (key, check) = (token_key(ID, &made), made.evidence.check);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let (lane, key) = (lane.clone(), key.clone());
            tasks.spawn(async move { lane.derive(key, check, vec![0; 1024]).await.err() });
        }
        let refused: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        assert!(!refused.is_empty() && refused.len() < 500);
        assert!(refused.iter().all(|error| matches!(error, Error::Overloaded(_))));
    });
}

#[test]
fn under_load_a_tpm_that_is_killed_gives_right_answers_or_clear_errors() {
    const VALUE: [u8; 32] = [0x42; 32];
    let mut tpm = Swtpm::new();
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.import(ID, Scheme::HmacKdf, key(VALUE)).await.expect("imported");
        let (key, check) = (token_key(ID, &made), made.evidence.check);
        let load = Load::start(8, &lane, &key, check, VALUE);
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            tpm.kill();
            tokio::time::sleep(Duration::from_millis(50)).await;
            tpm.start();
            let took = until_served(&lane, &key, check).await;
            assert!(took < Duration::from_secs(1), "took {took:?}");
        }
        for (right, refused) in load.end().await {
            assert!(right > 0 && refused > 0, "{right} right, {refused} refused");
        }
    });
}

#[test]
fn the_same_answers_come_over_an_encrypted_bus() {
    let mut tpm = Swtpm::new();
    let made = runtime().block_on(tpm.lane().generate(ID, Scheme::HmacKdf)).expect("made");
    let (key, check) = (token_key(ID, &made), made.evidence.check);
    let plain = tpm.lane();
    let one = runtime().block_on(plain.derive(key.clone(), check, b"x".to_vec())).expect("derived");
    drop(plain);
    let encrypted = Profile { encrypt_bus: true, ..profile() };
    let access = tpm.access(PIN, Locator::Label("any".into()));
    let lane = custody::open(encrypted, access, &Options::default()).expect("a lane");
    runtime().block_on(async {
        let same = lane.derive(key.clone(), check, b"x".to_vec()).await.expect("derived");
        assert_eq!(one.expose(), same.expose());
        for (n, scheme) in (10..).zip([Scheme::HmacKdf, Scheme::Ecdh, Scheme::RsaOaep]) {
            let made = lane.generate(id(n), scheme).await.expect("made");
            lane.inspect(token_key(id(n), &made)).await.expect("there");
        }
        let signer = lane.generate_signer(id(20), SigningScheme::EcdsaP256).await.expect("made");
        let with = TokenKey { id: id(20), wrapped: signer.wrapped };
        let signed = lane.sign(with, SigningScheme::EcdsaP256, signer.public, b"x".to_vec()).await;
        assert_eq!(signed.expect("signed").len(), 64);
        assert_eq!(lane.random(100).await.expect("random").len(), 100);
        tpm.kill();
        tpm.start();
        until_served(&lane, &key, check).await;
    });
}

#[test]
fn the_tpm_signs_what_its_keys_are_and_others_can_check_it() {
    let tpm = Swtpm::new();
    let access = |pin| tpm.access(pin, Locator::Label("any".into()));
    for encrypt_bus in [false, true] {
        let profile = Profile { encrypt_bus, ..profile() };
        let lane = custody::open(profile, access(PIN), &Options::default()).expect("a lane");
        runtime().block_on(async {
            let mut by = Vec::new();
            for (n, scheme) in (1..).zip([Scheme::HmacKdf, Scheme::Ecdh, Scheme::RsaOaep]) {
                let made = lane.generate(id(n), scheme).await.expect("made");
                let nonce = vec![n; 64];
                let proof = lane.attest(token_key(id(n), &made), nonce.clone()).await;
                let Ok(Proof::Tpm(certified)) = proof else { panic!("not certified") };
                let check = Some(made.evidence.check);
                assert_eq!(certified.check(&nonce, scheme, false, check), Ok(()));
                assert!(certified.check(&[n; 16], scheme, false, check).is_err());
                by.push(certified.attestation_key);
            }
            assert!(by.windows(2).all(|two| two[0] == two[1]), "one key for all");
            let made = lane.import(ID, Scheme::HmacKdf, key([1; 32])).await.expect("imported");
            let Ok(Proof::Tpm(brought)) = lane.attest(token_key(ID, &made), vec![]).await else {
                panic!("not certified")
            };
            assert!(brought.check(&[], Scheme::HmacKdf, false, None).is_err());
            assert_eq!(brought.check(&[], Scheme::HmacKdf, true, None), Ok(()));
            let long = lane.attest(token_key(ID, &made), vec![0; 65]).await;
            assert!(matches!(refusal(long), Error::BadRequest(_)));
            assert_eq!(lane.health().epoch, 1);
        });
    }
}

/// The endorsement key, which its maker would have certified.
fn endorsement_key(tpm: &Swtpm) -> PublicEncryptingKey {
    let mut context = context(tpm);
    let kind = AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048);
    let key = ek::create_ek_object_2(&mut context, kind, None).expect("made");
    let (public, _, _) = context.read_public(key).expect("read");
    let Public::Rsa { unique, .. } = public else { panic!("no RSA key") };
    let parts = PublicKeyComponents { n: unique.value(), e: &[1, 0, 1][..] };
    parts.try_into().expect("a public key")
}

#[test]
fn a_tpm_opens_the_challenge_to_its_own_attestation_key_and_no_other() {
    let (tpm, other) = (Swtpm::new(), Swtpm::new());
    let device = Some(tpm.device());
    let identity = enrolment::identity(&profile(), device.as_deref()).expect("an identity");
    let name = identity.name().expect("an attestation key");
    assert!(identity.certificate.is_none(), "nobody has certified this one");
    let (secret, seed) = (key([5; 32]), key([6; 32]));
    let made = |tpm: &Swtpm, name: &[u8]| {
        Challenge::make(endorsement_key(tpm), name, &secret, &seed).expect("a challenge")
    };
    let answer = |challenge| enrolment::answer(&profile(), device.as_deref(), &challenge);
    let opened = answer(made(&tpm, &name)).expect("opened");
    assert_eq!(opened.expose(), secret.expose());
    let mut another = name.clone();
    another[33] ^= 1;
    for challenge in [made(&tpm, &another), made(&other, &name)] {
        assert!(matches!(refusal(answer(challenge)), Error::BadRequest(_)));
    }

    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        let proof = lane.attest(token_key(ID, &made), vec![]).await.expect("certified");
        let Proof::Tpm(certified) = proof else { panic!("not a TPM's") };
        assert_eq!(certified.attestation_key, identity.attestation_key, "the key that signs");
    });
}

/// One request for an attestation used to lock the token as a wrong PIN does.
#[test]
fn a_tpm_whose_endorsement_hierarchy_has_a_password_attests_nothing_and_serves_on() {
    let tpm = Swtpm::new();
    set_password(&mut context(&tpm), AuthHandle::Endorsement);
    let lane = tpm.lane();
    runtime().block_on(async {
        let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
        let refused = refusal(lane.attest(token_key(ID, &made), vec![]).await);
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
        assert!(refused.to_string().contains("endorsement hierarchy"), "{refused}");
        let check = made.evidence.check;
        lane.derive(token_key(ID, &made), check, b"x".to_vec()).await.expect("derived");
    });
    assert!(lane.health().up && lane.health().epoch == 1);
    drop(lane);
    let refused = refusal(enrolment::identity(&profile(), Some(&tpm.device())));
    assert!(refused.to_string().contains("endorsement hierarchy"), "{refused}");
}

// ---- somebody on the bus -----------------------------------------------------------------------

/// Passes on what goes to a TPM and comes from it, but puts a key of its own in the place of each
/// primary's. Returns how one reaches it.
fn interposed(tpm: &Swtpm) -> String {
    between(tpm, substitute)
}

/// Does this with each command and its answer. Returns how one reaches the TPM so.
fn between(
    tpm: &Swtpm,
    carry: impl Fn(&TcpStream, &TcpStream) -> Option<()> + Clone + Send + 'static,
) -> String {
    let (own, theirs) = (two_free_ports(), tpm.port);
    for control in [false, true] {
        let offset = u16::from(control);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, own + offset)).expect("a port");
        let carry = carry.clone();
        std::thread::spawn(move || {
            for host in listener.incoming().flatten() {
                let Ok(tpm) = TcpStream::connect((Ipv4Addr::LOCALHOST, theirs + offset)) else {
                    return;
                };
                let carry = carry.clone();
                std::thread::spawn(move || {
                    if control { pass(host, tpm) } else { while carry(&host, &tpm).is_some() {} }
                });
            }
        });
    }
    format!("swtpm:host=127.0.0.1,port={own}")
}

fn pass(host: TcpStream, tpm: TcpStream) {
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Both));
    };
    let (from, to) = (tpm.try_clone().expect("a socket"), host.try_clone().expect("a socket"));
    std::thread::spawn(move || copy(from, to));
    copy(host, tpm);
}

/// One command or one answer: its length stands behind its tag.
fn message(mut from: &TcpStream) -> Option<Vec<u8>> {
    let mut whole = vec![0; 6];
    from.read_exact(&mut whole).ok()?;
    let length = u32::from_be_bytes(whole[2..].try_into().ok()?);
    whole.resize(usize::try_from(length).ok()?, 0);
    from.read_exact(&mut whole[6..]).ok()?;
    Some(whole)
}

fn substitute(mut host: &TcpStream, mut tpm: &TcpStream) -> Option<()> {
    const CREATE_PRIMARY: [u8; 4] = [0, 0, 1, 0x31];
    let command = message(host)?;
    tpm.write_all(&command).ok()?;
    let mut answer = message(tpm)?;
    if command[6..10] == CREATE_PRIMARY && answer[6..10] == [0; 4] {
        // Header, handle and length; then the public area after its own length, a point at its end.
        let end = 20 + usize::from(u16::from_be_bytes([answer[18], answer[19]]));
        let old = proof::name(&answer[20..end]);
        let random = SystemRandom::new();
        let key = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &random).ok()?;
        let point = key.compute_public_key().ok()?;
        let (x, y) = point.as_ref()[1..].split_at(32);
        let unique = [&[0, 32], x, &[0, 32], y].concat();
        answer[end - unique.len()..end].copy_from_slice(&unique);
        let new = proof::name(&answer[20..end]);
        let at = answer.windows(old.len()).position(|some| some == old).expect("its name");
        answer[at..at + new.len()].copy_from_slice(&new);
    }
    host.write_all(&answer).ok()
}

/// The TPM was asked for the storage primary's name, and told its own, while the session was salted
/// to the key that came over the bus.
#[test]
fn a_key_that_was_put_in_the_storage_key_s_place_on_the_bus_is_noticed() {
    let tpm = Swtpm::new();
    let serial = tpm.lane().info().serial.clone();
    let open = |device: String| {
        let access =
            Access { device: Some(device), ..tpm.access(PIN, Locator::Serial(serial.clone())) };
        let profile = Profile { encrypt_bus: true, ..profile() };
        custody::open(profile, access, &Options::default())
    };
    let refused = refusal(open(interposed(&tpm)));
    assert!(refused.to_string().contains("another TPM"), "{refused}");
    open(tpm.device()).expect("its own");
}

/// Not a test: what an encrypted bus costs, for docs/hardware.md. Run by hand.
#[test]
#[ignore = "measures"]
fn the_price_of_an_encrypted_bus() {
    let tpm = Swtpm::new();
    let mut rates = Vec::new();
    for encrypt_bus in [false, true] {
        let profile = Profile { encrypt_bus, ..profile() };
        let access = tpm.access(PIN, Locator::Label("any".into()));
        let lane = custody::open(profile, access, &Options::default()).expect("a lane");
        let rate = runtime().block_on(async {
            let made = lane.generate(ID, Scheme::HmacKdf).await.expect("made");
            let (key, check) = (token_key(ID, &made), made.evidence.check);
            let begun = Instant::now();
            let mut done = 0_u32;
            while begun.elapsed() < Duration::from_secs(3) {
                lane.derive(key.clone(), check, vec![7; 40]).await.expect("derived");
                done += 1;
            }
            f64::from(done) / begun.elapsed().as_secs_f64()
        });
        println!("encrypt_bus = {encrypt_bus}: {rate:.0} derivations a second");
        rates.push(rate);
    }
    println!("ratio {:.1}", rates[0] / rates[1]);
}

// ---- boot states -----------------------------------------------------------------------------

/// The PCRs that make a state here: more than one answer of the TPM's has room for.
const PCRS: [u8; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 23];

struct Operator {
    key: rcgen::KeyPair,
    folder: tempfile::TempDir,
}

impl Operator {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("approvals")).expect("a folder");
        std::fs::write(folder.path().join("operator.pub"), key.public_key_pem()).expect("written");
        Self { key, folder }
    }

    fn binding(&self) -> Binding {
        let folder = self.folder.path();
        Binding::new(&folder.join("operator.pub"), &PCRS, folder.join("approvals")).expect("sound")
    }

    fn profile(&self) -> Profile {
        Profile { boot: Some(self.binding()), ..profile() }
    }

    /// Every command encrypted, or not.
    fn lane(&self, tpm: &Swtpm, encrypt_bus: bool) -> Lane {
        let profile = Profile { encrypt_bus, ..self.profile() };
        let access = tpm.access(PIN, Locator::Label("any".into()));
        custody::open(profile, access, &Options::default()).expect("a lane")
    }

    fn approval(&self, state: State) -> Approval {
        Approval::sign(state, &secret(&self.key.serialize_pem())).expect("signed")
    }

    fn keep(&self, name: &str, approval: &Approval) {
        let file = self.folder.path().join("approvals").join(name);
        std::fs::write(file, serde_json::to_vec(approval).expect("written")).expect("kept");
    }

    fn approve(&self, tpm: &Swtpm) {
        let state = state(tpm);
        self.keep(&String::from(state.policy), &self.approval(state));
    }
}

fn state(tpm: &Swtpm) -> State {
    boot::current(&profile(), Some(&tpm.device()), &PCRS).expect("read")
}

fn extend(tpm: &Swtpm, pcr: PcrHandle) {
    let mut values = DigestValues::new();
    values.set(HashingAlgorithm::Sha256, Digest::try_from(vec![7; 32]).expect("a hash"));
    let mut context = context(tpm);
    with_password(&mut context, |context| context.pcr_extend(pcr, values));
}

fn unapproved<T>(answer: custody::Result<T>) -> String {
    match refusal(answer) {
        Error::Unavailable { why, .. } => why,
        other => panic!("{other}"),
    }
}

#[test]
fn a_bound_key_serves_in_approved_boot_states_alone() {
    for encrypt_bus in [false, true] {
        let (tpm, operator) = (Swtpm::new(), Operator::new());
        operator.approve(&tpm);
        let lane = operator.lane(&tpm, encrypt_bus);
        let runtime = runtime();
        let made = runtime.block_on(lane.generate(ID, Scheme::HmacKdf)).expect("made");
        let derive = |lane: &Lane| {
            let key = token_key(ID, &made);
            runtime.block_on(lane.derive(key, made.evidence.check, b"x".to_vec()))
        };
        let before = derive(&lane).expect("derived");

        extend(&tpm, PcrHandle::Pcr7);
        let why = unapproved(derive(&lane));
        assert!(why.contains("PCRs [7] have changed"), "{why}");

        // Neither another operator's word nor an altered one counts.
        let now = state(&tpm);
        operator.keep("forged", &Operator::new().approval(now.clone()));
        let mut bent = operator.approval(now);
        bent.signature.0[40] ^= 1;
        operator.keep("bent", &bent);
        let why = unapproved(derive(&lane));
        assert!(why.contains("2 files there are no approval by the operator"), "{why}");

        operator.approve(&tpm);
        assert_eq!(derive(&lane).expect("derived").expose(), before.expose());
        assert_eq!(lane.health().epoch, 1, "nothing was opened anew");
    }
}

#[test]
fn every_scheme_can_be_bound_and_the_pin_is_needed_still() {
    let (tpm, operator) = (Swtpm::new(), Operator::new());
    operator.approve(&tpm);
    let lane = operator.lane(&tpm, true);
    let (policy, made) = runtime().block_on(async {
        let mac = lane.generate(id(1), Scheme::HmacKdf).await.expect("made");
        let pair = lane.generate(id(2), Scheme::Ecdh).await.expect("made");
        let peer = pair.public.clone().expect("a public key");
        lane.agree(token_key(id(2), &pair), pair.evidence.check, peer).await.expect("agreed");
        let signer = lane.generate_signer(id(3), SigningScheme::EcdsaP256).await.expect("made");
        let key = TokenKey { id: id(3), wrapped: signer.wrapped };
        let scheme = SigningScheme::EcdsaP256;
        lane.sign(key, scheme, signer.public, b"m".to_vec()).await.expect("signed");
        for (n, scheme, made) in [(1, Scheme::HmacKdf, &mac), (2, Scheme::Ecdh, &pair)] {
            let proof = lane.attest(token_key(id(n), made), vec![9; 32]).await.expect("attested");
            let Proof::Tpm(proof) = proof else { panic!("not a TPM's") };
            proof.check(&[9; 32], scheme, false, Some(made.evidence.check)).expect("good");
            assert_eq!(proof.policy(), Some(&operator.binding().policy().0[..]));
        }
        (operator.binding().policy(), mac)
    });
    assert_ne!(policy, Operator::new().binding().policy());
    drop(lane);

    let serve = |profile: Profile, pin: &str| {
        let access = tpm.access(pin, Locator::Label("any".into()));
        let lane = custody::open(profile, access, &Options::default()).expect("a lane");
        let key = token_key(id(1), &made);
        runtime().block_on(lane.derive(key, made.evidence.check, b"x".to_vec())).map(drop)
    };
    serve(operator.profile(), PIN).expect("derived");
    let pin = refusal(serve(operator.profile(), "another PIN of 16 bytes or more"));
    assert!(pin.to_string().contains("does not take the PIN"), "{pin}");
    for other in [profile(), Operator::new().profile()] {
        let refused = serve(other, PIN);
        assert!(matches!(refused, Err(Error::KeyRejected { .. })), "{refused:?}");
    }
}

/// The TPM has room for the storage key and two more: the operator's goes before the attestation key
/// comes.
#[test]
fn a_bound_key_is_attested_first_thing() {
    let (tpm, operator) = (Swtpm::new(), Operator::new());
    operator.approve(&tpm);
    let made = runtime().block_on(operator.lane(&tpm, false).generate(ID, Scheme::HmacKdf));
    let made = made.expect("made");
    for encrypt_bus in [false, true] {
        let lane = operator.lane(&tpm, encrypt_bus);
        let proof = runtime().block_on(lane.attest(token_key(ID, &made), vec![9; 32]));
        let Proof::Tpm(proof) = proof.expect("attested") else { panic!("not a TPM's") };
        assert_eq!(proof.check(&[9; 32], Scheme::HmacKdf, false, None), Ok(()));
        assert_eq!(lane.health().epoch, 1);
    }
}

/// The public area and the private one of a wrapped key.
fn areas(blob: &[u8]) -> (Public, tss_esapi::structures::Private) {
    let (length, rest) = blob[1..].split_at(2);
    let (public, rest) = rest.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
    let public = Public::unmarshall(public).expect("an area");
    (public, tss_esapi::structures::Private::try_from(&rest[2..]).expect("an area"))
}

/// What holds a bound key is the TPM, not the driver.
#[test]
fn the_tpm_itself_refuses_a_bound_key_to_who_has_the_pin_alone() {
    let (tpm, operator) = (Swtpm::new(), Operator::new());
    operator.approve(&tpm);
    let lane = operator.lane(&tpm, false);
    let made = runtime().block_on(lane.generate(ID, Scheme::HmacKdf)).expect("made");
    drop(lane);
    let wrapped = made.wrapped.expect("wrapped");
    let blob = wrapped.bytes();
    let (public, private) = areas(blob);
    let mut context = context(&tpm);
    let parent = primary(&mut context);
    let key = with_password(&mut context, |context| context.load(parent, private, public));
    let used = context.execute_with_session(Some(AuthSession::Password), |context| {
        let data = tss_esapi::structures::MaxBuffer::try_from(vec![1]).expect("short");
        context.hmac(key.into(), data, HashingAlgorithm::Sha256)
    });
    let refused = used.expect_err("refused").to_string();
    assert!(refused.contains("auth"), "{refused}");
}

// ---- sealed PINs -----------------------------------------------------------------------------

fn opened(sealed: &Sealed, device: String, operator: Option<&Operator>) -> custody::Result<Secret> {
    let approvals = operator.map(|operator| operator.folder.path().join("approvals"));
    sealed.clone().opener(Some(device), approvals).open()
}

#[test]
fn a_sealed_pin_opens_in_approved_boot_states_alone_and_crosses_no_bus_in_the_clear() {
    let (tpm, operator) = (Swtpm::new(), Operator::new());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let device = between(&tpm, {
        let heard = Arc::clone(&heard);
        move |mut host, mut tpm| {
            let command = message(host)?;
            tpm.write_all(&command).ok()?;
            let answer = message(tpm)?;
            host.write_all(&answer).ok()?;
            heard.lock().expect("whole").extend([command, answer].concat());
            Some(())
        }
    });
    let pin = secret(PIN);
    let free = seal(Some(&device), &pin, None).expect("sealed");
    assert!(opened(&free, device.clone(), None).expect("opened") == pin);
    let bound = seal(Some(&device), &pin, Some(&operator.binding())).expect("sealed");
    let why = unapproved(opened(&bound, device.clone(), Some(&operator)));
    assert!(why.contains("no state of these PCRs was approved"), "{why}");
    operator.approve(&tpm);
    assert!(opened(&bound, device.clone(), Some(&operator)).expect("opened") == pin);
    extend(&tpm, PcrHandle::Pcr7);
    let why = unapproved(opened(&bound, device.clone(), Some(&operator)));
    assert!(why.contains("PCRs [7] have changed"), "{why}");
    assert!(opened(&free, device, None).expect("opened") == pin);

    let heard = heard.lock().expect("whole");
    let said = |what: &[u8]| heard.windows(what.len()).any(|some| some == what);
    assert!(said(b"strongroom boot state v1"), "it listened to nothing");
    assert!(!said(&PIN.as_bytes()[..8]), "the PIN was heard");
}

#[test]
fn a_pin_is_not_unsealed_to_a_key_in_the_storage_key_s_place() {
    let tpm = Swtpm::new();
    let sealed = seal(Some(&tpm.device()), &secret(PIN), None).expect("sealed");
    match opened(&sealed, interposed(&tpm), None).err().expect("refused") {
        Error::Sealed { why, .. } => assert!(why.contains("another TPM"), "{why}"),
        other => panic!("{other}"),
    }
    opened(&sealed, tpm.device(), None).expect("its own");
}

/// What holds a bound PIN is the TPM, not the server.
#[test]
fn the_tpm_itself_does_not_unseal_a_bound_pin_to_whoever_asks() {
    use base64::Engine as _;
    let (tpm, operator) = (Swtpm::new(), Operator::new());
    let sealed = seal(Some(&tpm.device()), &secret(PIN), Some(&operator.binding()));
    let file: serde_json::Value =
        serde_json::from_slice(&sealed.expect("sealed").written()).expect("JSON");
    let object = file["Object"].as_str().expect("a text");
    let object = base64::engine::general_purpose::STANDARD.decode(object).expect("base64");
    let mut context = context(&tpm);
    let parent = primary(&mut context);
    let (public, private) = areas(&object);
    let object = with_password(&mut context, |context| context.load(parent, private, public));
    let refused = context
        .execute_with_session(Some(AuthSession::Password), |context| context.unseal(object.into()));
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains("auth"), "{refused}");
}
