//! Custody behind a module that fails as it is told to: each row of the table in
//! `docs/hardware.md`, which the driver's own table is held to, at the functions where the driver
//! may meet it. What is asked, each time: what the caller is told, that what the row says is done
//! and no more, that no call is made again that may have changed the token, and that the lane serves
//! once the fault is over.

#![expect(clippy::print_stdout, reason = "tells what was measured")]

use crate::shim::{self, Calls, Shim, rows};
use crate::{
    DIRECTORY, ID, LABEL, PIN, PROFILE, SO_PIN, directory, host_check, host_mac, key, reach,
    runtime, secret,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use strongroom::custody::lane::{Lane, Options};
use strongroom::custody::oaep::encrypt;
use strongroom::custody::pkcs11::init_token;
use strongroom::custody::profile::Profile;
use strongroom::custody::{
    self, Access, BackingKeyId, Error, KeyCheck, Locator, Scheme, SigningScheme,
};

const MODULE: &str = "STRONGROOM_TEST_SHIM";
const VALUE: [u8; 32] = [0x42; 32];
pub(crate) const OTHER: BackingKeyId = BackingKeyId([2; 16]);

/// The shortest time between two logins, and a little more.
const BACKOFF: Duration = Duration::from_millis(210);

/// How soon after a fault the lane must serve. What is promised is a second; a busy machine may
/// take a while to notice.
const BACK: Duration = Duration::from_secs(2);

fn profile() -> Profile {
    Profile::built_in("softhsm2").expect("sound")
}

/// Runs a scenario in a process of its own, with the shim between it and an empty SoftHSM.
fn alone(scenario: &str) {
    run(&format!("faulty::scenarios::{scenario}"), &[]);
}

/// Runs the scenario of this path.
pub(crate) fn run(path: &str, environment: &[(&str, &str)]) {
    let directory = tempfile::tempdir().expect("a directory");
    let (directory, tokens) = (directory.path(), directory.path().join("tokens"));
    std::fs::create_dir(&tokens).expect("tokens");
    let configuration = directory.join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
    std::fs::write(&configuration, text).expect("configuration");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", path, "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(MODULE, shim::module())
        .envs(shim::environment(directory))
        .env(PROFILE, "softhsm2")
        .envs(environment.iter().copied())
        .envs(profile().environment(Some(&configuration)))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && text.contains("1 passed");
    assert!(ran, "{path}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for measured in text.lines().filter(|line| line.contains("served again")) {
        println!("{measured}");
    }
}

// ---- the table -------------------------------------------------------------------------------

/// Every value with its action; or one of each row.
fn values(all: bool) -> Vec<(&'static str, &'static str)> {
    let most = if all { usize::MAX } else { 1 };
    let rows = rows().into_iter();
    rows.flat_map(|(action, values)| values.into_iter().take(most).map(move |v| (action, v)))
        .collect()
}

/// Whether the row's action is to reach for the token again.
fn heals(action: &str) -> bool {
    ["LoginAgain", "Reinitialize", "TokenGone", "StaleHandle"].contains(&action)
}

// ---- a lane over the shim ----------------------------------------------------------------------

fn open(options: &Options) -> custody::Result<Lane> {
    let module = std::env::var(MODULE).expect("set by the parent");
    let token = Locator::Label(LABEL.into());
    let module = Some(PathBuf::from(module));
    reach(Access { token, pin: secret(PIN), module, device: None }, options)
}

/// One thread, so that it is known which session a fault meets.
pub(crate) fn single() -> Options {
    Options { workers: Some(1), ..Options::default() }
}

pub(crate) struct Scene {
    /// None only while it is started anew.
    pub(crate) lane: Option<Lane>,
    pub(crate) shim: Shim,
    pub(crate) check: KeyCheck,
}

impl Scene {
    /// A new token with a key of a known value in it, and a lane.
    pub(crate) fn new(options: &Options) -> Self {
        let module = std::env::var(MODULE).expect("set by the parent");
        let module = Some(Path::new(&module));
        init_token(&profile(), module, LABEL, &secret(SO_PIN), &secret(PIN)).expect("a token");
        let scene = Self::on_the_token(options);
        runtime().block_on(async {
            scene.lane().import(ID, Scheme::HmacKdf, key(VALUE)).await.expect("a key");
        });
        scene
    }

    /// A lane to the token that is there.
    pub(crate) fn on_the_token(options: &Options) -> Self {
        let lane = Some(open(options).expect("a lane"));
        Self { lane, shim: Shim::new(&directory()), check: host_check(&VALUE) }
    }

    pub(crate) fn lane(&self) -> &Lane {
        self.lane.as_ref().expect("a lane")
    }

    /// As after a restart of the server.
    pub(crate) fn start_anew(&mut self) {
        self.lane = None;
        self.lane = Some(open(&single()).expect("a lane"));
    }

    /// One derivation, whose outcome must be right if there is one.
    pub(crate) async fn derive(&self) -> custody::Result<()> {
        let derived = self.lane().derive(ID.into(), self.check, b"x".to_vec()).await?;
        assert_eq!(derived.expose().as_slice(), host_mac(&VALUE, b"x"), "a wrong answer");
        Ok(())
    }

    pub(crate) async fn ask(&self, what: Ask) -> custody::Result<()> {
        match what {
            Ask::Derive => self.derive().await,
            Ask::Inspect => self.lane().inspect(ID.into()).await.map(drop),
            Ask::Random => self.lane().random(8).await.map(drop),
            Ask::Generate => self.lane().generate(OTHER, Scheme::HmacKdf).await.map(drop),
            Ask::Import => self.lane().import(OTHER, Scheme::HmacKdf, key(VALUE)).await.map(drop),
            Ask::Signer => {
                self.lane().generate_signer(OTHER, SigningScheme::EcdsaP256).await.map(drop)
            }
            Ask::Destroy => self.lane().destroy(OTHER).await,
        }
    }

    /// Asks under these faults; tells the answer and which calls it took.
    async fn under(&self, faults: &[String], what: Ask) -> (custody::Result<()>, Calls) {
        drop(self.shim.calls());
        self.shim.set(faults);
        let answer = self.ask(what).await;
        let calls = self.shim.calls();
        self.shim.clear();
        (answer, calls)
    }

    /// Asks until the lane serves again; tells how long that took.
    pub(crate) async fn served_again(&self) -> Duration {
        let start = Instant::now();
        while let Err(error) = self.derive().await {
            assert!(matches!(error, Error::Unavailable { .. } | Error::Overloaded(_)), "{error}");
            assert!(start.elapsed() < BACK, "not served again within {BACK:?}: {error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Derive,
    Inspect,
    Random,
    Generate,
    Import,
    Signer,
    Destroy,
}

/// What the caller is told of a value at a call that changes nothing.
fn told(action: &str, answer: &custody::Result<()>) -> bool {
    match action {
        "Refused" => matches!(answer, Err(Error::Unsupported { .. })),
        "Suspect" | "Stop" => matches!(answer, Err(Error::Unavailable { .. })),
        "Pin" => matches!(answer, Err(Error::Pin { .. })),
        "Busy" => matches!(answer, Err(Error::Overloaded(_))),
        _ => answer.is_ok(),
    }
}

/// Whether the calls are those of the row's action: sessions opened and closed, the library
/// initialised anew, one login, the question for the serial number.
fn done(action: &str, function: &str, calls: &Calls) -> Result<(), String> {
    let healed = usize::from(heals(action));
    // There the thread has no session to close, and the one that it was refused counts.
    let opening = function == "C_OpenSession";
    let closed = usize::from(action == "CloseSession" && !opening);
    // The anchor's and the thread's.
    let opened = 2 * healed + usize::from(action.ends_with("Session")) + usize::from(opening);
    let wanted = [
        ("C_Finalize", healed),
        ("C_Initialize", healed),
        ("C_Login", healed),
        ("C_CloseSession", closed),
        ("C_OpenSession", opened),
    ];
    for (function, times) in wanted {
        let found = calls.of(function);
        if found != times {
            return Err(format!("{found} calls of {function}, not {times}"));
        }
    }
    if action == "Suspect" && calls.of("C_GetTokenInfo") != 1 {
        return Err("the token is not asked for its serial number".into());
    }
    Ok(())
}

/// The table at `function`, met by a request that changes nothing, `skip` calls later.
fn table_at(scene: &Scene, function: &str, skip: usize, what: Ask, all: bool) {
    let mut longest = Duration::ZERO;
    let mut wrong = Vec::new();
    runtime().block_on(async {
        scene.ask(what).await.expect("well");
        for (action, value) in values(all) {
            // The binding reads these as what became of single attributes.
            let of_attributes =
                ["CKR_ATTRIBUTE_SENSITIVE", "CKR_ATTRIBUTE_TYPE_INVALID", "CKR_BUFFER_TOO_SMALL"];
            if function == "C_GetAttributeValue" && of_attributes.contains(&value) {
                continue;
            }
            if heals(action) {
                tokio::time::sleep(BACKOFF).await;
            }
            let epoch = scene.lane().health().epoch;
            let mut faults = vec![format!("{function} {skip} 1 answer {value}")];
            if function == "C_OpenSession" {
                faults.push("C_SignInit 0 1 answer CKR_SESSION_CLOSED".into());
            }
            let (answer, calls) = scene.under(&faults, what).await;
            assert_eq!(calls.struck(), faults.len(), "{function} is not called");
            if !told(action, &answer) {
                wrong.push(format!("{action}: {value}: {:?}", answer.as_ref().err()));
            }
            if let Err(why) = done(action, function, &calls) {
                wrong.push(format!("{action}: {value}: {why}"));
            }
            if scene.lane().health().epoch != epoch + u64::from(heals(action)) {
                wrong.push(format!("{action}: {value}: {:?}", scene.lane().health()));
            }
            longest = longest.max(scene.served_again().await);
        }
    });
    assert!(wrong.is_empty(), "{function}:\n{}", wrong.join("\n"));
    println!("{function}: served again after {longest:?} at most");
}

/// The table at `function`, met by a request that may have changed the token: whether the call was
/// made or not, it is made once.
fn change_at(scene: &Scene, function: &str, skip: usize, what: Ask, changing: &str, all: bool) {
    let mut wrong = Vec::new();
    runtime().block_on(async {
        for (action, value) in values(all) {
            for effect in ["answer", "done"] {
                if matches!(what, Ask::Destroy) {
                    scene.ask(Ask::Generate).await.expect("a key to destroy");
                }
                if heals(action) {
                    tokio::time::sleep(BACKOFF).await;
                }
                let fault = format!("{function} {skip} 1 {effect} {value}");
                let (answer, calls) = scene.under(&[fault], what).await;
                assert_eq!(calls.struck(), 1, "{function} is not called");
                let right = match action {
                    "Refused" | "Pin" | "Busy" => told(action, &answer),
                    _ => matches!(answer, Err(Error::Unavailable { .. })),
                };
                if !right {
                    wrong.push(format!("{effect} {value}: {:?}", answer.as_ref().err()));
                }
                if calls.of(changing) != 1 {
                    wrong.push(format!("{effect} {value}: {} {changing}", calls.of(changing)));
                }
                scene.served_again().await;
                // Whichever it was, whoever looks it up is told what is there.
                let reached = effect == "done" || function != changing;
                let there = reached != matches!(what, Ask::Destroy);
                let destroyed = scene.lane().destroy(OTHER).await;
                let right = match &destroyed {
                    Ok(()) => there,
                    Err(Error::KeyNotFound(_)) => !there,
                    Err(_) => false,
                };
                if !right {
                    wrong.push(format!("{effect} {value}: looked up: {destroyed:?}"));
                }
            }
        }
    });
    assert!(wrong.is_empty(), "{function}:\n{}", wrong.join("\n"));
}

/// The table at `function` while the token is reached for again: the PIN's row ends all logins, any
/// other is over when the fault is.
fn healing_at(scene: &mut Scene, function: &str, values: &[(&str, &str)]) {
    let mut longest = Duration::ZERO;
    let mut wrong = Vec::new();
    // What these two answer is nobody's: C_Initialize will tell, and whether the token is there.
    let is_final = !["C_Finalize", "C_GetTokenInfo"].contains(&function);
    for &(action, value) in values {
        runtime().block_on(async {
            tokio::time::sleep(BACKOFF).await;
            let faults = [
                "C_SignInit 0 1 answer CKR_TOKEN_NOT_PRESENT".to_owned(),
                format!("{function} 0 1 answer {value}"),
            ];
            let (answer, calls) = scene.under(&faults, Ask::Derive).await;
            assert_eq!(calls.struck(), 2, "{function} is not called");
            assert_eq!(calls.of("C_SignInit"), 1 + usize::from(answer.is_ok()), "{value}");
            let logins = calls.of("C_Login");
            if logins != usize::from(function == "C_Login") {
                wrong.push(format!("{value}: {logins} logins"));
            }
            if is_final && action == "Pin" {
                assert!(matches!(answer, Err(Error::Pin { .. })), "{value}: {answer:?}");
                for _ in 0..3 {
                    let error = scene.derive().await.expect_err("refused");
                    assert!(matches!(error, Error::Pin { .. }), "{value}: {error}");
                    tokio::time::sleep(BACKOFF / 2).await;
                }
                assert!(!scene.lane().health().up);
                let calls = scene.shim.calls();
                assert_eq!(calls.of("C_Login"), 0, "{value}: no other login");
            } else {
                if !matches!(answer, Err(Error::Unavailable { .. })) {
                    wrong.push(format!("{value}: {answer:?}"));
                }
                longest = longest.max(scene.served_again().await);
            }
        });
        if !scene.lane().health().up {
            // Only a new start logs in again. The thread opens its session at its first request.
            scene.start_anew();
            runtime().block_on(scene.derive()).expect("well");
        }
    }
    assert!(wrong.is_empty(), "{function}:\n{}", wrong.join("\n"));
    println!("{function}: served again after {longest:?} at most");
}

/// Several scenarios at once, each in a process of its own: they wait more than they work.
fn together(scenarios: &[&str]) {
    std::thread::scope(|scope| {
        for scenario in scenarios {
            scope.spawn(|| alone(scenario));
        }
    });
}

#[test]
fn each_value_at_the_calls_that_read() {
    together(&["sign_init", "sign", "find_objects", "reads", "random", "open_session"]);
}
#[test]
fn each_value_at_the_calls_that_change_the_token() {
    together(&["generate_key", "makes", "destroy_object"]);
}
#[test]
fn each_value_at_the_calls_that_log_in() {
    together(&["start", "login", "heals"]);
}
#[test]
fn a_suspect_token_that_does_not_answer_is_reached_for_again() {
    alone("suspect");
}
#[test]
fn threads_for_which_the_token_has_no_session_leave_their_work_to_others() {
    alone("few_sessions");
}
#[test]
fn one_key_that_the_token_never_knows_does_not_have_it_reached_for_again_and_again() {
    alone("chronic");
}
#[test]
fn what_two_keys_agreed_on_ends_with_its_session_where_the_token_will_not_destroy_it() {
    alone("agreement");
}
/// On Kryoptic: SoftHSM has no keys of this scheme.
#[test]
fn a_decryption_that_fails_for_once_is_made_again_and_one_that_goes_on_failing_is_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let profile = Profile::built_in("kryoptic").expect("sound");
    let text = profile.configuration(folder.path().to_str().expect("text")).expect("made here");
    let configuration = folder.path().join("kryoptic.conf");
    std::fs::write(&configuration, text).expect("configuration");
    let module = crate::kryoptic();
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let environment = [
        ("STRONGROOM_SHIM_MODULE", &*text(&module)),
        ("KRYOPTIC_CONF", &*text(&configuration)),
        (PROFILE, "kryoptic"),
    ];
    run("faulty::scenarios::decryption", &environment);
}
#[test]
fn a_token_that_hangs_altogether_is_left_alone_and_those_who_ask_are_told_at_once() {
    alone("breaker");
}
#[test]
fn latency_beyond_the_deadline_is_told_at_the_deadline() {
    alone("latency");
}
#[test]
fn a_call_that_hangs_stops_nobody_else() {
    alone("hang");
}
#[test]
fn a_login_or_a_destruction_that_hangs_is_told_and_not_waited_for() {
    alone("hang_behind_the_barrier");
}
#[test]
fn a_token_that_hangs_fills_its_queue_and_turns_away() {
    alone("overload");
}

/// Not tests of their own: each is run by the test above that names it.
mod scenarios {
    use super::*;

    #[test]
    #[ignore = "run in its own process"]
    fn sign_init() {
        table_at(&Scene::new(&single()), "C_SignInit", 0, Ask::Derive, true);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn sign() {
        // The first C_Sign asks for the length.
        table_at(&Scene::new(&single()), "C_Sign", 1, Ask::Derive, true);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn find_objects() {
        table_at(&Scene::new(&single()), "C_FindObjectsInit", 0, Ask::Inspect, true);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn reads() {
        let scene = Scene::new(&single());
        table_at(&scene, "C_FindObjects", 0, Ask::Inspect, false);
        table_at(&scene, "C_GetAttributeValue", 0, Ask::Inspect, false);
        table_at(&scene, "C_GetAttributeValue", 1, Ask::Inspect, false);
        table_at(&scene, "C_Sign", 0, Ask::Derive, false);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn random() {
        table_at(&Scene::new(&single()), "C_GenerateRandom", 0, Ask::Random, true);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn open_session() {
        table_at(&Scene::new(&single()), "C_OpenSession", 0, Ask::Derive, true);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn generate_key() {
        let scene = Scene::new(&single());
        change_at(&scene, "C_GenerateKey", 0, Ask::Generate, "C_GenerateKey", true);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn makes() {
        let scene = Scene::new(&single());
        change_at(&scene, "C_CreateObject", 0, Ask::Import, "C_CreateObject", false);
        change_at(&scene, "C_GenerateKeyPair", 0, Ask::Signer, "C_GenerateKeyPair", false);
        // The key is made; then it can't be looked at, or does not work.
        for (function, skip) in [("C_GetAttributeValue", 1), ("C_SignInit", 0), ("C_Sign", 1)] {
            change_at(&scene, function, skip, Ask::Generate, "C_GenerateKey", false);
        }
        change_at(&scene, "C_SignInit", 0, Ask::Signer, "C_GenerateKeyPair", false);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn destroy_object() {
        let scene = Scene::new(&single());
        change_at(&scene, "C_DestroyObject", 0, Ask::Destroy, "C_DestroyObject", false);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn agreement() {
        let scene = Scene::new(&single());
        runtime().block_on(async {
            let made = scene.lane().generate(OTHER, Scheme::Ecdh).await.expect("a pair");
            let (check, peer) = (made.evidence.check, made.public.expect("of a pair"));
            let agree = || scene.lane().agree(OTHER.into(), check, peer.clone());
            agree().await.expect("well");
            for value in ["CKR_DEVICE_ERROR", "CKR_ACTION_PROHIBITED", "CKR_HOST_MEMORY"] {
                drop(scene.shim.calls());
                scene.shim.set([format!("C_DestroyObject 0 1 answer {value}")]);
                assert!(agree().await.is_err(), "{value}");
                let calls = scene.shim.calls();
                scene.shim.clear();
                assert_eq!((calls.struck(), calls.of("C_CloseSession")), (1, 1), "{value}");
                agree().await.expect("well again");
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn decryption() {
        let module = std::env::var(MODULE).expect("set by the parent");
        let (so_pin, pin) = (secret(SO_PIN), secret(PIN));
        init_token(&crate::profile(), Some(Path::new(&module)), LABEL, &so_pin, &pin)
            .expect("a token");
        let scene = Scene::on_the_token(&single());
        runtime().block_on(async {
            let made = scene.lane().generate(OTHER, Scheme::RsaOaep).await.expect("a pair");
            let sealed = encrypt(&made.public.expect("of a pair"), &VALUE).expect("encrypted");
            let check = made.evidence.check;
            let unwrap = || scene.lane().unwrap(OTHER.into(), check, sealed.clone());
            for (action, value) in values(false) {
                if super::heals(action) {
                    tokio::time::sleep(BACKOFF).await;
                }
                scene.shim.set([format!("C_Decrypt 0 1 answer {value}")]);
                let answer = unwrap().await.map(|opened| assert_eq!(opened.expose(), &VALUE));
                // Where the token is well, it decrypts.
                let made_again = matches!(action, "Refused" | "Suspect") && answer.is_ok();
                assert!(made_again || told(action, &answer), "{action}: {value}: {answer:?}");
                scene.shim.set(["C_Decrypt 0 1000 answer CKR_DEVICE_ERROR"]);
                let broken = unwrap().await;
                assert!(matches!(broken, Err(Error::Unavailable { .. })), "{:?}", broken.err());
                scene.shim.clear();
                unwrap().await.expect("well again");
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn login() {
        let mut all = values(true);
        // Those of the PIN's row, and two of each other.
        let mut seen = Vec::new();
        all.retain(|(action, _)| {
            seen.push(*action);
            *action == "Pin" || seen.iter().filter(|other| *other == action).count() <= 2
        });
        healing_at(&mut Scene::new(&single()), "C_Login", &all);
    }

    #[test]
    #[ignore = "run in its own process"]
    fn heals() {
        let mut scene = Scene::new(&single());
        let functions =
            ["C_Finalize", "C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession"];
        for function in functions {
            healing_at(&mut scene, function, &values(false));
        }
    }

    #[test]
    #[ignore = "run in its own process"]
    fn start() {
        let mut scene = Scene::new(&single());
        let functions = [
            "C_Initialize",
            "C_GetSlotList",
            "C_GetTokenInfo",
            "C_GetMechanismList",
            "C_OpenSession",
            "C_Login",
        ];
        for function in functions {
            scene.lane = None;
            for (action, value) in values(true) {
                drop(scene.shim.calls());
                scene.shim.set([format!("{function} 0 1 answer {value}")]);
                let error = open(&single()).err().expect("refused");
                let right = match &error {
                    Error::Pin { .. } => action == "Pin",
                    Error::Unavailable { .. } => action != "Pin" || function == "C_GetTokenInfo",
                    _ => false,
                };
                assert!(right, "{function} {value}: {error}");
                let calls = scene.shim.calls();
                assert_eq!(calls.struck(), 1, "{function}");
                let logins = usize::from(function == "C_Login");
                assert_eq!(calls.of("C_Login"), logins, "{function} {value}: logins");
            }
            scene.shim.clear();
            scene.start_anew();
            runtime().block_on(scene.derive()).expect("nothing is left of it");
        }
    }

    #[test]
    #[ignore = "run in its own process"]
    fn suspect() {
        let scene = Scene::new(&single());
        runtime().block_on(async {
            scene.derive().await.expect("well");
            tokio::time::sleep(BACKOFF).await;
            let faults = [
                "C_Sign 1 1 answer CKR_DEVICE_ERROR".to_owned(),
                "C_GetTokenInfo 0 1 answer CKR_DEVICE_ERROR".to_owned(),
            ];
            let (answer, calls) = scene.under(&faults, Ask::Derive).await;
            assert_eq!(answer, Ok(()));
            assert_eq!((calls.of("C_Initialize"), calls.of("C_Login")), (1, 1));
            assert_eq!(scene.lane().health().epoch, 2);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn latency() {
        let options = Options { workers: Some(2), deadline_ms: 400, ..Options::default() };
        let scene = Scene::new(&options);
        runtime().block_on(async {
            scene.derive().await.expect("well");
            scene.shim.set(["C_SignInit 0 * delay 900"]);
            for _ in 0..4 {
                let start = Instant::now();
                let error = scene.derive().await.expect_err("too slow");
                assert_eq!(error, Error::Timeout(LABEL.into()));
                let took = start.elapsed();
                assert!(took >= Duration::from_millis(380), "before its deadline: {took:?}");
                assert!(took < Duration::from_secs(1), "long after its deadline: {took:?}");
            }
            scene.shim.clear();
            let start = Instant::now();
            while scene.derive().await.is_err() {
                assert!(start.elapsed() < BACK, "not served again");
            }
            println!("latency: served again after {:?}", start.elapsed());
            assert_eq!(scene.lane().health().epoch, 1, "slowness is no reason to log in again");
            // A call that began slowly may be in the library still; it must not end under it.
            tokio::time::sleep(Duration::from_millis(900)).await;
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn few_sessions() {
        let options = Options { workers: Some(4), ..Options::default() };
        let scene = Scene::new(&options);
        runtime().block_on(async {
            // Whoever has none yet gets none: the first thread has made the key.
            scene.shim.set(["C_OpenSession 1 * answer CKR_SESSION_COUNT"]);
            for _ in 0..5 {
                let mut asking = tokio::task::JoinSet::new();
                for _ in 0..100 {
                    let (lane, check) = (scene.lane().clone(), scene.check);
                    asking.spawn(async move {
                        lane.derive(ID.into(), check, b"x".to_vec()).await.err()
                    });
                }
                let failed: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
                assert_eq!(failed, [], "threads without a session turn nobody away");
            }
            let seated = scene.lane().health().seated;
            assert!((1..=2).contains(&seated), "{seated} threads have a session");
            assert_eq!(scene.lane().health().epoch, 1);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn chronic() {
        let scene = Scene::new(&single());
        runtime().block_on(async {
            scene.derive().await.expect("well");
            scene.shim.set(["C_SignInit 0 * answer CKR_KEY_HANDLE_INVALID"]);
            for _ in 0..30 {
                let error = scene.derive().await.expect_err("it never knows it");
                assert!(matches!(&error, Error::Unavailable { .. }), "{error}");
                drop(scene.lane().random(8).await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let epoch = scene.lane().health().epoch;
            assert!((2..=4).contains(&epoch), "{epoch} logins in three seconds");
            scene.lane().random(8).await.map(drop).expect("what needs no such key is served");
            scene.shim.clear();
            println!("chronic: served again after {:?}", scene.served_again().await);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn breaker() {
        let options = Options { workers: Some(1), queue: 10, deadline_ms: 300 };
        let scene = Scene::new(&options);
        runtime().block_on(async {
            scene.derive().await.expect("well");
            scene.shim.set(["C_SignInit 0 1 hang"]);
            for _ in 0..4 {
                let error = scene.derive().await.expect_err("it hangs");
                assert_eq!(error, Error::Timeout(LABEL.into()));
            }
            let start = Instant::now();
            for _ in 0..100 {
                let error = scene.derive().await.expect_err("it hangs");
                assert!(matches!(&error, Error::Unavailable { .. }), "{error}");
            }
            assert!(start.elapsed() < Duration::from_millis(250), "not at once");
            scene.shim.clear();
            println!("breaker: served again after {:?}", scene.served_again().await);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn overload() {
        let options = Options { workers: Some(1), queue: 2, deadline_ms: 1000 };
        let scene = Scene::new(&options);
        runtime().block_on(async {
            scene.derive().await.expect("well");
            scene.shim.set(["C_SignInit 0 1 hang"]);
            let mut waiting = tokio::task::JoinSet::new();
            for _ in 0..3 {
                let (lane, check) = (scene.lane().clone(), scene.check);
                waiting
                    .spawn(async move { lane.derive(ID.into(), check, b"x".to_vec()).await.err() });
                // The first is taken up before the others wait.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let start = Instant::now();
            assert_eq!(scene.derive().await, Err(Error::Overloaded(LABEL.into())));
            assert!(start.elapsed() < Duration::from_millis(300), "not at once");
            for error in waiting.join_all().await {
                assert_eq!(error, Some(Error::Timeout(LABEL.into())));
            }
            scene.shim.clear();
            println!("overload: served again after {:?}", scene.served_again().await);
            // Nobody waited for those that hung in the queue: they were not begun.
            assert_eq!(scene.lane().health().epoch, 1);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn hang_behind_the_barrier() {
        let options = Options { workers: Some(2), deadline_ms: 4000, ..Options::default() };
        let scene = Scene::new(&options);
        runtime().block_on(async {
            scene.ask(Ask::Generate).await.expect("a key");
            scene.derive().await.expect("well");
            // While the server logs in everybody is told at once.
            scene.shim.set(["C_SignInit 0 1 answer CKR_DEVICE_REMOVED", "C_Login 0 1 hang"]);
            let (lane, check) = (scene.lane().clone(), scene.check);
            let hung =
                tokio::spawn(async move { lane.derive(ID.into(), check, b"x".to_vec()).await });
            while scene.lane().health().up || scene.shim.calls().struck() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for _ in 0..20 {
                let start = Instant::now();
                let answer = scene.derive().await;
                assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
                assert!(start.elapsed() < Duration::from_secs(1), "not at once");
            }
            scene.shim.clear();
            hung.await.expect("ended").map(drop).expect("it was logged in, and asked again");
            println!("login: served again after {:?}", scene.served_again().await);

            // While a key is destroyed, once it takes too long. What struck before counts no more.
            drop(scene.shim.calls());
            scene.shim.set(["C_DestroyObject 0 1 hang"]);
            let lane = scene.lane().clone();
            let hung = tokio::spawn(async move { lane.destroy(OTHER).await });
            while scene.shim.calls().struck() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let answer = scene.derive().await;
            assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
            scene.shim.clear();
            hung.await.expect("ended").expect("destroyed after all");
            println!("destruction: served again after {:?}", scene.served_again().await);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn hang() {
        let options = Options { workers: Some(4), ..Options::default() };
        let scene = Scene::new(&options);
        runtime().block_on(async {
            scene.ask(Ask::Generate).await.expect("a key");
            for _ in 0..20 {
                scene.derive().await.expect("well");
            }
            scene.shim.set(["C_SignInit 0 1 hang"]);
            let (lane, check) = (scene.lane().clone(), scene.check);
            let hung =
                tokio::spawn(async move { lane.derive(ID.into(), check, b"x".to_vec()).await });
            while scene.shim.calls().struck() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for _ in 0..100 {
                scene.derive().await.expect("the other threads serve");
            }

            // A destruction waits for calls in flight. Not for ever, and others don't wait with it.
            let (lane, start) = (scene.lane().clone(), Instant::now());
            let destroyed = tokio::spawn(async move { lane.destroy(OTHER).await });
            while start.elapsed() < Duration::from_secs(3) {
                scene.derive().await.expect("served beside a destruction that waits");
            }
            let destroyed = destroyed.await.expect("ended");
            assert!(matches!(destroyed, Err(Error::Unavailable { .. })), "{destroyed:?}");

            // So does whoever would log in again.
            scene.shim.set(["C_SignInit 0 0 hang", "C_SignInit 0 1 answer CKR_USER_NOT_LOGGED_IN"]);
            let start = Instant::now();
            assert!(matches!(scene.derive().await, Err(Error::Unavailable { .. })));
            println!("hang: told after {:?}", start.elapsed());
            assert_eq!(scene.lane().health().epoch, 1, "nothing is torn down under a call");
            println!("hang: served again after {:?}", scene.served_again().await);

            scene.shim.clear();
            // Its caller was told at the deadline; its thread is back.
            let told = hung.await.expect("ended").err();
            assert_eq!(told, Some(Error::Timeout(LABEL.into())));
            scene.ask(Ask::Destroy).await.expect("nothing is in flight any more");
            scene.served_again().await;
        });
    }
}
