//! `subPath` of a volume: found without ever leaving the volume, even where a container plants symlinks, and bound by descriptor.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Component, Path, PathBuf},
};

use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Why a subPath cannot be used (`CreateContainerConfigError`).
#[derive(Debug, thiserror::Error)]
pub enum SubPathError {
    /// the subPath {0:?} must be a path inside the volume
    #[error("the subPath {0:?} must be a path inside the volume")]
    Outside(String),
    /// cannot use the subPath
    #[error("cannot use the subPath {path:?} of the volume")]
    Io {
        /// The subPath.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Binds `sub` of `volume` to `target` and returns `target`. Missing directories are made with the volume's own permissions.
pub fn bind(volume: &Path, sub: &str, target: &Path) -> Result<PathBuf, SubPathError> {
    let relative = Path::new(sub);
    if sub.is_empty() || !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(SubPathError::Outside(sub.to_owned()));
    }
    let found = open(volume, relative).map_err(|source| match source.raw_os_error() {
        Some(libc::EXDEV | libc::ELOOP) => SubPathError::Outside(sub.to_owned()),
        _ => SubPathError::Io { path: sub.to_owned(), source },
    })?;
    place(&found, target).map_err(|source| SubPathError::Io { path: sub.to_owned(), source })?;
    Ok(target.to_owned())
}

fn open(volume: &Path, relative: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mode = fs::metadata(volume)?.permissions().mode() & 0o7777;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside) {
        Ok(found) => return Ok(found),
        Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    // One part after the other; each is opened beneath the root, so that a planted link cannot lead out.
    let mut sofar = PathBuf::new();
    let mut at = root.try_clone()?;
    for part in relative.components() {
        let Component::Normal(name) = part else { continue };
        sofar.push(name);
        at = match rustix::fs::openat2(&root, &sofar, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside) {
            Ok(next) => next,
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(mode))?;
                let made = rustix::fs::openat2(&root, &sofar, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside)?;
                // The umask does not count.
                rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
                made
            }
            Err(e) => return Err(e.into()),
        };
    }
    Ok(at)
}

fn place(found: &OwnedFd, target: &Path) -> io::Result<()> {
    if is_mounted(target)? {
        return Ok(());
    }
    if let Some(above) = target.parent() {
        fs::create_dir_all(above)?;
    }
    let kind = rustix::fs::fstat(found.as_fd())?.st_mode & libc::S_IFMT;
    if kind == libc::S_IFDIR {
        fs::create_dir_all(target)?;
    } else {
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(target)?;
    }
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Whether something is mounted exactly here.
pub fn is_mounted(target: &Path) -> io::Result<bool> {
    Ok(super::mount::mounts_below(target)?.iter().any(|m| m == target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_volume_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let volume = dir.path().join("v");
        fs::create_dir(&volume).expect("made");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).expect("opened up");
        std::os::unix::fs::symlink("/etc", volume.join("out")).expect("linked");
        std::os::unix::fs::symlink("in", volume.join("alias")).expect("linked");
        assert!(open(&volume, Path::new("in/deep")).is_ok());
        assert_eq!(fs::metadata(volume.join("in/deep")).expect("there").permissions().mode() & 0o777, 0o777);
        assert!(open(&volume, Path::new("alias/deep")).is_ok(), "a link inside is fine");
        assert!(open(&volume, Path::new("out/passwd")).is_err());
        for bad in ["../x", "/etc", "a/../../b", ""] {
            assert!(matches!(bind(&volume, bad, &dir.path().join("t")), Err(SubPathError::Outside(_))), "{bad}");
        }
        assert!(matches!(bind(&volume, "out", &dir.path().join("t")), Err(SubPathError::Outside(_))));
    }

    #[test]
    fn a_link_that_comes_and_goes_never_leads_outside() {
        use std::{
            os::unix::fs::{MetadataExt as _, symlink},
            sync::atomic::{AtomicBool, Ordering},
        };
        let dir = tempfile::tempdir().expect("a directory");
        let (volume, outside) = (dir.path().join("v"), dir.path().join("outside"));
        for made in [&volume.join("x/deep"), &outside.join("deep")] {
            fs::create_dir_all(made).expect("made");
        }
        symlink(&outside, volume.join("link")).expect("planted");
        let inside = fs::metadata(volume.join("x/deep")).expect("there").ino();
        let root = fs::File::open(&volume).expect("opened");
        let done = AtomicBool::new(false);
        let (mut found, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    rustix::fs::renameat_with(&root, "x", &root, "link", rustix::fs::RenameFlags::EXCHANGE).expect("exchanged");
                }
            });
            // Both happen, however seldom the machine lets the two run at once.
            for _ in 0..1_000_000 {
                match open(&volume, Path::new("x/deep")) {
                    Ok(fd) => {
                        assert_eq!(rustix::fs::fstat(&fd).expect("open").st_ino, inside);
                        found += 1;
                    }
                    Err(_) => refused += 1,
                }
                if found > 1000 && refused > 1000 {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(found > 0 && refused > 0, "{found} times found, {refused} times refused");
    }
}
