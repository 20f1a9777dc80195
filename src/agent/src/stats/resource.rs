//! `/metrics/resource`: what metrics-server reads.

use super::{
    ContainerUse, PodUse,
    node::NodeUse,
    text::{Kind, Text, seconds},
};
use crate::pod::spec;

/// The text.
pub fn text(node: &NodeUse, pods: &[PodUse], now_milliseconds: i64) -> String {
    let mut out = Text::default();
    let containers = |out: &mut Text, name: &str, value: &dyn Fn(&ContainerUse) -> String, timed: bool| {
        for (pod, container) in pods.iter().flat_map(|p| p.containers.iter().map(move |c| (p, c))) {
            let labels = [("container", container.name.as_str()), ("namespace", spec::namespace(&pod.pod)), ("pod", spec::name(&pod.pod))];
            match timed {
                true => out.sample_at(name, &labels, value(container), container.at.as_millisecond()),
                false => out.sample(name, &labels, value(container)),
            }
        }
    };
    let each_pod = |out: &mut Text, name: &str, value: &dyn Fn(&PodUse) -> String| {
        for pod in pods.iter().filter(|p| !p.containers.is_empty()) {
            let labels = [("namespace", spec::namespace(&pod.pod)), ("pod", spec::name(&pod.pod))];
            out.sample_at(name, &labels, value(pod), now_milliseconds);
        }
    };
    out.metric("container_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed by the container in core-seconds");
    containers(&mut out, "container_cpu_usage_seconds_total", &|c| seconds(c.stats.cpu_nanoseconds).to_string(), true);
    out.metric("container_memory_working_set_bytes", Kind::Gauge, "Current working set of the container in bytes");
    containers(&mut out, "container_memory_working_set_bytes", &|c| c.stats.memory_working_set.to_string(), true);
    out.metric("container_start_time_seconds", Kind::Gauge, "Start time of the container since unix epoch in seconds");
    containers(&mut out, "container_start_time_seconds", &|c| (c.started_at().as_nanosecond() as f64 / 1e9).to_string(), false);
    out.metric("node_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed by the node in core-seconds");
    out.sample_at("node_cpu_usage_seconds_total", &[], seconds(node.cpu_nanoseconds), now_milliseconds);
    out.metric("node_memory_working_set_bytes", Kind::Gauge, "Current working set of the node in bytes");
    out.sample_at("node_memory_working_set_bytes", &[], node.memory_working_set, now_milliseconds);
    out.metric("pod_cpu_usage_seconds_total", Kind::Counter, "Cumulative cpu time consumed by the pod in core-seconds");
    each_pod(&mut out, "pod_cpu_usage_seconds_total", &|p| seconds(p.sum().cpu_nanoseconds).to_string());
    out.metric("pod_memory_working_set_bytes", Kind::Gauge, "Current working set of the pod in bytes");
    each_pod(&mut out, "pod_memory_working_set_bytes", &|p| p.sum().memory_working_set.to_string());
    out.metric("resource_scrape_error", Kind::Gauge, "1 if there was an error while getting container metrics, 0 otherwise");
    out.sample("resource_scrape_error", &[], 0);
    out.finish()
}
