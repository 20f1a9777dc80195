//! Flags on what the node keeps for itself and when it is short, named as upstream's kubelet names them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use coracle_agent::eviction::pressure::{Least, Settings, Signal};
use coracle_api::quantity::Quantity;

use super::server::{FlagError, duration};

/// What can be kept for others than pods.
const RESERVABLE: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];

/// Flags of the node on its resources.
#[derive(Clone, Debug, Default, Args)]
pub struct NodeResourceFlags {
    /// Where device plugins and monitors look for the node's sockets [default: /var/lib/kubelet; kubelet in another data directory]
    #[arg(long, env = "CORACLE_ROOT_DIR", value_name = "DIR")]
    pub root_dir: Option<PathBuf>,
    /// Kept for Coracle itself, and not for pods: cpu, memory, ephemeral-storage, pid [default: nothing]
    #[arg(long, env = "CORACLE_KUBE_RESERVED", value_name = "RESOURCE=AMOUNT", value_delimiter = ',')]
    pub kube_reserved: Vec<String>,
    /// Kept for the rest of the machine, and not for pods [default: nothing]
    #[arg(long, env = "CORACLE_SYSTEM_RESERVED", value_name = "RESOURCE=AMOUNT", value_delimiter = ',')]
    pub system_reserved: Vec<String>,
    /// What must be left before pods are ended [default: memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,pid.available<10%]
    #[arg(long, env = "CORACLE_EVICTION_HARD", value_name = "SIGNAL<AMOUNT", value_delimiter = ',')]
    pub eviction_hard: Vec<String>,
    /// What must be left, or pods are ended with their grace once less was left for a while [default: nothing]
    #[arg(long, env = "CORACLE_EVICTION_SOFT", value_name = "SIGNAL<AMOUNT", value_delimiter = ',')]
    pub eviction_soft: Vec<String>,
    /// How long that is borne, for each signal of --eviction-soft
    #[arg(long, env = "CORACLE_EVICTION_SOFT_GRACE_PERIOD", value_name = "SIGNAL=DURATION", value_delimiter = ',')]
    pub eviction_soft_grace_period: Vec<String>,
    /// The longest grace of a pod that is ended so, in seconds [default: 0]
    #[arg(long, env = "CORACLE_EVICTION_MAX_POD_GRACE_PERIOD", value_name = "SECONDS")]
    pub eviction_max_pod_grace_period: Option<u32>,
    /// How much more than a threshold must be left once pods were ended for it [default: nothing]
    #[arg(long, env = "CORACLE_EVICTION_MINIMUM_RECLAIM", value_name = "SIGNAL=AMOUNT", value_delimiter = ',')]
    pub eviction_minimum_reclaim: Vec<String>,
    /// How long the node's conditions outlive their cause [default: 5m]
    #[arg(long, env = "CORACLE_EVICTION_PRESSURE_TRANSITION_PERIOD", value_name = "DURATION")]
    pub eviction_pressure_transition_period: Option<String>,
    /// Processes that a pod may have [default: as many as the node]
    #[arg(long, env = "CORACLE_POD_MAX_PIDS", value_name = "N", allow_hyphen_values = true)]
    pub pod_max_pids: Option<i64>,
    /// Protect requested memory, and slow containers down from this share of the way to their limit on; cgroup v2 [default: neither]
    #[arg(long, env = "CORACLE_MEMORY_THROTTLING_FACTOR", value_name = "0..1")]
    pub memory_throttling_factor: Option<f64>,
}

/// What they say, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeResources {
    /// Where the node's sockets are, if not at their default.
    pub root_dir: Option<PathBuf>,
    /// Kept for others than pods, both together.
    pub reserved: BTreeMap<String, String>,
    /// When the node is short.
    pub eviction: Settings,
    /// Of a pod.
    pub pod_pids: Option<i64>,
    /// Where containers are slowed down.
    pub memory_throttling_factor: Option<f64>,
}

impl NodeResources {
    /// Checks the flags.
    pub fn resolve(flags: &NodeResourceFlags) -> Result<Self, FlagError> {
        let mut reserved: BTreeMap<String, Quantity> = BTreeMap::new();
        for (flag, list) in [("kube-reserved", &flags.kube_reserved), ("system-reserved", &flags.system_reserved)] {
            for text in list {
                let (name, amount) = reservation(flag, text)?;
                let sum = reserved.entry(name).or_insert(Quantity::from_units(0));
                *sum = sum.plus(amount);
            }
        }
        let eviction = eviction(flags)?;
        if flags.pod_max_pids == Some(0) {
            return Err(FlagError::new("pod-max-pids", "0", "a number of processes, or -1 for as many as the node"));
        }
        if let Some(factor) = flags.memory_throttling_factor.filter(|f| !(0.0..=1.0).contains(f) || *f == 0.0) {
            return Err(FlagError::new("memory-throttling-factor", &factor.to_string(), "a share above 0, and 1 at most"));
        }
        Ok(Self {
            memory_throttling_factor: flags.memory_throttling_factor,
            root_dir: flags.root_dir.clone(),
            reserved: reserved.into_iter().map(|(name, amount)| (name, amount.to_string())).collect(),
            eviction,
            pod_pids: flags.pod_max_pids.filter(|n| *n > 0),
        })
    }
}

fn reservation(flag: &'static str, text: &str) -> Result<(String, Quantity), FlagError> {
    let bad = || FlagError::new(flag, text, "RESOURCE=AMOUNT with cpu, memory, ephemeral-storage or pid, such as memory=256Mi");
    let (name, amount) = text.split_once('=').ok_or_else(bad)?;
    let amount: Quantity = amount.parse().map_err(|_| bad())?;
    if !RESERVABLE.contains(&name) || amount.signum() < 0 {
        return Err(bad());
    }
    Ok((name.to_owned(), amount))
}

/// When pods are ended for want of something, and how.
fn eviction(flags: &NodeResourceFlags) -> Result<Settings, FlagError> {
    const SOFT: &str = "eviction-soft";
    const GRACE: &str = "eviction-soft-grace-period";
    const RECLAIM: &str = "eviction-minimum-reclaim";
    const TRANSITION: &str = "eviction-pressure-transition-period";
    let mut eviction = Settings::default();
    for text in &flags.eviction_hard {
        let (signal, least) = threshold("eviction-hard", text)?;
        eviction.set(signal, least, None);
    }
    let mut graces = BTreeMap::new();
    for text in &flags.eviction_soft_grace_period {
        let bad = || FlagError::new(GRACE, text, "SIGNAL=DURATION, such as memory.available=1m30s");
        let (signal, grace) = text.split_once('=').ok_or_else(bad)?;
        graces.insert(Signal::of(signal).ok_or_else(bad)?, duration(grace).ok_or_else(bad)?);
    }
    for text in &flags.eviction_soft {
        let (signal, least) = threshold(SOFT, text)?;
        let missing = || FlagError::new(SOFT, text, "an --eviction-soft-grace-period for the same signal");
        eviction.set(signal, least, Some(*graces.get(&signal).ok_or_else(missing)?));
    }
    for text in &flags.eviction_minimum_reclaim {
        let bad = || FlagError::new(RECLAIM, text, "SIGNAL=AMOUNT, such as nodefs.available=500Mi or 2%");
        let (signal, amount) = text.split_once('=').ok_or_else(bad)?;
        let (signal, more) = (Signal::of(signal).ok_or_else(bad)?, least(amount).ok_or_else(bad)?);
        eviction.thresholds.iter_mut().filter(|t| t.signal == signal).for_each(|t| t.reclaim = Some(more));
    }
    if let Some(seconds) = flags.eviction_max_pod_grace_period {
        eviction.most_grace = Duration::from_secs(seconds.into());
    }
    if let Some(text) = &flags.eviction_pressure_transition_period {
        let bad = || FlagError::new(TRANSITION, text, "a duration such as 5m or 30s");
        eviction.transition = duration(text).ok_or_else(bad)?;
    }
    Ok(eviction)
}

/// `nodefs.available<10%`.
fn threshold(flag: &'static str, text: &str) -> Result<(Signal, Least), FlagError> {
    let bad = || FlagError::new(flag, text, "SIGNAL<AMOUNT, such as memory.available<100Mi or nodefs.available<10%");
    let (signal, amount) = text.split_once('<').ok_or_else(bad)?;
    Signal::of(signal).zip(least(amount)).ok_or_else(bad)
}

fn least(amount: &str) -> Option<Least> {
    match amount.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|p| *p <= 100).map(Least::Percent),
        None => amount.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.units()).ok()).map(Least::Of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn reservations_add_up_and_thresholds_replace() {
        let flags = NodeResourceFlags {
            kube_reserved: texts(&["cpu=100m", "memory=100Mi"]),
            system_reserved: texts(&["memory=28Mi", "pid=100"]),
            eviction_hard: texts(&["nodefs.available<10%", "memory.available<1Gi", "imagefs.available<15%"]),
            pod_max_pids: Some(-1),
            ..NodeResourceFlags::default()
        };
        let resources = NodeResources::resolve(&flags).expect("good");
        let want = [("cpu", "100m"), ("memory", "128Mi"), ("pid", "100")].map(|(n, a)| (n.to_owned(), a.to_owned()));
        assert_eq!(resources.reserved, BTreeMap::from(want));
        let mut want = Settings::default();
        want.set(Signal::Memory, Least::Of(1 << 30), None);
        want.set(Signal::Disk, Least::Percent(10), None);
        want.set(Signal::Images, Least::Percent(15), None);
        assert_eq!((resources.eviction, resources.pod_pids), (want, None));
        assert_eq!(NodeResources::resolve(&NodeResourceFlags::default()).expect("good").eviction, Settings::default());
    }

    #[test]
    fn soft_thresholds_have_a_grace_and_what_must_be_gained() {
        let flags = NodeResourceFlags {
            eviction_soft: texts(&["memory.available<1Gi"]),
            eviction_soft_grace_period: texts(&["memory.available=1m30s"]),
            eviction_max_pod_grace_period: Some(60),
            eviction_minimum_reclaim: texts(&["memory.available=64Mi", "nodefs.available=2%"]),
            eviction_pressure_transition_period: Some("30s".into()),
            ..NodeResourceFlags::default()
        };
        let eviction = NodeResources::resolve(&flags).expect("good").eviction;
        let got: Vec<_> = eviction.thresholds.iter().map(|t| (t.signal, t.grace.map(|g| g.as_secs()), t.reclaim)).collect();
        let want = [
            (Signal::Memory, None, Some(Least::Of(64 << 20))),
            (Signal::Disk, None, Some(Least::Percent(2))),
            (Signal::Inodes, None, None),
            (Signal::Pids, None, None),
            (Signal::Memory, Some(90), Some(Least::Of(64 << 20))),
        ];
        assert_eq!((got.as_slice(), eviction.most_grace.as_secs(), eviction.transition.as_secs()), (&want[..], 60, 30));
    }

    #[test]
    fn impossible_values_are_named() {
        let none = NodeResourceFlags::default;
        for (flags, flag) in [
            (NodeResourceFlags { kube_reserved: texts(&["disk=1Gi"]), ..none() }, "kube-reserved"),
            (NodeResourceFlags { system_reserved: texts(&["memory=-1"]), ..none() }, "system-reserved"),
            (NodeResourceFlags { system_reserved: texts(&["memory"]), ..none() }, "system-reserved"),
            (NodeResourceFlags { eviction_hard: texts(&["nodefs.available=1"]), ..none() }, "eviction-hard"),
            (NodeResourceFlags { eviction_hard: texts(&["nodefs.available<101%"]), ..none() }, "eviction-hard"),
            (NodeResourceFlags { eviction_hard: texts(&["swap.available<1%"]), ..none() }, "eviction-hard"),
            (NodeResourceFlags { eviction_soft: texts(&["memory.available<1Gi"]), ..none() }, "eviction-soft"),
            (NodeResourceFlags { eviction_soft_grace_period: texts(&["memory.available=soon"]), ..none() }, "eviction-soft-grace-period"),
            (NodeResourceFlags { eviction_minimum_reclaim: texts(&["memory=1Gi"]), ..none() }, "eviction-minimum-reclaim"),
            (NodeResourceFlags { eviction_pressure_transition_period: Some("x".into()), ..none() }, "eviction-pressure-transition-period"),
            (NodeResourceFlags { pod_max_pids: Some(0), ..none() }, "pod-max-pids"),
            (NodeResourceFlags { memory_throttling_factor: Some(0.0), ..none() }, "memory-throttling-factor"),
            (NodeResourceFlags { memory_throttling_factor: Some(f64::NAN), ..none() }, "memory-throttling-factor"),
        ] {
            assert!(NodeResources::resolve(&flags).expect_err("refused").to_string().starts_with(&format!("--{flag} ")), "{flags:?}");
        }
    }
}
