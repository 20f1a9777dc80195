//! What a server is told, checked: flags and defaults become one value per role's needs.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use coracle_apiserver::{
    audit,
    authentication::{self, token_webhook},
};
use ipnet::IpNet;

use super::{certificates::Certificates, images::ImageFlags, node_resources::NodeResources, pod_life::PodLife};
use crate::cli::{Role, ServerFlags};

/// Bytes of an audit log whose path is given and whose size is not; upstream's default.
const UPSTREAM_LOG_BYTES: u64 = 100 << 20;
/// Of the ages that flags give.
const SECONDS_PER_DAY: u64 = 86_400;
/// Where the data of a `coracle server` is.
pub const DATA_DIR: &str = "/var/lib/coracle";

/// How long the verdict of a token webhook counts; upstream's default.
const WEBHOOK_CACHE: Duration = Duration::from_secs(120);

/// Defaults that differ between `coracle server` and `coracle run`.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Data directory.
    pub data_dir: PathBuf,
    /// Port of the API server.
    pub port: u16,
    /// Port of the node's server.
    pub kubelet_port: u16,
    /// Address that the API server listens on.
    pub bind_address: IpAddr,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Hook the sockets of the whole machine, not only of this cluster's processes.
    pub machine_wide: bool,
}

impl Defaults {
    /// Those of the machine's standing server.
    pub fn server(data_dir: Option<&Path>) -> Self {
        let default = data_dir.is_none_or(|d| d == Path::new(DATA_DIR));
        let data_dir = data_dir.map_or_else(|| DATA_DIR.into(), Path::to_owned);
        let kubeconfig = if default { "/etc/coracle/coracle.yaml".into() } else { data_dir.join("admin.kubeconfig") };
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { port: 6443, kubelet_port: 10250, bind_address: any, kubeconfig, machine_wide: default, data_dir }
    }

    /// Those of a cluster that lives as long as one command.
    pub fn run(data_dir: PathBuf) -> Self {
        let kubeconfig = data_dir.join("admin.kubeconfig");
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { port: 0, kubelet_port: 0, bind_address: any, kubeconfig, machine_wide: false, data_dir }
    }
}

/// Everything a server needs to know before it looks at the machine.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Of this cluster.
    pub data_dir: PathBuf,
    /// Roles of this process.
    pub roles: Vec<Role>,
    /// The API server to use when `roles` has none.
    pub kubeconfig: Option<PathBuf>,
    /// Port of the API server; 0 is any.
    pub port: u16,
    /// Port of the node's server; 0 is any.
    pub kubelet_port: u16,
    /// Where the API server listens.
    pub bind_address: IpAddr,
    /// What pods reach the API server by; `None` is the node's address.
    pub advertise_address: Option<IpAddr>,
    /// Where the administrator's kubeconfig goes, and its mode.
    pub write_kubeconfig: (PathBuf, u32),
    /// Addresses of pods.
    pub cluster_cidr: IpNet,
    /// Addresses of Services.
    pub service_cidr: IpNet,
    /// Address of the DNS Service.
    pub cluster_dns: IpAddr,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Ports of NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Name of the node; `None` is the host name.
    pub node_name: Option<String>,
    /// Addresses of the node; none is that of the default route.
    pub node_ips: Vec<IpAddr>,
    /// Labels of the node.
    pub node_labels: Vec<(String, String)>,
    /// Taints of the node at its creation: key, value, effect.
    pub node_taints: Vec<(String, String, String)>,
    /// The container runtime beside; `None` is the one in this program.
    pub container_runtime: Option<ContainerRuntime>,
    /// The life of the node's pods.
    pub pod_life: PodLife,
    /// What the node keeps for itself, and when it is short.
    pub node_resources: NodeResources,
    /// Certificates that are asked for.
    pub certificates: Certificates,
    /// Further names of the API server's certificate.
    pub tls_sans: Vec<String>,
    /// Who else says who is who.
    pub authentication: authentication::Settings,
    /// Where requests are recorded, and which.
    pub audit: audit::Config,
    /// What plugins of admission are told.
    pub admission: Option<PathBuf>,
    /// Where images come from.
    pub images: ImageFlags,
    /// What the node does about them.
    pub image_settings: coracle_agent::images::Settings,
    /// Hook the sockets of the whole machine.
    pub machine_wide: bool,
}

/// A container runtime at its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRuntime {
    /// `unix:///run/containerd/containerd.sock`.
    pub endpoint: String,
    /// Where it looks for network configurations.
    pub cni_conf_dir: PathBuf,
    /// Where it looks for network plugins.
    pub cni_bin_dir: PathBuf,
}

/// A flag whose value cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} {value:?}{origin}: expected {want}")]
pub struct FlagError {
    flag: &'static str,
    value: String,
    /// ` (where it stands)`, when that is not the command line.
    origin: String,
    want: &'static str,
}

impl FlagError {
    /// Of a flag's value, and what it should have been.
    pub(super) fn new(flag: &'static str, value: &str, want: &'static str) -> Self {
        Self { flag, value: value.to_owned(), want, origin: String::new() }
    }
}

impl ServerConfig {
    /// Checks the flags; `defaults` fill what they leave open.
    pub fn resolve(flags: &ServerFlags, defaults: Defaults) -> Result<Self, FlagError> {
        Self::checked(flags, defaults).map_err(|error| FlagError { origin: flags.origins.of(error.flag, &error.value), ..error })
    }

    fn checked(flags: &ServerFlags, defaults: Defaults) -> Result<Self, FlagError> {
        let all = [Role::Apiserver, Role::Controllers, Role::Scheduler, Role::Agent, Role::Network, Role::Dns];
        let mut roles = if flags.roles.is_empty() { all.to_vec() } else { flags.roles.clone() };
        if flags.disable_agent {
            roles.retain(|r| !matches!(r, Role::Agent | Role::Network | Role::Dns));
        }
        if !roles.contains(&Role::Apiserver) && flags.kubeconfig.is_none() {
            return Err(FlagError {
                flag: "roles",
                value: "without apiserver".into(),
                want: "--kubeconfig with the API server to use",
                origin: String::new(),
            });
        }
        if roles.contains(&Role::Agent) != roles.contains(&Role::Network) {
            return Err(FlagError {
                flag: "roles",
                value: "agent or network alone".into(),
                want: "both, they serve one node together",
                origin: String::new(),
            });
        }
        let service_cidr = cidr("service-cidr", flags.service_cidr.as_deref().unwrap_or("10.43.0.0/16"))?;
        let cluster_domain = flags.cluster_domain.clone().unwrap_or_else(|| "cluster.local".into());
        if coracle_api::names::dns_subdomain(&cluster_domain).is_err() {
            return Err(FlagError { flag: "cluster-domain", value: cluster_domain, want: "a DNS name", origin: String::new() });
        }
        if let Some(name) = flags.node_name.as_ref().filter(|name| coracle_api::names::dns_subdomain(name).is_err()) {
            let want = "lower case letters, digits, '-' and '.'";
            return Err(FlagError { flag: "node-name", value: name.clone(), want, origin: String::new() });
        }
        Ok(Self {
            roles,
            kubeconfig: flags.kubeconfig.clone(),
            port: flags.https_listen_port.unwrap_or(defaults.port),
            kubelet_port: flags.kubelet_port.unwrap_or(defaults.kubelet_port),
            bind_address: flags.bind_address.unwrap_or(defaults.bind_address),
            advertise_address: flags.advertise_address,
            write_kubeconfig: (
                flags.write_kubeconfig.clone().unwrap_or(defaults.kubeconfig),
                mode(flags.write_kubeconfig_mode.as_deref())?,
            ),
            cluster_cidr: cidr("cluster-cidr", flags.cluster_cidr.as_deref().unwrap_or("10.42.0.0/16"))?,
            cluster_dns: flags.cluster_dns.unwrap_or_else(|| tenth(service_cidr)),
            service_cidr,
            cluster_domain,
            node_ports: ports(flags.service_node_port_range.as_deref().unwrap_or("30000-32767"))?,
            node_name: flags.node_name.clone(),
            node_ips: flags.node_ip.clone(),
            node_labels: flags.node_label.iter().map(|l| label(l)).collect::<Result<_, _>>()?,
            node_taints: flags.node_taint.iter().map(|t| taint(t)).collect::<Result<_, _>>()?,
            container_runtime: container_runtime(flags)?,
            pod_life: PodLife::resolve(&flags.pod_life)?,
            node_resources: NodeResources::resolve(&flags.node_resources)?,
            certificates: Certificates::resolve(&flags.certificates)?,
            tls_sans: flags.tls_san.clone(),
            authentication: authentication(flags)?,
            audit: audit(flags, &defaults.data_dir),
            admission: flags.admission_control_config_file.clone().filter(|path| !path.as_os_str().is_empty()),
            images: flags.images.clone(),
            image_settings: flags.images.settings().map_err(|(flag, value, want)| FlagError {
                flag,
                value,
                want,
                origin: String::new(),
            })?,
            machine_wide: defaults.machine_wide,
            data_dir: defaults.data_dir,
        })
    }

    /// Whether this process has the role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Networks of pods and Services: wide enough for a node's share, and written from their first address on.
fn cidr(flag: &'static str, text: &str) -> Result<IpNet, FlagError> {
    let bad = || FlagError { flag, value: text.into(), want: "a network such as 10.42.0.0/16, between /8 and /24", origin: String::new() };
    let cidr: IpNet = text.parse().map_err(|_| bad())?;
    let fits = if cidr.addr().is_ipv4() { (8..=24).contains(&cidr.prefix_len()) } else { (16..=112).contains(&cidr.prefix_len()) };
    if cidr == cidr.trunc() && fits { Ok(cidr) } else { Err(bad()) }
}

/// Where the DNS of a cluster is by custom. Every range that [`cidr`] lets pass is wide enough.
fn tenth(services: IpNet) -> IpAddr {
    match services.network() {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + 10).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + 10).into()),
    }
}

/// Who else says who is who.
fn authentication(flags: &ServerFlags) -> Result<authentication::Settings, FlagError> {
    const VERSION: &str = "authentication-token-webhook-version";
    const TTL: &str = "authentication-token-webhook-cache-ttl";
    let version = match flags.authentication_token_webhook_version.as_deref() {
        None | Some("v1beta1") => token_webhook::Version::V1Beta1,
        Some("v1") => token_webhook::Version::V1,
        Some(other) => return Err(FlagError { flag: VERSION, value: other.into(), want: "v1 or v1beta1", origin: String::new() }),
    };
    let cache = match flags.authentication_token_webhook_cache_ttl.as_deref() {
        None => WEBHOOK_CACHE,
        Some(text) => duration(text).ok_or_else(|| FlagError {
            flag: TTL,
            value: text.into(),
            want: "a duration such as 2m or 30s",
            origin: String::new(),
        })?,
    };
    let webhook = |kubeconfig: &PathBuf| token_webhook::Settings { kubeconfig: kubeconfig.clone(), version, cache };
    Ok(authentication::Settings {
        configuration: flags.authentication_config.clone(),
        token_webhook: flags.authentication_token_webhook_config_file.as_ref().map(webhook),
    })
}

/// A length of time as Go writes it.
pub(super) fn duration(text: &str) -> Option<Duration> {
    text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

/// The log beside the data is bounded in any case; one that was asked for has the bounds that upstream's flags have.
fn audit(flags: &ServerFlags, data_dir: &Path) -> audit::Config {
    let given = flags.audit_log_path.clone().filter(|path| !path.as_os_str().is_empty());
    let own = audit::Bounds::default();
    let unless = |value: Option<u32>| value.map(u64::from);
    let file_bytes = match unless(flags.audit_log_maxsize) {
        Some(megabytes) if megabytes > 0 => megabytes << 20,
        None if given.is_none() => own.file_bytes,
        _ => UPSTREAM_LOG_BYTES,
    };
    let backups = match unless(flags.audit_log_maxbackup) {
        Some(files) => usize::try_from(files).unwrap_or(usize::MAX),
        None if given.is_none() => own.backups,
        None => 0,
    };
    let age = Duration::from_secs(unless(flags.audit_log_maxage).unwrap_or_default() * SECONDS_PER_DAY);
    audit::Config {
        log: Some(given.unwrap_or_else(|| data_dir.join("logs").join("audit.log"))),
        policy: flags.audit_policy_file.clone().filter(|path| !path.as_os_str().is_empty()),
        bounds: audit::Bounds { file_bytes, backups, age },
    }
}

fn container_runtime(flags: &ServerFlags) -> Result<Option<ContainerRuntime>, FlagError> {
    let Some(endpoint) = flags.container_runtime_endpoint.clone().filter(|endpoint| !endpoint.is_empty()) else { return Ok(None) };
    if coracle_runtime::cri::socket(&endpoint).is_err() {
        let want = "a socket such as unix:///run/containerd/containerd.sock";
        return Err(FlagError { flag: "container-runtime-endpoint", value: endpoint, want, origin: String::new() });
    }
    let or = |given: &Option<PathBuf>, default: &str| given.clone().unwrap_or_else(|| default.into());
    Ok(Some(ContainerRuntime {
        endpoint,
        cni_conf_dir: or(&flags.cni_conf_dir, "/etc/cni/net.d"),
        cni_bin_dir: or(&flags.cni_bin_dir, "/opt/cni/bin"),
    }))
}

fn mode(text: Option<&str>) -> Result<u32, FlagError> {
    let Some(text) = text else { return Ok(0o600) };
    let bad = || FlagError { flag: "write-kubeconfig-mode", value: text.into(), want: "an octal mode such as 644", origin: String::new() };
    u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o777).ok_or_else(bad)
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, FlagError> {
    let bad =
        || FlagError { flag: "service-node-port-range", value: text.into(), want: "a range such as 30000-32767", origin: String::new() };
    let (from, to) = text.split_once('-').ok_or_else(bad)?;
    let (from, to): (u16, u16) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
    if from == 0 || from > to { Err(bad()) } else { Ok(from..=to) }
}

fn label(text: &str) -> Result<(String, String), FlagError> {
    let bad = || FlagError { flag: "node-label", value: text.into(), want: "key=value", origin: String::new() };
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    coracle_api::names::qualified(key).and_then(|()| coracle_api::names::label_value(value)).map_err(|_| bad())?;
    Ok((key.into(), value.into()))
}

fn taint(text: &str) -> Result<(String, String, String), FlagError> {
    let bad = || FlagError {
        flag: "node-taint",
        value: text.into(),
        want: "key=value:NoSchedule, :PreferNoSchedule or :NoExecute",
        origin: String::new(),
    };
    let (rest, effect) = text.rsplit_once(':').ok_or_else(bad)?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let known = matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute");
    let good = known && coracle_api::names::qualified(key).is_ok() && coracle_api::names::label_value(value).is_ok();
    if good { Ok((key.into(), value.into(), effect.into())) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn check(args: &[&str]) -> Result<ServerConfig, FlagError> {
        let cli = Cli::try_parse_from(["coracle", "server"].iter().chain(args)).expect("clap takes them");
        let Command::Server(flags) = cli.command else { panic!("server was asked for") };
        ServerConfig::resolve(&flags, Defaults::server(flags.data_dir.as_deref()))
    }

    #[test]
    fn defaults_are_those_of_k3s() {
        let config = check(&[]).expect("good");
        assert_eq!(
            (config.port, config.cluster_cidr.to_string().as_str(), config.cluster_dns),
            (6443, "10.42.0.0/16", IpAddr::from([10, 43, 0, 10]))
        );
        assert_eq!(check(&["--service-cidr", "10.99.0.0/16"]).expect("good").cluster_dns, IpAddr::from([10, 99, 0, 10]));
    }

    #[test]
    fn the_audit_log_is_bounded_unless_it_is_asked_for_otherwise() {
        let megabytes = |size: u64, backups, days: u64| audit::Bounds {
            file_bytes: size << 20,
            backups,
            age: Duration::from_secs(days * SECONDS_PER_DAY),
        };
        for (args, log, bounds) in [
            (&[][..], "/var/lib/coracle/logs/audit.log", megabytes(16, 3, 0)),
            (&["--audit-log-path", "/a/b"], "/a/b", megabytes(100, 0, 0)),
            (
                &["--audit-log-path", "-", "--audit-log-maxsize", "5", "--audit-log-maxbackup", "2", "--audit-log-maxage", "7"],
                "-",
                megabytes(5, 2, 7),
            ),
            (&["--audit-log-maxsize", "0", "--audit-log-maxbackup", "1"], "/var/lib/coracle/logs/audit.log", megabytes(100, 1, 0)),
        ] {
            let audit = check(args).expect("good").audit;
            assert_eq!((audit.log, audit.bounds), (Some(log.into()), bounds), "{args:?}");
        }
    }

    #[test]
    fn impossible_values_are_named() {
        for (args, flag) in [
            (vec!["--image-pull-credentials-verification-policy", "Sometimes"], "image-pull-credentials-verification-policy"),
            (vec!["--preloaded-images-verification-allowlist", "a"], "preloaded-images-verification-allowlist"),
            (vec!["--serialize-image-pulls", "--max-parallel-image-pulls", "2"], "max-parallel-image-pulls"),
            (vec!["--cluster-cidr", "10.42.0.1/16"], "cluster-cidr"),
            (vec!["--service-cidr", "x"], "service-cidr"),
            (vec!["--service-node-port-range", "5-4"], "service-node-port-range"),
            (vec!["--write-kubeconfig-mode", "9"], "write-kubeconfig-mode"),
            (vec!["--node-label", "a"], "node-label"),
            (vec!["--node-taint", "a=b:Never"], "node-taint"),
            (vec!["--roles", "controllers"], "roles"),
            (vec!["--roles", "apiserver,agent"], "roles"),
            (vec!["--cluster-domain", "A B"], "cluster-domain"),
            (vec!["--node-name", "Bad_Name"], "node-name"),
            (vec!["--cluster-signing-duration", "0s"], "cluster-signing-duration"),
            (vec!["--container-runtime-endpoint", "tcp://127.0.0.1:1"], "container-runtime-endpoint"),
            (vec!["--authentication-token-webhook-version", "v2"], "authentication-token-webhook-version"),
            (vec!["--authentication-token-webhook-cache-ttl", "long"], "authentication-token-webhook-cache-ttl"),
        ] {
            assert_eq!(check(&args).expect_err("refused").flag, flag, "{args:?}");
        }
    }
}
