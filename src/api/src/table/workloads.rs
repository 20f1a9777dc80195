//! Lines of what runs pods: pods themselves, their controllers, jobs, autoscalers.

use jiff::Timestamp;
use serde_json::Value;

use super::{Print, Seen, pod, text};

/// By group and plural.
pub(super) const PRINTERS: &[(&str, &str, Print)] = &[
    ("", "pods", pod::cells),
    ("", "podtemplates", |o| {
        let [containers, images] = containers(o, "/template/spec");
        vec![o.name(), containers, images, text::labels(o.at("/template/metadata/labels")).into()]
    }),
    ("", "replicationcontrollers", |o| {
        let [containers, images] = containers(o, "/spec/template/spec");
        let selector = text::labels(o.at("/spec/selector"));
        vec![
            o.name(),
            o.number("/spec/replicas").into(),
            o.number("/status/replicas").into(),
            o.number("/status/readyReplicas").into(),
            o.age(),
            containers,
            images,
            selector.into(),
        ]
    }),
    ("apps", "replicasets", |o| {
        let [containers, images] = containers(o, "/spec/template/spec");
        vec![
            o.name(),
            o.number("/spec/replicas").into(),
            o.number("/status/replicas").into(),
            o.number("/status/readyReplicas").into(),
            o.age(),
            containers,
            images,
            text::selector(o.at("/spec/selector")).into(),
        ]
    }),
    ("apps", "deployments", |o| {
        let [containers, images] = containers(o, "/spec/template/spec");
        vec![
            o.name(),
            format!("{}/{}", o.number("/status/readyReplicas"), o.number("/spec/replicas")).into(),
            o.number("/status/updatedReplicas").into(),
            o.number("/status/availableReplicas").into(),
            o.age(),
            containers,
            images,
            text::selector(o.at("/spec/selector")).into(),
        ]
    }),
    ("apps", "statefulsets", |o| {
        let [containers, images] = containers(o, "/spec/template/spec");
        let ready = format!("{}/{}", o.number("/status/readyReplicas"), o.number("/spec/replicas"));
        vec![o.name(), ready.into(), o.age(), containers, images]
    }),
    ("apps", "daemonsets", |o| {
        let [containers, images] = containers(o, "/spec/template/spec");
        vec![
            o.name(),
            o.number("/status/desiredNumberScheduled").into(),
            o.number("/status/currentNumberScheduled").into(),
            o.number("/status/numberReady").into(),
            o.number("/status/updatedNumberScheduled").into(),
            o.number("/status/numberAvailable").into(),
            text::labels(o.at("/spec/template/spec/nodeSelector")).into(),
            o.age(),
            containers,
            images,
            text::selector(o.at("/spec/selector")).into(),
        ]
    }),
    ("apps", "controllerrevisions", |o| {
        let owner = o.list("/metadata/ownerReferences").iter().find(|r| r["controller"] == true);
        let owner = owner.map_or_else(
            || "<none>".to_owned(),
            |r| {
                let group = r["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
                let kind = r["kind"].as_str().unwrap_or_default().to_lowercase();
                let dot = if group.is_empty() { "" } else { "." };
                format!("{kind}{dot}{group}/{}", r["name"].as_str().unwrap_or_default())
            },
        );
        vec![o.name(), owner.into(), o.number("/revision").into(), o.age()]
    }),
    ("batch", "jobs", job),
    ("batch", "cronjobs", |o| {
        let [containers, images] = containers(o, "/spec/jobTemplate/spec/template/spec");
        let suspended = if o.flag("/spec/suspend") { "True" } else { "False" };
        vec![
            o.name(),
            o.text("/spec/schedule").into(),
            o.text_or("/spec/timeZone", "<none>"),
            suspended.into(),
            o.len("/status/active").into(),
            o.since("/status/lastScheduleTime").unwrap_or_else(|| "<none>".into()).into(),
            o.age(),
            containers,
            images,
            text::selector(o.at("/spec/jobTemplate/spec/selector")).into(),
        ]
    }),
    ("autoscaling", "horizontalpodautoscalers", autoscaler),
    ("policy", "poddisruptionbudgets", |o| {
        let bound = |pointer| o.at(pointer).map_or_else(|| "N/A".to_owned(), plain);
        vec![
            o.name(),
            bound("/spec/minAvailable").into(),
            bound("/spec/maxUnavailable").into(),
            o.number("/status/disruptionsAllowed").into(),
            o.age(),
        ]
    }),
];

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Names and images of a pod template's containers.
fn containers(o: &Seen<'_>, spec: &str) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let containers = o.list(&format!("{spec}/containers"));
        containers.iter().filter_map(|c| c[field].as_str()).collect::<Vec<_>>().join(",").into()
    })
}

fn job(o: &Seen<'_>) -> Vec<Value> {
    let succeeded = o.number("/status/succeeded");
    let completions = match (o.at("/spec/completions"), o.number("/spec/parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let is = |kind: &str| o.condition(kind).is_some_and(|c| c["status"] == "True");
    let status = match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if o.is_terminating() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let end = o.text("/status/completionTime").parse::<Timestamp>().unwrap_or(o.now);
    let duration = text::since(o.text("/status/startTime"), end).unwrap_or_default();
    let [containers, images] = containers(o, "/spec/template/spec");
    vec![
        o.name(),
        status.into(),
        completions.into(),
        duration.into(),
        o.age(),
        containers,
        images,
        text::selector(o.at("/spec/selector")).into(),
    ]
}

fn autoscaler(o: &Seen<'_>) -> Vec<Value> {
    /// Metrics that are printed before the list is shortened.
    const SHOWN: usize = 2;
    let reference = format!("{}/{}", o.text("/spec/scaleTargetRef/kind"), o.text("/spec/scaleTargetRef/name"));
    let mut targets: Vec<String> = match o.at("/spec/targetCPUUtilizationPercentage") {
        Some(target) => {
            let current = o.at("/status/currentCPUUtilizationPercentage").map_or_else(|| "<unknown>".into(), |c| format!("{c}%"));
            vec![format!("cpu: {current}/{target}%")]
        }
        None => o
            .list("/spec/metrics")
            .iter()
            .enumerate()
            .map(|(i, m)| metric(m, &o.list("/status/currentMetrics").get(i).cloned().unwrap_or_default()))
            .collect(),
    };
    let more = targets.len().saturating_sub(SHOWN);
    targets.truncate(SHOWN);
    let mut targets = text::or_none(targets.join(", "));
    if more > 0 {
        targets += &format!(" + {more} more...");
    }
    let least = o.at("/spec/minReplicas").map_or_else(|| "<unset>".to_owned(), Value::to_string);
    vec![
        o.name(),
        reference.into(),
        targets.into(),
        least.into(),
        o.number("/spec/maxReplicas").into(),
        o.number("/status/currentReplicas").into(),
        o.age(),
    ]
}

fn metric(wanted: &Value, current: &Value) -> String {
    let kind = wanted["type"].as_str().unwrap_or_default();
    let part = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".into(),
    };
    let (target, now) = (&wanted[part]["target"], &current[part]["current"]);
    let pick = |field: &str, suffix: &str, average: &str| {
        let value = |v: &Value| if v.is_null() { "<unknown>".to_owned() } else { format!("{}{suffix}", plain(v)) };
        (!target[field].is_null()).then(|| format!("{}/{}{average}", value(&now[field]), value(&target[field])))
    };
    let average = if matches!(kind, "Object" | "External") { " (avg)" } else { "" };
    let text = pick("averageUtilization", "%", "").or_else(|| pick("averageValue", "", average)).or_else(|| pick("value", "", ""));
    let text = text.unwrap_or_else(|| "<unknown>/<auto>".into());
    match kind {
        "Resource" | "ContainerResource" => format!("{}: {text}", wanted[part]["name"].as_str().unwrap_or_default()),
        _ => text,
    }
}
