//! AWS Query: a form names version, action and members; the answer is XML.
//!
//! `Tags.member.1.Key=a` is a member of a structure in a list, `Context.entry.1.key=a` and
//! `Context.entry.1.value=b` an entry of a map. What the operation does not know is passed over, as
//! AWS does it.
//!
//! Source: <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html>.

use super::door::{Refused, refusal};
use super::plan::{self, Plan};
use crate::name::Service;
use crate::ops::{self, Row};
use crate::secret::Secret;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;

/// The media type of requests.
const FORM: &str = "application/x-www-form-urlencoded";
/// Most parameters of a request.
pub const MAX_PARAMETERS: usize = 4096;
/// The longest name of a parameter, in bytes.
pub const MAX_NAME: usize = 512;
/// The most dots in a parameter's name.
pub const MAX_DEPTH: usize = 12;

/// Whether a request speaks this protocol: a form, or a GET whose query names an action.
pub(super) fn spoken(method: &Method, query: &str, headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match *method {
        Method::POST => {
            let media = media.split(';').next().unwrap_or_default();
            media.trim().eq_ignore_ascii_case(FORM)
        }
        Method::GET => query.split('&').any(|pair| pair.starts_with("Action=")),
        _ => false,
    }
}

/// The service whose API has this version.
fn service(version: &str) -> Option<Service> {
    match version {
        "2010-05-08" => Some(Service::Iam),
        "2011-06-15" => Some(Service::Sts),
        _ => None,
    }
}

/// The XML namespace of a service's answers, and of errors before the service is known.
pub(super) fn namespace(service: Option<Service>) -> &'static str {
    match service {
        Some(Service::Iam) => "https://iam.amazonaws.com/doc/2010-05-08/",
        Some(Service::Sts) => "https://sts.amazonaws.com/doc/2011-06-15/",
        _ => "http://webservices.amazon.com/AWSFault/2005-15-09",
    }
}

/// What a Query request means: a row and the JSON input for it.
pub(super) struct Meant {
    pub(super) row: &'static Row,
    pub(super) input: Secret,
}

/// Finds the row that query and form name, and makes its JSON input.
pub(super) fn meant(query: &str, form: &[u8]) -> Result<Meant, Refused> {
    let malformed =
        |text: &str| refusal("MalformedInput", StatusCode::BAD_REQUEST, text.to_owned());
    let form = std::str::from_utf8(form).map_err(|_| malformed("a form must be UTF-8"))?;
    let parameters = Parameters::parse(&[query, form]).map_err(malformed)?;
    let row = row(&parameters)?;
    let input = parameters.input(row).map_err(|text| Refused {
        service: Some(row.service),
        operation: row.name.to_owned(),
        ..malformed(&text)
    })?;
    Ok(Meant { row, input })
}

/// The JSON input that a form means, if it means any.
pub fn input_of(form: &[u8]) -> Option<Secret> {
    meant("", form).ok().map(|meant| meant.input)
}

fn row(parameters: &Parameters) -> Result<&'static Row, Refused> {
    let named = |name: &str| parameters.text(name).filter(|text| !text.is_empty());
    let Some(action) = named("Action") else {
        let text = "The request must contain the parameter Action.";
        return Err(refusal("MissingAction", StatusCode::BAD_REQUEST, text.to_owned()));
    };
    let version = named("Version").unwrap_or("NO_VERSION_SPECIFIED");
    let service = service(version);
    service.and_then(|service| ops::find(service, action)).ok_or_else(|| Refused {
        service,
        operation: cut(action).to_owned(),
        code: "InvalidAction",
        status: StatusCode::BAD_REQUEST,
        message: format!("Could not find operation {} for version {}", cut(action), cut(version)),
    })
}

/// As much of a name as is said again.
fn cut(text: &str) -> &str {
    text.char_indices().nth(128).map_or(text, |(at, _)| text.get(..at).unwrap_or_default())
}

/// The parameters of a request by the parts of their names.
#[derive(Default)]
pub struct Parameters {
    value: Option<Secret>,
    inner: BTreeMap<String, Self>,
}

impl Parameters {
    /// Reads forms, which together must not name a parameter twice. Parameters of SigV4's own
    /// (`X-Amz-...`) are passed over.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn parse(forms: &[&str]) -> Result<Self, &'static str> {
        let mut all = Self::default();
        let pairs = forms.iter().flat_map(|form| form.split('&')).filter(|pair| !pair.is_empty());
        for (count, pair) in pairs.enumerate() {
            if count >= MAX_PARAMETERS {
                return Err("a request has too many parameters");
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name.len() > MAX_NAME {
                return Err("the name of a parameter is too long");
            }
            let name = decoded(name)?;
            let name = name.expose_str().unwrap_or_default();
            if !name.starts_with("X-Amz-") {
                all.put(name, decoded(value)?)?;
            }
        }
        Ok(all)
    }

    fn put(&mut self, name: &str, value: Secret) -> Result<(), &'static str> {
        if name.bytes().filter(|b| *b == b'.').count() > MAX_DEPTH {
            return Err("the name of a parameter has too many parts");
        }
        let mut place = self;
        for part in name.split('.') {
            place = place.inner.entry(part.to_owned()).or_default();
        }
        match place.value.replace(value) {
            None => Ok(()),
            Some(_) => Err("a parameter must not be repeated"),
        }
    }

    /// The value of a parameter at the top.
    fn text(&self, name: &str) -> Option<&str> {
        self.inner.get(name)?.value.as_ref()?.expose_str()
    }

    fn input(&self, row: &Row) -> Result<Secret, String> {
        let mut out = Secret::new(Vec::with_capacity(1024));
        match plan::of(row) {
            Some(plans) => write(&mut out, "the request", self, &plans.input)?,
            None => push(&mut out, b"{}"),
        }
        Ok(out)
    }

    /// The numbered ones, in order; gaps between numbers mean nothing.
    fn numbered(&self) -> Result<BTreeMap<u32, &Self>, String> {
        let number = |(name, inner): (&String, _)| match name.parse() {
            Ok(number) => Ok((number, inner)),
            Err(_) => Err("a list is numbered `member.1`, a map `entry.1`".to_owned()),
        };
        self.inner.iter().map(|(name, inner): (&String, &Self)| number((name, inner))).collect()
    }
}

/// The text that `+` and `%` stand for in a form.
fn decoded(raw: &str) -> Result<Secret, &'static str> {
    let mut text = Secret::new(Vec::with_capacity(raw.len()));
    for (i, piece) in raw.split('+').enumerate() {
        if i > 0 {
            text.expose_mut().push(b' ');
        }
        text.expose_mut().extend(percent_decode_str(piece));
    }
    match text.expose_str() {
        Some(_) => Ok(text),
        None => Err("a parameter must be UTF-8"),
    }
}

/// Writes what was given for a member as JSON.
fn write(out: &mut Secret, name: &str, given: &Parameters, plan: &Plan) -> Result<(), String> {
    let text = given.value.as_ref().and_then(Secret::expose_str);
    match plan {
        Plan::Members(members) => write_members(out, given, members),
        Plan::List(item) => write_list(out, name, given, item),
        Plan::Map(item) => write_map(out, name, given, item),
        Plan::Text => {
            let text = text.ok_or_else(|| format!("`{name}` must be a text"))?;
            string(out, text);
            Ok(())
        }
        Plan::Number => {
            let number = text.and_then(|text| text.parse::<i64>().ok());
            let number = number.ok_or_else(|| format!("`{name}` must be a number"))?;
            push(out, number.to_string().as_bytes());
            Ok(())
        }
        Plan::Truth => {
            let truth = text.filter(|text| matches!(*text, "true" | "false"));
            push(out, truth.ok_or_else(|| format!("`{name}` must be true or false"))?.as_bytes());
            Ok(())
        }
    }
}

fn write_members(
    out: &mut Secret,
    given: &Parameters,
    members: &BTreeMap<String, Plan>,
) -> Result<(), String> {
    let known =
        members.iter().filter_map(|(name, plan)| Some((name, plan, given.inner.get(name)?)));
    push(out, b"{");
    for (i, (name, plan, value)) in known.enumerate() {
        comma(out, i);
        string(out, name);
        push(out, b":");
        write(out, name, value, plan)?;
    }
    push(out, b"}");
    Ok(())
}

/// A list; `Name=` alone is an empty one.
fn write_list(out: &mut Secret, name: &str, given: &Parameters, item: &Plan) -> Result<(), String> {
    push(out, b"[");
    if let Some(members) = given.inner.get("member") {
        for (i, value) in members.numbered()?.into_values().enumerate() {
            comma(out, i);
            write(out, name, value, item)?;
        }
    } else if given.value.as_ref().is_none_or(|value| !value.is_empty()) {
        return Err(format!("`{name}` must be a list: `{name}.member.1`"));
    }
    push(out, b"]");
    Ok(())
}

fn write_map(out: &mut Secret, name: &str, given: &Parameters, item: &Plan) -> Result<(), String> {
    let wrong = || format!("`{name}` must be a map: `{name}.entry.1.key`, `{name}.entry.1.value`");
    push(out, b"{");
    if let Some(entries) = given.inner.get("entry") {
        for (i, entry) in entries.numbered()?.into_values().enumerate() {
            comma(out, i);
            let value = entry.inner.get("value").ok_or_else(wrong)?;
            string(out, entry.text("key").ok_or_else(wrong)?);
            push(out, b":");
            write(out, name, value, item)?;
        }
    } else if given.value.as_ref().is_none_or(|value| !value.is_empty()) {
        return Err(wrong());
    }
    push(out, b"}");
    Ok(())
}

fn comma(out: &mut Secret, before: usize) {
    if before > 0 {
        push(out, b",");
    }
}

/// Writes a JSON string; the buffer is reserved for the worst case, so that it moves wiped.
fn string(out: &mut Secret, text: &str) {
    out.reserve(text.len().saturating_mul(6).saturating_add(2));
    crate::json::string(out.expose_mut(), text);
}

fn push(out: &mut Secret, bytes: &[u8]) {
    out.reserve(bytes.len());
    out.expose_mut().extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::{JsonSchema, schema_for};
    use serde_json::json;
    use std::collections::BTreeMap as Map;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is asked for")]
    struct Tag {
        #[schemars(rename = "Key")]
        key: Option<String>,
        #[schemars(rename = "Value")]
        value: Option<String>,
    }

    #[derive(JsonSchema)]
    #[schemars(rename_all = "PascalCase")]
    #[expect(dead_code, reason = "only the schema is asked for")]
    struct Input {
        role_name: Option<String>,
        tags: Option<Vec<Tag>>,
        names: Option<Vec<String>>,
        context: Option<Map<String, String>>,
        one: Option<Tag>,
        max_items: Option<i64>,
        force: Option<bool>,
    }

    fn read(form: &str) -> Result<serde_json::Value, String> {
        let parameters = Parameters::parse(&[form])?;
        let mut out = Secret::new(Vec::new());
        write(&mut out, "the request", &parameters, &plan::whole(&schema_for!(Input).into()))?;
        Ok(serde_json::from_slice(out.expose()).expect("JSON"))
    }

    #[test]
    fn a_form_becomes_the_json_that_the_schema_asks_for() {
        let form = "Action=X&Version=1&RoleName=a+b%2Bc%22&Tags.member.2.Key=two&Tags.member.2.Value=\
            &Tags.member.10.Key=ten&Tags.member.1.Key=one&Names.member.1=p&Names.member.2=q\
            &Context.entry.1.key=k&Context.entry.1.value=v&One.Key=x&MaxItems=007&Force=true";
        let expected = json!({
            "RoleName": "a b+c\"",
            "Tags": [{"Key": "one"}, {"Key": "two", "Value": ""}, {"Key": "ten"}],
            "Names": ["p", "q"],
            "Context": {"k": "v"},
            "One": {"Key": "x"},
            "MaxItems": 7,
            "Force": true,
        });
        assert_eq!(read(form), Ok(expected));
    }

    #[test]
    fn an_empty_list_is_a_list_and_the_unknown_is_passed_over() {
        assert_eq!(
            read("Tags=&Colour=red&Names.other=1"),
            Err("`Names` must be a list: `Names.member.1`".to_owned())
        );
        assert_eq!(
            read("Tags=&Context=&Colour.member.1=red"),
            Ok(json!({"Tags": [], "Context": {}}))
        );
        assert_eq!(read(""), Ok(json!({})));
    }

    #[test]
    fn what_does_not_fit_is_refused_in_a_sentence() {
        for (form, why) in [
            ("MaxItems=seven", "`MaxItems` must be a number"),
            ("MaxItems=", "`MaxItems` must be a number"),
            ("Force=yes", "`Force` must be true or false"),
            ("RoleName.member.1=a", "`RoleName` must be a text"),
            ("Names=a", "`Names` must be a list: `Names.member.1`"),
            ("Names.member.x=a", "a list is numbered `member.1`, a map `entry.1`"),
            ("Names.member.1=a&Names.member.1=b", "a parameter must not be repeated"),
            ("RoleName=%ff", "a parameter must be UTF-8"),
            ("a.b.c.d.e.f.g.h.i.j.k.l.m.n=1", "the name of a parameter has too many parts"),
        ] {
            assert_eq!(read(form), Err(why.to_owned()), "{form}");
        }
        let many = "a=1&".repeat(MAX_PARAMETERS + 1);
        assert_eq!(read(&many), Err("a parameter must not be repeated".to_owned()));
        let many: Vec<String> = (0..=MAX_PARAMETERS).map(|i| format!("a{i}=1")).collect();
        assert_eq!(read(&many.join("&")), Err("a request has too many parameters".to_owned()));
        let long = format!("{}=1", "a".repeat(MAX_NAME + 1));
        assert_eq!(read(&long), Err("the name of a parameter is too long".to_owned()));
    }

    #[test]
    fn version_and_action_name_the_row() {
        let code = |form: &str| meant("", form.as_bytes()).err().map(|r| (r.code, r.message));
        let (code_, text) = code("Action=MakeCoffee&Version=2011-06-15").expect("refused");
        assert_eq!(code_, "InvalidAction");
        assert_eq!(text, "Could not find operation MakeCoffee for version 2011-06-15");
        let (_, text) = code("Action=GetCallerIdentity").expect("refused");
        assert_eq!(
            text,
            "Could not find operation GetCallerIdentity for version NO_VERSION_SPECIFIED"
        );
        assert_eq!(code("Version=2011-06-15").map(|c| c.0), Some("MissingAction"));
        let found = meant("Action=GetCallerIdentity", b"Version=2011-06-15");
        assert!(found.is_ok_and(|m| m.row.name == "GetCallerIdentity"));
    }
}
