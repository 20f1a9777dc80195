//! Persistent volumes, claims, storage classes, CSI.

use std::collections::HashSet;

use serde_json::Value;

use super::field::{Field, doubles};
use super::pod::{claim_spec, persistent_source};
use super::rules::{immutable, label_selector, node_selector, qualified_name, quantity};
use crate::catalogue::Resource;
use crate::names;
use crate::quantity::Quantity;

const POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];

pub(super) fn check(resource: &Resource, object: &Field<'_>, old: Option<&Value>, subresource: &str) {
    if subresource == "status" {
        return;
    }
    match resource.plural.as_str() {
        "persistentvolumes" => volume(object, old),
        "persistentvolumeclaims" => claim(object, old),
        "storageclasses" => class(object, old),
        "csidrivers" => driver(&object.at("spec")),
        "csinodes" => {
            csi_node(&object.at("spec"));
            if let Some(old) = old {
                csi_node_update(&object.at("spec"), old);
            }
        }
        "csistoragecapacities" => {
            object.at("storageClassName").valid_by(names::dns_subdomain);
            label_selector(&object.at("nodeTopology"));
        }
        "volumeattachments" => attachment(&object.at("spec"), old),
        "volumeattributesclasses" => {
            object.at("driverName").must_be_valid(driver_name);
            if object.at("parameters").is_empty() {
                object.at("parameters").required("must contain at least one key/value pair");
            }
            if let Some(old) = old {
                for name in ["driverName", "parameters"] {
                    if object.at(name).value() != &old[name] {
                        object.at(name).forbidden("updates to this field are forbidden");
                    }
                }
            }
        }
        _ => {}
    }
}

fn driver_name(text: &str) -> Result<(), String> {
    names::dns_subdomain(&text.to_lowercase())
}

fn volume(volume: &Field<'_>, old: Option<&Value>) {
    let spec = volume.at("spec");
    let modes = spec.at("accessModes");
    if modes.is_empty() {
        modes.required("");
    }
    for mode in modes.list() {
        let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
        if !known.iter().any(|m| mode == m) {
            modes.holding(mode).not_supported(&known);
        }
    }
    let capacity = spec.at("capacity");
    if capacity.is_empty() {
        capacity.required("");
    }
    if capacity.value().get("storage").is_none() || capacity.value().as_object().is_some_and(|c| c.len() > 1) {
        capacity.not_supported(&["storage"]);
    }
    capacity.each_key(|_, value| {
        if quantity(&value).signum() <= 0 {
            value.invalid("must be greater than zero");
        }
    });
    spec.at("persistentVolumeReclaimPolicy").one_of(&POLICIES);
    let affinity = spec.at("nodeAffinity");
    if affinity.exists() {
        let required = affinity.at("required");
        if required.exists() { node_selector(&required) } else { required.required("must specify required node constraints") }
    }
    persistent_source(&spec);
    if spec.at("local").exists() && !affinity.exists() {
        affinity.required("Local volume requires node affinity");
    }
    spec.at("storageClassName").may_be_valid(names::dns_subdomain);
    spec.at("volumeMode").optional_one_of(&["Block", "Filesystem"]);
    let attributes = spec.at("volumeAttributesClassName");
    if attributes.exists() {
        attributes.valid_by(names::dns_subdomain);
    }
    let Some(old) = old else { return };
    const OTHERS: [&str; 10] = [
        "capacity",
        "accessModes",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "mountOptions",
        "volumeMode",
        "nodeAffinity",
        "volumeAttributesClassName",
        "persistentvolumesource",
    ];
    let source = |spec: &Value| -> Vec<(String, Value)> {
        let fields = spec.as_object().into_iter().flatten();
        fields.filter(|(name, _)| !OTHERS.contains(&name.as_str())).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    if source(spec.value()) != source(&old["spec"]) {
        spec.at("persistentvolumesource").forbidden("spec.persistentvolumesource is immutable after creation");
    }
    immutable(&volume.called("volumeMode").holding(spec.at("volumeMode").value()), &old["spec"]["volumeMode"]);
    if !old["spec"]["nodeAffinity"].is_null() {
        let before = with_new_names(&old["spec"]["nodeAffinity"], affinity.value());
        immutable(&volume.called("nodeAffinity").holding(affinity.value()), &before);
    }
}

/// Labels of nodes that have another name since they are stable.
const RENAMED_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// An affinity as it was, under the names that the new one has for the same labels. As upstream, the name of what has no new one is empty.
fn with_new_names(old: &Value, new: &Value) -> Value {
    let mut out = old.clone();
    let terms = out["required"]["nodeSelectorTerms"].as_array_mut().into_iter().flatten().enumerate();
    for (i, term) in terms {
        for list in ["matchExpressions", "matchFields"] {
            let now = &new["required"]["nodeSelectorTerms"][i][list];
            for (j, requirement) in term.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
                let key = requirement["key"].as_str().unwrap_or_default();
                let renamed = RENAMED_LABELS.iter().find(|(before, _)| *before == key).map_or("", |(_, now)| now);
                if now[j]["key"] == renamed {
                    requirement["key"] = renamed.into();
                }
            }
        }
    }
    out
}

fn claim(claim: &Field<'_>, old: Option<&Value>) {
    let spec = claim.at("spec");
    claim_spec(&spec);
    let Some(old) = old else { return };
    let before = &old["spec"];
    let changed = |name: &str| spec.at(name).value() != &before[name];
    let others = ["accessModes", "selector", "storageClassName", "dataSource", "dataSourceRef"];
    let binding = before["volumeName"].is_null() || !changed("volumeName");
    let bound = old["status"]["phase"] == "Bound";
    let mut strip = [spec.at("resources").value().clone(), before["resources"].clone()];
    strip.iter_mut().for_each(|r| drop(r["requests"].as_object_mut().map(|m| m.remove("storage"))));
    if others.iter().any(|name| changed(name))
        || changed("volumeMode")
        || !binding
        || (!bound && changed("volumeAttributesClassName") && !before["volumeAttributesClassName"].is_null())
        || strip[0] != strip[1]
        || (!bound && spec.value()["resources"] != before["resources"])
    {
        spec.forbidden("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
    }
    immutable(&claim.called("volumeMode").holding(spec.at("volumeMode").value()), &before["volumeMode"]);
    let (resources, old_storage) = (spec.at("resources"), &before["resources"]["requests"]["storage"]);
    let requests = resources.at("requests");
    let storage = requests.at("storage");
    let old_quantity = old_storage.as_str().and_then(|q| q.parse().ok());
    // An expansion that failed may be taken back, but not below what the volume has.
    let (asked, capacity) = (quantity(&storage), old["status"]["capacity"]["storage"].as_str().and_then(|q| q.parse().ok()));
    let shrinks = old_quantity.is_some_and(|old| asked < old) && asked <= capacity.unwrap_or(Quantity::from_units(0));
    if shrinks {
        storage.forbidden("field can not be less than status.capacity");
    }
}

fn class(class: &Field<'_>, old: Option<&Value>) {
    class.at("provisioner").must_be_valid(|text| qualified_name(&text.to_lowercase()).into_iter().next().map_or(Ok(()), Err));
    class.at("reclaimPolicy").one_of_if_said(&["Delete", "Retain"]);
    class.at("volumeBindingMode").required_one_of(&["Immediate", "WaitForFirstConsumer"]);
    let topologies = class.at("allowedTopologies");
    let doubled = doubles(topologies.list().iter().map(|term| &term["matchLabelExpressions"]));
    topologies.each(|i, term| {
        let expressions = term.at("matchLabelExpressions");
        // No expressions are those of every term.
        if expressions.is_empty() || doubled[i] {
            expressions.duplicate();
        }
        let mut keys: HashSet<String> = HashSet::new();
        expressions.each(|_, expression| {
            let (key, values) = (expression.at("key"), expression.at("values"));
            key.all_invalid(qualified_name(key.text()));
            if !keys.insert(key.text().to_owned()) {
                key.duplicate();
            }
            values.must_exist();
            let all = values.list();
            let doubled = doubles(all);
            values.each(|i, value| {
                if doubled[i] {
                    value.duplicate();
                }
            });
        });
    });
    let Some(old) = old else { return };
    for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        let field = class.at(name);
        if field.value() != &old[name] {
            field.invalid("updates to this field are forbidden");
        }
    }
}

impl Field<'_> {
    /// One of these unless empty.
    fn one_of_if_said(&self, allowed: &[&str]) {
        if !self.is_empty() {
            self.one_of(allowed);
        }
    }
}

fn driver(spec: &Field<'_>) {
    let policy = spec.at("fsGroupPolicy");
    policy.optional_one_of(&["File", "None", "ReadWriteOnceWithFSType"]);
    let doubled = doubles(spec.at("tokenRequests").list().iter().map(|request| &request["audience"]));
    spec.at("tokenRequests").each(|i, request| {
        if doubled[i] {
            request.at("audience").duplicate();
        }
        request.at("expirationSeconds").within(600, 1 << 32);
    });
    let modes = spec.at("volumeLifecycleModes");
    for mode in modes.list() {
        if mode != "Persistent" && mode != "Ephemeral" {
            modes.holding(mode).not_supported(&["Ephemeral", "Persistent"]);
        }
    }
}

fn csi_node(spec: &Field<'_>) {
    /// Longest node id of CSI, in bytes.
    const MAX_NODE_ID: usize = 192;
    let drivers = spec.at("drivers");
    let doubled = doubles(drivers.list().iter().map(|driver| &driver["name"]));
    drivers.each(|i, driver| {
        let (name, id) = (driver.at("name"), driver.at("nodeID"));
        csi_driver_name(&name);
        if doubled[i] {
            name.duplicate();
        }
        if id.is_empty() {
            id.required("");
        } else if id.text().len() > MAX_NODE_ID {
            id.invalid(&format!("must be {MAX_NODE_ID} characters or less"));
        }
        let keys = driver.at("topologyKeys");
        for key in keys.list() {
            driver.holding(key).all_invalid(qualified_name(key.as_str().unwrap_or_default()));
        }
    });
}

/// What a driver has said of itself on a node stays, what it can hold aside.
fn csi_node_update(spec: &Field<'_>, old: &Value) {
    let drivers = spec.at("drivers");
    let facts = |driver: &Value| [driver["nodeID"].clone(), driver["topologyKeys"].clone()];
    for before in old["spec"]["drivers"].as_array().into_iter().flatten() {
        let now = drivers.list().iter().find(|driver| driver["name"] == before["name"]);
        if now.is_some_and(|now| facts(now) != facts(before)) {
            drivers.invalid("field is immutable");
        }
    }
}

fn csi_driver_name(name: &Field<'_>) {
    if name.must_exist() {
        if name.text().len() > 63 {
            name.too_long(63);
        }
        name.valid_by(driver_name);
    }
}

fn attachment(spec: &Field<'_>, old: Option<&Value>) {
    csi_driver_name(&spec.at("attacher"));
    let node = spec.at("nodeName");
    node.valid_by(names::dns_subdomain);
    let source = spec.at("source");
    let name = source.at("persistentVolumeName");
    match (name.exists(), source.at("inlineVolumeSpec").exists()) {
        (false, false) => source.required("must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        (true, true) => source.forbidden("must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        (true, false) => {
            if name.is_empty() {
                name.required("must specify non empty persistentVolumeName");
            }
            name.valid_by(names::dns_subdomain);
        }
        (false, true) => {}
    }
    if let Some(old) = old
        && spec.value() != &old["spec"]
    {
        spec.invalid("field is immutable");
    }
}
