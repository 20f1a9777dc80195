//! `/metrics`, in the text format of Prometheus, under upstream's names: requests, streams, admission, storage, audit, the process.
//!
//! Counting one request is one look-up and a few atomic additions.

pub(crate) mod admission;
mod callers;
mod family;
pub(crate) mod histogram;
pub(crate) mod page;
mod process;
mod rules;
pub(crate) mod slis;
mod summary;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode, header::CONTENT_TYPE};

use self::{
    family::{Family, Series},
    histogram::Histogram,
    page::{Page, Stability},
};
use crate::{audit, request::RequestInfo, server::Shared};

const DURATIONS: &[f64] =
    &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SLI_DURATIONS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const EVENT_SIZES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
/// Labels of what a request is about: verb, dry run, group, version, resource, subresource, scope.
const ABOUT: [&str; 7] = ["verb", "dry_run", "group", "version", "resource", "subresource", "scope"];

/// What is counted of requests that are alike.
#[derive(Debug)]
struct Requests {
    codes: Mutex<Vec<(u16, u64)>>,
    terminated: AtomicU64,
    running: AtomicI64,
    durations: Histogram,
    own_durations: Histogram,
    sizes: Histogram,
}

impl Requests {
    fn new() -> Self {
        Self {
            codes: Mutex::default(),
            terminated: AtomicU64::new(0),
            running: AtomicI64::new(0),
            durations: Histogram::seconds(DURATIONS),
            own_durations: Histogram::seconds(SLI_DURATIONS),
            sizes: Histogram::whole(SIZES),
        }
    }
}

/// What is counted of the events that watches of a resource send.
#[derive(Debug)]
pub struct Events {
    count: AtomicU64,
    sizes: Histogram,
}

impl Events {
    /// An event of so many bytes goes out.
    pub fn sent(&self, bytes: usize) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sizes.observe(bytes as u64);
    }
}

/// The counters of one resource's events.
pub type Counted = Series<3, Events>;

/// The counters of a server.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<7, Requests>,
    events: Family<3, Events>,
    /// Of admission.
    pub admission: admission::Admission,
    /// Of those who ask.
    pub callers: callers::Callers,
    /// Of the rules of custom resources.
    pub rules: rules::Rules,
}

/// A request that was begun: it is counted when it ends.
#[derive(Debug)]
pub struct Running(Arc<Series<7, Requests>>);

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// What was answered.
    pub code: StatusCode,
    /// From its first byte to its answer.
    pub took: Duration,
    /// Of that, before it was its turn.
    pub waited: Duration,
    /// Of the answer, where known.
    pub size: Option<u64>,
    /// It did not get its turn or its time.
    pub terminated: bool,
}

impl Metrics {
    /// Of a server with these plugins of admission.
    pub fn new(plugins: impl Iterator<Item = &'static str>) -> Self {
        Self {
            requests: Family::default(),
            events: Family::default(),
            admission: admission::Admission::of(plugins),
            callers: callers::Callers::default(),
            rules: rules::Rules::default(),
        }
    }

    /// A request begins whose path is about something that is served; any other has no names.
    pub fn begin(&self, cx: &Asked<'_>, served: bool) -> Running {
        let Asked { info, method, content_type, dry_run, watch } = *cx;
        let scope = scope(info);
        let verb = verb(info, method, scope, content_type, watch);
        let labels = match served {
            true => [verb, dry_run, &info.group, &info.version, &info.resource, &info.subresource, scope],
            false => [verb, "", "", "", "", "", ""],
        };
        Running(self.requests.get(labels, Requests::new))
    }

    /// The counters of the events of a resource.
    pub fn events(&self, group: &str, version: &str, resource: &str) -> Arc<Counted> {
        self.events.get([group, version, resource], || Events { count: AtomicU64::new(0), sizes: Histogram::whole(EVENT_SIZES) })
    }
}

/// What a series is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Read off the path.
    pub info: &'a RequestInfo,
    /// As it came.
    pub method: &'a Method,
    /// Of the body.
    pub content_type: &'a str,
    /// `All`, or empty.
    pub dry_run: &'a str,
    /// The query says `watch`.
    pub watch: bool,
}

impl<'a> Asked<'a> {
    /// Of a request.
    pub fn of(info: &'a RequestInfo, method: &'a Method, headers: &'a http::HeaderMap, query: &'a [(String, String)]) -> Self {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let dry_run = if query.iter().any(|(key, value)| key == "dryRun" && value == "All") { "All" } else { "" };
        Self { info, method, content_type, dry_run, watch: info.verb == "watch" }
    }
}

impl Running {
    /// It lives on until one side ends it: counted as running until the guard goes.
    pub fn long(&self) -> Long {
        self.0.value.running.fetch_add(1, Ordering::Relaxed);
        Long(Arc::clone(&self.0))
    }

    /// It is over.
    pub fn end(&self, ended: Ended) {
        let Requests { codes, terminated, durations, own_durations, sizes, .. } = &self.0.value;
        let code = ended.code.as_u16();
        let mut codes = codes.lock().unwrap_or_else(PoisonError::into_inner);
        match codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => codes.push((code, 1)),
        }
        drop(codes);
        durations.took(ended.took);
        own_durations.took(ended.took.saturating_sub(ended.waited));
        if let Some(size) = ended.size.filter(|_| matches!(&*self.0.labels[0], "GET" | "LIST")) {
            sizes.observe(size);
        }
        if ended.terminated {
            terminated.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A stream that runs.
#[derive(Debug)]
pub struct Long(Arc<Series<7, Requests>>);

impl Drop for Long {
    fn drop(&mut self) {
        self.0.value.running.fetch_sub(1, Ordering::Relaxed);
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match info {
        _ if !info.name.is_empty() || info.verb == "create" => "resource",
        _ if !info.namespace.is_empty() => "namespace",
        _ if info.is_resource => "cluster",
        _ => "",
    }
}

/// Upstream's word: the method, save for lists, watches, applies and connections.
fn verb(info: &RequestInfo, method: &Method, scope: &str, content_type: &str, watch: bool) -> &'static str {
    if info.is_resource && matches!(info.subresource.as_str(), "proxy" | "exec" | "attach" | "portforward") {
        return "CONNECT";
    }
    match *method {
        Method::GET | Method::HEAD if watch => "WATCH",
        Method::GET | Method::HEAD if !matches!(scope, "" | "resource") => "LIST",
        Method::GET | Method::HEAD => "GET",
        Method::PATCH if content_type.starts_with("application/apply-patch") => "APPLY",
        Method::PATCH => "PATCH",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// The page.
pub(crate) fn page(shared: &Shared) -> String {
    let mut page = Page::default();
    let metrics = shared.registry.metrics();
    metrics.write_requests(&mut page);
    metrics.write_events(&mut page);
    metrics.admission.write(&mut page);
    metrics.rules.write(&mut page);
    metrics.callers.write(&mut page, &shared.aggregation.availability());
    shared.flow.write(&mut page);
    write_storage(shared, &mut page);
    let audit::Counts { events, lost } = shared.audit.counts();
    page.single("apiserver_audit_event_total", "counter", Stability::Alpha, "Audit events made.", events);
    page.family("apiserver_audit_error_total", "counter", Stability::Alpha, "Audit events that are not in the log.");
    page.sample("apiserver_audit_error_total", &[("plugin", "log")], lost);
    page.family("kubernetes_build_info", "gauge", Stability::Alpha, "Which program this is.");
    let version = crate::GIT_VERSION;
    page.sample("kubernetes_build_info", &[("git_version", version), ("major", "1"), ("minor", "36")], 1);
    process::write(&mut page);
    // Whoever else works in this process has families of its own.
    shared.further_metrics.iter().fold(page.finish(), |page, further| page + &further())
}

impl Metrics {
    fn write_requests(&self, page: &mut Page) {
        let all = self.requests.all();
        let about = |series: &Series<7, Requests>, with_dry_run: bool| -> Vec<(&str, String)> {
            let named = ABOUT.iter().zip(&series.labels).filter(|(name, _)| with_dry_run || **name != "dry_run");
            let mut labels: Vec<(&str, String)> = named.map(|(name, label)| (*name, label.to_string())).collect();
            labels.push(("component", "apiserver".into()));
            labels
        };
        page.family("apiserver_request_total", "counter", Stability::Stable, "Requests by what they ask for and what was answered.");
        for series in &all {
            let mut labels = about(series, true);
            for (code, count) in series.value.codes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                labels.push(("code", code.to_string()));
                page.sample("apiserver_request_total", &texts(&labels), count);
                labels.pop();
            }
        }
        let latency = "How long answers take, in seconds.";
        let own = "How long answers take without the wait for their turn, in seconds.";
        type Part = fn(&Requests) -> &Histogram;
        let parts: [(&str, Stability, &str, bool, Part); 3] = [
            ("apiserver_request_duration_seconds", Stability::Stable, latency, true, |requests| &requests.durations),
            ("apiserver_request_sli_duration_seconds", Stability::Alpha, own, false, |requests| &requests.own_durations),
            ("apiserver_response_sizes", Stability::Stable, "Bytes of answers to reads.", false, |requests| &requests.sizes),
        ];
        for (name, stability, help, with_dry_run, part) in parts {
            page.family(name, "histogram", stability, help);
            // Without the label two series would be one.
            for series in all.iter().filter(|series| with_dry_run || series.labels[1].is_empty()) {
                part(&series.value).write(page, name, &texts(&about(series, with_dry_run)));
            }
        }
        page.family("apiserver_longrunning_requests", "gauge", Stability::Stable, "Streams that run.");
        for series in &all {
            let running = series.value.running.load(Ordering::Relaxed);
            if running > 0 && series.labels[1].is_empty() {
                page.sample("apiserver_longrunning_requests", &texts(&about(series, false)), running);
            }
        }
        let help = "Requests that were ended before their answer: no place, or no time.";
        page.family("apiserver_request_terminations_total", "counter", Stability::Alpha, help);
        for series in &all {
            let terminated = series.value.terminated.load(Ordering::Relaxed);
            if terminated > 0 && series.labels[1].is_empty() {
                page.sample("apiserver_request_terminations_total", &texts(&about(series, false)), terminated);
            }
        }
    }

    fn write_events(&self, page: &mut Page) {
        let all = self.events.all();
        let labels = |series: &Series<3, Events>| {
            let names = ["group", "version", "resource"];
            names.iter().zip(&series.labels).map(|(name, label)| (*name, label.to_string())).collect::<Vec<_>>()
        };
        page.family("apiserver_watch_events_total", "counter", Stability::Alpha, "Events sent to watchers.");
        for series in &all {
            page.sample("apiserver_watch_events_total", &texts(&labels(series)), series.value.count.load(Ordering::Relaxed));
        }
        page.family("apiserver_watch_events_sizes", "histogram", Stability::Alpha, "Bytes of events sent to watchers.");
        for series in &all {
            series.value.sizes.write(page, "apiserver_watch_events_sizes", &texts(&labels(series)));
        }
    }
}

fn texts<'a>(labels: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    labels.iter().map(|(name, label)| (*name, label.as_str())).collect()
}

fn write_storage(shared: &Shared, page: &mut Page) {
    let name = "apiserver_resource_objects";
    page.family(name, "gauge", Stability::Alpha, "Objects in the store, by resource.");
    for (kind, count) in shared.registry.counts() {
        let (resource, group) = kind.split_once('.').unwrap_or((&kind, ""));
        page.sample(name, &[("group", group), ("resource", resource)], count);
    }
    let Some(encryption) = shared.store.encryption() else { return };
    let counts = encryption.counts();
    let name = "apiserver_storage_transformation_operations_total";
    page.family(name, "counter", Stability::Alpha, "Values encrypted and decrypted.");
    let prefix = "k8s:enc:aesgcm:v1:";
    for (kind, status, count) in
        [("to_storage", "OK", counts.sealed), ("from_storage", "OK", counts.opened), ("from_storage", "Internal", counts.failed)]
    {
        page.sample(
            name,
            &[("resource", "secrets"), ("status", status), ("transformation_type", kind), ("transformer_prefix", prefix)],
            count,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_called_as_upstream_calls_them() {
        let check = |method: Method, path: &str, media: &str| {
            let query: Vec<(String, String)> =
                form_urlencoded::parse(path.split_once('?').unwrap_or_default().1.as_bytes()).into_owned().collect();
            let info = crate::request_info::parse(&method, path.split('?').next().unwrap(), &query).unwrap();
            let scope = scope(&info);
            (verb(&info, &method, scope, media, info.verb == "watch"), scope)
        };
        for (method, path, media, wanted) in [
            (Method::GET, "/api/v1/pods", "", ("LIST", "cluster")),
            (Method::GET, "/api/v1/namespaces/a/pods?watch=1", "", ("WATCH", "namespace")),
            (Method::GET, "/api/v1/namespaces/a/pods/p", "", ("GET", "resource")),
            (Method::GET, "/api/v1/namespaces/a/pods/p/exec", "", ("CONNECT", "resource")),
            (Method::POST, "/api/v1/namespaces/a/pods", "", ("POST", "resource")),
            (Method::PATCH, "/api/v1/namespaces/a/pods/p", "application/apply-patch+yaml", ("APPLY", "resource")),
            (Method::PATCH, "/api/v1/namespaces/a/pods/p", "application/merge-patch+json", ("PATCH", "resource")),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "", ("DELETE", "namespace")),
            (Method::GET, "/version", "", ("GET", "")),
            (Method::OPTIONS, "/version", "", ("other", "")),
        ] {
            assert_eq!(check(method.clone(), path, media), wanted, "{method} {path}");
        }
    }
}
