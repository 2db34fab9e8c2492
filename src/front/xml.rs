//! Answers of the Query protocol: the row's JSON output as XML, and errors.

use super::plan::{self, Plan};
use super::query::namespace;
use crate::name::Service;
use crate::ops::Row;
use crate::secret::Secret;
use http::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// The media type of answers.
pub(super) const MEDIA_TYPE: &str = "text/xml";

/// A row's answer: `<ActionResponse><ActionResult>...`, from its JSON output. An operation without
/// an output has no result element.
///
/// # Errors
/// An output that is no JSON.
pub(super) fn answer(row: &Row, output: &[u8], request_id: &str) -> serde_json::Result<Secret> {
    let mut xml = Xml(Secret::new(Vec::with_capacity(1024 + 2 * output.len())));
    let response = [row.name, "Response"].concat();
    xml.raw("<").raw(&response).raw(" xmlns=\"").raw(namespace(Some(row.service))).raw("\">");
    if let Some(plans) = plan::of(row).filter(|plans| plans.answers) {
        let result = [row.name, "Result"].concat();
        let mut json = serde_json::Deserializer::from_slice(output);
        Element { xml: &mut xml, name: &result, plan: &plans.output }.deserialize(&mut json)?;
    }
    xml.raw("<ResponseMetadata>");
    xml.element("RequestId", request_id).raw("</ResponseMetadata>");
    xml.close(&response);
    Ok(xml.0)
}

/// An error.
pub(super) fn error(
    service: Option<Service>,
    code: &str,
    status: StatusCode,
    message: &str,
    request_id: &str,
) -> Vec<u8> {
    let mut xml = Xml(Secret::new(Vec::with_capacity(512 + 2 * message.len())));
    let kind = if status.is_server_error() { "Receiver" } else { "Sender" };
    xml.raw("<ErrorResponse xmlns=\"").raw(namespace(service)).raw("\"><Error>");
    xml.element("Type", kind).element("Code", code).element("Message", message);
    xml.raw("</Error>").element("RequestId", request_id).close("ErrorResponse");
    xml.0.expose().to_vec()
}

/// XML under construction, in memory that is wiped: an answer may hold a secret access key.
struct Xml(Secret);

impl Xml {
    fn raw(&mut self, text: &str) -> &mut Self {
        self.0.reserve(text.len());
        self.0.expose_mut().extend_from_slice(text.as_bytes());
        self
    }

    fn open(&mut self, name: &str) -> &mut Self {
        self.raw("<").raw(name).raw(">")
    }

    fn close(&mut self, name: &str) -> &mut Self {
        self.raw("</").raw(name).raw(">")
    }

    fn element(&mut self, name: &str, text: &str) -> &mut Self {
        self.open(name).text(text).close(name)
    }

    /// A text. What XML 1.0 can't hold in any way (section 2.2) becomes U+FFFD; a carriage return
    /// is a reference, or a parser would read it as a line feed (section 2.11).
    fn text(&mut self, text: &str) -> &mut Self {
        let mut rest = text;
        while let Some((at, special)) =
            rest.char_indices().find_map(|(at, c)| Some((at, escape(c)?)))
        {
            let (plain, tail) = rest.split_at(at);
            self.raw(plain).raw(special);
            let mut tail = tail.chars();
            tail.next();
            rest = tail.as_str();
        }
        self.raw(rest)
    }
}

fn escape(character: char) -> Option<&'static str> {
    match character {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\r' => Some("&#xD;"),
        '\t' | '\n' => None,
        '\0'..'\x20' | '\u{fffe}' | '\u{ffff}' => Some("\u{fffd}"),
        _ => None,
    }
}

/// Reads a JSON value and writes it as an element; `null` writes nothing.
struct Element<'a> {
    xml: &'a mut Xml,
    name: &'a str,
    plan: &'a Plan,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.xml.element(self.name, text);
        Ok(())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.xml.element(self.name, if truth { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.xml.element(self.name, &number.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.xml.element(self.name, &number.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.xml.element(self.name, &number.to_string());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let plan = if let Plan::List(item) = self.plan { item } else { &Plan::Text };
        self.xml.open(self.name);
        while let Some(()) =
            items.next_element_seed(Element { xml: &mut *self.xml, name: "member", plan })?
        {
        }
        self.xml.close(self.name);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.xml.open(self.name);
        while let Some(key) = members.next_key::<Cow<'de, str>>()? {
            if let Plan::Map(plan) = self.plan {
                self.xml.open("entry").element("key", &key);
                members.next_value_seed(Element { xml: &mut *self.xml, name: "value", plan })?;
                self.xml.close("entry");
            } else {
                let known = if let Plan::Members(all) = self.plan { all.get(&*key) } else { None };
                let plan = known.unwrap_or(&Plan::Text);
                members.next_value_seed(Element { xml: &mut *self.xml, name: &key, plan })?;
            }
        }
        self.xml.close(self.name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::{JsonSchema, schema_for};
    use std::collections::BTreeMap;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is asked for")]
    struct Output {
        names: Vec<String>,
        inner: Option<Inner>,
        summary: BTreeMap<String, i64>,
        no: Option<String>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is asked for")]
    struct Inner {
        truth: bool,
        list: Vec<BTreeMap<String, String>>,
    }

    fn written(json: &str) -> String {
        let plan = plan::whole(&schema_for!(Output).into());
        let mut xml = Xml(Secret::new(Vec::new()));
        let mut json = serde_json::Deserializer::from_str(json);
        Element { xml: &mut xml, name: "R", plan: &plan }.deserialize(&mut json).expect("JSON");
        xml.0.expose_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn lists_maps_and_structures_are_each_written_their_own_way() {
        assert_eq!(
            written(
                r#"{"names":["a","b"],"inner":{"truth":true,"list":[{"k":"v"},{}]},
                    "summary":{"Users":3},"no":null}"#
            ),
            "<R><names><member>a</member><member>b</member></names><inner><truth>true</truth><list>\
             <member><entry><key>k</key><value>v</value></entry></member><member></member></list>\
             </inner><summary><entry><key>Users</key><value>3</value></entry></summary></R>"
        );
    }

    #[test]
    fn every_character_stands_as_a_parser_reads_it_or_as_the_replacement() {
        assert_eq!(
            written(r#"{"names":["<a>&\"'\u0000\u001f\r\n\té\uffff"]}"#),
            "<R><names><member>&lt;a&gt;&amp;&quot;'\u{fffd}\u{fffd}&#xD;\n\té\u{fffd}</member>\
             </names></R>"
        );
    }

    #[test]
    fn an_error_says_whose_fault_it_is() {
        let body = error(Some(Service::Iam), "NoSuchEntity", StatusCode::NOT_FOUND, "a<b", "id");
        assert_eq!(
            String::from_utf8(body).expect("UTF-8"),
            "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error>\
             <Type>Sender</Type><Code>NoSuchEntity</Code><Message>a&lt;b</Message></Error>\
             <RequestId>id</RequestId></ErrorResponse>"
        );
    }
}
