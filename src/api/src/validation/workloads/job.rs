//! Jobs: completions, indexes, policies of failure and success.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::super::field::Field;
use super::super::pod;
use super::super::rules::{immutable, label_selector, qualified_name, selects};

/// Labels of a Job's pods: its uid and its name, first as they were called before labels of Kubernetes had its domain.
pub(in super::super) const LABELS: [&str; 4] =
    ["controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"];

/// What a Job does.
pub(super) fn job_spec(spec: &Field<'_>) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.at(name).not_negative();
    }
    let mode = spec.at("completionMode");
    mode.optional_one_of(&["Indexed", "NonIndexed"]);
    let indexed = mode.text() == "Indexed";
    if indexed {
        if !spec.at("completions").exists() {
            spec.at("completions").required("when completion mode is Indexed");
        }
        if spec.at("parallelism").number() > 100_000 {
            spec.at("parallelism").invalid("must be less than or equal to 100000 when completion mode is Indexed");
        }
    } else {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            let limit = spec.at(name);
            if limit.exists() && name == "backoffLimitPerIndex" && matches!(mode.text(), "" | "NonIndexed") {
                limit.invalid("requires indexed completion mode");
            }
        }
    }
    if spec.at("maxFailedIndexes").exists() && !spec.at("backoffLimitPerIndex").exists() {
        spec.at("backoffLimitPerIndex").required("when maxFailedIndexes is specified");
    }
    let completions = spec.at("completions");
    if completions.exists() && spec.at("maxFailedIndexes").number() > completions.number() {
        spec.at("maxFailedIndexes").invalid("must be less than or equal to completions");
    }
    spec.at("podReplacementPolicy").optional_one_of(&["Failed", "TerminatingOrFailed"]);
    if spec.at("podFailurePolicy").exists() && spec.at("podReplacementPolicy").text() == "TerminatingOrFailed" {
        spec.at("podReplacementPolicy").not_supported(&["Failed"]);
    }
    let managed = spec.at("managedBy");
    if managed.exists() {
        if managed.text().contains('/') {
            managed.all_invalid(qualified_name(managed.text()));
        } else {
            managed.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
    }
    failure_policy(spec);
    success_policy(spec, indexed);
    let template = spec.at("template");
    pod::template(&template);
    let pod = template.at("spec");
    let policy = pod.at("restartPolicy");
    match policy.text() {
        // Nothing was said: the default of pods does not fit, and the answer is that one must be chosen.
        "" | "Always" => policy.required("valid values: \"OnFailure\", \"Never\""),
        other if !matches!(other, "OnFailure" | "Never") => policy.not_supported(&["OnFailure", "Never"]),
        "OnFailure" if spec.at("podFailurePolicy").exists() => {
            policy.invalid("only \"Never\" is supported when podFailurePolicy is specified")
        }
        _ => {}
    }
}

/// What a Job has that the template of a CronJob has not: a selector, and a name that its pods carry.
pub(super) fn job(job: &Field<'_>, new: bool) {
    let spec = job.at("spec");
    if new {
        generated(job, &spec);
        hostnames(job, &spec);
    }
    job_spec(&spec);
    let (selector, template) = (spec.at("selector"), spec.at("template"));
    if selector.exists() {
        label_selector(&selector);
    } else {
        selector.required("");
    }
    let metadata = template.at("metadata");
    let readable = crate::selector::LabelSelector::from_value(selector.value()).is_ok();
    // No selector selects nothing.
    if readable && (!selector.exists() || !selects(selector.value(), metadata.at("labels").value())) {
        metadata.at("labels").invalid("`selector` does not match template `labels`");
    }
}

/// What the server gives a Job by which to find its pods, unless it asks to choose for itself.
fn generated(job: &Field<'_>, spec: &Field<'_>) {
    let selector = spec.at("selector");
    if spec.at("manualSelector").is_true() || !selector.exists() {
        return;
    }
    let metadata = job.at("metadata");
    let (uid, name) = (metadata.at("uid"), metadata.at("name"));
    if uid.is_empty() {
        uid.required("");
    }
    let (template, mut expected) = (spec.at("template"), Map::new());
    let own = template.at("metadata");
    let labels = own.at("labels");
    let prefixed = LABELS[2..].iter().any(|label| !labels.value()[*label].is_null());
    for (i, label) in LABELS.iter().enumerate().filter(|(i, _)| *i < 2 || prefixed) {
        let wanted = if i % 2 == 0 { uid.text() } else { name.text() };
        let given = labels.key(label);
        if !given.exists() {
            given.required("");
        } else if given.text() != wanted {
            given.invalid(&format!("must be '{wanted}'"));
        }
        expected.insert((*label).to_owned(), wanted.into());
    }
    if crate::selector::LabelSelector::from_value(selector.value()).is_ok() && !selects(selector.value(), &expected.into()) {
        selector.invalid("`selector` is generated unless manualSelector is set");
    }
}

/// Pods of an indexed Job have its name and their index for a hostname.
fn hostnames(job: &Field<'_>, spec: &Field<'_>) {
    let (metadata, completions) = (job.at("metadata"), spec.at("completions").number());
    if spec.at("completionMode").text() == "Indexed" && completions > 0 {
        let name = metadata.at("name");
        if let Err(why) = crate::names::dns_label(&format!("{}-{}", name.text(), completions - 1)) {
            name.invalid(&format!("the hostname of its last pod is none: {why}"));
        }
    }
}

fn failure_policy(spec: &Field<'_>) {
    let containers: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.value()["template"]["spec"][*list].as_array().into_iter().flatten())
        .filter_map(|c| c["name"].as_str())
        .collect();
    let policy = spec.at("podFailurePolicy");
    policy.at("rules").each(|_, rule| {
        let (codes, conditions) = (rule.at("onExitCodes"), rule.at("onPodConditions"));
        let action = rule.at("action");
        action.required_one_of(&["Count", "FailIndex", "FailJob", "Ignore"]);
        if codes.exists() && !conditions.is_empty() {
            rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported");
        } else if !codes.exists() && conditions.is_empty() {
            rule.invalid("specifying one of OnExitCodes and OnPodConditions is required");
        }
        if codes.exists() {
            codes.at("operator").required_one_of(&["In", "NotIn"]);
            let name = codes.at("containerName");
            if name.exists() && !containers.contains(&name.text()) {
                name.invalid("must be one of the container or initContainer names in the pod template");
            }
            let values = codes.at("values");
            if values.is_empty() {
                values.invalid("at least one value is required");
            }
            let mut seen: HashSet<i64> = HashSet::new();
            values.each(|_, code| {
                if codes.at("operator").text() == "In" && code.number() == 0 {
                    code.invalid("must not be 0 for the In operator");
                }
                if seen.contains(&code.number()) {
                    code.duplicate();
                }
                seen.insert(code.number());
            });
            let sorted = values.list().windows(2).all(|pair| pair[0].as_i64() <= pair[1].as_i64());
            if !sorted {
                values.invalid("must be ordered");
            }
        }
        conditions.each(|_, condition| {
            let kind = condition.at("type");
            kind.all_invalid(qualified_name(kind.text()));
            condition.at("status").required_one_of(&["False", "True", "Unknown"]);
        });
    });
}

fn success_policy(spec: &Field<'_>, indexed: bool) {
    let policy = spec.at("successPolicy");
    if !policy.exists() {
        return;
    }
    if !indexed {
        policy.invalid("requires indexed completion mode");
        return;
    }
    let rules = policy.at("rules");
    if rules.is_empty() {
        rules.required("at least one rules must be specified when the successPolicy is specified");
    }
    let completions = spec.at("completions").number();
    rules.each(|_, rule| {
        let (count, indexes) = (rule.at("succeededCount"), rule.at("succeededIndexes"));
        if !count.exists() && !indexes.exists() {
            rule.required("at least one of succeededCount or succeededIndexes must be specified");
        }
        let total = indexes.exists().then(|| count_indexes(indexes.text(), completions));
        if total == Some(None) {
            indexes.invalid("must be a list of indexes and ranges in ascending order below completions");
        }
        count.not_negative();
        if count.number() > completions {
            count.invalid("must be less than or equal to completions");
        }
        if total.is_some_and(|total| count.number() > total.unwrap_or_default()) {
            count.invalid("must be less than or equal to the number of succeededIndexes");
        }
    });
}

/// How many indexes a text such as `0,2-4` names; nothing when it is none.
fn count_indexes(text: &str, completions: i64) -> Option<i64> {
    let (mut total, mut last) = (0, -1);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (i64, i64) = (low.parse().ok()?, high.parse().ok()?);
        if low <= last || high < low || high >= completions || (part.contains('-') && high == low) {
            return None;
        }
        total += high - low + 1;
        last = high;
    }
    Some(total)
}

pub(super) fn job_update(spec: &Field<'_>, old: &Value) {
    for name in ["completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        let elastic = name == "completions"
            && spec.at("completionMode").text() == "Indexed"
            && spec.at("parallelism").value() == spec.at("completions").value();
        if !elastic {
            immutable(&spec.at(name), &old[name]);
        }
    }
    let template = spec.at("template");
    if old["suspend"] == true {
        // Nothing runs yet: where pods may go, and their labels, may still be said.
        let strip = |value: &Value| {
            let mut value = value["spec"].clone();
            if let Some(spec) = value.as_object_mut() {
                for name in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                    spec.remove(name);
                }
            }
            value
        };
        if strip(template.value()) != strip(&old["template"]) {
            template.at("spec").invalid("field is immutable");
        }
    } else {
        immutable(&template, &old["template"]);
    }
}
