//! Which fields of a kind `fieldSelector` can name, and where they stand in the stored object.

use super::record::Tree;

/// One selectable field.
#[derive(Debug)]
struct Field {
    /// The name in selectors.
    name: Box<str>,
    /// Slots of the record's tree, tried in order.
    slots: Vec<usize>,
    /// What an absent value counts as.
    default: &'static str,
}

/// The selectable fields of one kind, besides `metadata.name` and `metadata.namespace`.
#[derive(Debug)]
pub struct Fields {
    fields: Vec<Field>,
    tree: Tree,
}

/// `(name, paths tried in order, value when absent)`.
type Row = (&'static str, &'static [&'static str], &'static str);

const PODS: &[Row] = &[
    ("spec.nodeName", &["spec.nodeName"], ""),
    ("spec.restartPolicy", &["spec.restartPolicy"], ""),
    ("spec.schedulerName", &["spec.schedulerName"], ""),
    ("spec.serviceAccountName", &["spec.serviceAccountName"], ""),
    ("spec.hostNetwork", &["spec.hostNetwork"], "false"),
    ("status.phase", &["status.phase"], ""),
    ("status.podIP", &["status.podIPs.0.ip", "status.podIP"], ""),
    ("status.podIPs", &["status.podIPs.0.ip", "status.podIP"], ""),
    ("status.nominatedNodeName", &["status.nominatedNodeName"], ""),
];
const EVENTS: &[Row] = &[
    ("involvedObject.kind", &["involvedObject.kind"], ""),
    ("involvedObject.namespace", &["involvedObject.namespace"], ""),
    ("involvedObject.name", &["involvedObject.name"], ""),
    ("involvedObject.uid", &["involvedObject.uid"], ""),
    ("involvedObject.apiVersion", &["involvedObject.apiVersion"], ""),
    ("involvedObject.resourceVersion", &["involvedObject.resourceVersion"], ""),
    ("involvedObject.fieldPath", &["involvedObject.fieldPath"], ""),
    ("reason", &["reason"], ""),
    ("reportingComponent", &["reportingComponent"], ""),
    ("source", &["source.component", "reportingComponent"], ""),
    ("type", &["type"], ""),
];

fn rows(kind: &str) -> &'static [Row] {
    match kind {
        "pods" => PODS,
        "events" => EVENTS,
        "secrets" => &[("type", &["type"], "")],
        "namespaces" => &[("status.phase", &["status.phase"], ""), ("name", &["metadata.name"], "")],
        "nodes" => &[("spec.unschedulable", &["spec.unschedulable"], "false")],
        "services" => &[("spec.clusterIP", &["spec.clusterIP"], ""), ("spec.type", &["spec.type"], "")],
        "persistentvolumes" | "persistentvolumeclaims" => &[("name", &["metadata.name"], "")],
        "replicationcontrollers" => &[("status.replicas", &["status.replicas"], "0")],
        "jobs.batch" => &[("status.successful", &["status.succeeded"], "0")],
        "certificatesigningrequests.certificates.k8s.io" => &[("spec.signerName", &["spec.signerName"], "")],
        "resourceslices.resource.k8s.io" => &[("spec.nodeName", &["spec.nodeName"], ""), ("spec.driver", &["spec.driver"], "")],
        _ => &[],
    }
}

/// The name in the core version of a field that `events.k8s.io` calls otherwise.
pub fn stored_name<'a>(group: &str, resource: &str, name: &'a str) -> &'a str {
    if (group, resource) != ("events.k8s.io", "events") {
        return name;
    }
    match name {
        "regarding.kind" => "involvedObject.kind",
        "regarding.namespace" => "involvedObject.namespace",
        "regarding.name" => "involvedObject.name",
        "regarding.uid" => "involvedObject.uid",
        "regarding.apiVersion" => "involvedObject.apiVersion",
        "regarding.resourceVersion" => "involvedObject.resourceVersion",
        "regarding.fieldPath" => "involvedObject.fieldPath",
        "reportingController" => "reportingComponent",
        other => other,
    }
}

impl Fields {
    /// Of a built-in kind, by its qualified plural (`pods`, `jobs.batch`).
    pub fn of(kind: &str) -> Self {
        let mut paths: Vec<&str> = Vec::new();
        let mut fields = Vec::new();
        for (name, sources, default) in rows(kind) {
            let slots = sources
                .iter()
                .map(|path| {
                    let at = paths.iter().position(|p| p == path).unwrap_or_else(|| {
                        paths.push(path);
                        paths.len() - 1
                    });
                    at + 1
                })
                .collect();
            fields.push(Field { name: (*name).into(), slots, default });
        }
        Self { fields, tree: Tree::new(paths.into_iter()) }
    }

    /// Of a custom resource, which says itself which paths these are.
    pub fn at(paths: &[String]) -> Self {
        let fields = paths.iter().enumerate().map(|(i, path)| Field { name: path.as_str().into(), slots: vec![i + 1], default: "" });
        Self { fields: fields.collect(), tree: Tree::new(paths.iter().map(String::as_str)) }
    }

    /// Where a field stands in a record.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| *field.name == *name)
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The fields' values from the tree's slots.
    pub(super) fn settle(&self, values: Vec<Option<Box<str>>>) -> Box<[Box<str>]> {
        let pick = |field: &Field| {
            let found = field.slots.iter().find_map(|slot| values[*slot].as_deref().filter(|text| !text.is_empty()));
            found.unwrap_or(field.default).into()
        };
        self.fields.iter().map(pick).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::record, *};

    #[test]
    fn fields_are_read_off_the_bytes() {
        let pod = json!({"metadata": {"uid": "u", "labels": {"a": null}}, "spec": {"nodeName": "n", "containers": [{"name": "spec"}], "hostNetwork": true},
            "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "podIP": "10.0.0.9"}});
        let fields = Fields::of("pods");
        let record = record::read(pod.to_string().as_bytes(), &fields).unwrap();
        let of = |name: &str| &*record.fields[fields.position(name).unwrap()];
        assert_eq!((of("spec.nodeName"), of("spec.hostNetwork"), of("status.podIP"), of("status.phase")), ("n", "true", "10.0.0.1", ""));
        assert_eq!((&*record.uid, &*record.labels[0].0, &*record.labels[0].1), ("u", "a", ""));
        assert_eq!(fields.position("spec.containers"), None);
        let event = json!({"reportingComponent": "kubelet", "source": {"component": ""}});
        let fields = Fields::of("events");
        let record = record::read(event.to_string().as_bytes(), &fields).unwrap();
        assert_eq!(&*record.fields[fields.position("source").unwrap()], "kubelet");
    }
}
