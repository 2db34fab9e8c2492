//! Numbers, moments, networks and bytes as conditions compare them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use std::cmp::Ordering;
use std::net::{IpAddr, Ipv6Addr};

/// A decimal number, exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Digits before the point, no leading zeros.
    whole: Box<str>,
    /// Digits after the point, no trailing zeros.
    fraction: Box<str>,
}

impl Decimal {
    /// Reads `-12.50`, `+3`, `.5`, `1e3`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.contains(['e', 'E']) {
            let number: f64 = text.parse().ok().filter(|n: &f64| n.is_finite())?;
            return Self::plain(&number.to_string());
        }
        Self::plain(text)
    }

    fn plain(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
        if !all_digits || whole.len() + fraction.len() == 0 {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let zero = whole.is_empty() && fraction.is_empty();
        Some(Self { negative: negative && !zero, whole: whole.into(), fraction: fraction.into() })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |n: &Self, m: &Self| {
            let whole = n.whole.len().cmp(&m.whole.len()).then_with(|| n.whole.cmp(&m.whole));
            whole.then_with(|| n.fraction.cmp(&m.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => size(self, other),
            (true, true) => size(other, self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Nanoseconds since 1970, of a moment in one of W3C's forms of ISO 8601
/// (<https://www.w3.org/TR/NOTE-datetime>) or of seconds since 1970. Four digits are a year. A time
/// of day without a zone is UTC.
pub(super) fn moment(text: &str) -> Option<i128> {
    const SECOND: i128 = 1_000_000_000;
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number && text.len() != 4 {
        return text.parse::<i64>().ok().map(|seconds| i128::from(seconds) * SECOND);
    }
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Some(stamp.as_nanosecond());
    }
    let civil = match text.len() {
        4 => {
            format!("{text}-01-01").parse::<Date>().ok()?.to_datetime(jiff::civil::Time::midnight())
        }
        7 => format!("{text}-01").parse::<Date>().ok()?.to_datetime(jiff::civil::Time::midnight()),
        _ => text.parse::<DateTime>().ok()?,
    };
    Some(TimeZone::UTC.to_timestamp(civil).ok()?.as_nanosecond())
}

/// Addresses that begin alike. IPv4 addresses count as the IPv6 addresses `::ffff:a.b.c.d`, so that
/// a mapped address is what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    start: u128,
    mask: u128,
}

impl Network {
    /// Reads an address or `address/bits`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (width, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        if bits > width {
            return None;
        }
        let mask = u128::MAX.checked_shl(128 - (before + bits)).unwrap_or(0);
        Some(Self { start: number(address) & mask, mask })
    }

    /// Whether it is no more than a part of the world: of IPv4 a /8 or less, of IPv6 a /32.
    pub(super) fn is_narrow(&self) -> bool {
        const IPV4: Network = Network { start: 0xffff << 32, mask: u128::MAX << 32 };
        let meets_ipv4 = (self.start ^ IPV4.start) & self.mask & IPV4.mask == 0;
        let least = if meets_ipv4 { 96 + 8 } else { 32 };
        self.mask.leading_ones() >= least
    }

    /// Whether an address lies in it.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        number(address) & self.mask == self.start
    }
}

fn number(address: IpAddr) -> u128 {
    let mapped: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    mapped.to_bits()
}

/// The bytes that a base64 text stands for.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// `true` or `false`, in any case of letters.
pub(super) fn truth(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_exact() {
        let order = |a: &str, b: &str| Decimal::parse(a).cmp(&Decimal::parse(b));
        for (smaller, larger) in [
            ("-2", "-1"),
            ("-1", "0"),
            ("0.1", "0.11"),
            ("9", "10"),
            ("1.25", "1.5"),
            ("9007199254740992", "9007199254740993"),
            ("999", "1e3"),
        ] {
            assert_eq!(order(smaller, larger), Ordering::Less, "{smaller} {larger}");
        }
        for (a, b) in [("1", "1.0"), ("007", "7"), ("-0", "0"), ("+.5", "0.50"), ("1e2", "100")] {
            assert_eq!(order(a, b), Ordering::Equal, "{a} {b}");
        }
        for bad in ["", "-", ".", "1.2.3", "0x1", "1e", "e", "1e999", "NaN", "inf", "1 2", "--1"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn moments_are_dates_times_and_seconds() {
        let day = moment("2026-01-31").expect("a date");
        for same in ["2026-01-31T00:00:00Z", "2026-01-31T01:00:00+01:00", "1769817600"] {
            assert_eq!(moment(same), Some(day), "{same}");
        }
        assert_eq!(moment("2026-01-31T00:00Z"), Some(day));
        assert_eq!(moment("2026-01-31T00:00:00"), Some(day));
        assert_eq!(moment("2026-01-31T00:00:00.5Z"), Some(day + 500_000_000));
        assert_eq!(moment("2026"), moment("2026-01-01"));
        assert_eq!(moment("2026-02"), moment("2026-02-01"));
        assert_eq!(moment("0"), Some(0));
        assert_eq!(moment("-1"), Some(-1_000_000_000));
        for bad in ["", "-", "today", "2026-13-01", "2026-1-1", "31.1.2026", "99999999999999999999"]
        {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn networks_hold_addresses_of_either_family() {
        let holds = |network: &str, address: &str| {
            let network = Network::parse(network).expect(network);
            network.holds(address.parse().expect(address))
        };
        assert!(holds("203.0.113.0/24", "203.0.113.255"));
        assert!(holds("203.0.113.77/24", "203.0.113.1"), "the host's bits do not count");
        assert!(holds("203.0.113.1", "203.0.113.1"));
        assert!(holds("0.0.0.0/0", "8.8.8.8"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
        assert!(holds("::/0", "10.0.0.1"));
        assert!(!holds("203.0.113.0/24", "203.0.114.0"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        for bad in ["", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "a", "10.0.0.0/+8"]
        {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn numbers_compare_as_numbers_do(a in any::<i64>(), b in any::<i64>()) {
            let (x, y) = (Decimal::parse(&a.to_string()), Decimal::parse(&b.to_string()));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn any_text_is_a_comparand_or_none(text in "\\PC{0,20}") {
            let _ = (Decimal::parse(&text), moment(&text), Network::parse(&text), bytes(&text));
        }
    }
}
