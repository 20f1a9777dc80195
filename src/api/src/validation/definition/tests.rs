//! Definitions and the causes that they are refused for.

use serde_json::{Value, json};

use crate::catalogue::builtin;
use crate::validation;

fn boats() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boats.golden.test"},
        "spec": {"group": "golden.test", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "selectableFields": [{"jsonPath": ".spec.port"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                    "x-kubernetes-validations": [{"rule": "self.crew <= 12 || self.port == 'big'", "fieldPath": ".crew"}],
                    "properties": {"crew": {"type": "integer", "minimum": 0, "default": 1}, "port": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                        "masts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-map-type": "atomic"}}}}}}}]},
        "status": {"storedVersions": ["v1"]}})
}

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";
const S: &str = "spec.validation.openAPIV3Schema";

/// The causes, as `reason field`, of the definition with one value at a path replaced, or with null removed.
fn causes(path: &str, value: Value) -> Vec<String> {
    let mut definition = boats();
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = definition.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(name)),
        (Value::Object(map), value) => drop(map.insert(name.to_owned(), value)),
        (Value::Array(list), value) => list[name.parse::<usize>().unwrap()] = value,
        _ => unreachable!(),
    }
    told(&validation::create(builtin().resource("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap(), &definition))
}

fn told(causes: &[crate::status::Cause]) -> Vec<String> {
    let mut out: Vec<String> = causes.iter().map(|c| format!("{} {}", c.reason.trim_start_matches("FieldValue"), c.field)).collect();
    out.sort();
    out
}

#[test]
fn names_and_versions() {
    for (path, value, expected) in [
        ("/metadata/name", json!("x"), &["Invalid metadata.name"] as &[&str]),
        ("/spec/scope", json!("Galaxy"), &["NotSupported spec.scope"]),
        ("/spec/group", json!("nodot"), &["Invalid metadata.name", "Invalid spec.group"]),
        ("/spec/names/categories", json!(["a b"]), &["Invalid spec.names.categories[0]"]),
        ("/spec/names/kind", Value::Null, &["Required spec.names.kind"]),
        ("/spec/versions", json!([]), &["Invalid spec.versions", "Invalid status.storedVersions[0]"]),
        (
            "/spec/versions/0/name",
            json!("a b"),
            &["Invalid spec.version", "Invalid spec.versions[0].name", "Invalid status.storedVersions", "Invalid status.storedVersions[0]"],
        ),
        ("/spec/versions/0/deprecationWarning", json!(""), &["Invalid spec.versions[0].deprecationWarning"]),
        (
            "/spec/versions/0/additionalPrinterColumns",
            json!([{"jsonPath": "x"}]),
            &[
                "Invalid spec.additionalPrinterColumns[0].JSONPath",
                "Required spec.additionalPrinterColumns[0].name",
                "Required spec.additionalPrinterColumns[0].type",
            ],
        ),
        (
            "/spec/versions/0/subresources",
            json!({"scale": {"specReplicasPath": ".status.x", "labelSelectorPath": "x"}}),
            &[
                "Invalid spec.subresources.scale.labelSelectorPath",
                "Invalid spec.subresources.scale.specReplicasPath",
                "Required spec.subresources.scale.statusReplicasPath",
            ],
        ),
        ("/spec/preserveUnknownFields", json!(true), &["Invalid spec.preserveUnknownFields"]),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook"}),
            &["Required spec.conversion.conversionReviewVersions", "Required spec.conversion.webhookClientConfig"],
        ),
        (
            "/spec/conversion",
            json!({"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://h/"}}}),
            &["Forbidden spec.conversion.conversionReviewVersions", "Forbidden spec.conversion.webhookClientConfig"],
        ),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"service": {"namespace": "n", "name": "s", "path": "/convert", "port": 443}}}}),
            &[],
        ),
    ] {
        assert_eq!(causes(path, value.clone()), expected, "{path} {value}");
    }
}

#[test]
fn schemas_are_structural() {
    let spec = format!("{SCHEMA}/properties/spec");
    let at = |path: &str| format!("{spec}{path}");
    let told = |words: &str| words.split(", ").filter(|w| !w.is_empty()).map(|w| w.replace("S.", &format!("{S}."))).collect::<Vec<_>>();
    for (path, value, expected) in [
        (format!("{SCHEMA}/type"), Value::Null, "Required S.type"),
        (format!("{SCHEMA}/type"), json!("zz"), "Invalid S.type, NotSupported S.type"),
        (at("/type"), json!("zz"), "NotSupported S.properties[spec].type"),
        (at("/x-kubernetes-validations/0/rule"), json!("zz"), "Invalid S.properties[spec].x-kubernetes-validations[0].rule"),
        (at("/x-kubernetes-validations/0/reason"), json!("zz"), "NotSupported S.properties[spec].x-kubernetes-validations[0].reason"),
        (at("/x-kubernetes-validations/0/fieldPath"), json!("zz"), "Invalid S.properties[spec].x-kubernetes-validations[0].fieldPath"),
        (at("/properties/crew/default"), json!(-1), "Invalid S.properties[spec].properties[crew].default"),
        (
            at("/properties/tags/type"),
            Value::Null,
            "Required S.properties[spec].properties[tags].type, Required S.properties[spec].properties[tags].type",
        ),
        (at("/properties/tags/items"), Value::Null, "Required S.properties[spec].properties[tags].items"),
        (
            at("/properties/masts/x-kubernetes-list-map-keys"),
            json!(["zz"]),
            "Invalid S.properties[spec].properties[masts].x-kubernetes-list-map-keys",
        ),
        (
            at("/properties/masts/items"),
            Value::Null,
            "Required S.properties[spec].properties[masts].items, Required S.properties[spec].properties[masts].items",
        ),
        (
            at("/properties/masts/items/required"),
            Value::Null,
            "Required S.properties[spec].properties[masts].items.properties[name].default",
        ),
        (
            at("/properties/free/x-kubernetes-map-type"),
            json!("zz"),
            "NotSupported S.properties[spec].properties[free].x-kubernetes-map-type",
        ),
        (at("/properties/free/additionalProperties"), json!(false), "Forbidden S.properties[spec].properties[free].additionalProperties"),
        (at("/oneOf"), json!([{"required": ["crew"]}, {"type": "object"}]), "Forbidden S.properties[spec].oneOf[1].type"),
        (at("/properties/port/pattern"), json!("("), "Invalid S.properties[spec].properties[port].pattern"),
    ] {
        assert_eq!(causes(&path, value.clone()), told(expected), "{path} {value}");
    }
    assert_eq!(
        causes(&at("/properties/port"), Value::Null),
        ["Invalid spec.selectableFields[0].jsonPath".to_owned(), format!("Invalid {S}.properties[spec].x-kubernetes-validations[0].rule")]
    );
}

#[test]
fn an_established_definition_keeps_what_it_is() {
    let mut old = boats();
    old["metadata"]["uid"] = "u".into();
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let resource = builtin().resource("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    for (path, value, expected) in [
        ("/spec/scope", json!("Cluster"), &["Invalid spec.scope"] as &[&str]),
        ("/spec/group", json!("other.test"), &["Invalid spec.group"]),
        ("/spec/names/plural", json!("ships"), &["Invalid spec.names.plural"]),
        ("/spec/names/kind", json!("Ship"), &["Invalid spec.names.kind"]),
        ("/spec/names/shortNames", json!(["bt"]), &[]),
    ] {
        let mut new = old.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[name] = value;
        assert_eq!(told(&validation::update(resource, &new, &old, "")), expected, "{path}");
    }
    // One that ends may be as wrong as it likes.
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    old["status"]["storedVersions"] = json!(["v1", "v9"]);
    assert_eq!(told(&validation::update(resource, &old, &old, "")), Vec::<String>::new());
}
