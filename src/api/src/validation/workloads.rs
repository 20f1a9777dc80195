//! What runs pods: controllers, jobs, autoscalers, disruption budgets.

use serde_json::Value;

use super::field::Field;
use super::pod;
use super::rules::{at_most_all, immutable, label_selector, number_or_percent, percent, qualified_name, selects};
use crate::catalogue::Resource;
use crate::names;

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
            job_spec(&spec, old.is_none());
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
    if selector.exists() {
        label_selector(&selector);
        if selector.at("matchLabels").is_empty() && selector.at("matchExpressions").is_empty() {
            selector.invalid("empty selector is invalid for deployment");
        }
    } else {
        selector.required("");
    }
    if crate::selector::LabelSelector::from_value(selector.value()).is_err() {
        selector.invalid("invalid label selector");
    } else {
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

fn deployment(spec: &Field<'_>) {
    spec.at("replicas").not_negative();
    selector_and_template(spec, &spec.at("template"));
    let strategy = spec.at("strategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "Recreate" if rolling.exists() => rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"),
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            number_or_percent(&unavailable);
            number_or_percent(&surge);
            let none = |field: &Field<'_>| percent(field).or_else(|| field.value().as_i64()) == Some(0);
            if none(&unavailable) && none(&surge) {
                unavailable.invalid("may not be 0 when `maxSurge` is 0");
            }
            at_most_all(&unavailable);
        }
        _ => strategy.holding(strategy.at("type").value()).not_supported(&["Recreate", "RollingUpdate"]),
    }
    for name in ["minReadySeconds", "revisionHistoryLimit"] {
        spec.at(name).not_negative();
    }
    let deadline = spec.at("progressDeadlineSeconds");
    deadline.not_negative();
    if deadline.exists() && deadline.number() <= spec.at("minReadySeconds").number() {
        deadline.invalid("must be greater than minReadySeconds");
    }
}

fn daemon_set(spec: &Field<'_>) {
    selector_and_template(spec, &spec.at("template"));
    for name in ["minReadySeconds", "revisionHistoryLimit"] {
        spec.at(name).not_negative();
    }
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.exists() => rolling.required(""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            for share in [unavailable, surge] {
                number_or_percent(&share);
                at_most_all(&share);
            }
            let some = |field: &Field<'_>| percent(field).or_else(|| field.value().as_i64()).is_some_and(|n| n > 0);
            match (some(&unavailable), some(&surge)) {
                (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero"),
                (false, false) => unavailable.required("cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => strategy.holding(strategy.at("type").value()).not_supported(&["OnDelete", "RollingUpdate"]),
    }
}

fn stateful_set(spec: &Field<'_>, old: Option<&Value>) {
    let management = spec.at("podManagementPolicy");
    match management.text() {
        "" => management.required(""),
        "OrderedReady" | "Parallel" => {}
        _ => management.invalid("must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "" => strategy.required(""),
        "OnDelete" if rolling.exists() => rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.at("partition").not_negative();
            let unavailable = rolling.at("maxUnavailable");
            if unavailable.exists() {
                number_or_percent(&unavailable);
                at_most_all(&unavailable);
            }
        }
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        retention.at(name).optional_one_of(&["Delete", "Retain"]);
    }
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        spec.at(name).not_negative();
    }
    let ordinals = spec.at("ordinals");
    ordinals.at("start").not_negative();
    if old.is_none() {
        spec.at("serviceName").may_be_valid(names::dns_subdomain);
        spec.at("volumeClaimTemplates").each(|_, claim| pod::claim_spec(&claim.at("spec")));
    }
    let template = with_claims(spec);
    let place = spec.at("template");
    selector_and_template(spec, &place.holding(&template));
    super::rules::labels(&place.called("labels").holding(&template["metadata"]["labels"]));
    if let Some(old) = old {
        let (mut new, mut old) = (spec.value().clone(), old["spec"].clone());
        for side in [&mut new, &mut old] {
            for name in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
                "revisionHistoryLimit",
            ] {
                side.as_object_mut().map(|s| s.remove(name));
            }
        }
        if new != old {
            spec.forbidden(
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
                 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    }
}

/// The template with the volumes that the claims become.
fn with_claims(spec: &Field<'_>) -> Value {
    let mut template = spec.at("template").value().clone();
    let claims = spec.at("volumeClaimTemplates").list();
    if claims.is_empty() || !template["spec"].is_object() {
        return template;
    }
    let name = |claim: &Value| claim["metadata"]["name"].clone();
    let mut volumes: Vec<Value> =
        claims.iter().map(|c| serde_json::json!({"name": name(c), "persistentVolumeClaim": {"claimName": name(c)}})).collect();
    let others = template["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    volumes.extend(others.into_iter().filter(|volume| !claims.iter().any(|c| name(c) == volume["name"])));
    template["spec"]["volumes"] = volumes.into();
    template
}

fn job_spec(spec: &Field<'_>, new: bool) {
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
            if limit.exists() && name == "backoffLimitPerIndex" {
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
        "OnFailure" if spec.at("podFailurePolicy").exists() => {
            policy.invalid("only \"Never\" is supported when podFailurePolicy is specified")
        }
        _ => {}
    }
    let selector = spec.at("selector");
    if new && !spec.at("manualSelector").is_true() {
        let made = selector.at("matchLabels");
        let only_made = made.value().as_object().is_some_and(|l| l.len() == 1 && l.contains_key("batch.kubernetes.io/controller-uid"));
        if selector.exists() && !only_made {
            selector.invalid("`selector` is generated unless manualSelector is set");
        }
    } else {
        if selector.exists() {
            label_selector(&selector);
            let metadata = template.at("metadata");
            if crate::selector::LabelSelector::from_value(selector.value()).is_ok()
                && !selects(selector.value(), metadata.at("labels").value())
            {
                metadata.at("labels").invalid("`selector` does not match template `labels`");
            }
        } else {
            selector.required("");
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
            let mut seen: Vec<i64> = Vec::new();
            values.each(|_, code| {
                if codes.at("operator").text() == "In" && code.number() == 0 {
                    code.invalid("must not be 0 for the In operator");
                }
                if seen.contains(&code.number()) {
                    code.duplicate();
                }
                seen.push(code.number());
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
        let mut total = completions;
        if indexes.exists() {
            match count_indexes(indexes.text(), completions) {
                Some(number) => total = number,
                None => {
                    indexes.invalid("must be a list of indexes and ranges in ascending order below completions");
                    total = 0;
                }
            }
        }
        if count.exists() && count.number() > total {
            count.invalid("must be less than or equal to the number of succeededIndexes");
        }
        count.not_negative();
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

fn job_update(spec: &Field<'_>, old: &Value) {
    for name in ["completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        let elastic = name == "completions"
            && spec.at("completionMode").text() == "Indexed"
            && spec.at("parallelism").value() == spec.at("completions").value();
        if !elastic {
            immutable(&spec.at(name), &old[name]);
        }
    }
    let started_suspended = old["suspend"] == true;
    let template = spec.at("template");
    if started_suspended {
        let strip = |value: &Value| {
            let mut value = value.clone();
            if let Some(spec) = value["spec"].as_object_mut() {
                for name in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                    spec.remove(name);
                }
            }
            value.as_object_mut().map(|v| v.remove("metadata"));
            value
        };
        if strip(template.value()) != strip(&old["template"]) {
            template.invalid("field is immutable");
        }
    } else {
        immutable(&template, &old["template"]);
    }
}

fn cron_job(spec: &Field<'_>) {
    let schedule = spec.at("schedule");
    if schedule.must_exist() {
        if schedule.text().contains("TZ") {
            schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone instead");
        } else if !is_schedule(schedule.text()) {
            schedule.invalid("it is no schedule: five fields, or a word such as @daily, are expected");
        }
    }
    spec.at("startingDeadlineSeconds").not_negative();
    spec.at("concurrencyPolicy").required_one_of(&["Allow", "Forbid", "Replace"]);
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.at(name).not_negative();
    }
    let zone = spec.at("timeZone");
    if zone.exists() && !is_time_zone(zone.text()) {
        zone.invalid("unknown time zone");
    }
    let job = spec.at("jobTemplate");
    job_spec(&job.at("spec"), true);
}

fn is_time_zone(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-'));
    let known = name.contains('/')
        || name.bytes().filter(u8::is_ascii_uppercase).count() >= 2
        || matches!(name, "Cuba" | "Egypt" | "Japan" | "Zulu" | "Iran");
    !name.eq_ignore_ascii_case("local") && known && name.split('/').all(part) && !name.starts_with('-')
}

/// Five fields of numbers, ranges, steps and names, or a macro.
fn is_schedule(text: &str) -> bool {
    const NAMES: [&str; 19] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", "sun", "mon", "tue", "wed", "thu", "fri", "sat",
    ];
    const BOUNDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    if let Some(word) = text.strip_prefix('@') {
        let every = word.strip_prefix("every ").is_some_and(|d| crate::structural::parse_duration(d).is_some());
        return every || matches!(word, "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly");
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let valid = |field: &str, (low, high): (u32, u32)| {
        let number = |text: &str| {
            let named = NAMES.contains(&text.to_lowercase().as_str());
            named || text.parse::<u32>().is_ok_and(|n| (low..=high).contains(&n))
        };
        field.split(',').all(|part| {
            let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
            let range = matches!(range, "*" | "?") || range.split_once('-').map_or_else(|| number(range), |(a, b)| number(a) && number(b));
            range && step.is_none_or(|s| s.parse::<u32>().is_ok_and(|n| n > 0))
        })
    };
    fields.len() == BOUNDS.len() && fields.iter().zip(BOUNDS).all(|(field, bounds)| valid(field, bounds))
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

/// The older form is checked as what it is stored as.
fn autoscaler_v1(spec: &Field<'_>) {
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

fn autoscaler(spec: &Field<'_>) {
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
            if value.exists() && super::rules::quantity(&value).signum() <= 0 {
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
pub(super) fn replication_controller(spec: &Field<'_>) {
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
