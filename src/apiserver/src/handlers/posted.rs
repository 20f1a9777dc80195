//! Bodies of the requests that are answered here and never stored: reviews and token requests.

use coracle_api::{decode, protobuf, schema::Schema, status::Status, structural};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::request::Context;

/// The object in a body, canonical and of the expected kind. What strict validation finds is a refusal when asked for, else dropped.
pub fn read(cx: &Context, schema: &Schema, api_version: &str, kind: &str, body: &[u8]) -> Result<Value, Status> {
    let content_type = cx.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let refused = |error: decode::DecodeError| {
        let group_kind = api_version.rsplit_once('/').map_or(kind.to_owned(), |(group, _)| format!("{kind}.{group}"));
        Status::bad_request(format!("{group_kind} in version {:?} cannot be handled: {error}", cx.info.version))
    };
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let (mut value, duplicates) = match media {
        "application/vnd.kubernetes.protobuf" => (protobuf::decode(schema, body).map_err(refused)?, Vec::new()),
        "application/yaml" => decode::yaml(body).map(|d| (d.value, d.duplicates)).map_err(refused)?,
        "application/json" | "" => decode::json(body).map(|d| (d.value, d.duplicates)).map_err(refused)?,
        other => {
            let message = format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf; got {other}"
            );
            return Err(Status::new(415, "UnsupportedMediaType", message));
        }
    };
    for (field, expected) in [("kind", kind), ("apiVersion", api_version)] {
        match &value[field] {
            Value::Null => {}
            Value::String(given) if given.is_empty() || given == expected => {}
            given => return Err(Status::bad_request(format!("{field} of the body is {given}, expected {expected:?}"))),
        }
    }
    if !value.is_object() {
        return Err(Status::bad_request("the body is not an object"));
    }
    value["kind"] = kind.into();
    value["apiVersion"] = api_version.into();
    let unknown = structural::prune(schema, &mut value).map_err(refused)?;
    if cx.param("fieldValidation") == Some("Strict") && !(unknown.is_empty() && duplicates.is_empty()) {
        let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
        let duplicates = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
        let all: Vec<String> = duplicates.chain(unknown).collect();
        return Err(refused_strictly(kind, cx, &all));
    }
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    Ok(value)
}

fn refused_strictly(kind: &str, cx: &Context, all: &[String]) -> Status {
    Status::bad_request(format!(
        "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
        cx.info.version,
        all.join(", ")
    ))
}
