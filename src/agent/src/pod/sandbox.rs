//! Carries a pod's sandbox out: network first, then its files, then the sandbox itself.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use coracle_network::{HostPort, PodRequest};
use coracle_runtime::{NamespaceMode, Resources, SandboxSpec, UserRange};
use k8s_openapi::api::{
    core::v1::{Pod, PodSpec},
    node::v1::RuntimeClass,
};
use kube::Api;

use super::{
    life::{Life, SandboxFacts},
    spec,
};
use crate::{
    container::{
        network_files::{self, ClusterDns, Resolver},
        user_ranges,
    },
    context::{Context, chain},
    resources::limits,
    volume,
};

/// Makes it; the error is for an Event.
pub async fn make(ctx: &Context, pod: &Arc<Pod>, attempt: u32) -> Result<SandboxFacts, String> {
    let id = Life::sandbox_id(spec::uid(pod), attempt);
    let handler = handler(ctx, pod).await?;
    let user_namespace = users(ctx, pod)?;
    let (netns, addresses) = if spec::host_network(pod) {
        (None, ctx.config.node_ips.clone())
    } else {
        let request = PodRequest {
            sandbox: id.clone(),
            namespace: spec::namespace(pod).to_owned(),
            name: spec::name(pod).to_owned(),
            uid: spec::uid(pod).to_owned(),
            host_ports: host_ports(pod),
        };
        let attachment = ctx.network.attach(&request).await.map_err(|e| chain(&e))?;
        (Some(attachment.netns), attachment.addresses)
    };
    let (dir, logs) = (ctx.pod_dir(pod), ctx.log_dir(pod));
    files(ctx, pod, &dir, &logs, &addresses).map_err(|e| format!("cannot write the pod's files in {}: {e}", dir.display()))?;
    let empty = PodSpec::default();
    let spec_ = pod.spec.as_ref().unwrap_or(&empty);
    let own = |host: Option<bool>| if host == Some(true) { NamespaceMode::Host } else { NamespaceMode::Pod };
    let sandbox = SandboxSpec {
        id: id.clone(),
        namespace: spec::namespace(pod).to_owned(),
        name: spec::name(pod).to_owned(),
        uid: spec::uid(pod).to_owned(),
        attempt,
        netns,
        hostname: network_files::hostname(pod, &ctx.config.cluster_domain).0,
        ipc: own(spec_.host_ipc),
        pid: match (spec_.host_pid, spec_.share_process_namespace) {
            (Some(true), _) => NamespaceMode::Host,
            (_, Some(true)) => NamespaceMode::Pod,
            _ => NamespaceMode::Container,
        },
        cgroup: limits::pod_cgroup(&ctx.config.cgroup_root, pod.spec.as_ref(), spec::uid(pod)),
        privileged: spec::parts(pod).iter().any(|p| p.spec.security_context.as_ref().and_then(|s| s.privileged) == Some(true)),
        resources: resources(ctx, spec_),
        sysctls: sysctls(spec_),
        log_directory: logs,
        handler,
        user_namespace,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    ctx.runtime.create_sandbox(&sandbox).await.map_err(|e| chain(&e))?;
    let recursive_read_only = recursive_read_only(ctx, &sandbox.handler);
    Ok(SandboxFacts { id, attempt, addresses, recursive_read_only })
}

fn resources(ctx: &Context, spec: &PodSpec) -> Resources {
    let mut out = limits::of_new_pod(spec, &ctx.allocatable, ctx.config.pod_pids);
    if ctx.config.memory_throttling_factor.is_some() {
        out.unified = limits::memory_protection(spec);
    }
    out
}

/// Whether a handler makes mounts read-only with all that is mounted below. One that nobody speaks of does not.
pub fn recursive_read_only(ctx: &Context, handler: &str) -> bool {
    ctx.runtime.handlers().iter().any(|known| known.name == handler && known.recursive_read_only)
}

/// Takes it away, network last.
pub async fn remove(ctx: &Context, id: &str) -> Result<(), String> {
    ctx.runtime.remove_sandbox(id).await.map_err(|e| chain(&e))?;
    ctx.network.detach(id).await.map_err(|e| chain(&e))
}

/// What the pod's RuntimeClass calls the runtime of its containers.
async fn handler(ctx: &Context, pod: &Pod) -> Result<String, String> {
    let class = pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref()).filter(|name| !name.is_empty());
    let Some(class) = class else { return Ok(String::new()) };
    match Api::<RuntimeClass>::all(ctx.client.clone()).get_opt(class).await {
        Ok(Some(class)) => Ok(class.handler),
        Ok(None) => Err(format!("runtimeclass.node.k8s.io {class:?} not found")),
        Err(error) => Err(format!("failed to lookup RuntimeClass {class}: {}", chain(&error))),
    }
}

/// The users of the node that are the pod's, where it does not have the node's own.
fn users(ctx: &Context, pod: &Pod) -> Result<Option<UserRange>, String> {
    if pod.spec.as_ref().and_then(|s| s.host_users) != Some(false) {
        return Ok(None);
    }
    let pods = volume::pods_dir(&ctx.config.data_dir);
    user_ranges::of_pod(&pods, &ctx.pod_dir(pod)).map(Some).map_err(|error| chain(&error))
}

fn sysctls(spec: &PodSpec) -> BTreeMap<String, String> {
    let list = spec.security_context.as_ref().and_then(|s| s.sysctls.as_deref()).unwrap_or_default();
    list.iter().map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let parts = spec::parts(pod);
    let ports =
        parts.iter().filter(|p| matches!(p.kind, spec::Kind::Main | spec::Kind::Sidecar)).flat_map(|p| p.spec.ports.iter().flatten());
    let ports = ports.filter_map(|p| {
        Some(HostPort {
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            host_ip: p.host_ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            host_port: p.host_port.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)?,
            container_port: u16::try_from(p.container_port).ok()?,
        })
    });
    ports.collect()
}

fn files(ctx: &Context, pod: &Pod, dir: &Path, logs: &Path, addresses: &[IpAddr]) -> io::Result<()> {
    fs::create_dir_all(logs)?;
    fs::create_dir_all(dir)?;
    let config = &ctx.config;
    let hosts = if spec::host_network(pod) {
        network_files::node_hosts(pod, &fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        network_files::hosts(pod, addresses, &config.cluster_domain)
    };
    let of_node = Resolver::parse(&fs::read_to_string(&config.resolv_conf).unwrap_or_default());
    let cluster = ClusterDns { nameservers: &config.cluster_dns, domain: &config.cluster_domain };
    fs::write(dir.join("etc-hosts"), hosts)?;
    fs::write(dir.join("resolv.conf"), network_files::resolver(pod, &of_node, &cluster).text())?;
    let name = if spec::host_network(pod) {
        fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
    } else {
        network_files::hostname(pod, &config.cluster_domain).0 + "\n"
    };
    fs::write(dir.join("hostname"), name)
}
