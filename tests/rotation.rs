//! Rotation by the clock, with a SoftHSM token, a database and a clock that can be put forward.
//!
//! As in `keys.rs` each scenario runs in a process of its own: a test starts this same binary again.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use strongroom::clock::{Clock, DAY, SystemClock, Time};
use strongroom::config::Config;
use strongroom::custody::{child::Isolation, profile::Profile};
use strongroom::name::Service;
use strongroom::ops::call::{Call, Services};
use strongroom::rotate::keep_rotating;
use strongroom::server::Appliance;
use strongroom::server::found::{Plan, TokenPlan};
use strongroom::store::rotations::Rotation;
use tokio::task::JoinHandle;

const DIRECTORY: &str = "STRONGROOM_TEST_DIRECTORY";
const ACCOUNT: &str = "111122223333";
const FUNCTION: &str = "arn:aws:lambda:eu-central-1:111122223333:function:strongroom-password";
/// More than are rotated at once.
const SECRETS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);

fn plan(dir: PathBuf) -> Plan {
    Plan {
        dir,
        token: TokenPlan::made_here(Profile::built_in("softhsm2").expect("sound")),
        second: None,
        no_recovery: false,
        // This program is not the one that holds tokens.
        isolation: Isolation::None,
        region: "eu-central-1".into(),
        account: ACCOUNT.into(),
        listen: ([127, 0, 0, 1], 0).into(),
    }
}

/// The machine's clock, put forward.
#[derive(Default)]
struct Ahead(AtomicI64);

impl Clock for Ahead {
    fn now(&self) -> Time {
        Time(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// An appliance inside this process, with secrets `s0`, `s1` and so on that rotate once a day.
struct World {
    services: Arc<Services>,
    clock: Arc<Ahead>,
}

impl World {
    async fn open(configuration: &Path) -> Self {
        let config = Config::read(configuration).expect("sound");
        let mut services = Appliance::open(config).await.expect("open").services;
        let clock = Arc::<Ahead>::default();
        Arc::get_mut(&mut services).expect("not shared yet").world.clock = clock.clone();
        Self { services, clock }
    }

    /// Calls an operation of Secrets Manager as the appliance itself.
    async fn ask(&self, operation: &str, input: Value) -> Value {
        let services = self.services.clone();
        let call = Call::of_system(services, Service::SecretsManager, operation, ACCOUNT);
        let call = call.expect("an operation");
        let body = call.row.run(&call, input.to_string().as_bytes()).await.expect("done");
        serde_json::from_slice(body.into_secret().expose()).expect("JSON")
    }

    async fn set_up(&self) {
        for n in 0..SECRETS {
            let (name, token) = (format!("s{n}"), format!("{n:032}"));
            let new = serde_json::json!({
                "Name": name, "ClientRequestToken": token, "SecretString": "old"
            });
            self.ask("CreateSecret", new).await;
            let token = format!("{n:033}");
            let rotate = serde_json::json!({
                "SecretId": name, "ClientRequestToken": token, "RotationLambdaARN": FUNCTION,
                "RotationRules": {"AutomaticallyAfterDays": 1},
            });
            self.ask("RotateSecret", rotate).await;
        }
    }

    fn start(&self) -> JoinHandle<()> {
        tokio::spawn(keep_rotating(self.services.clone()))
    }

    fn rotations(&self) -> Vec<Arc<Rotation>> {
        let rotation = |n| {
            let secret = self.services.records.secret(ACCOUNT, &format!("s{n}"));
            let uid = secret.expect("read").expect("there").uid;
            self.services.records.rotation(uid).expect("read").expect("set up")
        };
        (0..SECRETS).map(rotation).collect()
    }

    /// Waits until every secret has rotated since `since`; answers in how many versions each is.
    async fn rotated(&self, since: Time) -> Vec<u32> {
        let begun = Instant::now();
        let done = |r: &Arc<Rotation>| r.last >= Some(since) && r.progress.is_none();
        while !self.rotations().iter().all(done) {
            assert!(begun.elapsed() < PATIENCE, "not all have rotated");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let versions = |n| {
            let secret = self.services.records.secret(ACCOUNT, &format!("s{n}"));
            secret.expect("read").expect("there").versions
        };
        (0..SECRETS).map(versions).collect()
    }
}

#[test]
fn what_is_due_rotates_once_and_what_a_downtime_passed_over_is_made_up_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let plan = plan(directory.path().join("appliance"));
    plan.prepare().expect("prepared");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "scenario", "--ignored", "--nocapture"])
        .env(DIRECTORY, &plan.dir)
        .envs(plan.token.profile.environment(plan.token.module_configuration(&plan.dir).as_deref()))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && text.contains("1 passed");
    assert!(ran, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn scenario() {
    let plan = plan(std::env::var(DIRECTORY).expect("run by the test above").into());
    let runtime = || tokio::runtime::Runtime::new().expect("a reactor");
    runtime().block_on(plan.found()).expect("founded");
    runtime().block_on(async {
        let world = World::open(&plan.configuration()).await;
        let begun = world.clock.now();
        world.set_up().await;
        let engine = world.start();
        assert_eq!(world.rotated(begun).await, [2; SECRETS], "at once, each once");
        for rotation in world.rotations() {
            let (next, due) = (rotation.next.expect("a window"), rotation.due.expect("a moment"));
            assert!(next.opens <= due && due < next.closes && next.opens > begun);
        }
        engine.abort();
        // Two windows pass in which nobody is there.
        world.clock.0.fetch_add(3 * DAY, Ordering::SeqCst);
        let late = world.clock.now();
        let engine = world.start();
        assert_eq!(world.rotated(late).await, [3; SECRETS], "made up for, each once");
        engine.abort();
    });
}
