//! Start and end of a cluster in this process.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use coracle_agent::Agent;
use coracle_client::{Informers, in_process};
use coracle_controllers::config::OwnNode;
use coracle_pki::authority::Authority;
use coracle_runtime::embedded;
use ipnet::IpNet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    control::{self, Api},
    kubeconfig,
    node::{self, Node},
};
use crate::{cli::Role, config::server::ServerConfig, place::Place, steps::Steps};

/// Bits of a node's share of the cluster CIDR.
const NODE_PREFIX_V4: u8 = 24;
/// The same for IPv6.
const NODE_PREFIX_V6: u8 = 64;

/// Why a cluster does not start. Each is one clear line with its causes.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// the cluster's certificates cannot be used
    #[error("the cluster's certificates cannot be used")]
    Authority(#[source] coracle_pki::authority::OpenError),
    /// the store does not open
    #[error("the store does not open")]
    Store(#[source] coracle_store::OpenError),
    /// the keys that Secrets are encrypted under are not there
    #[error("the keys that Secrets are encrypted under are not there")]
    Encryption(#[source] coracle_store::encryption::OpenError),
    /// the API server does not start
    #[error("the API server does not start")]
    Api(#[source] coracle_apiserver::server::StartError),
    /// the administrator's kubeconfig is not there
    #[error("the administrator's kubeconfig is not there")]
    Kubeconfig(#[source] kubeconfig::KubeconfigError),
    /// the API server's kubeconfig cannot be used
    #[error("the API server's kubeconfig cannot be used")]
    Client(#[source] coracle_client::KubeconfigError),
    /// the node's certificate was not issued
    #[error("the node's certificate was not issued")]
    Certificate(#[source] coracle_pki::renewal::RenewalError),
    /// the node's client certificate was not issued
    #[error("the node's client certificate was not issued")]
    Join(#[source] coracle_agent::certificate::RenewError),
    /// the node cannot verify its callers
    #[error("the node cannot verify its callers")]
    Clients(#[source] coracle_pki::verifier::VerifierError),
    /// {path} has no authorities by which the node could know its callers
    #[error("{path} has no authorities by which the node could know its callers")]
    ClientAuthorities {
        /// Which.
        path: PathBuf,
        /// Why, if it is no certificate in it.
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    /// the node's TLS cannot be set up
    #[error("the node's TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// the dataplane does not start
    #[error("the dataplane does not start")]
    Network(#[source] coracle_network::StartError),
    /// the container runtime does not start
    #[error("the container runtime does not start")]
    Runtime(#[source] embedded::OpenError),
    /// the mirrors and keys of registries cannot be used
    #[error("the mirrors and keys of registries cannot be used")]
    Registries(#[source] coracle_runtime::images::RegistriesError),
    /// the container runtime beside cannot be used
    #[error("the container runtime beside cannot be used")]
    ContainerRuntime(#[source] coracle_runtime::cri::OpenError),
    /// the network plugin of the container runtime beside is not installed
    #[error("the network plugin of the container runtime beside is not installed")]
    Plugin(#[source] std::io::Error),
    /// the node agent does not start
    #[error("the node agent does not start")]
    Agent(#[source] coracle_agent::StartError),
    /// {0} has no room for a node's share
    #[error("{0} has no room for a node's share")]
    Share(IpNet),
    /// a start-up step died
    #[error("a start-up step died")]
    Task(#[source] tokio::task::JoinError),
}

/// The cluster, as far as it is in this process.
pub struct Cluster {
    /// The administrator's kubeconfig, when the API server is here; else the one that was given.
    pub kubeconfig: PathBuf,
    /// For this process' own use, with all rights.
    pub admin: kube::Client,
    /// Name of the node, when it is here.
    pub node: Option<String>,
    roles: Roles,
}

/// The roles of this process, as far as they have started.
#[derive(Default)]
struct Roles {
    api: Option<Api>,
    agent: Option<Agent>,
    /// Roles that act: stopped before the API server.
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Cluster {
    /// Starts the roles in the order in which they need each other. When one does not start, those before it are stopped again.
    pub async fn start(config: &ServerConfig, place: &Place, steps: &Steps) -> Result<Self, StartError> {
        let mut roles = Roles::default();
        match roles.start(config, place, steps).await {
            Ok((admin, node)) => {
                let kubeconfig = match &roles.api {
                    Some(_) => config.write_kubeconfig.0.clone(),
                    None => config.kubeconfig.clone().unwrap_or_default(),
                };
                Ok(Self { kubeconfig, admin, node, roles })
            }
            Err(error) => {
                roles.stop().await;
                Err(error)
            }
        }
    }

    /// Ends the roles in reverse order. Pods, dataplane and DNS go on.
    pub async fn stop(self) {
        self.roles.stop().await;
    }
}

impl Roles {
    /// Gives the administrator's client and the node's name.
    async fn start(&mut self, config: &ServerConfig, place: &Place, steps: &Steps) -> Result<(kube::Client, Option<String>), StartError> {
        let node = machine_node(config, place)?;
        let advertise = config.advertise_address.or(node.ips.first().copied()).unwrap_or(IpAddr::from([127, 0, 0, 1]));
        if config.has(Role::Apiserver) {
            self.api = Some(control::api(config, advertise, &node.ips, steps).await?);
        }
        let clients = Clients::new(self.api.as_ref(), config).await?;
        if let Some(api) = &self.api {
            let address = control::endpoint(api.server.address(), IpAddr::from([127, 0, 0, 1]));
            kubeconfig::write(&api.authority, address, &config.write_kubeconfig.0, config.write_kubeconfig.1)
                .map_err(StartError::Kubeconfig)?;
        }
        let informers = Informers::new(clients.of("system:coracle:informers", &["system:masters"]));
        if config.has(Role::Controllers) {
            let ca = ca_bundle(self.api.as_ref(), config).await?;
            control::controllers(
                control::seat("kube-controller-manager", place, self.api.is_some()),
                clients.of("system:kube-controller-manager", &["system:masters"]),
                informers.clone(),
                config,
                (
                    ca,
                    self.api.as_ref().map(|api| Arc::clone(&api.authority)),
                    config.has(Role::Agent).then(|| OwnNode { name: node.name.clone(), ips: node.ips.clone() }),
                ),
                self.shutdown.clone(),
                &self.tasks,
            );
        }
        if config.has(Role::Scheduler) {
            let seat = control::seat("kube-scheduler", place, self.api.is_some());
            let client = clients.of("system:kube-scheduler", &[]);
            control::scheduler(seat, client, informers.clone(), self.shutdown.clone(), &self.tasks);
        }
        if config.has(Role::Agent) {
            let (client, joined) = match (&config.certificates.bootstrap, &self.api) {
                (Some(bootstrap), None) => {
                    let (client, certificate) = node::join(&node, config, bootstrap).await?;
                    (client, Some(certificate))
                }
                _ => (clients.of(&format!("system:node:{}", node.name), &["system:nodes"]), None),
            };
            let authority = node_authority(self.api.as_ref(), config)?;
            let informers = informers.clone();
            self.agent =
                Some(node::start(&node, place, config, (&authority, joined), (client, informers), steps, self.shutdown.clone()).await?);
        }
        if config.has(Role::Dns) {
            let client = clients.of("system:coracle:dns", &["system:masters"]);
            node::dns(&node, place, config, client, informers.clone(), self.shutdown.clone(), &self.tasks);
        }
        let admin = clients.of("system:admin", &["system:masters"]);
        Ok((admin, self.agent.as_ref().map(|_| node.name)))
    }

    async fn stop(self) {
        self.shutdown.cancel();
        if let Some(agent) = self.agent {
            agent.stopped().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(api) = self.api {
            api.server.shutdown().await;
            if let Err(error) = api.store.close().await {
                tracing::error!(error = &error as &dyn std::error::Error, "the store did not close");
            }
        }
    }
}

/// Makes the clients of the roles: inside the process where the API server is here, by kubeconfig where it is not.
struct Clients<'a> {
    api: Option<&'a Api>,
    remote: Option<kube::Client>,
}

impl<'a> Clients<'a> {
    async fn new(api: Option<&'a Api>, config: &ServerConfig) -> Result<Self, StartError> {
        let remote = match (&config.kubeconfig, api) {
            (Some(path), None) => Some(coracle_client::from_kubeconfig(path).await.map_err(StartError::Client)?),
            _ => None,
        };
        Ok(Self { api, remote })
    }

    fn of(&self, name: &str, groups: &[&str]) -> kube::Client {
        match (self.api, &self.remote) {
            (None, Some(client)) => client.clone(),
            (Some(api), _) => in_process(api.server.local(control::user(name, groups))),
            (None, None) => unreachable!("ServerConfig::resolve demands a kubeconfig without an API server"),
        }
    }
}

fn machine_node(config: &ServerConfig, place: &Place) -> Result<Node, StartError> {
    let prefix = if config.cluster_cidr.addr().is_ipv4() { NODE_PREFIX_V4 } else { NODE_PREFIX_V6 };
    let share = || config.cluster_cidr.subnets(prefix).ok()?.nth(place.slot.try_into().ok()?);
    let pod_cidr = share().ok_or(StartError::Share(config.cluster_cidr))?;
    let gateway = pod_cidr.hosts().next().ok_or(StartError::Share(pod_cidr))?;
    let ips = if config.node_ips.is_empty() { vec![crate::node::address(gateway)] } else { config.node_ips.clone() };
    Ok(Node { name: config.node_name.clone().unwrap_or_else(crate::node::name), ips, pod_cidr })
}

/// What pods trust the API server by: our own authority, or the one in the kubeconfig that was given.
async fn ca_bundle(api: Option<&Api>, config: &ServerConfig) -> Result<String, StartError> {
    match (api, &config.kubeconfig) {
        (Some(api), _) => Ok(api.authority.server_ca_pem().to_owned()),
        (None, Some(path)) => coracle_client::authority_of(path).await.map_err(StartError::Client),
        (None, None) => Ok(String::new()),
    }
}

/// The authority of the node's own certificates: the cluster's where it is here, else one of the node's own.
fn node_authority(api: Option<&Api>, config: &ServerConfig) -> Result<Arc<Authority>, StartError> {
    match api {
        Some(api) => Ok(api.authority.clone()),
        None => Authority::open(&config.data_dir.join("agent/tls")).map(Arc::new).map_err(StartError::Authority),
    }
}
