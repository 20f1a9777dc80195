//! Warnings: what a write may do, but should not. They travel in `Warning` headers and refuse nothing.

mod addresses;
mod formats;
mod pod;
mod selectors;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use serde_json::Value;

use super::field::Field;
use super::rules;
use crate::catalogue::Resource;
use crate::names;
use crate::status::Cause;
use addresses::{cidr, ip};

/// More completions of an indexed Job than this can be tracked only while few run at once.
const MANY_COMPLETIONS: i64 = 100_000;
/// Pods of an indexed Job with [`MANY_COMPLETIONS`] that run at once.
const MANY_PARALLEL: i64 = 10_000;
/// Annotations of volumes and claims that a field has replaced.
const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// A kind that goes: every request that names it is told, whatever it asks.
pub fn deprecation(resource: &Resource) -> Option<&'static str> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        _ if resource.custom => None,
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// What to tell the author of a new object that is valid.
pub fn create(resource: &Resource, object: &Value) -> Vec<String> {
    texts(object, |object| {
        if named_after_pods(resource) {
            name(object, resource.plural == "pods");
        }
        content(resource, object, None);
    })
}

/// What to tell the author of a valid change; `subresource` is empty for the main resource.
pub fn update(resource: &Resource, new: &Value, old: &Value, subresource: &str) -> Vec<String> {
    texts(new, |object| match (resource.plural.as_str(), subresource) {
        ("pods", "status") => {
            let status = object.at("status");
            for list in ["podIPs", "hostIPs"] {
                status.at(list).each(|_, address| ip(&address.at("ip")));
            }
        }
        ("services" | "ingresses", "status") => {
            let (status, place) = (object.at("status"), "loadBalancer");
            let balancer = status.at(place);
            balancer.at("ingress").each(|_, point| ip(&point.holding(&point.value()["ip"])));
        }
        // People seldom write pods by hand, and they are written often.
        ("pods", _) => {}
        (_, "") => content(resource, object, Some(old)),
        _ => {}
    })
}

fn texts(object: &Value, look: impl FnOnce(&Field<'_>)) -> Vec<String> {
    let found = RefCell::default();
    look(&Field::root(object, &found));
    let text = |Cause { field, message, .. }: Cause| if field.is_empty() { message } else { format!("{field}: {message}") };
    found.into_inner().into_iter().map(text).collect()
}

/// Kinds whose name becomes part of the names of pods.
fn named_after_pods(resource: &Resource) -> bool {
    let plural = resource.plural.as_str();
    match resource.group.as_str() {
        "" => matches!(plural, "pods" | "replicationcontrollers"),
        "apps" => matches!(plural, "deployments" | "replicasets"),
        "batch" => matches!(plural, "jobs" | "cronjobs"),
        _ => false,
    }
}

fn name(object: &Field<'_>, of_pod: bool) {
    let metadata = object.at("metadata");
    let name = metadata.at("name");
    if let Err(why) = names::dns_label(name.text()) {
        let used = if of_pod { "is the hostname of the pod" } else { "becomes part of the names and hostnames of pods" };
        name.warn(format!("this {used}, which may surprise; better is a DNS label: {why}"));
    }
}

/// Rules that hold for new objects and for changes alike.
fn content(resource: &Resource, object: &Field<'_>, old: Option<&Value>) {
    if resource.custom {
        return;
    }
    let (spec, metadata) = (object.at("spec"), object.at("metadata"));
    // A template that is as it was has been warned of before.
    let changed = old.is_none_or(|old| old["metadata"]["generation"] != object.value()["metadata"]["generation"]);
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => pod::check(object, false),
        ("", "podtemplates") if changed => pod::check(&object.at("template"), true),
        ("", "replicationcontrollers") | ("apps", "deployments" | "replicasets" | "daemonsets") if changed => {
            pod::check(&spec.at("template"), true);
        }
        ("apps", "statefulsets") => {
            if changed {
                pod::check(&spec.at("template"), true);
            }
            spec.at("volumeClaimTemplates").each(|_, claim| claim_spec(&claim.at("spec")));
            let history = spec.at("revisionHistoryLimit");
            if history.number() < 0 {
                history.warn("a negative number keeps all revisions; 0 or more is better");
            }
        }
        ("batch", "jobs") if changed => job(&spec),
        ("batch", "cronjobs") => {
            let template = spec.at("jobTemplate");
            if changed {
                job(&template.at("spec"));
            }
            if old.is_some() && spec.at("schedule").text().contains("TZ") {
                spec.at("schedule").warn("TZ and CRON_TZ are not understood here; use timeZone");
            }
        }
        ("", "services") => service(object),
        ("", "endpoints") => {
            let labels = metadata.at("labels");
            // The controller writes addresses in their canonical form.
            if labels.key("endpoints.kubernetes.io/managed-by").text() != "endpoint-controller" {
                object.at("subsets").each(|_, subset| {
                    for list in ["addresses", "notReadyAddresses"] {
                        subset.at(list).each(|_, address| ip(&address.at("ip")));
                    }
                });
            }
        }
        ("", "nodes") => {
            if spec.at("configSource").exists() {
                spec.at("configSource").warn("the feature is removed");
            }
            if !spec.at("externalID").is_empty() {
                spec.at("externalID").warn("deprecated; nothing uses it");
            }
            spec.at("podCIDRs").each(|_, range| cidr(&range));
        }
        ("", "persistentvolumes") => persistent_volume(object),
        ("", "persistentvolumeclaims") => {
            replaced_annotation(&metadata, STORAGE_CLASS, r#"deprecated since v1.8; use the field "storageClassName""#);
            claim_spec(&spec);
        }
        ("", "serviceaccounts") => {
            const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
            if old.is_none_or(|old| old["metadata"]["annotations"][ENFORCE].is_null()) {
                replaced_annotation(&metadata, ENFORCE, "deprecated in v1.32+; keep apart with namespaces who may mount which Secret");
            }
        }
        ("discovery.k8s.io", "endpointslices") if old.is_none() && object.at("addressType").text() == "FQDN" => {
            object.at("addressType").warn("FQDN is deprecated: nothing of Kubernetes reads such addresses");
        }
        ("networking.k8s.io", "networkpolicies") => {
            for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
                spec.at(rules).each(|_, rule| {
                    rule.at(peers).each(|_, peer| {
                        let block = peer.at("ipBlock");
                        cidr(&block.at("cidr"));
                        block.at("except").each(|_, range| cidr(&range));
                    });
                });
            }
        }
        ("networking.k8s.io", "ingresses") if old.is_none() && !spec.at("ingressClassName").exists() => {
            replaced_annotation(&metadata, "kubernetes.io/ingress.class", "deprecated; use spec.ingressClassName");
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => formats::check(object, old),
        ("node.k8s.io", "runtimeclasses") => {
            let scheduling = object.at("scheduling");
            selectors::labels(&scheduling.at("nodeSelector"));
        }
        ("storage.k8s.io", "storageclasses") => object.at("allowedTopologies").each(|_, topology| {
            topology.at("matchLabelExpressions").each(|_, expression| selectors::key(&expression.at("key")));
        }),
        ("storage.k8s.io", "csistoragecapacities") => selectors::label_selector(&object.at("nodeTopology")),
        ("storage.k8s.io", "csidrivers") => {
            let tokens = spec.at("tokenRequests");
            let news = old.is_none_or(|old| &old["spec"]["tokenRequests"] != tokens.value());
            if news && !tokens.is_empty() && !spec.at("serviceAccountTokenInSecrets").exists() {
                spec.at("serviceAccountTokenInSecrets")
                    .warn("should be set to true where tokenRequests are, so that tokens travel as secrets");
            }
        }
        ("resource.k8s.io", "resourceslices") => {
            let driver = spec.at("driver");
            let before = old.map(|old| old["spec"]["driver"].as_str().unwrap_or_default());
            if driver.text().chars().any(char::is_uppercase) && before != Some(driver.text()) {
                driver.warn("names of drivers should be in lower case");
            }
        }
        ("admissionregistration.k8s.io", _) => {
            let name = metadata.at("name");
            if name.text().ends_with(".static.k8s.io") {
                name.warn("names with this end are for configurations from files, which the API does not change");
            }
        }
        _ => {}
    }
}

fn replaced_annotation(metadata: &Field<'_>, name: &str, instead: &str) {
    let annotations = metadata.at("annotations");
    if annotations.value().get(name).is_some() {
        annotations.key(name).warn(instead);
    }
}

fn job(spec: &Field<'_>) {
    let indexed = spec.at("completionMode").text() == "Indexed";
    if indexed && spec.at("completions").number() > MANY_COMPLETIONS && spec.at("parallelism").number() > MANY_PARALLEL {
        spec.warn("with so many completions and so many pods at once, the completed indexes cannot be tracked when many of them fail");
    }
    pod::check(&spec.at("template"), true);
}

fn service(service: &Field<'_>) {
    let (spec, metadata) = (service.at("spec"), service.at("metadata"));
    replaced_annotation(
        &metadata,
        "service.kubernetes.io/topology-aware-hints",
        "deprecated; use the annotation service.kubernetes.io/topology-mode",
    );
    let kind = spec.at("type");
    let headless = kind.text() == "ClusterIP" && spec.at("clusterIP").text() == "None";
    let external = kind.text() == "ExternalName";
    let given = spec.at("externalIPs");
    if !headless && !external {
        spec.at("clusterIPs").each(|_, address| ip(&address));
    }
    if headless {
        for field in ["loadBalancerIP", "externalIPs"] {
            if !spec.at(field).is_empty() {
                spec.at(field).warn("ignored for a headless Service");
            }
        }
        if !matches!(spec.at("sessionAffinity").text(), "" | "None") {
            spec.at("sessionAffinity").warn("ignored for a headless Service");
        }
    }
    given.each(|_, address| ip(&address));
    if !given.is_empty() && external {
        given.warn("ignored when spec.type is ExternalName");
    } else if !given.is_empty() && !headless {
        given.warn("deprecated; not every cluster implements it");
    }
    ip(&spec.at("loadBalancerIP"));
    spec.at("loadBalancerSourceRanges").each(|_, range| cidr(&range));
    if !external && !spec.at("externalName").is_empty() {
        spec.at("externalName").warn("ignored when spec.type is not ExternalName");
    }
    if spec.at("trafficDistribution").text() == "PreferClose" {
        spec.at("trafficDistribution").warn(r#""PreferClose" is deprecated; use "PreferSameZone""#);
    }
}

fn persistent_volume(volume: &Field<'_>) {
    let (spec, metadata) = (volume.at("spec"), volume.at("metadata"));
    replaced_annotation(&metadata, STORAGE_CLASS, r#"deprecated since v1.8; use the field "storageClassName""#);
    replaced_annotation(&metadata, MOUNT_OPTIONS, r#"deprecated since v1.31; use the field "mountOptions""#);
    if spec.at("persistentVolumeReclaimPolicy").text() == "Recycle" {
        spec.at("persistentVolumeReclaimPolicy").warn("Recycle is deprecated; provision volumes dynamically");
    }
    let affinity = spec.at("nodeAffinity");
    let required = affinity.at("required");
    required.at("nodeSelectorTerms").each(|_, term| selectors::expressions(&term));
    pod::volume_source(&spec);
}

/// Of a claim, or of the template of one.
fn claim_spec(spec: &Field<'_>) {
    let resources = spec.at("resources");
    for amounts in ["requests", "limits"] {
        let amounts = resources.at(amounts);
        whole_bytes(&amounts.key("storage"));
    }
}

/// Bytes cannot be parted.
fn whole_bytes(amount: &Field<'_>) {
    if amount.exists() && rules::quantity(amount).millis() % 1000 != 0 {
        amount.warn(format!("a fraction of a byte ({}) is no valid amount: it must be whole", amount.text()));
    }
}
