//! `coracle doctor`: what the machine offers, and what to do about the rest.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::Instant,
};

use coracle_network::probe::{Finding, Verdict, probe};

use crate::{
    cli::Role,
    config::server::ServerConfig,
    failure::{Failure, need_root},
};

/// Syncs that are timed.
const SYNCS: usize = 20;
/// A disk that needs longer than this for a sync makes every write of the cluster slow.
const SLOW_SYNC_MICROSECONDS: u128 = 20_000;

/// Prints a line per finding; fails when something that is needed is missing.
pub fn doctor(data_dir: &Path) -> Result<(), Failure> {
    let mut findings = vec![root(), controllers(), ports(), clock(), sync(data_dir)];
    findings.extend(probe());
    let mut missing = 0;
    for Finding { what, verdict } in &findings {
        let (mark, text) = match verdict {
            Verdict::Good(text) => ("ok     ", text),
            Verdict::Lacking(text) => ("lacking", text),
            Verdict::Missing(text) => {
                missing += 1;
                ("MISSING", text)
            }
        };
        println!("{mark} {what:<24} {text}");
    }
    if missing == 0 { Ok(()) } else { Err(Failure::new(format!("{missing} of {} things that coracle needs are missing", findings.len()))) }
}

/// Fails by the first thing that the roles of this process need and the machine lacks, before anything is begun.
pub fn need(config: &ServerConfig) -> Result<(), Failure> {
    need_root()?;
    let network = if config.has(Role::Network) { probe() } else { Vec::new() };
    let missing = network.into_iter().chain(config.has(Role::Agent).then(controllers)).find_map(|finding| match finding.verdict {
        Verdict::Missing(text) => Some(format!("this machine cannot be a node ({}): {text}", finding.what)),
        Verdict::Good(_) | Verdict::Lacking(_) => None,
    });
    missing.map_or(Ok(()), |text| Err(Failure::new(text)))
}

fn root() -> Finding {
    let verdict = if nix::unistd::geteuid().is_root() {
        Verdict::Good("yes".into())
    } else {
        Verdict::Missing("run as root (sudo): containers and eBPF need it".into())
    };
    Finding { what: "root", verdict }
}

fn controllers() -> Finding {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let v1 = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
    let lacks: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|c| !v2.split_whitespace().any(|have| have == *c)).collect();
    let verdict = match (lacks.is_empty(), v1) {
        (true, _) => Verdict::Good(format!("v2: {}", v2.trim())),
        (false, true) => {
            Verdict::Lacking("hybrid v1: works; boot with systemd.unified_cgroup_hierarchy=1 for device filters and memory QoS".into())
        }
        (false, false) => Verdict::Missing(format!(
            "no {} controller: limits of pods cannot be kept; enable it on the kernel's command line",
            lacks.join(", ")
        )),
    };
    Finding { what: "cgroup controllers", verdict }
}

fn ports() -> Finding {
    let taken: Vec<String> =
        [6443u16, 10250].iter().filter(|p| TcpListener::bind((Ipv4Addr::UNSPECIFIED, **p)).is_err()).map(u16::to_string).collect();
    let verdict = if taken.is_empty() {
        Verdict::Good("6443 and 10250 are free".into())
    } else {
        Verdict::Lacking(format!(
            "{} taken: end who has it, or choose others with --https-listen-port and --kubelet-port",
            taken.join(" and ")
        ))
    };
    Finding { what: "ports", verdict }
}

fn clock() -> Finding {
    let now = jiff::Timestamp::now();
    // 2026-01-01: nothing that this program makes is older.
    let verdict = if now.as_second() > 1_767_225_600 {
        Verdict::Good(now.to_string())
    } else {
        Verdict::Missing(format!("{now} is in the past: certificates would be invalid; set the clock"))
    };
    Finding { what: "clock", verdict }
}

fn sync(data_dir: &Path) -> Finding {
    let directory = data_dir.ancestors().find(|d| d.is_dir()).unwrap_or(Path::new("/"));
    let verdict = match time_sync(directory) {
        Ok(micros) if micros <= SLOW_SYNC_MICROSECONDS => Verdict::Good(format!("{micros} us in {}", directory.display())),
        Ok(micros) => {
            Verdict::Lacking(format!("{micros} us in {}: writes will be slow; put --data-dir on a faster disk", directory.display()))
        }
        Err(error) => Verdict::Missing(format!("cannot write to {}: {error}", directory.display())),
    };
    Finding { what: "fdatasync", verdict }
}

/// Median of some appended and synced blocks.
fn time_sync(directory: &Path) -> std::io::Result<u128> {
    let path = directory.join(format!(".coracle-doctor-{}", std::process::id()));
    let mut file = File::create_new(&path)?;
    let mut once = || {
        let began = Instant::now();
        file.write_all(&[0; 4096]).and_then(|()| file.sync_data()).map(|()| began.elapsed().as_micros())
    };
    let times: std::io::Result<Vec<u128>> = (0..SYNCS).map(|_| once()).collect();
    fs::remove_file(&path)?;
    let mut times = times?;
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}
