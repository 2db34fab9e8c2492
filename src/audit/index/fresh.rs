//! What was read of the log and is not in the tables yet.
//!
//! The log itself holds it safe: what is lost here is read again. So many records go into the
//! tables at once, which touches each list once for all of them.

use super::event::{Event, Kind, Start, name_in, start_of};
use super::{Place, Query};
use std::collections::HashMap;

/// Account, kind and value: what a list is of.
pub(super) type Key<'a> = (&'a str, u8, &'a str);

/// Records by what they are found by.
#[derive(Default)]
pub(super) struct Fresh {
    /// By account, kind (a character of its number) and value.
    lists: HashMap<String, Vec<Place>>,
    ids: Vec<Id>,
    key: String,
}

/// An id of a record.
#[derive(Clone, Copy)]
pub(super) struct Id {
    pub(super) start: Start,
    /// The day of its record.
    pub(super) day: i64,
    /// Where that stands.
    pub(super) at: u64,
}

impl Fresh {
    /// Whether nothing was read.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.lists.is_empty()
    }

    /// Takes a line in, which stands behind those that are there. Answers whether it is a record.
    pub(super) fn add(&mut self, line: &[u8], at: u64) -> bool {
        let event = Event::read(line).and_then(|event| Some((event.time()?, event)));
        let Some((time, event)) = event else { return false };
        let starts = [start_of(&event.id), start_of(&event.request_id)].into_iter().flatten();
        self.ids.extend(starts.map(|start| Id { start, day: time.day(), at }));
        if let Some(account) = event.account.as_deref() {
            let place = Place { time, at };
            for (kind, value) in event.listed() {
                self.push((account, kind, value), place);
            }
        }
        true
    }

    fn push(&mut self, (account, kind, value): (&str, Kind, &str), place: Place) {
        self.key.clear();
        self.key.push_str(account);
        self.key.push(char::from(kind as u8));
        self.key.push_str(value);
        match self.lists.get_mut(&self.key) {
            // Two resources of a record may be of one type.
            Some(list) if list.last() == Some(&place) => {}
            Some(list) => list.push(place),
            None => drop(self.lists.insert(self.key.clone(), vec![place])),
        }
    }

    /// Every list, sorted, and its places in the log's order.
    pub(super) fn lists(&self) -> Vec<(Key<'_>, &[Place])> {
        let lists = self.lists.iter();
        let mut lists: Vec<_> =
            lists.filter_map(|(key, list)| Some((parts(key)?, list.as_slice()))).collect();
        lists.sort_unstable_by_key(|(key, _)| *key);
        lists
    }

    /// Every id.
    pub(super) fn ids(&self) -> &[Id] {
        &self.ids
    }

    /// The places of what a query wants, in no order.
    pub(super) fn places(&self, query: &Query<'_>) -> Vec<Place> {
        let before = format!("{}{}", query.account, char::from(query.kind as u8));
        let wanted = |key: &str| {
            key.strip_prefix(&before).is_some_and(|value| {
                value == query.value
                    || query.kind == Kind::ResourceName && name_in(value) == query.value
            })
        };
        let lists = self.lists.iter().filter(|(key, _)| wanted(key));
        lists.flat_map(|(_, list)| list).copied().filter(|place| query.wants(*place)).collect()
    }

    /// The places of records that may have this id.
    pub(super) fn of_id(&self, id: &str) -> Vec<u64> {
        let start = start_of(id);
        self.ids.iter().filter(|id| Some(id.start) == start).map(|id| id.at).collect()
    }
}

/// The parts of a list's key.
fn parts(key: &str) -> Option<Key<'_>> {
    let (account, rest) = key.split_at(key.find(|c: char| c.is_ascii_control())?);
    Some((account, *rest.as_bytes().first()?, rest.get(1..)?))
}
