//! Texts that policies compare with, taken apart once: exact ones, beginnings, patterns with
//! wildcards, and those with policy variables
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>).

use super::document::Version;
use super::facts::{Facts, Values};
use super::glob::{Token, fits};

/// What the characters of a text mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Themselves: `*` and `?` are no wildcards.
    Plain,
    /// Wildcards stand for anything.
    Like,
    /// An ARN of a `Resource` element. Wildcards keep to their part, but a `*` that ends a part
    /// may run on beyond the colon, and after the fifth colon they stand for anything
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html>).
    Resource,
    /// An ARN of a condition: each of its six parts is compared by itself
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html#Conditions_ARN>).
    Arn,
}

/// A text to compare with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Fits everything.
    All,
    /// Fits this text.
    Exact(Box<str>),
    /// Fits what begins so.
    Prefix(Box<str>),
    /// Fits what begins and ends so, with a text between that the steps lead through. Most texts
    /// that do not fit are told by their beginning or end.
    Glob { start: Box<str>, steps: Box<[Token]>, end: Box<str> },
    /// Has policy variables: the steps depend on the request.
    Variable(Box<[Piece]>),
    /// Fits nothing: an ARN with too few parts.
    Nothing,
}

/// A part of a text with policy variables.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Steps that are always the same.
    Fixed(Box<[Token]>),
    /// The value of a condition key, character for character, or what stands in for it.
    Value {
        /// In lower case.
        key: Box<str>,
        /// Used if the request does not have the key.
        default: Option<Box<str>>,
    },
}

/// A `${...}` that is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoVariable;

/// What stands between `${` and `}`.
enum Variable<'a> {
    /// `${*}`, `${?}`, `${$}`: the character itself.
    Character(u8),
    /// A condition key.
    Key { key: &'a str, default: Option<&'a str> },
}

/// Splits a text at its first variable: what is before it, the variable, what is after it.
fn first_variable(text: &str) -> Option<Result<(&str, Variable<'_>, &str), NoVariable>> {
    let (before, rest) = text.split_once("${")?;
    let Some((inside, after)) = rest.split_once('}') else { return Some(Err(NoVariable)) };
    Some(variable(inside).map(|variable| (before, variable, after)).ok_or(NoVariable))
}

fn variable(inside: &str) -> Option<Variable<'_>> {
    if let Some(byte) = ["*", "?", "$"].contains(&inside).then(|| inside.bytes().next()).flatten() {
        return Some(Variable::Character(byte));
    }
    let (key, default) = match inside.split_once(',') {
        None => (inside, None),
        Some((key, default)) => {
            let quoted = default.trim().strip_prefix('\'')?.strip_suffix('\'')?;
            (key, Some(quoted))
        }
    };
    let key = key.trim();
    (!key.is_empty()).then_some(Variable::Key { key, default })
}

/// Whether every `${` of a text begins a variable.
pub(super) fn has_sound_variables(mut text: &str) -> bool {
    while let Some(found) = first_variable(text) {
        match found {
            Ok((_, _, after)) => text = after,
            Err(NoVariable) => return false,
        }
    }
    true
}

/// Whether a variable stands before the fifth colon of an ARN, where none may.
pub(super) fn has_early_variable(arn: &str) -> bool {
    arn.split_once("${").is_some_and(|(before, _)| before.matches(':').count() < 5)
}

/// Makes steps of text; remembers how many colons it has passed.
struct Reader {
    reading: Reading,
    colons: usize,
}

impl Reader {
    /// The steps of a text without variables. `last` says that nothing follows it.
    fn steps(&mut self, text: &str, last: bool) -> Vec<Token> {
        let bytes = text.as_bytes();
        let step = |(at, byte): (usize, &u8)| {
            let ends_part = match bytes.get(at + 1) {
                None => last,
                Some(next) => *next == b':',
            };
            if *byte == b':' {
                self.colons += 1;
            }
            self.step(*byte, ends_part)
        };
        bytes.iter().enumerate().map(step).collect()
    }

    fn step(&self, byte: u8, ends_part: bool) -> Token {
        let in_part = match self.reading {
            Reading::Plain => return Token::Byte(byte),
            Reading::Like => false,
            Reading::Resource | Reading::Arn => self.colons < 5,
        };
        match byte {
            b'*' if in_part && !(ends_part && self.reading == Reading::Resource) => {
                Token::RunOfPart
            }
            b'*' => Token::Run,
            b'?' if in_part => Token::OneOfPart,
            b'?' => Token::One,
            byte => Token::Byte(byte),
        }
    }
}

impl Pattern {
    /// Takes a text apart. In a document of 2008 `${` means nothing.
    pub(super) fn new(text: &str, reading: Reading, version: Version) -> Self {
        let mut reader = Reader { reading, colons: 0 };
        let variables = version == Version::V2012 && text.contains("${");
        if !variables {
            let steps = reader.steps(text, true);
            if reading == Reading::Arn && reader.colons < 5 {
                return Self::Nothing;
            }
            return Self::of_steps(steps);
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        let mut open: Vec<Token> = Vec::new();
        while let Some(Ok((before, variable, after))) = first_variable(rest) {
            open.extend(reader.steps(before, false));
            match variable {
                Variable::Character(byte) => open.push(Token::Byte(byte)),
                Variable::Key { key, default } => {
                    pieces.push(Piece::Fixed(std::mem::take(&mut open).into()));
                    let (key, default) = (key.to_ascii_lowercase().into(), default.map(Into::into));
                    pieces.push(Piece::Value { key, default });
                }
            }
            rest = after;
        }
        open.extend(reader.steps(rest, true));
        if reading == Reading::Arn && reader.colons < 5 {
            return Self::Nothing;
        }
        if pieces.is_empty() {
            return Self::of_steps(open);
        }
        pieces.push(Piece::Fixed(open.into()));
        Self::Variable(pieces.into())
    }

    fn of_steps(mut steps: Vec<Token>) -> Self {
        let plain = |step: &Token| matches!(step, Token::Byte(_));
        let (Some(first), Some(last)) = (
            steps.iter().position(|step| !plain(step)),
            steps.iter().rposition(|step| !plain(step)),
        ) else {
            return literal(&steps).map_or(Self::Nothing, Self::Exact);
        };
        let (end, wild) = (steps.split_off(last + 1), steps.split_off(first));
        match (literal(&steps), literal(&end)) {
            (Some(start), Some(end)) => match (wild.as_slice(), start.is_empty(), end.is_empty()) {
                ([Token::Run], true, true) => Self::All,
                ([Token::Run], false, true) => Self::Prefix(start),
                _ => Self::Glob { start, steps: wild.into(), end },
            },
            _ => Self::Nothing,
        }
    }

    /// Whether a text fits; none if a variable has no value in this request.
    pub(super) fn fits(&self, text: &str, facts: &dyn Facts) -> Option<bool> {
        Some(match self {
            Self::All => true,
            Self::Exact(wanted) => **wanted == *text,
            Self::Prefix(beginning) => text.as_bytes().starts_with(beginning.as_bytes()),
            Self::Glob { start, steps, end } => {
                between(text, start, end).is_some_and(|between| fits(steps, between))
            }
            Self::Variable(pieces) => fits(&resolved(pieces, facts)?, text.as_bytes()),
            Self::Nothing => false,
        })
    }

    /// Whether a text is this one, whatever the case of letters; for [`Reading::Plain`].
    pub(super) fn fits_in_any_case(&self, text: &str, facts: &dyn Facts) -> Option<bool> {
        let same = |wanted: &str| {
            wanted.eq_ignore_ascii_case(text)
                || !(wanted.is_ascii() && text.is_ascii())
                    && wanted.to_lowercase() == text.to_lowercase()
        };
        match self {
            Self::Exact(wanted) => Some(same(wanted)),
            Self::Variable(pieces) => {
                Some(literal(&resolved(pieces, facts)?).is_some_and(|text| same(&text)))
            }
            _ => Some(false),
        }
    }
}

/// The text of steps that are all bytes. A text's first and last wildcards stand between whole
/// characters, so this is never half of one.
fn literal(steps: &[Token]) -> Option<Box<str>> {
    let byte = |step: &Token| match step {
        Token::Byte(byte) => Some(*byte),
        _ => None,
    };
    let bytes = steps.iter().map(byte).collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok().map(String::into_boxed_str)
}

/// What stands between a beginning and an end of a text.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a [u8]> {
    text.as_bytes().strip_prefix(start.as_bytes())?.strip_suffix(end.as_bytes())
}

/// The steps in one request; none if a variable has neither value nor default. A key of many
/// values has no value here.
fn resolved(pieces: &[Piece], facts: &dyn Facts) -> Option<Vec<Token>> {
    let mut steps = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Fixed(fixed) => steps.extend_from_slice(fixed),
            Piece::Value { key, default } => match (facts.fact(key), default) {
                (Some(Values::One(value)), _) => steps.extend(value.bytes().map(Token::Byte)),
                (_, Some(default)) => steps.extend(default.bytes().map(Token::Byte)),
                (_, None) => return None,
            },
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::super::facts::NoFacts;
    use super::*;

    struct Named(&'static str);

    impl Facts for Named {
        fn fact(&self, key: &str) -> Option<Values<'_>> {
            match key {
                "aws:username" => Some(Values::one(self.0)),
                "aws:tagkeys" => Some(Values::Many(vec!["a".into()])),
                _ => None,
            }
        }
    }

    fn fit(pattern: &str, reading: Reading, text: &str) -> Option<bool> {
        Pattern::new(pattern, reading, Version::V2012).fits(text, &Named("ada*"))
    }

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/a/b:c";

    #[test]
    fn simple_patterns_are_recognized() {
        let of = |text: &str, reading| Pattern::new(text, reading, Version::V2012);
        assert_eq!(of("*", Reading::Resource), Pattern::All);
        assert_eq!(of("kms:get*", Reading::Like), Pattern::Prefix("kms:get".into()));
        assert_eq!(of("a*", Reading::Plain), Pattern::Exact("a*".into()));
        assert_eq!(of("a${*}b", Reading::Like), Pattern::Exact("a*b".into()));
        assert_eq!(of("arn:*", Reading::Arn), Pattern::Nothing);
        assert!(matches!(of("a*b", Reading::Like), Pattern::Glob { .. }));
        assert!(matches!(of("${aws:username}", Reading::Plain), Pattern::Variable(_)));
    }

    #[test]
    fn wildcards_of_a_resource_keep_to_their_part_unless_they_end_it() {
        let resource = |pattern| fit(pattern, Reading::Resource, KEY) == Some(true);
        for pattern in [
            "arn:aws:kms:*:111122223333:key/a/b:c",
            "arn:aws:kms:eu-*-1:111122223333:key/*",
            "arn:aws:kms:eu-central-?:*:key/?/b?c",
            "arn:aws:kms:eu-central-1:111122223333:*:c",
            // A star at the end of a part may take more parts.
            "arn:aws:kms:*:key/a/b:c",
            "arn:aws:kms:*",
            "arn:*",
        ] {
            assert!(resource(pattern), "{pattern}");
        }
        for pattern in [
            "arn:aws:kms:e*1:key/a/b:c",
            "arn:aws:kms:eu-central-1?111122223333:key/a/b:c",
            "arn:aws:kms:eu-central-1:111122223333:KEY/a/b:c",
            "arn:aws:kms:eu-central-1:111122223333:key/a",
            "arn:aws:secretsmanager:*",
        ] {
            assert!(!resource(pattern), "{pattern}");
        }
    }

    #[test]
    fn an_arn_of_a_condition_is_compared_part_by_part() {
        let arn = |pattern| fit(pattern, Reading::Arn, KEY) == Some(true);
        assert!(arn("arn:aws:kms:*:*:*"));
        assert!(arn("arn:???:kms:eu-*:111122223333:key/*"));
        assert!(!arn("arn:aws:kms:*:key/*"));
        assert!(!arn("arn:aws:kms:*"));
        assert!(!arn("*"));
    }

    #[test]
    fn a_variable_s_value_is_taken_character_for_character() {
        let like = |pattern, text| fit(pattern, Reading::Like, text);
        assert_eq!(like("home/${aws:username}/*", "home/ada*/x"), Some(true));
        assert_eq!(like("home/${aws:username}/*", "home/adam/x"), Some(false));
        assert_eq!(like("${AWS:UserName}", "ada*"), Some(true));
        assert_eq!(like("${aws:userid}", "x"), None);
        assert_eq!(like("${aws:tagkeys}", "a"), None);
        assert_eq!(like("${aws:userid, 'no-*'}", "no-*"), Some(true));
        assert_eq!(like("${aws:userid, 'no-*'}", "no-one"), Some(false));
        assert_eq!(like("${aws:username,'x'}", "ada*"), Some(true));
        assert_eq!(like("a${*}${?}${$}b*", "a*?$bc"), Some(true));
        assert_eq!(like("a${*}b", "axb"), Some(false));
    }

    #[test]
    fn in_a_document_of_2008_variables_mean_nothing() {
        let pattern = Pattern::new("${aws:username}", Reading::Like, Version::V2008);
        assert_eq!(pattern.fits("${aws:username}", &Named("ada")), Some(true));
        assert_eq!(pattern.fits("ada", &Named("ada")), Some(false));
    }

    #[test]
    fn letter_case_can_be_overlooked() {
        let of = |text: &str| Pattern::new(text, Reading::Plain, Version::V2012);
        let name = Named("Ada");
        assert_eq!(of("aBc*").fits_in_any_case("AbC*", &NoFacts), Some(true));
        assert_eq!(of("\u{c9}").fits_in_any_case("\u{e9}", &NoFacts), Some(true));
        assert_eq!(of("x-${aws:username}").fits_in_any_case("X-aDA", &name), Some(true));
        assert_eq!(of("${aws:username}").fits_in_any_case("Adam", &name), Some(false));
        assert_eq!(of("${aws:username}").fits_in_any_case("Ada", &NoFacts), None);
    }

    #[test]
    fn what_is_no_variable_is_found() {
        for sound in ["", "a", "$", "{}", "${aws:username}", "${a:b, 'c'}${*}", "$${?}"] {
            assert!(has_sound_variables(sound), "{sound}");
        }
        for bad in ["${", "${a:b", "${}", "${ }", "${a:b, c}", "${a:b}${"] {
            assert!(!has_sound_variables(bad), "{bad}");
        }
        assert!(has_early_variable("arn:aws:kms:*:${aws:PrincipalAccount}:key/*"));
        assert!(!has_early_variable("arn:aws:kms:*:*:key/${aws:username}"));
        assert!(!has_early_variable("arn:aws:kms:*:*:key/*"));
    }
}
