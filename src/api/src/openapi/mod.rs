//! OpenAPI v3 per group and version, its index, and v2 as JSON and as protobuf.
//!
//! Documents are made when they are asked for and not kept: few clients ask, and they keep them by their hash.

mod descriptions;
mod gnostic;
pub mod merge;
mod paths;
mod schemas;

use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::catalogue::{Catalogue, Resource};
use crate::schema::any;
use descriptions::Descriptions;
use schemas::Schemas;

/// `info.version` of the documents.
const VERSION: &str = "v1.36.3";

/// The two forms of the format, where they differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    V2,
    V3,
}

/// `/openapi/v3`: where the documents are, with a hash that changes with the content.
pub fn v3_index(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions(catalogue) {
        let path = relative(group, version);
        let hash = hash(catalogue, group, version);
        paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
    }
    json!({"paths": paths})
}

/// Changes whenever the document of the group and version does; also its ETag.
pub fn hash(catalogue: &Catalogue, group: &str, version: &str) -> String {
    static BUILTIN: OnceLock<[u8; 32]> = OnceLock::new();
    let builtin = BUILTIN.get_or_init(|| {
        let facts = [include_bytes!("../../catalogue/types-1.36.tsv").as_slice(), include_bytes!("../../catalogue/discovery-1.36.tsv")];
        Sha256::digest(facts.concat()).into()
    });
    let mut digest = Sha256::new_with_prefix(builtin);
    for resource in of_version(catalogue, group, version) {
        digest.update(format!("{group}/{version}/{}", resource.plural));
        if let Some(served) = &resource.definition {
            let spoken = [&resource.kind, &resource.list_kind, &resource.verbs.join(",")].map(String::as_str).join("/");
            let subresources: Vec<&str> = resource.subresources.iter().map(|s| s.name.as_str()).collect();
            digest.update(format!("{spoken}/{}/{}/{}", resource.namespaced, subresources.join(","), served.schema));
        }
    }
    digest.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`: the document as JSON.
pub fn v3(catalogue: &Catalogue, group: &str, version: &str) -> Option<Vec<u8>> {
    let resources: Vec<&Resource> = of_version(catalogue, group, version).collect();
    if resources.is_empty() {
        return None;
    }
    let texts = Descriptions::read();
    let mut schemas = Schemas::new(Form::V3, &texts);
    let paths = paths::of(Form::V3, &resources, &mut schemas);
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}},
        },
    });
    Some(document.to_string().into_bytes())
}

/// `/openapi/v2` as JSON, with what further servers have (see [`merge`]).
pub fn v2(catalogue: &Catalogue, further: &[Value]) -> Vec<u8> {
    merge::all(v2_document(catalogue), further).to_string().into_bytes()
}

/// `/openapi/v2` as gnostic protobuf (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`).
pub fn v2_protobuf(catalogue: &Catalogue, further: &[Value]) -> Vec<u8> {
    gnostic::document(&merge::all(v2_document(catalogue), further))
}

fn v2_document(catalogue: &Catalogue) -> Value {
    let texts = Descriptions::read();
    let mut schemas = Schemas::new(Form::V2, &texts);
    let resources: Vec<&Resource> = catalogue.resources().iter().map(AsRef::as_ref).collect();
    let paths = paths::of(Form::V2, &resources, &mut schemas);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": schemas.finish(),
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}},
        "security": [{"BearerToken": []}],
    })
}

fn group_versions(catalogue: &Catalogue) -> Vec<(&str, &str)> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for resource in catalogue.resources() {
        let pair = (resource.group.as_str(), resource.version.as_str());
        if !out.contains(&pair) {
            out.push(pair);
        }
    }
    out
}

fn of_version<'a>(catalogue: &'a Catalogue, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Resource> {
    catalogue.resources().iter().map(AsRef::as_ref).filter(move |r: &&Resource| r.group == group && r.version == version)
}

/// `api/v1`, `apis/apps/v1`.
fn relative(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Whether anything is known of a body.
fn is_known(schema: &crate::schema::Schema) -> bool {
    !std::ptr::eq(schema, &raw const **any())
}

#[cfg(test)]
mod tests;
