//! Bodies of the requests that are answered here and never stored: reviews and token requests.

use axum::response::Response;
use bytes::Bytes;
use coracle_api::{defaulting, protobuf, schema::Schema, status::Status};
use serde_json::{Value, json};

use crate::{
    output::{self, format::Format},
    registry::{
        body::{self, Expected},
        manage,
        options::WriteOptions,
    },
    request::Context,
};

/// An object that was posted, and how its sender wants it back.
pub struct Posted {
    /// Canonical, with kind, apiVersion and metadata.
    pub object: Value,
    format: Format,
}

/// Reads a body by the rules that hold for every write.
pub fn read(cx: &Context, expected: Expected<'_>, body: &Bytes) -> Result<Posted, Status> {
    let format = Format::negotiate_whole(&cx.headers, cx.param("pretty"))?;
    let options = WriteOptions::read(cx, "CreateOptions")?;
    let (schema, api_version) = (expected.schema, format!("{}/{}", expected.group, expected.version));
    let mut object = body::object(cx, body, expected, options.field_validation)?;
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    defaulting::apply_schema(schema, &mut object);
    let managed_fields = manage::posted(cx, &options, (schema, &api_version), &object);
    manage::set(&mut object, managed_fields);
    Ok(Posted { object, format })
}

impl Posted {
    /// 201 with the object as it is now.
    pub fn created(&self, schema: &Schema) -> Response {
        output::value(201, &self.format, &self.object, |value| protobuf::encode(schema, value))
    }
}
