//! Mounts by descriptors (Linux 5.12): made where nobody sees them, changed there, then put in their place.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

/// A new file system of this type.
pub(crate) fn fresh(kind: &str, options: &[(&str, &str)], flags: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value.is_empty() {
            true => rustix::mount::fsconfig_set_flag(&fs, *key)?,
            false => rustix::mount::fsconfig_set_string(&fs, *key, *value)?,
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    Ok(rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// What is at `path` (of `dir`, unless absolute), with the mounts below it if `recursive`; an empty path is `dir` itself.
pub(crate) fn copy(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Sets flags of a mount, and how it takes part in events of others if `propagation` is not empty; with all below it if `recursive`.
pub(crate) fn change(mount: BorrowedFd<'_>, recursive: bool, set: MountAttrFlags, propagation: MountPropagationFlags) -> io::Result<()> {
    set_attributes(
        mount,
        recursive,
        &Attributes { set: set.bits().into(), propagation: propagation.bits().into(), ..Attributes::default() },
    )
}

/// Shows the owners of files as the users of this namespace (an id-mapped mount): a file of 0 is one of the namespace's root.
pub(crate) fn map(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let set = MountAttrFlags::MOUNT_ATTR_IDMAP.bits().into();
    set_attributes(mount, false, &Attributes { set, user_namespace: users.as_raw_fd() as u64, ..Attributes::default() })
}

fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attributes: &Attributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (empty, size): (&CStr, _) = (c"", size_of::<Attributes>());
    // SAFETY: path and attributes live until the call returns; the kernel only reads them.
    match unsafe { libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), empty.as_ptr(), flags, std::ptr::from_ref(attributes), size) }
    {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts a mount where `place` is; its descriptor stays good for what is in it.
pub(crate) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", place, "", flags)?)
}
