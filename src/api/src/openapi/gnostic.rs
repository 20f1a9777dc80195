//! OpenAPI v2 in gnostic's protobuf, which older clients ask for: the JSON document, field by field.

use serde_json::{Map, Value};

use crate::protobuf::writer::{bytes, delimited, varint};

/// The document.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(document, "swagger", 1, &mut out);
    delimited(2, &mut out, |out| {
        text(&document["info"], "title", 1, out);
        text(&document["info"], "version", 2, out);
    });
    delimited(8, &mut out, |out| named(&document["paths"], 2, out, path_item));
    delimited(9, &mut out, |out| named(&document["definitions"], 1, out, schema));
    out
}

fn text(value: &Value, name: &str, number: u32, out: &mut Vec<u8>) {
    if let Some(text) = value[name].as_str() {
        bytes(number, text.as_bytes(), out);
    }
}

fn texts(value: &Value, name: &str, number: u32, out: &mut Vec<u8>) {
    for text in value[name].as_array().into_iter().flatten().filter_map(Value::as_str) {
        bytes(number, text.as_bytes(), out);
    }
}

fn flag(value: &Value, name: &str, number: u32, out: &mut Vec<u8>) {
    if value[name] == true {
        varint(u64::from(number) << 3, out);
        out.push(1);
    }
}

/// Pairs of name and value.
fn named(map: &Value, number: u32, out: &mut Vec<u8>, each: impl Fn(&Value, &mut Vec<u8>)) {
    for (name, value) in map.as_object().into_iter().flatten() {
        delimited(number, out, |out| {
            bytes(1, name.as_bytes(), out);
            delimited(2, out, |out| each(value, out));
        });
    }
}

/// Members that begin with `x-`, as YAML text.
fn extensions(value: &Value, number: u32, out: &mut Vec<u8>) {
    let empty = Map::new();
    for (name, value) in value.as_object().unwrap_or(&empty).iter().filter(|(name, _)| name.starts_with("x-")) {
        delimited(number, out, |out| {
            bytes(1, name.as_bytes(), out);
            delimited(2, out, |out| bytes(2, value.to_string().as_bytes(), out));
        });
    }
}

fn path_item(item: &Value, out: &mut Vec<u8>) {
    for (method, number) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if item[method].is_object() {
            delimited(number, out, |out| operation(&item[method], out));
        }
    }
    parameters(item, 9, out);
}

fn operation(operation: &Value, out: &mut Vec<u8>) {
    texts(operation, "tags", 1, out);
    text(operation, "operationId", 5, out);
    texts(operation, "produces", 6, out);
    texts(operation, "consumes", 7, out);
    parameters(operation, 8, out);
    delimited(9, out, |out| {
        named(&operation["responses"], 1, out, |response, out| {
            delimited(1, out, |out| {
                text(response, "description", 1, out);
                if response["schema"].is_object() {
                    delimited(2, out, |out| delimited(1, out, |out| schema(&response["schema"], out)));
                }
            });
        });
    });
    texts(operation, "schemes", 10, out);
    extensions(operation, 13, out);
}

fn parameters(owner: &Value, number: u32, out: &mut Vec<u8>) {
    for parameter in owner["parameters"].as_array().into_iter().flatten() {
        delimited(number, out, |out| {
            delimited(1, out, |out| match parameter["in"].as_str().unwrap_or_default() {
                "body" => delimited(1, out, |out| {
                    text(parameter, "name", 2, out);
                    text(parameter, "in", 3, out);
                    flag(parameter, "required", 4, out);
                    delimited(5, out, |out| schema(&parameter["schema"], out));
                }),
                place => delimited(2, out, |out| {
                    // A query parameter has one field more before its type than a path parameter has.
                    let (slot, kind) = if place == "query" { (3, 6) } else { (4, 5) };
                    delimited(slot, out, |out| {
                        flag(parameter, "required", 1, out);
                        text(parameter, "in", 2, out);
                        text(parameter, "name", 4, out);
                        text(parameter, "type", kind, out);
                    });
                }),
            });
        });
    }
}

fn schema(value: &Value, out: &mut Vec<u8>) {
    text(value, "$ref", 1, out);
    text(value, "format", 2, out);
    text(value, "description", 4, out);
    if !value["default"].is_null() {
        delimited(5, out, |out| bytes(2, value["default"].to_string().as_bytes(), out));
    }
    texts(value, "required", 19, out);
    for allowed in value["enum"].as_array().into_iter().flatten() {
        delimited(20, out, |out| bytes(2, allowed.to_string().as_bytes(), out));
    }
    if value["additionalProperties"].is_object() {
        delimited(21, out, |out| delimited(1, out, |out| schema(&value["additionalProperties"], out)));
    }
    if value["type"].is_string() {
        delimited(22, out, |out| text(value, "type", 1, out));
    }
    if value["items"].is_object() {
        delimited(23, out, |out| delimited(1, out, |out| schema(&value["items"], out)));
    }
    if value["properties"].is_object() {
        delimited(25, out, |out| named(&value["properties"], 1, out, schema));
    }
    extensions(value, 31, out);
}
