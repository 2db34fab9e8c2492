//! Connections as this engine wants them, and SQLite's errors in the store's words.

use crate::store::migrate::{self, Migration};
use crate::store::{Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// How long a statement waits for a lock. Within one process only a checkpoint ever does.
pub(super) const LOCK_WAIT: Duration = Duration::from_millis(250);
/// Longest text, blob or row, in bytes.
const MAX_VALUE_BYTES: i32 = 1 << 20;
/// Prepared statements kept per connection; more than the program has.
const STATEMENTS: usize = 512;
/// "STRG": marks a database as this program's (PRAGMA application_id).
const APPLICATION_ID: i64 = 0x5354_5247;
/// Bytes of a page; fixed when the database is made.
pub(super) const PAGE_BYTES: u64 = 4096;

/// This VFS keeps locks and the WAL's index in the process's memory: no system call to begin or
/// end a read. It shuts other processes out, which the directory's lock does anyway. All
/// connections must use it, and open for writing, or they would not share it.
const VFS: &str = "unix-excl";

/// secure_delete overwrites what is deleted with zeros: a destroyed ciphertext shall not linger in
/// free pages. cell_size_check and trusted_schema=OFF are SQLite's advice for files that someone
/// may have tampered with.
const SET_UP: &str = "
    PRAGMA page_size = 4096;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
    PRAGMA secure_delete = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -4096;
    PRAGMA wal_autocheckpoint = 0;
";

/// The connection that writes. `max_pages` bounds the database file, `wal_bytes` what is kept of
/// the WAL after a checkpoint.
pub(super) fn writer(file: &Path, max_pages: Option<u64>, wal_bytes: u64) -> Result<Connection> {
    let connection = open(file)?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(from_sqlite)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::Unusable(format!(
            "`{}` can't have a write-ahead log: its file system does not support one",
            file.display()
        )));
    }
    let set = |name, value: u64| {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        connection.query_row(&format!("PRAGMA {name} = {value}"), [], |_| Ok(()))
    };
    set("journal_size_limit", wal_bytes).map_err(from_sqlite)?;
    if let Some(pages) = max_pages {
        set("max_page_count", pages).map_err(from_sqlite)?;
    }
    Ok(connection)
}

/// A connection that reads; SQLite itself refuses a write on it.
pub(super) fn reader(file: &Path) -> Result<Connection> {
    let connection = open(file)?;
    connection.execute_batch("PRAGMA query_only = ON").map_err(from_sqlite)?;
    Ok(connection)
}

fn open(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags_and_vfs(file, flags, VFS).map_err(from_sqlite)?;
    harden(&connection).map_err(from_sqlite)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(LOCK_WAIT)?;
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
    ] {
        connection.set_db_config(option, on)?;
    }
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 16),
        (Limit::SQLITE_LIMIT_COLUMN, 64),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 64),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 16),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 64),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 4096),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 8),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, value)?;
    }
    connection.execute_batch(SET_UP)
}

/// Brings the schema up to the last of `all`, in one transaction.
///
/// # Errors
/// [`Error::Unusable`] if the schema is newer, or the file is some other program's database.
pub(super) fn migrate(connection: &mut Connection, all: &'static [Migration]) -> Result<()> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id").map_err(from_sqlite)?;
    let tables = number("SELECT count(*) FROM sqlite_schema").map_err(from_sqlite)?;
    if application != APPLICATION_ID && (application != 0 || tables != 0) {
        return Err(Error::Unusable("the database is not one of strongroom's".to_owned()));
    }
    let found = number("PRAGMA user_version").map_err(from_sqlite)?;
    let steps = migrate::pending(all, found)?;
    let Some(&(latest, _)) = steps.last() else { return Ok(()) };
    let mut apply = || -> rusqlite::Result<()> {
        let transaction = connection.transaction()?;
        for (_, script) in steps {
            transaction.execute_batch(script)?;
        }
        transaction.pragma_update(None, "user_version", latest)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()
    };
    apply().map_err(from_sqlite)
}

/// SQLite's error as a condition of the store's. Never carries a bound value: SQLite's texts name
/// tables, columns and files only.
pub(super) fn from_sqlite(error: rusqlite::Error) -> Error {
    let rusqlite::Error::SqliteFailure(failure, _) = &error else {
        return match error {
            rusqlite::Error::InvalidColumnIndex(_) => Error::Internal("no such column"),
            rusqlite::Error::SqlInputError { .. } => Error::Internal("a statement with an error"),
            _ => Error::Internal("a statement put to a wrong use"),
        };
    };
    match failure.code {
        ErrorCode::DiskFull => Error::Full,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Error::Corrupt(error.to_string()),
        // Every write looks first: what stands in its way was put there by somebody else.
        ErrorCode::ConstraintViolation => Error::Corrupt("a constraint refused a row".to_owned()),
        ErrorCode::TooBig => Error::Internal("a value of more than 1 MiB"),
        ErrorCode::TypeMismatch | ErrorCode::ParameterOutOfRange | ErrorCode::ApiMisuse => {
            Error::Internal("a statement with a wrong argument")
        }
        // SQLITE_ERROR: the statement itself is wrong (or a migration's script).
        ErrorCode::Unknown => Error::Internal("a statement with an error"),
        _ => Error::Io(error.to_string()),
    }
}
