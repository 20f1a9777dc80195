//! Flags on the life of pods, named as upstream's kubelet names its fields: static pods, graceful node shutdown, the longest backoff, sysctls.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use coracle_agent::{
    pod::sysctls::is_of_pods,
    shutdown::plan::{Grace, by_kind},
};

use super::server::{FlagError, duration};

/// From where on the backoff of crashing containers may be bounded; upstream's figures.
const RESTART_PERIOD: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// Flags of the node on the life of its pods.
#[derive(Clone, Debug, Default, Args)]
pub struct PodLifeFlags {
    /// Manifests of static pods: a directory, or one file [default: agent/pod-manifests in the data directory]
    #[arg(long, env = "CORACLE_POD_MANIFEST_PATH", value_name = "PATH")]
    pub pod_manifest_path: Option<PathBuf>,
    /// How long a shutdown of the machine waits for pods, the critical ones included; needs systemd-logind [default: 0, not at all]
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD", value_name = "DURATION")]
    pub shutdown_grace_period: Option<String>,
    /// How much of that is for critical pods, which end last [default: 0]
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS", value_name = "DURATION")]
    pub shutdown_grace_period_critical_pods: Option<String>,
    /// In place of both: seconds for the pods from each priority on, the lowest first
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD_BY_POD_PRIORITY", value_name = "PRIORITY=SECONDS", value_delimiter = ',')]
    pub shutdown_grace_period_by_pod_priority: Vec<String>,
    /// The longest rest between two starts of a crashing container, from 1s to 5m [default: 5m]
    #[arg(long, env = "CORACLE_MAX_CONTAINER_RESTART_PERIOD", value_name = "DURATION")]
    pub max_container_restart_period: Option<String>,
    /// Sysctls that pods may set beside the safe ones, * at the end for all that begin so; only such as pods have of their own [default: none]
    #[arg(long, env = "CORACLE_ALLOWED_UNSAFE_SYSCTLS", value_name = "SYSCTL", value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
}

/// What they say, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLife {
    /// Where the manifests are, if not at their default.
    pub manifests: Option<PathBuf>,
    /// What pods get when the machine shuts down; empty: nothing.
    pub shutdown: Vec<Grace>,
    /// The longest backoff.
    pub longest_backoff: Option<Duration>,
    /// Patterns of sysctls beside the safe ones.
    pub allowed_sysctls: Vec<String>,
}

impl PodLife {
    /// Checks the flags.
    pub fn resolve(flags: &PodLifeFlags) -> Result<Self, FlagError> {
        let longest_backoff = match flags.max_container_restart_period.as_deref() {
            None => None,
            Some(text) => {
                let bad = || FlagError::new("max-container-restart-period", text, "a duration from 1s to 5m");
                Some(duration(text).filter(|d| RESTART_PERIOD.contains(d)).ok_or_else(bad)?)
            }
        };
        // A sysctl may be written with slashes, as its file is.
        let allowed_sysctls: Vec<String> = flags.allowed_unsafe_sysctls.iter().map(|pattern| pattern.replace('/', ".")).collect();
        if let Some(bad) = allowed_sysctls.iter().find(|pattern| !is_of_pods(pattern)) {
            const WANT: &str = "one that every pod has of its own: kernel.sem, kernel.shm*, kernel.msg*, fs.mqueue.* or net.*";
            return Err(FlagError::new("allowed-unsafe-sysctls", bad, WANT));
        }
        Ok(Self { manifests: flags.pod_manifest_path.clone(), shutdown: shutdown(flags)?, longest_backoff, allowed_sysctls })
    }
}

fn shutdown(flags: &PodLifeFlags) -> Result<Vec<Grace>, FlagError> {
    const TOTAL: &str = "shutdown-grace-period";
    const CRITICAL: &str = "shutdown-grace-period-critical-pods";
    const BY_PRIORITY: &str = "shutdown-grace-period-by-pod-priority";
    let read = |flag, text: &Option<String>| {
        let text = text.as_deref().unwrap_or("0s");
        let fits = |d: &Duration| d.is_zero() || *d >= Duration::from_secs(1);
        let bad = || FlagError::new(flag, text, "a duration of at least 1s, or 0s for none");
        duration(text).filter(fits).ok_or_else(bad)
    };
    let total = read(TOTAL, &flags.shutdown_grace_period)?;
    let critical = read(CRITICAL, &flags.shutdown_grace_period_critical_pods)?;
    if critical > total {
        let text = flags.shutdown_grace_period_critical_pods.as_deref().unwrap_or_default();
        return Err(FlagError::new(CRITICAL, text, "no more than --shutdown-grace-period"));
    }
    let list = &flags.shutdown_grace_period_by_pod_priority;
    if list.is_empty() {
        return Ok(by_kind(total, critical));
    }
    if !total.is_zero() {
        return Err(FlagError::new(BY_PRIORITY, &list.join(","), "to be without --shutdown-grace-period"));
    }
    let grace = |text: &String| {
        let bad = || FlagError::new(BY_PRIORITY, text, "PRIORITY=SECONDS, such as 0=30");
        let (priority, seconds) = text.split_once('=').ok_or_else(bad)?;
        let (priority, seconds) = (priority.parse().map_err(|_| bad())?, seconds.parse::<u32>().map_err(|_| bad())?);
        Ok(Grace { priority, period: Duration::from_secs(seconds.into()) })
    };
    let mut out: Vec<Grace> = list.iter().map(grace).collect::<Result<_, _>>()?;
    out.sort_by_key(|g| g.priority);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grace(priority: i32, seconds: u64) -> Grace {
        Grace { priority, period: Duration::from_secs(seconds) }
    }

    fn flags(total: Option<&str>, critical: Option<&str>, by: &[&str], restart: Option<&str>) -> PodLifeFlags {
        PodLifeFlags {
            pod_manifest_path: None,
            shutdown_grace_period: total.map(str::to_owned),
            shutdown_grace_period_critical_pods: critical.map(str::to_owned),
            shutdown_grace_period_by_pod_priority: by.iter().map(|s| (*s).to_owned()).collect(),
            max_container_restart_period: restart.map(str::to_owned),
            allowed_unsafe_sysctls: Vec::new(),
        }
    }

    #[test]
    fn grace_is_given_by_kind_or_by_priority() {
        let check = |flags: PodLifeFlags, want: &[Grace]| assert_eq!(PodLife::resolve(&flags).expect("good").shutdown, want);
        check(flags(None, None, &[], None), &[]);
        check(flags(Some("30s"), Some("10s"), &[], None), &[grace(0, 20), grace(2_000_000_000, 10)]);
        check(flags(None, None, &["1000=5", "0=10"], None), &[grace(0, 10), grace(1000, 5)]);
        let life = PodLife::resolve(&flags(None, None, &[], Some("1m"))).expect("good");
        assert_eq!(life.longest_backoff, Some(Duration::from_secs(60)));
        let sysctls = |patterns: &[&str]| PodLifeFlags {
            allowed_unsafe_sysctls: patterns.iter().map(|p| (*p).to_owned()).collect(),
            ..flags(None, None, &[], None)
        };
        assert_eq!(PodLife::resolve(&sysctls(&["net.*", "kernel/msgmax"])).expect("good").allowed_sysctls, ["net.*", "kernel.msgmax"]);
        let refused = PodLife::resolve(&sysctls(&["net.*", "vm.swappiness"])).expect_err("refused").to_string();
        assert!(refused.starts_with("--allowed-unsafe-sysctls "), "{refused}");
    }

    #[test]
    fn impossible_values_are_named() {
        for (flags, flag) in [
            (flags(Some("1ms"), None, &[], None), "shutdown-grace-period"),
            (flags(Some("x"), None, &[], None), "shutdown-grace-period"),
            (flags(Some("5s"), Some("6s"), &[], None), "shutdown-grace-period-critical-pods"),
            (flags(Some("5s"), None, &["0=1"], None), "shutdown-grace-period-by-pod-priority"),
            (flags(None, None, &["0:1"], None), "shutdown-grace-period-by-pod-priority"),
            (flags(None, None, &[], Some("0s")), "max-container-restart-period"),
            (flags(None, None, &[], Some("10m")), "max-container-restart-period"),
        ] {
            assert!(PodLife::resolve(&flags).expect_err("refused").to_string().starts_with(&format!("--{flag} ")), "{flags:?}");
        }
    }
}
