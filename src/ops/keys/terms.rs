//! What the cryptographic operations share: encryption contexts, algorithms, recipients, DryRun.

use crate::envelope::context::Context;
use crate::ops::error::{Condition, Error, Result};
use crate::ops::shape::Checks;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// The one algorithm of symmetric encryption keys, and the name of their key spec.
pub(super) const SYMMETRIC_DEFAULT: &str = "SYMMETRIC_DEFAULT";

/// Every encryption algorithm that the API knows.
const ALGORITHMS: [&str; 4] =
    [SYMMETRIC_DEFAULT, "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"];

/// The most that the names and values of an encryption context may have together, bytes.
const MAX_CONTEXT: usize = 8192;

/// An `EncryptionContext` member. As AWS KMS does, it takes numbers and truth values for the text
/// that they are written as.
#[derive(Default)]
pub(super) struct EncryptionContext {
    pairs: Context,
    sound: bool,
}

impl EncryptionContext {
    /// The pairs, if they are acceptable.
    pub(super) fn pairs(context: Option<&Self>) -> Result<&Context> {
        static NONE: Context = Context::new();
        let Some(context) = context else { return Ok(&NONE) };
        let length: usize =
            context.pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if !context.sound || length > MAX_CONTEXT {
            return Err(Error::new(Condition::Validation, "Invalid EncryptionContext"));
        }
        Ok(&context.pairs)
    }
}

impl<'de> Deserialize<'de> for EncryptionContext {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = EncryptionContext;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<EncryptionContext, A::Error> {
                let mut context = EncryptionContext { pairs: Context::new(), sound: true };
                while let Some((name, Literal(value))) = map.next_entry()? {
                    context.sound &= value.is_some();
                    context.pairs.insert(name, value.unwrap_or_default());
                }
                Ok(context)
            }
        }
        d.deserialize_map(Pairs)
    }
}

/// A value of an encryption context; nothing for `null`.
struct Literal(Option<String>);

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Literal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Literal, E> {
                Ok(Literal(Some(text.to_owned())))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> std::result::Result<Literal, E> {
                Ok(Literal(Some(n.to_string())))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> std::result::Result<Literal, E> {
                Ok(Literal(Some(n.to_string())))
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> std::result::Result<Literal, E> {
                Ok(Literal(Some(n.to_string())))
            }
            fn visit_bool<E: de::Error>(self, b: bool) -> std::result::Result<Literal, E> {
                Ok(Literal(Some(b.to_string())))
            }
            fn visit_unit<E: de::Error>(self) -> std::result::Result<Literal, E> {
                Ok(Literal(None))
            }
        }
        d.deserialize_any(Text)
    }
}

impl JsonSchema for EncryptionContext {
    fn schema_name() -> Cow<'static, str> {
        "EncryptionContext".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Context::json_schema(generator)
    }
}

/// Who is to have the plaintext instead of the caller: an attested AWS Nitro enclave. Never served
/// here, and never overlooked: the caller would get what only the enclave may see.
#[derive(Deserialize)]
pub(super) struct Recipient(IgnoredAny);

impl JsonSchema for Recipient {
    fn schema_name() -> Cow<'static, str> {
        "Recipient".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "object", "description": "not supported"})
    }
}

/// Refuses a recipient.
pub(super) fn no_recipient(recipient: Option<&Recipient>) -> Result<()> {
    match recipient {
        None => Ok(()),
        Some(Recipient(IgnoredAny)) => Err(Error::new(
            Condition::Validation,
            "Recipient is not supported: this appliance can't verify the attestation documents of \
             AWS Nitro enclaves.",
        )),
    }
}

/// Checks that an algorithm is one of the API's.
pub(super) fn check_algorithm(checks: &mut Checks, name: &str, algorithm: Option<&str>) {
    checks.one_of(name, algorithm, &ALGORITHMS);
}

/// Refuses an algorithm that is not the symmetric keys'.
pub(super) fn symmetric(algorithm: Option<&str>) -> Result<()> {
    match algorithm {
        None | Some(SYMMETRIC_DEFAULT) => Ok(()),
        Some(other) => Err(Error::new(
            Condition::InvalidKeyUsage,
            format!("Algorithm {other} is incompatible with key spec {SYMMETRIC_DEFAULT}."),
        )),
    }
}

/// Ends a request that asks only whether it would have succeeded: after every check, before the
/// token is used.
pub(super) fn unless_dry(dry_run: Option<bool>) -> Result<()> {
    if dry_run == Some(true) {
        let text = "The request would have succeeded, but the DryRun option is set.";
        return Err(Error::new(Condition::DryRun, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::shape::decode;

    fn pairs(json: &str) -> Result<Context> {
        let context = decode::<EncryptionContext>(json.as_bytes())?;
        EncryptionContext::pairs(Some(&context)).cloned()
    }

    #[test]
    fn numbers_and_truth_values_are_taken_for_their_text() {
        let context = pairs(r#"{"a": 7, "b": -1, "c": 1.5, "d": true, "e": "x"}"#).expect("sound");
        let texts: Vec<&str> = context.values().map(String::as_str).collect();
        assert_eq!(texts, ["7", "-1", "1.5", "true", "x"]);
    }

    #[test]
    fn null_is_no_value_and_a_list_is_no_text() {
        let condition = |json| pairs(json).expect_err("refused").condition;
        assert_eq!(condition(r#"{"a": null}"#), Condition::Validation);
        assert_eq!(condition(r#"{"a": []}"#), Condition::Serialization);
        assert_eq!(condition(r#"["a"]"#), Condition::Serialization);
    }

    #[test]
    fn a_context_may_have_8192_bytes_and_no_more() {
        let of = |n: usize| pairs(&format!(r#"{{"a": "{}"}}"#, "x".repeat(n - 1)));
        assert!(of(8192).is_ok());
        assert_eq!(of(8193).expect_err("too long").message, "Invalid EncryptionContext");
    }

    #[test]
    fn only_the_symmetric_algorithm_fits_a_symmetric_key() {
        assert!(symmetric(None).is_ok());
        assert!(symmetric(Some("SYMMETRIC_DEFAULT")).is_ok());
        assert_eq!(
            symmetric(Some("RSAES_OAEP_SHA_1")).expect_err("refused").message,
            "Algorithm RSAES_OAEP_SHA_1 is incompatible with key spec SYMMETRIC_DEFAULT."
        );
    }

    #[test]
    fn a_recipient_is_never_overlooked() {
        #[derive(Deserialize)]
        struct Input {
            recipient: Option<Recipient>,
        }
        let refused = |json: &str| {
            let input: Input = decode(json.as_bytes()).expect("decodes");
            no_recipient(input.recipient.as_ref()).is_err()
        };
        assert!(refused(r#"{"recipient": {}}"#));
        assert!(refused(r#"{"recipient": {"AttestationDocument": "AA=="}}"#));
        assert!(!refused(r#"{"recipient": null}"#));
    }
}
