//! What the node agent is told at its start.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Taint;

use crate::{certificate::Certificate, eviction::pressure, images, pod::backoff, shutdown::plan::Grace};

/// Pods that a node takes by default.
pub const MAX_PODS: u32 = 110;
/// Pids that all pods of the node together may not use.
pub const RESERVED_PIDS: u64 = 1000;

/// All of it. `Config::new` has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node object; a DNS subdomain.
    pub node_name: String,
    /// Addresses of the node, first of each family counts; the first is `InternalIP` and `hostIP`.
    pub node_ips: Vec<IpAddr>,
    /// `spec.podCIDR` that the node is created with.
    pub pod_cidr: Option<String>,
    /// Labels beside kubernetes.io/hostname, os and arch.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node is created with.
    pub taints: Vec<Taint>,
    /// Nameservers of pods with dnsPolicy ClusterFirst.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The resolv.conf that pods with dnsPolicy Default take.
    pub resolv_conf: PathBuf,
    /// Volumes live under `<data_dir>/agent/pods/<uid>`.
    pub data_dir: PathBuf,
    /// Device plugins and monitors look for the node's sockets under it: `/var/lib/kubelet` of a standing node.
    pub root_dir: PathBuf,
    /// Container logs live under `<log_root>/<namespace>_<name>_<uid>`.
    pub log_root: PathBuf,
    /// Above `kubepods`, relative to the hierarchy: `/coracle`.
    pub cgroup_root: String,
    /// Where the node's server listens; port 0 is any.
    pub listen: SocketAddr,
    /// Its certificate, and the client CA of callers that show one; others come with a token.
    pub tls: Arc<rustls::ServerConfig>,
    /// Those of them that are renewed by requests to the API.
    pub certificates: Vec<Certificate>,
    /// Capacity `pods`.
    pub max_pods: u32,
    /// Subtracted from capacity: (`cpu`, `memory`, `ephemeral-storage`, ...) to quantity.
    pub reserved: BTreeMap<String, String>,
    /// Version that nodeInfo shows as kubeletVersion: `v1.36.3+coracle1`.
    pub version: String,
    /// Bytes of a log file before it is rotated.
    pub log_max_bytes: u64,
    /// Log files kept of a container, the current one among them.
    pub log_max_files: u32,
    /// How often the node's Lease is renewed; it lasts four times as long.
    pub lease_period: Duration,
    /// How often the node's status is written when it does not change.
    pub status_period: Duration,
    /// What must be left of the node before pods are ended.
    pub eviction: pressure::Settings,
    /// Where manifests of static pods are: a directory, or one file.
    pub pod_manifest_path: Option<PathBuf>,
    /// What pods get when the machine shuts down, rising in priority; empty: nothing.
    pub shutdown: Vec<Grace>,
    /// The longest rest between two starts of a crashing container.
    pub longest_backoff: Duration,
    /// Processes that a pod may have; `None`: as many as the node.
    pub pod_pids: Option<i64>,
    /// From where between its request and its limit a container is slowed down (KEP-2570); `None`: nowhere, and nothing is protected.
    pub memory_throttling_factor: Option<f64>,
    /// Unsafe sysctls that pods may set, with `*` at the end as pattern.
    pub allowed_sysctls: Vec<String>,
    /// How images come, and who may use them.
    pub images: images::Settings,
}

impl Config {
    /// A node of this name with the field's defaults.
    pub fn new(node_name: String, node_ips: Vec<IpAddr>, data_dir: PathBuf, tls: Arc<rustls::ServerConfig>) -> Self {
        Self {
            node_name,
            node_ips,
            pod_cidr: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            log_root: data_dir.join("agent/logs"),
            pod_manifest_path: Some(data_dir.join("agent/pod-manifests")),
            root_dir: data_dir.join("kubelet"),
            data_dir,
            cgroup_root: "/coracle".to_owned(),
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            tls,
            certificates: Vec::new(),
            max_pods: MAX_PODS,
            reserved: BTreeMap::new(),
            version: concat!("v1.36.3+coracle", env!("CARGO_PKG_VERSION_MINOR")).to_owned(),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            lease_period: Duration::from_secs(10),
            status_period: Duration::from_secs(300),
            eviction: pressure::Settings::default(),
            shutdown: Vec::new(),
            longest_backoff: backoff::LONGEST,
            pod_pids: None,
            memory_throttling_factor: None,
            allowed_sysctls: Vec::new(),
            images: images::Settings::default(),
        }
    }
}
