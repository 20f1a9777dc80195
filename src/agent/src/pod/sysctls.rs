//! Kernel parameters of a pod: which are its own, which of them it may set. Pure.

use k8s_openapi::api::core::v1::PodSpec;

/// Those that harm nobody else: upstream's list.
const SAFE: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// What a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Network,
}

fn namespace(name: &str) -> Option<Namespace> {
    let ipc = name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix));
    if ipc {
        return Some(Namespace::Ipc);
    }
    name.starts_with("net.").then_some(Namespace::Network)
}

/// Whether a pattern of parameters (with `*` at its end, or one name) is of such only as a pod can have of its own: any other would be the
/// machine's.
pub fn is_of_pods(pattern: &str) -> bool {
    namespace(pattern.strip_suffix('*').unwrap_or(pattern)).is_some()
}

/// Why a pod may not set what it asks for. `allowed` are patterns beside the safe ones.
pub fn refuse(spec: &PodSpec, allowed: &[String]) -> Option<String> {
    let asked = spec.security_context.as_ref()?.sysctls.as_deref()?;
    let fits = |pattern: &String, name: &str| pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix));
    asked.iter().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        if !SAFE.contains(&name.as_str()) && !allowed.iter().any(|pattern| fits(pattern, &name)) {
            return Some(format!("forbidden sysctl: {:?} is not on the list of allowed ones", sysctl.name));
        }
        let shared = match namespace(&name)? {
            Namespace::Ipc => (spec.host_ipc == Some(true)).then_some("host ipc"),
            Namespace::Network => (spec.host_network == Some(true)).then_some("host net"),
        };
        shared.map(|what| format!("forbidden sysctl: {:?} not allowed with {what} enabled", sysctl.name))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_sets_what_is_its_own_and_safe_or_allowed() {
        let check = |name: &str, host: &str, allowed: &[&str], good: bool| {
            let mut spec = json!({ "containers": [], "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
            spec[host] = json!(true);
            let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
            let allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
            let got = refuse(&spec, &allowed);
            assert_eq!(got.is_none(), good, "{name} {host} {allowed:?}: {got:?}");
        };
        check("net.ipv4.tcp_rmem", "hostPID", &[], true);
        check("net/ipv4/tcp_rmem", "hostPID", &[], true);
        check("net.ipv4.tcp_rmem", "hostNetwork", &[], false);
        check("kernel.shm_rmid_forced", "hostIPC", &[], false);
        check("kernel.msgmax", "hostPID", &[], false);
        check("kernel.msgmax", "hostPID", &["kernel.msg*"], true);
        check("kernel.msgmax", "hostIPC", &["kernel.msg*"], false);
        check("net.core.somaxconn", "hostPID", &["net.core.somaxconn"], true);
        check("net.core.somaxconn2", "hostPID", &["net.core.somaxconn"], false);
    }

    #[test]
    fn what_is_the_machines_is_nobodys_to_allow() {
        for pattern in ["kernel.shm*", "kernel.msgmax", "kernel.sem", "fs.mqueue.*", "net.*", "net.core.somaxconn"] {
            assert!(is_of_pods(pattern), "{pattern}");
        }
        for pattern in ["*", "kernel.*", "kernel.semaphore", "vm.swappiness", "fs.*", "net", ""] {
            assert!(!is_of_pods(pattern), "{pattern}");
        }
    }
}
