//! Paths of resources with their operations, as clients look them up: action, kind, parameters, bodies.

use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use super::{Form, is_known, relative};
use crate::catalogue::Resource;

/// Media types of the three patches.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A verb of the API: name of the method, of the action, and whether it takes the parameters of writes.
struct Act {
    verb: &'static str,
    method: &'static str,
    action: &'static str,
    writes: bool,
}

const COLLECTION: [Act; 3] = [
    Act { verb: "list", method: "get", action: "list", writes: false },
    Act { verb: "create", method: "post", action: "post", writes: true },
    Act { verb: "deletecollection", method: "delete", action: "deletecollection", writes: false },
];

const OBJECT: [Act; 4] = [
    Act { verb: "get", method: "get", action: "get", writes: false },
    Act { verb: "update", method: "put", action: "put", writes: true },
    Act { verb: "patch", method: "patch", action: "patch", writes: true },
    Act { verb: "delete", method: "delete", action: "delete", writes: false },
];

/// All paths of these resources.
pub(super) fn of(form: Form, resources: &[&Resource], schemas: &mut Schemas<'_>) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let gvk = [resource.group.as_str(), resource.version.as_str(), resource.kind.as_str()];
        let object = match &resource.definition {
            Some(served) => schemas.custom(gvk, &served.schema),
            None => schemas.kind(gvk, &resource.schema),
        };
        let list = schemas.list(resource, &object);
        let base = format!("/{}", relative(&resource.group, &resource.version));
        let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{base}{scope}/{}", resource.plural);
        let around = path_parameters(form, resource.namespaced, false);
        let within = path_parameters(form, resource.namespaced, true);
        let serves = |act: &&Act| resource.serves(act.verb);
        let operations = COLLECTION.iter().filter(serves).map(|act| {
            let answer = match act.verb {
                "list" => list.clone(),
                "deletecollection" => schemas.message("meta/v1.Status"),
                _ => object.clone(),
            };
            let body = (act.verb == "create").then(|| object.clone());
            (act, operation(form, act, gvk, body, &answer, &resource.kind, resource.namespaced))
        });
        insert(&mut paths, collection.clone(), operations.collect(), &around);
        if resource.namespaced && resource.serves("list") {
            let everywhere = operation(form, &COLLECTION[0], gvk, None, &list, &resource.kind, false);
            insert(&mut paths, format!("{base}/{}", resource.plural), vec![(&COLLECTION[0], everywhere)], &[]);
        }
        let operations = OBJECT.iter().filter(serves).map(|act| {
            let answer = if act.verb == "delete" { schemas.message("meta/v1.Status") } else { object.clone() };
            (act, operation(form, act, gvk, request(act, &object, schemas), &answer, &resource.kind, resource.namespaced))
        });
        let fit = |(act, operation)| (act, if resource.custom { without_strategic(operation) } else { operation });
        insert(&mut paths, format!("{collection}/{{name}}"), operations.map(fit).collect(), &within);
        for sub in &resource.subresources {
            let own = gvk;
            let gvk = [sub.group.as_str(), sub.version.as_str(), sub.kind.as_str()];
            let body = if resource.custom && gvk == own {
                object.clone()
            } else if is_known(&sub.schema) {
                schemas.kind(gvk, &sub.schema)
            } else {
                json!({"type": "string"})
            };
            let create = Act { verb: "create", method: "post", action: "post", writes: true };
            let acts: Vec<&Act> = OBJECT.iter().chain([&create]).filter(|act| sub.verbs.iter().any(|v| v == act.verb)).collect();
            let operations = acts.into_iter().map(|act| {
                let request = if act.verb == "create" { Some(body.clone()) } else { request(act, &body, schemas) };
                (act, operation(form, act, gvk, request, &body, &format!("{}{}", resource.kind, sub.name), resource.namespaced))
            });
            let fit = |(act, operation)| (act, if resource.custom { without_strategic(operation) } else { operation });
            let operations: Vec<(&Act, Value)> = operations.map(fit).collect();
            insert(&mut paths, format!("{collection}/{{name}}/{}", sub.name), operations, &within);
        }
    }
    paths.into()
}

/// What a request carries.
fn request(act: &Act, object: &Value, schemas: &mut Schemas<'_>) -> Option<Value> {
    match act.verb {
        "update" => Some(object.clone()),
        "patch" => Some(json!({"type": "object"})),
        "delete" => Some(schemas.message("meta/v1.DeleteOptions")),
        _ => None,
    }
}

/// Custom resources know no strategic merge; kubectl looks here whether it may send one.
fn without_strategic(mut operation: Value) -> Value {
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    if let Some(content) = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut) {
        content.remove(STRATEGIC);
    }
    if let Some(consumes) = operation.get_mut("consumes").and_then(Value::as_array_mut) {
        consumes.retain(|media| media != STRATEGIC);
    }
    operation
}

fn insert(paths: &mut Map<String, Value>, path: String, operations: Vec<(&Act, Value)>, parameters: &[Value]) {
    if operations.is_empty() {
        return;
    }
    let mut item: Map<String, Value> = operations.into_iter().map(|(act, operation)| (act.method.to_owned(), operation)).collect();
    if !parameters.is_empty() {
        item.insert("parameters".into(), parameters.to_vec().into());
    }
    paths.insert(path, item.into());
}

fn parameter(form: Form, name: &str, place: &str, kind: &str) -> Value {
    let mut out = json!({"name": name, "in": place});
    if place == "path" {
        out["required"] = true.into();
    }
    match form {
        Form::V3 => out["schema"] = json!({"type": kind, "uniqueItems": true}),
        Form::V2 => {
            out["type"] = kind.into();
            out["uniqueItems"] = true.into();
        }
    }
    out
}

fn path_parameters(form: Form, namespaced: bool, named: bool) -> Vec<Value> {
    let names = [(named, "name"), (namespaced, "namespace")];
    names.into_iter().filter(|(there, _)| *there).map(|(_, name)| parameter(form, name, "path", "string")).collect()
}

fn operation(form: Form, act: &Act, gvk: [&str; 3], body: Option<Value>, answer: &Value, name: &str, namespaced: bool) -> Value {
    let [group, version, kind] = gvk;
    let words: &[(&str, &str)] = match act.verb {
        "list" | "deletecollection" => &[
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("allowWatchBookmarks", "boolean"),
            ("watch", "boolean"),
        ],
        "patch" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean"), ("pretty", "string")]
        }
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
            ("pretty", "string"),
        ],
        _ if act.writes => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("pretty", "string")],
        _ => &[("pretty", "string")],
    };
    let mut parameters: Vec<Value> = words.iter().map(|(name, kind)| parameter(form, name, "query", kind)).collect();
    let consumes: Vec<&str> = if act.verb == "patch" { PATCHES.to_vec() } else { vec!["*/*"] };
    let produces = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
    let scope = if namespaced { "Namespaced" } else { "" };
    let tag = format!("{}_{version}", group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core"));
    let mut out = json!({
        "tags": [tag],
        "operationId": format!("{}{}{scope}{name}", act.action, title(&tag)),
        "x-kubernetes-action": act.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    match form {
        Form::V3 => {
            let content: Map<String, Value> = produces.iter().map(|t| ((*t).to_owned(), json!({"schema": answer}))).collect();
            out["responses"] = json!({"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}});
            if let Some(schema) = body {
                let content: Map<String, Value> = consumes.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect();
                let required = act.verb != "delete";
                out["requestBody"] = if required { json!({"content": content, "required": true}) } else { json!({"content": content}) };
            }
        }
        Form::V2 => {
            out["consumes"] = consumes.into();
            out["produces"] = produces.to_vec().into();
            out["schemes"] = json!(["https"]);
            out["responses"] = json!({"200": {"description": "OK", "schema": answer}, "401": {"description": "Unauthorized"}});
            if let Some(schema) = body {
                let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
                if act.verb != "delete" {
                    parameter["required"] = true.into();
                }
                parameters.push(parameter);
            }
        }
    }
    out["parameters"] = parameters.into();
    out
}

fn title(tag: &str) -> String {
    tag.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}
