//! Whatever a schedule says, it is refused or has windows: later ones, within a day, one by one.
//!
//! Input: eight bytes of a moment, the duration, a line feed, the expression.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strongroom::clock::{DAY, Time};
use strongroom::ops::secrets::schedule::{RotationRules, Schedule};

fuzz_target!(|data: &[u8]| {
    let Some((moment, text)) = data.split_first_chunk() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (duration, expression) = text.split_once('\n').unwrap_or(("", text));
    let rules = RotationRules {
        automatically_after_days: None,
        duration: (!duration.is_empty()).then(|| duration.to_owned()),
        schedule_expression: Some(expression.to_owned()),
    };
    let Ok(schedule) = Schedule::of(&rules) else { return };
    // The moment itself, which may be out of the calendar, and one within it, which must have a next.
    let far = i64::from_le_bytes(*moment);
    for (after, must) in [(Time(far), false), (Time(far.rem_euclid(100_000 * DAY)), true)] {
        let Some(window) = schedule.next_window(after, None, Time(0)) else {
            assert!(!must);
            continue;
        };
        assert!(after < window.opens && window.opens < window.closes);
        assert!(window.closes.0 <= (window.opens.day() + 1) * DAY);
        assert!(window.point_for(far.cast_unsigned()) < window.closes);
        let next = schedule.next_window(window.opens, None, Time(0));
        assert!(next.is_none_or(|next| next.opens >= window.closes));
    }
});
