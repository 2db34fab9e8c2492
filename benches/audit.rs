//! What the audit log costs: an append against a bare write(2) of the same bytes, whether latency
//! or memory grow with the log, and what the look-up index takes for a record. Run with
//! `cargo bench --bench audit`; the number of records may be given
//! (`cargo bench --bench audit -- 10000000`), 1,000,000 by default.
//!
//! The tree is made while records are appended, by the process's other threads; its part is the
//! difference between the CPU time of the process and that of the appending thread.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark may panic, and prints")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom::audit::index::Index;
use strongroom::audit::log::{Log, Sync};
use strongroom::audit::tree::Tree;
use strongroom::clock::SystemClock;

/// Records in one measurement.
const STEP: u64 = 100_000;

/// CPU time of the calling thread so far (proc_pid_schedstat: nanoseconds on a processor).
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let spent = stat.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(spent.expect("a number"))
}

/// CPU time of the whole process so far (proc_pid_stat: utime and stime in hundredths).
fn process_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let fields = stat.rsplit(") ").next().expect("fields").split(' ').skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// Memory of the process in KiB (proc_pid_status: VmRSS).
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// A record as GetSecretValue leaves it, in length and form: the `n`th of a thousand a second.
fn record(n: u64) -> Vec<u8> {
    let milliseconds = 1_767_225_600_000 + i64::try_from(n).expect("small");
    let time = jiff::Timestamp::from_millisecond(milliseconds).expect("a time");
    // As evenly spread as what lots draw.
    let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (secret, user) = (id >> 54, id >> 40 & 31);
    format!(
        "{{\"eventVersion\":\"1.11\",\"eventID\":\"{:08x}-0000-4000-8000-{n:012}\",\"eventTime\":\"{time:.3}\",\
         \"eventSource\":\"secretsmanager.amazonaws.com\",\"eventName\":\"GetSecretValue\",\
         \"eventType\":\"AwsApiCall\",\"readOnly\":true,\"awsRegion\":\"eu-central-1\",\
         \"sourceIPAddress\":\"10.1.2.3\",\"userAgent\":\"{}\",\"requestID\":\"{:08x}-0000-4000-8000-{n:012}\",\
         \"userIdentity\":{{\"type\":\"IAMUser\",\"principalId\":\"AIDAAAAAAAAAAAAAAAAAA\",\
         \"arn\":\"arn:aws:iam::111122223333:user/application{user:02}\",\"accountId\":\"111122223333\",\
         \"userName\":\"application{user:02}\",\
         \"accessKeyId\":\"AKIAAAAAAAAAAAAAAA{user:02}\"}},\"recipientAccountId\":\"111122223333\",\
         \"resources\":[{{\"ARN\":\"arn:aws:secretsmanager:eu-central-1:111122223333:secret:prod/\
         database{secret:04}-AbCdEf\",\"type\":\"AWS::SecretsManager::Secret\"}}]}}\n",
        id >> 32,
        "aws-sdk-rust/1.3 os/linux lang/rust/1.89 ".repeat(3),
        id & 0xffff_ffff
    )
    .into_bytes()
}

/// Microseconds of one write(2), clock and CPU.
fn bare(dir: &Path, count: u64) -> (f64, f64) {
    let path = dir.join("bare");
    let mut file = OpenOptions::new().append(true).create(true).open(&path).expect("a file");
    let line = record(0);
    let (begin, cpu) = (Instant::now(), thread_cpu());
    for _ in 0..count {
        file.write_all(&line).expect("written");
    }
    let spent = (begin.elapsed(), thread_cpu() - cpu);
    std::fs::remove_file(&path).expect("removed");
    (micros(spent.0, count), micros(spent.1, count))
}

fn micros(span: Duration, count: u64) -> f64 {
    span.as_secs_f64() * 1e6 / count as f64
}

/// Appends records at a pace that leaves the tree its time; answers microseconds of an append (clock,
/// mean and 99.9th percentile), and CPU of this thread and of the others.
async fn appended(log: &Log, tree: &Tree, from: u64) -> (f64, f64, f64, f64) {
    let mut each = Vec::with_capacity(usize::try_from(STEP).expect("small"));
    let (whole, mut own) = (process_cpu(), Duration::ZERO);
    for start in (from..from + STEP).step_by(2000) {
        let lines: Vec<Vec<u8>> = (start..start + 2000).map(record).collect();
        let cpu = thread_cpu();
        for line in &lines {
            let begin = Instant::now();
            log.append_lines(line).expect("appended");
            each.push(begin.elapsed());
        }
        own += thread_cpu() - cpu;
        log.flush().await.expect("on disk");
        let (sealing, log) = (tree.clone(), log.clone());
        let sealed = tokio::task::spawn_blocking(move || sealing.seal(&log)).await;
        sealed.expect("no panic").expect("sealed");
    }
    each.sort_unstable();
    let mean = micros(each.iter().sum(), STEP);
    let slow = each.get(each.len() - each.len() / 1000).copied().unwrap_or_default();
    // What made the records is this thread's too, and is not asked for here.
    let others = process_cpu().saturating_sub(whole);
    (mean, micros(slow, 1), micros(own, STEP), micros(others, STEP))
}

/// Microseconds of CPU for each record until an index has them all, and how long that took.
async fn indexed(dir: &Path, log: &Log, records: u64) -> (f64, Duration) {
    let (begin, whole) = (Instant::now(), process_cpu());
    let path = dir.join("index.sqlite");
    let index = Index::start(&path, log.clone(), Arc::new(SystemClock)).expect("an index");
    assert!(index.caught_up(Duration::from_secs(3600)).await, "{} bytes behind", index.behind());
    (micros(process_cpu().saturating_sub(whole), records), begin.elapsed())
}

fn main() {
    let wanted = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1_000_000);
    let base = std::env::var_os("STRONGROOM_BENCH_DIR")
        .map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("a record has {} bytes", record(0).len());
    runtime.block_on(async {
        let log = Log::open(&dir.path().join("audit.jsonl"), Sync::Interval).expect("a log");
        let tree = Tree::open(&dir.path().join("audit"), &log, &[]).expect("a tree");
        let mut done = 0;
        while done < wanted {
            let (raw, raw_cpu) = bare(dir.path(), STEP / 10);
            let (mean, slow, own, all) = appended(&log, &tree, done).await;
            done += STEP;
            if done == STEP || done.is_multiple_of(wanted / 10) {
                println!(
                    "{done} records: append {mean:.2} us (99.9%: {slow:.1}), CPU {own:.2}; \
                     write(2) {raw:.2} us, CPU {raw_cpu:.2}; append / write {:.2}; \
                     process {all:.2} us CPU a record, {} MiB",
                    own / raw_cpu,
                    memory() / 1024
                );
            }
        }
        let begin = Instant::now();
        std::hint::black_box(tree.edge().root());
        println!("a root: {:.0} us", micros(begin.elapsed(), 1));
        tree.settle().expect("settled");
        drop(tree);
        let begin = Instant::now();
        let log = Log::open(&dir.path().join("audit.jsonl"), Sync::Interval).expect("a log");
        let tree = Tree::open(&dir.path().join("audit"), &log, &[]).expect("a tree");
        assert_eq!(tree.edge().size(), done);
        println!("opened again in {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
        let (cpu, span) = indexed(dir.path(), &log, done).await;
        let size = std::fs::metadata(dir.path().join("index.sqlite")).map_or(0, |m| m.len());
        println!(
            "indexed in {:.1} s: {cpu:.2} us CPU a record, {} bytes; {} MiB",
            span.as_secs_f64(),
            size / done,
            memory() / 1024
        );
    });
}
