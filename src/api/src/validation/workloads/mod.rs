//! What runs pods: controllers, jobs, autoscalers, disruption budgets.

mod autoscaler;
mod cron_job;
pub(super) mod job;
mod rolling;
mod stateful_set;

use serde_json::Value;

use super::field::Field;
use super::pod;
use super::rules::{at_most_all, immutable, label_selector, number_or_percent, selects};
use crate::catalogue::Resource;
use autoscaler::{autoscaler, autoscaler_v1};
use cron_job::cron_job;
use job::job_update;
use rolling::{daemon_set, deployment};
use stateful_set::stateful_set;

pub(super) fn check(resource: &Resource, object: &Field<'_>, old: Option<&Value>, subresource: &str) {
    if subresource == "status" {
        return status(object);
    }
    let spec = object.at("spec");
    match resource.plural.as_str() {
        "deployments" => deployment(&spec),
        "replicasets" => {
            for name in ["replicas", "minReadySeconds"] {
                spec.at(name).not_negative();
            }
            selector_and_template(&spec, &spec.at("template"));
        }
        "daemonsets" => daemon_set(&spec),
        "statefulsets" => stateful_set(&spec, old),
        "controllerrevisions" => {
            object.at("revision").not_negative();
            match object.at("data").value() {
                _ if old.is_some() => {}
                Value::Null => object.at("data").required("data is mandatory"),
                Value::Object(_) => {}
                _ => object.at("data").required("data must be a JSON object"),
            }
        }
        "jobs" => {
            job::job(object, old.is_none());
            if let Some(old) = old {
                job_update(&spec, &old["spec"]);
            }
        }
        "cronjobs" => cron_job(&spec),
        "horizontalpodautoscalers" if resource.version == "v1" => autoscaler_v1(&spec),
        "horizontalpodautoscalers" => autoscaler(&spec),
        "poddisruptionbudgets" => budget(&spec),
        _ => {}
    }
    if let Some(old) = old
        && matches!(resource.plural.as_str(), "deployments" | "replicasets" | "daemonsets")
    {
        immutable(&spec.at("selector"), &old["spec"]["selector"]);
    }
}

fn status(object: &Field<'_>) {
    let status = object.at("status");
    for name in [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
        "unavailableReplicas",
        "fullyLabeledReplicas",
        "observedGeneration",
    ] {
        status.at(name).not_negative();
    }
}

/// The selector of a controller, and that it selects what the controller makes.
fn selector_and_template(spec: &Field<'_>, template: &Field<'_>) {
    let selector = spec.at("selector");
    if !selector.exists() {
        selector.required("");
    }
    if crate::selector::LabelSelector::from_value(selector.value()).is_err() {
        selector.invalid("invalid label selector");
    }
    selected_template(spec, template);
}

/// The same, where upstream neither misses a selector nor says twice that it is none.
fn selected_template(spec: &Field<'_>, template: &Field<'_>) {
    let selector = spec.at("selector");
    if selector.exists() {
        label_selector(&selector);
        if selector.at("matchLabels").is_empty() && selector.at("matchExpressions").is_empty() {
            selector.invalid("empty selector is invalid for deployment");
        }
    }
    if crate::selector::LabelSelector::from_value(selector.value()).is_ok() {
        let metadata = template.at("metadata");
        let labels = metadata.at("labels");
        // No selector selects nothing, an empty one everything.
        if !selector.exists() || (!selector.is_empty() && !selects(selector.value(), labels.value())) {
            labels.invalid("`selector` does not match template `labels`");
        }
    }
    pod::template(template);
    always_restarts(template);
}

fn always_restarts(template: &Field<'_>) {
    let spec = template.at("spec");
    let policy = spec.at("restartPolicy");
    if matches!(policy.text(), "OnFailure" | "Never") {
        policy.not_supported(&["Always"]);
    }
    if spec.at("activeDeadlineSeconds").exists() {
        spec.at("activeDeadlineSeconds").forbidden("activeDeadlineSeconds in a controller's pods is not Supported");
    }
}

fn budget(spec: &Field<'_>) {
    let (least, most) = (spec.at("minAvailable"), spec.at("maxUnavailable"));
    if least.exists() && most.exists() {
        spec.invalid("minAvailable and maxUnavailable cannot be both set");
    }
    for share in [least, most] {
        if share.exists() {
            number_or_percent(&share);
            at_most_all(&share);
        }
    }
    label_selector(&spec.at("selector"));
    spec.at("unhealthyPodEvictionPolicy").optional_one_of(&["AlwaysAllow", "IfHealthyBudget"]);
}

/// A replication controller, which is older than all of these.
pub(in super::super) fn replication_controller(spec: &Field<'_>) {
    for name in ["replicas", "minReadySeconds"] {
        spec.at(name).not_negative();
    }
    let (selector, template) = (spec.at("selector"), spec.at("template"));
    selector.must_exist();
    if !template.exists() {
        template.required("");
        return;
    }
    let metadata = template.at("metadata");
    let labels = metadata.at("labels");
    if !selector.value().as_object().into_iter().flatten().all(|(key, value)| &labels.value()[key] == value) {
        labels.invalid("`selector` does not match template `labels`");
    }
    pod::template(&template);
    always_restarts(&template);
}
