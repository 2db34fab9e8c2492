//! Filters of ListSecrets and BatchGetSecretValue, as pure matchers.
//!
//! Filters AND, the values of one filter OR, a value behind `!` negates. `name`, `tag-key` and
//! `tag-value` match prefixes, letter case counting. `description` and `all` match words: a value
//! matches an attribute if each of the value's words begins some word of that attribute, letter case
//! not counting. Words end at whatever is neither letter nor digit, and where the letter case says
//! so: `MyTestURLMaker` is `My`, `Test`, `URL`, `Maker`.

use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use crate::store::secrets::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A filter as it stands in a request.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Filter {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    values: Option<Vec<String>>,
}

const KEYS: [&str; 7] =
    ["all", "name", "tag-key", "description", "tag-value", "primary-region", "owning-service"];
const PATTERN: &str = r"^\!?[a-zA-Z0-9 :_@\/\+\=\.\-\!]*$";

/// Checks the filters of a request against the service model.
pub fn check(filters: Option<&[Filter]>, checks: &mut Checks) {
    checks.items("filters", filters.map(<[_]>::len), 0, 10);
    for (i, filter) in filters.unwrap_or_default().iter().enumerate() {
        let at = format!("filters.{}.member", i + 1);
        checks.one_of(&format!("{at}.key"), filter.key.as_deref(), &KEYS);
        checks.items(&format!("{at}.values"), filter.values.as_ref().map(Vec::len), 1, 10);
        for (j, value) in filter.values.iter().flatten().enumerate() {
            let at = format!("{at}.values.{}.member", j + 1);
            checks.length(&at, Some(value), 0, 512);
            checks.pattern(&at, Some(value), PATTERN, is_value);
        }
    }
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b" :_@/+=.-!".contains(&b))
}

/// Filters, ready to be asked.
pub struct Filters(Vec<(Attribute, Vec<Value>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute {
    Name,
    Description,
    TagKey,
    TagValue,
    All,
    /// An attribute that no secret has so far: its primary region, the service that owns it.
    Absent,
}

struct Value {
    negated: bool,
    text: String,
    /// The words, in lower case.
    words: Vec<String>,
}

impl Filters {
    /// Takes the filters of a request that [`check`] has seen.
    pub fn new(filters: Option<&[Filter]>) -> Result<Self> {
        filters.unwrap_or_default().iter().map(read).collect::<Result<_>>().map(Self)
    }

    /// Whether there is no filter at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a secret passes every filter.
    pub fn matches(&self, secret: &Secret) -> bool {
        self.0.iter().all(|(key, values)| {
            values.iter().any(|value| value.negated != holds(*key, value, secret))
        })
    }
}

/// Whether a secret passes every filter.
pub fn matches(filters: &Filters, secret: &Secret) -> bool {
    filters.matches(secret)
}

fn read(filter: &Filter) -> Result<(Attribute, Vec<Value>)> {
    let named = filter.key.as_deref();
    let key = match named {
        Some("name") => Attribute::Name,
        Some("description") => Attribute::Description,
        Some("tag-key") => Attribute::TagKey,
        Some("tag-value") => Attribute::TagValue,
        Some("all") => Attribute::All,
        Some("primary-region" | "owning-service") => Attribute::Absent,
        _ => return Err(Error::new(Condition::InvalidParameter, "Invalid filter key")),
    };
    let values = filter.values.as_deref().filter(|v| !v.is_empty()).ok_or_else(|| {
        let text = format!("Invalid filter values for key: {}", named.unwrap_or_default());
        Error::new(Condition::InvalidParameter, text)
    })?;
    Ok((key, values.iter().map(|text| value(text)).collect()))
}

fn value(text: &str) -> Value {
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    Value { negated, text: text.to_owned(), words: words(text).map(str::to_lowercase).collect() }
}

fn holds(key: Attribute, value: &Value, secret: &Secret) -> bool {
    let tags = || secret.tags.iter().flatten();
    match key {
        Attribute::Name => secret.name.starts_with(&value.text),
        Attribute::Description => {
            secret.description.as_deref().is_some_and(|d| has_words(d, value))
        }
        Attribute::TagKey => tags().any(|tag| tag.key.starts_with(&value.text)),
        Attribute::TagValue => tags().any(|tag| tag.value.starts_with(&value.text)),
        Attribute::All => {
            let own = [Some(secret.name.as_str()), secret.description.as_deref()];
            let tagged = tags().flat_map(|tag| [tag.key.as_str(), tag.value.as_str()]);
            own.into_iter().flatten().chain(tagged).any(|text| has_words(text, value))
        }
        Attribute::Absent => false,
    }
}

/// Whether each of the value's words begins a word of `text`. A value without a word matches
/// nothing.
fn has_words(text: &str, value: &Value) -> bool {
    !value.words.is_empty()
        && value.words.iter().all(|wanted| words(text).any(|word| begins(word, wanted)))
}

/// Whether `word`, in lower case, begins with `wanted`.
fn begins(word: &str, wanted: &str) -> bool {
    let mut lower = word.chars().flat_map(char::to_lowercase);
    wanted.chars().all(|c| lower.next() == Some(c))
}

/// The words of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).flat_map(humps)
}

/// Splits `MyTestURLMaker` before every capital that follows another sort of character, and before
/// the last of several capitals if a small letter follows it.
fn humps(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (first, others) = rest.split_at(hump(rest));
        rest = others;
        Some(first)
    })
}

/// The length of the first hump.
fn hump(word: &str) -> usize {
    let mut chars = word.char_indices().peekable();
    let mut before = chars.next().map(|(_, c)| c);
    while let Some((at, c)) = chars.next() {
        let after_capital = before.is_some_and(char::is_uppercase);
        let before_small = chars.peek().is_some_and(|(_, next)| next.is_lowercase());
        if c.is_uppercase() && (!after_capital || before_small) {
            return at;
        }
        before = Some(c);
    }
    word.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::store::keys::Tag;
    use proptest::prelude::*;

    fn secret(name: &str, description: Option<&str>, tags: &[(&str, &str)]) -> Secret {
        let tag = |(k, v): &(&str, &str)| Tag { key: (*k).into(), value: (*v).into() };
        serde_json::from_value(serde_json::json!({
            "uid": 1, "account": "111122223333", "name": name, "suffix": "AbCdEf",
            "description": description, "created": Time(0), "changed": Time(0),
            "tags": (!tags.is_empty()).then(|| tags.iter().map(tag).collect::<Vec<_>>()),
            "stages": [], "versions": 0, "prune_after": 0, "revision": 1,
        }))
        .expect("a secret")
    }

    fn filters(all: &[(&str, &[&str])]) -> Filters {
        let written: Vec<Filter> = all
            .iter()
            .map(|(key, values)| Filter {
                key: Some((*key).into()),
                values: Some(values.iter().map(|v| (*v).into()).collect()),
            })
            .collect();
        Filters::new(Some(&written)).expect("filters")
    }

    fn hit(key: &str, values: &[&str], secret: &Secret) -> bool {
        filters(&[(key, values)]).matches(secret)
    }

    #[test]
    fn words_end_at_punctuation_and_where_letter_case_changes() {
        let split = |text| words(text).collect::<Vec<_>>();
        assert_eq!(
            split("prod/AppBeta_x+y=z.a@b-c d"),
            ["prod", "App", "Beta", "x", "y", "z", "a", "b", "c", "d"]
        );
        assert_eq!(split("MyTestPhrase"), ["My", "Test", "Phrase"]);
        assert_eq!(split("myTest Mytest"), ["my", "Test", "Mytest"]);
        assert_eq!(split("uat/COMPANYthings"), ["uat", "COMPAN", "Ythings"]);
        assert_eq!(split("SecretFTag"), ["Secret", "F", "Tag"]);
        assert_eq!(split("+/-"), [""; 0]);
        assert_eq!(split("ÄrgerÜber"), ["Ärger", "Über"]);
    }

    #[test]
    fn a_name_a_tag_key_and_a_tag_value_match_by_prefix_with_letter_case() {
        let s = secret("/prod/Db", None, &[("Team", "Blue")]);
        assert!(hit("name", &["/prod"], &s) && !hit("name", &["prod"], &s));
        assert!(!hit("name", &["/Prod"], &s));
        assert!(hit("tag-key", &["Te"], &s) && !hit("tag-key", &["te"], &s));
        assert!(hit("tag-value", &["Bl"], &s) && !hit("tag-value", &["Te"], &s));
        assert!(!hit("tag-key", &["x"], &secret("a", None, &[])));
    }

    #[test]
    fn a_description_matches_by_the_beginnings_of_all_words_of_a_value() {
        let s = secret("a", Some("one and TwoThree"), &[]);
        for good in ["one", "ONE", "o t", "two one", "thr", "One Two Three"] {
            assert!(hit("description", &[good], &s), "{good}");
        }
        for bad in ["ne", "one four", "wo", "", "+"] {
            assert!(!hit("description", &[bad], &s), "{bad}");
        }
        assert!(!hit("description", &["one"], &secret("one", None, &[])));
    }

    #[test]
    fn all_looks_at_every_attribute_but_wants_all_words_in_one() {
        let s = secret("SecretOne1a2b", Some("DescTwo"), &[("foo", "bar baz")]);
        for good in ["SecretOne", "sec", "desc", "foo", "baz bar", "d t"] {
            assert!(hit("all", &[good], &s), "{good}");
        }
        for bad in ["ret", "SomeSecret", "foo bar", "one two"] {
            assert!(!hit("all", &[bad], &s), "{bad}");
        }
    }

    #[test]
    fn values_or_filters_and_an_exclamation_mark_negates() {
        let s = |d| secret("a", Some(d), &[]);
        assert!(hit("description", &["one", "!two"], &s("one and two")));
        assert!(hit("description", &["one", "!two"], &s("unrelated")));
        assert!(!hit("description", &["one", "!two"], &s("two")));
        assert!(hit("name", &["!/"], &s("x")) && !hit("name", &["!a"], &s("x")));
        let both = filters(&[("description", &["one"]), ("description", &["two"])]);
        assert!(both.matches(&s("one two")) && !both.matches(&s("one")));
        assert!(Filters::new(None).expect("none").matches(&s("x")));
    }

    #[test]
    fn no_secret_has_a_primary_region_or_an_owning_service() {
        let s = secret("a", None, &[]);
        assert!(!hit("primary-region", &["us-east-1"], &s) && !hit("owning-service", &[""], &s));
        assert!(hit("owning-service", &["!rds"], &s));
    }

    #[test]
    fn a_filter_without_key_or_values_is_told_as_aws_does_it() {
        let text = |json: &str| {
            let filter: Filter = serde_json::from_str(json).expect("JSON");
            Filters::new(Some(&[filter])).err().map(|e| e.message.into_owned())
        };
        assert_eq!(text(r#"{"Values":["a"]}"#).as_deref(), Some("Invalid filter key"));
        assert_eq!(
            text(r#"{"Key":"description"}"#).as_deref(),
            Some("Invalid filter values for key: description")
        );
    }

    #[test]
    fn bounds_are_those_of_the_service_model() {
        let findings = |json: &str| {
            let filters: Vec<Filter> = serde_json::from_str(json).expect("JSON");
            let mut checks = Checks::default();
            check(Some(&filters), &mut checks);
            checks.finish().err().map(|e| e.message.into_owned()).unwrap_or_default()
        };
        assert_eq!(findings(r#"[{"Key":"name","Values":["!a b/c"]}]"#), "");
        assert_eq!(
            findings(r#"[{"Key":"invalid","Values":["foo"]}]"#),
            "1 validation error detected: Value 'invalid' at 'filters.1.member.key' failed to \
             satisfy constraint: Member must satisfy enum value set: [all, name, tag-key, \
             description, tag-value, primary-region, owning-service]"
        );
        assert!(findings(r#"[{"Key":"name","Values":[]}]"#).contains("filters.1.member.values'"));
        assert!(findings(r#"[{"Key":"name","Values":["a#"]}]"#).contains("values.1.member'"));
    }

    proptest! {
        #[test]
        fn a_negated_value_is_the_complement(
            name in "[a-zA-Z/ ]{1,12}", description in "[a-zA-Z/ ]{0,12}", value in "[a-zA-Z/ ]{0,4}",
            key in "(name|description|tag-key|tag-value|all)",
        ) {
            let s = secret(&name, Some(&description), &[(&description, &name)]);
            prop_assert_ne!(hit(&key, &[&value], &s), hit(&key, &[&format!("!{value}")], &s));
        }

        #[test]
        fn every_beginning_of_every_word_finds_its_text(text in "\\PC{1,24}", cut in 1..4_usize) {
            let s = secret("a", Some(&text), &[]);
            for word in words(&text) {
                let start: String = word.chars().take(cut).collect();
                prop_assert!(hit("description", &[&start], &s), "{start:?}");
            }
        }

        #[test]
        fn the_words_of_a_text_are_its_letters_and_digits(text in "\\PC{0,24}") {
            let kept: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
            prop_assert_eq!(words(&text).collect::<String>(), kept);
        }
    }
}
