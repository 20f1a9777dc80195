//! Makes a pod's volumes on the node and takes them away. Blocking: called off the reactor.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use coracle_api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{
    atomic::{self, WriteError},
    huge,
    payload::{self, Inputs, PayloadError},
};
use crate::{pod::spec, resources};

/// Why a volume is not there (`FailedMount`).
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// payload
    #[error("volume {volume:?} has no content")]
    Payload {
        /// Which.
        volume: String,
        /// Why.
        #[source]
        source: PayloadError,
    },
    /// write
    #[error("volume {volume:?} could not be written")]
    Write {
        /// Which.
        volume: String,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// host path
    #[error("volume {volume:?}: host path {path} is not a {kind}")]
    HostPath {
        /// Which.
        volume: String,
        /// The path.
        path: PathBuf,
        /// `type`.
        kind: String,
    },
    /// kind
    #[error("volume {0:?} is of a kind that this node does not have")]
    Unsupported(String),
    /// system
    #[error("volume {volume:?}: cannot {what} {path}")]
    System {
        /// Which.
        volume: String,
        /// What.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where a volume is on the node.
pub fn path(pod_dir: &Path, volume: &Volume) -> PathBuf {
    if let Some(host) = &volume.host_path {
        return PathBuf::from(&host.path);
    }
    let plugin = if volume.empty_dir.is_some() {
        "empty-dir"
    } else if volume.secret.is_some() {
        "secret"
    } else if volume.projected.is_some() {
        "projected"
    } else if volume.downward_api.is_some() {
        "downward-api"
    } else {
        "configmap"
    };
    pod_dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(&volume.name)
}

/// Makes all volumes, or brings those that are files of objects up to date.
pub fn mount_all(pod: &Pod, pod_dir: &Path, inputs: &Inputs<'_>, now: Timestamp) -> Result<(), MountError> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().try_for_each(|v| mount_one(pod, pod_dir, v, inputs, now))
}

fn mount_one(pod: &Pod, pod_dir: &Path, volume: &Volume, inputs: &Inputs<'_>, now: Timestamp) -> Result<(), MountError> {
    let at = path(pod_dir, volume);
    let group = fs_group(pod);
    let failed = |what: &'static str| {
        let (volume, path) = (volume.name.clone(), at.clone());
        move |source| MountError::System { volume, what, path, source }
    };
    if volume.image.is_some() {
        // The runtime mounts it where a container has it.
        return Ok(());
    }
    if let Some(host) = &volume.host_path {
        return host_path(volume, host);
    }
    if let Some(empty) = &volume.empty_dir {
        return empty_dir(pod, &at, empty, group).map_err(failed("make"));
    }
    let content = payload::payload(pod, volume, inputs).map_err(|source| MountError::Payload { volume: volume.name.clone(), source })?;
    let Some(content) = content else { return Err(MountError::Unsupported(volume.name.clone())) };
    make_dir(&at, 0o755).map_err(failed("make"))?;
    if volume.secret.is_some() || volume.projected.is_some() {
        // Secrets are never on a disk.
        tmpfs(&at, None).map_err(failed("mount"))?;
    }
    if let Some(group) = group {
        chown(&at, None, Some(group)).and_then(|()| chmod(&at, 0o2755)).map_err(failed("open up"))?;
    }
    atomic::write(&at, &content, group, now).map_err(|source| MountError::Write { volume: volume.name.clone(), source })?;
    Ok(())
}

fn empty_dir(pod: &Pod, at: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> io::Result<()> {
    let new = !at.exists();
    make_dir(at, 0o777)?;
    if source.medium.as_deref().is_some_and(|m| m == "Memory") {
        let limit = source.size_limit.as_ref().and_then(|q| q.0.parse::<Quantity>().ok()).map(|q| q.units()).filter(|l| *l > 0);
        let of_pod = || resources::limits::of_whole_pod(pod.spec.as_ref()?).memory_limit;
        tmpfs(at, limit.or_else(of_pod))?;
        chmod(at, 0o777)?;
    }
    if let Some(medium) = source.medium.as_deref().filter(|m| huge::is_huge(Some(m))) {
        let page = huge::page_bytes(pod, medium).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if !super::subpath::is_mounted(at)? {
            let options = format!("pagesize={page},mode=0777");
            mount(Some("nodev"), at, Some("hugetlbfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))?;
        }
    }
    if let (Some(group), true) = (group, new) {
        chown(at, None, Some(group))?;
        chmod(at, 0o2777)?;
    }
    Ok(())
}

fn host_path(volume: &Volume, host: &HostPathVolumeSource) -> Result<(), MountError> {
    let path = PathBuf::from(&host.path);
    let kind = host.type_.as_deref().unwrap_or_default();
    let failed = |source| MountError::System { volume: volume.name.clone(), what: "make", path: path.clone(), source };
    let found = fs::metadata(&path).ok().map(|m| m.file_type());
    let fits = match (kind, &found) {
        ("" | "DirectoryOrCreate", None) => return make_dir(&path, 0o755).map_err(failed),
        ("FileOrCreate", None) => {
            let made = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map(drop);
            return made.and_then(|()| chmod(&path, 0o644)).map_err(failed);
        }
        (_, None) => false,
        ("", Some(_)) => true,
        ("Directory" | "DirectoryOrCreate", Some(t)) => t.is_dir(),
        ("File" | "FileOrCreate", Some(t)) => t.is_file(),
        ("Socket", Some(t)) => t.is_socket(),
        ("CharDevice", Some(t)) => t.is_char_device(),
        ("BlockDevice", Some(t)) => t.is_block_device(),
        (_, Some(_)) => false,
    };
    if fits { Ok(()) } else { Err(MountError::HostPath { volume: volume.name.clone(), path, kind: kind.to_owned() }) }
}

/// `fsGroup` as a gid.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The user that all containers run as, if it is one.
pub fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec.as_ref()?.security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = spec::parts(pod).into_iter().map(|p| p.spec.security_context.and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn tmpfs(at: &Path, size: Option<i64>) -> io::Result<()> {
    if super::subpath::is_mounted(at)? {
        return Ok(());
    }
    let options = size.map_or_else(|| "mode=0755".to_owned(), |s| format!("mode=0777,size={s}"));
    Ok(mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))?)
}

/// Makes a directory with exactly this mode; those above it are closed to others.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(above)?;
    }
    fs::create_dir(path)?;
    chmod(path, mode)
}

fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Unmounts all below `pod_dir`, then removes it. Nothing is removed while anything is mounted there.
pub fn remove_all(pod_dir: &Path) -> io::Result<()> {
    let mut mounts = mounts_below(pod_dir)?;
    mounts.sort();
    for mounted in mounts.iter().rev() {
        umount2(mounted, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    if !mounts_below(pod_dir)?.is_empty() {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "something is still mounted there"));
    }
    match fs::remove_dir_all(pod_dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Mount points at or below `path`.
pub fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let points = table.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape);
    Ok(points.filter(|p| p.starts_with(path)).collect())
}

/// mountinfo writes blanks and the like as `\040`.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                rest = &after[3..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let source = PayloadError::Missing { kind: "configmap", name: "none".into() };
        let error = MountError::Payload { volume: "v".into(), source };
        assert_eq!(crate::context::chain(&error), r#"volume "v" has no content: configmap "none" not found"#);
    }

    #[test]
    fn blanks_in_mount_points() {
        assert_eq!(unescape(br"/a\040b\134c"), PathBuf::from("/a b\\c"));
    }

    #[test]
    fn host_path_types() {
        let dir = tempfile::tempdir().expect("a directory");
        let check = |path: &str, kind: &str, ok: bool| {
            let full = if path.starts_with('/') { path.to_owned() } else { dir.path().join(path).to_str().expect("utf8").to_owned() };
            let volume: Value = json!({ "name": "v", "hostPath": { "path": full, "type": kind } });
            let volume: Volume = serde_json::from_value(volume).expect("a volume");
            let got = host_path(&volume, volume.host_path.as_ref().expect("a host path"));
            assert_eq!(got.is_ok(), ok, "{path} {kind} {got:?}");
        };
        check("/etc", "File", false);
        check("/etc", "Directory", true);
        check("/etc", "", true);
        check("/dev/null", "CharDevice", true);
        check("/dev/null", "BlockDevice", false);
        check("f", "File", false);
        check("f", "FileOrCreate", true);
        check("f", "File", true);
        check("x/y/d", "Directory", false);
        check("x/y/d", "DirectoryOrCreate", true);
        check("x/y/d", "Directory", true);
        check("untyped", "", true);
        check("untyped", "Directory", true);
    }
}
