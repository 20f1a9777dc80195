//! What may change of a pod that exists.

use std::net::IpAddr;

use serde_json::Value;

use super::super::field::Field;
use super::super::rules::{ip, qualified_name};
use crate::quality;

/// Says that the kubelet has made a pod of a file, and that the API only shows it.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Everything else of the spec is fixed once the pod exists.
pub(in super::super) fn update(pod: &Field<'_>, old: &Value, subresource: &str) {
    let spec = pod.at("spec");
    match subresource {
        // A binding changes nothing but the node's name, which the registry writes itself.
        "binding" => return,
        "status" => return status(pod, old),
        _ => {}
    }
    if matches!(subresource, "ephemeralcontainers" | "resize") && !old["metadata"]["annotations"][MIRROR].is_null() {
        return pod.forbidden("the pod belongs to a file on its node");
    }
    if subresource == "resize" && old["spec"]["os"]["name"] == "windows" {
        return pod.forbidden("windows pods cannot be resized");
    }
    super::spec(&spec);
    match subresource {
        "ephemeralcontainers" => ephemeral_containers(&spec, &old["spec"]),
        "resize" => resize(pod, old),
        _ => whole(&spec, &old["spec"]),
    }
}

fn status(pod: &Field<'_>, old: &Value) {
    let status = pod.at("status");
    conditions(&status.at("conditions"));
    for list in ["podIPs", "hostIPs"] {
        let (list, known) = (status.at(list), old["status"][list].as_array().map(Vec::as_slice).unwrap_or_default());
        list.each(|i, address| {
            let said = address.holding(&address.value()["ip"]);
            if !known.iter().any(|known| &known["ip"] == said.value()) {
                ip(&said);
            }
            if i == 0 && list.path() == "status.hostIPs" && said.text() != status.at("hostIP").text() {
                address.at("ip").invalid("must be equal to `hostIP`");
            }
        });
        one_of_each_family(&list);
    }
    if old["status"]["qosClass"].is_string() {
        super::super::rules::immutable(&status.at("qosClass"), &old["status"]["qosClass"]);
    }
    status.at("observedGeneration").not_negative();
    let nominated = status.at("nominatedNodeName");
    if nominated.value() != &old["status"]["nominatedNodeName"] {
        nominated.may_be_valid(crate::names::dns_subdomain);
    }
}

fn conditions(conditions: &Field<'_>) {
    conditions.each(|_, condition| {
        condition.at("observedGeneration").not_negative();
        let kind = condition.called("Type");
        let kind = kind.holding(&condition.value()["type"]);
        if !matches!(kind.text(), "PodScheduled" | "Ready" | "Initialized") {
            kind.all_invalid(qualified_name(kind.text()));
        }
    });
}

/// Of several addresses, one is of IPv4 and the other of IPv6.
fn one_of_each_family(list: &Field<'_>) {
    let parsed: Vec<Option<IpAddr>> = list.list().iter().map(|address| address["ip"].as_str().and_then(|ip| ip.parse().ok())).collect();
    let good = match parsed[..] {
        [] | [_] => true,
        [Some(one), Some(other)] => one.is_ipv4() != other.is_ipv4(),
        _ => false,
    };
    if !good {
        list.invalid("may specify no more than one IP for each IP family");
    }
}

/// New ones may come; those that are there stay as they are.
fn ephemeral_containers(spec: &Field<'_>, before: &Value) {
    let containers = spec.at("ephemeralContainers");
    for old in before["ephemeralContainers"].as_array().into_iter().flatten() {
        match containers.list().iter().find(|new| new["name"] == old["name"]) {
            None => containers.forbidden(&format!("existing ephemeral containers {} may not be removed", old["name"])),
            Some(new) if new != old => containers.forbidden(&format!("existing ephemeral containers {} may not be changed", old["name"])),
            Some(_) => {}
        }
    }
    let strip = |spec: &Value| without(spec, &["ephemeralContainers"]);
    if strip(spec.value()) != strip(before) {
        spec.forbidden("nothing but ephemeral containers may change here");
    }
}

fn without(value: &Value, fields: &[&str]) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.retain(|name, field| !fields.contains(&name.as_str()) && !field.is_null());
    }
    value
}

/// CPU and memory may change, but not so that the quality of service does.
fn resize(pod: &Field<'_>, old: &Value) {
    let (spec, before) = (pod.at("spec"), &old["spec"]);
    let class = old["status"]["qosClass"].as_str().unwrap_or_else(|| quality::of_pod(old));
    if class != quality::of_pod(pod.value()) {
        spec.invalid("the quality of service of a pod may not change as a result of resizing");
    }
    let before_order = spec.found();
    for list in ["containers", "initContainers"] {
        let containers = spec.at(list);
        let known = before[list].as_array().map(Vec::as_slice).unwrap_or_default();
        if containers.list().len() != known.len() {
            containers.forbidden("containers may not be added or removed on resize");
            continue;
        }
        containers.each(|i, container| {
            if container.at("name").value() != &known[i]["name"] {
                container.at("name").forbidden("containers may not be renamed or reordered on resize");
            }
        });
    }
    // The rest compares containers by their place.
    if spec.found() > before_order {
        return;
    }
    kept(&spec.at("resources"), &before["resources"]);
    for list in ["containers", "initContainers"] {
        let containers = spec.at(list);
        let known = before[list].as_array().map(Vec::as_slice).unwrap_or_default();
        containers.each(|i, container| kept(&container.at("resources"), &known[i]["resources"]));
    }
    let strip = |spec: &Value| {
        let mut spec = without(spec, &[]);
        // A pod that had no resources of its own may get some.
        strip_resizable(&mut spec);
        if spec["resources"].as_object().is_some_and(serde_json::Map::is_empty) {
            spec = without(&spec, &["resources"]);
        }
        for_containers(&mut spec, strip_resizable);
        spec
    };
    if strip(spec.value()) != strip(before) {
        spec.forbidden("only cpu and memory resources are mutable");
    }
}

/// What was asked for may become another amount, not nothing.
fn kept(resources: &Field<'_>, was: &Value) {
    for part in ["requests", "limits"] {
        let amounts = resources.at(part);
        let lost = was[part].as_object().into_iter().flatten().any(|(name, _)| amounts.value()[name.as_str()].is_null());
        if lost {
            amounts.forbidden(&format!("resource {part} cannot be removed"));
        }
    }
}

/// Takes what may change out of the `resources` of a container, or of the pod.
fn strip_resizable(of: &mut Value) {
    for part in ["requests", "limits"] {
        let amounts = of.get_mut("resources").and_then(|r| r.get_mut(part)).and_then(Value::as_object_mut);
        amounts.into_iter().for_each(|amounts| amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory")));
    }
    let emptied = |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if let Some(resources) = of.get_mut("resources").and_then(Value::as_object_mut) {
        resources.retain(|_, value| !emptied(value));
    }
}

fn whole(spec: &Field<'_>, before: &Value) {
    for list in ["containers", "initContainers"] {
        let containers = spec.at(list);
        if containers.list().len() != before[list].as_array().map_or(0, Vec::len) {
            containers.forbidden("pod updates may not add or remove containers");
            return;
        }
        containers.each(|_, container| {
            let image = container.at("image");
            if image.is_empty() {
                image.required("");
            }
        });
    }
    deadline(&spec.at("activeDeadlineSeconds"), &before["activeDeadlineSeconds"]);
    let tolerations = spec.at("tolerations");
    let kept = |toleration: &Value| {
        tolerations.list().iter().any(|t| {
            let same = |name: &str| t[name] == toleration[name];
            ["key", "operator", "value", "effect"].iter().all(|name| same(name))
        })
    };
    if !before["tolerations"].as_array().into_iter().flatten().all(kept) {
        tolerations.forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
    let gates = before["schedulingGates"].as_array().map(Vec::as_slice).unwrap_or_default();
    spec.at("schedulingGates").each(|_, gate| {
        if !gates.contains(gate.value()) {
            gate.at("name").forbidden("only deletion is allowed, but found new scheduling gate");
        }
    });
    let strip = |spec: &Value| {
        let mut spec = without(spec, &["activeDeadlineSeconds", "tolerations", "schedulingGates"]);
        for_containers(&mut spec, |container| container["image"] = Value::Null);
        // A pod that is not yet scheduled may still be told where to go.
        if gates.is_empty() { spec } else { without(&spec, &["nodeSelector", "affinity"]) }
    };
    let (new, mut old) = (strip(spec.value()), strip(before));
    if new["terminationGracePeriodSeconds"] == 1 && old["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0) {
        old["terminationGracePeriodSeconds"] = 1.into();
    }
    if new != old {
        spec.forbidden(
            "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, \
             `spec.tolerations` (only additions to existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        );
    }
}

fn deadline(new: &Field<'_>, old: &Value) {
    match (new.value().as_i64(), old.as_i64()) {
        (Some(new_seconds), Some(old_seconds)) if new_seconds > old_seconds => new.invalid("must be less than or equal to previous value"),
        (None, Some(_)) => new.invalid("must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn for_containers(spec: &mut Value, change: impl Fn(&mut Value)) {
    for list in ["containers", "initContainers"] {
        spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(&change);
    }
}
