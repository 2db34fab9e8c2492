#![expect(
    clippy::disallowed_methods,
    clippy::let_underscore_must_use,
    reason = "a test may wait, and try in vain"
)]

use super::*;
use crate::store::{Row, Store, Value, Verdict, many, one};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

const INSERT: &str = "INSERT INTO t (n, b) VALUES (?1, ?2)";
const INSERT_PAIR: &str = "INSERT INTO u (n) VALUES (?1)";
const SELECT: &str = "SELECT b FROM t WHERE n = ?1";
const COUNT: &str = "SELECT count(*) FROM t";

const SCHEMA: &[Migration] = &[(
    1,
    "CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB) STRICT;
     CREATE TABLE u (n INTEGER PRIMARY KEY) STRICT;",
)];

fn options(dir: &Path) -> Options {
    Options { readers: 4, scans: 2, ..Options::new(dir.join("data")) }
}

fn open(options: Options) -> Arc<Sqlite> {
    Arc::new(Sqlite::open_with(options, SCHEMA).unwrap())
}

fn unusable(outcome: Result<Sqlite>) -> String {
    match outcome {
        Err(Error::Unusable(text)) => text,
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("opened"),
    }
}

fn count(engine: &Sqlite, sql: &'static str) -> i64 {
    let mut found = None;
    engine
        .read(&mut |tx| {
            found = one(tx, sql, &[], |row| row.int(0))?;
            Ok(())
        })
        .unwrap();
    found.unwrap()
}

/// A job made of a closure; its answer goes into a channel.
struct Scripted<F> {
    run: F,
    answer: mpsc::Sender<Result<()>>,
}

impl<F: FnMut(&mut dyn Tx) -> Verdict + Send> Job for Scripted<F> {
    fn run(&mut self, tx: &mut dyn Tx) -> Verdict {
        (self.run)(tx)
    }
    fn done(self: Box<Self>, outcome: Result<()>) {
        self.answer.send(outcome).unwrap();
    }
}

fn submit(
    engine: &Sqlite,
    run: impl FnMut(&mut dyn Tx) -> Verdict + Send + 'static,
) -> mpsc::Receiver<Result<()>> {
    let (answer, told) = mpsc::channel();
    engine.submit(Box::new(Scripted { run, answer }));
    told
}

fn insert(tx: &mut dyn Tx, n: i64) -> Verdict {
    match tx.execute(INSERT, &[n.into(), Value::Null]) {
        Ok(_) => Verdict::Keep,
        Err(error) => Verdict::Abort(error),
    }
}

/// Holds the writer until told, so that what is submitted meanwhile becomes one group.
fn hold_writer(engine: &Sqlite) -> (Arc<Barrier>, mpsc::Receiver<Result<()>>) {
    let (entered, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (inside, release) = (Arc::clone(&entered), Arc::clone(&go));
    let mut first = true;
    let told = submit(engine, move |_| {
        if std::mem::take(&mut first) {
            inside.wait();
            release.wait();
        }
        Verdict::Keep
    });
    entered.wait();
    (go, told)
}

#[test]
fn a_refused_job_is_undone_alone_and_its_group_stands() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    let (go, _) = hold_writer(&engine);
    let before = submit(&engine, |tx| insert(tx, 1));
    let refused = submit(&engine, |tx| {
        insert(tx, 2);
        Verdict::Undo
    });
    let after = submit(&engine, |tx| insert(tx, 3));
    go.wait();
    for told in [before, refused, after] {
        assert_eq!(told.recv().unwrap(), Ok(()));
    }
    let mut found = Vec::new();
    engine
        .read(&mut |tx| {
            found = many(tx, "SELECT n FROM t ORDER BY n", &[], |row| row.int(0))?;
            Ok(())
        })
        .unwrap();
    assert_eq!(found, [1, 3]);
    assert_eq!(engine.commits(), 1, "the jobs did not share one commit");
}

#[test]
fn a_panicking_job_fails_alone_and_the_writer_lives() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    let (go, _) = hold_writer(&engine);
    let before = submit(&engine, |tx| insert(tx, 1));
    let panics = submit(&engine, |tx| {
        insert(tx, 2);
        panic!("a fault in a job, on purpose");
    });
    let after = submit(&engine, |tx| insert(tx, 3));
    go.wait();
    assert_eq!(before.recv().unwrap(), Ok(()));
    assert!(matches!(panics.recv().unwrap(), Err(Error::Internal(_))));
    assert_eq!(after.recv().unwrap(), Ok(()));
    assert_eq!(count(&engine, COUNT), 2);
}

#[test]
fn a_job_that_aborts_gets_its_error_and_the_others_are_repeated_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    let (go, _) = hold_writer(&engine);
    let before = submit(&engine, |tx| insert(tx, 1));
    let aborts = submit(&engine, |tx| {
        insert(tx, 2);
        Verdict::Abort(Error::Io("on purpose".to_owned()))
    });
    let after = submit(&engine, |tx| insert(tx, 3));
    go.wait();
    assert_eq!(before.recv().unwrap(), Ok(()));
    assert_eq!(aborts.recv().unwrap(), Err(Error::Io("on purpose".to_owned())));
    assert_eq!(after.recv().unwrap(), Ok(()));
    assert_eq!(count(&engine, COUNT), 2);
}

#[test]
fn commits_count_before_the_answer_and_only_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    assert_eq!(submit(&engine, |_| Verdict::Keep).recv().unwrap(), Ok(()));
    assert_eq!(submit(&engine, |_| Verdict::Undo).recv().unwrap(), Ok(()));
    assert_eq!(engine.commits(), 0);
    for n in 1..=20_i64 {
        let seen = Arc::clone(&engine);
        let (tell, told) = mpsc::channel();
        struct Watch(Arc<Sqlite>, i64, mpsc::Sender<u64>);
        impl Job for Watch {
            fn run(&mut self, tx: &mut dyn Tx) -> Verdict {
                insert(tx, self.1)
            }
            fn done(self: Box<Self>, outcome: Result<()>) {
                outcome.unwrap();
                self.2.send(self.0.commits()).unwrap();
            }
        }
        engine.submit(Box::new(Watch(seen, n, tell)));
        assert_eq!(told.recv().unwrap(), n.cast_unsigned());
    }
}

#[test]
fn a_full_queue_answers_busy_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(Options { queue: 2, ..options(dir.path()) });
    let (go, _) = hold_writer(&engine);
    let waiting = [submit(&engine, |tx| insert(tx, 1)), submit(&engine, |tx| insert(tx, 2))];
    let busy = submit(&engine, |tx| insert(tx, 3));
    assert_eq!(busy.try_recv().unwrap(), Err(Error::Busy));
    go.wait();
    for told in waiting {
        assert_eq!(told.recv().unwrap(), Ok(()));
    }
    assert_eq!(count(&engine, COUNT), 2);
}

#[test]
fn a_read_sees_one_snapshot_whatever_is_written_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    submit(&engine, |tx| insert(tx, 1)).recv().unwrap().unwrap();
    engine
        .read(&mut |tx| {
            let first = one(tx, COUNT, &[], |row| row.int(0))?;
            submit(&engine, |tx| insert(tx, 2)).recv().unwrap().unwrap();
            let second = one(tx, COUNT, &[], |row| row.int(0))?;
            assert_eq!((first, second), (Some(1), Some(1)));
            Ok(())
        })
        .unwrap();
    assert_eq!(count(&engine, COUNT), 2);
}

#[test]
fn a_read_changes_nothing_by_either_door() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    let mut tried = Vec::new();
    engine
        .read(&mut |tx| {
            let args = [Value::Int(1), Value::Null];
            tried.push(tx.execute(INSERT, &args).is_err());
            let returning = "INSERT INTO t (n, b) VALUES (?1, ?2) RETURNING n";
            tried.push(tx.query(returning, &args, &mut |_| Ok(true)).is_err());
            Ok(())
        })
        .unwrap();
    assert_eq!(tried, [true, true]);
    assert_eq!(count(&engine, COUNT), 0);
}

#[test]
fn a_read_that_panics_gives_its_connection_and_its_snapshot_back() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(Options { readers: 1, scans: 1, ..options(dir.path()) });
    let panicking = Arc::clone(&engine);
    let outcome = std::thread::spawn(move || {
        panicking.read(&mut |tx| {
            one(tx, COUNT, &[], |row| row.int(0))?;
            panic!("a fault in a read, on purpose");
        })
    });
    assert!(outcome.join().is_err());
    submit(&engine, |tx| insert(tx, 1)).recv().unwrap().unwrap();
    assert_eq!(count(&engine, COUNT), 1);
}

#[test]
fn columns_are_borrowed_and_a_column_of_another_type_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    engine
        .read(&mut |tx| {
            let sql = "SELECT 7, 'text', x'00ff', NULL, CAST(x'ff' AS TEXT), 1.5";
            tx.query(sql, &[], &mut |row| {
                assert_eq!(row.int(0), Ok(7));
                assert_eq!(row.text(1), Ok("text"));
                assert_eq!(row.blob(2), Ok(&[0, 0xff][..]));
                assert_eq!(row.is_null(3), Ok(true));
                assert_eq!(row.is_null(0), Ok(false));
                let damaged = |outcome: Result<()>, column: usize| {
                    let Err(Error::Corrupt(text)) = outcome else { panic!("{outcome:?}") };
                    assert!(text.contains(&format!("column {column} ")), "{text}");
                };
                damaged(row.int(1).map(drop), 1);
                damaged(row.int(3).map(drop), 3);
                damaged(row.int(5).map(drop), 5);
                damaged(row.text(2).map(drop), 2);
                damaged(row.text(4).map(drop), 4);
                damaged(row.blob(1).map(drop), 1);
                damaged(row.blob(3).map(drop), 3);
                assert!(matches!(row.int(6), Err(Error::Internal(_))));
                Ok(true)
            })
        })
        .unwrap();
}

#[test]
fn mistakes_of_the_program_s_are_internal_faults_that_undo_their_job_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    let (tell, told) = mpsc::channel();
    let job = submit(&engine, move |tx| {
        let one = Value::Int(1);
        tell.send(tx.execute(INSERT, &[one])).unwrap();
        tell.send(tx.execute("INSERT INTO nowhere VALUES (1)", &[])).unwrap();
        tell.send(tx.execute("INSERT INTO t (n) VALUES (8) RETURNING n", &[])).unwrap();
        tell.send(tx.execute(INSERT, &[one, Value::Blob(&vec![0; (1 << 20) + 1])])).unwrap();
        Verdict::Keep
    });
    for what in ["arguments", "table", "rows from execute", "too long"] {
        assert!(matches!(told.recv().unwrap(), Err(Error::Internal(_))), "{what}");
    }
    assert_eq!(job.recv().unwrap(), Ok(()));
    submit(&engine, |tx| insert(tx, 5)).recv().unwrap().unwrap();
}

/// An appliance that had just been made could not open its database: a job that was answered
/// still held it, and closed it on the writer's thread when everybody else had let go.
#[tokio::test(flavor = "multi_thread")]
async fn an_answered_job_holds_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let store = Store::new(open(options(dir.path())));
        for _ in 0..20 {
            let held = Arc::new(());
            let inside = Arc::clone(&held);
            let job = move |_: &mut dyn Tx| Ok::<_, Error>(Arc::strong_count(&inside));
            assert_eq!(store.write(job).await, Ok(2));
            assert_eq!(Arc::strong_count(&held), 1);
        }
        let inside = store.clone();
        store.write::<_, Error>(move |_| Ok(inside.commits())).await.unwrap();
        drop(store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_writes_reads_and_scans_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(open(options(dir.path())));
    let wrote = store
        .write::<_, Error>(|tx| tx.execute(INSERT, &[1.into(), Value::Blob(b"ciphertext")]))
        .await;
    assert_eq!(wrote, Ok(1));
    let twice = store.write::<_, Error>(|tx| tx.execute(INSERT, &[1.into(), Value::Null])).await;
    assert!(matches!(twice, Err(Error::Corrupt(_))));
    let blob = |tx: &mut dyn Tx| one(tx, SELECT, &[1.into()], |row| Ok(row.blob(0)?.to_vec()));
    assert_eq!(store.read(blob), Ok(Some(b"ciphertext".to_vec())));
    let scan = |store: Store| async move { store.scan(blob).await };
    let scans: Vec<_> = (0..20).map(|_| tokio::spawn(scan(store.clone()))).collect();
    for scan in scans {
        assert_eq!(scan.await.unwrap(), Ok(Some(b"ciphertext".to_vec())));
    }
    assert_eq!(store.commits(), 1);
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(options(dir.path()));
    let second = Sqlite::open_with(options(dir.path()), SCHEMA);
    assert_eq!(second.err(), Some(Error::InUse(dir.path().join("data").display().to_string())));
    drop(first);
    drop(open(options(dir.path())));
}

#[test]
fn what_is_made_is_private_and_what_others_can_reach_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let engine = open(options(dir.path()));
    submit(&engine, |tx| insert(tx, 1)).recv().unwrap().unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for name in ["strongroom.db", "strongroom.db-wal", "lock"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    drop(engine);
    std::fs::write(data.join("strongroom.db-wal"), "").unwrap();
    let cases = [
        ("strongroom.db", 0o640, "chmod 600 "),
        ("strongroom.db", 0o602, "chmod 600 "),
        ("strongroom.db-wal", 0o604, "chmod 600 "),
        ("", 0o750, "chmod 700 "),
        ("", 0o707, "chmod 700 "),
    ];
    for (name, bad, advice) in cases {
        let path = if name.is_empty() { data.clone() } else { data.join(name) };
        let good = if name.is_empty() { 0o700 } else { 0o600 };
        let set = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        set(bad);
        let text = unusable(Sqlite::open_with(options(dir.path()), SCHEMA));
        assert!(text.contains(&format!("{advice}{}", path.display())), "{text}");
        set(good);
    }
    let data = data.join("strongroom.db-wal");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(count(&open(options(dir.path())), COUNT), 1);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = options(dir.path());
    for bad in [
        Options { readers: 0, ..good.clone() },
        Options { scans: 5, ..good.clone() },
        Options { group: 0, ..good.clone() },
        Options { queue: 0, ..good.clone() },
        Options { wal_bytes: 0, ..good.clone() },
        Options { max_bytes: Some(1), ..good.clone() },
    ] {
        unusable(Sqlite::open_with(bad, SCHEMA));
    }
}

#[test]
fn a_file_that_is_no_database_is_damage_and_another_program_s_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(options(dir.path())));
    let file = dir.path().join("data/strongroom.db");
    std::fs::write(&file, vec![b'x'; 8192]).unwrap();
    let outcome = Sqlite::open_with(options(dir.path()), SCHEMA);
    assert!(matches!(outcome, Err(Error::Corrupt(_))), "{:?}", outcome.err());
    std::fs::write(&file, "").unwrap();
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("CREATE TABLE somebodys (x)").unwrap();
    drop(other);
    let text = unusable(Sqlite::open_with(options(dir.path()), SCHEMA));
    assert!(text.contains("not one of strongroom's"), "{text}");
}

#[test]
fn damage_inside_the_file_is_named_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    for n in 0..200 {
        submit(&engine, move |tx| {
            tx.execute(INSERT, &[n.into(), Value::Blob(&[7; 500])]).unwrap();
            Verdict::Keep
        });
    }
    drop(engine);
    let file = dir.path().join("data/strongroom.db");
    let mut bytes = std::fs::read(&file).unwrap();
    assert!(bytes.len() > 20 * 4096);
    for page in bytes.chunks_mut(4096).skip(3) {
        page[..64].fill(0xa5);
    }
    std::fs::write(&file, bytes).unwrap();
    let engine = open(options(dir.path()));
    let outcome =
        engine.read(&mut |tx| one(tx, "SELECT max(length(b)) FROM t", &[], |_| Ok(())).map(drop));
    assert!(matches!(outcome, Err(Error::Corrupt(_))), "{outcome:?}");
}

fn schema_of(options: Options, migrations: &'static [Migration]) -> Vec<(String, String)> {
    let engine = Sqlite::open_with(options, migrations).unwrap();
    let mut found = Vec::new();
    engine
        .read(&mut |tx| {
            let sql = "SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name";
            let pair = |row: &dyn Row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
            found = many(tx, sql, &[], pair)?;
            Ok(())
        })
        .unwrap();
    found
}

#[test]
fn every_earlier_version_migrates_to_the_schema_of_a_fresh_database() {
    let fresh = tempfile::tempdir().unwrap();
    let wanted = schema_of(options(fresh.path()), migrate::MIGRATIONS);
    assert!(!wanted.is_empty());
    for steps in 0..=migrate::MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let earlier = schema_of(options(dir.path()), &migrate::MIGRATIONS[..steps]);
        assert_eq!(earlier == wanted, steps == migrate::MIGRATIONS.len(), "from step {steps}");
        assert_eq!(schema_of(options(dir.path()), migrate::MIGRATIONS), wanted, "step {steps}");
    }
}

#[test]
fn migrations_apply_all_or_none_and_keep_the_rows() {
    const TWO: &[Migration] = &[SCHEMA[0], (2, "ALTER TABLE t ADD COLUMN c INTEGER;")];
    const BROKEN: &[Migration] = &[SCHEMA[0], TWO[1], (3, "CREATE TABLE v (x) STRICT;")];
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    submit(&engine, |tx| insert(tx, 1)).recv().unwrap().unwrap();
    drop(engine);
    let before = schema_of(options(dir.path()), SCHEMA);
    assert!(Sqlite::open_with(options(dir.path()), BROKEN).is_err());
    assert_eq!(schema_of(options(dir.path()), SCHEMA), before, "half a migration stayed");
    let engine = Sqlite::open_with(options(dir.path()), TWO).unwrap();
    assert_eq!(count(&engine, "SELECT count(*) FROM t WHERE c IS NULL"), 1);
}

#[test]
fn a_newer_schema_is_refused() {
    const NEWER: &[Migration] = &[SCHEMA[0], (2, "CREATE TABLE v (x INTEGER) STRICT;")];
    let dir = tempfile::tempdir().unwrap();
    drop(Sqlite::open_with(options(dir.path()), NEWER).unwrap());
    let text = unusable(Sqlite::open_with(options(dir.path()), SCHEMA));
    assert!(text.contains("schema version 2") && text.contains("up to 1"), "{text}");
}

#[test]
fn a_full_database_says_so_keeps_nothing_half_written_and_recovers_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(Options { max_bytes: Some(1 << 20), ..options(dir.path()) });
    let big = |n: i64| {
        submit(&engine, move |tx| {
            let first = tx.execute(INSERT_PAIR, &[n.into()]);
            let second = tx.execute(INSERT, &[n.into(), Value::Blob(&[1; 100_000])]);
            match first.and(second) {
                Ok(_) => Verdict::Keep,
                Err(error) => Verdict::Abort(error),
            }
        })
    };
    let mut kept = 0;
    while big(kept).recv().unwrap() == Ok(()) {
        kept += 1;
        assert!(kept < 12, "1 MiB never filled up");
    }
    assert!(kept > 5);
    // A group in which the big jobs fail and the small one fits.
    let (go, _) = hold_writer(&engine);
    let (one, small, two) = (big(100), submit(&engine, |tx| insert(tx, 1000)), big(101));
    go.wait();
    assert_eq!(one.recv().unwrap(), Err(Error::Full));
    assert_eq!(small.recv().unwrap(), Ok(()));
    assert_eq!(two.recv().unwrap(), Err(Error::Full));
    // A job that takes no notice of the failure is not kept either.
    let careless = submit(&engine, |tx| {
        let _ = tx.execute(INSERT_PAIR, &[500.into()]);
        let _ = tx.execute(INSERT, &[500.into(), Value::Blob(&[1; 100_000])]);
        let _ = tx.execute(INSERT_PAIR, &[501.into()]);
        Verdict::Keep
    });
    assert_eq!(careless.recv().unwrap(), Err(Error::Full));
    assert_eq!(count(&engine, "SELECT count(*) FROM u"), kept);
    assert_eq!(count(&engine, COUNT), kept + 1);
    let delete = submit(&engine, |tx| {
        tx.execute("DELETE FROM t WHERE n < 3", &[]).unwrap();
        Verdict::Keep
    });
    assert_eq!(delete.recv().unwrap(), Ok(()));
    assert_eq!(big(200).recv().unwrap(), Ok(()));
}

#[test]
fn the_log_stays_bounded_under_load_and_readers_and_empties_when_idle() {
    const LIMIT: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let engine = open(Options { wal_bytes: LIMIT, ..options(dir.path()) });
    let log = || std::fs::metadata(dir.path().join("data/strongroom.db-wal")).unwrap().len();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    count(&engine, COUNT);
                }
            })
        })
        .collect();
    let mut longest = 0;
    for n in 0..200 {
        let told = submit(&engine, move |tx| {
            tx.execute(INSERT, &[n.into(), Value::Blob(&[3; 50_000])]).unwrap();
            Verdict::Keep
        });
        told.recv().unwrap().unwrap();
        longest = longest.max(log());
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    assert!(longest > LIMIT / 2, "10 MB went through a log of {longest} bytes");
    assert!(longest < 3 * LIMIT, "the log grew to {longest} bytes");
    let patience = Instant::now() + Duration::from_secs(20);
    while log() > 0 {
        assert!(Instant::now() < patience, "the log still has {} bytes", log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn close_finishes_what_was_taken_and_refuses_what_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(options(dir.path()));
    let taken: Vec<_> = (0..100).map(|n| submit(&engine, move |tx| insert(tx, n))).collect();
    engine.close();
    for told in taken {
        assert_eq!(told.try_recv().unwrap(), Ok(()));
    }
    let late = submit(&engine, |tx| insert(tx, 1000));
    assert!(matches!(late.try_recv().unwrap(), Err(Error::Unusable(_))));
    assert!(matches!(engine.read(&mut |_| Ok(())), Err(Error::Unusable(_))));
    assert!(!dir.path().join("data/strongroom.db-wal").exists(), "the log was left behind");
    drop(engine);
    assert_eq!(count(&open(options(dir.path())), COUNT), 100);
}

/// Runs one of the ignored tests below in a process of its own, with `dir` in its environment.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    // A write beyond the limit on file sizes shall fail, not kill.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture"]);
    command.arg(format!("{}::{test}", module_path!().split_once("::").unwrap().1));
    command.env("STRONGROOM_TEST_DIR", dir).stdin(Stdio::null());
    command
}

fn child_dir() -> PathBuf {
    std::env::var_os("STRONGROOM_TEST_DIR").expect("started by its parent test").into()
}

#[test]
#[ignore = "the child of nothing_acknowledged_is_lost_when_the_process_is_killed"]
fn child_that_writes_until_killed() {
    let engine = open(options(&child_dir()));
    let first = count(&engine, "SELECT coalesce(max(n), 0) FROM t") + 1;
    println!();
    let writers: Vec<_> = (0..4)
        .map(|lane| {
            let engine = Arc::clone(&engine);
            std::thread::spawn(move || {
                for n in (first + lane..).step_by(4) {
                    let told = submit(&engine, move |tx| {
                        tx.execute(INSERT, &[n.into(), Value::Blob(&[9; 3000])]).unwrap();
                        tx.execute(INSERT_PAIR, &[n.into()]).unwrap();
                        Verdict::Keep
                    });
                    told.recv().unwrap().unwrap();
                    let mut out = std::io::stdout().lock();
                    out.write_all(format!("acknowledged {n}\n").as_bytes()).unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..50_u32 {
        let mut child = child("child_that_writes_until_killed", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines =
            BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let number = |line: String| line.strip_prefix("acknowledged ")?.parse::<i64>().ok();
        acknowledged.push(lines.by_ref().find_map(number).expect("the child wrote nothing"));
        let moment = u64::from(random(round) % 30_000);
        std::thread::sleep(Duration::from_micros(moment));
        child.kill().unwrap();
        acknowledged.extend(lines.filter_map(number));
        child.wait().unwrap();
        let engine = open(options(dir.path()));
        engine
            .read(&mut |tx| {
                for &n in &acknowledged {
                    let found = one(tx, SELECT, &[n.into()], |row| Ok(row.blob(0)? == [9; 3000]))?;
                    assert_eq!(found, Some(true), "round {round} lost {n}");
                }
                let halves = "SELECT count(*) FROM t FULL JOIN u ON t.n = u.n
                              WHERE t.n IS NULL OR u.n IS NULL";
                assert_eq!(one(tx, halves, &[], |row| row.int(0))?, Some(0), "half a job");
                let check = |row: &dyn Row| Ok(row.text(0)? == "ok");
                assert_eq!(one(tx, "PRAGMA integrity_check", &[], check)?, Some(true));
                Ok(())
            })
            .unwrap();
    }
    assert!(acknowledged.len() > 100, "only {} writes in 50 rounds", acknowledged.len());
}

/// A moment that differs from run to run.
fn random(round: u32) -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(round);
    (hasher.finish() >> 32) as u32
}

#[test]
#[ignore = "the child of a_disk_that_refuses_writes_fails_them_and_service_returns_with_it"]
fn child_with_a_limit_on_its_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let dir = child_dir();
    let engine = open(options(&dir));
    let write = |n: i64| {
        let told = submit(&engine, move |tx| {
            tx.execute(INSERT, &[n.into(), Value::Blob(&[5; 60_000])]).unwrap();
            Verdict::Keep
        });
        told.recv().unwrap()
    };
    assert_eq!(write(0), Ok(()));
    let whole = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(300_000), ..whole }).unwrap();
    let mut kept = 1;
    while write(kept) == Ok(()) {
        kept += 1;
        assert!(kept < 100, "the limit never bit");
    }
    // Several at once: COMMIT fails for all of them, and all of them hear of it.
    let (go, _) = hold_writer(&engine);
    let group: Vec<_> = (1000..1005)
        .map(|n| {
            submit(&engine, move |tx| {
                tx.execute(INSERT, &[n.into(), Value::Blob(&[5; 60_000])]).unwrap();
                Verdict::Keep
            })
        })
        .collect();
    go.wait();
    for told in group {
        assert!(matches!(told.recv().unwrap(), Err(Error::Io(_) | Error::Full)));
    }
    assert_eq!(count(&engine, COUNT), kept, "a failed write shows, or a kept one is gone");
    setrlimit(Resource::Fsize, whole).unwrap();
    assert_eq!(write(kept), Ok(()));
    assert_eq!(count(&engine, COUNT), kept + 1);
    drop(engine);
    assert_eq!(count(&open(options(&dir)), COUNT), kept + 1);
}

#[test]
fn a_disk_that_refuses_writes_fails_them_and_service_returns_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let output = child("child_with_a_limit_on_its_files", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}
