//! Network namespaces that outlive every process: bind-mounted on a file.

use std::{fs, io, os::fd::OwnedFd, path::Path, thread};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::netlink::Netlink;

const NSFS_MAGIC: i64 = 0x6e73_6673;
/// What containers may do without a capability, as other runtimes have it by default: ping, and serve on low ports.
const SYSCTLS: [(&str, &str); 3] =
    [("ipv4/ping_group_range", "0 2147483647"), ("ipv4/ip_unprivileged_port_start", "0"), ("ipv6/conf/default/disable_ipv6", "1")];

/// A network namespace, held open.
pub struct Netns {
    /// The namespace itself.
    pub fd: OwnedFd,
    /// Netlink inside it.
    pub netlink: Netlink,
}

/// Opens the namespace that is mounted at `path`, or makes it. On a thread of its own: a thread that changed its namespace does no other work.
pub fn open_or_create(path: &Path) -> io::Result<Netns> {
    let path = path.to_owned();
    let worker = thread::Builder::new().name("netns".into()).spawn(move || {
        if !is_mounted(&path) {
            create(&path)?;
        }
        let fd = OwnedFd::from(fs::File::open(&path)?);
        setns(&fd, CloneFlags::CLONE_NEWNET)?;
        Ok(Netns { fd, netlink: Netlink::open()? })
    })?;
    worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread of the namespace panicked")))
}

/// Whether a namespace is mounted there.
pub fn is_mounted(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type().0 == NSFS_MAGIC)
}

/// Unmounts and removes it; processes inside keep it until they end.
pub fn remove(path: &Path) -> io::Result<()> {
    while is_mounted(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn create(path: &Path) -> io::Result<()> {
    fs::File::create(path)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    for (name, value) in SYSCTLS {
        // A kernel without IPv6 or ping sockets has no such file.
        match fs::write(Path::new("/proc/sys/net").join(name), value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let own = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
    mount(Some(own.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}
