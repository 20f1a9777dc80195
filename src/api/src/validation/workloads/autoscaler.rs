//! HorizontalPodAutoscalers, in both of their versions.

use serde_json::Value;

use super::super::field::Field;
use super::super::rules::quantity;
use crate::names;

/// The older form is checked as what it is stored as.
pub(super) fn autoscaler_v1(spec: &Field<'_>) {
    replica_bounds(spec);
    scale_target(&spec.at("scaleTargetRef"));
    let percentage = spec.at("targetCPUUtilizationPercentage");
    if percentage.exists() && percentage.number() < 1 {
        let metrics = Value::from(vec![serde_json::json!({"resource": {"target": {"averageUtilization": percentage.value()}}})]);
        let metrics_at = spec.called("metrics");
        metrics_at.holding(&metrics).each(|_, metric| {
            let resource = metric.at("resource");
            let target = resource.at("target");
            target.at("averageUtilization").invalid("must be greater than 0");
        });
    }
}

pub(super) fn autoscaler(spec: &Field<'_>) {
    replica_bounds(spec);
    scale_target(&spec.at("scaleTargetRef"));
    spec.at("metrics").each(|_, metric| {
        let kind = metric.at("type");
        let (part, by_value): (&str, &[&str]) = match kind.text() {
            "Resource" => ("resource", &["averageUtilization", "averageValue"]),
            "ContainerResource" => ("containerResource", &["averageUtilization", "averageValue"]),
            "Pods" => ("pods", &["averageValue"]),
            "Object" => ("object", &["value", "averageValue"]),
            "External" => ("external", &["value", "averageValue"]),
            other => {
                if other.is_empty() {
                    kind.required("must specify a metric source type");
                }
                // Twice, as upstream finds it in two passes: causes are a multiset.
                for _ in 0..2 {
                    kind.not_supported(&["ContainerResource", "External", "Object", "Pods", "Resource"]);
                }
                return;
            }
        };
        let source = metric.at(part);
        if !source.exists() {
            source.required("must populate information for the given metric source");
            return;
        }
        if matches!(part, "resource" | "containerResource") {
            source.at("name").must_exist();
            if part == "containerResource" {
                source.at("container").must_exist();
            }
        } else {
            let identifier = source.at("metric");
            identifier.at("name").must_be_valid(names::path_segment);
        }
        if part == "object" {
            let described = source.at("describedObject");
            for name in ["kind", "name"] {
                described.at(name).must_be_valid(names::path_segment);
            }
        }
        let target = source.at("target");
        let kind = target.at("type");
        if kind.is_empty() {
            kind.required("must specify a metric target type");
        }
        if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
            kind.invalid("must be either Utilization, Value, or AverageValue");
        }
        let utilization = target.at("averageUtilization");
        if utilization.exists() && utilization.number() < 1 {
            utilization.invalid("must be greater than 0");
        }
        for name in ["value", "averageValue"] {
            let value = target.at(name);
            if value.exists() && quantity(&value).signum() <= 0 {
                value.invalid("must be positive");
            }
        }
        let set = by_value.iter().filter(|name| target.at(name).exists()).count();
        match (set, part) {
            (0, "resource" | "containerResource") => {
                target.at("averageUtilization").required("must set either a target raw value or a target utilization")
            }
            (0, "pods") => target.at("averageValue").required("must specify a positive target averageValue"),
            (0, _) => target.at("averageValue").required("must set either a target value for metric or a per-pod target"),
            (2, "resource" | "containerResource") => {
                target.at("averageValue").forbidden("may not set both a target raw value and a target utilization")
            }
            _ => {}
        }
    });
    let behavior = spec.at("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = behavior.at(direction);
        if !rules.exists() {
            continue;
        }
        rules.at("stabilizationWindowSeconds").within(0, 3600);
        rules.at("selectPolicy").optional_one_of(&["Disabled", "Max", "Min"]);
        if rules.at("policies").is_empty() {
            rules.at("policies").required("must specify at least one Policy");
        }
        rules.at("policies").each(|_, policy| {
            policy.at("type").one_of(&["Percent", "Pods"]);
            policy.at("value").positive();
            policy.at("periodSeconds").within(1, 1800);
        });
    }
}

fn scale_target(target: &Field<'_>) {
    for name in ["kind", "name"] {
        target.at(name).must_be_valid(names::path_segment);
    }
    let version = target.at("apiVersion");
    let group = version.text().split_once('/');
    let valid = match group {
        Some((group, version)) => names::dns_subdomain(group).is_ok() && is_version(version),
        None => version.text() == "v1",
    };
    // Scale targets live in groups; only replication controllers are in the core one.
    if !valid || (group.is_none() && target.at("kind").text() != "ReplicationController") {
        version.invalid("must specify group and version of the target");
    }
}

fn is_version(text: &str) -> bool {
    names::dns_1035_label(text).is_ok()
}

fn replica_bounds(spec: &Field<'_>) {
    let (least, most) = (spec.at("minReplicas"), spec.at("maxReplicas"));
    if least.exists() && least.number() < 1 {
        least.invalid("must be greater than or equal to 1");
    }
    if most.number() < 1 {
        most.required_or_invalid();
    }
    if least.exists() && most.number() < least.number() {
        most.invalid("must be greater than or equal to `minReplicas`");
    }
}

impl Field<'_> {
    fn required_or_invalid(&self) {
        if self.number() == 0 { self.required("") } else { self.invalid("must be greater than 0") }
    }
}
