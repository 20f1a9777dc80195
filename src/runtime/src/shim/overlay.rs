//! A container's root file system: the image's layers below, a writable directory on top, by overlayfs.

use std::{
    ffi::CString,
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags},
};

/// Mounts `layers` (top first) with `writable/upper` over them at `target`. Nodes in it are `devices` where the container's group guards them, else
/// they stay closed.
pub(super) fn mount(layers: &[PathBuf], writable: &Path, target: &Path, devices: bool) -> io::Result<()> {
    let empty = writable.join("empty");
    let layers = if layers.is_empty() {
        std::fs::create_dir_all(&empty)?;
        std::slice::from_ref(&empty)
    } else {
        layers
    };
    let over = Some(Over { writable, devices });
    match by_descriptor(layers, over, target) {
        // A kernel without `lowerdir+` (before 6.8), or with other limits on it.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NAMETOOLONG) => by_options(layers, over, target),
        other => Ok(other?),
    }
}

/// Mounts `layers` (top first) at `target` with nothing over them: to be read, not written and not executed. `empty` is a directory without anything.
pub(super) fn mount_read_only(layers: &[PathBuf], empty: &Path, target: &Path) -> io::Result<()> {
    // Without a writable layer overlayfs wants two at least.
    let fill: Vec<PathBuf> = ["a", "b"].iter().take(2usize.saturating_sub(layers.len())).map(|name| empty.join(name)).collect();
    fill.iter().try_for_each(std::fs::create_dir_all)?;
    let layers: Vec<PathBuf> = layers.iter().chain(&fill).cloned().collect();
    match by_descriptor(&layers, None, target) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NAMETOOLONG) => by_options(&layers, None, target),
        other => Ok(other?),
    }
}

/// What is over an image's layers.
#[derive(Clone, Copy)]
struct Over<'a> {
    writable: &'a Path,
    devices: bool,
}

fn by_descriptor(layers: &[PathBuf], over: Option<Over<'_>>, target: &Path) -> Result<(), Errno> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers {
        rustix::mount::fsconfig_set_string(&fs, "lowerdir+", layer)?;
    }
    let mut flags = MountAttrFlags::empty();
    flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, !over.is_some_and(|over| over.devices));
    if let Some(Over { writable, .. }) = over {
        rustix::mount::fsconfig_set_string(&fs, "upperdir", writable.join("upper"))?;
        rustix::mount::fsconfig_set_string(&fs, "workdir", writable.join("work"))?;
        // The writable layer dies with its container: its end must not wait for the disk.
        rustix::mount::fsconfig_set_flag(&fs, "volatile")?;
    } else {
        flags |= MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    rustix::mount::fsconfig_create(&fs)?;
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    rustix::mount::move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// With mount(2), whose options end at one page: the paths are relative to the directory that all layers share.
fn by_options(layers: &[PathBuf], over: Option<Over<'_>>, target: &Path) -> io::Result<()> {
    let shared = layers[0].ancestors().nth(2).filter(|dir| layers.iter().all(|layer| layer.starts_with(dir)));
    let relative = |path: &Path| shared.and_then(|dir| path.strip_prefix(dir).ok()).unwrap_or(path).display().to_string();
    let lower = layers.iter().map(|layer| relative(layer)).collect::<Vec<_>>().join(":");
    let mut options = format!("lowerdir={lower}");
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::NODEV, !over.is_some_and(|over| over.devices));
    match over.map(|over| over.writable) {
        Some(dir) => options += &format!(",upperdir={},workdir={}", dir.join("upper").display(), dir.join("work").display()),
        None => flags |= MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC,
    }
    // The mount helper process has no other use of its directory.
    if let Some(dir) = shared {
        rustix::process::chdir(dir)?;
    }
    let options = CString::new(options).map_err(io::Error::other)?;
    let mounted = rustix::mount::mount("overlay", target, "overlay", flags, options.as_c_str());
    rustix::process::chdir("/")?;
    Ok(mounted?)
}
