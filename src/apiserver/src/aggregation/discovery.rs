//! Discovery documents of a cluster that others answer for in part. Pure.

use std::{collections::HashMap, sync::Arc};

use coracle_api::{catalogue::Catalogue, discovery};
use serde_json::{Map, Value, json};

use super::{
    order,
    service::{ApiService, GROUP},
};

/// `/apis`: APIGroupList.
pub fn groups(catalogue: &Catalogue, services: &[Arc<ApiService>]) -> Value {
    let mut order = order::legacy(order::entries(catalogue, services));
    // The group of APIServices comes first whatever their priorities are.
    order.sort_by_key(|(group, _)| *group != GROUP);
    let groups: Vec<Value> = order.into_iter().map(|(group, versions)| body(group, &versions).into()).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`: APIGroup.
pub fn group(catalogue: &Catalogue, services: &[Arc<ApiService>], name: &str) -> Option<Value> {
    let order = order::legacy(order::entries(catalogue, services));
    let (group, versions) = order.into_iter().find(|(group, _)| *group == name)?;
    let mut body = body(group, &versions);
    body.insert("kind".into(), "APIGroup".into());
    body.insert("apiVersion".into(), "v1".into());
    Some(body.into())
}

fn body(group: &str, versions: &[&str]) -> Map<String, Value> {
    let versions: Vec<Value> = versions.iter().map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v})).collect();
    let preferred = versions.first().cloned();
    let parts = [("name", Some(group.into())), ("versions", Some(versions.into())), ("preferredVersion", preferred)];
    parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?))).collect()
}

/// `/apis` for clients that want everything at once. `elsewhere` says what an extension API server has.
pub fn aggregated(catalogue: &Catalogue, services: &[Arc<ApiService>], elsewhere: &dyn Fn(&str, &str) -> Option<Value>) -> Value {
    let mut document = discovery::aggregated(catalogue, false);
    let here = document["items"].as_array().cloned().unwrap_or_default();
    let named: HashMap<&str, &Value> = here.iter().filter_map(|item| Some((item["metadata"]["name"].as_str()?, item))).collect();
    let find = |group: &str, version: &str| {
        let versions = named.get(group).and_then(|item| item["versions"].as_array());
        versions.and_then(|versions| versions.iter().find(|entry| entry["version"] == version)).cloned()
    };
    let item = |(group, versions): (&str, Vec<&str>)| {
        let versions = versions.into_iter().filter_map(|version| elsewhere(group, version).or_else(|| find(group, version)));
        json!({"metadata": {"name": group}, "versions": versions.collect::<Vec<_>>()})
    };
    let order = order::aggregated(order::entries(catalogue, services));
    document["items"] = order.into_iter().map(item).collect();
    document
}

/// One version in the aggregated form, from the APIResourceList of the server that has it.
pub fn version(group: &str, version: &str, list: &Value, fresh: bool) -> Value {
    let mut resources: Vec<Map<String, Value>> = Vec::new();
    let entries = || list["resources"].as_array().into_iter().flatten().filter_map(|entry| Some((entry["name"].as_str()?, entry)));
    for (name, entry) in entries().filter(|(name, _)| !name.contains('/')) {
        let mut resource = described(group, version, "resource", name, entry);
        resource.insert("scope".into(), scope(entry));
        resource.insert("singularResource".into(), entry["singularName"].as_str().unwrap_or_default().into());
        for words in ["shortNames", "categories"] {
            if entry[words].is_array() {
                resource.insert(words.into(), entry[words].clone());
            }
        }
        resources.push(resource);
    }
    for (name, entry) in entries() {
        let Some((parent, name)) = name.split_once('/') else { continue };
        let at = resources.iter().position(|resource| resource["resource"] == parent).unwrap_or_else(|| {
            // Metrics of pods are subresources of pods that are not there themselves.
            let nobody = json!({"resource": parent, "responseKind": {"group": "", "version": "", "kind": ""}, "scope": scope(entry),
                "singularResource": "", "verbs": []});
            resources.push(nobody.as_object().cloned().unwrap_or_default());
            resources.len() - 1
        });
        let subresource = described(group, version, "subresource", name, entry);
        if let Value::Array(list) = resources[at].entry("subresources").or_insert_with(|| json!([])) {
            list.push(subresource.into());
        }
    }
    json!({"version": version, "resources": resources, "freshness": if fresh { "Current" } else { "Stale" }})
}

/// What resources and subresources tell alike.
fn described(group: &str, version: &str, what: &str, name: &str, entry: &Value) -> Map<String, Value> {
    let text = |field: &str, default: &str| entry[field].as_str().filter(|text| !text.is_empty()).unwrap_or(default).to_owned();
    // A group that is named speaks for its version too, even where that is empty.
    let (group, version) = if text("group", "").is_empty() { (group, text("version", version)) } else { ("", text("version", "")) };
    let kind = json!({"group": text("group", group), "version": version, "kind": text("kind", "")});
    let verbs = if entry["verbs"].is_array() { entry["verbs"].clone() } else { json!([]) };
    [(what, name.into()), ("responseKind", kind), ("verbs", verbs)].into_iter().map(|(field, value)| (field.to_owned(), value)).collect()
}

fn scope(entry: &Value) -> Value {
    if entry["namespaced"] == true { "Namespaced".into() } else { "Cluster".into() }
}

#[cfg(test)]
mod tests {
    use coracle_api::catalogue::builtin;

    use super::*;

    fn service() -> ApiService {
        ApiService::read(&json!({"spec": {"group": "wardle.test", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 20,
            "service": {"namespace": "n", "name": "s"}}}))
    }

    #[test]
    fn a_list_in_the_aggregated_form() {
        let list = json!({"resources": [
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["list"], "shortNames": ["f"]},
            {"name": "flunders/scale", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
            {"name": "pods/rps", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]},
        ]});
        let made = version("wardle.test", "v1", &list, true);
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
        let expected = json!({"version": "v1", "freshness": "Current", "resources": [
            {"resource": "flunders", "responseKind": kind("wardle.test", "v1", "Flunder"), "scope": "Namespaced",
                "singularResource": "flunder", "verbs": ["list"], "shortNames": ["f"], "subresources": [
                    {"subresource": "status", "responseKind": kind("wardle.test", "v1", "Flunder"), "verbs": ["get"]},
                    {"subresource": "scale", "responseKind": kind("autoscaling", "v1", "Scale"), "verbs": ["get"]}]},
            {"resource": "pods", "responseKind": kind("", "", ""), "scope": "Namespaced", "singularResource": "", "verbs": [],
                "subresources": [
                    {"subresource": "rps", "responseKind": kind("wardle.test", "v1", "MetricValueList"), "verbs": ["get"]}]},
        ]});
        assert_eq!(made, expected);
        assert_eq!(version("g", "v1", &Value::Null, false), json!({"version": "v1", "resources": [], "freshness": "Stale"}));
    }

    #[test]
    fn others_stand_among_our_own() {
        let services = [Arc::new(service())];
        let elsewhere = |group: &str, name: &str| (group == "wardle.test").then(|| version(group, name, &Value::Null, false));
        let document = aggregated(builtin(), &services, &elsewhere);
        let items = document["items"].as_array().expect("items");
        let own = discovery::aggregated(builtin(), false);
        assert_eq!(items.len(), own["items"].as_array().expect("items").len() + 1);
        let theirs = items.iter().find(|item| item["metadata"]["name"] == "wardle.test").expect("it is listed");
        assert_eq!(theirs["versions"][0]["freshness"], "Stale");
        for item in own["items"].as_array().expect("items") {
            assert!(items.contains(item), "{item}");
        }
        let listed = groups(builtin(), &services);
        assert_eq!(listed["groups"][0]["name"], GROUP);
        assert!(listed["groups"].as_array().expect("groups").iter().any(|group| group["name"] == "wardle.test"));
        let one = group(builtin(), &services, "wardle.test").expect("it is there");
        assert_eq!(one["preferredVersion"], json!({"groupVersion": "wardle.test/v1", "version": "v1"}));
        assert!(group(builtin(), &services, "nobody.test").is_none());
    }
}
