//! The index's tables.

use super::event::{Kind, name_in, start_of};
use super::fresh::{Fresh, Key};
use super::packed::{self, Packed};
use super::{Error, KEPT, Place, Query};
use crate::clock::Time;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The form of the tables; another one is made anew.
const FORM: i64 = 2;
/// Records that may have an id and are looked at, at most.
const SAME_START: usize = 64;
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
pub(super) struct Writer(Connection);

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
        Ok((found == FORM).then_some(Self(connection)))
    }

    pub(super) fn progress(&self) -> Result<Progress, Error> {
        let sql = "SELECT position, last, digest FROM progress";
        let progress = self.0.query_row(sql, [], |row| {
            Ok(Progress {
                position: unsigned(row.get(0)?),
                last: unsigned(row.get(1)?),
                digest: row.get(2)?,
            })
        });
        Ok(progress?)
    }

    /// Takes in what was read, and notes how far that is, all or nothing.
    pub(super) fn add(&mut self, fresh: &Fresh, progress: &Progress) -> Result<(), Error> {
        let adding = self.0.transaction()?;
        add_lists(&adding, fresh)?;
        add_ids(&adding, fresh)?;
        adding.execute(
            "UPDATE progress SET position = ?1, last = ?2, digest = ?3",
            params![signed(progress.position), signed(progress.last), progress.digest],
        )?;
        Ok(adding.commit()?)
    }

    /// Drops what is older than [`KEPT`] days.
    pub(super) fn prune(&mut self, now: Time) -> Result<(), Error> {
        let cut = now.plus_days(-KEPT);
        for first in 0..=u8::MAX {
            let mut old = self.0.prepare_cached("DELETE FROM id WHERE first = ?1 AND day < ?2")?;
            old.execute(params![first, cut.day()])?;
        }
        let ids: Vec<i64> = self
            .0
            .prepare("SELECT id FROM list")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for some in ids.chunks(1024) {
            let pruning = self.0.transaction()?;
            for id in some {
                let mut old =
                    pruning.prepare_cached("DELETE FROM entry WHERE list = ?1 AND second < ?2")?;
                if old.execute([*id, cut.seconds()])? > 0 {
                    pruning.execute(
                        "DELETE FROM list WHERE id = ?1
                         AND NOT EXISTS (SELECT 1 FROM entry WHERE list = ?1)",
                        [*id],
                    )?;
                }
            }
            pruning.commit()?;
        }
        Ok(())
    }
}

fn add_lists(adding: &Connection, fresh: &Fresh) -> Result<(), Error> {
    let mut insert = adding.prepare("INSERT INTO entry VALUES (?1, ?2, ?3, ?4)")?;
    for (key, places) in fresh.lists() {
        let list = list(adding, key)?;
        let mut seconds = BTreeMap::<i64, Packed>::new();
        for place in places {
            seconds.entry(place.time.seconds()).or_default().push_record(*place);
        }
        for (second, row) in seconds {
            insert.execute(params![list, second, signed(row.place), row.bytes])?;
        }
    }
    Ok(())
}

/// The id of a list, which may be a new one.
fn list(adding: &Connection, (account, kind, value): Key<'_>) -> Result<i64, Error> {
    let sql = "SELECT id FROM list WHERE account = ?1 AND kind = ?2 AND value = ?3";
    let mut finding = adding.prepare_cached(sql)?;
    let found = finding.query_row(params![account, kind, value], |row| row.get(0)).optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    let name = (kind == Kind::ResourceName as u8).then(|| name_in(value));
    let sql = "INSERT INTO list (account, kind, value, name) VALUES (?1, ?2, ?3, ?4)";
    Ok(adding.prepare_cached(sql)?.insert(params![account, kind, value, name])?)
}

fn add_ids(adding: &Connection, fresh: &Fresh) -> Result<(), Error> {
    let mut rows = BTreeMap::<(u8, i64), Packed>::new();
    for id in fresh.ids() {
        rows.entry((id.start.first, id.day)).or_default().push_id(id.start.rest, id.at);
    }
    let mut insert = adding.prepare("INSERT INTO id VALUES (?1, ?2, ?3, ?4)")?;
    for ((first, day), row) in rows {
        insert.execute(params![first, day, signed(row.place), row.bytes])?;
    }
    Ok(())
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

    /// The newest places of what a query wants, in no order.
    pub(super) fn places(&self, query: &Query<'_>) -> Result<Vec<Place>, Error> {
        // Several resources may go by one name.
        let mut finding = self.0.prepare(
            "SELECT id FROM list WHERE account = ?1 AND kind = ?2 AND value = ?3
             UNION SELECT id FROM list WHERE account = ?1 AND kind = ?2 AND name = ?3",
        )?;
        let given = params![query.account, query.kind as u8, query.value];
        let lists: Vec<i64> =
            finding.query_map(given, |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut found = Vec::new();
        for list in lists {
            self.newest(list, query, &mut found)?;
        }
        Ok(found)
    }

    /// The newest places of a list: as many as are wanted, and what else their last
    /// second has.
    fn newest(&self, list: i64, query: &Query<'_>, found: &mut Vec<Place>) -> Result<(), Error> {
        let mut reading = self.0.prepare_cached(
            "SELECT second, place, packed FROM entry
             WHERE list = ?1 AND second BETWEEN ?2 AND ?3 ORDER BY second DESC",
        )?;
        let wanted = found.len().saturating_add(query.limit);
        let mut last = i64::MAX;
        let mut rows = reading.query([list, query.from.seconds(), query.end().time.seconds()])?;
        while let Some(row) = rows.next()? {
            let second = row.get(0)?;
            if second != last && found.len() >= wanted {
                break;
            }
            last = second;
            let packed = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let entries = packed::entries(second, unsigned(row.get(1)?), packed);
            found.extend(entries.filter(|place| query.wants(*place)));
        }
        Ok(())
    }

    /// The places of records that may have this id, as an event's or as a request's.
    pub(super) fn of_id(&self, id: &str) -> Result<Vec<u64>, Error> {
        let Some(start) = start_of(id) else { return Ok(Vec::new()) };
        let sql = "SELECT place, packed FROM id WHERE first = ?1 ORDER BY day DESC, place DESC";
        let mut reading = self.0.prepare(sql)?;
        let mut rows = reading.query([start.first])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let packed = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            found.extend(packed::places(start.rest, unsigned(row.get(0)?), packed));
            if found.len() >= SAME_START {
                break;
            }
        }
        Ok(found)
    }
}

fn signed(place: u64) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

fn unsigned(place: i64) -> u64 {
    u64::try_from(place).unwrap_or(0)
}
