//! What the machine is: read once at start from /proc, /sys and /etc.

use std::{fs, path::Path};

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::NodeSystemInfo;

use crate::resources::Amounts;

/// The machine's sizes.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// cpu, memory, ephemeral-storage, hugepages-*.
    pub capacity: Amounts,
    /// Bytes of memory.
    pub memory_bytes: i64,
}

/// Reads the machine; `data_dir` is on the disk that counts.
pub fn read(data_dir: &Path) -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
    let memory_bytes = memory("MemTotal").unwrap_or(0);
    let disk = nix::sys::statvfs::statvfs(data_dir);
    let disk_bytes = disk.map_or(0, |d| i64::try_from(d.blocks() * d.fragment_size()).unwrap_or(i64::MAX));
    let mut capacity = Amounts::from([
        ("cpu".to_owned(), Quantity::from_units(cpus)),
        ("memory".to_owned(), Quantity::from_bytes(memory_bytes)),
        ("ephemeral-storage".to_owned(), Quantity::from_bytes(disk_bytes)),
    ]);
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(kib) = name.to_str().and_then(|n| n.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<i64>().ok()) else { continue };
        let pages = number(&entry.path().join("nr_hugepages")).unwrap_or(0);
        let size = if kib >= 1 << 20 {
            format!("{}Gi", kib >> 20)
        } else if kib >= 1 << 10 {
            format!("{}Mi", kib >> 10)
        } else {
            format!("{kib}Ki")
        };
        capacity.insert(format!("hugepages-{size}"), Quantity::from_bytes(kib * 1024 * pages));
    }
    Machine { capacity, memory_bytes }
}

/// A figure of /proc/meminfo, in bytes.
pub fn memory(name: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<i64>().ok()?.checked_mul(1024)
}

/// How long the machine runs.
pub fn up_seconds() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}

fn number(path: &Path) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// `status.nodeInfo`.
pub fn info(version: &str, runtime: &str) -> NodeSystemInfo {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).map(|n| n.trim_matches('"').to_owned());
    let machine_id =
        Some(line("/etc/machine-id")).filter(|i| !i.is_empty()).unwrap_or_else(|| line("/proc/sys/kernel/random/boot_id").replace('-', ""));
    let system_uuid = Some(line("/sys/class/dmi/id/product_uuid")).filter(|i| !i.is_empty()).unwrap_or_else(|| machine_id.clone());
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime.to_owned(),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: version.to_owned(),
        machine_id,
        operating_system: "linux".to_owned(),
        os_image: os.unwrap_or_else(|| "Linux".to_owned()),
        system_uuid,
        swap: None,
    }
}

/// As Go spells it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
