//! Patterns with wildcards: `*` stands for any run of characters, `?` for any one.

/// A pattern that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<char>);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().collect())
    }

    /// Whether the whole of `text` fits. Takes at most the product of both lengths in steps.
    pub(super) fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut seen) = (0, 0);
        // After the last star: where the pattern goes on, and how far the star reaches so far.
        let mut star: Option<(usize, usize)> = None;
        while let Some(character) = text.get(seen) {
            match (self.0.get(at), star) {
                (Some('*'), _) => {
                    at += 1;
                    star = Some((at, seen));
                }
                (Some(wanted), _) if *wanted == '?' || wanted == character => {
                    at += 1;
                    seen += 1;
                }
                (_, Some((after, reach))) => {
                    at = after;
                    seen = reach + 1;
                    star = Some((after, seen));
                }
                (_, None) => return false,
            }
        }
        self.0.iter().skip(at).all(|rest| *rest == '*')
    }
}
