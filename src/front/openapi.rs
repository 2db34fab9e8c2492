//! OpenAPI 3.1 of the REST door, generated from the operation table.

use super::rest::{MEDIA_TYPE, PREFIX, PROBLEM_TYPE, is_json};
use crate::ops::{Row, TABLE};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The document, made once.
pub(super) static DOCUMENT: LazyLock<Vec<u8>> =
    LazyLock::new(|| serde_json::to_vec_pretty(&document()).unwrap_or_default());

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas = Map::new();
    schemas.insert("Problem".into(), problem());
    for row in TABLE {
        let path = format!("{PREFIX}{}", row.route.path);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(row.route.method.to_lowercase(), operation(row, &mut schemas));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Strongroom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "AWS Secrets Manager and AWS KMS as REST. Requests are signed with AWS \
                Signature Version 4; the service in the scope is the operation's own.",
        },
        "security": [{"sigv4": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"sigv4": {
                "type": "apiKey", "in": "header", "name": "Authorization",
                "description": "AWS Signature Version 4 (AWS4-HMAC-SHA256)",
            }},
            "schemas": schemas,
        },
    })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457 problem details; `title` is the AWS error code",
        "properties": {
            "type": {"type": "string"}, "title": {"type": "string"},
            "status": {"type": "integer"}, "detail": {"type": "string"},
            "instance": {"type": "string"},
        },
    })
}

/// Moves the definitions that stand within a schema to the document's own, where a `$ref` can find
/// them: JSON pointers begin at the root of the document.
fn lifted(row: &Row, schema: schemars::Schema, schemas: &mut Map<String, Value>) -> Value {
    let mut schema = Value::from(schema);
    let inner = schema.as_object_mut().and_then(|members| members.remove("$defs"));
    refer(row, &mut schema);
    if let Some(Value::Object(definitions)) = inner {
        for (name, mut definition) in definitions {
            refer(row, &mut definition);
            schemas.insert(format!("{}{name}", row.service), definition);
        }
    }
    schema
}

/// Turns each `$ref` to a definition within a schema into one to the document's own.
fn refer(row: &Row, schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/$defs/")
            {
                *target = format!("#/components/schemas/{}{name}", row.service);
            }
            members.values_mut().for_each(|member| refer(row, member));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(row, item)),
        _ => {}
    }
}

fn operation(row: &Row, schemas: &mut Map<String, Value>) -> Value {
    let mut schema = lifted(row, row.input_schema(), schemas);
    let output = lifted(row, row.output_schema(), schemas);
    let names: Vec<&str> = row
        .route
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.split_once('}'))
        .map(|(name, _)| name)
        .collect();
    let mut parameters: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({"name": name, "in": "path", "required": true,
                           "schema": {"type": "string"}})
        })
        .collect();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    let mut in_query = Map::new();
    if let Some(properties) = properties {
        names.iter().for_each(|name| drop(properties.remove(*name)));
        if matches!(row.route.method, "GET" | "DELETE") {
            in_query = std::mem::take(properties);
        }
    }
    parameters.extend(in_query.into_iter().map(|(name, schema)| {
        if is_json(&schema) {
            let content = json!({MEDIA_TYPE: {"schema": schema}});
            return json!({"name": name, "in": "query", "required": false, "content": content});
        }
        json!({"name": name, "in": "query", "required": false, "schema": schema})
    }));
    let has_body =
        schema.get("properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty());
    let mut operation = json!({
        "operationId": format!("{}{}", row.service, row.name),
        "summary": row.name,
        "tags": [row.service.prefix()],
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": {MEDIA_TYPE: {
                "schema": output}}},
            "default": {"description": "Not done", "content": {PROBLEM_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"}}}},
        },
    });
    if let Some(operation) = operation.as_object_mut().filter(|_| has_body) {
        let body = json!({"content": {MEDIA_TYPE: {"schema": schema}}});
        operation.insert("requestBody".into(), body);
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_to_a_definition_that_no_other_type_overwrote() {
        let document: Value = serde_json::from_slice(&DOCUMENT).expect("JSON");
        let mut refs = Vec::new();
        references(&document, &mut refs);
        assert!(refs.len() > TABLE.len());
        for target in refs {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
        }
        for row in TABLE {
            for schema in [row.input_schema(), row.output_schema()] {
                let mut own = Map::new();
                lifted(row, schema, &mut own);
                for (name, definition) in own {
                    assert_eq!(document["components"]["schemas"][&name], definition, "{name}");
                }
            }
        }
    }

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_operation_of_the_table_is_in_the_document() {
        let document: Value = serde_json::from_slice(&DOCUMENT).expect("JSON");
        for row in TABLE {
            let path = &document["paths"][format!("/v1{}", row.route.path)];
            let id = &path[row.route.method.to_lowercase()]["operationId"];
            assert_eq!(id, &format!("{}{}", row.service, row.name));
        }
    }
}
