//! Statements and rows over one connection.

use super::connection::from_sqlite;
use crate::store::{Error, Result, Row, Tx, Value};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection};

/// A reader's statements: one snapshot, from the first query on.
pub(super) struct ReadTx<'c> {
    connection: &'c Connection,
    begun: bool,
}

impl<'c> ReadTx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, begun: false }
    }

    /// Gives the snapshot up.
    pub(super) fn end(self) -> Result<()> {
        if self.begun { run(self.connection, "COMMIT") } else { Ok(()) }
    }
}

impl Tx for ReadTx<'_> {
    fn execute(&mut self, _: &'static str, _: &[Value<'_>]) -> Result<usize> {
        Err(Error::Internal("a change inside a read"))
    }

    fn query(
        &mut self,
        sql: &'static str,
        args: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<bool>,
    ) -> Result<()> {
        if !self.begun {
            run(self.connection, "BEGIN")?;
            self.begun = true;
        }
        rows(&mut prepare(self.connection, sql, args)?, each)
    }
}

/// One job's statements inside the group's transaction.
///
/// The savepoint comes with the first statement that can change something, so a job that only
/// looks and then refuses costs none.
pub(super) struct WriteTx<'c> {
    connection: &'c Connection,
    changed: bool,
    failure: Option<Error>,
}

impl<'c> WriteTx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, changed: false, failure: None }
    }

    /// Keeps the job's changes; answers whether it tried to make any.
    pub(super) fn keep(self) -> Result<bool> {
        if self.changed {
            run(self.connection, "RELEASE job")?;
        }
        Ok(self.changed)
    }

    /// Undoes the job's changes alone.
    pub(super) fn undo(self) -> Result<()> {
        if self.changed {
            run(self.connection, "ROLLBACK TO job")?;
            run(self.connection, "RELEASE job")?;
        }
        Ok(())
    }

    /// A failure of the database's that the transaction can't be trusted after, whatever the job
    /// made of it. SQLite may have rolled back of its own accord, which leaves autocommit on.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        let lost = || {
            let gone = self.connection.is_autocommit();
            gone.then(|| Error::Io("the transaction was rolled back".to_owned()))
        };
        self.failure.take().or_else(lost)
    }

    fn attempt<T>(
        &mut self,
        sql: &'static str,
        args: &[Value<'_>],
        step: impl FnOnce(&mut CachedStatement<'_>) -> Result<T>,
    ) -> Result<T> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let connection = self.connection;
        let outcome = prepare(connection, sql, args).and_then(|mut statement| {
            if !self.changed && !statement.readonly() {
                run(connection, "SAVEPOINT job")?;
                self.changed = true;
            }
            step(&mut statement)
        });
        if let Err(error @ (Error::Full | Error::Io(_))) = &outcome {
            self.failure = Some(error.clone());
        }
        outcome
    }
}

impl Tx for WriteTx<'_> {
    fn execute(&mut self, sql: &'static str, args: &[Value<'_>]) -> Result<usize> {
        self.attempt(sql, args, |statement| statement.raw_execute().map_err(from_sqlite))
    }

    fn query(
        &mut self,
        sql: &'static str,
        args: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<bool>,
    ) -> Result<()> {
        self.attempt(sql, args, |statement| rows(statement, each))
    }
}

/// Runs a statement without arguments, prepared once per connection.
pub(super) fn run(connection: &Connection, sql: &'static str) -> Result<()> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sqlite)?;
    statement.raw_execute().map(drop).map_err(from_sqlite)
}

fn prepare<'c>(
    connection: &'c Connection,
    sql: &'static str,
    args: &[Value<'_>],
) -> Result<CachedStatement<'c>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sqlite)?;
    if statement.parameter_count() != args.len() {
        return Err(Error::Internal("a statement with a wrong number of arguments"));
    }
    for (position, value) in args.iter().enumerate() {
        statement.raw_bind_parameter(position + 1, value).map_err(from_sqlite)?;
    }
    Ok(statement)
}

fn rows(
    statement: &mut CachedStatement<'_>,
    each: &mut dyn FnMut(&dyn Row) -> Result<bool>,
) -> Result<()> {
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        if !each(&Columns(row))? {
            break;
        }
    }
    Ok(())
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A row in SQLite's own buffer.
struct Columns<'r, 's>(&'r rusqlite::Row<'s>);

impl Columns<'_, '_> {
    fn at(&self, column: usize) -> Result<ValueRef<'_>> {
        self.0.get_ref(column).map_err(from_sqlite)
    }
}

impl Row for Columns<'_, '_> {
    fn int(&self, column: usize) -> Result<i64> {
        match self.at(column)? {
            ValueRef::Integer(number) => Ok(number),
            _ => Err(not_a(column, "an integer")),
        }
    }

    fn text(&self, column: usize) -> Result<&str> {
        match self.at(column)? {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_err(|_| not_a(column, "UTF-8")),
            _ => Err(not_a(column, "text")),
        }
    }

    fn blob(&self, column: usize) -> Result<&[u8]> {
        match self.at(column)? {
            ValueRef::Blob(bytes) => Ok(bytes),
            _ => Err(not_a(column, "a blob")),
        }
    }

    fn is_null(&self, column: usize) -> Result<bool> {
        Ok(matches!(self.at(column)?, ValueRef::Null))
    }
}

fn not_a(column: usize, kind: &str) -> Error {
    Error::Corrupt(format!("column {column} is not {kind}"))
}
