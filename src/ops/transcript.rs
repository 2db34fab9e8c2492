//! What an audit record tells of a request's input and of an answer: CloudTrail's
//! `requestParameters` and `responseElements`.
//!
//! The members that the JSON Schema of an operation names are copied, their names beginning with a
//! small letter as in CloudTrail. What the schema calls a password is never copied, nor is any
//! blob, nor a token that lets its holder do something: the schema is what decides, so a new
//! operation can't leak by being forgotten.

use crate::name::Service;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// What stands for a secret member in Secrets Manager's records, as in CloudTrail.
const HIDDEN: &str = "\"HIDDEN_DUE_TO_SECURITY_REASONS\"";
/// What stands for a member that is longer than [`LONGEST`].
const OMITTED: &str = "\"OMITTED_DUE_TO_SIZE\"";
/// The longest member that is copied, in bytes.
const LONGEST: usize = 8 * 1024;
/// How deep structures nest at most; deeper ones are copied as they stand.
const DEPTH: usize = 6;
/// Members that are no secret to the schema and let their holder do something all the same.
const POWERS: [&str; 5] =
    ["GrantTokens", "GrantToken", "RotationToken", "WebIdentityToken", "SessionToken"];

/// How a value is copied.
enum Shape {
    /// As it stands.
    Copy,
    /// A word stands for it.
    Hide,
    /// Not at all.
    Drop,
    /// Member by member; what is not named is not copied.
    Members(Vec<Member>),
    /// Element by element.
    Elements(Box<Self>),
}

struct Member {
    name: String,
    lower: String,
    shape: Shape,
}

/// How one operation's input or output is copied, made once.
pub struct Plan(Shape);

impl Plan {
    /// From the JSON Schema of an input or an output.
    pub fn of(service: Service, schema: &schemars::Schema) -> Self {
        let root = schema.as_value();
        let none = Map::new();
        let defs = root.get("$defs").and_then(Value::as_object).unwrap_or(&none);
        Self(shape(service, root, defs, DEPTH))
    }

    /// Copies `json` to `out`, as one line. What is no JSON of this form leaves `null`.
    pub fn copy(&self, json: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        let raw: Result<&RawValue, _> = serde_json::from_slice(json);
        if raw.is_err() || raw.is_ok_and(|raw| write(&self.0, raw, out).is_err()) {
            out.truncate(begin);
            out.extend_from_slice(b"null");
        }
    }
}

impl Plan {
    /// The input that a copy was made of, as far as the copy holds it: its members by their names in
    /// the API. None if something was too long to be copied.
    pub fn restored(&self, copy: &Value) -> Option<Value> {
        restored(&self.0, copy)
    }
}

fn restored(shape: &Shape, copy: &Value) -> Option<Value> {
    if copy.as_str().is_some_and(|text| OMITTED.trim_matches('"') == text) {
        return None;
    }
    match (shape, copy) {
        (Shape::Members(members), Value::Object(given)) => {
            let shown = |m: &&Member| !matches!(m.shape, Shape::Hide | Shape::Drop);
            let member = |m: &Member| {
                let value = given.get(&m.lower)?;
                Some(restored(&m.shape, value).map(|value| (m.name.clone(), value)))
            };
            let all: Option<Map<_, _>> = members.iter().filter(shown).filter_map(member).collect();
            all.map(Value::Object)
        }
        (Shape::Elements(shape), Value::Array(given)) => {
            let all: Option<Vec<_>> = given.iter().map(|value| restored(shape, value)).collect();
            all.map(Value::Array)
        }
        _ => Some(copy.clone()),
    }
}

fn shape(service: Service, schema: &Value, defs: &Map<String, Value>, depth: usize) -> Shape {
    if depth == 0 {
        return Shape::Drop;
    }
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.rsplit('/').next().unwrap_or_default();
        return defs.get(name).map_or(Shape::Drop, |s| shape(service, s, defs, depth));
    }
    if let Some(some) = schema.get("anyOf").and_then(Value::as_array) {
        let real = some.iter().find(|s| s.get("type").and_then(Value::as_str) != Some("null"));
        return real.map_or(Shape::Drop, |s| shape(service, s, defs, depth));
    }
    if schema.get("format").and_then(Value::as_str) == Some("password") {
        return if service == Service::SecretsManager { Shape::Hide } else { Shape::Drop };
    }
    if schema.get("contentEncoding").is_some() {
        return Shape::Drop;
    }
    if let Some(members) = schema.get("properties").and_then(Value::as_object) {
        let member = |(name, schema): (&String, &Value)| Member {
            name: name.clone(),
            lower: lower(name),
            shape: if POWERS.contains(&name.as_str()) {
                Shape::Drop
            } else {
                shape(service, schema, defs, depth - 1)
            },
        };
        return Shape::Members(members.iter().map(member).collect());
    }
    match schema.get("items") {
        Some(items) => match shape(service, items, defs, depth - 1) {
            Shape::Copy => Shape::Copy,
            other => Shape::Elements(Box::new(other)),
        },
        None if is_plain(schema) => Shape::Copy,
        // A structure that the schema does not take apart may hold anything.
        None => Shape::Drop,
    }
}

/// Whether a schema is that of a text, a number, a truth value, or a map of such.
fn is_plain(schema: &Value) -> bool {
    let kinds = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.as_str()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return false,
    };
    let map = || schema.get("additionalProperties").is_some_and(is_plain);
    kinds.iter().all(|kind| match *kind {
        "string" | "integer" | "number" | "boolean" | "null" => true,
        "object" => map(),
        _ => false,
    })
}

/// A name as CloudTrail writes it: `SecretId` is `secretId`, `ARN` is `aRN`.
fn lower(name: &str) -> String {
    let mut chars = name.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

fn write(shape: &Shape, raw: &RawValue, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    match shape {
        Shape::Copy => copy(raw, out),
        Shape::Hide => out.extend_from_slice(HIDDEN.as_bytes()),
        Shape::Drop => out.extend_from_slice(b"null"),
        Shape::Members(members) => {
            let mut inner = serde_json::Deserializer::from_str(raw.get());
            return inner.deserialize_any(Object { members, out });
        }
        Shape::Elements(shape) => {
            let mut inner = serde_json::Deserializer::from_str(raw.get());
            return inner.deserialize_any(List { shape, out });
        }
    }
    Ok(())
}

/// JSON as it stands, without the white space between its tokens if that breaks the line.
fn copy(raw: &RawValue, out: &mut Vec<u8>) {
    let text = raw.get();
    if text.len() > LONGEST {
        out.extend_from_slice(OMITTED.as_bytes());
    } else if text.bytes().any(|b| matches!(b, b'\n' | b'\r')) {
        let value: Result<Value, _> = serde_json::from_str(text);
        out.extend_from_slice(value.unwrap_or(Value::Null).to_string().as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

struct Object<'a> {
    members: &'a [Member],
    out: &'a mut Vec<u8>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a structure")
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.out.push(b'{');
        let mut empty = true;
        while let Some((name, raw)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            let member = self.members.iter().find(|member| member.name == *name);
            let Some(member) = member.filter(|member| !matches!(member.shape, Shape::Drop)) else {
                continue;
            };
            if !empty {
                self.out.push(b',');
            }
            empty = false;
            crate::json::string(self.out, &member.lower);
            self.out.push(b':');
            write(&member.shape, raw, self.out).map_err(de::Error::custom)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

struct List<'a> {
    shape: &'a Shape,
    out: &'a mut Vec<u8>,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let begin = self.out.len();
        self.out.push(b'[');
        while let Some(raw) = list.next_element::<&'de RawValue>()? {
            if self.out.len() > begin + 1 {
                self.out.push(b',');
            }
            write(self.shape, raw, self.out).map_err(de::Error::custom)?;
        }
        self.out.push(b']');
        if self.out.len() - begin > LONGEST {
            self.out.truncate(begin);
            self.out.extend_from_slice(OMITTED.as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;
    use crate::name::Service;
    use crate::ops::find;

    fn taken_down(service: Service, operation: &str, body: &str) -> String {
        let row = find(service, operation).expect("in the table");
        let mut out = Vec::new();
        row.input_plan().expect("a plan").copy(body.as_bytes(), &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn members_are_copied_by_their_small_names_and_secrets_are_not() {
        let body = r#"{"Name": "a", "SecretString": "hunter2", "Unknown": 1, "Tags": [{"Key": "k", "Value": "v"}],
            "ClientRequestToken": "t"}"#;
        assert_eq!(
            taken_down(Service::SecretsManager, "CreateSecret", body),
            r#"{"name":"a","secretString":"HIDDEN_DUE_TO_SECURITY_REASONS","tags":[{"key":"k","value":"v"}],"clientRequestToken":"t"}"#
        );
    }

    #[test]
    fn a_copy_gives_the_input_back_but_for_what_was_hidden_or_too_long() {
        let row = find(Service::SecretsManager, "CreateSecret").expect("in the table");
        let plan = row.input_plan().expect("a plan");
        let body = r#"{"Name":"a","SecretString":"hunter2","Tags":[{"Key":"k","Value":"v"}]}"#;
        let copy = taken_down(Service::SecretsManager, "CreateSecret", body);
        let copy = serde_json::from_str(&copy).expect("JSON");
        let back = serde_json::json!({"Name": "a", "Tags": [{"Key": "k", "Value": "v"}]});
        assert_eq!(plan.restored(&copy), Some(back));
        let long = serde_json::json!({"name": "OMITTED_DUE_TO_SIZE"});
        assert_eq!(plan.restored(&long), None);
    }

    #[test]
    fn plaintexts_blobs_and_grant_tokens_leave_no_trace() {
        let body = r#"{"KeyId":"k","Plaintext":"c2VjcmV0","GrantTokens":["x"],"EncryptionContext":{"A":"B"}}"#;
        assert_eq!(
            taken_down(Service::Kms, "Encrypt", body),
            r#"{"keyId":"k","encryptionContext":{"A":"B"}}"#
        );
        let body = r#"{"CiphertextBlob":"AAAA","EncryptionAlgorithm":"SYMMETRIC_DEFAULT",
            "Recipient":{"AttestationDocument":"c2VjcmV0"}}"#;
        assert_eq!(
            taken_down(Service::Kms, "Decrypt", body),
            r#"{"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}"#
        );
    }

    #[test]
    fn what_no_record_tells_is_on_this_list() {
        let mut left_out = std::collections::BTreeSet::new();
        for row in crate::ops::TABLE {
            let Shape::Members(members) = &row.input_plan().expect("a plan").0 else { continue };
            let dropped = members.iter().filter(|m| matches!(m.shape, Shape::Drop | Shape::Hide));
            left_out.extend(dropped.map(|member| member.name.as_str()));
        }
        let known = [
            "CiphertextBlob",
            "GrantToken",
            "GrantTokens",
            "KeyStorePassword",
            "Plaintext",
            "Recipient",
            "RotationToken",
            "SecretBinary",
            "SecretString",
            "WebIdentityToken",
            "XksProxyAuthenticationCredential",
        ];
        assert_eq!(left_out.into_iter().collect::<Vec<_>>(), known);
    }

    #[test]
    fn a_transcript_is_one_line_however_long_and_broken_the_input() {
        let long = format!("{{\"KeyId\":\"{}\"}}", "k".repeat(9000));
        assert_eq!(
            taken_down(Service::Kms, "DescribeKey", &long),
            r#"{"keyId":"OMITTED_DUE_TO_SIZE"}"#
        );
        let spread = "{\"EncryptionContext\": {\n\"a\": \"b\\n\"\n}}";
        assert_eq!(
            taken_down(Service::Kms, "Encrypt", spread),
            "{\"encryptionContext\":{\"a\":\"b\\n\"}}"
        );
        for broken in ["", "[", "[]", "7", "{\"KeyId\":"] {
            assert_eq!(taken_down(Service::Kms, "Encrypt", broken), "null", "{broken}");
        }
    }
}
