//! Schedules as AWS documents them, and what holds for any of them.

use super::*;
use crate::ops::error::{Condition, Error};
use jiff::Timestamp;
use jiff::tz::Offset;
use proptest::prelude::*;
use std::collections::HashMap;

fn at(text: &str) -> Time {
    let text = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    Time(text.parse::<Timestamp>().expect("a moment").as_millisecond())
}

fn shown(time: Time) -> String {
    Timestamp::from_millisecond(time.0).expect("a moment").to_string()
}

fn after_days(days: i64, duration: Option<&str>) -> Result<Schedule, Fault> {
    Schedule::of(&RotationRules {
        automatically_after_days: Some(days),
        duration: duration.map(str::to_owned),
        schedule_expression: None,
    })
}

fn read(expression: &str, duration: Option<&str>) -> Result<Schedule, Fault> {
    Schedule::of(&RotationRules {
        automatically_after_days: None,
        duration: duration.map(str::to_owned),
        schedule_expression: Some(expression.to_owned()),
    })
}

fn schedule(expression: &str) -> Schedule {
    read(expression, None).unwrap_or_else(|fault| panic!("{expression}: {fault:?}"))
}

fn flaw(expression: &str) -> Flaw {
    match read(expression, None) {
        Err(Fault::Expression(flaw)) => flaw,
        other => panic!("{expression}: {other:?}"),
    }
}

/// The first openings after `from` of a schedule that was given at `from`.
fn openings(expression: &str, from: &str, count: usize) -> Vec<String> {
    let (schedule, from) = (schedule(expression), at(from));
    let next = |after: &Time| schedule.next_window(*after, None, from).map(|window| window.opens);
    std::iter::successors(next(&from), next).take(count).map(shown).collect()
}

/// The window after `from`, as `2026-01-02T03:00:00Z/2026-01-02T04:00:00Z`.
fn window(schedule: &Schedule, from: &str) -> String {
    let window = schedule.next_window(at(from), None, at(from)).expect("a window");
    format!("{}/{}", shown(window.opens), shown(window.closes))
}

// ---- AWS's examples ----

#[test]
fn every_four_hours_from_midnight_for_an_hour() {
    let expected = [
        "2026-03-02T12:00:00Z",
        "2026-03-02T16:00:00Z",
        "2026-03-02T20:00:00Z",
        "2026-03-03T00:00:00Z",
    ];
    assert_eq!(openings("rate(4 hours)", "2026-03-02T09:30:00Z", 4), expected);
    let schedule = schedule("rate(4 hours)");
    assert_eq!(
        window(&schedule, "2026-03-02T09:30:00Z"),
        "2026-03-02T12:00:00Z/2026-03-02T13:00:00Z"
    );
}

#[test]
fn every_day_from_midnight_to_midnight() {
    let schedule = schedule("rate(1 day)");
    assert_eq!(
        window(&schedule, "2026-03-02T09:30:00Z"),
        "2026-03-03T00:00:00Z/2026-03-04T00:00:00Z"
    );
}

#[test]
fn every_ten_days_counted_from_the_last_rotation() {
    let (schedule, rotated) = (schedule("rate(10 days)"), at("2026-03-02T17:43:00Z"));
    let window = schedule.next_window(rotated, Some(rotated), at("2020-01-01")).expect("a window");
    assert_eq!(shown(window.opens), "2026-03-12T00:00:00Z");
    assert_eq!(shown(window.closes), "2026-03-13T00:00:00Z");
}

#[test]
fn cron_increments_of_hours_start_anew_each_day() {
    let expected = [
        "2026-03-02T04:00:00Z",
        "2026-03-02T16:00:00Z",
        "2026-03-03T04:00:00Z",
        "2026-03-03T16:00:00Z",
    ];
    assert_eq!(openings("cron(0 4/12 * * ? *)", "2026-03-02", 4), expected);
}

#[test]
fn every_eight_hours_starting_at_midnight() {
    let expected = ["2026-03-02T08:00:00Z", "2026-03-02T16:00:00Z", "2026-03-03T00:00:00Z"];
    assert_eq!(openings("cron(0 /8 * * ? *)", "2026-03-02", 3), expected);
}

#[test]
fn every_eight_hours_starting_at_eight() {
    let expected = ["2026-03-02T08:00:00Z", "2026-03-02T16:00:00Z", "2026-03-03T08:00:00Z"];
    assert_eq!(openings("cron(0 8/8 * * ? *)", "2026-03-02", 3), expected);
}

#[test]
fn every_ten_hours_starting_at_two() {
    let expected = [
        "2026-03-02T02:00:00Z",
        "2026-03-02T12:00:00Z",
        "2026-03-02T22:00:00Z",
        "2026-03-03T02:00:00Z",
    ];
    assert_eq!(openings("cron(0 2/10 * * ? *)", "2026-03-02", 4), expected);
}

#[test]
fn every_day_at_ten_until_midnight() {
    let schedule = schedule("cron(0 10 * * ? *)");
    assert_eq!(window(&schedule, "2026-03-02"), "2026-03-02T10:00:00Z/2026-03-03T00:00:00Z");
}

#[test]
fn every_saturday_at_six_in_the_evening() {
    let expected = ["2026-03-07T18:00:00Z", "2026-03-14T18:00:00Z"];
    assert_eq!(openings("cron(0 18 ? * SAT *)", "2026-03-02", 2), expected);
}

#[test]
fn the_first_day_of_every_month() {
    let expected = ["2026-12-01T08:00:00Z", "2027-01-01T08:00:00Z"];
    assert_eq!(openings("cron(0 8 1 * ? *)", "2026-11-02", 2), expected);
}

#[test]
fn every_three_months_on_the_first_sunday() {
    let expected = ["2026-04-05T01:00:00Z", "2026-07-05T01:00:00Z", "2026-10-04T01:00:00Z"];
    assert_eq!(openings("cron(0 1 ? 1/3 SUN#1 *)", "2026-03-02", 3), expected);
}

#[test]
fn the_last_day_of_every_month() {
    let expected = ["2028-01-31T17:00:00Z", "2028-02-29T17:00:00Z", "2028-03-31T17:00:00Z"];
    assert_eq!(openings("cron(0 17 L * ? *)", "2028-01-15", 3), expected);
}

#[test]
fn monday_to_friday() {
    let expected = ["2026-03-05T08:00:00Z", "2026-03-06T08:00:00Z", "2026-03-09T08:00:00Z"];
    assert_eq!(openings("cron(0 8 ? * MON-FRI *)", "2026-03-04T08:00:00Z", 3), expected);
}

#[test]
fn the_first_and_the_fifteenth() {
    let expected = ["2026-03-15T16:00:00Z", "2026-04-01T16:00:00Z"];
    assert_eq!(openings("cron(0 16 1,15 * ? *)", "2026-03-02", 2), expected);
}

#[test]
fn the_first_sunday_of_every_month() {
    let expected = ["2026-04-05T00:00:00Z", "2026-05-03T00:00:00Z"];
    assert_eq!(openings("cron(0 0 ? * SUN#1 *)", "2026-03-02", 2), expected);
}

#[test]
fn eleven_months_from_january_are_january_and_december_of_each_year() {
    let expected = ["2026-12-07T00:00:00Z", "2027-01-04T00:00:00Z", "2027-12-06T00:00:00Z"];
    assert_eq!(openings("cron(0 0 ? 1/11 2#1 *)", "2026-03-02", 3), expected);
}

/// The values by which AWS's table of wildcards explains them.
#[test]
fn the_wildcards_of_aws_s_table() {
    let same = [
        ("cron(0 0 1-15 * ? *)", "cron(0 0 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15 * ? *)"),
        ("cron(0 0 1/10 * ? *)", "cron(0 0 1,11,21,31 * ? *)"),
        ("cron(0 0 1 JAN,APR,JUL,OCT ? *)", "cron(0 0 1 1/3 ? *)"),
        ("cron(0 0 2-11/4 * ? *)", "cron(0 0 2,6,10 * ? *)"),
        ("cron(0 0 1 1-3 ? *)", "cron(0 0 1 JAN-MAR ? *)"),
        ("cron(0 0 ? * 1/2 *)", "cron(0 0 ? * 1,3,5,7 *)"),
        ("cron(0 0 ? * TUE#3 *)", "cron(0 0 ? * 3#3 *)"),
        ("cron(0 0 ? * L *)", "cron(0 0 ? * SAT *)"),
        ("cron(0 0 SUNL * ? *)", "cron(0 0 ? * 1L *)"),
    ];
    for (one, other) in same {
        assert_eq!(schedule(one), schedule(other), "{one}, {other}");
    }
    assert_eq!(openings("cron(0 0 ? * TUE#3 *)", "2026-03-01", 1), ["2026-03-17T00:00:00Z"]);
    assert_eq!(openings("cron(0 0 ? * SUNL *)", "2026-03-01", 1), ["2026-03-29T00:00:00Z"]);
    assert_eq!(openings("cron(0 0 ? * WEDL *)", "2026-03-01", 1), ["2026-03-25T00:00:00Z"]);
    assert_eq!(openings("cron(0 0 ? * TUEL *)", "2026-03-01", 1), ["2026-03-31T00:00:00Z"]);
}

// ---- the calendar ----

#[test]
fn a_month_without_a_31st_is_passed_over() {
    let expected = ["2026-05-31T00:00:00Z", "2026-07-31T00:00:00Z", "2026-08-31T00:00:00Z"];
    assert_eq!(openings("cron(0 0 31 * ? *)", "2026-04-01", 3), expected);
}

#[test]
fn the_29th_of_february_waits_for_a_leap_year_even_across_2100() {
    let expected = ["2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"];
    assert_eq!(openings("cron(0 0 29 2 ? *)", "2095-01-01", 2), expected);
}

#[test]
fn a_fifth_weekday_in_february_is_found_however_long_it_takes() {
    for day in ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] {
        let found = openings(&format!("cron(0 0 ? FEB {day}#5 *)"), "2000-01-01", 14);
        assert_eq!(found.len(), 14, "{day}: {found:?}");
        assert!(found.iter().all(|opens| opens.contains("-02-29T")), "{day}: {found:?}");
    }
}

#[test]
fn a_fifth_monday_is_not_in_every_month() {
    let expected = ["2026-03-30T00:00:00Z", "2026-06-29T00:00:00Z"];
    assert_eq!(openings("cron(0 0 ? * MON#5 *)", "2026-03-01", 2), expected);
}

#[test]
fn what_no_date_ever_fits_is_refused() {
    for expression in
        ["cron(0 0 31 2 ? *)", "cron(0 0 30,31 FEB ? *)", "cron(0 0 31 2,4,6,9,11 ? *)"]
    {
        assert_eq!(flaw(expression), Flaw::Never, "{expression}");
    }
    schedule("cron(0 0 31 2,3 ? *)");
    schedule("cron(0 0 31,L 2 ? *)");
}

#[test]
fn the_calendar_s_end_is_the_schedule_s_end() {
    let daily = schedule("cron(0 10 * * ? *)");
    assert_eq!(daily.next_window(at("9999-12-30T12:00:00Z"), None, Time(0)), None);
    for moment in [Time(i64::MAX), Time(i64::MIN)] {
        assert_eq!(daily.next_window(moment, None, moment), None);
    }
    for text in ["rate(999 days)", "rate(23 hours)"] {
        assert_eq!(schedule(text).next_window(Time(i64::MAX), None, Time(0)), None, "{text}");
        assert_eq!(schedule(text).next_window(Time(0), Some(Time(i64::MAX)), Time(0)), None);
    }
}

// ---- counting ----

#[test]
fn days_without_a_rotation_count_from_when_the_schedule_was_given() {
    let schedule = after_days(30, None).expect("a schedule");
    let window = schedule.next_window(at("2026-03-02T10:00:00Z"), None, at("2026-03-02T09:00:00Z"));
    assert_eq!(window.map(|w| shown(w.opens)).as_deref(), Some("2026-04-01T00:00:00Z"));
}

#[test]
fn a_missed_window_is_found_from_the_last_rotation_and_else_passed_over() {
    let (schedule, rotated) = (schedule("rate(10 days)"), at("2026-03-02T17:43:00Z"));
    let opens = |after: &str| {
        let window = schedule.next_window(at(after), Some(rotated), at("2020-01-01"));
        window.map(|window| shown(window.opens)).expect("a window")
    };
    assert_eq!(opens("2026-03-02T17:43:00Z"), "2026-03-12T00:00:00Z");
    assert_eq!(opens("2026-03-12T08:00:00Z"), "2026-03-22T00:00:00Z");
    assert_eq!(opens("2026-04-11T00:00:00Z"), "2026-04-21T00:00:00Z");
}

#[test]
fn a_clock_set_back_brings_no_window_forward() {
    let rotated = at("2026-03-02T10:30:00Z");
    for text in ["rate(1 day)", "rate(4 hours)", "cron(0 10 * * ? *)"] {
        let schedule = schedule(text);
        let usual = schedule.next_window(rotated, Some(rotated), at("2026-01-01"));
        let set_back = schedule.next_window(at("2026-02-01"), Some(rotated), at("2026-01-01"));
        assert_eq!(set_back, usual, "{text}");
        assert!(usual.is_some_and(|window| window.opens > rotated), "{text}");
    }
}

#[test]
fn hours_that_do_not_divide_a_day_go_on_into_the_next() {
    let expected = ["2026-03-02T20:00:00Z", "2026-03-03T01:00:00Z", "2026-03-03T06:00:00Z"];
    assert_eq!(openings("rate(5 hours)", "2026-03-02T16:00:00Z", 3), expected);
}

// ---- windows ----

#[test]
fn a_window_is_as_long_as_its_duration() {
    let cases = [
        (after_days(3, Some("3h")), "2026-03-05T00:00:00Z/2026-03-05T03:00:00Z"),
        (read("rate(2 days)", Some("24h")), "2026-03-04T00:00:00Z/2026-03-05T00:00:00Z"),
        (read("rate(4 hours)", Some("4h")), "2026-03-02T04:00:00Z/2026-03-02T08:00:00Z"),
        (read("cron(0 16 1,15 * ? *)", Some("2h")), "2026-03-15T16:00:00Z/2026-03-15T18:00:00Z"),
        (read("cron(0 2/10 * * ? *)", Some("2h")), "2026-03-02T02:00:00Z/2026-03-02T04:00:00Z"),
    ];
    for (read, expected) in cases {
        assert_eq!(window(&read.expect(expected), "2026-03-02"), expected);
    }
}

#[test]
fn several_hours_a_day_make_a_schedule_in_hours() {
    let twice = schedule("cron(0 4,16 * * ? *)");
    assert_eq!(window(&twice, "2026-03-02"), "2026-03-02T04:00:00Z/2026-03-02T05:00:00Z");
}

#[test]
fn a_rate_in_hours_is_cut_off_at_midnight() {
    let schedule = read("rate(5 hours)", Some("5h")).expect("a schedule");
    assert_eq!(
        window(&schedule, "2026-03-02T19:00:00Z"),
        "2026-03-02T20:00:00Z/2026-03-03T00:00:00Z"
    );
}

#[test]
fn a_window_may_reach_neither_into_the_next_one_nor_into_the_next_day() {
    let cases = [
        ("rate(4 hours)", "5h", Fault::LongerThanRate),
        ("cron(0 16 1,15 * ? *)", "9h", Fault::PastMidnight),
        ("cron(0 2/10 * * ? *)", "3h", Fault::PastMidnight),
        ("cron(0 0/5 * * ? *)", "5h", Fault::PastMidnight),
        ("cron(0 1,6 * * ? *)", "6h", Fault::Overlap),
    ];
    for (text, duration, fault) in cases {
        assert_eq!(read(text, Some(duration)), Err(fault), "{text} {duration}");
    }
    for (text, duration) in [("cron(0 16 1 * ? *)", "8h"), ("cron(0 1,6 * * ? *)", "5h")] {
        assert!(read(text, Some(duration)).is_ok(), "{text} {duration}");
    }
}

#[test]
fn the_next_rotation_date_is_the_window_s_last_second() {
    // AWS's example of DescribeSecret, 1665165599, is 17:59:59 for this schedule.
    let schedule = read("cron(0 16 1,15 * ? *)", Some("2h")).expect("a schedule");
    let window = schedule.next_window(at("2026-03-02"), None, at("2026-03-02")).expect("a window");
    assert_eq!(shown(window.next_rotation_date()), "2026-03-15T17:59:59Z");
    let window =
        self::schedule("rate(1 day)").next_window(at("2026-03-02"), None, at("2026-03-02"));
    let shown_as = window.map(|window| shown(window.next_rotation_date()));
    assert_eq!(shown_as.as_deref(), Some("2026-03-03T23:59:59Z"));
}

#[test]
fn days_between_is_what_aws_s_example_shows() {
    let on_the_first = Some(at("2026-03-01T16:30:00Z"));
    let twice_a_month = schedule("cron(0 16 1,15 * ? *)");
    assert_eq!(twice_a_month.days_between(on_the_first), Some(14));
    assert_eq!(twice_a_month.days_between(Some(at("2026-03-15T16:30:00Z"))), Some(17));
    assert_eq!(twice_a_month.days_between(None), None);
    assert_eq!(schedule("rate(10 days)").days_between(None), Some(10));
    assert_eq!(after_days(1000, None).expect("a schedule").days_between(None), Some(1000));
}

#[test]
fn days_between_says_nothing_of_less_than_a_day_or_more_than_a_thousand() {
    let rotated = Some(at("2026-03-01T04:30:00Z"));
    for text in ["rate(4 hours)", "cron(0 4,16 * * ? *)", "cron(0 0 29 2 ? *)"] {
        let days = schedule(text).days_between(rotated);
        let expected = if text.contains("29") { Some(730) } else { None };
        assert_eq!(days, expected, "{text}");
    }
    let far = schedule("cron(0 0 29 2 ? *)").days_between(Some(at("2097-01-01")));
    assert_eq!(far, None);
}

#[test]
fn a_thousand_secrets_with_one_schedule_spread_over_the_first_half() {
    let window = Window { opens: at("2026-03-02T04:00:00Z"), closes: at("2026-03-02T05:00:00Z") };
    for first in [0, 1, 4096, 1 << 40, u64::MAX - 999] {
        let mut in_second: HashMap<i64, usize> = HashMap::new();
        for seed in first..=first + 999 {
            let point = window.point_for(seed);
            assert!(window.opens <= point && point < at("2026-03-02T04:30:00Z"));
            assert_eq!(point, window.point_for(seed));
            *in_second.entry(point.seconds()).or_default() += 1;
        }
        assert!(in_second.len() > 800, "{first}: only {} seconds", in_second.len());
        assert!(in_second.values().all(|count| *count <= 2), "{first}: {in_second:?}");
    }
}

// ---- bounds and texts ----

#[test]
fn the_service_model_s_bounds_are_validation_findings() {
    let mut checks = Checks::default();
    let rules = RotationRules {
        automatically_after_days: Some(1001),
        duration: Some("1 hour".to_owned()),
        schedule_expression: Some("rate(1_day)".to_owned()),
    };
    rules.check(&mut checks);
    let error = checks.finish().expect_err("findings");
    assert_eq!(error.condition, Condition::Validation);
    assert_eq!(
        error.message,
        "4 validation errors detected: Value '1001' at 'rotationRules.automaticallyAfterDays' failed \
         to satisfy constraint: Member must have value less than or equal to 1000; Value '1 hour' at \
         'rotationRules.duration' failed to satisfy constraint: Member must have length less than or \
         equal to 3; Value '1 hour' at 'rotationRules.duration' failed to satisfy constraint: Member \
         must satisfy regular expression pattern: [0-9h]+; Value 'rate(1_day)' at \
         'rotationRules.scheduleExpression' failed to satisfy constraint: Member must satisfy regular \
         expression pattern: [0-9A-Za-z\\(\\)#\\?\\*\\-\\/, ]+"
    );
    let mut checks = Checks::default();
    let fine = r#"{"Duration": "2h", "ScheduleExpression": "cron(0 16 1,15 * ? *)"}"#;
    serde_json::from_str::<RotationRules>(fine).expect("rules").check(&mut checks);
    assert!(checks.finish().is_ok());
}

#[test]
fn rules_say_one_thing() {
    let both = RotationRules {
        automatically_after_days: Some(1),
        duration: None,
        schedule_expression: Some("rate(1 day)".to_owned()),
    };
    assert_eq!(Schedule::of(&both), Err(Fault::Both));
    assert_eq!(Schedule::of(&RotationRules::default()), Err(Fault::Neither));
    let window_alone = RotationRules { duration: Some("2h".to_owned()), ..Default::default() };
    assert_eq!(Schedule::of(&window_alone), Err(Fault::Neither));
}

#[test]
fn numbers_out_of_their_bounds_are_refused_in_aws_s_words() {
    for (text, fault) in [
        ("rate(3 hours)", Fault::RateInHours),
        ("rate(24 hours)", Fault::RateInHours),
        ("rate(0 days)", Fault::RateInDays),
        ("rate(1000 days)", Fault::RateInDays),
        ("rate(99999999999999999999 days)", Fault::RateInDays),
    ] {
        assert_eq!(read(text, None), Err(fault), "{text}");
    }
    for text in ["rate(4 hours)", "rate(23 hours)", "rate(1 days)", "rate(999 day)"] {
        assert!(read(text, None).is_ok(), "{text}");
    }
    for days in [0, -1, 1001, i64::MAX] {
        assert_eq!(after_days(days, None), Err(Fault::AfterDays), "{days}");
    }
    for duration in ["0h", "25h", "h", "2", "h2", "002h", "-1h", ""] {
        assert_eq!(after_days(1, Some(duration)), Err(Fault::Duration), "{duration}");
    }
}

#[test]
fn a_fault_is_an_invalid_parameter_and_its_flaw_goes_to_the_log() {
    let error = Error::from(read("cron(5 0 1 * ? *)", None).expect_err("minutes"));
    assert_eq!(error.condition, Condition::InvalidParameter);
    assert_eq!(error.message, "Invalid schedule expression.");
    assert_eq!(error.log.as_deref(), Some("the minutes of cron must be 0"));
    let error = Error::from(Fault::Both);
    assert_eq!(
        error.message,
        "You cannot specify both rotation frequency and schedule expression together."
    );
    assert_eq!(error.log, None);
}

#[test]
fn expressions_that_are_none() {
    let padded = |spaces| format!("cron(0 0{} * * ? *)", " ".repeat(spaces));
    let long = padded(240);
    assert_eq!(long.len(), 257);
    schedule(&padded(239));
    for text in
        ["", "rate", "at(2026)", "rate(1 day", " rate(1 day)", "Rate(1 day)", "cron()x", &long]
    {
        assert_eq!(flaw(text), Flaw::Form, "{text}");
    }
    for text in
        ["rate()", "rate(day)", "rate(1day)", "rate(1  day)", "rate(1 week)", "rate(-1 day)"]
    {
        assert_eq!(flaw(text), Flaw::Rate, "{text}");
    }
}

#[test]
fn fields_that_are_none() {
    let cases = [
        ("cron()", Flaw::Fields),
        ("cron(0 8 1 * ?)", Flaw::Fields),
        ("cron(0 8 1 * ? * *)", Flaw::Fields),
        ("cron(* 8 1 * ? *)", Flaw::Minutes),
        ("cron(30 8 1 * ? *)", Flaw::Minutes),
        ("cron(0 8 1 * ? 2027)", Flaw::Year),
        ("cron(0 8 1 * 2 *)", Flaw::Days),
        ("cron(0 8 * * * *)", Flaw::Days),
        ("cron(0 8 ? * ? *)", Flaw::Days),
        ("cron(0 24 1 * ? *)", Flaw::Field("Hours")),
        ("cron(0 ? 1 * ? *)", Flaw::Field("Hours")),
        ("cron(0 8/0 1 * ? *)", Flaw::Field("Hours")),
        ("cron(0 8/ 1 * ? *)", Flaw::Field("Hours")),
        ("cron(0 22-2 1 * ? *)", Flaw::Field("Hours")),
        ("cron(0 8, 1 * ? *)", Flaw::Field("Hours")),
        ("cron(0 8 0 * ? *)", Flaw::Field("Day-of-month")),
        ("cron(0 8 32 * ? *)", Flaw::Field("Day-of-month")),
        ("cron(0 8 1W * ? *)", Flaw::Field("Day-of-month")),
        ("cron(0 8 1L * ? *)", Flaw::Field("Day-of-month")),
        ("cron(0 8 1,? * ? *)", Flaw::Field("Day-of-month")),
        ("cron(0 8 1 13 ? *)", Flaw::Field("Month")),
        ("cron(0 8 1 JANUARY ? *)", Flaw::Field("Month")),
        ("cron(0 8 ? * 0 *)", Flaw::Field("Day-of-week")),
        ("cron(0 8 ? * MON#6 *)", Flaw::Field("Day-of-week")),
        ("cron(0 8 ? * MON#0 *)", Flaw::Field("Day-of-week")),
        ("cron(0 8 ? * #1 *)", Flaw::Field("Day-of-week")),
        ("cron(0 8 ? * JAN *)", Flaw::Field("Day-of-week")),
    ];
    for (text, expected) in cases {
        assert_eq!(flaw(text), expected, "{text}");
    }
}

#[test]
fn rotations_are_at_least_four_hours_apart() {
    for text in ["cron(0 * 1 * ? *)", "cron(0 0/3 1 * ? *)", "cron(0 8,11 1 * ? *)"] {
        assert_eq!(flaw(text), Flaw::TooOften, "{text}");
    }
    schedule("cron(0 0/4 1 * ? *)");
    schedule("cron(0 8,12 1 * ? *)");
}

#[test]
fn letter_case_does_not_count_in_fields() {
    assert_eq!(schedule("cron(0 8 ? jan-Mar mon#1 *)"), schedule("cron(0 8 ? 1-3 2#1 *)"));
}

// ---- what holds for any schedule ----

fn durations() -> impl Strategy<Value = Option<String>> {
    proptest::option::of((1..=24_u8).prop_map(|hours| format!("{hours}h")))
}

/// Rules of all kinds, most of them good.
fn rules() -> impl Strategy<Value = RotationRules> {
    let dates = "([1-9]|[12][0-9]|3[01]|L|MONL|1/[1-9]|5-2[0-9])(,[1-9]|,L)?";
    let weekdays = "(\\*|L|[1-7]|[1-7]L|(SUN|WED|SAT)#[1-5]|MON-FRI|2/2)(,[1-7])?";
    let hours = "([0-9]|1[0-9]|2[0-3]|[0-9]/([4-9]|1[0-2])|\\*/6)";
    let months = "(\\*|[1-9]|1[0-2]|FEB|1/5|2-4)";
    let expressions = prop_oneof![
        (4..24).prop_map(|n| format!("rate({n} hours)")),
        (1..1000).prop_map(|n| format!("rate({n} days)")),
        (hours, dates, months).prop_map(|(h, d, m)| format!("cron(0 {h} {d} {m} ? *)")),
        (hours, months, weekdays).prop_map(|(h, m, d)| format!("cron(0 {h} ? {m} {d} *)")),
    ];
    prop_oneof![
        1 => (1..=1000_i64, durations()).prop_map(|(days, duration)| RotationRules {
            automatically_after_days: Some(days), duration, schedule_expression: None,
        }),
        8 => (expressions, durations()).prop_map(|(expression, duration)| RotationRules {
            automatically_after_days: None, duration, schedule_expression: Some(expression),
        }),
    ]
}

/// Moments from 1970 to 2200.
fn moments() -> impl Strategy<Value = Time> {
    (0..7_258_118_400_000_i64).prop_map(Time)
}

proptest! {
    #[test]
    fn windows_come_later_stay_within_a_day_and_do_not_overlap(
        rules in rules(), after in moments(), created in moments(),
        rotated in proptest::option::of(moments()), part in 0..1000_i64, seed in any::<u64>()
    ) {
        let Ok(schedule) = Schedule::of(&rules) else { return Ok(()) };
        let window = schedule.next_window(after, rotated, created).expect("a window");
        let after = rotated.map_or(after, |rotated| rotated.max(after));
        prop_assert!(after < window.opens && window.opens < window.closes);
        prop_assert_eq!((window.opens.0 % HOUR, window.closes.0 % HOUR), (0, 0));
        prop_assert!(window.closes.0 <= (window.opens.day() + 1) * DAY);
        let next = schedule.next_window(window.opens, rotated, created).expect("a window");
        prop_assert!(next.opens >= window.closes, "{:?} {:?}", window, next);
        // None lies between.
        let between = after.0 + (window.opens.0 - 1 - after.0) / 1000 * part;
        prop_assert_eq!(schedule.next_window(Time(between), rotated, created), Some(window));
        let point = window.point_for(seed);
        prop_assert!(window.opens <= point);
        prop_assert!(point.0 - window.opens.0 < (window.closes.0 - window.opens.0) / 2);
        let days = schedule.days_between(Some(after));
        prop_assert!(days.is_none_or(|days| (1..=1000).contains(&days)));
    }

    #[test]
    fn a_cron_opens_at_the_first_hour_that_fits_all_its_fields(
        first in 0..4_i8, hours in proptest::sample::subsequence((0..6_i8).collect::<Vec<_>>(), 1..6),
        dates in proptest::sample::subsequence((1..=28_i8).collect::<Vec<_>>(), 1..4),
        weekdays in proptest::option::of(1..=7_i8),
        months in proptest::sample::subsequence((1..=12_i8).collect::<Vec<_>>(), 1..4),
        after in moments(),
    ) {
        let list = |numbers: &[i8]| numbers.iter().map(i8::to_string).collect::<Vec<_>>().join(",");
        let hours: Vec<i8> = hours.iter().map(|hour| first + 4 * hour).collect();
        let days = weekdays.map_or((list(&dates), "?".to_owned()), |day| ("?".to_owned(), day.to_string()));
        let text = format!("cron(0 {} {} {} {} *)", list(&hours), days.0, list(&months), days.1);
        let fits = |time: &Time| {
            let civil = Offset::UTC.to_datetime(Timestamp::from_millisecond(time.0).expect("a moment"));
            let day = match weekdays {
                Some(weekday) => civil.weekday().to_sunday_one_offset() == weekday,
                None => dates.contains(&civil.day()),
            };
            day && months.contains(&civil.month()) && hours.contains(&civil.hour())
        };
        let next_hour = (after.0.div_euclid(HOUR) + 1) * HOUR;
        let expected = (0..=366 * HOURS).map(|hour| Time(next_hour + hour * HOUR)).find(fits);
        let window = schedule(&text).next_window(after, None, after).expect("a window");
        prop_assert_eq!(Some(window.opens), expected, "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(
        text in prop_oneof![
            ".{0,300}",
            "(cron|rate)\\([0-9A-Z#?*/, -]{0,40}\\)",
            "cron\\(0 [0-9*,/-]{1,8} [0-9L?*,/-]{1,8} [0-9A-Z*,/-]{1,8} [0-9A-Z?L#]{1,8} \\*\\)",
        ],
        duration in proptest::option::of(".{0,4}"),
        after in any::<i64>(), created in any::<i64>(),
    ) {
        let rules = RotationRules {
            automatically_after_days: None, duration, schedule_expression: Some(text),
        };
        rules.check(&mut Checks::default());
        if let Ok(schedule) = Schedule::of(&rules) {
            let window = schedule.next_window(Time(after), None, Time(created));
            prop_assert!(window.is_none_or(|window| window.opens > Time(after)));
        }
    }
}
