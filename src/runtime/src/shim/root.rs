//! A container's root, put together in a mount namespace that nobody else sees: system mounts, volumes, devices, and what is hidden of them.

use std::{
    ffi::OsStr,
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
    mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags},
};

use super::{
    bundle::{Mounting, Plan, Propagation, ReadOnly, What},
    nodes::Node,
    overlay,
    place::{self, Missing},
    state::{self, Container},
    tree, users,
};

/// The device nodes that every container has (OCI runtime specification, "Default Devices").
const NODES: [(&str, u32, u32); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// The links that programs look for (the same, "/dev symbolic links").
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];
/// A directory for each v1 hierarchy, and nothing more.
const GROUPS_OPTIONS: &[(&str, &str)] = &[("mode", "755"), ("size", "64k")];
/// What hides a directory.
const EMPTY_OPTIONS: &[(&str, &str)] = &[("mode", "555"), ("size", "0"), ("nr_inodes", "1")];

/// What could not be done, and why.
#[derive(Debug)]
pub(super) struct Trouble(String, io::Error);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

fn trouble<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Trouble {
    move |error| Trouble(what.into(), error.into())
}

/// Copies of the trees of the node that are mounted in a container, in the order of `plan.mounts`; with `users`, their owners are those of that
/// namespace. To be made before the mount namespace is cut off from the node's: only so a tree can be shared with it.
pub(super) fn trees(plan: &Plan, users: Option<BorrowedFd<'_>>) -> Result<Vec<Option<OwnedFd>>, Trouble> {
    plan.mounts
        .iter()
        .map(|mount| if let What::Tree { source, .. } = &mount.what { copy_of(source, mount, users).map(Some) } else { Ok(None) })
        .collect()
}

/// Adds to `trees` the images that are mounted in a container. To be made after the mount namespace is cut off: nobody else is to see them.
pub(super) fn images(
    plan: &Plan,
    container: &Container,
    dir: &Path,
    users: Option<BorrowedFd<'_>>,
    trees: &mut [Option<OwnedFd>],
) -> Result<(), Trouble> {
    for (mount, tree) in plan.mounts.iter().zip(trees) {
        let What::Image { id, number } = &mount.what else { continue };
        let (Some(image), Some(own)) = (container.image_layers.get(*number), container.spec.image_mounts.get(*number)) else { continue };
        let failed = || format!("image {id} at {:?}", own.sub_path);
        let (at, empty) = (dir.join(state::IMAGES).join(number.to_string()), container.writable.join("empty"));
        let layers = match users {
            None => Ok(image.layers.clone()),
            Some(users) => users::layers(&image.layers, &dir.join(format!("{}-{number}", state::IMAGES)), users),
        };
        let layers = layers.map_err(trouble(failed()))?;
        std::fs::create_dir_all(&at).and_then(|()| overlay::mount_read_only(&layers, &empty, &at)).map_err(trouble(failed()))?;
        *tree = Some(part_of(&at, &own.sub_path).map_err(trouble(failed()))?);
    }
    Ok(())
}

/// A copy of what is at `path` of a mount; every link is followed inside of it.
fn part_of(mount: &Path, path: &str) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path.is_empty() { "." } else { path };
    let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let found = rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags)?;
    tree::copy(found.as_fd(), Path::new(""), false)
}

fn copy_of(source: &Path, mount: &Mounting, users: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Trouble> {
    let failed = || format!("mounting {} at {}", source.display(), mount.destination.display());
    let What::Tree { read_only, propagation, .. } = &mount.what else { return Err(Trouble(failed(), io::ErrorKind::InvalidInput.into())) };
    let tree = tree::copy(CWD, source, true).map_err(trouble(failed()))?;
    let propagation = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
    };
    let (below, top) = match read_only {
        ReadOnly::No => (MountAttrFlags::empty(), MountAttrFlags::empty()),
        ReadOnly::Top => (MountAttrFlags::empty(), MountAttrFlags::MOUNT_ATTR_RDONLY),
        ReadOnly::All => (MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty()),
    };
    tree::change(tree.as_fd(), true, below, propagation).map_err(trouble(failed()))?;
    if !top.is_empty() {
        tree::change(tree.as_fd(), false, top, MountPropagationFlags::empty()).map_err(trouble(failed()))?;
    }
    if let Some(users) = users {
        let refused = || format!("{}: its file system may not know id-mapped mounts, which hostUsers: false needs", failed());
        tree::map(tree.as_fd(), users).map_err(trouble(refused()))?;
    }
    Ok(tree)
}

/// Puts everything of `plan` into `root`. `groups` are the container's own directories in the hierarchies; `owner` is who root is in the container, if
/// not root.
pub(super) fn build(
    root: BorrowedFd<'_>,
    plan: &Plan,
    trees: Vec<Option<OwnedFd>>,
    groups: &Groups,
    owner: Option<u32>,
) -> Result<(), Trouble> {
    let (mut processes, mut kernel, mut devices) = (None, None, None);
    let volume = |what: &What| matches!(what, What::Tree { .. } | What::Image { .. });
    for (mount, tree) in plan.mounts.iter().zip(trees) {
        let failed = || trouble::<io::Error>(format!("mounting {}", mount.destination.display()));
        let is_file = |tree: &OwnedFd| !place::is_directory(tree.as_fd());
        let missing = if tree.as_ref().is_some_and(is_file) { Missing::File } else { Missing::Directory };
        let place = place::open(root, &mount.destination, missing).map_err(failed())?;
        let made = match (&mount.what, tree) {
            (_, Some(tree)) => tree,
            (What::Cgroups { writable }, None) => {
                cgroups(groups, *writable, place.as_fd()).map_err(failed())?;
                continue;
            }
            (What::Fresh { kind, options, flags }, None) => match owner {
                None => tree::fresh(kind, options, *flags).map_err(failed())?,
                Some(owner) => {
                    let own = users::options(kind, options, owner);
                    let own: Vec<(&str, &str)> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
                    tree::fresh(kind, &own, *flags).map_err(failed())?
                }
            },
            (What::Tree { .. } | What::Image { .. }, None) => return Err(failed()(io::ErrorKind::InvalidInput.into())),
        };
        tree::attach(made.as_fd(), place.as_fd()).map_err(failed())?;
        // What is below them is found from here: no link of an image or a volume is on the way.
        match mount.destination.to_str() {
            _ if volume(&mount.what) => {}
            Some("/proc") => processes = Some(made),
            Some("/sys") => kernel = Some(made),
            Some("/dev") => {
                nodes_and_links(made.as_fd(), owner).map_err(trouble("filling /dev"))?;
                devices = Some(made);
            }
            _ => {}
        }
    }
    for node in &plan.nodes {
        make_node(root, node, owner).map_err(trouble(format!("making {}", node.path.display())))?;
    }
    let system = [("/proc/", &processes), ("/sys/", &kernel)];
    let below = |path: &'static str| system.into_iter().find_map(|(prefix, mount)| Some((mount.as_ref()?, path.strip_prefix(prefix)?)));
    let null = match &devices {
        Some(devices) => tree_of(devices.as_fd(), "null"),
        None => tree_of(CWD, "/dev/null"),
    };
    let null = null.map_err(trouble("opening /dev/null"))?;
    let mut empty = None;
    for path in plan.masked {
        let Some((mount, name)) = below(path) else { continue };
        hide(mount.as_fd(), name, null.as_fd(), &mut empty).map_err(trouble(format!("hiding {path}")))?;
    }
    for path in plan.read_only {
        let Some((mount, name)) = below(path) else { continue };
        close(mount.as_fd(), name).map_err(trouble(format!("making {path} read-only")))?;
    }
    match plan.read_only_root {
        false => Ok(()),
        true => tree::change(root, false, MountAttrFlags::MOUNT_ATTR_RDONLY, MountPropagationFlags::empty())
            .map_err(trouble("making the root read-only")),
    }
}

/// Makes `root` the root of this process and its mount namespace; nothing of the node's stays in it. A root is `shared` for those that the container
/// itself cuts off, and only then: the kernel lets no shared mount become a root.
pub(super) fn enter(root: BorrowedFd<'_>, shared: bool) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // The old root comes to lie on the new one, in the same place, and is taken off it.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    if shared {
        rustix::mount::mount_change("/", MountPropagationFlags::SHARED)?;
    }
    Ok(())
}

/// Where a container finds its cgroups.
pub(super) struct Groups {
    /// v2 is all there is, and the one directory is the container's /sys/fs/cgroup.
    pub(super) unified: bool,
    /// Names below /sys/fs/cgroup, and the directories.
    pub(super) dirs: Vec<(String, PathBuf)>,
}

fn cgroups(groups: &Groups, writable: bool, place: BorrowedFd<'_>) -> io::Result<()> {
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, !writable);
    let top = match groups.dirs.first() {
        Some((_, dir)) if groups.unified => tree::copy(CWD, dir, false)?,
        _ => tree::fresh("tmpfs", GROUPS_OPTIONS, MountAttrFlags::empty())?,
    };
    tree::attach(top.as_fd(), place)?;
    if !groups.unified {
        for (name, dir) in &groups.dirs {
            rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(0o755))?;
            let hierarchy = tree::copy(CWD, dir, false)?;
            tree::attach(hierarchy.as_fd(), tree_of(top.as_fd(), name)?.as_fd())?;
            // `cpu,cpuacct` is known by each of its names.
            for alias in name.split(',').filter(|alias| alias != name) {
                rustix::fs::symlinkat(name, &top, alias)?;
            }
        }
    }
    tree::change(top.as_fd(), true, flags, MountPropagationFlags::PRIVATE)
}

fn nodes_and_links(dev: BorrowedFd<'_>, owner: Option<u32>) -> io::Result<()> {
    for (name, major, minor) in NODES {
        rustix::fs::mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(major, minor))?;
        if owner.is_some() {
            give(dev, name.as_ref(), owner)?;
        }
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name)?;
    }
    Ok(())
}

fn give(dir: BorrowedFd<'_>, name: &OsStr, owner: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (owner.map_or(Uid::ROOT, Uid::from_raw), owner.map_or(Gid::ROOT, Gid::from_raw));
    Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
}

fn make_node(root: BorrowedFd<'_>, node: &Node, owner: Option<u32>) -> io::Result<()> {
    let (Some(parent), Some(name)) = (node.path.parent(), node.path.file_name()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let parent = place::open(root, parent, Missing::Directory)?;
    let kind = if node.kind == 'b' { FileType::BlockDevice } else { FileType::CharacterDevice };
    let device = rustix::fs::makedev(node.major, node.minor);
    match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(node.mode), device) {
        // One of those that every container has.
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => give(parent.as_fd(), name, owner),
    }
}

/// Opens (O_PATH) what is directly below a mount of the system's.
fn tree_of(mount: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(mount, name, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

/// `None` when this kernel has no such thing.
fn there(mount: BorrowedFd<'_>, name: &str) -> io::Result<Option<OwnedFd>> {
    match tree_of(mount, name) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        other => other.map(Some),
    }
}

/// An empty directory over a directory, /dev/null over a file. `empty` is the one that hides the last directory.
fn hide(mount: BorrowedFd<'_>, name: &str, null: BorrowedFd<'_>, empty: &mut Option<OwnedFd>) -> io::Result<()> {
    let Some(place) = there(mount, name)? else { return Ok(()) };
    if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::Directory {
        let cover = tree::copy(null, Path::new(""), false)?;
        // Or a `chmod` of what is hidden would close /dev/null itself.
        tree::change(cover.as_fd(), false, MountAttrFlags::MOUNT_ATTR_RDONLY, MountPropagationFlags::empty())?;
        return tree::attach(cover.as_fd(), place.as_fd());
    }
    let cover = match empty {
        Some(empty) => tree::copy(empty.as_fd(), Path::new(""), false)?,
        None => tree::fresh("tmpfs", EMPTY_OPTIONS, MountAttrFlags::MOUNT_ATTR_RDONLY)?,
    };
    tree::attach(cover.as_fd(), place.as_fd())?;
    *empty = Some(cover);
    Ok(())
}

fn close(mount: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let Some(place) = there(mount, name)? else { return Ok(()) };
    let copy = tree::copy(place.as_fd(), Path::new(""), true)?;
    tree::change(copy.as_fd(), true, MountAttrFlags::MOUNT_ATTR_RDONLY, MountPropagationFlags::empty())?;
    tree::attach(copy.as_fd(), place.as_fd())
}
