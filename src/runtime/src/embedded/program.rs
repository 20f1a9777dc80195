//! The program that shims are made of: kept under a name of its own, so that pods of before an upgrade keep the version they were started with.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::CWD,
    mount::{MountAttrFlags, MountPropagationFlags},
};

use crate::{dispatch::SHIM, shim::tree};

/// Bytes that a shim may say before it is ready.
const SAID_BYTES: u64 = 16 * 1024;

/// Gives `program` a name in `dir` that an upgrade does not change. A hard link where it can be one: two files would be in memory twice.
pub(super) fn keep(program: &Path, dir: &Path) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = fs::metadata(program)?;
    let name = format!("coracle-{:x}-{:x}-{:x}", meta.len(), meta.mtime(), meta.mtime_nsec());
    let kept = dir.join(&name);
    if !kept.exists() {
        let temporary = dir.join(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        fs::hard_link(fs::canonicalize(program)?, &temporary).or_else(|_| fs::copy(program, &temporary).map(drop))?;
        fs::rename(&temporary, &kept)?;
    }
    // What runs of an older version keeps its file without a name.
    for entry in fs::read_dir(dir)?.flatten().filter(|entry| entry.file_name() != *name) {
        fs::remove_file(entry.path())?;
    }
    Ok(kept)
}

/// Starts the shim of the sandbox in `dir` and gives what it says: `ready`, or why not. It is reaped by who follows it, or by init.
pub(super) fn start_shim(program: &Path, dir: &Path) -> io::Result<String> {
    let log = File::options().create(true).append(true).open(dir.join("shim.log"))?;
    let copy = read_only(program)?;
    let mut shim = Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))
        .arg0(program)
        .arg(SHIM)
        .arg(dir)
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut said = String::new();
    if let Some(out) = shim.stdout.take() {
        out.take(SAID_BYTES).read_to_string(&mut said)?;
    }
    if said != "ready" {
        let status = shim.wait()?;
        if said.is_empty() {
            said = format!("the shim ended before it was ready ({status}); see {}", dir.join("shim.log").display());
        }
    }
    Ok(said)
}

/// The program as a file on a mount of its own that nobody can write to, whatever way they have to it: an image whose entry point is
/// /proc/self/exe executes it as root, and could else open it for writing by that name (CVE-2019-5736).
fn read_only(program: &Path) -> io::Result<OwnedFd> {
    let copy = tree::copy(CWD, program, false)?;
    tree::change(copy.as_fd(), false, MountAttrFlags::MOUNT_ATTR_RDONLY, MountPropagationFlags::empty())?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_version_gets_a_new_name_and_the_old_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("coracle");
        fs::write(&program, "1").unwrap();
        let first = keep(&program, &dir.path().join("bin")).unwrap();
        assert_eq!(keep(&program, &dir.path().join("bin")).unwrap(), first);
        fs::remove_file(&program).unwrap();
        fs::write(&program, "22").unwrap();
        let second = keep(&program, &dir.path().join("bin")).unwrap();
        assert!(second != first && !first.exists());
        assert_eq!(fs::read(&second).unwrap(), b"22");
    }
}
