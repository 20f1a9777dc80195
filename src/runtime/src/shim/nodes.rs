//! The device nodes of a container as they are on this machine.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::protocol::Failure;
use crate::{Device, DeviceNumbers};

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    /// `c` or `b`.
    pub(super) kind: char,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) mode: u32,
    /// Of `rwm`.
    pub(super) permissions: String,
}

/// The pod's devices as they are on this machine; all of them for a privileged container.
pub(super) fn nodes(devices: &[Device], privileged: bool) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    for device in devices {
        let wrong = |what: String| Failure::Invalid(format!("device {}: {what}", device.host_path.display()));
        let permissions = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        if let Some(DeviceNumbers { kind, major, minor, mode }) = device.numbers {
            nodes.push(Node { path: device.container_path.clone(), kind, major, minor, mode, permissions: permissions.to_owned() });
            continue;
        }
        let meta = fs::metadata(&device.host_path).map_err(|error| wrong(error.to_string()))?;
        if meta.is_dir() {
            collect(&device.host_path, &device.container_path, permissions, &mut nodes);
        } else {
            nodes.push(node(&device.container_path, &meta, permissions).ok_or_else(|| wrong("not a device".to_owned()))?);
        }
    }
    if privileged {
        collect(Path::new("/dev"), Path::new("/dev"), "rwm", &mut nodes);
        nodes.sort_by(|a, b| a.path.cmp(&b.path));
        nodes.dedup_by(|a, b| a.path == b.path);
    }
    Ok(nodes)
}

fn collect(from: &Path, to: &Path, permissions: &str, into: &mut Vec<Node>) {
    /// Directories and nodes that a container has of its own.
    const OWN: [&str; 9] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "stdin", "stdout", "stderr"];
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let (Ok(meta), false) = (entry.metadata(), OWN.iter().any(|own| name == *own)) else { continue };
        if meta.is_dir() {
            collect(&entry.path(), &to.join(&name), permissions, into);
        } else {
            into.extend(node(&to.join(&name), &meta, permissions));
        }
    }
}

fn node(path: &Path, meta: &fs::Metadata, permissions: &str) -> Option<Node> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Some(Node { path: PathBuf::from(path), kind, major, minor, mode: meta.mode() & 0o777, permissions: permissions.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_taken_as_they_are_and_nothing_else_is() {
        let device =
            |host: &str| Device { host_path: host.into(), container_path: "/dev/mine".into(), permissions: String::new(), numbers: None };
        let found = nodes(&[device("/dev/null")], false).unwrap();
        assert_eq!((found[0].path.to_str(), found[0].kind, found[0].major, found[0].minor), (Some("/dev/mine"), 'c', 1, 3));
        assert_eq!(found[0].permissions, "rwm");
        assert!(matches!(nodes(&[device("/etc/passwd")], false), Err(Failure::Invalid(why)) if why.contains("not a device")));
        assert!(matches!(nodes(&[device("/dev/no-such")], false), Err(Failure::Invalid(_))));
        let told = Device { numbers: Some(DeviceNumbers { kind: 'b', major: 7, minor: 9, mode: 0o600 }), ..device("/dev/no-such") };
        let found = nodes(&[told], false).unwrap();
        assert_eq!((found[0].kind, found[0].major, found[0].minor, found[0].mode), ('b', 7, 9, 0o600));
        let all = nodes(&[], true).unwrap();
        assert!(all.iter().any(|node| node.path == Path::new("/dev/null")) && all.windows(2).all(|pair| pair[0].path < pair[1].path));
    }
}
