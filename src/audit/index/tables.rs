//! The index's tables.

use super::event::{Event, Kind, start_of};
use super::{Error, KEPT, Place, Query};
use crate::clock::Time;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::HashMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The form of the tables; another one is made anew.
const FORM: i64 = 1;
/// Lists whose ids are kept in memory.
const KNOWN: usize = 65_536;
/// Pages of 4 KiB kept in memory while writing: 32 MiB.
const PAGES: i64 = 8192;

/// How far the log has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes of the log that are in the index.
    pub(super) position: u64,
    /// Where the last line of them begins.
    pub(super) last: u64,
    /// SHA-256 of that line.
    pub(super) digest: Vec<u8>,
}

/// What writes the tables.
pub(super) struct Writer {
    connection: Connection,
    lists: HashMap<String, i64>,
}

impl Writer {
    /// Opens the file, making the tables if need be; none if it holds tables of another form.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        // For its owner's eyes; SQLite gives the files beside it the same mode.
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        options.open(path).map_err(|e| Error::io(path, e))?;
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // Lost commits are read from the log again.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", PAGES)?;
        let form = |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get(0));
        let mut found: i64 = form(&connection)?;
        if found == 0 {
            let making = connection.transaction()?;
            making.execute_batch(include_str!("schema.sql"))?;
            making.pragma_update(None, "user_version", FORM)?;
            making.commit()?;
            found = FORM;
        }
        Ok((found == FORM).then(|| Self { connection, lists: HashMap::new() }))
    }

    pub(super) fn progress(&self) -> Result<Progress, Error> {
        let sql = "SELECT position, last, digest FROM progress";
        let progress = self.connection.query_row(sql, [], |row| {
            Ok(Progress {
                position: unsigned(row.get(0)?),
                last: unsigned(row.get(1)?),
                digest: row.get(2)?,
            })
        });
        Ok(progress?)
    }

    /// Takes lines in, each with its place, and notes how far that is, all or none.
    pub(super) fn add<'l>(
        &mut self,
        lines: impl Iterator<Item = (u64, &'l [u8])>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let Self { connection, lists } = self;
        let adding = connection.transaction()?;
        if lists.len() > KNOWN {
            lists.clear();
        }
        let mut unread = 0_u64;
        for (place, line) in lines {
            let event = Event::read(line);
            let timed = event.as_ref().and_then(|event| Some((event, event.time()?)));
            let Some((event, time)) = timed else {
                unread += 1;
                continue;
            };
            // A list that is made in a transaction which fails does not count afterwards.
            if let Err(error) = add(&adding, lists, event, time, signed(place)) {
                lists.clear();
                return Err(error);
            }
        }
        adding.execute(
            "UPDATE progress SET position = ?1, last = ?2, digest = ?3",
            params![signed(progress.position), signed(progress.last), progress.digest],
        )?;
        adding.commit().inspect_err(|_| lists.clear())?;
        if unread > 0 {
            tracing::warn!(
                unread,
                "lines of the audit log are no records; look-ups pass over them"
            );
        }
        Ok(())
    }

    /// Drops what is older than [`KEPT`] days.
    pub(super) fn prune(&mut self, now: Time) -> Result<(), Error> {
        let cut = now.plus_days(-KEPT);
        self.connection.execute("DELETE FROM id WHERE day < ?1", [cut.day()])?;
        let ids: Vec<i64> = self
            .connection
            .prepare("SELECT id FROM list")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for some in ids.chunks(1024) {
            let pruning = self.connection.transaction()?;
            for id in some {
                let mut old =
                    pruning.prepare_cached("DELETE FROM entry WHERE list = ?1 AND time < ?2")?;
                if old.execute([*id, cut.0])? > 0 {
                    pruning.execute(
                        "DELETE FROM list WHERE id = ?1
                         AND NOT EXISTS (SELECT 1 FROM entry WHERE list = ?1)",
                        [*id],
                    )?;
                }
            }
            pruning.commit()?;
        }
        self.lists.clear();
        Ok(())
    }
}

fn add(
    adding: &Connection,
    lists: &mut HashMap<String, i64>,
    event: &Event<'_>,
    time: Time,
    place: i64,
) -> Result<(), Error> {
    let mut ids = adding.prepare_cached("INSERT OR IGNORE INTO id VALUES (?1, ?2, ?3)")?;
    for start in [start_of(&event.id), start_of(&event.request_id)].into_iter().flatten() {
        ids.execute([time.day(), start, place])?;
    }
    let Some(account) = event.account.as_deref() else { return Ok(()) };
    let mut entries = adding.prepare_cached("INSERT OR IGNORE INTO entry VALUES (?1, ?2, ?3)")?;
    for (kind, value) in event.listed() {
        let list = list(adding, lists, (account, kind, value))?;
        entries.execute([list, time.0, place])?;
    }
    Ok(())
}

/// The id of a list, which may be a new one.
fn list(
    adding: &Connection,
    lists: &mut HashMap<String, i64>,
    (account, kind, value): (&str, Kind, &str),
) -> Result<i64, Error> {
    let key = format!("{account} {} {value}", kind as u8);
    if let Some(id) = lists.get(&key) {
        return Ok(*id);
    }
    let id = match find(adding, account, kind, value)? {
        Some(id) => id,
        None => {
            let sql = "INSERT INTO list (account, kind, value) VALUES (?1, ?2, ?3)";
            adding.prepare_cached(sql)?.insert(params![account, kind as u8, value])?
        }
    };
    lists.insert(key, id);
    Ok(id)
}

fn find(
    connection: &Connection,
    account: &str,
    kind: Kind,
    value: &str,
) -> Result<Option<i64>, Error> {
    let sql = "SELECT id FROM list WHERE account = ?1 AND kind = ?2 AND value = ?3";
    let mut finding = connection.prepare_cached(sql)?;
    Ok(finding.query_row(params![account, kind as u8, value], |row| row.get(0)).optional()?)
}

/// What reads the tables, beside the writer.
pub(super) struct Reader(Connection);

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        Ok(Self(connection))
    }

    /// The places of a list, newest first.
    pub(super) fn places(&self, query: &Query<'_>) -> Result<Vec<Place>, Error> {
        let Some(list) = find(&self.0, query.account, query.kind, query.value)? else {
            return Ok(Vec::new());
        };
        let before = query.before.unwrap_or(Place { time: query.until, at: 0 });
        let mut reading = self.0.prepare(
            "SELECT time, place FROM entry
             WHERE list = ?1 AND time >= ?2 AND (time, place) < (?3, ?4)
             ORDER BY time DESC, place DESC LIMIT ?5",
        )?;
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let found = reading
            .query_map([list, query.from.0, before.time.0, signed(before.at), limit], |row| {
                Ok(Place { time: Time(row.get(0)?), at: unsigned(row.get(1)?) })
            })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// The places of records that may have this id, as an event's or as a request's, newest first.
    pub(super) fn of_id(&self, id: &str, now: Time) -> Result<Vec<u64>, Error> {
        let Some(start) = start_of(id) else { return Ok(Vec::new()) };
        let sql = "SELECT place FROM id WHERE day = ?1 AND start = ?2 ORDER BY place DESC LIMIT 8";
        let mut reading = self.0.prepare(sql)?;
        let mut places = Vec::new();
        // A clock that was set back leaves days that are yet to come.
        for day in (0..=KEPT + 1).map(|back| now.day() + 1 - back) {
            let found = reading.query_map([day, start], |row| row.get(0).map(unsigned))?;
            for place in found {
                places.push(place?);
            }
        }
        Ok(places)
    }
}

fn signed(place: u64) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

fn unsigned(place: i64) -> u64 {
    u64::try_from(place).unwrap_or(0)
}
