//! Pods and pod templates: fields of old, doubled entries, what selects nothing.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::super::field::Field;
use super::{addresses::ip, claim_spec, selectors, whole_bytes};

/// Annotations that do nothing any more, and the field in their place.
const DEAD_ANNOTATIONS: [(&str, &str); 3] = [
    ("scheduler.alpha.kubernetes.io/critical-pod", r#"without effect since v1.16; use the field "priorityClassName""#),
    ("security.alpha.kubernetes.io/sysctls", r#"without effect since v1.11; use the field "sysctls""#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"without effect since v1.11; use the field "sysctls""#),
];
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_OF_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Kinds of volumes that go or are gone.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, without effect since v1.16"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, without effect since v1.22"),
    ("flocker", "deprecated in v1.22, without effect since v1.25"),
    ("storageos", "deprecated in v1.22, without effect since v1.25"),
    ("quobyte", "deprecated in v1.22, without effect since v1.25"),
    ("glusterfs", "deprecated in v1.25, without effect since v1.26"),
    ("cephfs", "deprecated in v1.28, without effect since v1.31"),
    ("rbd", "deprecated in v1.28, without effect since v1.31"),
];
/// Lists of containers, in the order in which they start.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A pod, or a template of pods.
pub(super) fn check(pod: &Field<'_>, is_template: bool) {
    let spec = pod.at("spec");
    if !spec.exists() {
        return;
    }
    let metadata = pod.at("metadata");
    placement(&spec);
    annotations(&metadata.at("annotations"), &spec, is_template);
    volumes(&spec.at("volumes"));
    doubled(&spec.at("hostAliases"), "ip");
    doubled(&spec.at("imagePullSecrets"), "name");
    spec.at("imagePullSecrets").each(|_, secret| {
        if secret.at("name").is_empty() {
            secret.at("name").warn("an empty name names no Secret");
        }
    });
    let overhead = spec.at("overhead");
    for amount in ["memory", "ephemeral-storage"] {
        whole_bytes(&overhead.key(amount));
    }
    for list in CONTAINERS {
        spec.at(list).each(|_, container| self::container(&container));
    }
    ports(&spec);
    let grace = spec.at("terminationGracePeriodSeconds");
    if grace.number() < 0 {
        grace.warn("must not be negative; taken as 1");
    }
    let dns = spec.at("dnsConfig");
    dns.at("nameservers").each(|_, server| ip(&server));
    spec.at("hostAliases").each(|_, alias| ip(&alias.at("ip")));
}

fn placement(spec: &Field<'_>) {
    selectors::labels(&spec.at("nodeSelector"));
    let affinity = spec.at("affinity");
    let nodes = affinity.at("nodeAffinity");
    let required = nodes.at("requiredDuringSchedulingIgnoredDuringExecution");
    required.at("nodeSelectorTerms").each(|_, term| selectors::node_term(&term));
    nodes.at("preferredDuringSchedulingIgnoredDuringExecution").each(|_, preferred| selectors::node_term(&preferred.at("preference")));
    spec.at("topologySpreadConstraints").each(|_, constraint| {
        selectors::key(&constraint.at("topologyKey"));
        selects_something(&constraint);
    });
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.at(kind);
        pods.at("requiredDuringSchedulingIgnoredDuringExecution").each(|_, term| selects_something(&term));
        pods.at("preferredDuringSchedulingIgnoredDuringExecution").each(|_, preferred| selects_something(&preferred.at("podAffinityTerm")));
    }
}

fn selects_something(term: &Field<'_>) {
    if !term.at("labelSelector").exists() {
        term.at("labelSelector").warn("without a selector no pod matches");
    }
}

fn annotations(annotations: &Field<'_>, spec: &Field<'_>, is_template: bool) {
    let Value::Object(given) = annotations.value() else { return };
    for (name, instead) in DEAD_ANNOTATIONS {
        if given.contains_key(name) {
            annotations.key(name).warn(instead);
        }
    }
    let context = &spec.value()["securityContext"];
    if context["seccompProfile"].is_null() && given.contains_key(SECCOMP_OF_POD) {
        annotations.key(SECCOMP_OF_POD).warn(r#"without effect since v1.27; use the field "seccompProfile""#);
    }
    for container in CONTAINERS.iter().flat_map(|list| spec.value()[*list].as_array().into_iter().flatten()) {
        let name = container["name"].as_str().unwrap_or_default();
        let own = &container["securityContext"];
        let seccomp = format!("{SECCOMP_OF_CONTAINER}{name}");
        if own["seccompProfile"].is_null() && given.contains_key(&seccomp) {
            annotations.key(&seccomp).warn(r#"without effect since v1.27; use the field "seccompProfile""#);
        }
        let apparmor = format!("{APPARMOR_OF_CONTAINER}{name}");
        let has_field = !own["appArmorProfile"].is_null() || (is_template && !context["appArmorProfile"].is_null());
        if !has_field && given.contains_key(&apparmor) {
            annotations.key(&apparmor).warn(r#"deprecated since v1.30; use the field "appArmorProfile""#);
        }
    }
}

fn volumes(volumes: &Field<'_>) {
    let mut tokens: HashSet<&str> = HashSet::new();
    for source in volumes.list().iter().flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten()) {
        tokens.extend(source["serviceAccountToken"]["path"].as_str());
    }
    volumes.each(|_, volume| {
        volume_source(&volume);
        let ephemeral = volume.at("ephemeral");
        let template = ephemeral.at("volumeClaimTemplate");
        claim_spec(&template.at("spec"));
        for kind in ["configMap", "secret", "downwardAPI"] {
            overlapping(&volume, &paths(&volume.value()[kind]));
        }
        let projected = volume.at("projected");
        let sources = projected.at("sources");
        overlapping(&volume, &sources.list().iter().flat_map(projected_paths).collect::<Vec<_>>());
        sources.each(|_, source| {
            if source.is_empty() {
                // Told once, however many are empty.
                projected.warn("a source projects nothing");
            }
            for kind in ["configMap", "secret", "downwardAPI"] {
                let files = source.at(kind);
                files.at("items").each(|_, item| hidden(&item.at("path"), &tokens));
            }
            let bundle = source.at("clusterTrustBundle");
            hidden(&bundle.at("path"), &tokens);
        });
    });
}

/// Files of a volume's source that are named one by one.
fn paths(source: &Value) -> Vec<&str> {
    source["items"].as_array().into_iter().flatten().filter_map(|item| item["path"].as_str()).collect()
}

fn projected_paths(source: &Value) -> Vec<&str> {
    let mut out: Vec<&str> = ["configMap", "secret", "downwardAPI"].iter().flat_map(|kind| paths(&source[*kind])).collect();
    out.extend(["serviceAccountToken", "clusterTrustBundle"].iter().filter_map(|kind| source[*kind]["path"].as_str()));
    let certificate = &source["podCertificate"];
    let names = ["certificateChainPath", "keyPath", "credentialBundlePath"];
    out.extend(names.iter().filter_map(|name| certificate[*name].as_str()).filter(|path| !path.is_empty()));
    out
}

/// Two files at one path, or one where the directory of another is.
fn overlapping(volume: &Field<'_>, paths: &[&str]) {
    let inside = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let paths: Vec<&str> = paths.iter().map(|path| path.trim_end_matches('/')).collect();
    for (i, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        for other in paths[..i].iter().filter(|other| !other.is_empty() && (inside(path, other) || inside(other, path))) {
            volume.warn(format!("overlapping paths: {path:?} with {other:?}"));
        }
    }
}

fn hidden(path: &Field<'_>, tokens: &HashSet<&str>) {
    if tokens.contains(path.text()) && path.exists() {
        path.warn("the token of the ServiceAccount has the same path");
    }
}

/// What is old about a volume's source.
pub(super) fn volume_source(volume: &Field<'_>) {
    for (kind, why) in OLD_VOLUMES {
        if volume.at(kind).exists() {
            volume.at(kind).warn(why);
        }
    }
}

/// Entries of a list that name the same thing.
fn doubled(list: &Field<'_>, name: &str) {
    let mut seen = HashSet::new();
    list.each(|_, entry| {
        if !seen.insert(entry.at(name).text().to_owned()) {
            entry.at(name).warn(format!("{:?} is in the list before", entry.at(name).text()));
        }
    });
}

fn container(container: &Field<'_>) {
    let resources = container.at("resources");
    for amounts in ["limits", "requests"] {
        let amounts = resources.at(amounts);
        for amount in ["memory", "ephemeral-storage"] {
            whole_bytes(&amounts.key(amount));
        }
    }
    let mut seen = HashSet::new();
    container.at("env").each(|_, variable| {
        let name = variable.at("name").text();
        if seen.insert(name.to_owned()) {
            return;
        }
        // A second definition that extends the first is what people mean: X=a, X=$(X)b.
        let first = format!("$({name})");
        let value = variable.at("value").text();
        if variable.at("valueFrom").exists() || value == first || !value.contains(&first) {
            variable.warn(format!("hides the definition of {name:?} before it, which apply may drop"));
        }
    });
}

/// A container's port as others see it.
struct Port {
    place: String,
    host_ip: String,
    host_port: i64,
}

/// Ports of all containers: they share the pod's address.
fn ports(spec: &Field<'_>) {
    let mut known: HashMap<(i64, String), Vec<Port>> = HashMap::new();
    let mut names: HashMap<String, String> = HashMap::new();
    for list in CONTAINERS {
        spec.at(list).each(|_, container| {
            container.at("ports").each(|_, port| {
                let here =
                    Port { place: port.path(), host_ip: port.at("hostIP").text().to_owned(), host_port: port.at("hostPort").number() };
                if !here.host_ip.is_empty() && here.host_port == 0 {
                    port.warn("hostIP without hostPort");
                }
                let others = known.entry((port.at("containerPort").number(), port.at("protocol").text().to_owned())).or_default();
                for other in others.iter() {
                    if let Some(how) = clash(&here, other) {
                        port.warn(format!("{how} port definition with {}", other.place));
                    }
                }
                let name = port.at("name");
                if !name.is_empty() {
                    match names.get(name.text()) {
                        Some(other) => port.warn(format!(
                            "duplicate port name {:?} with {other}: Services and probes that name it mean {other}",
                            name.text()
                        )),
                        None => drop(names.insert(name.text().to_owned(), here.place.clone())),
                    }
                }
                others.push(here);
            });
        });
    }
}

fn clash(a: &Port, b: &Port) -> Option<&'static str> {
    if a.host_ip == b.host_ip && a.host_port == b.host_port {
        Some("duplicate")
    } else if a.host_port == 0 || b.host_port == 0 {
        Some("overlapping")
    } else if a.host_port == b.host_port && a.host_ip.is_empty() != b.host_ip.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}
