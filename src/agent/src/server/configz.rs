//! `/configz`: the configuration in force, as a KubeletConfiguration says it. Pure.

use std::{collections::BTreeMap, time::Duration};

use coracle_api::quantity::Quantity;
use serde_json::{Value, json};

use crate::{
    certificate::Purpose,
    config::Config,
    eviction::pressure::{Least, Threshold},
};

/// The document.
pub fn document(config: &Config) -> Value {
    let seconds = |duration: std::time::Duration| format!("{}s", duration.as_secs());
    let thresholds = |of: &dyn Fn(&Threshold) -> Option<String>| {
        let all = config.eviction.thresholds.iter();
        all.filter_map(|t| Some((t.signal.name(), of(t)?))).collect::<BTreeMap<_, _>>()
    };
    let kubelet = json!({
        "enableServer": true,
        "address": config.listen.ip().to_string(),
        "port": config.listen.port(),
        "authentication": {"x509": {}, "webhook": {"enabled": true, "cacheTTL": "2m0s"}, "anonymous": {"enabled": false}},
        "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"}},
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "resolvConf": config.resolv_conf,
        "cgroupRoot": config.cgroup_root,
        "cgroupsPerQOS": true,
        "maxPods": config.max_pods,
        "podCIDR": config.pod_cidr,
        "nodeStatusReportFrequency": seconds(config.status_period),
        "nodeLeaseDurationSeconds": 4 * config.lease_period.as_secs(),
        "containerLogMaxSize": format!("{}Mi", config.log_max_bytes >> 20),
        "containerLogMaxFiles": config.log_max_files,
        "systemReserved": config.reserved,
        "evictionHard": thresholds(&|t| t.grace.is_none().then(|| amount(t.least))),
        "evictionSoft": thresholds(&|t| t.grace.map(|_| amount(t.least))),
        "evictionSoftGracePeriod": thresholds(&|t| t.grace.map(go)),
        "evictionMinimumReclaim": thresholds(&|t| t.reclaim.map(amount)),
        "evictionMaxPodGracePeriod": config.eviction.most_grace.as_secs(),
        "evictionPressureTransitionPeriod": go(config.eviction.transition),
        "imageGCHighThresholdPercent": config.images.collection.high_percent,
        "imageGCLowThresholdPercent": config.images.collection.low_percent,
        "imageMinimumGCAge": go(config.images.collection.least_age),
        "imageMaximumGCAge": go(config.images.collection.most_age.unwrap_or_default()),
        "podPidsLimit": config.pod_pids.unwrap_or(-1),
        "memoryThrottlingFactor": config.memory_throttling_factor,
        "staticPodPath": config.pod_manifest_path,
        "rotateCertificates": config.certificates.iter().any(|c| c.purpose == Purpose::Client),
        "serverTLSBootstrap": config.certificates.iter().any(|c| c.purpose != Purpose::Client),
        "allowedUnsafeSysctls": config.allowed_sysctls,
        "seccompDefault": true,
        "podLogsDir": config.log_root,
        "registerNode": true,
    });
    json!({ "kubeletconfig": kubelet })
}

fn amount(least: Least) -> String {
    match least {
        Least::Of(amount) => Quantity::from_bytes(i64::try_from(amount).unwrap_or(i64::MAX)).to_string(),
        Least::Percent(percent) => format!("{percent}%"),
    }
}

/// As Go writes a length of time.
fn go(duration: Duration) -> String {
    let (seconds, rest) = (duration.as_secs(), duration.subsec_millis());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let seconds = if rest == 0 { format!("{seconds}s") } else { format!("{seconds}.{rest:03}s") };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, _) => format!("{minutes}m{seconds}"),
        _ => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, path::PathBuf, sync::Arc};

    use super::*;
    use crate::eviction::pressure::Signal;

    #[test]
    fn what_is_in_force_is_said() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let tls = Arc::new(tls.with_no_client_auth().with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new())));
        let mut config = Config::new("n".into(), vec![IpAddr::from([10, 0, 0, 1])], PathBuf::from("/data"), tls);
        config.cluster_dns = vec![IpAddr::from([10, 43, 0, 10])];
        let said = &document(&config)["kubeletconfig"];
        assert_eq!((&said["maxPods"], &said["clusterDNS"]), (&json!(110), &json!(["10.43.0.10"])));
        config.eviction.set(Signal::Memory, Least::Of(1 << 30), Some(Duration::from_secs(90)));
        let said = &document(&config)["kubeletconfig"];
        let hard = json!({"memory.available": "100Mi", "nodefs.available": "5%", "nodefs.inodesFree": "5%", "pid.available": "10%"});
        assert_eq!((&said["evictionHard"], &said["evictionMinimumReclaim"]), (&hard, &json!({})));
        assert_eq!(said["evictionSoft"], json!({"memory.available": "1Gi"}));
        assert_eq!(said["evictionSoftGracePeriod"], json!({"memory.available": "1m30s"}));
        assert_eq!(said["evictionPressureTransitionPeriod"], "5m0s");
        assert_eq!((&said["nodeLeaseDurationSeconds"], &said["containerLogMaxSize"]), (&json!(40), &json!("10Mi")));
    }
}
