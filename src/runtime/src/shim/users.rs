//! Pods with users of their own (user namespaces): the namespace, what its containers' files look like, and how a process becomes one of it.
//!
//! Everything that makes a container is done as the node's root, and the process enters the namespace as its last step but one: then with a mount
//! namespace that belongs to the pod's users, in which what the node mounted is locked.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::{
    spawn::{self, Birth, kept},
    tree,
};
use crate::{
    UserRange,
    process::execute::{self, Launch},
};

/// A pod's own users, for a child.
#[derive(Clone, Copy)]
pub(super) struct Users {
    pub(super) range: UserRange,
    /// Of the user namespace.
    pub(super) namespace: RawFd,
}

/// Makes a user namespace in which 0 and upwards are `range` of the node.
pub(super) fn namespace(range: UserRange) -> io::Result<OwnedFd> {
    let (wait, go) = io::pipe()?;
    let birth = Birth { namespaces: libc::CLONE_NEWUSER, cgroup: None };
    // It lives until its parent has what it came for; the namespace goes on by its descriptor.
    let holder = spawn::child(birth, &[wait.as_raw_fd()], || {
        let _ = io::Read::read(&mut { &wait }, &mut [0]);
    })?;
    let map = format!("0 {} {}\n", range.first, range.length);
    let made = fs::write(format!("/proc/{holder}/uid_map"), &map)
        .and_then(|()| fs::write(format!("/proc/{holder}/gid_map"), &map))
        .and_then(|()| fs::File::open(format!("/proc/{holder}/ns/user")));
    drop(go);
    if let Some(pid) = i32::try_from(holder).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
    made.map(OwnedFd::from)
}

/// The user namespace of a process.
pub(super) fn of(pid: u32) -> io::Result<OwnedFd> {
    fs::File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from)
}

/// Mounts of `layers` below `dir` whose files belong to the namespace's users.
pub(super) fn layers(layers: &[PathBuf], dir: &Path, users: BorrowedFd<'_>) -> io::Result<Vec<PathBuf>> {
    let mounted = layers.iter().enumerate().map(|(number, layer)| {
        let place = dir.join(number.to_string());
        fs::create_dir_all(&place)?;
        let copy = tree::copy(rustix::fs::CWD, layer, false)?;
        tree::map(copy.as_fd(), users)?;
        tree::attach(copy.as_fd(), fs::File::open(&place)?.as_fd())?;
        Ok(place)
    });
    mounted.collect()
}

/// The options of a new file system whose root is to be `owner`.
pub(super) fn options(kind: &str, options: &[(&'static str, &'static str)], owner: u32) -> Vec<(&'static str, String)> {
    let id = |id: u32| owner.saturating_add(id).to_string();
    let group = |value: &str| value.parse().map_or_else(|_| value.to_owned(), id);
    let mut out: Vec<_> =
        options.iter().map(|(key, value)| (*key, if *key == "gid" { group(value) } else { (*value).to_owned() })).collect();
    if kind == "tmpfs" {
        out.extend([("uid", id(0)), ("gid", id(0))]);
    }
    out
}

/// Makes the caller root of the pod's users. The init of a container makes the mount namespace theirs as well.
pub(super) fn enter(users: Users, launch: &Launch, init: bool) -> io::Result<()> {
    // Of a pipe that is the node's root's the pod's users could not open /dev/stdout.
    execute::own_stdio(users.range.first.saturating_add(launch.uid), users.range.first.saturating_add(launch.gid));
    rustix::thread::move_into_link_name_space(kept(users.namespace), Some(LinkNameSpaceType::User))?;
    execute::become_root()?;
    if init {
        // SAFETY: a process of one thread; no descriptor table is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_file_systems_belong_to_the_pods_root() {
        let text = |list: Vec<(&str, String)>| list.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        assert_eq!(text(options("tmpfs", &[("mode", "755")], 65536)), "mode=755,uid=65536,gid=65536");
        assert_eq!(text(options("devpts", &[("newinstance", ""), ("gid", "5")], 131_072)), "newinstance=,gid=131077");
        assert_eq!(text(options("proc", &[], 65536)), "");
    }
}
