//! Defaults of the other kinds that depend on other fields.

use base64::Engine;
use serde_json::{Value, json};

use super::{Fields, Procedure, has_members, object, object_or_new, set, text};

/// By message.
pub(super) const PROCEDURES: &[(&str, Procedure)] = &[
    ("core.v1.Namespace", namespace),
    ("core.v1.Secret", secret),
    ("core.v1.Service", service),
    ("core.v1.ServiceSpec", service_spec),
    ("core.v1.ServicePort", service_port),
    ("core.v1.LimitRangeItem", limit_range_item),
    ("core.v1.NodeSpec", node_spec),
    ("core.v1.NodeStatus", node_status),
    ("core.v1.ReplicationController", replication_controller),
    ("apps.v1.DeploymentStrategy", rolling_update),
    ("apps.v1.DaemonSetUpdateStrategy", rolling_update),
    ("apps.v1.StatefulSetUpdateStrategy", rolling_update),
    ("apps.v1.StatefulSet", stateful_set),
    ("batch.v1.Job", job),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", autoscaler_spec),
    ("autoscaling.v2.HorizontalPodAutoscalerBehavior", autoscaler_behavior),
    ("rbac.v1.Subject", subject),
    ("networking.v1.NetworkPolicySpec", network_policy_spec),
    ("apiextensions.v1.CustomResourceDefinitionNames", custom_names),
    ("resource.v1.ExactDeviceRequest", device_count),
    ("resource.v1.DeviceSubRequest", device_count),
    ("flowcontrol.v1.PriorityLevelConfigurationSpec", priority_level),
];

fn namespace(namespace: &mut Fields) {
    let Some(metadata) = object(namespace, "metadata") else { return };
    let name = text(metadata, "name").to_owned();
    if !name.is_empty()
        && let Some(labels) = object_or_new(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

/// `stringData` is for writing only: it goes over `data`.
fn secret(secret: &mut Fields) {
    if let Some(Value::Object(plain)) = secret.remove("stringData")
        && !plain.is_empty()
        && let Some(data) = object_or_new(secret, "data")
    {
        for (key, value) in plain {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
}

/// An address of a load balancer is the packets' own, unless it says that something stands between.
fn service(service: &mut Fields) {
    let balances = service.get("spec").is_some_and(|spec| spec["type"] == "LoadBalancer");
    let ingress = service.get_mut("status").and_then(|status| status.pointer_mut("/loadBalancer/ingress")).and_then(Value::as_array_mut);
    for entry in ingress.into_iter().flatten().filter(|_| balances).filter_map(Value::as_object_mut) {
        if !text(entry, "ip").is_empty() {
            set(entry, "ipMode", "VIP");
        }
    }
}

fn service_spec(spec: &mut Fields) {
    let kind = text(spec, "type").to_owned();
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            let client = object_or_new(spec, "sessionAffinityConfig").and_then(|c| object_or_new(c, "clientIP"));
            if let Some(client) = client {
                set(client, "timeoutSeconds", 10_800);
            }
        }
        "None" => drop(spec.remove("sessionAffinityConfig")),
        _ => {}
    }
    let outside = matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && has_members(spec, "externalIPs"));
    if outside {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn service_port(port: &mut Fields) {
    let unset = match port.get("targetPort") {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if unset && let Some(number) = port.get("port").cloned() {
        port.insert("targetPort".into(), number);
    }
}

fn limit_range_item(item: &mut Fields) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let Some(Value::Object(values)) = item.get(from).cloned().filter(|v| v.as_object().is_some_and(|v| !v.is_empty())) else {
            continue;
        };
        if let Some(target) = object_or_new(item, to) {
            for (name, value) in values {
                target.entry(name).or_insert(value);
            }
        }
    }
}

/// The first range stands in both fields.
fn node_spec(spec: &mut Fields) {
    let first = spec.get("podCIDRs").and_then(|list| list.get(0)).cloned();
    match (text(spec, "podCIDR"), first) {
        ("", Some(range)) => drop(spec.insert("podCIDR".into(), range)),
        // Who knows only the older field changes both.
        (range, first) if !range.is_empty() && first.as_ref().is_none_or(|first| first != range) => {
            let ranges = json!([range]);
            spec.insert("podCIDRs".into(), ranges);
        }
        _ => {}
    }
}

fn node_status(status: &mut Fields) {
    if !status.contains_key("allocatable")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        status.insert("allocatable".into(), capacity);
    }
}

fn replication_controller(controller: &mut Fields) {
    let labels = controller.get("spec").and_then(|s| s.pointer("/template/metadata/labels")).cloned();
    let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|l| !l.is_empty())) else { return };
    if let Some(spec) = object(controller, "spec")
        && !has_members(spec, "selector")
    {
        spec.insert("selector".into(), labels.clone());
    }
    if let Some(metadata) = object(controller, "metadata")
        && !has_members(metadata, "labels")
    {
        metadata.insert("labels".into(), labels);
    }
}

/// What a rolling update needs is filled in by its own message.
fn rolling_update(strategy: &mut Fields) {
    if text(strategy, "type") == "RollingUpdate" {
        object_or_new(strategy, "rollingUpdate");
    }
}

fn stateful_set(set: &mut Fields) {
    let templates = set.get_mut("spec").and_then(|s| s.get_mut("volumeClaimTemplates")).and_then(Value::as_array_mut);
    for claim in templates.into_iter().flatten().filter_map(Value::as_object_mut) {
        super::set(claim, "apiVersion", "v1");
        super::set(claim, "kind", "PersistentVolumeClaim");
    }
}

fn job(job: &mut Fields) {
    if let Some(spec) = object(job, "spec") {
        if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
            set(spec, "completions", 1);
        }
        set(spec, "parallelism", 1);
        let backoff = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
        set(spec, "backoffLimit", backoff);
        set(spec, "completionMode", "NonIndexed");
        set(spec, "suspend", false);
        set(spec, "manualSelector", false);
        let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        set(spec, "podReplacementPolicy", replacement);
    }
    let labels = job.get("spec").and_then(|s| s.pointer("/template/metadata/labels")).cloned();
    if let (Some(labels), Some(metadata)) = (labels, object(job, "metadata"))
        && !has_members(metadata, "labels")
    {
        metadata.insert("labels".into(), labels);
    }
}

fn autoscaler_spec(spec: &mut Fields) {
    if !has_members(spec, "metrics") {
        let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        spec.insert("metrics".into(), cpu);
    }
}

fn autoscaler_behavior(behavior: &mut Fields) {
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (direction, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
        let Some(rules) = object_or_new(behavior, direction) else { continue };
        if direction == "scaleUp" {
            set(rules, "stabilizationWindowSeconds", 0);
        }
        set(rules, "selectPolicy", "Max");
        if rules.get("policies").is_none_or(Value::is_null) {
            rules.insert("policies".into(), policies);
        }
    }
}

fn subject(subject: &mut Fields) {
    if matches!(text(subject, "kind"), "User" | "Group") {
        set(subject, "apiGroup", "rbac.authorization.k8s.io");
    }
}

fn network_policy_spec(spec: &mut Fields) {
    if !has_members(spec, "policyTypes") {
        let types = if has_members(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".into(), types);
    }
}

fn custom_names(names: &mut Fields) {
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        set(names, "singular", kind.to_lowercase());
        set(names, "listKind", format!("{kind}List"));
    }
}

fn device_count(request: &mut Fields) {
    if text(request, "allocationMode") == "ExactCount" {
        set(request, "count", 1);
    }
}

fn priority_level(spec: &mut Fields) {
    if text(spec, "type") == "Exempt" {
        object_or_new(spec, "exempt");
    }
}
