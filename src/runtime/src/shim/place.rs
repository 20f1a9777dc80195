//! Places in a container's root for mounts and devices. The image says where its symbolic links lead, and the kernel that they lead nowhere
//! outside (openat2, RESOLVE_IN_ROOT); what is missing on the way is made.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// Symbolic links on one way, as the kernel bounds them.
const LINKS: usize = 40;

/// What is made where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Directory,
    File,
}

/// Opens (O_PATH) what is at `path`, making it if it is not there.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    match find(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => make(root, path, missing),
        other => Ok(other?),
    }
}

/// Whether a descriptor (O_PATH is enough) is of a directory.
pub(super) fn is_directory(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens what is at `path` inside of `root`.
pub(super) fn find(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), inside)
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir)).map(|part| part.as_os_str().to_owned())
}

/// Goes part by part, so that a link to what is missing leads there. Each look is the kernel's, from the root: a link exchanged meanwhile leads
/// astray, but not outside.
fn make(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    let mut todo: VecDeque<OsString> = parts(path).collect();
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let parent = find(root, &at, OFlags::PATH | OFlags::DIRECTORY)?;
        match rustix::fs::readlinkat(&parent, &part, Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    at.clear();
                }
                parts(&target).rev().for_each(|part: OsString| todo.push_front(part));
                continue;
            }
            Err(Errno::NOENT) => {
                let made = match (todo.is_empty(), missing) {
                    (true, Missing::File) => {
                        rustix::fs::mknodat(parent.as_fd(), &part, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
                    }
                    _ => rustix::fs::mkdirat(parent.as_fd(), &part, Mode::from_raw_mode(0o755)),
                };
                match made {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // Not a link.
            Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        at.push(part);
    }
    Ok(find(root, &at, OFlags::PATH)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_is_missing_is_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        fs::create_dir_all(inside.join("there")).unwrap();
        for (target, name) in [("/made", "absolute"), ("../../../made/up", "up"), ("there/x", "dangling"), ("loop", "loop")] {
            symlink(target, inside.join(name)).unwrap();
        }
        let root = fs::File::open(&inside).unwrap();
        for (path, missing, expected) in [
            ("/a/b/c", Missing::Directory, "a/b/c"),
            ("/absolute/x", Missing::File, "made/x"),
            ("/up", Missing::Directory, "made/up"),
            ("/dangling", Missing::File, "there/x"),
            ("/there/../../../../etc/y", Missing::Directory, "etc/y"),
        ] {
            let place = open(root.as_fd(), Path::new(path), missing).unwrap();
            let expected = inside.join(expected);
            let (found, meta) = (rustix::fs::fstat(&place).unwrap(), fs::symlink_metadata(&expected).unwrap());
            assert_eq!(found.st_ino, std::os::unix::fs::MetadataExt::ino(&meta), "{path}");
            assert_eq!(meta.is_dir(), missing == Missing::Directory, "{path}");
        }
        assert_eq!(open(root.as_fd(), Path::new("/loop/x"), Missing::File).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing beside the root");
    }
}
