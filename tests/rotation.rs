//! Rotation by the clock, with a SoftHSM token, a database and a clock that can be set.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod alone;

use alone::{ACCOUNT, Ahead, alone};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use strongroom::clock::{Clock, DAY, NoRandomness, Random, SystemRandom, Time};
use strongroom::name::Service;
use strongroom::ops::call::{Call, Services};
use strongroom::rotate::keep_rotating;
use strongroom::store::rotations::{Rotation, Window};
use strongroom::store::secrets::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const FUNCTION: &str = "arn:aws:lambda:eu-central-1:111122223333:function:strongroom-password";
const SLOW: &str = "arn:aws:lambda:eu-central-1:111122223333:function:slow";
/// More than are rotated at once.
const SECRETS: usize = 40;
const THOUSAND: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: i64 = DAY / 24;
const MINUTE: i64 = HOUR / 60;

/// An appliance inside this process, with secrets `s0`, `s1` and so on.
struct World {
    services: Arc<Services>,
    clock: Arc<Ahead>,
}

impl World {
    /// Runs a scenario on a fresh appliance.
    fn with<F: Future<Output = ()>>(scenario: impl FnOnce(Self) -> F) {
        alone::founded(
            |configuration| async move { scenario(Self::open(&configuration).await).await },
        );
    }

    async fn open(configuration: &Path) -> Self {
        let (services, clock) = alone::open(configuration).await;
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

    async fn create(&self, n: usize) {
        let token = format!("{n:032}");
        let new = json!({"Name": name(n), "ClientRequestToken": token, "SecretString": "old"});
        self.ask("CreateSecret", new).await;
    }

    /// Sets a secret up for a rotation a day by a function, and asks for the first one.
    async fn set_up(&self, n: usize, function: &str) {
        self.create(n).await;
        let rotate = json!({
            "SecretId": name(n), "ClientRequestToken": format!("{n:033}"),
            "RotationLambdaARN": function, "RotationRules": {"AutomaticallyAfterDays": 1},
        });
        self.ask("RotateSecret", rotate).await;
    }

    fn start(&self) -> JoinHandle<()> {
        tokio::spawn(keep_rotating(self.services.clone()))
    }

    fn step(&self, by: i64) {
        self.clock.step(by);
        self.services.rotations.wake.notify_one();
    }

    fn secret(&self, n: usize) -> Arc<Secret> {
        self.services.records.secret(ACCOUNT, &name(n)).expect("read").expect("there")
    }

    fn rotation(&self, n: usize) -> Arc<Rotation> {
        self.services.records.rotation(self.secret(n).uid).expect("read").expect("set up")
    }

    /// Waits until the first `count` secrets have rotated since `since`; answers in how many versions
    /// each is.
    async fn rotated(&self, count: usize, since: Time) -> Vec<u32> {
        let done = |r: Arc<Rotation>| r.last >= Some(since) && r.progress.is_none();
        wait(|| (0..count).all(|n| done(self.rotation(n)))).await;
        (0..count).map(|n| self.secret(n).versions).collect()
    }
}

fn name(n: usize) -> String {
    format!("s{n}")
}

/// Waits until something is so.
async fn wait(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Fails as nothing should: it panics, at the `n`th id that a rotation wants.
struct Faulty(AtomicI64);

impl Random for Faulty {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        let fault = out.len() == 16 && self.0.fetch_sub(1, Ordering::SeqCst) == 1;
        assert!(!fault, "a fault on purpose");
        SystemRandom.fill(out)
    }
}

/// A rotation function behind a Lambda endpoint, whose setSecret takes until it is let go.
struct Slow {
    steps: Mutex<Vec<String>>,
    gate: Semaphore,
}

impl Slow {
    /// Has it rotate in the appliance of this configuration.
    async fn begin(configuration: &Path) -> (Arc<World>, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut file = OpenOptions::new().append(true).open(configuration).expect("a file");
        let address = listener.local_addr().expect("an address");
        writeln!(file, "\n[[function]]\nname = \"slow\"\nendpoint = \"http://{address}\"")
            .expect("written");
        let world = Arc::new(World::open(configuration).await);
        let slow = Arc::new(Self { steps: Mutex::default(), gate: Semaphore::new(0) });
        tokio::spawn(Self::serve(slow.clone(), world.clone(), listener));
        (world, slow)
    }

    async fn serve(self: Arc<Self>, world: Arc<World>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let (slow, world) = (self.clone(), world.clone());
            tokio::spawn(async move { slow.invoked(&world, stream).await });
        }
    }

    async fn invoked(&self, world: &World, mut stream: TcpStream) {
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        let event: Value = loop {
            let read = stream.read(&mut part).await.expect("a request");
            request.extend_from_slice(part.get(..read).expect("as much"));
            let body = request.windows(4).position(|end| end == b"\r\n\r\n");
            let body = body.and_then(|end| request.get(end + 4..));
            if let Some(event) = body.and_then(|body| serde_json::from_slice(body).ok()) {
                break event;
            }
        };
        let of =
            |member: &str| event.get(member).and_then(Value::as_str).expect("a text").to_owned();
        let (step, id, token) = (of("Step"), of("SecretId"), of("ClientRequestToken"));
        self.steps.lock().push(step.clone());
        match step.as_str() {
            "createSecret" => {
                let put = json!({
                    "SecretId": id, "ClientRequestToken": token, "SecretString": "new",
                    "VersionStages": ["AWSPENDING"],
                });
                world.ask("PutSecretValue", put).await;
            }
            "setSecret" => self.gate.acquire().await.expect("open").forget(),
            "finishSecret" => {
                let from = world.ask("GetSecretValue", json!({"SecretId": id})).await;
                let step = json!({
                    "SecretId": id, "VersionStage": "AWSCURRENT", "MoveToVersionId": token,
                    "RemoveFromVersionId": from.get("VersionId"),
                });
                world.ask("UpdateSecretVersionStage", step).await;
            }
            _ => {}
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnull";
        stream.write_all(answer).await.expect("answered");
    }

    fn steps(&self) -> usize {
        self.steps.lock().len()
    }
}

#[test]
fn what_is_due_rotates_once_and_what_a_downtime_passed_over_is_made_up_for() {
    alone("downtime");
}

#[test]
fn a_clock_that_is_set_while_rotations_wait_loses_none_and_repeats_none() {
    alone("clock_set_while_waiting");
}

#[test]
fn a_clock_that_is_set_while_a_rotation_runs_neither_ends_nor_doubles_it() {
    alone("clock_set_while_running");
}

#[test]
fn a_fault_of_ours_is_a_failure_like_another() {
    alone("fault");
}

#[test]
fn what_came_due_while_the_secret_waited_for_its_deletion_is_done_when_it_is_restored() {
    alone("restored");
}

#[test]
fn a_thousand_within_six_minutes_rotate_once_each_inside_their_windows() {
    alone("thousand");
}

mod scenarios {
    use super::*;

    #[test]
    #[ignore = "run by the test above in a process of its own"]
    fn downtime() {
        World::with(|world| async move {
            let begun = world.clock.now();
            for n in 0..SECRETS {
                world.set_up(n, FUNCTION).await;
            }
            let engine = world.start();
            assert_eq!(world.rotated(SECRETS, begun).await, [2; SECRETS], "at once, each once");
            for n in 0..SECRETS {
                let rotation = world.rotation(n);
                let (next, due) =
                    (rotation.next.expect("a window"), rotation.due.expect("a moment"));
                assert!(next.opens <= due && due < next.closes && next.opens > begun);
            }
            engine.abort();
            // Two windows pass in which nobody is there.
            world.clock.step(3 * DAY);
            let late = world.clock.now();
            let engine = world.start();
            assert_eq!(world.rotated(SECRETS, late).await, [3; SECRETS], "made up for, each once");
            engine.abort();
        });
    }

    #[test]
    #[ignore = "run by the test above in a process of its own"]
    fn clock_set_while_waiting() {
        World::with(|world| async move {
            let begun = world.clock.now();
            for n in 0..5 {
                world.set_up(n, FUNCTION).await;
            }
            let engine = world.start();
            world.rotated(5, begun).await;
            world.step(400 * DAY);
            let ahead = world.clock.now();
            assert_eq!(world.rotated(5, ahead).await, [3; 5], "many windows, one rotation");
            world.step(-400 * DAY);
            let soon = Time(begun.0 + 3 * DAY);
            wait(|| (0..5).all(|n| world.rotation(n).due.is_some_and(|due| due < soon))).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let versions: Vec<u32> = (0..5).map(|n| world.secret(n).versions).collect();
            assert_eq!(versions, [3; 5], "nothing is due because a clock was set back");
            world.step(3 * DAY);
            wait(|| (0..5).all(|n| world.secret(n).versions == 4)).await;
            // An hour back, into a window that has rotated already.
            world.step(-HOUR);
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!((0..5).all(|n| world.secret(n).versions == 4), "once in a window");
            engine.abort();
        });
    }

    #[test]
    #[ignore = "run by the test above in a process of its own"]
    fn clock_set_while_running() {
        alone::founded(|configuration| async move {
            let (world, slow) = Slow::begin(&configuration).await;
            world.set_up(0, SLOW).await;
            let engine = world.start();
            wait(|| slow.steps() == 2).await;
            // Past the end of its lease, and of the time that it has.
            world.step(2 * HOUR);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let until = || world.rotation(0).lease.as_ref().expect("a lease").until;
            world.step(-10 * DAY);
            let back = world.clock.now();
            wait(|| until() < Time(back.0 + 5 * MINUTE)).await;
            assert_eq!(slow.steps(), 2, "it is at work");
            slow.gate.add_permits(1);
            wait(|| world.rotation(0).progress.is_none()).await;
            let steps = ["createSecret", "setSecret", "testSecret", "finishSecret"];
            assert_eq!(*slow.steps.lock(), steps, "each once");
            assert_eq!(
                world.secret(0).version_with("AWSCURRENT"),
                Some(format!("{:033}", 0).as_str())
            );
            engine.abort();
        });
    }

    #[test]
    #[ignore = "run by the test above in a process of its own"]
    fn fault() {
        World::with(|mut world| async move {
            // The second id is wanted inside the first step.
            let random = Arc::new(Faulty(AtomicI64::new(i64::MAX)));
            let services = Arc::get_mut(&mut world.services).expect("not shared yet");
            services.world.random = random.clone();
            let begun = world.clock.now();
            let engine = world.start();
            world.set_up(0, FUNCTION).await;
            world.rotated(1, begun).await;
            random.0.store(2, Ordering::SeqCst);
            world.step(2 * DAY);
            let failure = || world.rotation(0).failure.clone();
            wait(|| failure().is_some()).await;
            assert!(failure().expect("one").why.starts_with("a fault of Strongroom's own"));
            wait(|| world.secret(0).versions == 3 && failure().is_none()).await;
            engine.abort();
        });
    }

    #[test]
    #[ignore = "run by the test above in a process of its own"]
    fn restored() {
        World::with(|world| async move {
            let begun = world.clock.now();
            world.set_up(0, FUNCTION).await;
            let engine = world.start();
            world.rotated(1, begun).await;
            world.ask("DeleteSecret", json!({"SecretId": name(0)})).await;
            world.step(2 * DAY);
            wait(|| world.rotation(0).due.is_none()).await;
            world.ask("RestoreSecret", json!({"SecretId": name(0)})).await;
            let restored = Instant::now();
            wait(|| world.secret(0).versions == 3).await;
            assert!(restored.elapsed() < Duration::from_secs(10), "at once");
            engine.abort();
        });
    }

    /// Each secret has a window of three minutes that lies somewhere within the same six. The clock
    /// goes twenty times as fast as it should.
    #[test]
    #[ignore = "run by the test above in a process of its own"]
    fn thousand() {
        World::with(|world| async move {
            let opening = Time(world.clock.now().0 + HOUR);
            for n in 0..THOUSAND {
                world.create(n).await;
            }
            let engine = world.start();
            plan(&world, opening).await;
            let ticking = tick(&world, opening);
            let versions = world.rotated(THOUSAND, opening).await;
            ticking.abort();
            engine.abort();
            assert!(versions.iter().all(|versions| *versions == 2), "each once");
            for n in 0..THOUSAND {
                inside_its_window(&world, n, opening);
            }
        });
    }

    /// The window of the `n`th secret.
    fn window(n: usize, opening: Time) -> Window {
        let opens = Time(opening.0 + i64::try_from(n).expect("small") * 180);
        Window { opens, closes: Time(opens.0 + 3 * MINUTE) }
    }

    /// Writes what RotateSecret would have written, but for the windows, which no schedule has so
    /// close together.
    async fn plan(world: &World, opening: Time) {
        let planned = (0..THOUSAND).map(|n| {
            let window = window(n, opening);
            let rotation = json!({
                "secret": world.secret(n).uid, "account": ACCOUNT, "name": name(n), "enabled": true,
                "function": FUNCTION, "rules": {"after_days": 1}, "scheduled": world.clock.now(),
                "next": window, "due": window.opens, "revision": 0,
            });
            serde_json::from_value(rotation).expect("a rotation")
        });
        let planned: Vec<Rotation> = planned.collect();
        let write = world.services.records.write(move |rows| {
            planned.iter().try_for_each(|rotation| rows.put_rotation(&mut rotation.clone()))
        });
        write.await.expect("written");
    }

    /// Sets the clock to the opening, and has it go twenty times as fast from there.
    fn tick(world: &World, opening: Time) -> JoinHandle<()> {
        let (services, clock) = (world.services.clone(), world.clock.clone());
        clock.step(opening.0 - clock.now().0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                clock.step(19 * 50);
                services.rotations.wake.notify_one();
            }
        })
    }

    fn inside_its_window(world: &World, n: usize, opening: Time) {
        let (secret, rotation) = (world.secret(n), world.rotation(n));
        let window = window(n, opening);
        let last = rotation.last.expect("it has rotated");
        assert!(last >= window.opens && last < window.closes, "{n}: {last:?} {window:?}");
        assert_eq!(secret.version_with("AWSPREVIOUS"), Some(format!("{n:032}").as_str()));
        let current = secret.version_with("AWSCURRENT").expect("a value");
        assert!(current != format!("{n:032}") && secret.version_with("AWSPENDING").is_none());
    }
}
