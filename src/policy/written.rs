//! A policy document as it is written: the JSON shapes, before anything is made of them.

use crate::json::FromObject;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

impl Document {
    /// Reads a document; else why it is none. A value that does not fit is not repeated: it may be a
    /// secret that somebody gave by mistake, and the reason goes into the answer and the audit log.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let read = serde_json::from_str(text).map(|FromObject(document)| document);
        read.map_err(|error| without_value(&error.to_string()))
    }
}

/// A text of serde's without the value that it quotes: ``invalid type: string "x", expected a map``.
fn without_value(why: &str) -> String {
    let quoted = || {
        let (kind, value) = why.strip_prefix("invalid ")?.split_once(['"', '`'])?;
        let (_, expected) = value.rsplit_once(", expected ")?;
        Some(format!("invalid {}, expected {expected}", kind.trim_end()))
    };
    quoted().unwrap_or_else(|| why.to_owned())
}

/// The whole document.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default, deserialize_with = "present")]
    pub(super) version: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub(super) id: Option<String>,
    pub(super) statement: Many<FromObject<Statement>>,
}

/// One statement.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Statement {
    #[serde(default, deserialize_with = "present")]
    pub(super) sid: Option<String>,
    pub(super) effect: String,
    #[serde(default, deserialize_with = "present")]
    pub(super) principal: Option<Principals>,
    #[serde(default, deserialize_with = "present")]
    pub(super) not_principal: Option<Principals>,
    #[serde(default, deserialize_with = "present")]
    pub(super) action: Option<Many<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) not_action: Option<Many<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) resource: Option<Many<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) not_resource: Option<Many<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) condition: Option<Entries<Entries<Many<Scalar>>>>,
}

/// A member that may be missing, but not `null`.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// Whom a statement names, by class.
pub(super) enum Principals {
    Everyone,
    Named(Entries<Many<String>>),
}

impl<'de> Deserialize<'de> for Principals {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Principals;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"*\" or a map of principals")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == "*" {
                    return Ok(Principals::Everyone);
                }
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Entries::deserialize(MapAccessDeserializer::new(map)).map(Principals::Named)
            }
        }
        d.deserialize_any(Shape)
    }
}

/// A list of at least one, or one without the brackets.
pub(super) struct Many<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Shape<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
            type Value = Many<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one or a list of at least one")
            }
            fn visit_str<E: de::Error>(self, one: &str) -> Result<Many<T>, E> {
                T::deserialize(one.into_deserializer()).map(|one| Many(vec![one]))
            }
            fn visit_bool<E: de::Error>(self, one: bool) -> Result<Many<T>, E> {
                T::deserialize(one.into_deserializer()).map(|one| Many(vec![one]))
            }
            fn visit_i64<E: de::Error>(self, one: i64) -> Result<Many<T>, E> {
                T::deserialize(one.into_deserializer()).map(|one| Many(vec![one]))
            }
            fn visit_u64<E: de::Error>(self, one: u64) -> Result<Many<T>, E> {
                T::deserialize(one.into_deserializer()).map(|one| Many(vec![one]))
            }
            fn visit_f64<E: de::Error>(self, one: f64) -> Result<Many<T>, E> {
                T::deserialize(one.into_deserializer()).map(|one| Many(vec![one]))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Many<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| Many(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Many<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(next) = seq.next_element()? {
                    all.push(next);
                }
                if all.is_empty() {
                    return Err(de::Error::invalid_length(0, &self));
                }
                Ok(Many(all))
            }
        }
        d.deserialize_any(Shape(PhantomData))
    }
}

/// A map in the order in which it was written, no key twice.
pub(super) struct Entries<V>(pub(super) Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Shape<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Shape<V> {
            type Value = Entries<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<V>, A::Error> {
                let mut seen = HashSet::new();
                let mut all = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if !seen.insert(key.clone()) {
                        return Err(de::Error::custom(format!("`{key}` stands twice")));
                    }
                    all.push((key, value));
                }
                Ok(Entries(all))
            }
        }
        d.deserialize_map(Shape(PhantomData))
    }
}

/// A condition's value: text, or a number or truth value without quotes.
pub(super) struct Scalar(pub(super) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Shape;
        impl Visitor<'_> for Shape {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, number or truth value")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }
        d.deserialize_any(Shape)
    }
}
