//! What a server keeps to itself and what it tells: Secrets on its disk, its audit log, its metrics and health, its limits. One server, without a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use coracle_tests::{Kubectl, Server, screen::Follow, server::program};
use nix::sys::signal::Signal;
use serde_json::Value;

const WORD: &str = "correct-horse-battery-staple";

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        if entry.path().is_dir() { out.extend(files(&entry.path())) } else { out.push(entry.path()) }
    }
    out
}

/// The files below the data directory that hold a text, as it is or in base64 as objects carry it.
fn holding(server: &Server, texts: &[&str]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        texts.iter().any(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    files(server.data_dir()).into_iter().filter(holds).collect()
}

fn secrets_encrypt(server: &Server, what: &str) -> String {
    let output =
        Command::new(program()).args(["secrets-encrypt", what, "-o", "json", "-d"]).arg(server.data_dir()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The samples of a page of metrics by family: name and labels, value. Whatever Prometheus would refuse fails here.
fn samples(page: &str) -> BTreeMap<String, Vec<(String, f64)>> {
    let (mut out, mut seen, mut family) = (BTreeMap::<String, Vec<(String, f64)>>::new(), BTreeSet::new(), String::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.split(' ');
            let (what, name) = (words.next(), words.next().expect("a name"));
            assert!(matches!(what, Some("HELP" | "TYPE")), "{line}");
            if what == Some("TYPE") {
                assert!(matches!(words.next(), Some("counter" | "gauge" | "histogram" | "summary")), "{line}");
                assert!(out.insert(name.to_owned(), Vec::new()).is_none(), "{name} comes twice");
                family = name.to_owned();
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let name = series.split('{').next().expect("a first part");
        let own = name.strip_prefix(family.as_str()).expect("samples follow their family");
        assert!(matches!(own, "" | "_bucket" | "_sum" | "_count"), "{line}");
        assert!(name.len() == series.len() || series.ends_with("\"}"), "{line}");
        assert!(seen.insert(series.to_owned()), "{series} comes twice");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        out.get_mut(&family).expect("it was opened").push((series.to_owned(), value));
    }
    out
}

#[test]
fn what_a_server_keeps_to_itself_and_what_it_tells() {
    let mut server = Server::start(&["--disable-agent"]);
    let kubectl = server.kubectl();
    secrets(&mut server, &kubectl);
    audit(&server, &kubectl);
    metrics(&kubectl);
    health(&kubectl);
    limits(&kubectl);
}

fn secrets(server: &mut Server, kubectl: &Kubectl) {
    kubectl.ok(&["create", "configmap", "open", &format!("--from-literal=word=visible-{WORD}")]);
    kubectl.ok(&["create", "secret", "generic", "kept", &format!("--from-literal=word={WORD}")]);
    let base64 = kubectl.ok(&["get", "secret", "kept", "-o", "jsonpath={.data.word}"]);
    assert!(!base64.is_empty());
    let of_database = |path: &PathBuf| path.starts_with(server.data_dir().join("server/db"));
    // Values lie compressed: what occurs once in an object stays as it is.
    assert!(holding(server, &[&format!("visible-{WORD}")]).iter().any(of_database), "what is not secret is in the log as it is");
    assert_eq!(holding(server, &[&base64]), Vec::<PathBuf>::new());
    let before: Value = serde_json::from_str(&secrets_encrypt(server, "status")).expect("JSON");
    let after: Value = serde_json::from_str(&secrets_encrypt(server, "rotate")).expect("JSON");
    assert_ne!(before["keys"], after["keys"]);
    assert_eq!((&after["plain"], &after["unreadable"], after["keys"].as_array().map(Vec::len)), (&0.into(), &0.into(), Some(1)));
    server.end(Signal::SIGKILL);
    server.up();
    assert_eq!(kubectl.ok(&["get", "secret", "kept", "-o", "jsonpath={.data.word}"]), base64);
    assert_eq!(holding(server, &[&base64]), Vec::<PathBuf>::new());
}

fn audit(server: &Server, kubectl: &Kubectl) {
    kubectl.ok(&["create", "configmap", "seen", "--as=alice", "--as-group=system:masters"]);
    kubectl.ok(&["get", "configmaps"]);
    kubectl.fails(&["create", "configmap", "seen"]);
    let log = server.data_dir().join("logs/audit.log");
    // The writer gathers for some milliseconds; what is not recorded is missed by the follower's own limit.
    let mut tail = Command::new("tail");
    tail.args(["-n", "+1", "-F"]).arg(&log);
    let mut recorded = Follow::start(tail);
    let mut events: Vec<Value> = Vec::new();
    while events.len() < 2 {
        let event: Value = serde_json::from_str(&recorded.line()).expect("an event a line");
        if event["objectRef"]["name"] == "seen" {
            events.push(event);
        }
    }
    let [created, refused] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&created["stage"], &created["level"]), (&"ResponseComplete".into(), &"Metadata".into()));
    assert_eq!((&created["user"]["username"], &created["impersonatedUser"]["username"]), (&"system:admin".into(), &"alice".into()));
    assert_eq!((&created["responseStatus"]["code"], &refused["responseStatus"]["code"]), (&201.into(), &409.into()));
    assert_eq!(refused["responseStatus"]["reason"], "AlreadyExists");
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(created["sourceIPs"][0], "127.0.0.1");
    assert!(created["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kubectl")) && created["auditID"].is_string());
    assert!(!fs::read_to_string(&log).expect("there").contains("\"verb\":\"list\""), "reads are not recorded");
}

fn metrics(kubectl: &Kubectl) {
    let page = kubectl.ok(&["get", "--raw", "/metrics"]);
    let samples = samples(&page);
    let value = |family: &str, labels: &[&str]| -> f64 {
        let all = samples.get(family).unwrap_or_else(|| panic!("no {family}"));
        all.iter().filter(|(series, _)| labels.iter().all(|label| series.contains(label))).map(|(_, value)| value).sum()
    };
    let created = ["verb=\"POST\"", "resource=\"configmaps\"", "version=\"v1\"", "scope=\"resource\""];
    assert_eq!(value("apiserver_request_total", &[&created[..], &["code=\"201\"", "dry_run=\"\""]].concat()), 1.0);
    assert_eq!(value("apiserver_request_total", &[&created[..], &["code=\"409\""]].concat()), 1.0);
    let buckets = [&created[..], &["_bucket", "le=\"+Inf\""]].concat();
    assert_eq!(value("apiserver_request_duration_seconds", &buckets), 2.0);
    assert!(value("apiserver_response_sizes", &["verb=\"LIST\"", "_count", "resource=\"configmaps\""]) >= 1.0);
    assert!(value("apiserver_admission_step_admission_duration_seconds", &["_count", "operation=\"CREATE\""]) > 0.0);
    assert!(value("apiserver_admission_step_admission_duration_seconds_summary", &["quantile=\"0.99\"", "operation=\"CREATE\""]) > 0.0);
    let plugin = ["_count", "name=\"NamespaceLifecycle\"", "operation=\"CREATE\"", "type=\"admit\""];
    assert!(value("apiserver_admission_controller_admission_duration_seconds", &plugin) > 0.0);
    assert!(value("apiserver_resource_objects", &["resource=\"secrets\""]) >= 1.0);
    assert!(value("apiserver_storage_transformation_operations_total", &["from_storage", "status=\"OK\""]) >= 1.0);
    assert!(value("apiserver_watch_events_total", &["resource=\"configmaps\""]) >= 1.0);
    assert!(value("apiserver_longrunning_requests", &["verb=\"WATCH\""]) >= 1.0);
    assert!(value("apiserver_audit_event_total", &[]) >= 2.0);
    assert_eq!(value("apiserver_audit_error_total", &[]), 0.0);
    assert!(value("process_resident_memory_bytes", &[]) > 1e6 && value("process_start_time_seconds", &[]) > 1.7e9);
    assert!(samples.contains_key("apiserver_current_inflight_requests"));
    assert!(
        value("authentication_attempts", &["result=\"success\""]) > 0.0
            && value("authorization_attempts_total", &["result=\"allowed\""]) > 0.0
    );
    assert!(value("apiserver_client_certificate_expiration_seconds", &["_count"]) > 0.0);
    assert_eq!(value("aggregator_unavailable_apiservice", &["name=\"v1.\""]), 0.0);
    // Of the other roles of the process.
    assert!(
        value("workqueue_adds_total", &["name=\"namespace-baseline\""]) >= 1.0
            && value("workqueue_work_duration_seconds", &["_count"]) >= 1.0
    );
    assert!(value("rest_client_requests_total", &["code=\"200\"", "host=\"in-process\"", "method=\"GET\""]) >= 1.0);
    assert!(value("apiserver_flowcontrol_dispatched_requests_total", &["flow_schema=\"exempt\"", "priority_level=\"exempt\""]) > 0.0);
    assert_eq!(value("apiserver_flowcontrol_nominal_limit_seats", &["priority_level=\"workload-low\""]), 245.0);
    let dangling = kubectl.ok(&["get", "flowschemas", "-o", "jsonpath={.items[*].status.conditions[?(@.type==\"Dangling\")].status}"]);
    assert!(dangling.contains("False") && !dangling.contains("True"), "{dangling}");
}

fn health(kubectl: &Kubectl) {
    assert_eq!(kubectl.ok(&["get", "--raw", "/livez"]), "ok");
    for kind in ["livez", "readyz", "healthz"] {
        let all = kubectl.ok(&["get", "--raw", &format!("/{kind}?verbose")]);
        assert!(all.starts_with("[+]ping ok\n") && all.ends_with(&format!("{kind} check passed\n")), "{all}");
        let checks: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("[+]")?.strip_suffix(" ok")).collect();
        assert!(checks.len() >= 3, "{all}");
        for check in checks {
            assert_eq!(kubectl.ok(&["get", "--raw", &format!("/{kind}/{check}")]), "ok");
            let without = kubectl.ok(&["get", "--raw", &format!("/{kind}?verbose&exclude={check}")]);
            assert!(without.contains(&format!("[+]{check} excluded: ok\n")), "{without}");
        }
    }
}

fn limits(kubectl: &Kubectl) {
    let told = kubectl.fails(&["get", "--raw", "/api/v1/pods?timeout=soon"]);
    assert!(told.contains("invalid timeout specified in the request URL"), "{told}");
    kubectl.ok(&["get", "--raw", "/api/v1/pods?timeout=5s"]);
    let late = kubectl.fails(&["get", "--raw", "/api/v1/pods?timeout=1ns"]);
    assert!(late.contains("did not complete within the allotted timeout"), "{late}");
}
