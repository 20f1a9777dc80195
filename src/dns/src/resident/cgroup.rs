//! The resident's own control group, in every hierarchy of the machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Below the cluster's.
const NAME: &str = "dns";

/// Moves this process into its group below `cluster`.
pub fn join(cluster: &str) -> io::Result<()> {
    let Some(path) = path(cluster) else { return Ok(()) };
    for root in hierarchies()? {
        let dir = root.join(&path);
        fs::create_dir_all(&dir)?;
        inherit_cpuset(&root, &path)?;
        fs::write(dir.join("cgroup.procs"), "0")?;
    }
    Ok(())
}

/// Removes the group, which must be empty by now; one that is not stays, with the cluster's.
pub fn remove(cluster: &str) {
    let Some(path) = path(cluster) else { return };
    for root in hierarchies().unwrap_or_default() {
        let _ = fs::remove_dir(root.join(&path));
    }
}

/// `None`: no group was given, or one that leads out of the hierarchy.
fn path(cluster: &str) -> Option<PathBuf> {
    let cluster = cluster.trim_matches('/');
    let plain = !cluster.is_empty() && cluster.split('/').all(|part| !matches!(part, "" | "." | ".."));
    plain.then(|| Path::new(cluster).join(NAME))
}

fn hierarchies() -> io::Result<Vec<PathBuf>> {
    Ok(roots(&fs::read_to_string("/proc/self/mounts")?))
}

fn roots(mounts: &str) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(at), Some("cgroup" | "cgroup2")) = (fields.next(), fields.next())
            && at.starts_with("/sys/fs/cgroup")
            && !roots.contains(&PathBuf::from(at))
        {
            roots.push(at.into());
        }
    }
    roots
}

/// A cpuset of v1 starts empty, and an empty one takes no process.
fn inherit_cpuset(root: &Path, path: &Path) -> io::Result<()> {
    let mut above = root.to_owned();
    for part in path {
        let dir = above.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // On v2 an empty one means that of the group above, and it need not be there.
            let v1 = dir.join("cpuset.cpu_exclusive").exists();
            if v1 && fs::read_to_string(dir.join(file))?.trim().is_empty() {
                fs::write(dir.join(file), fs::read_to_string(above.join(file))?.trim())?;
            }
        }
        above = dir;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hierarchy_is_found_and_nothing_else() {
        let mounts = "proc /proc proc rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup2 /mnt/x cgroup2 rw 0 0\n";
        assert_eq!(roots(mounts), [Path::new("/sys/fs/cgroup/cpu"), Path::new("/sys/fs/cgroup/unified")]);
    }

    #[test]
    fn a_group_stays_inside_its_hierarchy() {
        for (given, expected) in
            [("/coracle-1", Some("coracle-1/dns")), ("a/b/", Some("a/b/dns")), ("", None), ("/", None), ("../x", None), ("a//b", None)]
        {
            assert_eq!(path(given).as_deref(), expected.map(Path::new), "{given}");
        }
    }
}
