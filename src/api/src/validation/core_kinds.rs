//! Configuration, namespaces, nodes, quotas, events, leases, classes.

use std::collections::HashSet;

use base64::Engine;
use serde_json::Value;

use super::field::{Field, doubles};
use super::metadata::standard_finalizer;
use super::rules::{cidr, data_key, immutable, labels, qualified_name, quantity, resource_value};
use super::{pod, workloads};
use crate::catalogue::Resource;
use crate::names;

/// All data of a Secret or ConfigMap together, in bytes.
const MAX_DATA_BYTES: usize = 1024 * 1024;
/// Scopes of a quota.
const SCOPES: [&str; 7] =
    ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating", "VolumeAttributesClass"];

pub(super) fn check(resource: &Resource, object: &Field<'_>, old: Option<&Value>, subresource: &str) {
    match resource.plural.as_str() {
        "configmaps" => config_map(object, old),
        "secrets" => secret(object, old),
        "namespaces" => {
            let spec = object.at("spec");
            spec.at("finalizers").each(|_, finalizer| {
                let list = spec.at("finalizers");
                let list = list.holding(finalizer.value());
                list.all_invalid(qualified_name(finalizer.text()));
                standard_finalizer(&list);
            });
            if subresource == "status" {
                let (status, metadata) = (object.at("status"), object.at("metadata"));
                let (phase, told) = (status.at("phase"), status.called("Phase"));
                let ending = metadata.at("deletionTimestamp").exists();
                if (phase.text() == "Terminating") != ending {
                    told.holding(phase.value()).invalid(if ending { "must be 'Terminating'" } else { "may only be 'Active'" });
                }
            }
        }
        "nodes" => node(object, old),
        "limitranges" => limit_range(&object.at("spec")),
        "resourcequotas" if subresource == "status" => {
            let status = object.at("status");
            for name in ["hard", "used"] {
                quota_amounts(&status.at(name));
            }
        }
        "resourcequotas" => quota(&object.at("spec")),
        "replicationcontrollers" if subresource != "status" => workloads::replication_controller(&object.at("spec")),
        "leases" => lease(&object.at("spec")),
        "priorityclasses" => priority_class(object, old),
        "runtimeclasses" => runtime_class(object),
        _ => {}
    }
}

fn config_map(map: &Field<'_>, old: Option<&Value>) {
    let (data, binary) = (map.at("data"), map.at("binaryData"));
    let mut total = 0;
    data.each_key(|key, entry| {
        if let Err(message) = data_key(key) {
            entry.invalid(&message);
        }
        if binary.value().get(key).is_some() {
            entry.invalid("duplicate of key present in binaryData");
        }
        total += entry.text().len();
    });
    binary.each_key(|key, entry| {
        if let Err(message) = data_key(key) {
            entry.invalid(&message);
        }
        total += entry.text().len() / 4 * 3;
    });
    if total > MAX_DATA_BYTES {
        map.called("[]").too_long(MAX_DATA_BYTES);
    }
    if let Some(old) = old.filter(|o| o["immutable"] == true) {
        kept(map, old, &["data", "binaryData"]);
    }
}

/// Of an object that is marked immutable.
fn kept(object: &Field<'_>, old: &Value, fields: &[&str]) {
    if !object.at("immutable").is_true() {
        object.at("immutable").forbidden("field is immutable when `immutable` is set");
    }
    for field in fields {
        if object.at(field).value() != &old[*field] {
            object.at(field).forbidden("field is immutable when `immutable` is set");
        }
    }
}

fn secret(secret: &Field<'_>, old: Option<&Value>) {
    let data = secret.at("data");
    let mut total = 0;
    data.each_key(|key, entry| {
        if let Err(message) = data_key(key) {
            entry.invalid(&message);
        }
        total += entry.text().len() / 4 * 3;
    });
    if total > MAX_DATA_BYTES {
        data.too_long(MAX_DATA_BYTES);
    }
    let needs = |key: &str| {
        let there = data.value().get(key).is_some();
        if !there {
            data.key(key).required("");
        }
        there
    };
    let is_json = |key: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(data.key(key).text()).unwrap_or_default();
        if serde_json::from_slice::<Value>(&bytes).is_err() {
            data.key(key).invalid("<secret contents redacted>");
        }
    };
    match secret.at("type").text() {
        "kubernetes.io/service-account-token" => {
            let metadata = secret.at("metadata");
            let annotations = metadata.at("annotations");
            let account = annotations.key("kubernetes.io/service-account.name");
            if account.is_empty() {
                account.required("");
            }
        }
        "kubernetes.io/dockercfg" if needs(".dockercfg") => is_json(".dockercfg"),
        "kubernetes.io/dockerconfigjson" if needs(".dockerconfigjson") => is_json(".dockerconfigjson"),
        "kubernetes.io/basic-auth" if data.value().get("username").is_none() && data.value().get("password").is_none() => {
            needs("username");
            needs("password");
        }
        "kubernetes.io/ssh-auth" if data.key("ssh-privatekey").is_empty() => data.key("ssh-privatekey").required(""),
        "kubernetes.io/tls" => {
            needs("tls.crt");
            needs("tls.key");
        }
        _ => {}
    }
    if let Some(old) = old {
        immutable(&secret.at("type"), &old["type"]);
        if old["immutable"] == true {
            kept(secret, old, &["data"]);
        }
    }
}

fn node(node: &Field<'_>, old: Option<&Value>) {
    let spec = node.at("spec");
    let metadata = node.at("metadata");
    // Upstream tells taints as if they were metadata.
    let taints = metadata.called("taints");
    // Of a changed node, upstream looks at them on two ways.
    for _ in 0..if old.is_some() { 2 } else { 1 } {
        self::taints(&taints.holding(spec.at("taints").value()));
    }
    spec.at("podCIDRs").each(|_, range| cidr(&range));
    let status = node.at("status");
    for name in ["capacity", "allocatable"] {
        status.at(name).each_key(|resource, value| resource_value(resource, &value));
    }
    let Some(old) = old else { return };
    if !old["spec"]["podCIDRs"].is_null() && spec.at("podCIDRs").value() != &old["spec"]["podCIDRs"] {
        spec.at("podCIDRs").forbidden("node updates may not change podCIDR except from \"\" to valid");
    }
    if !old["spec"]["providerID"].is_null() && spec.at("providerID").value() != &old["spec"]["providerID"] {
        spec.at("providerID").forbidden("node updates may not change providerID except from \"\" to valid");
    }
}

fn taints(taints: &Field<'_>) {
    let mut seen: HashSet<(String, String)> = HashSet::new();
    taints.each(|_, taint| {
        let (key, value, effect) = (taint.at("key"), taint.at("value"), taint.at("effect"));
        key.all_invalid(qualified_name(key.text()));
        value.valid_by(names::label_value);
        effect.required_one_of(&["NoExecute", "NoSchedule", "PreferNoSchedule"]);
        let pair = (key.text().to_owned(), effect.text().to_owned());
        if seen.contains(&pair) {
            taint.duplicate();
        }
        seen.insert(pair);
    });
}

fn limit_range(spec: &Field<'_>) {
    let mut kinds: Vec<String> = Vec::new();
    spec.at("limits").each(|_, item| {
        let kind = item.at("type");
        let known = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim");
        if !known {
            let wrong = qualified_name(kind.text());
            if wrong.is_empty() && !kind.text().contains('/') {
                kind.invalid("must be a standard limit type or fully qualified");
            }
            kind.all_invalid(wrong);
        }
        if kinds.iter().any(|k| k == kind.text()) {
            kind.duplicate();
        }
        kinds.push(kind.text().to_owned());
        let (least, most) = (item.at("min"), item.at("max"));
        if kind.text() == "Pod" {
            for name in ["default", "defaultRequest"] {
                if !item.at(name).is_empty() {
                    item.at(name).forbidden("may not be specified when `type` is 'Pod'");
                }
            }
        }
        if kind.text() == "PersistentVolumeClaim" && least.value().get("storage").is_none() && most.value().get("storage").is_none() {
            spec.at("limits").required("either minimum or maximum storage value is required, but neither was provided");
        }
        let compare = |low: &Field<'_>, high: &Field<'_>, told: &Field<'_>| {
            if low.exists() && high.exists() && quantity(low) > quantity(high) {
                told.invalid("must be within the range of the other bounds");
            }
        };
        let names: Vec<String> = ["min", "max", "default", "defaultRequest"]
            .iter()
            .flat_map(|m| item.value()[*m].as_object().into_iter().flatten().map(|(name, _)| name.clone()))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let (default, request) = (item.at("default"), item.at("defaultRequest"));
        for name in &names {
            let (low, high, default, request) = (least.key(name), most.key(name), default.key(name), request.key(name));
            compare(&low, &high, &low);
            compare(&low, &request, &request);
            compare(&request, &high, &request);
            compare(&request, &default, &request);
            compare(&low, &default, &default);
            compare(&default, &high, &default);
        }
    });
}

/// Amounts by the names of what is counted.
fn quota_amounts(amounts: &Field<'_>) {
    amounts.each_key(|name, value| {
        let wrong = qualified_name(name);
        let simple = matches!(
            name,
            "cpu"
                | "memory"
                | "ephemeral-storage"
                | "pods"
                | "services"
                | "replicationcontrollers"
                | "resourcequotas"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        );
        let known =
            simple || name.contains('/') || name.starts_with("requests.") || name.starts_with("limits.") || name.starts_with("hugepages-");
        if !wrong.is_empty() {
            value.all_invalid(wrong);
        } else if !known {
            value.invalid("must be a standard resource for quota");
        }
        if quantity(&value).signum() < 0 {
            value.invalid("must be greater than or equal to 0");
        }
    });
}

fn quota(spec: &Field<'_>) {
    quota_amounts(&spec.at("hard"));
    let scopes = spec.at("scopes");
    for scope in scopes.list() {
        if !SCOPES.iter().any(|s| scope == s) {
            scopes.holding(spec.at("scopes").value()).invalid("unsupported scope");
        }
    }
    let selector = spec.at("scopeSelector");
    let expressions = selector.at("matchExpressions");
    for requirement in expressions.list() {
        let requirement = expressions.holding(requirement);
        let (scope, operator, values) = (requirement.at("scopeName"), requirement.at("operator"), requirement.at("values"));
        if !SCOPES.contains(&scope.text()) {
            scope.invalid("unsupported scope");
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector")
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.invalid("must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid("not a valid selector operator"),
        }
    }
}

fn lease(spec: &Field<'_>) {
    let (duration, transitions) = (spec.at("leaseDurationSeconds"), spec.at("leaseTransitions"));
    if duration.exists() {
        duration.positive();
    }
    transitions.not_negative();
}

fn priority_class(class: &Field<'_>, old: Option<&Value>) {
    /// Above it are the system's own classes.
    const HIGHEST_OF_USERS: i64 = 1_000_000_000;
    let metadata = class.at("metadata");
    let name = metadata.at("name").text();
    if name.starts_with("system-") {
        let known = matches!(
            (name, class.at("value").number()),
            ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
        );
        if !known {
            metadata.at("name").forbidden("priority class names with 'system-' prefix are reserved for system use only");
        }
    } else if class.at("value").number() > HIGHEST_OF_USERS {
        class.at("value").forbidden(&format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}"));
    }
    if old.is_none() {
        class.at("preemptionPolicy").optional_one_of(&["Never", "PreemptLowerPriority"]);
    }
    if let Some(old) = old {
        if class.at("value").value() != &old["value"] {
            class.at("value").forbidden("may not be changed in an update");
        }
        immutable(&class.at("preemptionPolicy"), &old["preemptionPolicy"]);
    }
}

fn runtime_class(class: &Field<'_>) {
    class.at("handler").must_be_valid(names::dns_label);
    let overhead = class.at("overhead");
    overhead.at("podFixed").each_key(|name, value| resource_value(name, &value));
    let scheduling = class.at("scheduling");
    labels(&scheduling.at("nodeSelector"));
    pod::tolerations(&scheduling.at("tolerations"));
    let tolerations = scheduling.at("tolerations");
    let list = tolerations.list();
    let doubled = doubles(list);
    tolerations.each(|i, toleration| {
        if doubled[i] {
            toleration.duplicate();
        }
    });
}
