//! Cgroups of a cluster as a whole, for the program that runs it: a place for a command, and the end of all of them.

use std::{ffi::CString, io, os::unix::ffi::OsStrExt as _, path::PathBuf};

use crate::{
    Resources,
    cgroup::{Cgroup, Hierarchies},
};

/// Makes a cgroup in every hierarchy; returns the `cgroup.procs` files through which a process joins it.
pub fn make(path: &str) -> io::Result<Vec<CString>> {
    let group = Cgroup::new(&Hierarchies::detect()?, path)?;
    group.create()?;
    group.dirs().iter().map(|dir| CString::new(dir.join("cgroup.procs").as_os_str().as_bytes()).map_err(io::Error::other)).collect()
}

/// Limits a group as a whole, which is made if need be. Without any limit one that is there is opened, and none is made.
pub fn limit(path: &str, resources: Option<&Resources>) -> io::Result<()> {
    let group = Cgroup::new(&Hierarchies::detect()?, path)?;
    if let Some(resources) = resources {
        group.create()?;
        return group.limit(resources, false);
    }
    if group.dirs().iter().any(|dir| dir.exists()) {
        // Where a controller is missing, it has limited nothing before.
        let _ = group.limit(&Resources { memory_limit: Some(-1), ..Resources::default() }, false);
        let _ = group.limit(&Resources { pids_limit: Some(-1), ..Resources::default() }, false);
    }
    Ok(())
}

/// Kills what is in it and removes it with all below; what is not there is no error.
pub async fn remove(path: &str) -> io::Result<()> {
    Cgroup::new(&Hierarchies::detect()?, path)?.remove().await
}

/// The directory of a cgroup in the v2 hierarchy, to which socket hooks attach; `None` on a machine without one.
pub fn v2_directory(path: &str) -> io::Result<Option<PathBuf>> {
    Ok(Cgroup::new(&Hierarchies::detect()?, path)?.v2_dir())
}
