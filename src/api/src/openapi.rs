//! OpenAPI v3 per group and version, its index, and v2 as JSON and as protobuf.

use serde_json::Value;

use crate::catalogue::Catalogue;

/// `/openapi/v3`: where the documents are, with a hash that changes with the content.
pub fn v3_index(catalogue: &Catalogue) -> Value {
    let _ = catalogue;
    Value::Null
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`: the document as JSON.
pub fn v3(catalogue: &Catalogue, group: &str, version: &str) -> Option<Vec<u8>> {
    let _ = (catalogue, group, version);
    None
}

/// `/openapi/v2` as JSON.
pub fn v2(catalogue: &Catalogue) -> Vec<u8> {
    let _ = catalogue;
    Vec::new()
}

/// `/openapi/v2` as gnostic protobuf (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`).
pub fn v2_protobuf(catalogue: &Catalogue) -> Vec<u8> {
    let _ = catalogue;
    Vec::new()
}
