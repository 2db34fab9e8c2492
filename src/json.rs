//! JSON objects. Of texts, written straight into a buffer: for the two hot writers (audit records
//! and secret values), where a general serializer's byte-by-byte escaping was most of the cost. And
//! structures that are read from an object and from nothing else.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// A structure that is read from a JSON object alone. A derived `Deserialize` takes a list of the
/// members' values as well, which nothing of AWS's does.
pub struct FromObject<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for FromObject<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = FromObject<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FromObject<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(FromObject)
            }
        }
        d.deserialize_map(Members(PhantomData))
    }
}

/// An object under construction; the buffer should have room enough, or it has to move.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Begins an object at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// A member with a text.
    pub fn text(&mut self, name: &'static str, value: &str) -> &mut Self {
        string(self.name(name), value);
        self
    }

    /// A member with JSON that is written already: a number, `true`, a list.
    pub fn raw(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.name(name).extend_from_slice(value.as_bytes());
        self
    }

    /// A member that is a list, its elements written already with commas between them.
    pub fn raws(&mut self, name: &'static str, elements: &str) -> &mut Self {
        let out = self.name(name);
        out.push(b'[');
        out.extend_from_slice(elements.as_bytes());
        out.push(b']');
        self
    }

    /// A member that is a list, each element written by `each`.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
        each: impl Fn(&mut Vec<u8>, T),
    ) -> &mut Self {
        let out = self.name(name);
        out.push(b'[');
        for (i, value) in values.into_iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            each(out, value);
        }
        out.push(b']');
        self
    }

    /// A member that is an object.
    pub fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let mut inner = Object::begin(self.name(name));
        fill(&mut inner);
        inner.end();
        self
    }

    /// Ends the object.
    pub fn end(&mut self) {
        self.out.push(b'}');
    }

    /// The name of a member (no character in it needs an escape) and its colon.
    fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.empty { b"\"" } else { b",\"" });
        self.empty = false;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }
}

/// Writes a text as a JSON string (RFC 8259 section 7).
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Most texts have nothing to escape: a scan without a branch, then one copy.
    if rest.iter().fold(false, |any, byte| any | special(*byte)) {
        while let Some(at) = rest.iter().position(|byte| special(*byte)) {
            let (plain, tail) = rest.split_at(at);
            out.extend_from_slice(plain);
            let Some((byte, tail)) = tail.split_first() else { break };
            escape(out, *byte);
            rest = tail;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_text_reads_back_as_it_was(text in "\\PC*|[\\x00-\\x7f]*|(\"|\\\\|\n|é|\u{7f}){0,40}") {
            let mut out = Vec::new();
            string(&mut out, &text);
            let read: String = serde_json::from_slice(&out).expect("JSON");
            prop_assert_eq!(read, text);
        }
    }

    #[test]
    fn members_lists_and_objects_are_joined_by_commas() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.text("a", "x\"y").raw("b", "1.5").list("c", ["p", "q"], string);
        object
            .object("d", |inner| {
                inner.text("e", "");
            })
            .end();
        assert_eq!(out, br#"{"a":"x\"y","b":1.5,"c":["p","q"],"d":{"e":""}}"#);
    }
}
