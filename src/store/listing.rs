//! Lists of secrets, page by page along an index, so that a list of any length costs a page.

use super::records::Rows;
use super::secrets::Secret;
use super::{Error, Result, Row, Value};

/// What a list of secrets is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// When they were made.
    Created,
    /// When they last changed.
    Changed,
    /// The day of their last read; never read comes first.
    Accessed,
    /// Their names, byte by byte.
    Name,
}

/// A place in a list: where one secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In an order of numbers: the number and, among equals, the row.
    Number(i64, i64),
    /// In the order of names.
    Name(String),
}

/// Which part of a list is wanted.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Whose secrets.
    pub account: String,
    /// Sorted by what.
    pub order: Order,
    /// Whether the last comes first.
    pub descending: bool,
    /// The place after which to begin; none means the beginning.
    pub after: Option<Place>,
    /// The most rows to look at.
    pub limit: i64,
}

/// A secret in a list.
pub struct Listed {
    /// The secret.
    pub secret: Secret,
    /// The day of its last read, days since 1970.
    pub accessed: Option<i64>,
    /// Where it stands in the list.
    pub place: Place,
}

impl Rows<'_> {
    /// Hands the secrets of a list to `each`, until it answers `false` or the limit is reached.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a row whose columns say something else than its document.
    pub fn list_secrets(
        &mut self,
        listing: &Listing,
        mut each: impl FnMut(Listed) -> Result<bool>,
    ) -> Result<()> {
        let (order, account) = (listing.order, listing.account.as_str());
        let sql = statement(order, listing.descending);
        let first = if listing.descending {
            (i64::MAX, i64::MAX, "\u{10ffff}")
        } else {
            (i64::MIN, i64::MIN, "")
        };
        let (number, uid, name) = match &listing.after {
            None => first,
            Some(Place::Number(number, uid)) => (*number, *uid, ""),
            Some(Place::Name(name)) => (0, 0, name.as_str()),
        };
        let limit = Value::from(listing.limit);
        let by_number = [account.into(), number.into(), uid.into(), limit];
        let by_name = [account.into(), name.into(), limit];
        let args: &[Value<'_>] = if order == Order::Name { &by_name } else { &by_number };
        self.each(sql, args, |secret: Secret, row| each(listed(order, account, secret, row)?))
    }
}

/// One query for each order and direction: doc, mac, uid, accessed. A row value does not reach into an
/// index over an expression, so the order of reads bounds the expression by itself too.
fn statement(order: Order, descending: bool) -> &'static str {
    match (order, descending) {
        (Order::Created, false) => {
            "SELECT doc, mac, uid, accessed, created FROM secret
             WHERE account = ?1 AND (created, uid) > (?2, ?3) ORDER BY created, uid LIMIT ?4"
        }
        (Order::Created, true) => {
            "SELECT doc, mac, uid, accessed, created FROM secret
             WHERE account = ?1 AND (created, uid) < (?2, ?3)
             ORDER BY created DESC, uid DESC LIMIT ?4"
        }
        (Order::Changed, false) => {
            "SELECT doc, mac, uid, accessed, changed FROM secret
             WHERE account = ?1 AND (changed, uid) > (?2, ?3) ORDER BY changed, uid LIMIT ?4"
        }
        (Order::Changed, true) => {
            "SELECT doc, mac, uid, accessed, changed FROM secret
             WHERE account = ?1 AND (changed, uid) < (?2, ?3)
             ORDER BY changed DESC, uid DESC LIMIT ?4"
        }
        (Order::Accessed, false) => {
            "SELECT doc, mac, uid, accessed, coalesce(accessed, -1) FROM secret
             WHERE account = ?1 AND coalesce(accessed, -1) >= ?2
                   AND (coalesce(accessed, -1), uid) > (?2, ?3)
             ORDER BY coalesce(accessed, -1), uid LIMIT ?4"
        }
        (Order::Accessed, true) => {
            "SELECT doc, mac, uid, accessed, coalesce(accessed, -1) FROM secret
             WHERE account = ?1 AND coalesce(accessed, -1) <= ?2
                   AND (coalesce(accessed, -1), uid) < (?2, ?3)
             ORDER BY coalesce(accessed, -1) DESC, uid DESC LIMIT ?4"
        }
        (Order::Name, false) => {
            "SELECT doc, mac, uid, accessed FROM secret
             WHERE account = ?1 AND name > ?2 ORDER BY name LIMIT ?3"
        }
        (Order::Name, true) => {
            "SELECT doc, mac, uid, accessed FROM secret
             WHERE account = ?1 AND name < ?2 ORDER BY name DESC LIMIT ?3"
        }
    }
}

/// Takes a row apart. The document counts; a column that says something else would let a list run
/// in circles or leave secrets out.
fn listed(order: Order, account: &str, secret: Secret, row: &dyn Row) -> Result<Listed> {
    let uid = row.int(2)?;
    let accessed = if row.is_null(3)? { None } else { Some(row.int(3)?) };
    let (place, agrees) = match order {
        Order::Name => (Place::Name(secret.name.clone()), true),
        Order::Accessed => (Place::Number(row.int(4)?, uid), true),
        Order::Created => (Place::Number(row.int(4)?, uid), row.int(4)? == secret.created.0),
        Order::Changed => (Place::Number(row.int(4)?, uid), row.int(4)? == secret.changed.0),
    };
    if agrees && secret.uid == uid && secret.account == account {
        Ok(Listed { secret, accessed, place })
    } else {
        Err(Error::Corrupt("a document stands in a foreign row".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::records::{Records, RowMac};
    use super::super::sqlite::{Options, Sqlite};
    use super::*;
    use std::sync::Arc;

    fn records(dir: &std::path::Path) -> Records {
        let engine = Sqlite::open(Options::new(dir.join("data"))).expect("a database");
        Records::new(Store::new(Arc::new(engine)), RowMac::new(&[1; 32]), 10)
    }

    fn secret(uid: i64, account: &str, name: &str, created: i64, changed: i64) -> Secret {
        serde_json::from_value(serde_json::json!({
            "uid": uid, "account": account, "name": name, "suffix": "AbCdEf", "created": created,
            "changed": changed, "stages": [], "versions": 0, "prune_after": 0, "revision": 1,
        }))
        .expect("a secret")
    }

    /// Every name of a list, gathered in pages of `size`.
    fn names(records: &Records, order: Order, descending: bool, size: usize) -> Vec<String> {
        let account = "111122223333".to_owned();
        let mut listing = Listing { account, order, descending, after: None, limit: 1000 };
        let mut all = Vec::new();
        loop {
            let mut page = Vec::new();
            let read = records.read(|rows| {
                rows.list_secrets(&listing, |listed| {
                    page.push(listed);
                    Ok(page.len() < size)
                })
            });
            read.expect("a page");
            let Some(last) = page.last() else { return all };
            listing.after = Some(last.place.clone());
            all.extend(page.into_iter().map(|listed| listed.secret.name));
        }
    }

    #[tokio::test]
    async fn every_order_lists_each_secret_of_the_account_once_in_pages_of_any_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path());
        records
            .write(|rows| {
                rows.put_secret(&secret(5, "111122223333", "b", 1, 9))?;
                rows.put_secret(&secret(3, "111122223333", "c", 1, 8))?;
                rows.put_secret(&secret(4, "111122223333", "a", 2, 8))?;
                rows.put_secret(&secret(1, "444455556666", "x", 1, 1))?;
                rows.note_access(4, "v", 20_000)
            })
            .await
            .expect("written");
        let expected = [
            (Order::Created, "cba"),
            (Order::Changed, "cab"),
            (Order::Accessed, "cba"),
            (Order::Name, "abc"),
        ];
        for (order, expected) in expected {
            for size in 1..4 {
                assert_eq!(names(&records, order, false, size).concat(), expected, "{order:?}");
                let backwards: String = expected.chars().rev().collect();
                assert_eq!(names(&records, order, true, size).concat(), backwards, "{order:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_column_that_says_something_else_than_its_document_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let records = records(dir.path());
        let altered = records.write(|rows| {
            rows.put_secret(&secret(5, "111122223333", "b", 1, 9))?;
            rows.tx().execute("UPDATE secret SET created = 7", &[])?;
            Ok::<_, Error>(())
        });
        altered.await.expect("written");
        let account = "111122223333".to_owned();
        let order = Order::Created;
        let listing = Listing { account, order, descending: false, after: None, limit: 10 };
        let read = records.read(|rows| rows.list_secrets(&listing, |_| Ok(true)));
        assert!(matches!(read, Err(Error::Corrupt(_))));
    }
}
