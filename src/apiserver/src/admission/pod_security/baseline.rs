//! The level baseline: no known way from a container to its host.

use serde_json::Value;

use super::{
    Violation,
    visit::{Pod, containers, distinct, plural, quoted, setters},
};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Types of SELinux, and the release of the standards that first allowed each.
const SELINUX_TYPES: [(&str, u32); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];
/// Kernel parameters of the pod's own namespaces, and the release of the standards that first allowed each.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// What violates the level. `stricter`: the level restricted says more of capabilities, volumes and seccomp itself.
pub fn check(pod: &Pod<'_>, at_least: &dyn Fn(u32) -> bool, stricter: bool) -> Vec<Violation> {
    let own = [
        (!(stricter && at_least(22))).then(|| capabilities(pod)).flatten(),
        (!stricter).then(|| host_paths(pod)).flatten(),
        (!(stricter && at_least(19))).then(|| seccomp(pod, at_least(19))).flatten(),
        at_least(34).then(|| other_hosts(pod)).flatten(),
        (!(at_least(35) && pod.has_own_users())).then(|| proc_mount(pod)).flatten(),
    ];
    let others = [
        app_armor(pod),
        host_namespaces(pod),
        host_ports(pod),
        privileged(pod),
        se_linux(pod, at_least),
        sysctls(pod, at_least),
        windows(pod),
    ];
    own.into_iter().chain(others).flatten().collect()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let bad =
        |holder: &Value| holder["appArmorProfile"]["type"].as_str().is_some_and(|kind| !matches!(kind, "RuntimeDefault" | "Localhost"));
    let names = pod.named(|container| bad(&container["securityContext"]));
    let fields = (bad(pod.context()) || !names.is_empty())
        .then(|| format!("{} must not set AppArmor profile type to \"Unconfined\"", setters(bad(pod.context()), &names)));
    let allowed = |value: &str| matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
    let annotations: Vec<String> = pod
        .annotations
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with(APPARMOR) && !allowed(value.as_str().unwrap_or_default()))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let annotated = (!annotations.is_empty()).then(|| format!("{} {}", plural("annotation", annotations.len()), annotations.join(", ")));
    let details: Vec<String> = [fields, annotated].into_iter().flatten().collect();
    (!details.is_empty()).then(|| Violation::new("forbidden AppArmor profile", details.join("; ")))
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let added = |container: &'_ Value| -> Vec<String> {
        let list = &container["securityContext"]["capabilities"]["add"];
        texts(list).filter(|c| !CAPABILITIES.contains(c)).map(str::to_owned).collect()
    };
    let names = pod.named(|container| !added(container).is_empty());
    let all: Vec<String> = pod.containers().flat_map(added).collect();
    (!names.is_empty()).then(|| {
        let what = quoted(&distinct(all.iter().map(String::as_str)));
        Violation::new(
            "non-default capabilities",
            format!("{} must not include {what} in securityContext.capabilities.add", containers(&names)),
        )
    })
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| Violation::new("host namespaces", set.join(", ")))
}

fn host_paths(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let names: Vec<&str> =
        volumes.filter(|volume| !volume["hostPath"].is_null()).map(|volume| volume["name"].as_str().unwrap_or_default()).collect();
    (!names.is_empty()).then(|| Violation::new("hostPath volumes", format!("{} {}", plural("volume", names.len()), quoted(&names))))
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<i64> {
        let list = container["ports"].as_array().into_iter().flatten();
        list.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect()
    };
    let names = pod.named(|container| !ports(container).is_empty());
    let used: std::collections::BTreeSet<i64> = pod.containers().flat_map(ports).collect();
    (!names.is_empty()).then(|| {
        let numbers: Vec<String> = used.iter().map(i64::to_string).collect();
        let verb = if names.len() == 1 { "uses" } else { "use" };
        Violation::new("hostPort", format!("{} {verb} {} {}", containers(&names), plural("hostPort", numbers.len()), numbers.join(", ")))
    })
}

/// A probe or hook that asks another host makes the node's agent a tool for that.
fn other_hosts(pod: &Pod<'_>) -> Option<Violation> {
    let hosts = |container: &Value| -> Vec<String> {
        let (probes, hooks) = (["livenessProbe", "readinessProbe", "startupProbe"], ["postStart", "preStop"]);
        let handlers = probes.iter().map(|name| &container[*name]).chain(hooks.iter().map(|name| &container["lifecycle"][*name]));
        let asked = handlers.flat_map(|handler| [&handler["httpGet"]["host"], &handler["tcpSocket"]["host"]]);
        asked.filter_map(Value::as_str).filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let names = pod.named(|container| !hosts(container).is_empty());
    let all: Vec<String> = pod.containers().flat_map(hosts).collect();
    (!names.is_empty()).then(|| {
        let hosts = distinct(all.iter().map(String::as_str));
        let verb = if names.len() == 1 { "uses" } else { "use" };
        let what = plural("probe or lifecycle host", hosts.len());
        Violation::new("probe or lifecycle host", format!("{} {verb} {what} {}", containers(&names), quoted(&hosts)))
    })
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| container["securityContext"]["privileged"] == true);
    (!names.is_empty())
        .then(|| Violation::new("privileged", format!("{} must not set securityContext.privileged=true", containers(&names))))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let kind = |container: &Value| container["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default").map(str::to_owned);
    let names = pod.named(|container| kind(container).is_some());
    let kinds: Vec<String> = pod.containers().filter_map(kind).collect();
    (!names.is_empty()).then(|| {
        let what = quoted(&distinct(kinds.iter().map(String::as_str)));
        Violation::new("procMount", format!("{} must not set securityContext.procMount to {what}", containers(&names)))
    })
}

fn se_linux(pod: &Pod<'_>, at_least: &dyn Fn(u32) -> bool) -> Option<Violation> {
    let allowed = |kind: &str| SELINUX_TYPES.iter().any(|(known, since)| *known == kind && at_least(*since));
    let set = |options: &Value, field: &str| options[field].as_str().is_some_and(|text| !text.is_empty());
    let bad = |holder: &Value| {
        let options = &holder["seLinuxOptions"];
        !allowed(options["type"].as_str().unwrap_or_default()) || set(options, "user") || set(options, "role")
    };
    let names = pod.named(|container| bad(&container["securityContext"]));
    if !bad(pod.context()) && names.is_empty() {
        return None;
    }
    let all: Vec<&Value> = std::iter::once(pod.context()).chain(pod.containers().map(|c| &c["securityContext"])).collect();
    let kinds = distinct(all.iter().filter_map(|holder| holder["seLinuxOptions"]["type"].as_str()).filter(|kind| !allowed(kind)));
    let mut what = Vec::new();
    if !kinds.is_empty() {
        what.push(format!("{} {}", plural("type", kinds.len()), quoted(&kinds)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|holder| set(&holder["seLinuxOptions"], field)) {
            what.push(format!("{field} may not be set"));
        }
    }
    let who = setters(bad(pod.context()), &names);
    Some(Violation::new("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "))))
}

fn seccomp(pod: &Pod<'_>, by_field: bool) -> Option<Violation> {
    if by_field {
        let bad = |holder: &Value| holder["seccompProfile"]["type"] == "Unconfined";
        let names = pod.named(|container| bad(&container["securityContext"]));
        return (bad(pod.context()) || !names.is_empty()).then(|| {
            let who = setters(bad(pod.context()), &names);
            Violation::new("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to \"Unconfined\""))
        });
    }
    // Before there was a field, annotations said it.
    let allowed = |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let bad: Vec<String> = pod
        .annotations
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| (*key == SECCOMP || key.starts_with(SECCOMP_OF_CONTAINER)) && !allowed(value.as_str().unwrap_or_default()))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!bad.is_empty()).then(|| Violation::new("seccompProfile", format!("forbidden {} {}", plural("annotation", bad.len()), bad.join(", "))))
}

fn sysctls(pod: &Pod<'_>, at_least: &dyn Fn(u32) -> bool) -> Option<Violation> {
    let names = pod.context()["sysctls"].as_array().into_iter().flatten().filter_map(|sysctl| sysctl["name"].as_str());
    let bad: Vec<&str> = names.filter(|name| !SYSCTLS.iter().any(|(known, since)| known == name && at_least(*since))).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn windows(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |holder: &Value| holder["windowsOptions"]["hostProcess"] == true;
    let names = pod.named(|container| bad(&container["securityContext"]));
    (bad(pod.context()) || !names.is_empty()).then(|| {
        let who = setters(bad(pod.context()), &names);
        Violation::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
    })
}
