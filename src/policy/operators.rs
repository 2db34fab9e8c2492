//! Condition operators
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>),
//! their values read once, and what they say of a request.

use super::comparands::{Decimal, Network, bytes, moment, truth};
use super::document::{self, Quantifier, Version};
use super::facts::{Facts, Values};
use super::pattern::{Pattern, Reading, has_sound_variables};
use std::borrow::Cow;
use std::cmp::Ordering;

/// One key of one operator, ready to be asked.
#[derive(Debug)]
pub(super) struct Condition {
    /// In lower case.
    key: Box<str>,
    quantifier: Option<Quantifier>,
    if_exists: bool,
    /// It wants that nothing matches.
    negated: bool,
    test: Test,
}

/// What one value of the request is compared with.
#[derive(Debug)]
enum Test {
    /// Whether the key is absent: `true` wants it to be, `false` wants it not to be.
    Absent { wanted: bool, unwanted: bool },
    /// Texts and patterns of texts.
    Text(Vec<Pattern>),
    /// Texts whose letter case does not count.
    TextInAnyCase(Vec<Pattern>),
    /// Patterns of ARNs.
    Arn(Vec<Pattern>),
    /// Numbers.
    Number(Order, Vec<Decimal>),
    /// Moments, in nanoseconds since 1970.
    Moment(Order, Vec<i128>),
    /// Truth values.
    Truth { wanted: bool, unwanted: bool },
    /// Bytes.
    Bytes(Vec<Vec<u8>>),
    /// Networks.
    Network(Vec<Network>),
}

/// How the request's value is to lie to the policy's.
#[derive(Clone, Copy, Debug)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    /// The order that the end of an operator's name asks for.
    fn of(operator: &str) -> Self {
        match operator {
            o if o.ends_with("LessThan") => Self::Less,
            o if o.ends_with("LessThanEquals") => Self::LessOrEqual,
            o if o.ends_with("GreaterThan") => Self::Greater,
            o if o.ends_with("GreaterThanEquals") => Self::GreaterOrEqual,
            _ => Self::Equal,
        }
    }

    fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}

/// Whether an operator can compare with a value at all. Policy variables are for texts and ARNs.
pub(super) fn suits(operator: &str, value: &str, version: Version) -> bool {
    match operator {
        "Bool" | "Null" => truth(value).is_some(),
        "BinaryEquals" => bytes(value).is_some(),
        "IpAddress" | "NotIpAddress" => Network::parse(value).is_some(),
        o if o.starts_with("Numeric") => Decimal::parse(value).is_some(),
        o if o.starts_with("Date") => moment(value).is_some(),
        _ => version == Version::V2008 || has_sound_variables(value),
    }
}

impl Test {
    /// Reads the values of a condition; [`suits`] has let them pass.
    fn of(condition: &document::Condition, version: Version) -> Self {
        let values = || condition.values.iter().map(String::as_str);
        let patterns = |reading| values().map(|v| Pattern::new(v, reading, version)).collect();
        let truths = |of: bool| values().any(|v| truth(v) == Some(of));
        let order = Order::of(condition.operator);
        match condition.operator {
            "Null" => Self::Absent { wanted: truths(true), unwanted: truths(false) },
            "Bool" => Self::Truth { wanted: truths(true), unwanted: truths(false) },
            "BinaryEquals" => Self::Bytes(values().filter_map(bytes).collect()),
            "IpAddress" | "NotIpAddress" => {
                Self::Network(values().filter_map(Network::parse).collect())
            }
            "StringLike" | "StringNotLike" => Self::Text(patterns(Reading::Like)),
            "StringEqualsIgnoreCase" | "StringNotEqualsIgnoreCase" => {
                Self::TextInAnyCase(patterns(Reading::Plain))
            }
            o if o.starts_with("Arn") => Self::Arn(patterns(Reading::Arn)),
            o if o.starts_with("Numeric") => {
                Self::Number(order, values().filter_map(Decimal::parse).collect())
            }
            o if o.starts_with("Date") => {
                Self::Moment(order, values().filter_map(moment).collect())
            }
            _ => Self::Text(patterns(Reading::Plain)),
        }
    }

    /// Whether one of the policy's values matches this one of the request.
    fn matches(&self, value: &str, facts: &dyn Facts) -> Outcome {
        let found = match self {
            Self::Text(patterns) | Self::Arn(patterns) => {
                return any(patterns, |pattern| pattern.fits(value, facts));
            }
            Self::TextInAnyCase(patterns) => {
                return any(patterns, |pattern| pattern.fits_in_any_case(value, facts));
            }
            Self::Number(order, all) => Decimal::parse(value)
                .is_some_and(|value| all.iter().any(|n| order.holds(value.cmp(n)))),
            Self::Moment(order, all) => {
                moment(value).is_some_and(|value| all.iter().any(|m| order.holds(value.cmp(m))))
            }
            Self::Truth { wanted, unwanted } => {
                truth(value).is_some_and(|value| if value { *wanted } else { *unwanted })
            }
            Self::Bytes(all) => bytes(value).is_some_and(|value| all.contains(&value)),
            Self::Network(all) => {
                value.parse().is_ok_and(|address| all.iter().any(|n| n.holds(address)))
            }
            Self::Absent { unwanted, .. } => *unwanted,
        };
        if found { Outcome::Match } else { Outcome::None }
    }
}

/// What comparing one value of the request came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Match,
    None,
    /// Nothing matched, and a policy variable had no value: neither the condition nor its opposite
    /// holds.
    Unknown,
}

fn any(patterns: &[Pattern], fits: impl Fn(&Pattern) -> Option<bool>) -> Outcome {
    let mut outcome = Outcome::None;
    for pattern in patterns {
        match fits(pattern) {
            Some(true) => return Outcome::Match,
            Some(false) => {}
            None => outcome = Outcome::Unknown,
        }
    }
    outcome
}

impl Condition {
    /// Makes a condition ready.
    pub(super) fn new(written: &document::Condition, version: Version) -> Self {
        Self {
            key: written.key.to_ascii_lowercase().into(),
            quantifier: written.quantifier,
            if_exists: written.if_exists,
            negated: written.operator.contains("Not"),
            test: Test::of(written, version),
        }
    }

    /// Whether it holds.
    pub(super) fn holds(&self, facts: &dyn Facts) -> bool {
        let values = facts.fact(&self.key);
        let values = match &values {
            None => None,
            Some(Values::One(value)) => Some(std::slice::from_ref(value)),
            Some(Values::Many(values)) => Some(values.as_slice()),
        };
        // No values, or under a quantifier an empty text, are as good as no key.
        let values = values.filter(|values| match (self.quantifier, *values) {
            (_, []) => false,
            (Some(_), [only]) => !only.is_empty(),
            _ => true,
        });
        match (&self.test, values) {
            (Test::Absent { wanted, .. }, None) => *wanted,
            (Test::Absent { unwanted, .. }, Some(_)) => *unwanted,
            (_, None) => self.holds_without(),
            (_, Some(values)) => self.holds_for(values, facts),
        }
    }

    /// Whether it holds for a request that does not have the key.
    fn holds_without(&self) -> bool {
        match self.quantifier {
            Some(Quantifier::ForAllValues) => true,
            Some(Quantifier::ForAnyValue) => self.if_exists,
            None => self.if_exists || self.negated,
        }
    }

    /// Whether it holds for these values. Without a quantifier a key of many values matches by any
    /// of them, and by none where the operator is negated.
    fn holds_for(&self, values: &[Cow<'_, str>], facts: &dyn Facts) -> bool {
        let good = |value: &Cow<'_, str>| {
            let wanted = if self.negated { Outcome::None } else { Outcome::Match };
            self.test.matches(value, facts) == wanted
        };
        match self.quantifier {
            Some(Quantifier::ForAllValues) => values.iter().all(good),
            None if self.negated => values.iter().all(good),
            Some(Quantifier::ForAnyValue) | None => values.iter().any(good),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::{Kind, parse};
    use super::*;

    /// One key of one value or of several.
    struct Key(&'static str, Vec<&'static str>, bool);

    impl Facts for Key {
        fn fact(&self, key: &str) -> Option<Values<'_>> {
            let values = || self.1.iter().map(|value| Cow::Borrowed(*value));
            match (key == self.0, self.2) {
                (false, _) => None,
                (true, true) => Some(Values::Many(values().collect())),
                (true, false) => values().next().map(Values::One),
            }
        }
    }

    fn holds(condition: &str, facts: &dyn Facts) -> bool {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Deny","Action":"*",
                "Resource":"*","Condition":{condition}}}}}"#
        );
        let document = parse(&text, Kind::Identity).expect("a policy");
        let conditions = document.statements[0].conditions.iter();
        conditions.map(|c| Condition::new(c, document.version)).all(|c| c.holds(facts))
    }

    fn one(value: &'static str) -> Key {
        Key("a:b", vec![value], false)
    }

    fn many(values: &[&'static str]) -> Key {
        Key("a:b", values.to_vec(), true)
    }

    #[test]
    fn without_a_quantifier_any_of_many_values_matches_and_negated_none_may() {
        let equals = r#"{"StringEquals":{"a:b":["x","y"]}}"#;
        let differs = r#"{"StringNotEquals":{"a:b":["x","y"]}}"#;
        for (values, matches) in [(&["x", "z"][..], true), (&["z"], false), (&[], false)] {
            assert_eq!(holds(equals, &many(values)), matches, "{values:?}");
            assert_eq!(holds(differs, &many(values)), !matches, "{values:?}");
        }
    }

    #[test]
    fn no_value_and_an_empty_one_are_as_good_as_no_key_under_a_quantifier() {
        let all = r#"{"ForAllValues:StringEquals":{"a:b":"x"}}"#;
        let any = r#"{"ForAnyValue:StringLike":{"a:b":"*"}}"#;
        for facts in [many(&[]), one("")] {
            assert!(holds(all, &facts));
            assert!(!holds(any, &facts));
            assert!(holds(r#"{"ForAnyValue:StringLikeIfExists":{"a:b":"x"}}"#, &facts));
        }
        assert!(holds(all, &one("x")) && !holds(all, &one("y")), "one value is a set of one");
        assert!(holds(r#"{"StringEquals":{"a:b":""}}"#, &one("")));
        assert!(holds(r#"{"Null":{"a:b":"true"}}"#, &many(&[])));
    }

    #[test]
    fn a_variable_without_a_value_voids_a_condition_and_its_opposite() {
        for operator in ["StringEquals", "StringNotEquals", "StringNotEqualsIgnoreCase"] {
            let condition = format!(r#"{{"{operator}":{{"a:b":["x","${{aws:username}}"]}}}}"#);
            assert!(!holds(&condition, &one("y")), "{operator}");
        }
        assert!(holds(r#"{"StringEquals":{"a:b":["${aws:username}","y"]}}"#, &one("y")));
        let arn = r#"{"ArnNotLike":{"a:b":"arn:aws:iam::*:user/${aws:username}"}}"#;
        assert!(!holds(arn, &one("arn:aws:iam::111122223333:user/ada")));
    }

    #[test]
    fn what_can_t_be_read_in_a_request_matches_nothing() {
        for (operator, value) in [
            ("NumericEquals", "1"),
            ("DateEquals", "2026-01-01"),
            ("IpAddress", "0.0.0.0/0"),
            ("BinaryEquals", "QUJD"),
            ("ArnLike", "arn:*:*:*:*:*"),
            ("Bool", "true"),
        ] {
            assert!(!holds(&format!(r#"{{"{operator}":{{"a:b":"{value}"}}}}"#), &one("?!")));
        }
        for (operator, value) in [
            ("NumericNotEquals", "1"),
            ("NotIpAddress", "0.0.0.0/0"),
            ("ArnNotLike", "arn:*:*:*:*:*"),
        ] {
            assert!(holds(&format!(r#"{{"{operator}":{{"a:b":"{value}"}}}}"#), &one("?!")));
        }
    }

    #[test]
    fn each_order_is_its_own() {
        for (operator, less, equal, greater) in [
            ("NumericEquals", false, true, false),
            ("NumericNotEquals", true, false, true),
            ("NumericLessThan", true, false, false),
            ("NumericLessThanEquals", true, true, false),
            ("NumericGreaterThan", false, false, true),
            ("NumericGreaterThanEquals", false, true, true),
        ] {
            let condition = format!(r#"{{"{operator}":{{"a:b":"10"}}}}"#);
            let found = ["9.5", "10.0", "11"].map(|value| holds(&condition, &one(value)));
            assert_eq!(found, [less, equal, greater], "{operator}");
        }
    }
}
