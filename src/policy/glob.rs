//! Patterns with `*` and `?`: taken apart once, matched without memory and without going back
//! further than the last star of each sort, so that no pattern takes more steps than its length
//! times that of the text.

/// One step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// This byte.
    Byte(u8),
    /// `?`: one character.
    One,
    /// `*`: any run of characters.
    Run,
    /// `?` in one of an ARN's first five parts: one character of that part.
    OneOfPart,
    /// `*` in one of an ARN's first five parts: any run of characters of that part.
    RunOfPart,
}

/// A pattern without variables, for whoever needs no more of policies than this.
#[derive(Clone, Debug)]
pub struct Glob(Box<[Token]>);

impl Glob {
    /// Takes a pattern apart.
    pub fn new(text: &str) -> Self {
        let token = |byte: u8| match byte {
            b'*' => Token::Run,
            b'?' => Token::One,
            byte => Token::Byte(byte),
        };
        Self(text.bytes().map(token).collect())
    }

    /// Whether the whole of a text is as the pattern says.
    pub fn fits(&self, text: &str) -> bool {
        fits(&self.0, text.as_bytes())
    }
}

impl Token {
    /// How many bytes of the text from `at` on it stands for; none if it does not fit, or is a run.
    fn step(self, text: &[u8], at: usize) -> Option<usize> {
        let byte = *text.get(at)?;
        match self {
            Self::Byte(wanted) => (wanted == byte).then_some(1),
            Self::OneOfPart if byte == b':' => None,
            Self::One | Self::OneOfPart => Some(character(text, at)),
            Self::Run | Self::RunOfPart => None,
        }
    }
}

/// The length of the UTF-8 character at `at`.
fn character(text: &[u8], at: usize) -> usize {
    let rest = text.get(at + 1..).unwrap_or_default();
    1 + rest.iter().take_while(|byte| **byte & 0xC0 == 0x80).count()
}

/// Whether a text is as a pattern says.
///
/// After a run that may be anything, the first place where what follows fits is the best one: what
/// comes later has the most text left. So no earlier run of that sort is ever tried again, and a
/// run inside a part is tried again only until the part ends.
pub(super) fn fits(pattern: &[Token], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after a run, and from which place of the text it was tried last.
    let mut run: Option<(usize, usize)> = None;
    let mut run_of_part = run;
    loop {
        match pattern.get(p) {
            None if t == text.len() => return true,
            Some(Token::Run) => {
                p += 1;
                (run, run_of_part) = (Some((p, t)), None);
                continue;
            }
            Some(Token::RunOfPart) => {
                p += 1;
                run_of_part = Some((p, t));
                continue;
            }
            Some(token) => {
                if let Some(taken) = token.step(text, t) {
                    (p, t) = (p + 1, t + taken);
                    continue;
                }
            }
            None => {}
        }
        let longer = |from: usize| text.get(from).is_some_and(|byte| *byte != b':');
        if let Some((after, from)) = run_of_part.filter(|(_, from)| longer(*from)) {
            (p, t) = (after, from + 1);
            run_of_part = Some((p, t));
        } else if let Some((after, from)) = run.filter(|(_, from)| *from < text.len()) {
            (p, t) = (after, from + 1);
            (run, run_of_part) = (Some((p, t)), None);
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `*` and `?` of anything, `+` and `.` of a part.
    fn tokens(pattern: &str) -> Vec<Token> {
        let token = |byte| match byte {
            b'*' => Token::Run,
            b'?' => Token::One,
            b'+' => Token::RunOfPart,
            b'.' => Token::OneOfPart,
            byte => Token::Byte(byte),
        };
        pattern.bytes().map(token).collect()
    }

    /// What `fits` must answer, by trying everything.
    fn by_trial(pattern: &[Token], text: &[char]) -> bool {
        let Some((token, rest)) = pattern.split_first() else { return text.is_empty() };
        let first = text.first();
        let one = |fits: bool| fits && by_trial(rest, &text[1..]);
        match token {
            Token::Byte(byte) => one(first == Some(&char::from(*byte))),
            Token::One => one(first.is_some()),
            Token::OneOfPart => one(first.is_some_and(|c| *c != ':')),
            Token::Run => (0..=text.len()).any(|n| by_trial(rest, &text[n..])),
            Token::RunOfPart => {
                let part = text.iter().take_while(|c| **c != ':').count();
                (0..=part).any(|n| by_trial(rest, &text[n..]))
            }
        }
    }

    #[test]
    fn wildcards_stand_for_any_run_and_any_one_character() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c*", "ac", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a?c", "a\u{e9}c", true),
            ("a??c", "a\u{e9}c", false),
            ("*ab", "aab", true),
            ("a*b", "acd", false),
            ("ab", "abc", false),
            ("a+:c", "abb:c", true),
            ("a+c", "ab:c", false),
            ("a*c", "ab:c", true),
            ("a.c", "a:c", false),
            ("*:b+d*", "a:bc:bd", true),
        ] {
            assert_eq!(fits(&tokens(pattern), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let long = "a".repeat(2000);
        assert!(!fits(&tokens(&format!("{}b", "*a".repeat(500))), long.as_bytes()));
        let parts = "a:".repeat(1000);
        assert!(!fits(&tokens(&format!("{}b", "*:+a+".repeat(200))), parts.as_bytes()));
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_trying_everything(
            // Runs of anything are followed by a colon or the end, as ARN patterns have them, or
            // there are none of a part.
            pattern in "(([ab+.]{0,3}\\*?:){0,3}[ab?*]{0,5})|([ab?*]{0,8})",
            text in "[ab:\u{e9}]{0,10}",
        ) {
            let chars: Vec<char> = text.chars().collect();
            let tokens = tokens(&pattern);
            prop_assert_eq!(fits(&tokens, text.as_bytes()), by_trial(&tokens, &chars));
        }
    }
}
