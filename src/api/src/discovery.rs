//! Discovery documents of a catalogue: the legacy ones and the aggregated one.

use serde_json::{Map, Value, json};

use crate::catalogue::{Catalogue, Resource, Subresource, api_version};

/// `/api`: APIVersions.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`: APIGroupList.
pub fn groups(catalogue: &Catalogue) -> Value {
    let groups: Vec<Value> = group_names(catalogue).into_iter().filter_map(|name| group_body(catalogue, name)).map(Value::Object).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`: APIGroup.
pub fn group(catalogue: &Catalogue, group: &str) -> Option<Value> {
    let mut body = group_body(catalogue, group)?;
    body.insert("kind".into(), "APIGroup".into());
    body.insert("apiVersion".into(), "v1".into());
    Some(body.into())
}

/// `/api/v1`, `/apis/GROUP/VERSION`: APIResourceList.
pub fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in catalogue.resources().iter().filter(|r| r.group == group && r.version == version) {
        list.push(resource_entry(resource));
        list.extend(resource.subresources.iter().map(|sub| subresource_entry(resource, sub)));
    }
    if list.is_empty() {
        return None;
    }
    let mut body = Map::new();
    body.insert("kind".into(), "APIResourceList".into());
    if !group.is_empty() {
        body.insert("apiVersion".into(), "v1".into());
    }
    body.insert("groupVersion".into(), api_version(group, version).into());
    body.insert("resources".into(), list.into());
    Some(body.into())
}

/// `/api` (`core`) and `/apis` (not `core`) for clients that accept `g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`.
pub fn aggregated(catalogue: &Catalogue, core: bool) -> Value {
    let names = if core { vec![""] } else { group_names(catalogue) };
    let items: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let versions: Vec<Value> =
                catalogue.versions(name).into_iter().map(|version| aggregated_version(catalogue, name, version)).collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn group_names(catalogue: &Catalogue) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for resource in catalogue.resources().iter().filter(|r| !r.group.is_empty()) {
        if !names.contains(&resource.group.as_str()) {
            names.push(&resource.group);
        }
    }
    names
}

fn group_body(catalogue: &Catalogue, group: &str) -> Option<Map<String, Value>> {
    let versions: Vec<Value> =
        catalogue.versions(group).into_iter().map(|v| json!({"groupVersion": api_version(group, v), "version": v})).collect();
    let preferred = versions.first()?.clone();
    let mut body = Map::new();
    body.insert("name".into(), group.into());
    body.insert("versions".into(), versions.into());
    body.insert("preferredVersion".into(), preferred);
    Some(body)
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), resource.plural.as_str().into());
    entry.insert("singularName".into(), resource.singular.as_str().into());
    entry.insert("namespaced".into(), resource.namespaced.into());
    entry.insert("kind".into(), resource.kind.as_str().into());
    entry.insert("verbs".into(), resource.verbs.clone().into());
    for (name, words) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !words.is_empty() {
            entry.insert(name.into(), words.clone().into());
        }
    }
    if !resource.storage_version_hash.is_empty() {
        entry.insert("storageVersionHash".into(), resource.storage_version_hash.as_str().into());
    }
    entry.into()
}

fn subresource_entry(resource: &Resource, sub: &Subresource) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), format!("{}/{}", resource.plural, sub.name).into());
    entry.insert("singularName".into(), "".into());
    entry.insert("namespaced".into(), resource.namespaced.into());
    if (&sub.group, &sub.version) != (&resource.group, &resource.version) {
        entry.insert("group".into(), sub.group.as_str().into());
        entry.insert("version".into(), sub.version.as_str().into());
    }
    entry.insert("kind".into(), sub.kind.as_str().into());
    entry.insert("verbs".into(), sub.verbs.clone().into());
    entry.into()
}

fn aggregated_version(catalogue: &Catalogue, group: &str, version: &str) -> Value {
    let resources = catalogue.resources().iter().filter(|r| r.group == group && r.version == version);
    let resources: Vec<Value> = resources.map(|r| aggregated_resource(r)).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(resource: &Resource) -> Value {
    // Kinds of the version that is described are told without it.
    let kind = |group: &str, version: &str, kind: &str| {
        let same = (group, version) == (resource.group.as_str(), resource.version.as_str()) && !resource.custom;
        if same { json!({"group": "", "version": "", "kind": kind}) } else { json!({"group": group, "version": version, "kind": kind}) }
    };
    let mut entry = Map::new();
    entry.insert("resource".into(), resource.plural.as_str().into());
    entry.insert("responseKind".into(), kind(&resource.group, &resource.version, &resource.kind));
    entry.insert("scope".into(), if resource.namespaced { "Namespaced" } else { "Cluster" }.into());
    entry.insert("singularResource".into(), resource.singular.as_str().into());
    entry.insert("verbs".into(), resource.verbs.clone().into());
    for (name, words) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !words.is_empty() {
            entry.insert(name.into(), words.clone().into());
        }
    }
    if !resource.subresources.is_empty() {
        let subs = resource.subresources.iter();
        let subs: Vec<Value> =
            subs.map(|s| json!({"subresource": s.name, "responseKind": kind(&s.group, &s.version, &s.kind), "verbs": s.verbs})).collect();
        entry.insert("subresources".into(), subs.into());
    }
    entry.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::builtin;

    #[test]
    fn a_group_lists_its_preferred_version_first() {
        let group = group(builtin(), "autoscaling").unwrap();
        assert_eq!(group["preferredVersion"], json!({"groupVersion": "autoscaling/v2", "version": "v2"}));
        assert_eq!(group["versions"].as_array().map(Vec::len), Some(2));
        assert!(super::group(builtin(), "nobody").is_none());
    }

    #[test]
    fn resources_name_the_group_of_a_foreign_body() {
        let core = resources(builtin(), "", "v1").unwrap();
        let find = |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone();
        assert_eq!(find("pods/eviction")["group"], "policy");
        assert_eq!(find("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
        assert!(find("pods/status").get("group").is_none());
        assert!(resources(builtin(), "apps", "v2").is_none());
    }

    #[test]
    fn both_forms_tell_of_the_same_resources() {
        for core in [true, false] {
            for item in aggregated(builtin(), core)["items"].as_array().unwrap() {
                let group = item["metadata"]["name"].as_str().unwrap_or_default();
                for version in item["versions"].as_array().unwrap() {
                    let legacy = resources(builtin(), group, version["version"].as_str().unwrap()).unwrap();
                    let count = |r: &Value| 1 + r["subresources"].as_array().map_or(0, Vec::len);
                    let told: usize = version["resources"].as_array().unwrap().iter().map(count).sum();
                    assert_eq!(legacy["resources"].as_array().unwrap().len(), told, "{group}");
                }
            }
        }
    }
}
