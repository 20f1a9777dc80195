//! What kubectl needs of the OpenAPI documents.

use super::*;
use crate::catalogue::builtin;

fn document(group: &str, version: &str) -> Value {
    serde_json::from_slice(&v3(builtin(), group, version).unwrap()).unwrap()
}

#[test]
fn what_kubectl_looks_for_is_there() {
    let apps = document("apps", "v1");
    let path = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &path["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let schemas = &apps["components"]["schemas"];
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(spec["required"], json!(["selector", "template"]));
    assert!(spec["properties"]["strategy"]["description"].is_string());
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    assert!(schemas["io.k8s.api.apps.v1.DeploymentList"].is_object());
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                out.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|v| references(v, out));
            }
            Value::Array(list) => list.iter().for_each(|v| references(v, out)),
            _ => {}
        }
    }
    let mut documents: Vec<Value> = group_versions(builtin()).into_iter().map(|(g, v)| document(g, v)).collect();
    documents.push(serde_json::from_slice(&v2(builtin(), &[])).unwrap());
    for document in documents {
        let mut all = Vec::new();
        references(&document, &mut all);
        assert!(!all.is_empty());
        for reference in all {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}

#[test]
fn the_index_names_every_document() {
    let index = v3_index(builtin());
    assert_eq!(index["paths"].as_object().unwrap().len(), group_versions(builtin()).len());
    assert!(index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().starts_with("/openapi/v3/apis/apps/v1?hash="));
    assert!(v3(builtin(), "apps", "v2").is_none());
}

#[test]
fn the_older_form_is_protobuf_too() {
    let body = v2_protobuf(builtin(), &[]);
    assert!(body.starts_with(b"\x0a\x032.0"));
    assert!(body.len() > 100_000);
}
