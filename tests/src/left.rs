//! What a cluster has on the machine, found from outside: by its id and its data directory, without a word of the program under test.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The id of the cluster with this data directory, from the records of the machine.
pub fn id(data_dir: &Path) -> Option<String> {
    let wanted = data_dir.to_str()?;
    fs::read_dir("/run/coracle").ok()?.flatten().find_map(|entry| {
        let record: Value = serde_json::from_slice(&fs::read(entry.path().join("cluster.json")).ok()?).ok()?;
        (record["data_dir"] == wanted).then(|| entry.file_name().into_string().ok())?
    })
}

/// Everything of a cluster that is on the machine, by kind; a kind without any is not there.
pub fn of(id: &str, data_dir: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let state = PathBuf::from("/run/coracle").join(id);
    let mut all = BTreeMap::from([
        ("processes", processes(id, &state, data_dir)),
        ("mounts", mounts(&state, data_dir)),
        ("network namespaces", names(&state.join("network/netns"))),
        ("cgroups", cgroups(id)),
        ("links", links(id)),
        ("pins", names(&Path::new("/sys/fs/bpf/coracle").join(id))),
        ("state", names(&state)),
    ]);
    all.retain(|_, found| !found.is_empty());
    all
}

/// Fails the test when the machine has anything of the cluster.
pub fn assert_nothing(id: &str, data_dir: &Path) {
    let found = of(id, data_dir);
    assert!(found.is_empty(), "of {} there is left: {found:#?}", data_dir.display());
}

/// In a cgroup of the cluster, or a resident started with one of its directories.
fn processes(id: &str, state: &Path, data_dir: &Path) -> Vec<String> {
    let group = format!("/coracle-{id}");
    let directories = [state.to_string_lossy(), data_dir.to_string_lossy()];
    let mut found = Vec::new();
    for pid in names(Path::new("/proc")).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let text = |file: &str| String::from_utf8_lossy(&read(file)).into_owned();
        let command = text("cmdline").replace('\0', " ");
        if command.is_empty() {
            continue; // it ended, and waits for its parent
        }
        let in_group = text("cgroup").lines().any(|line| line.ends_with(&group) || line.contains(&format!("{group}/")));
        let resident = command.contains(" __") && directories.iter().any(|d| command.contains(&**d));
        if in_group || resident {
            found.push(format!("{pid} {command}"));
        }
    }
    found
}

fn mounts(state: &Path, data_dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| [state, data_dir].iter().any(|d| Path::new(point).starts_with(d))).map(str::to_owned).collect()
}

fn cgroups(id: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let hierarchies =
        table.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|m| m.get(2).is_some_and(|t| t.starts_with("cgroup")));
    hierarchies.map(|m| format!("{}/coracle-{id}", m[1])).filter(|group| Path::new(group).exists()).collect()
}

/// Links say whose they are in their alias.
fn links(id: &str) -> Vec<String> {
    let ours = format!("coracle/{id}/");
    let alias = |name: &String| fs::read_to_string(format!("/sys/class/net/{name}/ifalias")).unwrap_or_default();
    names(Path::new("/sys/class/net")).into_iter().filter(|name| alias(name).starts_with(&ours)).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
