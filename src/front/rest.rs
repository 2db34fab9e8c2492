//! REST `/v1`: routes made from the same rows, plain JSON with the members of the AWS models.
//!
//! Members in a path are percent-encoded there (`%2F` in a secret's name); those of a GET or DELETE
//! may stand in the query (structures as JSON), everything else in the JSON body. Errors are RFC 9457 problem details.

use super::codes;
use super::door::Refused;
use crate::name::Service;
use crate::ops::error::Condition;
use crate::ops::{Route, Row, TABLE};
use crate::secret::Secret;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What all routes begin with.
pub(super) const PREFIX: &str = "/v1";
/// The media type of answers.
pub(super) const MEDIA_TYPE: &str = "application/json";
/// The media type of errors (RFC 9457).
pub(super) const PROBLEM_TYPE: &str = "application/problem+json";

/// A piece of a route's path.
enum Piece {
    /// Stands as it is.
    Text(&'static str),
    /// A member of the input, and what follows it in the same segment (`:wrap`).
    Member(&'static str, &'static str),
}

struct Pattern {
    row: &'static Row,
    method: &'static str,
    pieces: Vec<Piece>,
}

/// Every route, those with fewer members first, so that fixed words win over members.
static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let mut all: Vec<Pattern> = TABLE
        .iter()
        .map(|row| Pattern { row, method: row.route.method, pieces: pieces(&row.route) })
        .collect();
    all.sort_by_key(|p| {
        let free = |piece: &&Piece| matches!(piece, Piece::Member(_, suffix) if suffix.is_empty());
        let members = p.pieces.iter().filter(|piece| matches!(piece, Piece::Member(..))).count();
        (p.pieces.iter().filter(free).count(), members)
    });
    all
});

/// The JSON type of every member of every input that is not a text, for values in a query.
type Types = BTreeMap<(Service, &'static str), BTreeMap<String, MemberType>>;

/// Made once.
static TYPES: LazyLock<Types> = LazyLock::new(|| {
    TABLE.iter().map(|row| ((row.service, row.name), member_types(row))).collect()
});

#[derive(Clone, Copy, PartialEq, Eq)]
enum MemberType {
    Text,
    /// A number or a truth value: written as it stands.
    Bare,
    /// A list of texts: the parameter is repeated.
    List,
    /// Structures, and lists of them: JSON in one parameter.
    Json,
}

fn pieces(route: &Route) -> Vec<Piece> {
    let segment = |text: &'static str| match text.strip_prefix('{').and_then(|t| t.split_once('}'))
    {
        Some((member, suffix)) => Piece::Member(member, suffix),
        None => Piece::Text(text),
    };
    route.path.trim_start_matches('/').split('/').map(segment).collect()
}

fn member_types(row: &Row) -> BTreeMap<String, MemberType> {
    let schema = row.input_schema();
    let properties = schema.get("properties").and_then(|p| p.as_object());
    let kind = |value: &serde_json::Value| {
        let types = value.get("type");
        let is = |name: &str| match types {
            Some(serde_json::Value::String(t)) => t == name,
            Some(serde_json::Value::Array(all)) => all.iter().any(|t| t == name),
            _ => false,
        };
        if is_json(value) {
            MemberType::Json
        } else if is("integer") || is("number") || is("boolean") {
            MemberType::Bare
        } else if is("array") {
            MemberType::List
        } else {
            MemberType::Text
        }
    };
    properties.into_iter().flatten().map(|(name, value)| (name.clone(), kind(value))).collect()
}

/// Whether a member of this JSON Schema holds structures, so that a query writes it as JSON.
pub(super) fn is_json(schema: &serde_json::Value) -> bool {
    let has = |schema: &serde_json::Value, name| schema.get(name).is_some();
    let texts = |items: &serde_json::Value| items.get("type").is_some_and(|t| t == "string");
    schema.get("items").is_some_and(|items| !texts(items))
        || has(schema, "$ref")
        || has(schema, "anyOf")
        || has(schema, "additionalProperties")
}

/// What a REST request means: a row and the JSON input for it.
pub(super) struct Meant {
    pub(super) row: &'static Row,
    pub(super) input: Secret,
}

/// Finds the row of a method and a path below `/v1`, and puts the input together.
pub(super) fn meant(
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
) -> Result<Meant, Refused> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let mut other_method = false;
    for pattern in PATTERNS.iter() {
        let Some(members) = matches(pattern, &segments) else { continue };
        if pattern.method != method.as_str() {
            other_method = true;
            continue;
        }
        let input = input(pattern.row, &members, query, body)?;
        return Ok(Meant { row: pattern.row, input });
    }
    Err(if other_method {
        refused("MethodNotAllowed", StatusCode::METHOD_NOT_ALLOWED, "this path has other methods")
    } else {
        refused("UnknownOperationException", StatusCode::NOT_FOUND, "there is no such path")
    })
}

type Members = Vec<(&'static str, String)>;

fn matches(pattern: &Pattern, segments: &[&str]) -> Option<Members> {
    if pattern.pieces.len() != segments.len() {
        return None;
    }
    let mut members = Members::new();
    for (piece, segment) in pattern.pieces.iter().zip(segments) {
        match piece {
            Piece::Text(text) if text == segment => {}
            Piece::Text(_) => return None,
            Piece::Member(name, suffix) => {
                let value = segment.strip_suffix(suffix).filter(|v| !v.is_empty())?;
                members.push((name, percent_decode_str(value).decode_utf8().ok()?.into_owned()));
            }
        }
    }
    Some(members)
}

/// The members of path and query, then those of the body, as one JSON object. The body is not
/// parsed here: it may hold secrets, and the row parses it once.
fn input(row: &Row, path: &Members, query: &str, body: &[u8]) -> Result<Secret, Refused> {
    let malformed = |text| refused("SerializationException", StatusCode::BAD_REQUEST, text);
    let mut head = String::from("{");
    let mut add = |name: &str, value: String| {
        if head.len() > 1 {
            head.push(',');
        }
        head.push_str(&text(name));
        head.push(':');
        head.push_str(&value);
    };
    for (name, value) in path {
        add(name, text(value));
    }
    for (name, value) in from_query(row, query).map_err(malformed)? {
        add(&name, value);
    }
    let body = body.trim_ascii();
    let inner = match body {
        [] => b"".as_slice(),
        [b'{', inner @ ..] => inner.trim_ascii(),
        _ => return Err(malformed("the body must be a JSON object")),
    };
    let mut whole = Secret::new(Vec::with_capacity(head.len() + inner.len() + 2));
    let bytes = whole.expose_mut();
    bytes.extend(head.as_bytes());
    match inner {
        b"" => bytes.push(b'}'),
        [b'}', ..] => bytes.extend(inner),
        _ => {
            if head.len() > 1 {
                bytes.push(b',');
            }
            bytes.extend(inner);
        }
    }
    Ok(whole)
}

/// The members in a query, as JSON values of the types that the input has. Parameters of SigV4's
/// own (`X-Amz-...`) are passed over.
fn from_query(row: &Row, query: &str) -> Result<BTreeMap<String, String>, &'static str> {
    let types = TYPES.get(&(row.service, row.name));
    let mut members = BTreeMap::new();
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (unquery(name)?, unquery(value)?);
        if name.starts_with("X-Amz-") {
            continue;
        }
        match types.and_then(|t| t.get(&name)).ok_or("a query parameter is no member here")? {
            MemberType::Bare if is_bare(&value) => drop(members.insert(name, value)),
            MemberType::Bare => return Err("a query parameter must be a number, true or false"),
            MemberType::Text => drop(members.insert(name, text(&value))),
            MemberType::Json if is_valid(&value) => drop(members.insert(name, value)),
            MemberType::Json => return Err("a query parameter must be JSON"),
            MemberType::List => lists.entry(name).or_default().push(text(&value)),
        }
    }
    let lists = lists.into_iter().map(|(name, values)| (name, format!("[{}]", values.join(","))));
    members.extend(lists);
    Ok(members)
}

fn unquery(value: &str) -> Result<String, &'static str> {
    let spaced = value.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| "a query must be UTF-8")?;
    Ok(decoded.into_owned())
}

/// Whether a text is a number or a truth value as JSON writes them.
fn is_bare(value: &str) -> bool {
    matches!(value, "true" | "false") || serde_json::from_str::<serde_json::Number>(value).is_ok()
}

fn is_valid(json: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok()
}

fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn refused(code: &'static str, status: StatusCode, message: &str) -> Refused {
    super::door::refusal(code, status, message.to_owned())
}

/// The status of a condition, as HTTP's own words have it; AWS's JSON protocol says 400 to most.
pub(super) fn status(row: &Row, condition: Condition) -> StatusCode {
    use Condition as C;
    match condition {
        C::AccessDenied | C::NotAuthorized | C::PublicPolicy => StatusCode::FORBIDDEN,
        C::NotFound | C::KeyStoreNotFound | C::ClusterNotFound | C::InvalidGrantId => {
            StatusCode::NOT_FOUND
        }
        C::AlreadyExists | C::Conflict | C::Disabled | C::InvalidState => StatusCode::CONFLICT,
        C::KeyStoreNameInUse | C::KeyStoreHasKeys | C::KeyStoreState | C::ClusterInUse => {
            StatusCode::CONFLICT
        }
        C::Throttled => StatusCode::TOO_MANY_REQUESTS,
        C::KeyUnavailable | C::DependencyTimeout | C::Unavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        other => codes::code(row, other).1,
    }
}

/// RFC 9457 problem details: the AWS code in `type` and `title`, the text in `detail`, the request
/// id in `instance`.
pub(super) fn problem(code: &str, status: StatusCode, detail: &str, request_id: &str) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Problem<'a> {
        r#type: String,
        title: &'a str,
        status: u16,
        detail: &'a str,
        instance: String,
    }
    serde_json::to_vec(&Problem {
        r#type: format!("urn:strongroom:problem:{code}"),
        title: code,
        status: status.as_u16(),
        detail,
        instance: format!("urn:uuid:{request_id}"),
    })
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn parsed(method: &str, path: &str, query: &str, body: &str) -> (String, serde_json::Value) {
        let method = method.parse().expect("a method");
        let meant = meant(&method, path, query, body.as_bytes());
        let meant = meant.unwrap_or_else(|r| panic!("{path}: {}", r.message));
        let input = serde_json::from_slice(meant.input.expose()).expect("JSON");
        (meant.row.name.to_owned(), input)
    }

    #[test]
    fn no_two_operations_share_a_route() {
        let all: HashSet<_> = TABLE.iter().map(|row| (row.route.method, row.route.path)).collect();
        assert_eq!(all.len(), TABLE.len());
    }

    #[test]
    fn path_query_and_body_make_one_input() {
        let (row, input) = parsed("GET", "/secrets/a%2Fb/value", "VersionStage=AWSCURRENT", "");
        assert_eq!(row, "GetSecretValue");
        assert_eq!(input, serde_json::json!({"SecretId": "a/b", "VersionStage": "AWSCURRENT"}));
        let query = "MaxResults=5&Filters=%5B%7B%22Key%22%3A%22name%22%2C%22Values%22%3A%5B%22a%22%5D%7D%5D";
        let (row, input) = parsed("GET", "/secrets", query, "");
        assert_eq!(row, "ListSecrets");
        let filter = serde_json::json!({"Key": "name", "Values": ["a"]});
        assert_eq!(input, serde_json::json!({"Filters": [filter], "MaxResults": 5}));
        let body = r#" { "Plaintext": "aGk=", "EncryptionContext": {"a": "}"} } "#;
        let (row, input) = parsed("POST", "/keys/alias%2Fx:wrap", "", body);
        assert_eq!(row, "Encrypt");
        assert_eq!(input["KeyId"], "alias/x");
        assert_eq!(input["EncryptionContext"]["a"], "}");
    }

    #[test]
    fn what_is_no_route_no_member_or_no_object_is_refused() {
        let code = |method: &str, path: &str, query: &str, body: &str| {
            let method = method.parse().expect("a method");
            meant(&method, path, query, body.as_bytes()).err().map(|r| r.code)
        };
        assert_eq!(code("GET", "/nothing", "", ""), Some("UnknownOperationException"));
        assert_eq!(code("PATCH", "/secrets/a/value", "", ""), Some("MethodNotAllowed"));
        assert_eq!(
            code("GET", "/secrets/a/value", "Colour=red", ""),
            Some("SerializationException")
        );
        assert_eq!(code("GET", "/secrets", "Filters=%7B", ""), Some("SerializationException"));
        assert_eq!(code("GET", "/secrets/a/value", "", "[1]"), Some("SerializationException"));
    }
}
