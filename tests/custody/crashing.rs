//! The driver in a process of its own, behind a module that ends it, hangs in it, or is slow: the
//! lane answers clearly, serves again without anybody's help, and no login is made that could lock a
//! token.

use crate::faulty::{Ask, OTHER, Scene, run, single};
use crate::shim::Calls;
use crate::{APART, ID, LABEL, PIN, runtime};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use strongroom::custody::Error;
use strongroom::custody::lane::Options;

/// How soon after a process is gone the next must serve; what is promised is a second.
const BACK: Duration = Duration::from_secs(2);

/// How much longer than a caller waits a call may take, as the code has it, and a little more.
const HANG_MARGIN: Duration = Duration::from_millis(2500);

fn alone(scenario: &str) {
    run(&format!("crashing::scenarios::{scenario}"), &[(APART, "1")]);
}

/// The processes that this one has started.
fn processes() -> Vec<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads").flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")));
    let text: Vec<_> = children.map_while(Result::ok).collect();
    let all = text.iter().flat_map(|text| text.split_whitespace());
    all.map(|pid| PathBuf::from("/proc").join(pid)).collect()
}

/// The one that holds the token.
fn process() -> PathBuf {
    let [one] = &*processes() else { panic!("not one process: {:?}", processes()) };
    one.clone()
}

fn why(error: &Error) -> &str {
    match error {
        Error::Unavailable { why, .. } | Error::Pin { why, .. } => why,
        other => panic!("{other}"),
    }
}

impl Scene {
    /// Everything that was called until `done` holds of it.
    async fn calls_until(&self, what: &str, done: impl Fn(&Calls) -> bool) -> Calls {
        let start = Instant::now();
        let mut all = Calls::default();
        while !done(&all) {
            assert!(start.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
            tokio::time::sleep(Duration::from_millis(2)).await;
            all.extend(self.shim.calls());
        }
        all
    }
}

#[test]
fn a_module_that_ends_its_process_is_a_new_process() {
    alone("crash");
}
#[test]
fn a_change_that_ended_the_process_is_not_made_again() {
    alone("crash_in_a_change");
}
#[test]
fn a_module_that_hangs_on_every_thread_is_a_new_process() {
    alone("hang");
}
#[test]
fn a_slow_module_is_left_alone() {
    alone("slow");
}
#[test]
fn a_module_that_ends_every_process_is_tried_at_a_measured_pace() {
    alone("crash_at_every_login");
}
#[test]
fn a_pin_that_was_refused_is_not_tried_in_another_process() {
    alone("pin");
}
#[test]
fn the_process_ends_with_the_lane_and_was_never_told_the_pin_aloud() {
    // As an operator of two tokens has it in the environment of the server.
    let pins = [(APART, "1"), ("STRONGROOM_PIN", PIN), ("STRONGROOM_PIN_OTHER_TOKEN", PIN)];
    run("crashing::scenarios::end", &pins);
}

/// Not tests of their own: each is run by the test above that names it.
mod scenarios {
    use super::*;

    #[test]
    #[ignore = "run in its own process"]
    fn crash() {
        let scene = Scene::new(&Options { workers: Some(4), ..Options::default() });
        runtime().block_on(async {
            for round in 1..=5 {
                scene.derive().await.expect("well");
                let (first, start) = (process(), Instant::now());
                scene.shim.set(["C_Sign 3 1 crash"]);
                let mut asked = tokio::task::JoinSet::new();
                for _ in 0..16 {
                    let (lane, check) = (scene.lane().clone(), scene.check);
                    asked.spawn(
                        async move { lane.derive(ID.into(), check, b"x".to_vec()).await.err() },
                    );
                }
                for error in asked.join_all().await.into_iter().flatten() {
                    // In the new process the same fault strikes those that are asked once more.
                    assert!(why(&error).contains("process"), "{error}");
                }
                assert!(
                    start.elapsed() < Duration::from_secs(5),
                    "somebody waited for more than a deadline"
                );
                scene.shim.clear();
                println!("crash: served again after {:?}", scene.served_again().await);
                assert_ne!(process(), first);
                assert!(scene.lane().health().epoch > round, "{:?}", scene.lane().health());
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn crash_in_a_change() {
        let scene = Scene::new(&single());
        runtime().block_on(async {
            // Before the key is there, and when it has been made and is to be looked at.
            for (fault, there) in
                [("C_GenerateKey 0 1 crash", false), ("C_GetAttributeValue 0 1 crash", true)]
            {
                scene.derive().await.expect("well");
                drop(scene.shim.calls());
                scene.shim.set([fault]);
                let error = scene.ask(Ask::Generate).await.expect_err("it has ended");
                assert!(why(&error).ends_with("is to be looked up"), "{error}");
                let made = scene.calls_until("a login", |calls| calls.of("C_Login") == 1).await;
                assert_eq!(made.of("C_GenerateKey"), 1, "{fault}");
                scene.shim.clear();
                println!("a change: served again after {:?}", scene.served_again().await);
                let destroyed = scene.ask(Ask::Destroy).await;
                let wanted = if there { Ok(()) } else { Err(Error::KeyNotFound(OTHER)) };
                assert_eq!(destroyed, wanted, "{fault}");
            }
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn hang() {
        let options = Options { workers: Some(4), deadline_ms: 500, ..Options::default() };
        let scene = Scene::new(&options);
        runtime().block_on(async {
            scene.derive().await.expect("well");
            let (first, start) = (process(), Instant::now());
            scene.shim.set(["C_SignInit 0 4 hang"]);
            let mut hung = tokio::task::JoinSet::new();
            for _ in 0..4 {
                let (lane, check) = (scene.lane().clone(), scene.check);
                hung.spawn(async move { lane.derive(ID.into(), check, b"x".to_vec()).await.err() });
                // One by one: those who come together may be asked for in one message, on one thread.
                scene.calls_until("a call that hangs", |calls| calls.struck() == 1).await;
            }
            for error in hung.join_all().await {
                assert_eq!(error, Some(Error::Timeout(LABEL.into())));
            }
            assert!(start.elapsed() < Duration::from_millis(900), "long after the deadline");
            // Those that hang go on hanging; no other call does.
            scene.shim.set(["C_SignInit 0 0 hang"]);
            while let Err(error) = scene.derive().await {
                let clear = matches!(error, Error::Timeout(_) | Error::Unavailable { .. });
                assert!(clear, "{error}");
                assert!(start.elapsed() < HANG_MARGIN + BACK, "{error}");
            }
            println!("hang: served again {:?} after the first call", start.elapsed());
            assert_ne!(process(), first);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn slow() {
        let options = Options { workers: Some(2), deadline_ms: 400, ..Options::default() };
        let scene = Scene::new(&options);
        runtime().block_on(async {
            scene.derive().await.expect("well");
            let first = process();
            scene.shim.set(["C_SignInit 0 * delay 1000"]);
            for _ in 0..10 {
                let error = scene.derive().await.expect_err("too slow");
                assert_eq!(error, Error::Timeout(LABEL.into()));
            }
            scene.shim.clear();
            let start = Instant::now();
            while scene.derive().await.is_err() {
                assert!(start.elapsed() < BACK, "not served again");
            }
            assert_eq!(process(), first, "slowness is no reason for a new process");
            assert_eq!(scene.lane().health().epoch, 1);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn crash_at_every_login() {
        let scene = Scene::new(&single());
        runtime().block_on(async {
            scene.derive().await.expect("well");
            drop(scene.shim.calls());
            scene.shim.set(["C_Login 0 * crash", "C_Sign 0 1 crash"]);
            assert!(scene.derive().await.is_err());
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(2) {
                let asked = Instant::now();
                let error = scene.derive().await.expect_err("nobody can serve");
                assert!(why(&error).contains("process"), "{error}");
                assert!(asked.elapsed() < Duration::from_millis(300), "not at once");
                assert!(!scene.lane().health().up);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let logins = scene.shim.calls().of("C_Login");
            assert!((2..=12).contains(&logins), "{logins} logins");
            scene.shim.clear();
            println!("every login: served again after {:?}", scene.served_again().await);
            assert!(scene.lane().health().up);
        });
    }

    #[test]
    #[ignore = "run in its own process"]
    fn pin() {
        drop(Scene::new(&single()));
        // Refused in a new process; and in the first one, which then ends.
        for faults in [
            &["C_Sign 0 1 crash", "C_Login 0 1 answer CKR_PIN_INCORRECT"][..],
            &["C_SignInit 0 1 answer CKR_PIN_LOCKED", "C_Sign 0 1 crash"],
        ] {
            let scene = Scene::on_the_token(&single());
            runtime().block_on(async {
                drop(scene.shim.calls());
                scene.shim.set(faults);
                let start = Instant::now();
                while scene.lane().health().up || !processes().is_empty() {
                    assert!(scene.derive().await.is_err());
                    assert!(start.elapsed() < BACK, "{:?}", scene.lane().health());
                }
                scene.shim.clear();
                let logins = scene.shim.calls().of("C_Login");
                for _ in 0..20 {
                    let error = scene.derive().await.expect_err("refused");
                    assert!(matches!(error, Error::Pin { .. }), "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                assert!(why(&scene.derive().await.expect_err("refused")).contains("PIN"));
                assert!(logins <= 1, "{logins} logins");
                assert_eq!(scene.shim.calls().of("C_Login"), 0, "no other login");
                assert_eq!(processes(), Vec::<PathBuf>::new());
            });
        }
    }

    #[test]
    #[ignore = "run in its own process"]
    fn end() {
        let mut scene = Scene::new(&Options { deadline_ms: 500, ..Options::default() });
        runtime().block_on(scene.derive()).expect("well");
        let process = process();
        let read = |name: &str| std::fs::read(process.join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        assert_eq!(command, "strongroom token-host ");
        let (pin, environment) = (PIN.as_bytes(), read("environ"));
        if environment.is_empty() {
            println!("NOT CHECKED: the environment (only root may read an undumpable process's)");
        }
        assert!(!environment.windows(pin.len()).any(|bytes| bytes == pin));
        drop(scene.shim.calls());
        scene.lane = None;
        assert!(!process.exists(), "it is there still");
        assert_eq!(scene.shim.calls().of("C_Finalize"), 1, "it has let go of the token");

        // With a call in it that does not end.
        scene.start_anew();
        let process = super::process();
        scene.shim.set(["C_SignInit 0 1 hang"]);
        let error = runtime().block_on(scene.derive()).expect_err("it hangs");
        assert_eq!(error, Error::Timeout(LABEL.into()));
        let start = Instant::now();
        scene.lane = None;
        assert!(!process.exists(), "it is there still");
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());

        // With one that is opening the token and does not come to an end of that.
        scene.start_anew();
        let process = super::process();
        drop(scene.shim.calls());
        scene.shim.set(["C_SignInit 0 1 crash", "C_Login 0 1 hang"]);
        drop(runtime().block_on(scene.derive()));
        let start = Instant::now();
        runtime().block_on(scene.calls_until("a login", |calls| calls.of("C_Login") > 0));
        assert!(!process.exists(), "it has crashed");
        let process = super::process();
        scene.lane = None;
        assert!(!process.exists(), "it is there still");
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }
}
