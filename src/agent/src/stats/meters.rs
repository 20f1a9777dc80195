//! What the agent counts of its own work, under upstream's names: counters, gauges and histograms of `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::text::{Kind, Text};

/// Sets of labels of one metric; what is beyond is not counted. Operations and signals are some dozens, the resources of device plugins fewer.
const SERIES: usize = 256;

/// Prometheus' own buckets, in seconds.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const POD_START: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0,
    1800.0, 2700.0, 3600.0,
];
const PULL: &[f64] =
    &[1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0];
/// From 5 ms on, each 2.5 times the one before.
const OPERATION: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078125,
    0.1953125,
    0.48828125,
    1.220703125,
    3.0517578125,
    7.62939453125,
    19.073486328125,
    47.6837158203125,
    119.20928955078125,
    298.0232238769531,
    745.0580596923828,
];
/// A minute, an hour, four, a day, a week, a month, a quarter, half a year, a year, four.
const CERTIFICATE_LIFE: &[f64] =
    &[60.0, 3600.0, 14_400.0, 86_400.0, 604_800.0, 2_592_000.0, 7_776_000.0, 15_552_000.0, 31_104_000.0, 124_416_000.0];

/// A metric.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    /// Upper ends of a histogram's buckets.
    buckets: &'static [f64],
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, help, kind: Kind::Counter, labels, buckets: &[] }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help, kind: Kind::Gauge, labels: &[], buckets: &[] }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, help, kind: Kind::Histogram, labels, buckets }
}

/// Metrics, each a static of this name, and the list of them in the order of `/metrics`.
macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident = $metric:expr;)*) => {
        $($(#[$doc])* pub static $name: Metric = $metric;)*
        static ALL: &[&Metric] = &[$(&$name),*];
    };
}

metrics! {
    /// By what the pod went against, as the reason of its refusal.
    ADMISSION_REJECTIONS = counter("kubelet_admission_rejections_total", &["reason"], "Pods that the node refused to run");
    /// Client certificate.
    CLIENT_RENEWAL_ERRORS = counter("kubelet_certificate_manager_client_expiration_renew_errors", &[],
        "Renewals of the node's client certificate that failed");
    /// How old the one before was.
    SERVER_ROTATION = histogram("kubelet_certificate_manager_server_rotation_seconds", &[], CERTIFICATE_LIFE,
        "How many seconds a serving certificate lived before it was renewed");
    /// By resource.
    DEVICE_ALLOCATION = histogram("kubelet_device_plugin_alloc_duration_seconds", &["resource_name"], SECONDS,
        "How long a device plugin took to allocate");
    /// By resource.
    DEVICE_REGISTRATIONS = counter("kubelet_device_plugin_registration_total", &["resource_name"], "Registrations of device plugins");
    /// By signal.
    EVICTIONS = counter("kubelet_evictions", &["eviction_signal"], "Pods that were ended for want of something");
    /// Seconds since 1970.
    SHUTDOWN_END = gauge("kubelet_graceful_shutdown_end_time_seconds", "When the last graceful shutdown of the node ended, in seconds since 1970");
    /// Seconds since 1970.
    SHUTDOWN_START = gauge("kubelet_graceful_shutdown_start_time_seconds", "When the last graceful shutdown of the node began, in seconds since 1970");
    /// By what the image is for.
    IMAGES_COLLECTED = counter("kubelet_image_garbage_collected_total", &["reason"], "Images that were removed because nobody used them");
    /// By size of the image.
    IMAGE_PULL = histogram("kubelet_image_pull_duration_seconds", &["image_size_in_bytes"], PULL, "How long pulls of images took, by size");
    /// Of the node.
    NODE_READY = gauge("kubelet_node_startup_duration_seconds", "How long after the machine the node was ready");
    /// From first sight to the first start.
    POD_START_DURATION = histogram("kubelet_pod_start_duration_seconds", &[], POD_START,
        "From the first sight of a pod to the start of its containers");
    /// Without what nobody but the pod can help.
    POD_START_SLI = histogram("kubelet_pod_start_sli_duration_seconds", &[], POD_START,
        "From the creation of a pod without volumes that last to the sight of its running containers, less pulls of images and init containers");
    /// From creation on.
    POD_START_TOTAL = histogram("kubelet_pod_start_total_duration_seconds", &[], POD_START,
        "From the creation of a pod to the sight of its running containers");
    /// A status and its write.
    POD_STATUS_SYNC = histogram("kubelet_pod_status_sync_duration_seconds", &[], SECONDS,
        "From a change of a pod's status to its write");
    /// By what happened.
    POD_WORKER = histogram("kubelet_pod_worker_duration_seconds", &["operation_type"], SECONDS, "How long one step of a pod took");
    /// By the resource that was lacking.
    PREEMPTIONS = counter("kubelet_preemptions", &["preemption_signal"], "Pods that were ended to make room for a critical one");
    /// By handler.
    SANDBOX_DURATION = histogram("kubelet_run_podsandbox_duration_seconds", &["runtime_handler"], SECONDS, "How long sandboxes took to start");
    /// By handler.
    SANDBOX_ERRORS = counter("kubelet_run_podsandbox_errors_total", &["runtime_handler"], "Sandboxes that did not start");
    /// By operation.
    OPERATION_DURATION = histogram("kubelet_runtime_operations_duration_seconds", &["operation_type"], OPERATION,
        "How long operations of the container runtime took");
    /// By operation.
    OPERATION_ERRORS = counter("kubelet_runtime_operations_errors_total", &["operation_type"], "Operations of the container runtime that failed");
    /// By operation.
    OPERATIONS = counter("kubelet_runtime_operations_total", &["operation_type"], "Operations of the container runtime");
    /// Serving certificate.
    SERVER_RENEWAL_ERRORS = counter("kubelet_server_expiration_renew_errors", &[], "Renewals of the node's serving certificate that failed");
    /// By kind of container and what went wrong.
    STARTED_CONTAINERS_ERRORS = counter("kubelet_started_containers_errors_total", &["code", "container_type"], "Containers that did not start");
    /// By kind of container.
    STARTED_CONTAINERS = counter("kubelet_started_containers_total", &["container_type"], "Containers that were to start");
    /// Sandboxes.
    STARTED_PODS_ERRORS = counter("kubelet_started_pods_errors_total", &[], "Pods that did not start");
    /// Sandboxes.
    STARTED_PODS = counter("kubelet_started_pods_total", &[], "Pods that were to start");
    /// With users of their own.
    STARTED_USER_NAMESPACED_PODS = counter("kubelet_started_user_namespaced_pods_total", &[], "Pods with users of their own that were to start");
}

#[derive(Clone, Debug, Default)]
struct Series {
    /// Of a counter or gauge; the sum of a histogram.
    value: f64,
    /// Of a histogram: one for each bucket, and what is above all.
    counts: Vec<u64>,
}

type Family = BTreeMap<Vec<String>, Series>;

/// The figures of one agent.
#[derive(Debug, Default)]
pub struct Meters(Mutex<BTreeMap<&'static str, Family>>);

impl Meters {
    /// One more.
    pub fn count(&self, metric: &'static Metric, labels: &[&str]) {
        self.change(metric, labels, |series| series.value += 1.0);
    }

    /// A gauge's value.
    pub fn set(&self, metric: &'static Metric, value: f64) {
        self.change(metric, &[], |series| series.value = value);
    }

    /// A gauge's value, if it has none.
    pub fn first(&self, metric: &'static Metric, value: f64) {
        self.change(metric, &[], |series| series.value = if series.value == 0.0 { value } else { series.value });
    }

    /// One observation of a histogram.
    pub fn observe(&self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.change(metric, labels, |series| {
            series.counts.resize(metric.buckets.len() + 1, 0);
            let bucket = metric.buckets.iter().position(|end| value <= *end).unwrap_or(metric.buckets.len());
            series.counts[bucket] += 1;
            series.value += value;
        });
    }

    /// How long something took that began then.
    pub fn took(&self, metric: &'static Metric, labels: &[&str], since: Instant) {
        self.observe(metric, labels, since.elapsed().as_secs_f64());
    }

    fn change(&self, metric: &'static Metric, labels: &[&str], change: impl FnOnce(&mut Series)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let family = all.entry(metric.name).or_default();
        let room = family.len() < SERIES;
        match family.iter_mut().find(|(key, _)| key.iter().map(String::as_str).eq(labels.iter().copied())) {
            Some((_, series)) => change(series),
            None if room => change(family.entry(labels.iter().map(|l| (*l).to_owned()).collect()).or_default()),
            None => {}
        }
    }

    /// Writes all that has something to tell; counters without labels are there from the beginning.
    pub fn write(&self, out: &mut Text) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let none = Family::new();
        for metric in ALL {
            let family = all.get(metric.name).unwrap_or(&none);
            let plain = metric.labels.is_empty() && metric.kind == Kind::Counter;
            if family.is_empty() && !plain {
                continue;
            }
            out.metric(metric.name, metric.kind, metric.help);
            if family.is_empty() {
                out.sample(metric.name, &[], 0);
            }
            for (values, series) in family {
                let labels: Vec<_> = metric.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                match metric.kind {
                    Kind::Histogram => sample(out, metric, &labels, series),
                    Kind::Counter | Kind::Gauge => out.sample(metric.name, &labels, series.value),
                }
            }
        }
    }
}

fn sample(out: &mut Text, metric: &Metric, labels: &[(&str, &str)], series: &Series) {
    let (bucket, mut count) = (format!("{}_bucket", metric.name), 0);
    let ends = metric.buckets.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (end, more) in ends.zip(&series.counts) {
        count += more;
        let labels: Vec<_> = labels.iter().copied().chain([("le", end.as_str())]).collect();
        out.sample(&bucket, &labels, count);
    }
    out.sample(&format!("{}_sum", metric.name), labels, series.value);
    out.sample(&format!("{}_count", metric.name), labels, count);
}

/// The label of an image's size, as upstream has it.
pub fn image_size(bytes: u64) -> &'static str {
    const MIB: u64 = 1 << 20;
    let sizes = [
        (100 * 1024 * MIB, "GT100GB"),
        (60 * 1024 * MIB, "60GB-100GB"),
        (40 * 1024 * MIB, "40GB-60GB"),
        (30 * 1024 * MIB, "30GB-40GB"),
        (20 * 1024 * MIB, "20GB-30GB"),
        (10 * 1024 * MIB, "10GB-20GB"),
        (5 * 1024 * MIB, "5GB-10GB"),
        (1024 * MIB, "1GB-5GB"),
        (500 * MIB, "500MB-1GB"),
        (100 * MIB, "100MB-500MB"),
        (10 * MIB, "10MB-100MB"),
        (0, "0-10MB"),
    ];
    sizes.into_iter().find(|(from, _)| bytes > *from).map_or("N/A", |(_, label)| label)
}

/// Seconds of a length of time that may be missing, as of a clock that was set back.
pub fn seconds_since(from: jiff::Timestamp, to: jiff::Timestamp) -> f64 {
    Duration::try_from(to.duration_since(from)).map_or(0.0, |passed| passed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(meters: &Meters) -> String {
        let mut out = Text::default();
        meters.write(&mut out);
        out.finish()
    }

    #[test]
    fn what_was_counted_is_told() {
        let meters = Meters::default();
        let before = text(&meters);
        assert!(before.contains("\nkubelet_started_pods_total 0\n") && !before.contains("kubelet_evictions"), "{before}");
        for (signal, times) in [("memory.available", 2), ("pid.available", 1)] {
            (0..times).for_each(|_| meters.count(&EVICTIONS, &[signal]));
        }
        meters.set(&SHUTDOWN_START, 5.5);
        for value in [0.004, 0.3, 99.0] {
            meters.observe(&POD_WORKER, &["sync"], value);
        }
        let after = text(&meters);
        for line in [
            "# TYPE kubelet_evictions counter",
            "kubelet_evictions{eviction_signal=\"memory.available\"} 2",
            "kubelet_evictions{eviction_signal=\"pid.available\"} 1",
            "kubelet_graceful_shutdown_start_time_seconds 5.5",
            "kubelet_pod_worker_duration_seconds_bucket{operation_type=\"sync\",le=\"0.005\"} 1",
            "kubelet_pod_worker_duration_seconds_bucket{operation_type=\"sync\",le=\"0.5\"} 2",
            "kubelet_pod_worker_duration_seconds_bucket{operation_type=\"sync\",le=\"+Inf\"} 3",
            "kubelet_pod_worker_duration_seconds_sum{operation_type=\"sync\"} 99.304",
            "kubelet_pod_worker_duration_seconds_count{operation_type=\"sync\"} 3",
        ] {
            assert!(after.lines().any(|l| l == line), "{line} in {after}");
        }
    }

    #[test]
    fn labels_without_end_cost_no_memory_without_end() {
        let meters = Meters::default();
        for n in 0..2 * SERIES {
            meters.count(&DEVICE_REGISTRATIONS, &[&n.to_string()]);
        }
        meters.count(&DEVICE_REGISTRATIONS, &["0"]);
        let out = text(&meters);
        assert_eq!(out.lines().filter(|line| line.starts_with(DEVICE_REGISTRATIONS.name)).count(), SERIES);
        assert!(out.contains("{resource_name=\"0\"} 2\n"), "{out}");
    }

    #[test]
    fn sizes_of_images() {
        for (bytes, label) in [(0, "N/A"), (1, "0-10MB"), (10 << 20, "0-10MB"), ((10 << 20) + 1, "10MB-100MB"), (u64::MAX, "GT100GB")] {
            assert_eq!(image_size(bytes), label, "{bytes}");
        }
    }

    #[test]
    fn names_are_once() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(ALL.iter().all(|metric| metric.buckets.is_sorted() && metric.buckets.is_empty() == (metric.kind != Kind::Histogram)));
    }
}
