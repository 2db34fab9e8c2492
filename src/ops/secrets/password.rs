//! GetRandomPassword.

use crate::clock::Random;
use crate::name::Service;
use crate::ops::call::{Allowed, Call, OwnAccount};
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::{Checks, SecretText};
use crate::ops::{Access, Input, Operation, Route};
use crate::secret::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const UPPERCASE: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWERCASE: &str = "abcdefghijklmnopqrstuvwxyz";
const NUMBERS: &str = "0123456789";
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
/// Characters, if nothing is said.
const LENGTH: i64 = 32;
/// Passwords thrown away for want of a type before the generator is held to be broken. The least
/// likely request (4 characters of types of 32, 26, 1 and 1, and a space) succeeds once in 700 tries.
const TRIES: usize = 100_000;

/// GetRandomPassword:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetRandomPassword.html>.
pub struct GetRandomPassword;

/// What [`GetRandomPassword`] takes.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetRandomPasswordInput {
    password_length: Option<i64>,
    exclude_characters: Option<String>,
    exclude_numbers: Option<bool>,
    exclude_punctuation: Option<bool>,
    exclude_uppercase: Option<bool>,
    exclude_lowercase: Option<bool>,
    include_space: Option<bool>,
    require_each_included_type: Option<bool>,
}

impl Input for GetRandomPasswordInput {
    fn check(&self, checks: &mut Checks) {
        checks.range("passwordLength", self.password_length, 1, 4096);
        checks.length("excludeCharacters", self.exclude_characters.as_deref(), 0, 4096);
    }
}

/// What [`GetRandomPassword`] answers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct GetRandomPasswordOutput {
    random_password: SecretText,
}

impl Operation for GetRandomPassword {
    const SERVICE: Service = Service::SecretsManager;
    const NAME: &'static str = "GetRandomPassword";
    const ACCESS: Access = Access::Read;
    const ROUTE: Route = Route { method: "POST", path: "/random-password" };
    type Input = GetRandomPasswordInput;
    type Target = OwnAccount;
    type Output = GetRandomPasswordOutput;

    async fn locate(call: &Call, _: &GetRandomPasswordInput) -> Result<OwnAccount> {
        Ok(OwnAccount::of(call))
    }

    async fn run(
        call: &Call,
        _: Allowed<OwnAccount>,
        input: GetRandomPasswordInput,
    ) -> Result<GetRandomPasswordOutput> {
        let password = Recipe::of(&input)?.password(&*call.world.random)?;
        Ok(GetRandomPasswordOutput { random_password: SecretText(password) })
    }
}

/// What a password is made of.
#[derive(Debug)]
struct Recipe {
    length: usize,
    /// Every character that it may hold, each once; ASCII.
    pool: Vec<u8>,
    /// The types of which it must hold one each.
    required: Vec<Vec<u8>>,
}

impl Recipe {
    /// What a request asks for, unless that is impossible.
    fn of(input: &GetRandomPasswordInput) -> Result<Self> {
        let left_out = input.exclude_characters.as_deref().unwrap_or_default();
        let left = |all: &str| -> Vec<u8> {
            all.chars().filter(|c| !left_out.contains(*c)).map(|c| c as u8).collect()
        };
        let types: Vec<Vec<u8>> = [
            (UPPERCASE, input.exclude_uppercase),
            (LOWERCASE, input.exclude_lowercase),
            (NUMBERS, input.exclude_numbers),
            (PUNCTUATION, input.exclude_punctuation),
        ]
        .into_iter()
        .filter(|(_, excluded)| *excluded != Some(true))
        .map(|(all, _)| left(all))
        .collect();
        let mut pool = types.concat();
        if input.include_space == Some(true) {
            pool.extend(left(" "));
        }
        let length = usize::try_from(input.password_length.unwrap_or(LENGTH)).unwrap_or(0);
        let each = input.require_each_included_type.unwrap_or(true);
        let required = if each { types } else { Vec::new() };
        let recipe = Self { length, pool, required };
        recipe.possible()?;
        Ok(recipe)
    }

    fn possible(&self) -> Result<()> {
        let text = if self.pool.is_empty() {
            "All characters have been excluded from selection."
        } else if self.required.iter().any(Vec::is_empty) {
            "All characters of the desired type have been excluded."
        } else if self.length < self.required.len() {
            "Password length is too short based on the required types."
        } else {
            return Ok(());
        };
        Err(Error::new(Condition::InvalidParameter, text))
    }

    /// A password, each that is possible being as likely as any other: drawn evenly, and thrown
    /// away as a whole if it lacks a type.
    fn password(&self, random: &dyn Random) -> Result<Secret> {
        let mut source = Source { random, bytes: Secret::new(vec![0; 256]), used: 256 };
        for _ in 0..TRIES {
            let mut password = Vec::with_capacity(self.length);
            for _ in 0..self.length {
                password.push(source.one_of(&self.pool)?);
            }
            let password = Secret::new(password);
            let held = |set: &Vec<u8>| password.expose().iter().any(|c| set.contains(c));
            if self.required.iter().all(held) {
                return Ok(password);
            }
        }
        Err(Error::internal("no password came out: the random generator is broken"))
    }
}

/// Random bytes, fetched in bulk.
struct Source<'a> {
    random: &'a dyn Random,
    bytes: Secret,
    used: usize,
}

impl Source<'_> {
    /// One of at most 256 characters, each as likely as any other: a byte beyond the last whole
    /// multiple of their number is thrown away.
    fn one_of(&mut self, pool: &[u8]) -> Result<u8> {
        let even = 256 - 256_usize.checked_rem(pool.len()).unwrap_or(256);
        for _ in 0..TRIES {
            let byte = usize::from(self.byte()?);
            let index = byte.checked_rem(pool.len()).filter(|_| byte < even);
            if let Some(character) = index.and_then(|i| pool.get(i)) {
                return Ok(*character);
            }
        }
        Err(Error::internal("no byte would do: the random generator is broken"))
    }

    fn byte(&mut self) -> Result<u8> {
        if self.used == self.bytes.len() {
            self.random.fill(self.bytes.expose_mut())?;
            self.used = 0;
        }
        self.used += 1;
        let byte = self.bytes.expose().get(self.used - 1).copied();
        byte.ok_or_else(|| Error::internal("random bytes used up"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{NoRandomness, SystemRandom};
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    fn made(json: &str) -> std::result::Result<String, String> {
        let input = serde_json::from_str(json).expect("JSON");
        let password = Recipe::of(&input).and_then(|r| r.password(&SystemRandom));
        let text = |p: Secret| p.expose_str().expect("ASCII").to_owned();
        password.map(text).map_err(|e| e.message.into_owned())
    }

    fn has(password: &str, set: &str) -> bool {
        password.chars().any(|c| set.contains(c))
    }

    #[test]
    fn a_password_has_32_characters_and_one_of_each_type_if_nothing_is_said() {
        let password = made("{}").expect("a password");
        assert_eq!(password.len(), 32);
        for set in [UPPERCASE, LOWERCASE, NUMBERS, PUNCTUATION] {
            assert!(has(&password, set));
        }
        assert!(!password.contains(' '));
        assert_ne!(made("{}"), made("{}"));
    }

    #[test]
    fn the_punctuation_is_all_of_ascii_s() {
        let ascii = (b'!'..=b'~').filter(u8::is_ascii_punctuation).map(char::from);
        assert_eq!(PUNCTUATION, ascii.collect::<String>());
    }

    #[test]
    fn impossible_requests_are_refused_in_aws_s_words() {
        let all = r#""ExcludeUppercase":true,"ExcludeLowercase":true,"ExcludeNumbers":true"#;
        for (json, text) in [
            (
                r#"{"PasswordLength":3}"#.to_owned(),
                "Password length is too short based on the required types.",
            ),
            (
                r#"{"ExcludeCharacters":"0123456789"}"#.to_owned(),
                "All characters of the desired type have been excluded.",
            ),
            (
                format!(r#"{{{all},"ExcludePunctuation":true}}"#),
                "All characters have been excluded from selection.",
            ),
            (
                format!(
                    r#"{{{all},"ExcludePunctuation":true,"IncludeSpace":true,"ExcludeCharacters":" "}}"#
                ),
                "All characters have been excluded from selection.",
            ),
        ] {
            assert_eq!(made(&json), Err(text.to_owned()));
        }
    }

    #[test]
    fn a_type_that_need_not_be_there_may_be_excluded_character_by_character() {
        let json = r#"{"ExcludeCharacters":"0123456789","RequireEachIncludedType":false,
                       "PasswordLength":1}"#;
        let password = made(json).expect("a password");
        assert!(password.len() == 1 && !has(&password, NUMBERS));
    }

    #[test]
    fn a_space_is_let_in_and_never_required() {
        let only = r#"{"ExcludeUppercase":true,"ExcludeLowercase":true,"ExcludeNumbers":true,
                       "ExcludePunctuation":true,"IncludeSpace":true,"PasswordLength":3}"#;
        assert_eq!(made(only), Ok("   ".to_owned()));
    }

    #[test]
    fn the_least_likely_password_is_found() {
        let json = r##"{"PasswordLength":4,"ExcludeCharacters":
            "123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}"}"##;
        let password = made(json).expect("a password");
        assert!(password.contains('0') && password.contains('~') && password.len() == 4);
    }

    #[test]
    fn characters_are_drawn_evenly() {
        /// Every byte value in turn.
        struct Counting(AtomicU8);
        impl Random for Counting {
            fn fill(&self, out: &mut [u8]) -> std::result::Result<(), NoRandomness> {
                out.iter_mut().for_each(|b| *b = self.0.fetch_add(1, Ordering::Relaxed));
                Ok(())
            }
        }
        let random = Counting(AtomicU8::new(0));
        let mut source = Source { random: &random, bytes: Secret::new(vec![0; 256]), used: 256 };
        // 256 = 2 * 95 + 66: of all byte values just 190 may count, each character twice.
        let pool: Vec<u8> = (b' '..=b'~').collect();
        let mut drawn = vec![0; 128];
        for _ in 0..190 {
            drawn[usize::from(source.one_of(&pool).expect("a character"))] += 1;
        }
        assert!(pool.iter().all(|c| drawn[usize::from(*c)] == 2));
    }

    #[test]
    fn a_broken_generator_makes_no_password_and_no_endless_loop() {
        struct Stuck;
        impl Random for Stuck {
            fn fill(&self, out: &mut [u8]) -> std::result::Result<(), NoRandomness> {
                out.fill(255);
                Ok(())
            }
        }
        let recipe = Recipe::of(&GetRandomPasswordInput::default()).expect("possible");
        let outcome = recipe.password(&Stuck).err();
        assert_eq!(outcome.map(|e| e.condition), Some(Condition::Internal));
    }

    proptest! {
        #[test]
        fn a_password_holds_what_was_asked_for_and_nothing_else(
            length in 4..200_i64, left_out in "[a-yA-Y0-8!-.]{0,40}",
            upper: bool, lower: bool, numbers: bool, space: bool, each: bool,
        ) {
            let input = GetRandomPasswordInput {
                password_length: Some(length),
                exclude_characters: Some(left_out.clone()),
                exclude_uppercase: Some(upper),
                exclude_lowercase: Some(lower),
                exclude_numbers: Some(numbers),
                exclude_punctuation: None,
                include_space: Some(space),
                require_each_included_type: Some(each),
            };
            let recipe = Recipe::of(&input).expect("one of each is left");
            let password = recipe.password(&SystemRandom).expect("a password");
            let password = password.expose_str().expect("ASCII");
            prop_assert_eq!(password.len(), usize::try_from(length).unwrap_or(0));
            prop_assert!(!has(password, &left_out));
            for (set, excluded) in [(UPPERCASE, upper), (LOWERCASE, lower), (NUMBERS, numbers), (PUNCTUATION, false)] {
                prop_assert!(!excluded || !has(password, set));
                prop_assert!(excluded || !each || has(password, set));
            }
            prop_assert!(space || !password.contains(' '));
        }
    }
}
