//! What the store costs: point reads in one snapshot, and writes by 64 callers against SQLite
//! itself with 64 writes a transaction. Run with `cargo bench --bench store`.
//!
//! Every figure comes as CPU time too, which a busy machine disturbs less than it does the clock.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark may panic, and prints"
)]

use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use strongroom::store::sqlite::{Options, Sqlite};
use strongroom::store::{Error, Store, Tx, Value, one};

const TABLES: [&str; 2] = [
    "CREATE TABLE bench_secret (name TEXT PRIMARY KEY, meta BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE bench_version (name TEXT, id TEXT, body BLOB NOT NULL, PRIMARY KEY (name, id))
     STRICT",
];
const SECRET: &str = "INSERT INTO bench_secret VALUES (?1, ?2)";
const VERSION: &str = "INSERT INTO bench_version VALUES (?1, ?2, ?3)";
const READ_SECRET: &str = "SELECT meta FROM bench_secret WHERE name = ?1";
const READ_VERSION: &str = "SELECT body FROM bench_version WHERE name = ?1 AND id = ?2";
const ID: &str = "6a7c1f7e-3f2b-4a55-9d5e-1f8f8d1f0c77";
const META: [u8; 300] = [1; 300];
const BODY: [u8; 1200] = [2; 1200];
const SPAN: Duration = Duration::from_secs(3);

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

fn micros(span: Duration, count: f64) -> f64 {
    span.as_secs_f64() * 1e6 / count
}

fn name(n: i64) -> String {
    format!("team/service/database-{n:08}")
}

fn insert(tx: &mut dyn Tx, n: i64) -> Result<(), Error> {
    let name = name(n);
    tx.execute(SECRET, &[(&name).into(), Value::Blob(&META)])?;
    tx.execute(VERSION, &[(&name).into(), ID.into(), Value::Blob(&BODY)])?;
    Ok(())
}

fn read(store: &Store, name: &str, queries: usize) -> usize {
    let outcome = store.read::<_, Error>(|tx| {
        let mut bytes = 0;
        if queries > 0 {
            bytes += one(tx, READ_SECRET, &[name.into()], |row| Ok(row.blob(0)?.len()))?
                .unwrap_or_default();
        }
        if queries > 1 {
            let args = [name.into(), ID.into()];
            bytes +=
                one(tx, READ_VERSION, &args, |row| Ok(row.blob(0)?.len()))?.unwrap_or_default();
        }
        Ok(bytes)
    });
    outcome.expect("a read")
}

fn reads(store: &Store, secrets: i64, queries: usize, threads: usize) {
    let names: Arc<Vec<String>> = Arc::new((0..secrets).map(name).collect());
    let handles: Vec<_> = (0..threads)
        .map(|thread| {
            let (store, names) = (store.clone(), Arc::clone(&names));
            std::thread::spawn(move || {
                let (mut done, mut at) = (0_u64, thread * 7919);
                let (begin, cpu) = (Instant::now(), thread_cpu());
                while begin.elapsed() < SPAN / 2 {
                    for _ in 0..1000 {
                        at = (at + 7_368_787) % names.len();
                        std::hint::black_box(read(&store, &names[at], queries));
                    }
                    done += 1000;
                }
                (done as f64, begin.elapsed(), thread_cpu() - cpu)
            })
        })
        .collect();
    let spent: Vec<_> = handles.into_iter().map(|h| h.join().expect("a reader")).collect();
    let mean = |each: &dyn Fn(&(f64, Duration, Duration)) -> f64| {
        spent.iter().map(each).sum::<f64>() / spent.len() as f64
    };
    let wall = mean(&|&(done, wall, _)| micros(wall, done));
    let cpu = mean(&|&(done, _, cpu)| micros(cpu, done));
    println!(
        "{secrets} secrets, {queries} rows, {threads} threads: {wall:.2} us, CPU {cpu:.2} us a read"
    );
}

fn fill(runtime: &tokio::runtime::Runtime, store: &Store, range: std::ops::Range<i64>) {
    for start in range.clone().step_by(1000) {
        let end = (start + 1000).min(range.end);
        let outcome = runtime.block_on(
            store.write::<_, Error>(move |tx| (start..end).try_for_each(|n| insert(tx, n))),
        );
        outcome.expect("filling");
    }
}

fn grouped_writes(runtime: &tokio::runtime::Runtime, store: &Store, from: i64) -> f64 {
    let next = Arc::new(AtomicI64::new(from));
    let (begin, cpu) = (Instant::now(), process_cpu());
    let before = store.commits();
    runtime.block_on(async {
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let (store, next) = (store.clone(), Arc::clone(&next));
                tokio::spawn(async move {
                    while begin.elapsed() < SPAN {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        store.write::<_, Error>(move |tx| insert(tx, n)).await.expect("a write");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("a caller");
        }
    });
    let wrote = (next.load(Ordering::Relaxed) - from) as f64;
    let rate = wrote / begin.elapsed().as_secs_f64();
    let commits = (store.commits() - before) as f64;
    let cpu = micros(process_cpu() - cpu, wrote);
    let size = wrote / commits;
    println!("store: {rate:.0} writes/s, CPU {cpu:.1} us a write, {size:.1} a commit");
    rate
}

fn raw_writes(dir: &Path) -> f64 {
    let connection = Connection::open(dir.join("raw.db")).expect("a database");
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        .expect("settings");
    TABLES.iter().for_each(|sql| connection.execute_batch(sql).expect("a table"));
    let (begin, cpu, mut n) = (Instant::now(), process_cpu(), 0_i64);
    while begin.elapsed() < SPAN {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
        for _ in 0..64 {
            let name = name(n);
            let mut secret = connection.prepare_cached(SECRET).expect("a statement");
            secret.execute((&name, &META[..])).expect("a row");
            let mut version = connection.prepare_cached(VERSION).expect("a statement");
            version.execute((&name, ID, &BODY[..])).expect("a row");
            n += 1;
        }
        connection.execute_batch("COMMIT").expect("commit");
    }
    let rate = n as f64 / begin.elapsed().as_secs_f64();
    let cpu = micros(process_cpu() - cpu, n as f64);
    println!("raw:   {rate:.0} writes/s, CPU {cpu:.1} us a write, 64 a commit");
    rate
}

fn main() {
    let base = std::env::var_os("STRONGROOM_BENCH_DIR")
        .map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let engine = Sqlite::open(Options::new(dir.path().join("data"))).expect("the store");
    let store = Store::new(Arc::new(engine));
    for sql in TABLES {
        runtime.block_on(store.write::<_, Error>(move |tx| tx.execute(sql, &[]))).expect("a table");
    }
    fill(&runtime, &store, 0..1000);
    for (queries, threads) in [(0, 1), (1, 1), (2, 1), (2, 2)] {
        reads(&store, 1000, queries, threads);
    }
    let mut ratios = Vec::new();
    for round in 0..3 {
        let raw_dir = tempfile::tempdir_in(dir.path()).expect("a directory");
        let raw = raw_writes(raw_dir.path());
        ratios.push(grouped_writes(&runtime, &store, (round + 1) * 10_000_000) / raw);
    }
    println!("store / raw: {ratios:.2?}");
    fill(&runtime, &store, 1000..100_000);
    reads(&store, 100_000, 2, 1);
    reads(&store, 100_000, 2, 2);
}
