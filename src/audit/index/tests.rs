use super::*;
use crate::audit::log::Sync;
use crate::clock::{DAY, SystemClock};
use std::os::unix::fs::FileExt;

const ACCOUNT: &str = "111122223333";

fn line(n: u64, time: &str, name: &str) -> Vec<u8> {
    let id = format!("{n:08x}-0000-4000-8000-000000000000");
    let request = format!("{n:08x}-1111-4000-8000-000000000000");
    format!(
        r#"{{"eventTime":"{time}","eventSource":"kms.amazonaws.com","eventName":"{name}","requestID":"{request}","eventID":"{id}","readOnly":true,"recipientAccountId":"{ACCOUNT}"}}"#
    )
    .into_bytes()
    .into_iter()
    .chain([b'\n'])
    .collect()
}

fn query<'a>(kind: Kind, value: &'a str, before: Option<Place>, limit: usize) -> Query<'a> {
    let (from, until) = (Time(0), Time(i64::MAX));
    Query { account: ACCOUNT, kind, value, from, until, before, limit }
}

fn start(dir: &Path) -> (Log, Index) {
    let log = Log::open(&dir.join("audit.jsonl"), Sync::Interval).expect("a log");
    let index = Index::start(&dir.join("index.sqlite"), log.clone(), Arc::new(SystemClock));
    (log, index.expect("an index"))
}

/// Now, and some days ago.
fn ago(days: i64) -> String {
    let stamp = jiff::Timestamp::from_millisecond(SystemClock.now().0 - days * DAY);
    stamp.expect("a time").strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn names(index: &Index, places: &[Place]) -> Vec<String> {
    let records = index.records(places.iter().map(|place| place.at)).expect("records");
    records.iter().map(|line| Event::read(line).expect("a record").event_name.to_string()).collect()
}

async fn settled(index: &Index) {
    assert!(index.caught_up(Duration::from_secs(20)).await, "{} bytes behind", index.behind());
}

#[tokio::test]
async fn lists_go_from_the_newest_record_to_the_oldest_page_by_page() {
    let dir = tempfile::tempdir().expect("a folder");
    let (log, index) = start(dir.path());
    for n in 0..10 {
        let name = if n % 2 == 0 { "Encrypt" } else { "Decrypt" };
        log.append_lines(&line(n, &ago(10 - i64::try_from(n).expect("small")), name))
            .expect("there");
    }
    settled(&index).await;
    let all = index.places(&query(Kind::Everything, "", None, 100)).expect("places");
    assert_eq!(all.len(), 10);
    assert!(all.is_sorted_by(|a, b| a.time > b.time));
    let first = index.places(&query(Kind::EventName, "Decrypt", None, 3)).expect("places");
    assert_eq!(names(&index, &first), ["Decrypt"; 3]);
    let rest = query(Kind::EventName, "Decrypt", first.last().copied(), 3);
    assert_eq!(index.places(&rest).expect("places").len(), 2);
    let other = Query { account: "444455556666", ..query(Kind::Everything, "", None, 100) };
    assert_eq!(index.places(&other).expect("places"), []);
    let [found] = &index.of_id("00000003-0000-4000-8000-000000000000").expect("lines")[..] else {
        panic!("one record has this id");
    };
    assert_eq!(index.of_id("00000003-1111-4000-8000-000000000000").expect("lines"), [&found[..]]);
    assert!(index.of_id("nonsense").expect("lines").is_empty());
}

#[tokio::test]
async fn what_is_older_than_ninety_days_is_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    {
        let (log, index) = start(dir.path());
        log.append_lines(&line(1, &ago(91), "Encrypt")).expect("there");
        log.append_lines(&line(2, &ago(89), "Decrypt")).expect("there");
        settled(&index).await;
    }
    let mut writer = Writer::open(&dir.path().join("index.sqlite")).expect("open").expect("ours");
    writer.prune(SystemClock.now()).expect("pruned");
    drop(writer);
    let (_log, index) = start(dir.path());
    settled(&index).await;
    let all = index.places(&query(Kind::Everything, "", None, 100)).expect("places");
    assert_eq!(names(&index, &all), ["Decrypt"]);
    assert!(index.of_id("00000001-0000-4000-8000-000000000000").expect("lines").is_empty());
}

#[tokio::test]
async fn an_index_that_is_damaged_or_of_another_log_is_made_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("index.sqlite");
    let spoil: [fn(&Path); 3] = [
        |index| {
            std::fs::write(index, "no database at all, and longer than a header has to be")
                .expect("written")
        },
        |index| std::fs::remove_file(index).expect("removed"),
        |index| {
            let log = index.with_file_name("audit.jsonl");
            let text = std::fs::read_to_string(&log).expect("a log");
            std::fs::write(log, text.replace("Encrypt", "Zncrypt")).expect("written");
        },
    ];
    for spoil in spoil {
        {
            std::fs::write(dir.path().join("audit.jsonl"), "").expect("an empty log");
            let (log, index) = start(dir.path());
            log.append_lines(&line(1, &ago(1), "Encrypt")).expect("there");
            settled(&index).await;
        }
        spoil(&path);
        let (_log, index) = start(dir.path());
        settled(&index).await;
        let all = index.places(&query(Kind::Everything, "", None, 100)).expect("places");
        assert_eq!(all.len(), 1);
        assert!(["Encrypt", "Zncrypt"].contains(&names(&index, &all)[0].as_str()));
        let other = if names(&index, &all)[0] == "Encrypt" { "Zncrypt" } else { "Encrypt" };
        let stale = index.places(&query(Kind::EventName, other, None, 100)).expect("places");
        assert_eq!(stale, [], "nothing is left of the old log");
    }
}

#[tokio::test]
async fn damage_that_shows_only_while_it_is_used_is_mended_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("index.sqlite");
    {
        let (log, index) = start(dir.path());
        log.append_lines(&line(1, &ago(1), "Encrypt")).expect("there");
        settled(&index).await;
    }
    // How far it has read can be seen still, and nothing else.
    let tables = rusqlite::Connection::open(&path).expect("a database");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name IN ('list', 'entry', 'id')";
    let mut roots = tables.prepare(sql).expect("a query");
    let roots: Vec<u32> =
        roots.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("pages");
    assert_eq!(roots.len(), 3);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
    for root in roots {
        file.write_all_at(&[0xa5; 4096], u64::from(root - 1) * 4096).expect("written");
    }
    let (_log, index) = start(dir.path());
    let all = || index.places(&query(Kind::Everything, "", None, 100));
    let began = Instant::now();
    while !all().is_ok_and(|places| names(&index, &places) == ["Encrypt"]) {
        assert!(began.elapsed() < RETRY * 4, "{:?}", all());
        tokio::time::sleep(PAUSE).await;
    }
}

/// What memory and tables find of the same records.
fn found(records: &[(i64, &[&str])], query: &Query<'_>) -> [Vec<Place>; 2] {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("index.sqlite");
    let mut writer = Writer::open(&path).expect("open").expect("ours");
    let mut fresh = Fresh::default();
    for (n, (time, arns)) in records.iter().enumerate() {
        let time = jiff::Timestamp::from_millisecond(*time).expect("a time").to_string();
        let resources: Vec<_> =
            arns.iter().map(|arn| serde_json::json!({"ARN": arn, "type": "T"})).collect();
        let line = serde_json::json!({"eventTime": time, "eventSource": "s", "eventName": "N",
            "eventID": "aa", "resources": resources, "recipientAccountId": ACCOUNT});
        assert!(fresh.add(line.to_string().as_bytes(), n as u64 * 100));
    }
    writer.add(&fresh, &Progress::default()).expect("written");
    let ordered = |mut places: Vec<Place>| {
        places.sort_unstable_by_key(|place| std::cmp::Reverse((place.time, place.at)));
        places.dedup();
        places.truncate(query.limit);
        places
    };
    let stored = Reader::open(&path).and_then(|tables| tables.places(query)).expect("places");
    [fresh.places(query), stored].map(ordered)
}

#[test]
fn memory_and_tables_find_the_same_by_arn_and_by_name() {
    const USER: &str = "arn:aws:iam::111122223333:user/eve";
    const ROLE: &str = "arn:aws:iam::111122223333:role/eve";
    let at = |time, at| Place { time: Time(time), at };
    // The second record stands behind one that came later; the last is a second older than all.
    let records: [(i64, &[&str]); 5] =
        [(5900, &[USER]), (5100, &[USER, ROLE]), (7000, &[ROLE]), (7000, &[USER]), (4999, &[USER])];
    for (value, limit, wanted) in [
        (USER, 9, vec![at(7000, 300), at(5900, 0), at(5100, 100), at(4999, 400)]),
        (USER, 2, vec![at(7000, 300), at(5900, 0)]),
        (ROLE, 9, vec![at(7000, 200), at(5100, 100)]),
        ("eve", 3, vec![at(7000, 300), at(7000, 200), at(5900, 0)]),
        ("ev", 9, vec![]),
    ] {
        let wanted = [wanted.clone(), wanted];
        assert_eq!(found(&records, &query(Kind::ResourceName, value, None, limit)), wanted);
    }
    let types = query(Kind::ResourceType, "T", Some(at(7000, 300)), 9);
    let wanted = vec![at(7000, 200), at(5900, 0), at(5100, 100), at(4999, 400)];
    assert_eq!(found(&records, &types), [wanted.clone(), wanted]);
    let second =
        Query { from: Time(5000), until: Time(6000), ..query(Kind::Everything, "", None, 9) };
    let wanted = vec![at(5900, 0), at(5100, 100)];
    assert_eq!(found(&records, &second), [wanted.clone(), wanted]);
}

#[tokio::test]
async fn what_was_in_memory_alone_is_read_from_the_log_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = Log::open(&dir.path().join("audit.jsonl"), Sync::Interval).expect("a log");
    let path = dir.path().join("index.sqlite");
    let killed = Index::start(&path, log.clone(), Arc::new(SystemClock)).expect("an index");
    log.append_lines(&line(1, &ago(1), "Encrypt")).expect("there");
    settled(&killed).await;
    // Nothing is in the tables yet when the next one starts.
    let next = Index::start(&path, log.clone(), Arc::new(SystemClock)).expect("an index");
    settled(&next).await;
    for index in [&killed, &next] {
        let all = index.places(&query(Kind::Everything, "", None, 100)).expect("places");
        assert_eq!(names(index, &all), ["Encrypt"]);
        assert_eq!(index.of_id("00000001-0000-4000-8000-000000000000").expect("lines").len(), 1);
    }
}
