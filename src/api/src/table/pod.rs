//! A pod's line: how many of its containers are ready, and in one word how it is.

use serde_json::Value;

use super::Seen;
use super::text;

/// What has been counted over the containers' statuses.
#[derive(Default)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += status["restartCount"].as_i64().unwrap_or_default();
        // Times in one canonical spelling compare as text.
        self.last = self.last.max(status["lastState"]["terminated"]["finishedAt"].as_str().unwrap_or_default());
    }
}

/// NAME READY STATUS RESTARTS AGE IP NODE NOMINATED-NODE READINESS-GATES.
pub(super) fn cells(pod: &Seen<'_>) -> Vec<Value> {
    let sidecars: Vec<&str> =
        pod.list("/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always").filter_map(|c| c["name"].as_str()).collect();
    let total = pod.len("/spec/containers") + sidecars.len();
    let mut reason = match pod.text("/status/reason") {
        "" => pod.text("/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    if pod.condition("PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let (mut ready, mut restarts, mut of_sidecars) = (0, Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (i, status) in pod.list("/status/initContainerStatuses").iter().enumerate() {
        let sidecar = status["name"].as_str().is_some_and(|name| sidecars.contains(&name));
        restarts.add(status);
        if sidecar {
            of_sidecars.add(status);
        }
        match init_reason(status, i, pod.len("/spec/initContainers"), sidecar) {
            Some(waits) => {
                reason = waits;
                initializing = true;
                break;
            }
            None if sidecar && status["ready"] == true && status["state"]["terminated"].is_null() => ready += 1,
            None => {}
        }
    }
    let initialized = pod.condition("Initialized").is_some_and(|c| c["status"] == "True");
    if !initializing || initialized {
        restarts = of_sidecars;
        let mut running = false;
        for status in pod.list("/status/containerStatuses").iter().rev() {
            restarts.add(status);
            match container_reason(status) {
                Some(why) => reason = why,
                None if status["ready"] == true && status["state"]["running"].is_object() => {
                    running = true;
                    ready += 1;
                }
                None => {}
            }
        }
        if reason == "Completed" && running {
            let is_ready = pod.condition("Ready").is_some_and(|c| c["status"] == "True");
            reason = if is_ready { "Running" } else { "NotReady" }.into();
        }
    }
    if pod.is_terminating() {
        if pod.text("/status/reason") == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(pod.text("/status/phase"), "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    let restarted = match text::since(restarts.last, pod.now) {
        Some(ago) if restarts.count != 0 => format!("{} ({ago} ago)", restarts.count),
        _ => restarts.count.to_string(),
    };
    let ip = match pod.text("/status/podIPs/0/ip") {
        "" => pod.text_or("/status/podIP", "<none>"),
        ip => ip.into(),
    };
    let gates = pod.list("/spec/readinessGates");
    let open =
        gates.iter().filter(|g| g["conditionType"].as_str().and_then(|t| pod.condition(t)).is_some_and(|c| c["status"] == "True")).count();
    let gates = if gates.is_empty() { "<none>".into() } else { format!("{open}/{}", gates.len()) };
    vec![
        pod.name(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarted.into(),
        pod.age(),
        ip,
        pod.text_or("/spec/nodeName", "<none>"),
        pod.text_or("/status/nominatedNodeName", "<none>"),
        gates.into(),
    ]
}

/// Why the pod is not past this init container; nothing when it is.
fn init_reason(status: &Value, index: usize, total: usize, sidecar: bool) -> Option<String> {
    let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
    if terminated.is_object() && terminated["exitCode"].as_i64().unwrap_or_default() == 0 {
        return None;
    }
    if sidecar && status["started"] == true {
        return None;
    }
    if terminated.is_object() {
        return Some(format!("Init:{}", end_of(terminated)));
    }
    match waiting["reason"].as_str() {
        Some(reason) if !reason.is_empty() && reason != "PodInitializing" => Some(format!("Init:{reason}")),
        _ => Some(format!("Init:{index}/{total}")),
    }
}

fn container_reason(status: &Value) -> Option<String> {
    let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
    match waiting["reason"].as_str().unwrap_or_default() {
        "" if terminated.is_object() => Some(end_of(terminated)),
        "" => None,
        reason => Some(reason.to_owned()),
    }
}

fn end_of(terminated: &Value) -> String {
    match (terminated["reason"].as_str().unwrap_or_default(), terminated["signal"].as_i64().unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
