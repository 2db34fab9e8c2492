//! One field of `cron(...)`: from text to a set of numbers.

/// Numbers below 64, as bits.
pub(super) type Set = u64;

/// Whether a number is in a set.
pub(super) fn has(set: Set, number: i8) -> bool {
    bit(number).is_some_and(|bit| set & bit != 0)
}

/// The set of one number; none for a number that is out of the range of sets.
pub(super) fn bit(number: i8) -> Option<Set> {
    1_u64.checked_shl(u32::try_from(number).ok()?)
}

/// A number of one or two digits.
pub(super) fn number(text: &str) -> Option<i8> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// What a field may hold.
pub(super) struct Field {
    /// Its name in AWS's documentation.
    pub(super) name: &'static str,
    first: i8,
    last: i8,
    /// Names of its values from `first` on, or none.
    names: &'static [&'static str],
}

pub(super) const HOUR: Field = Field { name: "Hours", first: 0, last: 23, names: &[] };
pub(super) const DATE: Field = Field { name: "Day-of-month", first: 1, last: 31, names: &[] };
pub(super) const MONTH: Field = Field {
    name: "Month",
    first: 1,
    last: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
pub(super) const WEEKDAY: Field = Field {
    name: "Day-of-week",
    first: 1,
    last: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
};

impl Field {
    /// A list: items with commas between them.
    pub(super) fn list(&self, text: &str) -> Option<Set> {
        text.split(',').try_fold(0, |set, item| Some(set | self.item(item)?))
    }

    /// One item: `*`, a value, a range, or any of them with a step. `/8` is `*/8`; `4/12` goes on to
    /// the end of the field.
    pub(super) fn item(&self, item: &str) -> Option<Set> {
        let Some((base, step)) = item.split_once('/') else {
            let (first, last) = self.range(item)?;
            return Some(every(first, last, 1));
        };
        let step = number(step).filter(|step| *step > 0)?;
        let (first, last) = match base {
            "" => (self.first, self.last),
            _ if base.contains('-') => self.range(base)?,
            "*" => (self.first, self.last),
            _ => (self.value(base)?, self.last),
        };
        Some(every(first, last, step))
    }

    fn range(&self, text: &str) -> Option<(i8, i8)> {
        if text == "*" {
            return Some((self.first, self.last));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (self.value(first)?, self.value(last)?);
        (first <= last).then_some((first, last))
    }

    /// A value: a number within the bounds, or a name.
    pub(super) fn value(&self, text: &str) -> Option<i8> {
        self.named(text)
            .or_else(|| number(text).filter(|number| (self.first..=self.last).contains(number)))
    }

    /// A value by its name.
    pub(super) fn named(&self, text: &str) -> Option<i8> {
        (self.first..=self.last).zip(self.names).find(|(_, name)| **name == text).map(|(n, _)| n)
    }
}

/// Each `step`th number from `first` to `last`.
fn every(first: i8, last: i8, step: i8) -> Set {
    (first..=last)
        .filter(|number| (number - first) % step == 0)
        .filter_map(bit)
        .fold(0, |set, bit| set | bit)
}
