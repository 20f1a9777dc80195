//! The node's roles: dataplane, container runtime, node agent, DNS.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use coracle_agent::Agent;
use coracle_client::Informers;
use coracle_network::{Dataplane, PodNetwork};
use coracle_pki::{authority::Authority, renewal::Renewing, verifier};
use coracle_runtime::{PodRuntime, embedded};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::start::StartError;
use crate::{config::server::ServerConfig, place::Place, steps::Steps};

/// What a node is on this machine.
pub struct Node {
    /// Name of the node object.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its share of the cluster CIDR.
    pub pod_cidr: IpNet,
}

/// The options of the container runtime of a cluster, for the server and for the commands that look at it.
pub fn runtime_options(data_dir: PathBuf, state_dir: PathBuf, cgroup: String) -> embedded::Options {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    embedded::Options { data_dir: data_dir.join("runtime"), state_dir: state_dir.join("runtime"), cgroup_prefix: cgroup, program }
}

/// Starts dataplane, runtime and agent. The agent writes as the node; the dataplane reads from the informers of the process.
pub async fn start(
    node: &Node,
    place: &Place,
    config: &ServerConfig,
    authority: &Arc<Authority>,
    (client, informers): (kube::Client, Informers),
    steps: &Steps,
    shutdown: CancellationToken,
) -> Result<Agent, StartError> {
    let dataplane =
        Dataplane::start(network_config(node, place, config), informers, shutdown.clone()).await.map_err(StartError::Network)?;
    steps.done(format_args!("dataplane ready, pods in {}", node.pod_cidr));
    let options = runtime_options(place.data_dir.clone(), place.state_dir.clone(), place.cgroup());
    let runtime = embedded::EmbeddedRuntime::open(options).await.map_err(StartError::Runtime)?;
    let runtime: Arc<dyn PodRuntime> = Arc::new(runtime);
    let network: Arc<dyn PodNetwork> = dataplane;
    let agent =
        Agent::start(agent_config(node, place, config, authority)?, client, runtime, network, shutdown).await.map_err(StartError::Agent)?;
    steps.done(format_args!("node {} serves on {}", node.name, agent.address()));
    Ok(agent)
}

/// The dataplane's settings.
pub fn network_config(node: &Node, place: &Place, config: &ServerConfig) -> coracle_network::Config {
    coracle_network::Config {
        cluster_id: place.id.clone(),
        state_dir: place.state_dir.join("network"),
        pod_cidr: node.pod_cidr,
        cluster_cidr: config.cluster_cidr,
        service_cidr: config.service_cidr,
        node_name: node.name.clone(),
        node_ip: node.ips.first().copied().unwrap_or(node.pod_cidr.network()),
        cgroup: coracle_runtime::group::v2_directory(&place.cgroup()).ok().flatten().unwrap_or_else(|| PathBuf::from(place.cgroup())),
        root_hooks: config.machine_wide,
    }
}

fn agent_config(
    node: &Node,
    place: &Place,
    config: &ServerConfig,
    authority: &Arc<Authority>,
) -> Result<coracle_agent::Config, StartError> {
    let serving = Renewing::server(authority.clone(), vec![node.name.clone()], node.ips.clone()).map_err(StartError::Certificate)?;
    let tls = tls(serving, authority)?;
    let taints = config.node_taints.iter().map(|(key, value, effect)| Taint {
        key: key.clone(),
        value: Some(value.clone()).filter(|v| !v.is_empty()),
        effect: effect.clone(),
        ..Taint::default()
    });
    let mut agent = coracle_agent::Config::new(node.name.clone(), node.ips.clone(), place.data_dir.clone(), tls);
    agent.pod_cidr = Some(node.pod_cidr.to_string());
    agent.labels = config.node_labels.iter().cloned().collect();
    agent.taints = taints.collect();
    agent.cluster_dns = vec![config.cluster_dns];
    agent.cluster_domain = config.cluster_domain.clone();
    agent.cgroup_root = place.cgroup();
    agent.listen = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), config.kubelet_port);
    Ok(agent)
}

/// The node's server shows a certificate of the cluster and wants one of its client authority.
fn tls(serving: Renewing, authority: &Authority) -> Result<Arc<rustls::ServerConfig>, StartError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = verifier::of_clients(authority.client_ca(), &provider).map_err(StartError::Clients)?;
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(StartError::Tls)?;
    let mut tls = builder.with_client_cert_verifier(clients).with_cert_resolver(Arc::new(serving));
    // Exec, attach and port-forward upgrade the connection, which HTTP/2 cannot.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// Starts the cluster's DNS: the role in this process, and the resident that answers.
pub fn dns(
    node: &Node,
    place: &Place,
    config: &ServerConfig,
    client: kube::Client,
    informers: Informers,
    shutdown: CancellationToken,
    tasks: &TaskTracker,
) {
    let gateway = node.pod_cidr.hosts().next().unwrap_or(node.pod_cidr.network());
    let settings = coracle_dns::Config {
        listen: SocketAddr::new(gateway, 0),
        state_dir: place.state_dir.join("dns"),
        program: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
        cluster_domain: config.cluster_domain.clone(),
        cluster_dns: config.cluster_dns,
        node_name: node.name.clone(),
        cgroup: place.cgroup(),
    };
    tasks.spawn(async move {
        if let Err(error) = coracle_dns::run(settings, client, informers, shutdown).await {
            tracing::error!(error = &error as &dyn std::error::Error, "DNS ended");
        }
    });
}
