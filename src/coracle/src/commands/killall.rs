//! `coracle killall`, and the end of temporary clusters: everything that a cluster put on the machine is taken down.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use coracle_runtime::{PodRuntime as _, embedded::EmbeddedRuntime};

use crate::{
    cluster,
    failure::{Failure, chain, need_root},
    place::{self, Record},
};

/// Ends all workloads of the cluster with this data directory and removes its network; its data stays.
pub async fn killall(data_dir: &Path) -> Result<(), Failure> {
    need_root()?;
    let (id, data_dir) = match data_dir.canonicalize() {
        Ok(data_dir) => (place::id(&data_dir), data_dir),
        // The directory may be gone and its cluster's network still here.
        Err(error) => match place::known().into_iter().find(|(_, record)| record.data_dir == data_dir) {
            Some((id, record)) => (id, record.data_dir),
            None => return Err(Failure::new(format!("no data directory {}", data_dir.display())).because(error)),
        },
    };
    let Some(_hold) = place::hold(&id).map_err(Failure::of)? else {
        return Err(Failure::new(format!("a coracle runs with {}: stop it first", data_dir.display())));
    };
    let left = take_down(&id, &data_dir, false).await;
    if left.is_empty() { Ok(()) } else { Err(Failure::new(left.join("; "))) }
}

/// Takes down the temporary clusters whose process is gone. What does not go is told and left for the next time.
pub async fn abandoned() {
    for (id, Record { data_dir, keep, .. }, _hold) in place::abandoned() {
        tracing::warn!(data_dir = %data_dir.display(), "taking down what an earlier `coracle run` left");
        for problem in take_down(&id, &data_dir, !keep).await {
            tracing::warn!("{problem}");
        }
    }
}

/// Containers, DNS, dataplane, processes, mounts, cgroups, state; with `data` the data too. Goes on after a failure: says what is left.
pub async fn take_down(id: &str, data_dir: &Path, data: bool) -> Vec<String> {
    let state_dir = place::state_dir(id);
    let cgroup = place::cgroup(id);
    let mut problems = Vec::new();
    let mut tell = |what: &str, error: &dyn std::error::Error| problems.push(format!("{what}: {}", chain(error)));

    cluster::take_down_runtime(id, data_dir, &state_dir, &mut tell).await;
    if data_dir.join("runtime").exists() {
        let options = cluster::runtime_options(data_dir.to_owned(), state_dir.clone(), cgroup.clone());
        match EmbeddedRuntime::open(options).await {
            Ok(runtime) => {
                for sandbox in runtime.sandboxes().await.unwrap_or_default() {
                    if let Err(error) = runtime.remove_sandbox(&sandbox.spec.id).await {
                        tell("a pod is left", &error);
                    }
                }
            }
            Err(error) => tell("the container runtime does not open", &error),
        }
    }
    if let Err(error) = coracle_dns::stop(&state_dir.join("dns")) {
        tell("DNS is left", &error);
    }
    if let Err(error) = coracle_network::teardown(id, &state_dir.join("network")) {
        tell("parts of the network are left", &error);
    }
    if let Err(error) = coracle_runtime::group::remove(&cgroup).await {
        tell("cgroups are left", &error);
    }
    for root in [data_dir, &state_dir] {
        if let Err(error) = unmount_below(root) {
            tell("mounts are left", &error);
        }
    }
    for root in [Some(&*state_dir), data.then_some(data_dir)].into_iter().flatten() {
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tell("files are left", &error),
            _ => {}
        }
    }
    problems
}

/// Detaches every mount below `root`, the deepest first.
fn unmount_below(root: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    for point in mounts_below(&table, root) {
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

fn mounts_below(table: &str, root: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)));
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(root)).collect();
    below.reverse(); // later mounts lie over earlier ones
    below
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_deepest_first() {
        let table = "1 0 8:1 / / rw - ext4 x rw\n2 1 0:5 / /data/a rw - tmpfs x rw\n3 2 0:6 / /data/a/b\\040c rw - tmpfs x rw\n4 1 0:7 / /database rw - tmpfs x rw\n";
        assert_eq!(mounts_below(table, Path::new("/data")), [PathBuf::from("/data/a/b c"), PathBuf::from("/data/a")]);
    }
}
