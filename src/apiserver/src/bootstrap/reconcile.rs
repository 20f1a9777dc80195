//! Default roles and bindings of a cluster that has them already: what a newer version adds to them is added, what others added stays.

use serde_json::{Map, Value, json};

use crate::authorization::rbac::{GROUP, covers, rules_of};

/// With the value `false` an owner keeps his hand on a default object.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The object as it should be; `None` when it is so already, or when it is not for us to change.
pub fn settled(there: &Value, wanted: &Value) -> Option<Value> {
    let of_rbac = wanted["apiVersion"].as_str().and_then(|version| version.split('/').next()) == Some(GROUP);
    if !of_rbac || there["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut out = there.clone();
    for field in ["labels", "annotations"] {
        add_missing(&mut out["metadata"], field, &wanted["metadata"][field]);
    }
    if wanted["roleRef"].is_object() {
        // Another role in its place is not to be changed: such a binding is its owner's.
        if there["roleRef"] != wanted["roleRef"] {
            return None;
        }
        extend(&mut out["subjects"], missing_subjects(&there["subjects"], &wanted["subjects"]));
    } else if wanted["aggregationRule"].is_object() {
        let selectors = |object: &Value| list(&object["aggregationRule"]["clusterRoleSelectors"]).to_vec();
        let had = selectors(there);
        let more: Vec<Value> = selectors(wanted).into_iter().filter(|selector| !had.contains(selector)).collect();
        if !more.is_empty() {
            extend(&mut out["aggregationRule"]["clusterRoleSelectors"], more);
        }
    } else {
        let more = covers(&rules_of(there), &rules_of(wanted));
        extend(&mut out["rules"], more.into_iter().map(|rule| json!(rule)).collect());
    }
    (out != *there).then_some(out)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn extend(place: &mut Value, more: Vec<Value>) {
    match place {
        Value::Array(list) => list.extend(more),
        other if !more.is_empty() => *other = more.into(),
        _ => {}
    }
}

fn add_missing(metadata: &mut Value, field: &str, wanted: &Value) {
    let Some(wanted) = wanted.as_object() else { return };
    let Some(metadata) = metadata.as_object_mut() else { return };
    let place = metadata.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if let Some(place) = place.as_object_mut() {
        for (key, value) in wanted {
            place.entry(key).or_insert_with(|| value.clone());
        }
    }
}

/// Subjects by what names them: a field that defaulting fills makes no other subject.
fn missing_subjects(there: &Value, wanted: &Value) -> Vec<Value> {
    let same = |a: &Value, b: &Value| ["kind", "namespace", "name"].iter().all(|field| a[*field] == b[*field]);
    list(wanted).iter().filter(|subject| !list(there).iter().any(|other| same(other, subject))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(rules: Value) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r", "labels": {"a": "b"}}, "rules": rules})
    }

    fn rule(verbs: &[&str], resource: &str) -> Value {
        json!({"verbs": verbs, "apiGroups": [""], "resources": [resource]})
    }

    #[test]
    fn a_role_gets_what_it_lacks_and_keeps_what_it_has() {
        let wanted = role(json!([rule(&["get", "list"], "pods")]));
        assert_eq!(settled(&wanted, &wanted), None);
        let less = role(json!([rule(&["get"], "pods"), rule(&["delete"], "secrets")]));
        let out = settled(&less, &wanted).expect("something is missing");
        assert_eq!(out["rules"], json!([rule(&["get"], "pods"), rule(&["delete"], "secrets"), rule(&["list"], "pods")]));
        assert_eq!(settled(&role(json!([rule(&["*"], "*")])), &wanted), None, "more is enough");
        let mut owned = less.clone();
        owned["metadata"]["annotations"] = json!({AUTOUPDATE: "false"});
        assert_eq!(settled(&owned, &wanted), None);
        let out = settled(&json!({"metadata": {"name": "r"}, "rules": wanted["rules"]}), &wanted).expect("a label is missing");
        assert_eq!(out["metadata"]["labels"], json!({"a": "b"}));
    }

    #[test]
    fn a_binding_gets_its_subjects_back() {
        let binding = |subjects: Value, role: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "b"}, "roleRef": {"name": role}, "subjects": subjects});
        let group = json!({"kind": "Group", "name": "g"});
        let defaulted = json!({"kind": "Group", "name": "g", "apiGroup": GROUP});
        let user = json!({"kind": "User", "name": "u"});
        let wanted = binding(json!([group]), "r");
        assert_eq!(settled(&binding(json!([defaulted]), "r"), &wanted), None);
        assert_eq!(settled(&binding(json!([user]), "r"), &wanted).expect("changed")["subjects"], json!([user, group]));
        assert_eq!(settled(&binding(json!([user]), "another"), &wanted), None);
    }

    #[test]
    fn an_aggregated_role_is_made_of_its_selectors() {
        let with = |selectors: Value| {
            let mut role = role(json!([]));
            role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
            role
        };
        let (a, b) = (json!({"matchLabels": {"a": "1"}}), json!({"matchLabels": {"b": "1"}}));
        let out = settled(&with(json!([a])), &with(json!([b]))).expect("a selector is missing");
        assert_eq!(out["aggregationRule"]["clusterRoleSelectors"], json!([a, b]));
    }
}
