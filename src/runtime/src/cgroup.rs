//! Control groups of pods and containers, on cgroup v2 and on hosts that still have v1 hierarchies (then also in v2's, for the network's hooks).
//!
//! Only directories below a path that this crate was given are made, written or removed.

use std::{
    fs,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{Mode, OFlags};

use crate::{CgroupDetail, ContainerStats, Resources};

/// Tries to remove a cgroup whose last process is being reaped, each twice as long after the one before: about two seconds in all.
const REMOVE_TRIES: u32 = 11;
/// Looks at a root that is to be empty before what still comes in is left to fail.
const EMPTY_TRIES: u32 = 10;
/// Where the processes of a root that is not the machine's own go.
const MOVED: &str = "init";
/// Controllers that are turned on below the root on v2.
const CONTROLLERS: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];

/// How this machine mounts its hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// v2 alone.
    Unified(PathBuf),
    /// v1 hierarchies by their controllers, and where v2 is beside them.
    Legacy { v1: Vec<(Vec<String>, PathBuf)>, unified: Option<PathBuf> },
}

/// A control group in every hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    hierarchies: Hierarchies,
    path: String,
}

impl Hierarchies {
    pub(crate) fn detect() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mounts")?))
    }

    fn parse(mounts: &str) -> Self {
        let mut v1 = Vec::new();
        let mut unified = None;
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(at), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else { continue };
            if !at.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match kind {
                "cgroup2" if at == "/sys/fs/cgroup" => return Self::Unified(at.into()),
                "cgroup2" => unified = unified.or(Some(at.into())),
                "cgroup" => v1.push((options.split(',').map(str::to_owned).collect(), at.into())),
                _ => {}
            }
        }
        Self::Legacy { v1, unified }
    }
}

impl Cgroup {
    /// `path` is relative to the hierarchies' roots; parts that lead out are refused.
    pub(crate) fn new(hierarchies: &Hierarchies, path: &str) -> io::Result<Self> {
        let path = path.trim_matches('/').to_owned();
        if path.is_empty() || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is no path of a cgroup of ours")));
        }
        Ok(Self { hierarchies: hierarchies.clone(), path })
    }

    pub(crate) fn child(&self, name: &str) -> Self {
        Self { hierarchies: self.hierarchies.clone(), path: format!("{}/{name}", self.path) }
    }

    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        match &self.hierarchies {
            Hierarchies::Unified(root) => vec![root.join(&self.path)],
            Hierarchies::Legacy { v1, unified } => {
                v1.iter().map(|(_, root)| root).chain(unified).map(|root| root.join(&self.path)).collect()
            }
        }
    }

    /// The directory that has the files of a v1 controller (or, on v2, all files).
    fn with(&self, controller: &str) -> Option<PathBuf> {
        match &self.hierarchies {
            Hierarchies::Unified(root) => Some(root.join(&self.path)),
            Hierarchies::Legacy { v1, .. } => {
                v1.iter().find(|(names, _)| names.iter().any(|name| name == controller)).map(|(_, root)| root.join(&self.path))
            }
        }
    }

    /// Whether v2 is all there is.
    pub(crate) fn is_v2(&self) -> bool {
        matches!(self.hierarchies, Hierarchies::Unified(_))
    }

    /// The v2 directory of this group: the network's and the device filter's programs attach to it.
    pub(crate) fn v2_dir(&self) -> Option<PathBuf> {
        match &self.hierarchies {
            Hierarchies::Unified(root) | Hierarchies::Legacy { unified: Some(root), .. } => Some(root.join(&self.path)),
            Hierarchies::Legacy { .. } => None,
        }
    }

    /// A descriptor of the v2 directory, for a process to be born there; `None` on a machine without v2.
    pub(crate) fn v2_birthplace(&self) -> io::Result<Option<OwnedFd>> {
        self.v2_dir().map(|dir| birthplace(&dir)).transpose()
    }

    /// The same for a process beside another of this group: where the container has made groups of its own with controllers (an init system, another
    /// runtime), no process can be in this one any more, and the other one's is taken.
    pub(crate) fn v2_birthplace_beside(&self, pid: u32) -> io::Result<Option<OwnedFd>> {
        let Hierarchies::Unified(root) = &self.hierarchies else { return self.v2_birthplace() };
        let own = root.join(&self.path);
        if fs::read_to_string(own.join("cgroup.subtree_control")).is_ok_and(|on| on.trim().is_empty()) {
            return birthplace(&own).map(Some);
        }
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let other = root.join(path);
        birthplace(if other.starts_with(&own) { &other } else { &own }).map(Some)
    }

    /// Its directories by the names that their hierarchies have below /sys/fs/cgroup; v2 alone has none.
    pub(crate) fn named_dirs(&self) -> Vec<(String, PathBuf)> {
        let named = |root: &PathBuf| {
            let name = root.strip_prefix("/sys/fs/cgroup").unwrap_or(root).to_string_lossy().into_owned();
            (name, root.join(&self.path))
        };
        match &self.hierarchies {
            Hierarchies::Unified(root) => vec![named(root)],
            Hierarchies::Legacy { v1, unified } => v1.iter().map(|(_, root)| root).chain(unified).map(named).collect(),
        }
    }

    /// Makes it and what is above it.
    pub(crate) fn create(&self) -> io::Result<()> {
        if let Hierarchies::Unified(root) = &self.hierarchies {
            let mut at = root.clone();
            for part in self.path.split('/') {
                enable_controllers(&at, at == *root);
                at.push(part);
                make_dir(&at)?;
            }
            return Ok(());
        }
        for dir in self.dirs() {
            fs::create_dir_all(&dir)?;
        }
        // A v1 cpuset starts empty, and an empty one takes no process.
        if let Some(dir) = self.with("cpuset") {
            let above = dir.ancestors().skip(1).take(self.path.split('/').count()).collect::<Vec<_>>();
            for level in above.into_iter().rev().skip(1).chain([dir.as_path()]) {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if fs::read_to_string(level.join(file)).is_ok_and(|now| now.trim().is_empty())
                        && let Some(parent) = level.parent()
                    {
                        write(level, file, fs::read_to_string(parent.join(file))?.trim())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves the caller, a process of one thread, into its v1 groups. By `tasks`: what moves only itself waits for nobody, while `cgroup.procs` waits
    /// until every processor of the machine has passed a quiet moment, 10 to 20 ms. (Into v2's a process is born: `v2_birthplace`.)
    pub(crate) fn join_v1(&self) -> io::Result<()> {
        let Hierarchies::Legacy { v1, .. } = &self.hierarchies else { return Ok(()) };
        v1.iter().try_for_each(|(_, root)| write(&root.join(&self.path), "tasks", "0"))
    }

    /// Moves the caller into its v2 group, with the wait of `join_v1`: for a shim, whose parent has threads and cannot have it born there.
    pub(crate) fn join_v2(&self) -> io::Result<()> {
        self.v2_dir().map_or(Ok(()), |dir| write(&dir, "cgroup.procs", "0"))
    }

    /// Sets limits. `whole` is a container: on v2 it never swaps, and is killed as a whole at memory shortage, whoever is short.
    pub(crate) fn limit(&self, resources: &Resources, whole: bool) -> io::Result<()> {
        let set = |controller: &str, file: &str, value: String| match self.with(controller) {
            Some(dir) => write(&dir, file, &value),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, format!("this kernel has no {controller} controller"))),
        };
        let or_max = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
        if self.is_v2() {
            if let Some(shares) = resources.cpu_shares {
                set("cpu", "cpu.weight", cpu_weight(shares).to_string())?;
            }
            if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
                let quota = resources.cpu_quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
                set("cpu", "cpu.max", format!("{quota} {}", resources.cpu_period.unwrap_or(100_000)))?;
            }
            if let Some(memory) = resources.memory_limit {
                set("memory", "memory.max", or_max(memory))?;
            }
            if whole {
                // A kernel without swap has no such file, and none of them where the firmware has switched the memory controller off.
                ignore_missing(set("memory", "memory.swap.max", "0".to_owned()))?;
                ignore_missing(set("memory", "memory.oom.group", "1".to_owned()))?;
            }
        } else {
            if let Some(shares) = resources.cpu_shares {
                set("cpu", "cpu.shares", shares.clamp(2, 262_144).to_string())?;
            }
            if let Some(period) = resources.cpu_period {
                set("cpu", "cpu.cfs_period_us", period.to_string())?;
            }
            if let Some(quota) = resources.cpu_quota {
                set("cpu", "cpu.cfs_quota_us", if quota > 0 { quota } else { -1 }.to_string())?;
            }
            if let Some(memory) = resources.memory_limit {
                // The two limits bind each other: raised, memory+swap goes first; lowered, it goes last.
                let swap = set("memory", "memory.memsw.limit_in_bytes", memory.to_string());
                set("memory", "memory.limit_in_bytes", memory.to_string())?;
                if swap.is_err() {
                    ignore_missing(set("memory", "memory.memsw.limit_in_bytes", memory.to_string()))?;
                }
            }
        }
        if let Hierarchies::Unified(root) = &self.hierarchies {
            let dir = root.join(&self.path);
            resources.unified.iter().filter(|(file, _)| !file.contains('/')).try_for_each(|(file, value)| write(&dir, file, value))?;
        }
        if let Some(pids) = resources.pids_limit {
            set("pids", "pids.max", if pids <= 0 { "max".to_owned() } else { pids.to_string() })?;
        }
        for (size, bytes) in &resources.hugepages {
            let file = |kind: &str| format!("hugetlb.{size}.{kind}{}", if self.is_v2() { "max" } else { "limit_in_bytes" });
            // Those that are only reserved count as well: a process is told that there are no more, and not killed when it touches them.
            let reserved = ignore_missing(set("hugetlb", &file("rsvd."), bytes.to_string()));
            match reserved.and_then(|()| set("hugetlb", &file(""), bytes.to_string())) {
                // A kernel without the controller gives them out all the same.
                Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::NotFound) => {
                    tracing::debug!(%error, "huge pages are not limited");
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Whether rules on devices are kept by the kernel: on v2 always, on v1 by a controller that may not be there.
    pub(crate) fn guards_devices(&self) -> bool {
        self.is_v2() || self.with("devices").is_some()
    }

    /// On v1: nothing but what the rules name. (On v2 a program does that, `devices.rs`.)
    pub(crate) fn limit_devices_v1(&self, rules: &[String]) -> io::Result<()> {
        let (Hierarchies::Legacy { .. }, Some(dir)) = (&self.hierarchies, self.with("devices")) else { return Ok(()) };
        write(&dir, "devices.deny", "a")?;
        let mut allow = fs::File::options().write(true).open(dir.join("devices.allow"))?;
        // One rule a write.
        rules.iter().try_for_each(|rule| allow.write_all(rule.as_bytes()))
    }

    /// Processes killed in it for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        self.with("memory").and_then(|dir| field(&dir, file, "oom_kill")).unwrap_or(0)
    }

    pub(crate) fn stats(&self) -> io::Result<ContainerStats> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let memory = self.with("memory").ok_or_else(missing)?;
        let cpu = if self.is_v2() {
            field(&memory, "cpu.stat", "usage_usec").unwrap_or(0) * 1000
        } else {
            self.with("cpuacct").and_then(|dir| number(&dir, "cpuacct.usage")).unwrap_or(0)
        };
        let throttled = self.with("cpu").map(|dir| fs::read_to_string(dir.join("cpu.stat")).unwrap_or_default()).unwrap_or_default();
        let (cpu_periods, cpu_throttled_periods, cpu_throttled_nanoseconds) = throttling(&throttled);
        let (usage, inactive, rss) = if self.is_v2() {
            (number(&memory, "memory.current"), field(&memory, "memory.stat", "inactive_file"), field(&memory, "memory.stat", "anon"))
        } else {
            (
                number(&memory, "memory.usage_in_bytes"),
                field(&memory, "memory.stat", "total_inactive_file"),
                field(&memory, "memory.stat", "total_rss"),
            )
        };
        let usage = usage.ok_or_else(missing)?;
        Ok(ContainerStats {
            cpu_nanoseconds: cpu,
            cpu_periods,
            cpu_throttled_periods,
            cpu_throttled_nanoseconds,
            memory_usage: usage,
            memory_working_set: usage.saturating_sub(inactive.unwrap_or(0)),
            memory_rss: rss.unwrap_or(0),
            pids: self.with("pids").and_then(|dir| number(&dir, "pids.current")).unwrap_or(0),
            rootfs_bytes: 0,
            rootfs_inodes: 0,
            detail: Some(self.detail(&memory)),
        })
    }

    /// What is left to tell, of its memory's directory and others; a kernel without swap has no figure of it.
    fn detail(&self, memory: &Path) -> CgroupDetail {
        let cpu = |v1: &str, v2: &str| match self.is_v2() {
            true => field(memory, "cpu.stat", v2).map(|microseconds| microseconds * 1000),
            false => self.with("cpuacct").and_then(|dir| number(&dir, v1)),
        };
        let (swap, failures) = match self.is_v2() {
            true => (number(memory, "memory.swap.current"), field(memory, "memory.events", "max")),
            false => (field(memory, "memory.stat", "total_swap"), number(memory, "memory.failcnt")),
        };
        CgroupDetail {
            cpu_user_nanoseconds: cpu("cpuacct.usage_user", "user_usec").unwrap_or(0),
            cpu_system_nanoseconds: cpu("cpuacct.usage_sys", "system_usec").unwrap_or(0),
            memory_swap: swap.unwrap_or(0),
            memory_failures: failures.unwrap_or(0),
            oom_kills: self.oom_kills(),
        }
    }

    /// All processes in it and below.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        // Any one hierarchy has them all; one that a tool mounted on its own may not.
        let dir = match &self.hierarchies {
            Hierarchies::Unified(root) => Some(root.join(&self.path)),
            Hierarchies::Legacy { .. } => self.with("pids").or_else(|| self.with("memory")).or_else(|| self.v2_dir()),
        };
        if let Some(dir) = dir {
            collect(&dir, &mut pids);
        }
        pids
    }

    /// SIGKILL to every process in it.
    pub(crate) fn kill(&self) {
        if let Hierarchies::Unified(root) = &self.hierarchies
            && write(&root.join(&self.path), "cgroup.kill", "1").is_ok()
        {
            return;
        }
        for pid in self.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Kills what is in it and removes it with all below; what is not there is no error.
    pub(crate) async fn remove(&self) -> io::Result<()> {
        let mut pause = Duration::from_millis(1);
        for last in (0..REMOVE_TRIES).map(|n| n + 1 == REMOVE_TRIES) {
            let failed = self.dirs().iter().map(|dir| remove_tree(dir)).find(Result::is_err);
            match failed {
                None => return Ok(()),
                Some(error) if last => return error,
                Some(_) => self.kill(),
            }
            // A killed process leaves its groups when it is reaped; v1 has no event for that.
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Ok(())
    }
}

/// Kubernetes' translation of cpu shares (2 to 262144) to a weight of v2 (1 to 10000).
fn cpu_weight(shares: u64) -> u64 {
    // The curve of the OCI runtimes since 2025 (KEP-2254): 1024 shares, one core, is about the kernel's default of 100.
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

fn birthplace(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Turns on what there is; a controller that cannot be turned on shows when a limit needs it.
fn enable_controllers(dir: &Path, root: bool) {
    let (Ok(have), Ok(on)) = (fs::read_to_string(dir.join("cgroup.controllers")), fs::read_to_string(dir.join("cgroup.subtree_control")))
    else {
        return;
    };
    for name in have.split_whitespace().filter(|name| CONTROLLERS.contains(name) && !on.split_whitespace().any(|other| other == *name)) {
        let enable = || write(dir, "cgroup.subtree_control", &format!("+{name}"));
        let enabled = match enable() {
            Err(error) if root && error.kind() == io::ErrorKind::ResourceBusy => make_room(dir).and_then(|()| enable()),
            other => other,
        };
        if let Err(error) = enabled {
            tracing::debug!(controller = name, %error, "cgroup controller stays off");
        }
    }
}

/// In a container the root of the hierarchy is a group as any other: while processes are in it, its groups have no controllers. All of them are the
/// container's, and go to a group of their own.
fn make_room(root: &Path) -> io::Result<()> {
    // The machine's own root has no type, and may have processes.
    if !root.join("cgroup.type").exists() {
        return Ok(());
    }
    let moved = root.join(MOVED);
    make_dir(&moved)?;
    for _ in 0..EMPTY_TRIES {
        let pids = fs::read_to_string(root.join("cgroup.procs"))?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids.lines() {
            match fs::write(moved.join("cgroup.procs"), pid) {
                // It has ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    // Opened without O_CREAT: a file that is not there must be told as that, and not as one that may not be made.
    let written = fs::File::options().write(true).open(dir.join(file)).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|error| io::Error::new(error.kind(), format!("{}/{file} = {value}: {error}", dir.display())))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

fn field(dir: &Path, file: &str, name: &str) -> Option<u64> {
    named(&fs::read_to_string(dir.join(file)).ok()?, name)
}

fn named(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Of a `cpu.stat`: periods, those that were throttled, and nanoseconds of waiting. v2 tells these in microseconds.
fn throttling(stat: &str) -> (u64, u64, u64) {
    let of = |name| named(stat, name);
    let waited = of("throttled_time").or_else(|| Some(of("throttled_usec")? * 1000));
    (of("nr_periods").unwrap_or(0), of("nr_throttled").unwrap_or(0), waited.unwrap_or(0))
}

fn collect(dir: &Path, into: &mut Vec<u32>) {
    if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
        into.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), into);
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_by_their_mounts() {
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(Hierarchies::parse(unified), Hierarchies::Unified("/sys/fs/cgroup".into()));
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /elsewhere cgroup rw,memory 0 0\n";
        let expected = Hierarchies::Legacy {
            v1: vec![(vec!["rw".into(), "cpu".into(), "cpuacct".into()], "/sys/fs/cgroup/cpu,cpuacct".into())],
            unified: Some("/sys/fs/cgroup/unified".into()),
        };
        assert_eq!(Hierarchies::parse(hybrid), expected);
    }

    #[test]
    fn throttling_is_read_in_both_versions() {
        assert_eq!(throttling("nr_periods 9\nnr_throttled 4\nthrottled_time 5000\n"), (9, 4, 5000));
        let v2 = "usage_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 5\nnr_bursts 0\n";
        assert_eq!(throttling(v2), (9, 4, 5000));
        assert_eq!(throttling(""), (0, 0, 0));
    }

    #[test]
    fn a_path_never_leads_to_foreign_groups() {
        let layout = Hierarchies::Unified("/sys/fs/cgroup".into());
        for bad in ["", "/", "a/../b", "..", "a//b", "./a"] {
            assert!(Cgroup::new(&layout, bad).is_err(), "{bad}");
        }
        assert_eq!(Cgroup::new(&layout, "/a/b").unwrap().child("c").dirs(), [PathBuf::from("/sys/fs/cgroup/a/b/c")]);
    }

    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [(2, 1), (102, 17), (1024, 100), (262_144, 10_000), (0, 1), (u64::MAX, 10_000)] {
            let got = cpu_weight(shares);
            assert!(got.abs_diff(weight) <= 1, "{shares}: {got}, about {weight} expected");
        }
    }
}
