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

/// Mounts `layers` (top first) with `writable/upper` over them at `target`. Devices in an image stay closed: those of a container are under /dev.
pub(super) fn mount(layers: &[PathBuf], writable: &Path, target: &Path) -> io::Result<()> {
    let empty = writable.join("empty");
    let layers = if layers.is_empty() {
        std::fs::create_dir_all(&empty)?;
        std::slice::from_ref(&empty)
    } else {
        layers
    };
    match by_descriptor(layers, writable, target) {
        // A kernel without `lowerdir+` (before 6.8), or with other limits on it.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NAMETOOLONG) => by_options(layers, writable, target),
        other => Ok(other?),
    }
}

fn by_descriptor(layers: &[PathBuf], writable: &Path, target: &Path) -> Result<(), Errno> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers {
        rustix::mount::fsconfig_set_string(&fs, "lowerdir+", layer)?;
    }
    rustix::mount::fsconfig_set_string(&fs, "upperdir", writable.join("upper"))?;
    rustix::mount::fsconfig_set_string(&fs, "workdir", writable.join("work"))?;
    // The writable layer dies with its container: its end must not wait for the disk.
    rustix::mount::fsconfig_set_flag(&fs, "volatile")?;
    rustix::mount::fsconfig_create(&fs)?;
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    rustix::mount::move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// With mount(2), whose options end at one page: the paths are relative to the directory that all layers share.
fn by_options(layers: &[PathBuf], writable: &Path, target: &Path) -> io::Result<()> {
    let shared = layers[0].ancestors().nth(2).filter(|dir| layers.iter().all(|layer| layer.starts_with(dir)));
    let relative = |path: &Path| shared.and_then(|dir| path.strip_prefix(dir).ok()).unwrap_or(path).display().to_string();
    let lower = layers.iter().map(|layer| relative(layer)).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={lower},upperdir={},workdir={}", writable.join("upper").display(), writable.join("work").display());
    // The mount helper process has no other use of its directory.
    if let Some(dir) = shared {
        rustix::process::chdir(dir)?;
    }
    let options = CString::new(options).map_err(io::Error::other)?;
    let mounted = rustix::mount::mount("overlay", target, "overlay", MountFlags::NODEV, options.as_c_str());
    rustix::process::chdir("/")?;
    Ok(mounted?)
}
