//! Scenarios on an appliance inside the test's own process: a SoftHSM token, a database and a clock
//! that can be set.
//!
//! SoftHSM reads its configuration from the environment when its module is loaded, so each scenario
//! runs in a process of its own: a test starts its own binary again, for one ignored test in
//! `mod scenarios`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use strongroom::clock::{Clock, SystemClock, Time};
use strongroom::config::Config;
use strongroom::custody::{child::Isolation, profile::Profile};
use strongroom::ops::call::Services;
use strongroom::server::Appliance;
use strongroom::server::found::{Plan, TokenPlan};

pub(crate) const ACCOUNT: &str = "111122223333";
const DIRECTORY: &str = "STRONGROOM_TEST_DIRECTORY";

/// Runs `scenarios::NAME` in a process of its own, with a folder for an appliance.
pub(crate) fn alone(scenario: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let plan = plan(directory.path().join("appliance"));
    plan.prepare().expect("prepared");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &format!("scenarios::{scenario}"), "--ignored", "--nocapture"])
        .env(DIRECTORY, &plan.dir)
        .envs(plan.token.profile.environment(plan.token.module_configuration(&plan.dir).as_deref()))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && text.contains("1 passed");
    assert!(ran, "{scenario}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the appliance of a scenario and runs what is to happen there; it is given where the
/// configuration is.
pub(crate) fn founded<F: Future<Output = ()>>(scenario: impl FnOnce(PathBuf) -> F) {
    let plan = plan(std::env::var(DIRECTORY).expect("run by the test of the same name").into());
    let runtime = || tokio::runtime::Runtime::new().expect("a reactor");
    let (_, database) = runtime().block_on(plan.found()).expect("founded");
    database.close();
    drop(database);
    runtime().block_on(scenario(plan.configuration()));
}

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

/// The machine's clock, put forward or back by so many milliseconds.
#[derive(Default)]
pub(crate) struct Ahead(AtomicI64);

impl Ahead {
    pub(crate) fn step(&self, by: i64) {
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for Ahead {
    fn now(&self) -> Time {
        Time(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// Opens the appliance of a configuration, with such a clock.
pub(crate) async fn open(configuration: &Path) -> (Arc<Services>, Arc<Ahead>) {
    let config = Config::read(configuration).expect("sound");
    let mut services = Appliance::open(config).await.expect("open").services;
    let clock = Arc::<Ahead>::default();
    Arc::get_mut(&mut services).expect("not shared yet").world.clock = clock.clone();
    (services, clock)
}
