//! What is kept on disk of sandboxes and containers, so that any process can pick them up.
//!
//! ```text
//! <state_dir>/<sandbox>/sandbox.json     as created
//!                       shim.json        who the shim is: protocol, pid, start time
//!                       socket           where it listens
//!                       shm/             the pod's /dev/shm
//!                       <container>/     container.json (as created), life.json (where it is; the shim's), bundle, rootfs/, images/
//! <data_dir>/containers/<container>/     upper and work directory of its overlay
//! ```

use std::{fs, io, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{ContainerSpec, ContainerState, SandboxSpec, images::Defaults};

/// The file of a sandbox.
pub(crate) const SANDBOX: &str = "sandbox.json";
/// The file of a shim.
pub(crate) const SHIM: &str = "shim.json";
/// The file of a container.
pub(crate) const CONTAINER: &str = "container.json";
/// Where a container is in its life.
pub(crate) const LIFE: &str = "life.json";
/// Below a container's directory: where the images that it mounts are, by number.
pub(crate) const IMAGES: &str = "images";
/// The socket of a shim.
pub(crate) const SOCKET: &str = "socket";
/// Bytes of any of these files: a pod of the API server's greatest size has 1.5 MiB.
const FILE_BYTES: u64 = 8 << 20;

/// A sandbox as created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) spec: SandboxSpec,
    pub(crate) created_at: Timestamp,
    /// The shims' own cgroup, relative to the hierarchies' roots.
    pub(crate) shim_cgroup: String,
    /// The program that makes its containers, where that is another one.
    #[serde(default)]
    pub(crate) runtime: Option<OciRuntime>,
}

/// An OCI runtime of the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OciRuntime {
    pub(crate) program: std::path::PathBuf,
}

/// Who a shim is. A process id comes back; with the start time it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Who {
    pub(crate) protocol: u32,
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
}

/// A container as created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) spec: ContainerSpec,
    pub(crate) image_id: String,
    pub(crate) defaults: Defaults,
    pub(crate) created_at: Timestamp,
    /// Unpacked layers, top first.
    pub(crate) layers: Vec<std::path::PathBuf>,
    /// Layers of the images that it mounts, in the order of `spec.image_mounts`.
    #[serde(default)]
    pub(crate) image_layers: Vec<ImageLayers>,
    /// Holds `upper` and `work`.
    pub(crate) writable: std::path::PathBuf,
    /// Compiled seccomp filters.
    pub(crate) filters: Vec<Vec<u8>>,
    /// The same as another runtime takes it (`linux.seccomp`).
    #[serde(default)]
    pub(crate) seccomp: Option<serde_json::Value>,
    /// The AppArmor profile of its processes.
    #[serde(default)]
    pub(crate) apparmor: Option<String>,
}

/// An image that a container mounts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageLayers {
    pub(crate) image_id: String,
    /// Unpacked, top first.
    pub(crate) layers: Vec<std::path::PathBuf>,
}

/// Where a container is in its life, as its shim keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) pid: Option<u32>,
    pub(crate) user: (i64, i64, Vec<i64>),
    pub(crate) state: ContainerState,
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

/// Replaces the file as a whole. Not synced: state does not outlive the machine's uptime, and nor do containers.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

/// When a process began, in ticks since boot (field 22 of /proc/pid/stat); `None` when it is gone or a zombie.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<u64> {
    // The name may hold anything, also parentheses and spaces: what counts comes after the last one.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_of_a_process_is_found_whatever_its_name() {
        let tail = (4..22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_stat(&format!("7 (a) b) S {tail} 4711 23")), Some(4711));
        assert_eq!(parse_stat(&format!("7 (z) Z {tail} 4711 23")), None);
        assert_eq!(parse_stat("nonsense"), None);
        assert!(start_time(std::process::id()).is_some());
    }
}
