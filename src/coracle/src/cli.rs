//! The command line: names as k3s has them wherever the meaning is the same.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};

use crate::config::{self, certificates::CertificateFlags, node_resources::NodeResourceFlags, origin::Origins, pod_life::PodLifeFlags};

/// The whole of Kubernetes in one binary.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, about, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `coracle` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a cluster, or some of its roles
    Server(Box<ServerFlags>),
    /// Run a command with a cluster of its own, and take everything down after it
    Run(Box<RunFlags>),
    /// Prove the cluster of KUBECONFIG with a real workload
    Demo(DemoFlags),
    /// The images of the node
    Images(ImagesFlags),
    /// The encryption of Secrets at rest
    SecretsEncrypt(SecretsEncryptFlags),
    /// Look at what the machine offers, and say what to do about the rest
    Doctor(DataDir),
    /// End all workloads of a data directory and remove its network
    Killall(DataDir),
    /// Print the completion script of a shell
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version {
        /// `json` for programs.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What a process of Coracle can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The API server on the embedded store.
    Apiserver,
    /// The controllers.
    Controllers,
    /// The scheduler.
    Scheduler,
    /// The node agent with its container runtime.
    Agent,
    /// The dataplane of the node.
    Network,
    /// The cluster's DNS.
    Dns,
}

/// Where the data of a cluster is.
#[derive(Debug, Args)]
pub struct DataDir {
    /// Directory that holds the cluster's data
    #[arg(short, long, env = "CORACLE_DATA_DIR", value_name = "DIR", default_value = "/var/lib/coracle")]
    pub data_dir: PathBuf,
}

/// Flags of `coracle server`; each is also a key of the configuration file and a `CORACLE_*` variable.
#[derive(Debug, Args)]
pub struct ServerFlags {
    /// Directory that holds the cluster's data [default: /var/lib/coracle]
    #[arg(short, long, env = "CORACLE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file; files in <FILE>.d/ are read after it [default: /etc/coracle/config.yaml]
    #[arg(short, long, env = "CORACLE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Roles of this process [default: all]
    #[arg(long, env = "CORACLE_ROLES", value_enum, value_delimiter = ',', value_name = "ROLE,...")]
    pub roles: Vec<Role>,
    /// The API server to use when this process has none
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Port of the API server; 0 is any [default: 6443]
    #[arg(long, env = "CORACLE_HTTPS_LISTEN_PORT", value_name = "PORT")]
    pub https_listen_port: Option<u16>,
    /// Address that the API server listens on [default: 0.0.0.0]
    #[arg(long, env = "CORACLE_BIND_ADDRESS", value_name = "IP")]
    pub bind_address: Option<std::net::IpAddr>,
    /// Address that pods reach the API server by [default: the node's]
    #[arg(long, env = "CORACLE_ADVERTISE_ADDRESS", value_name = "IP")]
    pub advertise_address: Option<std::net::IpAddr>,
    /// Port of the node's own server; 0 is any [default: 10250]
    #[arg(long, env = "CORACLE_KUBELET_PORT", value_name = "PORT")]
    pub kubelet_port: Option<u16>,
    /// Where to write the administrator's kubeconfig [default: /etc/coracle/coracle.yaml, else in the data directory]
    #[arg(short = 'o', long, env = "CORACLE_WRITE_KUBECONFIG", value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Mode of that file [default: 600]
    #[arg(long, env = "CORACLE_WRITE_KUBECONFIG_MODE", value_name = "MODE")]
    pub write_kubeconfig_mode: Option<String>,
    /// Addresses of pods [default: 10.42.0.0/16]
    #[arg(long, env = "CORACLE_CLUSTER_CIDR", value_name = "CIDR")]
    pub cluster_cidr: Option<String>,
    /// Addresses of Services [default: 10.43.0.0/16]
    #[arg(long, env = "CORACLE_SERVICE_CIDR", value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Address of the cluster's DNS Service [default: the tenth of the service CIDR]
    #[arg(long, env = "CORACLE_CLUSTER_DNS", value_name = "IP")]
    pub cluster_dns: Option<std::net::IpAddr>,
    /// Domain of the cluster [default: cluster.local]
    #[arg(long, env = "CORACLE_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Ports of NodePort Services [default: 30000-32767]
    #[arg(long, env = "CORACLE_SERVICE_NODE_PORT_RANGE", value_name = "FROM-TO")]
    pub service_node_port_range: Option<String>,
    /// Name of the node [default: the host name]
    #[arg(long, env = "CORACLE_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of the node [default: that of the default route]
    #[arg(short = 'i', long, env = "CORACLE_NODE_IP", value_name = "IP", value_delimiter = ',')]
    pub node_ip: Vec<std::net::IpAddr>,
    /// Label of the node
    #[arg(long, env = "CORACLE_NODE_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub node_label: Vec<String>,
    /// Taint of the node at its creation
    #[arg(long, env = "CORACLE_NODE_TAINT", value_name = "KEY=VALUE:EFFECT", value_delimiter = ',')]
    pub node_taint: Vec<String>,
    /// Socket of a CRI v1 container runtime that runs the pods, such as unix:///run/containerd/containerd.sock [default: Coracle's own]
    #[arg(long, env = "CORACLE_CONTAINER_RUNTIME_ENDPOINT", value_name = "ENDPOINT")]
    pub container_runtime_endpoint: Option<String>,
    /// Where that runtime looks for its network configuration [default: /etc/cni/net.d]
    #[arg(long, env = "CORACLE_CNI_CONF_DIR", value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Where that runtime looks for network plugins [default: /opt/cni/bin]
    #[arg(long, env = "CORACLE_CNI_BIN_DIR", value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// The life of the node's pods.
    #[command(flatten)]
    pub pod_life: PodLifeFlags,
    /// The node's resources.
    #[command(flatten)]
    pub node_resources: NodeResourceFlags,
    /// Certificates that are asked for.
    #[command(flatten)]
    pub certificates: CertificateFlags,
    /// Further name or address of the API server's certificate
    #[arg(long, env = "CORACLE_TLS_SAN", value_name = "NAME", value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// AuthenticationConfiguration of the API server: issuers of tokens (OpenID Connect), anonymous requests; followed as it changes
    #[arg(long, env = "CORACLE_AUTHENTICATION_CONFIG", value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Kubeconfig of a webhook that knows bearer tokens
    #[arg(long, env = "CORACLE_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the TokenReviews that the webhook gets [default: v1beta1]
    #[arg(long, env = "CORACLE_AUTHENTICATION_TOKEN_WEBHOOK_VERSION", value_name = "VERSION")]
    pub authentication_token_webhook_version: Option<String>,
    /// How long the webhook's verdicts count [default: 2m]
    #[arg(long, env = "CORACLE_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL", value_name = "DURATION")]
    pub authentication_token_webhook_cache_ttl: Option<String>,
    /// AdmissionConfiguration of the API server: what ResourceQuota, PodSecurity and EventRateLimit are told
    #[arg(long, env = "CORACLE_ADMISSION_CONTROL_CONFIG_FILE", value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// What the audit log records [default: who wrote what]
    #[arg(long, env = "CORACLE_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where the audit log is; - is standard output [default: logs/audit.log in the data directory, 64 MiB with its older files]
    #[arg(long, env = "CORACLE_AUDIT_LOG_PATH", value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that older files of the audit log are kept; 0 is for ever [default: 0]
    #[arg(long, env = "CORACLE_AUDIT_LOG_MAXAGE", value_name = "DAYS")]
    pub audit_log_maxage: Option<u32>,
    /// Older files of the audit log that are kept; 0 is all [default: 3, 0 with --audit-log-path]
    #[arg(long, env = "CORACLE_AUDIT_LOG_MAXBACKUP", value_name = "FILES")]
    pub audit_log_maxbackup: Option<u32>,
    /// MB of the audit log after which it is replaced [default: 16, 100 with --audit-log-path]
    #[arg(long, env = "CORACLE_AUDIT_LOG_MAXSIZE", value_name = "MB")]
    pub audit_log_maxsize: Option<u32>,
    /// How images come to the node.
    #[command(flatten)]
    pub images: config::images::ImageFlags,
    /// A control plane without a node
    #[arg(long, env = "CORACLE_DISABLE_AGENT", value_parser = BoolishValueParser::new())]
    pub disable_agent: bool,
    /// Say more
    #[arg(long, env = "CORACLE_DEBUG", value_parser = BoolishValueParser::new())]
    pub debug: bool,
    /// Where values came from that are not of the command line.
    #[arg(skip)]
    pub origins: Origins,
}

/// Flags of `coracle run`.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// Those of the server; data directory and ports are its own by default.
    #[command(flatten)]
    pub server: ServerFlags,
    /// Image archives to import before the command starts
    #[arg(long, value_name = "TAR")]
    pub import: Vec<PathBuf>,
    /// Leave the data directory
    #[arg(long)]
    pub keep: bool,
    /// The command, with KUBECONFIG set; without one the cluster stays until Ctrl-C
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Flags of `coracle demo`.
#[derive(Debug, Args)]
pub struct DemoFlags {
    /// The cluster to prove
    #[arg(long, env = "KUBECONFIG", value_name = "FILE", default_value = "/etc/coracle/coracle.yaml")]
    pub kubeconfig: PathBuf,
    /// Data directory of the node that takes the demo's image
    #[arg(short, long, env = "CORACLE_DATA_DIR", value_name = "DIR", default_value = "/var/lib/coracle")]
    pub data_dir: PathBuf,
}

/// Flags of `coracle secrets-encrypt`.
#[derive(Debug, Args)]
pub struct SecretsEncryptFlags {
    /// Directory that holds the cluster's data
    #[arg(short, long, global = true, env = "CORACLE_DATA_DIR", value_name = "DIR", default_value = "/var/lib/coracle")]
    pub data_dir: PathBuf,
    /// An administrator's kubeconfig of the running server [default: the one that the server wrote]
    #[arg(long, global = true, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// `json` for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: SecretsEncryptCommand,
}

/// What can be done about the encryption of Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum SecretsEncryptCommand {
    /// Say under which keys the Secrets lie
    Status,
    /// Make a new key, write every Secret again under it, and drop the older keys
    #[command(visible_alias = "rotate-keys")]
    Rotate,
}

/// Flags of `coracle images`.
#[derive(Debug, Args)]
pub struct ImagesFlags {
    /// Where the images are.
    #[command(flatten)]
    pub data_dir: DataDir,
    /// What to do with them.
    #[command(subcommand)]
    pub command: ImagesCommand,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// Import OCI layouts (directories or tars) and docker-save tars
    Import {
        /// Archives.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Pull from a registry
    Pull {
        /// Names.
        #[arg(required = true)]
        images: Vec<String>,
        /// `user:password` for the registry
        #[arg(long, env = "CORACLE_REGISTRY_CREDENTIALS", hide_env_values = true)]
        creds: Option<String>,
        /// PEM file of an authority to trust beside the machine's
        #[arg(long, env = "CORACLE_REGISTRY_CA_FILE", value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// Mirrors and keys of registries, as the server reads them [default: /etc/coracle/registries.yaml]
        #[arg(long, env = "CORACLE_PRIVATE_REGISTRY", value_name = "FILE")]
        private_registry: Option<PathBuf>,
    },
    /// Write images to an archive that docker, podman and `import` read; their layers are packed anew, so they have other ids there
    Export {
        /// The archive.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// List
    #[command(visible_alias = "list")]
    Ls,
    /// Remove all images that no container uses
    Prune,
    /// Remove
    Rm {
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
}
