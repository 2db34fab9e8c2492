//! Audit records of changes, committed with the change, on their way to the audit log.

use super::records::Rows;
use super::{Result, many};

impl Rows<'_> {
    /// Puts the record of a change beside the change.
    pub fn put_record(&mut self, record: &[u8]) -> Result<()> {
        self.tx().execute("INSERT INTO outbox (record) VALUES (?1)", &[record.into()])?;
        Ok(())
    }

    /// Up to `limit` records after `seq`, in the order of their commits.
    pub fn records_after(&mut self, seq: i64, limit: i64) -> Result<Vec<(i64, Vec<u8>)>> {
        many(
            self.tx(),
            "SELECT seq, record FROM outbox WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            &[seq.into(), limit.into()],
            |row| Ok((row.int(0)?, row.blob(1)?.to_vec())),
        )
    }

    /// Takes records away that are safe in the log.
    pub fn delete_records(&mut self, up_to: i64) -> Result<()> {
        self.tx().execute("DELETE FROM outbox WHERE seq <= ?1", &[up_to.into()])?;
        Ok(())
    }
}
