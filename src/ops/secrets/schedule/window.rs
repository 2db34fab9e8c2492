//! The time in which a rotation may happen.

use super::HOUR;
use crate::clock::{DAY, Time};

/// From when to when a secret may rotate, within one UTC day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment in it, on the hour.
    pub opens: Time,
    /// The first moment after it, on the hour.
    pub closes: Time,
}

impl Window {
    /// The window of so many hours that opens at `opens`; it closes with the day at the latest.
    pub(super) fn open(opens: Time, hours: i64) -> Option<Self> {
        let midnight = opens.day().checked_add(1)?.checked_mul(DAY)?;
        let closes = opens.0.checked_add(hours * HOUR)?.min(midnight);
        Some(Self { opens, closes: Time(closes) })
    }

    /// What DescribeSecret and ListSecrets show as NextRotationDate: the last second in which the
    /// rotation is due. AWS's example has 17:59:59 for a window of two hours from 16:00.
    /// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DescribeSecret.html>
    pub fn next_rotation_date(&self) -> Time {
        Time(self.closes.0.saturating_sub(1000))
    }

    /// The moment in the first half at which the secret with this seed is to rotate; the second half
    /// is for retries. The seed is something that stays, as the secret's number does.
    ///
    /// `half * frac(seed / golden ratio)`, by multiplication modulo 2^64 (Knuth, The Art of Computer
    /// Programming, volume 3, 6.4): of numbers given out one after the other, no two come close.
    pub fn point_for(&self, seed: u64) -> Time {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let half = i128::from(self.closes.0.saturating_sub(self.opens.0) / 2);
        let part = (half * i128::from(seed.wrapping_mul(GOLDEN))) >> u64::BITS;
        // Less than half a window, so it fits.
        Time(self.opens.0.saturating_add(i64::try_from(part).unwrap_or(0)))
    }
}
