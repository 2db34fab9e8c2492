//! What it costs to have the token's driver in a process of its own: derivations on SoftHSM through
//! the lane, the driver in this process and in another one by turns, so that a busy machine weighs
//! on both. Run with `cargo bench --bench custody`; the number of turns may be given.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use strongroom::custody::child::{self, Program};
use strongroom::custody::lane::{Lane, Options};
use strongroom::custody::pkcs11::init_token;
use strongroom::custody::profile::Profile;
use strongroom::custody::{self, Access, BackingKeyId, KeyCheck, Locator, Scheme};
use strongroom::secret::Secret;

/// How long one measurement takes.
const SPAN: Duration = Duration::from_millis(1500);
const CALLERS: [usize; 4] = [1, 4, 16, 64];
const LABEL: &str = "bench";
const ID: BackingKeyId = BackingKeyId([1; 16]);
const FOLDER: &str = "STRONGROOM_BENCH_TOKEN";

/// What one measurement has found.
#[derive(Clone, Copy, Default)]
struct Found {
    /// Derivations a second.
    rate: f64,
    /// Microseconds from the question to the answer: the median, and of 99 in 100.
    median: f64,
    slow: f64,
    /// Microseconds of CPU for one, of all processes.
    cpu: f64,
}

/// CPU time of a process so far (proc_pid_stat: utime and stime in hundredths of a second).
fn process_cpu(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
    let fields = stat.rsplit(") ").next().expect("fields").split(' ').skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// CPU time of this process and those that it has started.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let children = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("children")).ok()?;
        Some(text.split_whitespace().map(process_cpu).sum::<Duration>())
    });
    process_cpu("self") + children.sum::<Duration>()
}

async fn derive(lane: &Lane, check: KeyCheck) {
    let input = vec![7; 73];
    std::hint::black_box(lane.derive(ID.into(), check, input).await.expect("derived"));
}

async fn measured(lane: &Lane, check: KeyCheck, callers: usize) -> Found {
    let (begin, before) = (Instant::now(), cpu());
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let lane = lane.clone();
            tokio::spawn(async move {
                let mut each = Vec::new();
                while begin.elapsed() < SPAN {
                    let start = Instant::now();
                    derive(&lane, check).await;
                    each.push(start.elapsed().as_secs_f64() * 1e6);
                }
                each
            })
        })
        .collect();
    let mut each = Vec::new();
    for caller in callers {
        each.extend(caller.await.expect("a caller"));
    }
    let (wall, spent) = (begin.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    each.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| each.get(each.len() * share / 100).copied().unwrap_or_default();
    let count = each.len() as f64;
    Found { rate: count / wall, median: at(50), slow: at(99), cpu: spent * 1e6 / count }
}

fn access() -> Access {
    let (token, pin) = (Locator::Label(LABEL.into()), Secret::copy_of(b"a user pin"));
    Access { token, pin, module: None, device: None }
}

/// What there is to be found of one way, for each number of callers.
fn way(lane: &Lane, runtime: &tokio::runtime::Runtime, check: KeyCheck) -> [Found; 4] {
    runtime.block_on(async {
        for _ in 0..100 {
            derive(lane, check).await;
        }
    });
    CALLERS.map(|callers| {
        let lane = lane.clone();
        let measuring = runtime.spawn(async move { measured(&lane, check, callers).await });
        runtime.block_on(measuring).expect("measured")
    })
}

/// One way after the other.
fn turn(folder: &Path, runtime: &tokio::runtime::Runtime, check: KeyCheck) -> [[Found; 4]; 2] {
    let profile = Profile::built_in("softhsm2").expect("sound");
    let options = Options::default();
    let lane = custody::open(profile.clone(), access(), &options).expect("a lane");
    let near = way(&lane, runtime, check);
    drop(lane);
    let environment = profile.environment(Some(&folder.join("softhsm2.conf")));
    let program = Program::at(Path::new(env!("CARGO_BIN_EXE_strongroom")), environment);
    let lane = child::open(profile, access(), &options, program).expect("a lane");
    [near, way(&lane, runtime, check)]
}

/// Starts this program again where SoftHSM finds its configuration.
fn configured() -> Option<tempfile::TempDir> {
    if std::env::var_os(FOLDER).is_some() {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    std::fs::create_dir(&tokens).expect("tokens");
    let profile = Profile::built_in("softhsm2").expect("sound");
    let text = profile.configuration(tokens.to_str().expect("text")).expect("made here");
    let file = folder.path().join("softhsm2.conf");
    std::fs::write(&file, text).expect("written");
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(std::env::args_os().skip(1))
        .arg0("custody")
        .env(FOLDER, folder.path())
        .envs(profile.environment(Some(&file)))
        .status()
        .expect("started");
    assert!(status.success());
    Some(folder)
}

fn main() {
    if configured().is_some() {
        return;
    }
    let turns: usize = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(3);
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).expect("set"));
    let profile = Profile::built_in("softhsm2").expect("sound");
    let (officer, pin) = (Secret::copy_of(b"an officer's pin"), access().pin);
    init_token(&profile, None, LABEL, &officer, &pin).expect("a token");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lane = custody::open(profile, access(), &Options::default()).expect("a lane");
    let made = runtime.block_on(lane.generate(ID, Scheme::HmacKdf)).expect("a key");
    drop(lane);
    println!(
        "callers | in the server: /s, median, 99 %, CPU us | in its own process | ratios: rate, median, CPU"
    );
    for number in 0..turns {
        println!("turn {}", number + 1);
        let [near, far] = turn(&folder, &runtime, made.evidence.check);
        for (callers, (near, far)) in CALLERS.iter().zip(near.into_iter().zip(far)) {
            let told =
                |f: Found| format!("{:.0} {:.0} {:.0} {:.1}", f.rate, f.median, f.slow, f.cpu);
            println!(
                "{callers:>7} | {} | {} | {:.2} {:.2} {:.2}",
                told(near),
                told(far),
                far.rate / near.rate,
                far.median / near.median,
                far.cpu / near.cpu
            );
        }
    }
}
