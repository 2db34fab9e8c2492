//! Many places in one row. Numbers are big-endian:
//!
//! ```text
//! entry.packed   for each record: milliseconds of its second (2 bytes), bytes behind `place` (4)
//! id.packed      for each id: its second to fifth byte (4), bytes of its record behind `place` (4)
//! ```

use super::Place;
use crate::clock::Time;

/// A row under construction: records of one list and second, or ids of one day and first byte.
#[derive(Default)]
pub(super) struct Packed {
    /// Where the first record stands.
    pub(super) place: u64,
    pub(super) bytes: Vec<u8>,
}

impl Packed {
    /// Adds a record of this list and second, which stands behind those that are there.
    pub(super) fn push_record(&mut self, record: Place) {
        let [p1, p2] = u16::try_from(record.time.0.rem_euclid(1000)).unwrap_or(0).to_be_bytes();
        let [b1, b2, b3, b4] = self.behind(record.at);
        self.bytes.extend_from_slice(&[p1, p2, b1, b2, b3, b4]);
    }

    /// Adds an id of this day and first byte, of a record behind those that are there.
    pub(super) fn push_id(&mut self, rest: [u8; 4], at: u64) {
        let behind = self.behind(at);
        self.bytes.extend_from_slice(&rest);
        self.bytes.extend_from_slice(&behind);
    }

    /// Bytes from the first place to this one: what goes into the tables at once is some 32 MiB of
    /// the log.
    fn behind(&mut self, at: u64) -> [u8; 4] {
        if self.bytes.is_empty() {
            self.place = at;
        }
        u32::try_from(at.saturating_sub(self.place)).unwrap_or(u32::MAX).to_be_bytes()
    }
}

/// The records in a row.
pub(super) fn entries(second: i64, place: u64, packed: &[u8]) -> impl Iterator<Item = Place> {
    packed.as_chunks::<6>().0.iter().map(move |&[t1, t2, b1, b2, b3, b4]| {
        let part = i64::from(u16::from_be_bytes([t1, t2]));
        let at = place.saturating_add(u32::from_be_bytes([b1, b2, b3, b4]).into());
        Place { time: Time(second.saturating_mul(1000).saturating_add(part)), at }
    })
}

/// The places of an id's records in a row.
pub(super) fn places(rest: [u8; 4], place: u64, packed: &[u8]) -> impl Iterator<Item = u64> {
    let all = packed.as_chunks::<8>().0.iter();
    all.filter_map(move |&[r1, r2, r3, r4, b1, b2, b3, b4]| {
        let behind = u32::from_be_bytes([b1, b2, b3, b4]);
        ([r1, r2, r3, r4] == rest).then(|| place.saturating_add(behind.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let records = [(-1, 7), (1999, 8), (1000, u64::from(u32::MAX))]
            .map(|(time, at)| Place { time: Time(time), at });
        let mut packed = Packed::default();
        records.iter().for_each(|record| packed.push_record(*record));
        let found: Vec<_> = entries(1, packed.place, &packed.bytes).collect();
        assert_eq!(found[0], Place { time: Time(1999), at: 7 }, "the second is the row's");
        assert_eq!(found[1..], records[1..]);

        let mut packed = Packed::default();
        packed.push_id([1, 2, 3, 4], 5);
        packed.push_id([1, 2, 3, 5], 6);
        packed.push_id([1, 2, 3, 4], 700);
        let found = |rest| places(rest, packed.place, &packed.bytes).collect::<Vec<_>>();
        assert_eq!(found([1, 2, 3, 4]), [5, 700]);
        assert_eq!(found([1, 2, 3, 5]), [6]);
        assert!(found([0, 2, 3, 4]).is_empty());
    }
}
