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

/// One query for each order and direction: doc, mac, uid, accessed.
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
             WHERE account = ?1 AND (coalesce(accessed, -1), uid) > (?2, ?3)
             ORDER BY coalesce(accessed, -1), uid LIMIT ?4"
        }
        (Order::Accessed, true) => {
            "SELECT doc, mac, uid, accessed, coalesce(accessed, -1) FROM secret
             WHERE account = ?1 AND (coalesce(accessed, -1), uid) < (?2, ?3)
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
