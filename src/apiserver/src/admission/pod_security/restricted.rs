//! The level restricted: what baseline leaves open, and good practice that must be stated.

use serde_json::Value;

use super::{
    Violation,
    visit::{Pod, containers, distinct, plural, quoted, setters},
};

/// Volumes that bring nothing of the node into the pod.
const VOLUMES: [&str; 9] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"];

/// What violates the level beyond baseline.
pub fn check(pod: &Pod<'_>, at_least: &dyn Fn(u32) -> bool) -> Vec<Violation> {
    let exempt = at_least(25) && pod.is_for_windows();
    let as_nobody = at_least(35) && pod.has_own_users();
    let found = [
        (at_least(8) && !exempt).then(|| escalation(pod)).flatten(),
        (at_least(22) && !exempt).then(|| capabilities(pod)).flatten(),
        at_least(35).then(|| proc_mount(pod)).flatten(),
        volumes(pod),
        (!as_nobody).then(|| non_root(pod)).flatten(),
        (at_least(23) && !as_nobody).then(|| user(pod)).flatten(),
        (at_least(19) && !exempt).then(|| seccomp(pod)).flatten(),
    ];
    found.into_iter().flatten().collect()
}

fn escalation(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    (!names.is_empty()).then(|| {
        let why = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
        Violation::new("allowPrivilegeEscalation != false", why)
    })
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let list = |container: &Value, which: &str| -> Vec<String> {
        let list = container["securityContext"]["capabilities"][which].as_array().into_iter().flatten();
        list.filter_map(|c| c.as_str().map(str::to_owned)).collect()
    };
    let added = |container: &Value| -> Vec<String> { list(container, "add").into_iter().filter(|c| c != "NET_BIND_SERVICE").collect() };
    let keeping = pod.named(|container| !list(container, "drop").iter().any(|c| c == "ALL"));
    let adding = pod.named(|container| !added(container).is_empty());
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        let all: Vec<String> = pod.containers().flat_map(added).collect();
        let what = quoted(&distinct(all.iter().map(String::as_str)));
        details.push(format!("{} must not include {what} in securityContext.capabilities.add", containers(&adding)));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

/// With a user namespace of its own, baseline lets a pod see all of /proc.
fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| {
        let kind = &container["securityContext"]["procMount"];
        kind.is_string() && kind != "Default"
    });
    // Without one, baseline has refused it already.
    (pod.has_own_users() && !names.is_empty())
        .then(|| Violation::new("procMount", format!("{} must not set securityContext.procMount to \"Unmasked\"", containers(&names))))
}

fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), Vec::new());
    for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
        let source = volume.as_object().into_iter().flatten().find(|(key, value)| *key != "name" && !value.is_null());
        let kind = source.map_or("unknown", |(key, _)| key.as_str());
        if !VOLUMES.contains(&kind) {
            names.push(volume["name"].as_str().unwrap_or_default());
            kinds.push(kind);
        }
    }
    (!names.is_empty()).then(|| {
        let kinds = distinct(kinds);
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let (what, type_) = (plural("volume", names.len()), plural("restricted volume type", kinds.len()));
        Violation::new("restricted volume types", format!("{what} {} {verb} {type_} {}", quoted(&names), quoted(&kinds)))
    })
}

fn non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let own = &pod.context()["runAsNonRoot"];
    let explicit = pod.named(|container| container["securityContext"]["runAsNonRoot"] == false);
    if own == false || !explicit.is_empty() {
        let who = setters(own == false, &explicit);
        return Some(Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false")));
    }
    let silent = pod.named(|container| container["securityContext"]["runAsNonRoot"].is_null());
    (own != true && !silent.is_empty())
        .then(|| Violation::new(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent))))
}

fn user(pod: &Pod<'_>) -> Option<Violation> {
    let root = |holder: &Value| holder["runAsUser"] == 0;
    let names = pod.named(|container| root(&container["securityContext"]));
    (root(pod.context()) || !names.is_empty())
        .then(|| Violation::new("runAsUser=0", format!("{} must not set runAsUser=0", setters(root(pod.context()), &names))))
}

fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "seccompProfile";
    let kind = |holder: &Value| holder["seccompProfile"]["type"].as_str().map(str::to_owned);
    let bad = |holder: &Value| kind(holder).is_some_and(|kind| !matches!(kind.as_str(), "RuntimeDefault" | "Localhost"));
    let names = pod.named(|container| bad(&container["securityContext"]));
    if bad(pod.context()) || !names.is_empty() {
        let holders = std::iter::once(pod.context()).chain(pod.containers().map(|c| &c["securityContext"]));
        let kinds: Vec<String> = holders.filter(|holder| bad(holder)).filter_map(kind).collect();
        let what = quoted(&distinct(kinds.iter().map(String::as_str)));
        let who = setters(bad(pod.context()), &names);
        return Some(Violation::new(REASON, format!("{who} must not set securityContext.seccompProfile.type to {what}")));
    }
    let silent = pod.named(|container| kind(&container["securityContext"]).is_none());
    (kind(pod.context()).is_none() && !silent.is_empty()).then(|| {
        let who = containers(&silent);
        Violation::new(REASON, format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""))
    })
}
