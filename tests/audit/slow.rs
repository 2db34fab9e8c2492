//! A token that signs slowly: keys that it certifies sign the checkpoints. In this process, since no
//! profile that comes with the program is of such a token; each scenario in one of its own, since a
//! PKCS#11 module has one state per process.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use strongroom::audit::checkpoint::Checkpoint;
use strongroom::audit::note::Verifier;
use strongroom::audit::verify::{Question, Verdict};
use strongroom::audit::{Options, Parts, Recorder};
use strongroom::clock::World;
use strongroom::custody::pkcs11::init_token;
use strongroom::custody::profile::Profile;
use strongroom::custody::tokens::Tokens;
use strongroom::custody::{self, Access, Locator, lane};
use strongroom::secret::Secret;
use strongroom::store::Store;
use strongroom::store::records::{Records, RowMac};
use strongroom::store::sqlite::{self, Sqlite};

const DIRECTORY: &str = "STRONGROOM_TEST_DIRECTORY";
const PROFILE: &str = include_str!("../../hsm-profiles/softhsm2/profile.toml");

#[test]
fn a_slow_token_certifies_keys_that_sign_for_it() {
    let directory = tempfile::tempdir().expect("a folder");
    let tokens = directory.path().join("tokens");
    std::fs::create_dir(&tokens).expect("a folder");
    let configuration = directory.path().join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
    std::fs::write(&configuration, text).expect("written");
    let ran = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "slow::scenario", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env("SOFTHSM2_CONF", &configuration)
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&ran.stdout);
    let right = ran.status.success() && text.contains("1 passed");
    assert!(right, "{text}\n{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
#[ignore = "run in its own process"]
fn scenario() {
    let dir: std::path::PathBuf = std::env::var(DIRECTORY).expect("set").into();
    let profile = Profile::parse(&format!("signs_slowly = true\n{PROFILE}")).expect("sound");
    let pin = || Secret::copy_of(b"a user pin");
    init_token(&profile, None, "slow", &Secret::copy_of(b"an officer's"), &pin()).expect("made");
    let token = Locator::Label("slow".into());
    let access = Access { token, pin: pin(), module: None, device: None };
    let lane = custody::open(profile, access, &lane::Options::default()).expect("a lane");
    let tokens = Tokens::one(lane);
    let engine = Sqlite::open(sqlite::Options::new(dir.join("store"))).expect("a store");
    let records = Records::new(Store::new(Arc::new(engine)), RowMac::new(&[7; 32]), 10);
    let mut options = Options::default();
    options.resolve(&dir);
    let (world, region) = (World::system(), "eu-central-1");
    let runtime = tokio::runtime::Runtime::new().expect("a reactor");
    runtime.block_on(async {
        let parts = Parts { options: &options, region, tokens: &tokens, records, world: &world };
        let recorder = Recorder::start(parts).await.expect("a recorder");
        recorder.append_line(b"{\"eventID\":\"1\"}\n").await.expect("appended");
        while recorder.status().signed < 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The token may be away then: it has signed for a day.
        std::fs::rename(dir.join("tokens"), dir.join("away")).expect("moved");
        recorder.append_line(b"{\"eventID\":\"2\"}\n").await.expect("appended");
        recorder.flush().await.expect("on disk");
        assert_eq!((recorder.status().records, recorder.status().signed), (2, 2));
    });
    let tree = dir.join("audit");
    let key = std::fs::read_to_string(tree.join("checkpoint.pub")).expect("a key");
    let key = Verifier::parse(&key).expect("a key");
    let note = std::fs::read(tree.join("checkpoint")).expect("a checkpoint");
    let checkpoint = Checkpoint::parse(&note).expect("a checkpoint");
    assert!(checkpoint.is_by(&key) && checkpoint.note.text.contains("\ndelegate "));
    let question = Question {
        dir: tree,
        log: Some(options.path),
        key,
        witnesses: Vec::new(),
        checkpoints: Vec::new(),
    };
    let report = question.answer().expect("readable");
    assert_eq!((report.verdict(), report.vouched), (Verdict::Good, 2), "{report:?}");
}
