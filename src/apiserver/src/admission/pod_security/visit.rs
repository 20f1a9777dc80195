//! A pod as the checks look at it.

use serde_json::Value;

/// A pod or a template of pods.
pub struct Pod<'a> {
    /// Its annotations.
    pub annotations: &'a Value,
    /// Its spec.
    pub spec: &'a Value,
}

impl<'a> Pod<'a> {
    /// Of a pod, or of a template of one.
    pub fn of(pod: &'a Value) -> Self {
        Self { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] }
    }

    /// `spec.securityContext`.
    pub fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// All containers, of every list.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
    }

    /// Names of the containers of which this holds.
    pub fn named(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| holds(container)).map(|container| container["name"].as_str().unwrap_or_default()).collect()
    }

    /// Its user namespace is its own: root in it is nobody outside.
    pub fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    /// For Windows, where rules about Linux mean nothing.
    pub fn is_for_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

/// `containers "a", "b"`.
pub fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// `"a", "b"`.
pub fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// The word for one or more.
pub fn plural(one: &str, count: usize) -> String {
    if count == 1 { one.to_owned() } else { format!("{one}s") }
}

/// The pod itself and containers, as they begin a sentence.
pub fn setters(pod: bool, names: &[&str]) -> String {
    match (pod, names.is_empty()) {
        (true, true) => "pod".to_owned(),
        (true, false) => format!("pod and {}", containers(names)),
        (false, _) => containers(names),
    }
}

/// Sorted, each once.
pub fn distinct<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    values.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
