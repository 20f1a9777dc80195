//! Volumes: what they hold (`payload`, pure), how that gets there in one step (`atomic`), and the mounts (`mount`, `subpath`).

pub mod atomic;
pub mod huge;
pub mod mount;
pub mod payload;
pub mod references;
pub mod subpath;

use std::path::{Path, PathBuf};

/// The directory of a pod, below the agent's.
pub fn pod_dir(data_dir: &Path, uid: &str) -> PathBuf {
    pods_dir(data_dir).join(uid)
}

/// The directory of all pods.
pub fn pods_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("agent/pods")
}
