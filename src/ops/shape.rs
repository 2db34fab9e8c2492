//! From JSON to inputs and from outputs to JSON: types of members, checks of their bounds, AWS's
//! texts for what does not fit.

use super::error::{Condition, Error, Result};
use crate::clock::Time;
use crate::json::FromObject;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use zeroize::Zeroizing;

/// An answer's JSON, in memory that is wiped when the last holder lets go.
pub struct Body(Secret);

impl Body {
    /// The bytes, to be sent and wiped.
    pub fn into_secret(self) -> Secret {
        self.0
    }
}

impl From<Secret> for Body {
    fn from(bytes: Secret) -> Self {
        Self(bytes)
    }
}

/// Reads an input; an empty body counts as `{}`.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map(|FromObject(input)| input).map_err(|error| {
        // serde_json's texts may quote the value, which may be secret: they are not passed on.
        let text = match error.classify() {
            serde_json::error::Category::Data => misfit(&error.to_string()),
            _ => "",
        };
        Error::new(Condition::Serialization, text)
    })
}

/// Whether a text is fit for the tags of IAM and STS, `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`: letters, numbers,
/// spaces of any kind and a few signs.
pub fn is_tag(text: &str) -> bool {
    let space = |c: char| c.is_whitespace() && !c.is_control();
    text.chars().all(|c| c.is_alphanumeric() || space(c) || "_.:/=+-@".contains(c))
}

/// Reads a member that is a list of structures: each of them must be a JSON object.
pub fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> std::result::Result<Option<Vec<T>>, D::Error> {
    let list = Option::<Vec<FromObject<T>>>::deserialize(d)?;
    Ok(list.map(|list| list.into_iter().map(|FromObject(item)| item).collect()))
}

/// Reads a member that is a structure: a JSON object, not a list of its members' values.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> std::result::Result<Option<T>, D::Error> {
    Ok(Option::<FromObject<T>>::deserialize(d)?.map(|FromObject(item)| item))
}

/// AWS's text for a value of another type than the member's.
fn misfit(serde_text: &str) -> &'static str {
    let given = |what: &str| {
        ["invalid type: ", "invalid value: "]
            .iter()
            .any(|p| serde_text.strip_prefix(p).is_some_and(|rest| rest.starts_with(what)))
    };
    if given("integer") || given("floating point") || given("number") {
        "NUMBER_VALUE can not be converted to the member's type"
    } else if given("boolean `true`") {
        "TRUE_VALUE can not be converted to the member's type"
    } else if given("boolean `false`") {
        "FALSE_VALUE can not be converted to the member's type"
    } else if given("string") {
        "STRING_VALUE can not be converted to the member's type"
    } else if given("map") {
        "Start of structure or map found where not expected."
    } else if given("sequence") {
        "Start of list found where not expected."
    } else {
        "Unexpected value"
    }
}

/// Writes an output. The buffer is reserved so that it seldom has to move; where it does, the old
/// place is wiped.
pub fn encode<T: Serialize>(output: &T) -> Result<Body> {
    let mut out = Wiping(Secret::new(Vec::with_capacity(1024)));
    serde_json::to_writer(&mut out, output)
        .map_err(|e| Error::internal(format!("an answer that can't be encoded: {e}")))?;
    Ok(Body(out.0))
}

/// A writer that wipes the old place whenever it has to move.
struct Wiping(Secret);

impl std::io::Write for Wiping {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.reserve(bytes.len());
        self.0.expose_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A secret text member (`SecretString`), copied once out of the request.
pub struct SecretText(pub Secret);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = SecretText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<SecretText, E> {
                Ok(SecretText(Secret::copy_of(text.as_bytes())))
            }
        }
        d.deserialize_str(Text)
    }
}

/// Written into answers only; `serde` never sees a [`Secret`] elsewhere.
impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        let text = self.0.expose_str();
        let text = text.ok_or_else(|| serde::ser::Error::custom("not UTF-8"))?;
        s.serialize_str(text)
    }
}

/// A secret blob member (`SecretBinary`, `Plaintext`): base64 in JSON.
pub struct SecretBlob(pub Secret);

impl<'de> Deserialize<'de> for SecretBlob {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = SecretBlob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a base64 string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<SecretBlob, E> {
                let decoded = STANDARD.decode(text);
                Ok(SecretBlob(Secret::new(decoded.map_err(|_| E::custom("bad base64"))?)))
            }
        }
        d.deserialize_str(Base64)
    }
}

/// Written into answers only.
impl Serialize for SecretBlob {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.serialize_str(&Zeroizing::new(STANDARD.encode(self.0.expose())))
    }
}

/// A public blob member (`CiphertextBlob`): base64 in JSON.
pub struct Blob(pub Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(d)?;
        STANDARD.decode(&*text).map(Self).map_err(|_| de::Error::custom("bad base64"))
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

/// The answer of an operation that has nothing to say.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Empty {}

/// A timestamp in an answer: seconds since the epoch as a number, milliseconds behind the point.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(pub Time);

impl Serialize for Epoch {
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ms, the year 287396")]
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.serialize_f64(self.0.0 as f64 / 1000.0)
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "password"})
    }
}

impl JsonSchema for SecretBlob {
    fn schema_name() -> Cow<'static, str> {
        "SecretBlob".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "contentEncoding": "base64", "format": "password"})
    }
}

impl JsonSchema for Blob {
    fn schema_name() -> Cow<'static, str> {
        "Blob".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "contentEncoding": "base64"})
    }
}

impl JsonSchema for Epoch {
    fn schema_name() -> Cow<'static, str> {
        "Epoch".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "description": "seconds since 1970-01-01T00:00:00Z"})
    }
}

/// The member, which [`Checks::required`] has seen to.
pub fn given<'a, T>(member: &'a Option<T>, name: &str) -> Result<&'a T> {
    member.as_ref().ok_or_else(|| {
        let mut checks = Checks::default();
        checks.fail("null", name, "Member must not be null");
        checks.finish().err().unwrap_or_else(|| Error::internal("a check that found nothing"))
    })
}

/// Gathers what does not fit, in AWS's words: all findings stand in one message.
#[derive(Default)]
pub struct Checks {
    findings: Vec<String>,
}

impl Checks {
    /// The member must be there.
    pub fn required<T>(&mut self, name: &str, member: &Option<T>) {
        if member.is_none() {
            self.fail("null", name, "Member must not be null");
        }
    }

    /// A text's length in characters.
    pub fn length(&mut self, name: &str, member: Option<&str>, min: usize, max: usize) {
        let Some(text) = member else { return };
        let len = text.chars().count();
        if !(min..=max).contains(&len) {
            self.count(&quote(text), name, len, min, max);
        }
    }

    /// The number of elements in a list or map.
    pub fn items(&mut self, name: &str, len: Option<usize>, min: usize, max: usize) {
        let Some(len) = len else { return };
        self.count("[...]", name, len, min, max);
    }

    /// A blob's length in bytes; the value is left out, as AWS does it.
    pub fn blob(&mut self, name: &str, len: Option<usize>, min: usize, max: usize) {
        let Some(len) = len else { return };
        if len < min {
            let text = format!("Member must have length greater than or equal to {min}");
            self.fail_unshown(name, &text);
        } else if len > max {
            let text = format!("Member must have length less than or equal to {max}");
            self.fail_unshown(name, &text);
        }
    }

    /// A number's range.
    pub fn range(&mut self, name: &str, member: Option<i64>, min: i64, max: i64) {
        let Some(value) = member else { return };
        if value < min {
            let text = format!("Member must have value greater than or equal to {min}");
            self.fail(&quote(&value.to_string()), name, &text);
        } else if value > max {
            let text = format!("Member must have value less than or equal to {max}");
            self.fail(&quote(&value.to_string()), name, &text);
        }
    }

    /// A text that must satisfy `pattern`, the regular expression of the service model; `fits` is
    /// what this program makes of it.
    pub fn pattern(
        &mut self,
        name: &str,
        member: Option<&str>,
        pattern: &str,
        fits: fn(&str) -> bool,
    ) {
        let Some(text) = member else { return };
        if !fits(text) {
            let rule = format!("Member must satisfy regular expression pattern: {pattern}");
            self.fail(&quote(text), name, &rule);
        }
    }

    /// A text that must be one of the model's enum values.
    pub fn one_of(&mut self, name: &str, member: Option<&str>, values: &[&str]) {
        let Some(text) = member else { return };
        if !values.contains(&text) {
            let rule = format!("Member must satisfy enum value set: [{}]", values.join(", "));
            self.fail(&quote(text), name, &rule);
        }
    }

    /// Notes a finding: the value as it is to be shown, the member in lower-camel case, the rule.
    pub fn fail(&mut self, shown: &str, name: &str, rule: &str) {
        let text = format!("Value {shown} at '{name}' failed to satisfy constraint: {rule}");
        self.findings.push(text);
    }

    /// The same without the value: for blobs and for what the model calls sensitive.
    pub fn fail_unshown(&mut self, name: &str, rule: &str) {
        self.findings.push(format!("Value at '{name}' failed to satisfy constraint: {rule}"));
    }

    /// The message of all findings, if there are any.
    pub fn finish(self) -> Result<()> {
        let n = self.findings.len();
        if n == 0 {
            return Ok(());
        }
        let errors = if n == 1 { "error" } else { "errors" };
        let text = format!("{n} validation {errors} detected: {}", self.findings.join("; "));
        Err(Error::new(Condition::Validation, text))
    }

    fn count(&mut self, shown: &str, name: &str, len: usize, min: usize, max: usize) {
        if len < min {
            let text = format!("Member must have length greater than or equal to {min}");
            self.fail(shown, name, &text);
        } else if len > max {
            let text = format!("Member must have length less than or equal to {max}");
            self.fail(shown, name, &text);
        }
    }
}

/// A value as it is shown in a finding, cut to a length that no log minds.
fn quote(text: &str) -> String {
    const SHOWN: usize = 256;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("'{}...'", text.get(..at).unwrap_or_default()),
        None => format!("'{text}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_stand_in_one_message_in_aws_s_words() {
        let mut checks = Checks::default();
        checks.required("keyId", &None::<String>);
        checks.length("description", Some(""), 1, 10);
        checks.blob("plaintext", Some(4097), 1, 4096);
        checks.range("limit", Some(0), 1, 1000);
        let error = checks.finish().expect_err("four findings");
        assert_eq!(
            error.message,
            "4 validation errors detected: Value null at 'keyId' failed to satisfy constraint: \
             Member must not be null; Value '' at 'description' failed to satisfy constraint: \
             Member must have length greater than or equal to 1; Value at 'plaintext' failed to \
             satisfy constraint: Member must have length less than or equal to 4096; Value '0' at \
             'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
        );
    }

    #[test]
    fn a_moment_is_a_number_of_seconds() {
        let text = serde_json::to_string(&Epoch(Time(1_767_225_600_123))).expect("encodes");
        assert_eq!(text, "1767225600.123");
    }

    #[test]
    fn a_structure_is_an_object_and_no_list_of_its_members() {
        #[derive(Debug, Deserialize)]
        struct Inner {
            key: String,
        }
        #[derive(Debug, Deserialize)]
        struct Input {
            #[serde(default, deserialize_with = "objects")]
            inner: Option<Vec<Inner>>,
        }
        let input = decode::<Input>(br#"{"inner": [{"key": "a"}]}"#).expect("an object");
        assert_eq!(input.inner.expect("a list")[0].key, "a");
        assert!(decode::<Input>(b"{}").expect("a member may be left out").inner.is_none());
        assert!(decode::<Input>(br#"{"inner": null}"#).expect("or null").inner.is_none());
        for body in [&br#"[[{"key": "a"}]]"#[..], br#"{"inner": [["a"]]}"#] {
            let error = decode::<Input>(body).expect_err("a list");
            assert_eq!(error.condition, Condition::Serialization);
            assert_eq!(error.message, "Start of list found where not expected.");
        }
    }

    #[test]
    fn a_misfit_is_told_without_its_value() {
        #[derive(Debug, Deserialize)]
        struct Input {
            #[serde(rename = "Name")]
            _name: String,
        }
        let error = decode::<Input>(br#"{"Name": 31337}"#).expect_err("a number is no string");
        assert_eq!(error.condition, Condition::Serialization);
        assert!(!error.message.contains("31337"));
    }
}
