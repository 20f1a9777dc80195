//! Which writes a webhook's rules are about: pure.

use serde_json::Value;

/// Matches everything.
const ANY: &str = "*";

/// What a write is about, as rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: &'a str,
    /// API group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Empty for none.
    pub subresource: &'a str,
    /// Empty for cluster scope.
    pub namespace: &'a str,
}

/// Where a rule looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Namespaced,
    Cluster,
    /// One that nobody knows.
    None,
}

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// With their subresources; empty for none.
    resources: Vec<(String, String)>,
    scope: Scope,
}

impl Rule {
    /// As the object has it.
    pub fn read(rule: &Value) -> Self {
        let words = |field: &str| -> Vec<String> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let split = |text: String| match text.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (text, String::new()),
        };
        Self {
            operations: words("operations"),
            groups: words("apiGroups"),
            versions: words("apiVersions"),
            resources: words("resources").into_iter().map(split).collect(),
            scope: match rule["scope"].as_str() {
                None | Some(ANY) => Scope::Any,
                Some("Namespaced") => Scope::Namespaced,
                Some("Cluster") => Scope::Cluster,
                Some(_) => Scope::None,
            },
        }
    }

    /// Whether the write is meant.
    pub fn covers(&self, subject: Subject<'_>) -> bool {
        let among = |list: &[String], value: &str| list.iter().any(|item| item == ANY || item == value);
        // Requests about a namespace are in it, but a namespace itself is in none.
        let is_namespace = (subject.group, subject.version, subject.resource) == ("", "v1", "namespaces");
        let in_cluster = is_namespace || subject.namespace.is_empty();
        let scope = match self.scope {
            Scope::Any => true,
            Scope::Namespaced => !in_cluster,
            Scope::Cluster => in_cluster,
            Scope::None => false,
        };
        scope
            && among(&self.operations, subject.operation)
            && among(&self.groups, subject.group)
            && among(&self.versions, subject.version)
            && self.resources.iter().any(|(resource, subresource)| {
                (resource == ANY || resource == subject.resource) && (subresource == ANY || subresource == subject.subresource)
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_cover_what_they_name() {
        let pod = Subject { operation: "CREATE", group: "", version: "v1", resource: "pods", subresource: "", namespace: "a" };
        let rule = |changes: Value| {
            let mut rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
            rule.as_object_mut().expect("a map").extend(changes.as_object().expect("a map").clone());
            Rule::read(&rule)
        };
        let status = Subject { subresource: "status", ..pod };
        let namespace = Subject { resource: "namespaces", ..pod };
        let node = Subject { resource: "nodes", namespace: "", ..pod };
        for (changes, subject, covered) in [
            (json!({}), pod, true),
            (json!({}), status, false),
            (json!({"resources": ["pods/*"]}), status, true),
            (json!({"resources": ["pods/*"]}), pod, true),
            (json!({"resources": ["pods/status"]}), pod, false),
            (json!({"resources": ["*/status"]}), status, true),
            (json!({"resources": ["*"]}), status, false),
            (json!({"resources": ["*/*"]}), status, true),
            (json!({"operations": ["*"]}), pod, true),
            (json!({"operations": ["DELETE", "UPDATE"]}), pod, false),
            (json!({"apiGroups": ["apps"]}), pod, false),
            (json!({"apiGroups": ["*"], "apiVersions": ["*"]}), pod, true),
            (json!({"apiVersions": ["v2"]}), pod, false),
            (json!({"scope": "Namespaced"}), pod, true),
            (json!({"scope": "Cluster"}), pod, false),
            (json!({"scope": "Cluster", "resources": ["*"]}), namespace, true),
            (json!({"scope": "Namespaced", "resources": ["*"]}), namespace, false),
            (json!({"scope": "Cluster", "resources": ["*"]}), node, true),
            (json!({"scope": "?"}), pod, false),
        ] {
            assert_eq!(rule(changes.clone()).covers(subject), covered, "{changes} {subject:?}");
        }
    }
}
