//! `/metrics/cadvisor`: per container and per pod, under the names and labels that dashboards know.

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

type Value = fn(&ContainerUse) -> Option<f64>;
type Metric = (&'static str, Kind, &'static str, Value);

const CONTAINER: [Metric; 13] = [
    ("container_fs_usage_bytes", Kind::Gauge, "Number of bytes that are consumed by the container on this filesystem.", |c| {
        Some(c.stats.rootfs_bytes as f64)
    }),
    ("container_last_seen", Kind::Gauge, "Last time a container was seen by the exporter", |c| Some(c.at.as_second() as f64)),
    ("container_memory_rss", Kind::Gauge, "Size of RSS in bytes.", |c| Some(c.stats.memory_rss as f64)),
    (
        "container_memory_usage_bytes",
        Kind::Gauge,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |c| Some(c.stats.memory_usage as f64),
    ),
    ("container_memory_working_set_bytes", Kind::Gauge, "Current working set in bytes.", |c| Some(c.stats.memory_working_set as f64)),
    ("container_memory_cache", Kind::Gauge, "Number of bytes of page cache memory.", |c| {
        Some(c.stats.memory_usage.saturating_sub(c.stats.memory_rss) as f64)
    }),
    ("container_processes", Kind::Gauge, "Number of processes running inside the container.", |c| Some(c.stats.pids as f64)),
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

type Waited = (&'static str, &'static str, fn(&coracle_runtime::ContainerStats) -> f64);

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
    for (pod, container) in all(pods) {
        let mut labels = vec![("cpu", "total")];
        labels.extend(labels_of(pod, container));
        labels.sort_unstable();
        out.sample_at(cpu, &labels, seconds(container.stats.cpu_nanoseconds), container.at.as_millisecond());
    }
    for (name, kind, help, value) in CONTAINER {
        out.metric(name, kind, help);
        match name {
            "container_memory_working_set_bytes" => out.sample_at(name, &WHOLE, node.memory_working_set, now_milliseconds),
            "container_memory_rss" => out.sample_at(name, &WHOLE, node.memory_rss, now_milliseconds),
            _ => {}
        }
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
            let labels = [("interface", INTERFACE), ("namespace", spec::namespace(&pod.pod)), ("pod", spec::name(&pod.pod))];
            out.sample(name, &labels, value(traffic));
        }
    }
    out.finish()
}

fn all(pods: &[PodUse]) -> impl Iterator<Item = (&PodUse, &ContainerUse)> {
    pods.iter().flat_map(|p| p.containers.iter().map(move |c| (p, c)))
}

fn labels_of<'a>(pod: &'a PodUse, container: &'a ContainerUse) -> [(&'static str, &'a str); 6] {
    let id = container.status.spec.id.id.as_str();
    [
        ("container", container.name.as_str()),
        ("id", id),
        ("image", container.status.image_id.as_str()),
        ("name", id),
        ("namespace", spec::namespace(&pod.pod)),
        ("pod", spec::name(&pod.pod)),
    ]
}
