//! The node's roles: dataplane, container runtime, node agent, DNS.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use coracle_agent::{
    Agent,
    certificate::{Certificate, Purpose},
};
use coracle_client::{Informers, Renewed};
use coracle_network::{Dataplane, PodNetwork};
use coracle_pki::{authority::Authority, renewal::Renewing, rotation::Rotating, verifier};
use coracle_runtime::{embedded, handlers::Handlers};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::start::StartError;
use crate::{cli::Role, config::server::ServerConfig, place::Place, steps::Steps};

/// Where device plugins and monitors look for the sockets of a machine's node.
const ROOT_DIR: &str = "/var/lib/kubelet";

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
    embedded::Options {
        data_dir: data_dir.join("runtime"),
        state_dir: state_dir.join("runtime"),
        cgroup_prefix: cgroup,
        program,
        handlers: Handlers::default(),
    }
}

/// Starts dataplane, runtime and agent. The agent writes as the node; the dataplane reads from the informers of the process.
pub async fn start(
    node: &Node,
    place: &Place,
    config: &ServerConfig,
    (authority, joined): (&Arc<Authority>, Option<Certificate>),
    (client, informers): (kube::Client, Informers),
    steps: &Steps,
    shutdown: CancellationToken,
) -> Result<Agent, StartError> {
    let dataplane =
        Dataplane::start(network_config(node, place, config), informers, shutdown.clone()).await.map_err(StartError::Network)?;
    steps.done(format_args!("dataplane ready, pods in {}", node.pod_cidr));
    let runtime = super::runtime::open(place, config).await?;
    let network: Arc<dyn PodNetwork> = dataplane;
    let agent = Agent::start(agent_config(node, place, config, authority, joined)?, client, runtime, network, shutdown)
        .await
        .map_err(StartError::Agent)?;
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

/// The node as a client of an API server elsewhere: by the certificate that it asks for with the kubeconfig at `bootstrap`, or was given before.
pub async fn join(node: &Node, config: &ServerConfig, bootstrap: &Path) -> Result<(kube::Client, Certificate), StartError> {
    let speaks = Arc::new(Renewed::of(bootstrap).await.map_err(StartError::Client)?);
    let certificate = Certificate {
        purpose: Purpose::Client,
        shown: Arc::new(Rotating::new(None)),
        file: Some(config.data_dir.join("agent/pki/kubelet-client-current.pem")),
        speaks: Some(speaks.clone()),
        at_once: false,
    };
    if !certificate.resume() {
        let newcomer = coracle_client::from_kubeconfig(bootstrap).await.map_err(StartError::Client)?;
        certificate.first(&node.name, &newcomer).await.map_err(StartError::Join)?;
    }
    Ok((speaks.client(), certificate))
}

fn agent_config(
    node: &Node,
    place: &Place,
    config: &ServerConfig,
    authority: &Arc<Authority>,
    joined: Option<Certificate>,
) -> Result<coracle_agent::Config, StartError> {
    let (names, ips) = (vec![node.name.clone()], node.ips.clone());
    // Ready needs a certificate, and a certificate by request needs the API: the first one is made here, the next ones are asked for.
    let first = Renewing::held(authority.clone(), names.clone(), ips.clone(), config.certificates.signing_duration);
    let serving = Arc::new(Rotating::new(Some(first.map_err(StartError::Certificate)?)));
    let clients = match &config.certificates.client_ca {
        Some(path) if !config.has(Role::Apiserver) => authorities(path)?,
        _ => vec![authority.client_ca().clone()],
    };
    let tls = tls(serving.clone(), &clients)?;
    let taints = config.node_taints.iter().map(|(key, value, effect)| Taint {
        key: key.clone(),
        value: Some(value.clone()).filter(|v| !v.is_empty()),
        effect: effect.clone(),
        ..Taint::default()
    });
    let mut agent = coracle_agent::Config::new(node.name.clone(), node.ips.clone(), place.data_dir.clone(), tls);
    let here = config.has(Role::Apiserver);
    if here || config.certificates.serving {
        // Of a node elsewhere the cluster knows nothing that it has made itself: it asks at once, and keeps what it was given.
        let file = (!here).then(|| config.data_dir.join("agent/pki/kubelet-server-current.pem"));
        let certificate = Certificate { purpose: Purpose::Serving { names, ips }, shown: serving, file, speaks: None, at_once: !here };
        certificate.resume();
        agent.certificates.push(certificate);
    }
    agent.certificates.extend(joined);
    agent.pod_cidr = Some(node.pod_cidr.to_string());
    agent.labels = config.node_labels.iter().cloned().collect();
    agent.taints = taints.collect();
    agent.cluster_dns = vec![config.cluster_dns];
    agent.cluster_domain = config.cluster_domain.clone();
    agent.cgroup_root = place.cgroup();
    agent.images = config.image_settings.clone();
    agent.shutdown = config.pod_life.shutdown.clone();
    agent.pod_manifest_path = config.pod_life.manifests.clone().or(agent.pod_manifest_path);
    agent.longest_backoff = config.pod_life.longest_backoff.unwrap_or(agent.longest_backoff);
    agent.allowed_sysctls = config.pod_life.allowed_sysctls.clone();
    // Plugins of a machine look in one place; a cluster beside the machine's own keeps to itself.
    let machine_wide = config.machine_wide.then(|| PathBuf::from(ROOT_DIR));
    let resources = &config.node_resources;
    agent.root_dir = resources.root_dir.clone().or(machine_wide).unwrap_or(agent.root_dir);
    agent.reserved = resources.reserved.clone();
    agent.eviction = resources.eviction.clone();
    agent.pod_pids = resources.pod_pids;
    agent.memory_throttling_factor = resources.memory_throttling_factor;
    agent.listen = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), config.kubelet_port);
    Ok(agent)
}

/// The authorities in a file.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let none = |source| StartError::ClientAuthorities { path: path.to_owned(), source };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| none(Some(error)))?.collect();
    let all = all.map_err(|error| none(Some(error)))?;
    if all.is_empty() { Err(none(None)) } else { Ok(all) }
}

/// The node's server shows a certificate of the cluster. Who shows none of its client authorities must have a token.
fn tls(serving: Arc<Rotating>, clients: &[CertificateDer<'static>]) -> Result<Arc<rustls::ServerConfig>, StartError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = verifier::of_clients_if_any(clients, &provider).map_err(StartError::Clients)?;
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(StartError::Tls)?;
    let mut tls = builder.with_client_cert_verifier(clients).with_cert_resolver(serving);
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
