//! What the members of an operation are, read once from its JSON Schema: the Query protocol writes
//! lists, maps and structures each in a way of its own, and says nothing of types.

use crate::name::Service;
use crate::ops::{Row, TABLE};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// How deep members are followed; no operation's input or output is nearly as deep.
const DEPTH: usize = 16;

/// What a member is.
pub(super) enum Plan {
    /// A text, or a blob in base64.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Truth,
    /// A list of such members.
    List(Box<Self>),
    /// A map from free texts to such members.
    Map(Box<Self>),
    /// A structure.
    Members(BTreeMap<String, Self>),
}

/// The plans of one operation.
pub(super) struct Plans {
    pub(super) input: Plan,
    pub(super) output: Plan,
    /// Whether there is an output at all: [`Empty`](crate::ops::shape::Empty) is none.
    pub(super) answers: bool,
}

/// The plans of every operation that speaks the Query protocol.
static PLANS: LazyLock<BTreeMap<(Service, &'static str), Plans>> = LazyLock::new(|| {
    let rows = TABLE.iter().filter(|row| row.service.speaks_query());
    rows.map(|row| ((row.service, row.name), Plans::of(row))).collect()
});

/// The plans of a row that speaks the Query protocol; none for others.
pub(super) fn of(row: &Row) -> Option<&'static Plans> {
    PLANS.get(&(row.service, row.name))
}

impl Plans {
    pub(super) fn of(row: &Row) -> Self {
        let output = Value::from(row.output_schema());
        let answers = output.get("title").is_none_or(|title| title != "Empty");
        Self { input: whole(&row.input_schema().into()), output: whole(&output), answers }
    }
}

/// The plan of a whole schema, its definitions included.
pub(super) fn whole(schema: &Value) -> Plan {
    plan(schema, schema.get("$defs").unwrap_or(&Value::Null), DEPTH)
}

fn plan(schema: &Value, definitions: &Value, depth: usize) -> Plan {
    let Some(depth) = depth.checked_sub(1) else { return Plan::Text };
    if let Some(named) = schema.get("$ref").and_then(Value::as_str) {
        let name = named.rsplit('/').next().unwrap_or_default();
        return definitions.get(name).map_or(Plan::Text, |s| plan(s, definitions, depth));
    }
    if let Some(Value::Array(all)) = schema.get("anyOf") {
        let some = all.iter().find(|s| s.get("type").is_none_or(|t| t != "null"));
        return some.map_or(Plan::Text, |s| plan(s, definitions, depth));
    }
    match kind(schema) {
        "integer" | "number" => Plan::Number,
        "boolean" => Plan::Truth,
        "array" => {
            let items = schema.get("items").unwrap_or(&Value::Null);
            Plan::List(Box::new(plan(items, definitions, depth)))
        }
        "object" => object(schema, definitions, depth),
        _ => Plan::Text,
    }
}

fn object(schema: &Value, definitions: &Value, depth: usize) -> Plan {
    let values = schema.get("additionalProperties").filter(|values| values.is_object());
    if let Some(values) = values {
        return Plan::Map(Box::new(plan(values, definitions, depth)));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let members = properties.into_iter().flatten();
    let members = members.map(|(name, schema)| (name.clone(), plan(schema, definitions, depth)));
    Plan::Members(members.collect())
}

/// The schema's type; an optional member's without `null`.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(all)) => {
            all.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or_default()
        }
        _ => "",
    }
}
