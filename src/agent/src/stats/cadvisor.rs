//! `/metrics/cadvisor`: per container and per pod, under the names and labels that dashboards know.

use coracle_runtime::ContainerStats;
use jiff::Timestamp;

use super::{
    ContainerUse, PodUse,
    network::{INTERFACE, Traffic},
    node::NodeUse,
    text::{Kind, Text, seconds},
};
use crate::pod::spec;

/// The machine, for `machine_*`.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Cores.
    pub cores: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

type Use = (&'static str, Kind, &'static str, fn(&ContainerStats) -> Option<f64>);

/// Of containers, and of their pods.
const USE: [Use; 9] = [
    ("container_cpu_user_seconds_total", Kind::Counter, "Cumulative user cpu time consumed in seconds.", |s| {
        Some(seconds(s.detail?.cpu_user_nanoseconds))
    }),
    ("container_cpu_system_seconds_total", Kind::Counter, "Cumulative system cpu time consumed in seconds.", |s| {
        Some(seconds(s.detail?.cpu_system_nanoseconds))
    }),
    ("container_memory_rss", Kind::Gauge, "Size of RSS in bytes.", |s| Some(s.memory_rss as f64)),
    (
        "container_memory_usage_bytes",
        Kind::Gauge,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |s| Some(s.memory_usage as f64),
    ),
    ("container_memory_working_set_bytes", Kind::Gauge, "Current working set in bytes.", |s| Some(s.memory_working_set as f64)),
    ("container_memory_cache", Kind::Gauge, "Number of bytes of page cache memory.", |s| {
        Some(s.memory_usage.saturating_sub(s.memory_rss) as f64)
    }),
    ("container_memory_swap", Kind::Gauge, "Container swap usage in bytes.", |s| Some(s.detail?.memory_swap as f64)),
    ("container_memory_failcnt", Kind::Counter, "Number of memory usage hits limits", |s| Some(s.detail?.memory_failures as f64)),
    ("container_processes", Kind::Gauge, "Number of processes running inside the container.", |s| Some(s.pids as f64)),
];

type Value = fn(&ContainerUse) -> Option<f64>;
type Metric = (&'static str, Kind, &'static str, Value);

const CONTAINER: [Metric; 9] = [
    ("container_fs_usage_bytes", Kind::Gauge, "Number of bytes that are consumed by the container on this filesystem.", |c| {
        Some(c.stats.rootfs_bytes as f64)
    }),
    ("container_last_seen", Kind::Gauge, "Last time a container was seen by the exporter", |c| Some(c.at.as_second() as f64)),
    ("container_oom_events_total", Kind::Counter, "Count of out of memory events observed for the container", |c| {
        Some(c.stats.detail?.oom_kills as f64)
    }),
    ("container_spec_cpu_period", Kind::Gauge, "CPU period of the container.", |c| limited(c).cpu_period.map(|p| p as f64)),
    ("container_spec_cpu_quota", Kind::Gauge, "CPU quota of the container.", |c| limited(c).cpu_quota.filter(|q| *q > 0).map(|q| q as f64)),
    ("container_spec_cpu_shares", Kind::Gauge, "CPU share of the container.", |c| limited(c).cpu_shares.map(|s| s as f64)),
    ("container_spec_memory_limit_bytes", Kind::Gauge, "Memory limit for the container.", |c| {
        Some(limited(c).memory_limit.filter(|m| *m > 0).unwrap_or(0) as f64)
    }),
    ("container_start_time_seconds", Kind::Gauge, "Start time of the container since unix epoch in seconds.", |c| {
        Some(c.started_at().as_nanosecond() as f64 / 1e9)
    }),
    ("container_threads_max", Kind::Gauge, "Maximum number of threads allowed inside the container, infinity if value is zero", |c| {
        Some(limited(c).pids_limit.filter(|p| *p > 0).unwrap_or(0) as f64)
    }),
];

fn limited(container: &ContainerUse) -> &coracle_runtime::Resources {
    &container.status.spec.resources
}

type Waited = (&'static str, &'static str, fn(&ContainerStats) -> f64);

/// Of containers whose CPU is limited.
const THROTTLING: [Waited; 3] = [
    ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", |s| s.cpu_periods as f64),
    ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", |s| s.cpu_throttled_periods as f64),
    ("container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", |s| {
        seconds(s.cpu_throttled_nanoseconds)
    }),
];

/// The labels of the machine as a whole.
const WHOLE: [(&str, &str); 1] = [("id", "/")];

type Figure = (&'static str, &'static str, fn(&Traffic) -> u64);

const NETWORK: [Figure; 8] = [
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |t| t.received_bytes),
    ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |t| t.received_errors),
    ("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", |t| t.received_dropped),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |t| t.received_packets),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |t| t.sent_bytes),
    ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |t| t.sent_errors),
    ("container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", |t| t.sent_dropped),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |t| t.sent_packets),
];

/// The text.
pub fn text(version: &str, machine: Machine, node: &NodeUse, pods: &[PodUse], now_milliseconds: i64) -> String {
    let mut out = Text::default();
    out.metric("cadvisor_version_info", Kind::Gauge, "A metric with a constant '1' value labeled by the version of what measures.");
    out.sample("cadvisor_version_info", &[("cadvisorVersion", version)], 1);
    out.metric("machine_cpu_cores", Kind::Gauge, "Number of logical CPU cores.");
    out.sample("machine_cpu_cores", &[], machine.cores);
    out.metric("machine_memory_bytes", Kind::Gauge, "Amount of memory installed on the machine.");
    out.sample("machine_memory_bytes", &[], machine.memory_bytes);
    let cpu = "container_cpu_usage_seconds_total";
    out.metric(cpu, Kind::Counter, "Cumulative cpu time consumed in seconds.");
    out.sample_at(cpu, &[("cpu", "total"), ("id", "/")], seconds(node.cpu_nanoseconds), now_milliseconds);
    for (labels, stats, at) in users(pods) {
        let mut labels = labels.to_vec();
        labels.insert(1, ("cpu", "total"));
        out.sample_at(cpu, &labels, seconds(stats.cpu_nanoseconds), at.as_millisecond());
    }
    for (name, kind, help, value) in USE {
        out.metric(name, kind, help);
        match name {
            "container_memory_working_set_bytes" => out.sample_at(name, &WHOLE, node.memory_working_set, now_milliseconds),
            "container_memory_rss" => out.sample_at(name, &WHOLE, node.memory_rss, now_milliseconds),
            _ => {}
        }
        for (labels, stats, at) in users(pods) {
            if let Some(value) = value(stats) {
                out.sample_at(name, &labels, value, at.as_millisecond());
            }
        }
    }
    for (name, kind, help, value) in CONTAINER {
        out.metric(name, kind, help);
        for (pod, container) in all(pods) {
            if let Some(value) = value(container) {
                out.sample_at(name, &labels_of(pod, container), value, container.at.as_millisecond());
            }
        }
    }
    for (name, help, value) in THROTTLING {
        out.metric(name, Kind::Counter, help);
        for (pod, container) in all(pods).filter(|(_, c)| limited(c).cpu_quota.is_some_and(|q| q > 0)) {
            out.sample_at(name, &labels_of(pod, container), value(&container.stats), container.at.as_millisecond());
        }
    }
    for (name, help, value) in NETWORK {
        out.metric(name, Kind::Counter, help);
        for (pod, traffic) in pods.iter().filter_map(|p| Some((p, p.network.as_ref()?))) {
            // The interface is the pod's, not a container's.
            let mut labels = labels_of_pod(pod).to_vec();
            labels.insert(3, ("interface", INTERFACE));
            out.sample(name, &labels, value(traffic));
        }
    }
    out.finish()
}

type Labels<'a> = [(&'static str, &'a str); 6];

/// Containers and pods, whoever uses something.
fn users(pods: &[PodUse]) -> impl Iterator<Item = (Labels<'_>, &ContainerStats, Timestamp)> {
    let containers = all(pods).map(|(pod, container)| (labels_of(pod, container), &container.stats, container.at));
    containers.chain(pods.iter().filter_map(|pod| {
        let sandbox = pod.sandbox.as_ref()?;
        Some((labels_of_pod(pod), sandbox.stats.as_ref()?, sandbox.at))
    }))
}

fn all(pods: &[PodUse]) -> impl Iterator<Item = (&PodUse, &ContainerUse)> {
    pods.iter().flat_map(|p| p.containers.iter().map(move |c| (p, c)))
}

/// A row of the pod names no container, and no image: there is none that only holds it.
fn labels_of_pod(pod: &PodUse) -> Labels<'_> {
    let (cgroup, id) = pod.sandbox.as_ref().map_or(("", ""), |sandbox| (sandbox.cgroup.as_str(), sandbox.id.as_str()));
    let (namespace, name) = (spec::namespace(&pod.pod), spec::name(&pod.pod));
    [("container", ""), ("id", cgroup), ("image", ""), ("name", id), ("namespace", namespace), ("pod", name)]
}

fn labels_of<'a>(pod: &'a PodUse, container: &'a ContainerUse) -> Labels<'a> {
    [
        ("container", container.name.as_str()),
        ("id", container.cgroup.as_str()),
        ("image", container.status.image_id.as_str()),
        ("name", container.id.as_str()),
        ("namespace", spec::namespace(&pod.pod)),
        ("pod", spec::name(&pod.pod)),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coracle_runtime::CgroupDetail;
    use serde_json::json;

    use super::*;
    use crate::stats::SandboxUse;

    /// Of a pod of which nothing but this is known.
    fn text_of(stats: Option<ContainerStats>) -> String {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).expect("a pod");
        let sandbox = SandboxUse { id: "s".into(), cgroup: "/c/podu".into(), stats, at: Timestamp::UNIX_EPOCH };
        let network = Some(Traffic { received_bytes: 7, ..Traffic::default() });
        let pods = [PodUse { pod: Arc::new(pod), containers: Vec::new(), sandbox: Some(sandbox), network }];
        text("v", Machine { cores: 1, memory_bytes: 1 }, &NodeUse::default(), &pods, 0)
    }

    #[test]
    fn a_pod_has_rows_of_its_own() {
        let detail = Some(CgroupDetail { cpu_user_nanoseconds: 5_000_000_000, memory_failures: 3, ..CgroupDetail::default() });
        let text =
            text_of(Some(ContainerStats { cpu_nanoseconds: 9_000_000_000, memory_working_set: 11, detail, ..ContainerStats::default() }));
        for row in [
            r#"container_cpu_usage_seconds_total{container="",cpu="total",id="/c/podu",image="",name="s",namespace="n",pod="p"} 9 0"#,
            r#"container_cpu_user_seconds_total{container="",id="/c/podu",image="",name="s",namespace="n",pod="p"} 5 0"#,
            r#"container_memory_failcnt{container="",id="/c/podu",image="",name="s",namespace="n",pod="p"} 3 0"#,
            r#"container_memory_working_set_bytes{container="",id="/c/podu",image="",name="s",namespace="n",pod="p"} 11 0"#,
            r#"container_network_receive_bytes_total{container="",id="/c/podu",image="",interface="eth0",name="s",namespace="n",pod="p"} 7"#,
        ] {
            assert!(text.lines().any(|line| line == row), "{row} is not in\n{text}");
        }
    }

    #[test]
    fn what_a_runtime_does_not_say_has_no_row() {
        let text = text_of(Some(ContainerStats { memory_usage: 4, ..ContainerStats::default() }));
        assert!(text.contains("container_memory_usage_bytes{container=\"\"") && !text.contains("container_memory_swap{"), "{text}");
        assert!(!text_of(None).contains("container_memory_usage_bytes{"));
    }
}
