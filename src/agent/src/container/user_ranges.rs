//! The users of the node that a pod with `hostUsers: false` has: a range of its own for as long as its directory is there, kept in a file of it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use coracle_runtime::UserRange;
use serde::{Deserialize, Serialize};

/// Users of a pod: as many as an image may name.
pub const LENGTH: u32 = 65_536;
/// The first range begins here: the node's own users are below.
const FIRST: u32 = LENGTH;
/// Ids above are no users: the kernel has -1 for none, and programs take those above 2^31 for negative numbers.
const END: u32 = 1 << 31;
/// Of a pod's directory: as upstream's kubelet calls it.
const FILE: &str = "userns";
/// One is given at a time: who looks which ranges are free must see the one before written down.
static GIVING: Mutex<()> = Mutex::new(());

/// As the file has it, with upstream's names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Why a pod has no users of its own.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// every range of the node is a pod's
    #[error("could not find an empty slot to allocate a user namespace")]
    Full,
    /// the file
    #[error("cannot keep the pod's user namespace in {path}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The range of the pod whose directory is `pod`, one of those in `pods`: the one that it has, or a free one.
pub fn of_pod(pods: &Path, pod: &Path) -> Result<UserRange, RangeError> {
    let _alone = GIVING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(range) = read(pod) {
        return Ok(range);
    }
    let failed = |source| RangeError::File { path: pod.join(FILE), source };
    let others = fs::read_dir(pods).map_err(failed)?.flatten().filter_map(|entry| read(&entry.path()));
    let range = free(&others.map(|range| range.first).collect()).ok_or(RangeError::Full)?;
    let mapping = vec![Mapping { host_id: range.first, container_id: 0, length: range.length }];
    let text = serde_json::to_vec(&Mappings { uid_mappings: mapping.clone(), gid_mappings: mapping }).map_err(io::Error::other);
    let temporary = pod.join(".userns-new");
    let written = text.and_then(|text| fs::create_dir_all(pod).and_then(|()| fs::write(&temporary, text)));
    written.and_then(|()| fs::rename(&temporary, pod.join(FILE))).map_err(failed)?;
    Ok(range)
}

/// A file that says something else than we would is no range of ours, and its pod gets another.
fn read(pod: &Path) -> Option<UserRange> {
    let mappings: Mappings = serde_json::from_slice(&fs::read(pod.join(FILE)).ok()?).ok()?;
    let [Mapping { host_id: first, container_id: 0, length: LENGTH }] = mappings.uid_mappings[..] else { return None };
    (first >= FIRST && first % LENGTH == 0 && first < END).then_some(UserRange { first, length: LENGTH })
}

/// The lowest range that is nobody's.
fn free(taken: &BTreeSet<u32>) -> Option<UserRange> {
    (FIRST..END).step_by(LENGTH as usize).find(|first| !taken.contains(first)).map(|first| UserRange { first, length: LENGTH })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_keep_ranges_of_their_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let pod = |name: &str| dir.path().join(name);
        let first = of_pod(dir.path(), &pod("a")).expect("a range");
        assert_eq!(first, UserRange { first: LENGTH, length: LENGTH });
        let second = of_pod(dir.path(), &pod("b")).expect("a range");
        assert_eq!(second.first, 2 * LENGTH);
        assert_eq!(of_pod(dir.path(), &pod("a")).expect("a range"), first, "it stays");
        fs::remove_dir_all(pod("a")).expect("the pod goes");
        assert_eq!(of_pod(dir.path(), &pod("c")).expect("a range"), first, "and leaves its range");
        for broken in ["{}", r#"{"uidMappings":[{"hostId":7,"containerId":0,"length":65536}],"gidMappings":[]}"#, "x"] {
            fs::write(pod("b").join(FILE), broken).expect("written");
            assert_eq!(of_pod(dir.path(), &pod("b")).expect("a range"), second, "{broken}");
        }
    }

    #[test]
    fn there_is_an_end() {
        let all: BTreeSet<u32> = (FIRST..END).step_by(LENGTH as usize).collect();
        assert_eq!(free(&all), None);
    }
}
