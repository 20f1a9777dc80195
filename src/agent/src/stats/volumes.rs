//! What pods' volumes take, for the summary. A tree is walked when somebody asks, and at most once in a minute.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::{
    context::Context,
    eviction::{
        signals::{self, Level},
        storage,
        usage::{self, Taken},
    },
    pod::spec,
    volume::mount,
};

/// For so long a pod's figures are told again, as upstream's are.
const FRESH: Duration = Duration::from_secs(60);

/// A volume, and the file system that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUse {
    /// `spec.volumes[].name`.
    pub name: String,
    /// What it holds.
    pub taken: Taken,
    /// Bytes of the file system.
    pub bytes: Level,
    /// Its inodes.
    pub inodes: Level,
    /// Whether that is of the disk that pods share.
    pub on_disk: bool,
    /// When that was read.
    pub at: Timestamp,
}

/// Figures by pod; those of pods that are gone go with the next question.
#[derive(Debug, Default)]
pub struct Volumes(Mutex<HashMap<String, (Instant, Vec<VolumeUse>)>>);

impl Volumes {
    /// What is still fresh of these pods, by uid.
    fn fresh(&self, uids: &[&str], now: Instant) -> HashMap<String, Vec<VolumeUse>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|uid, (at, _)| uids.contains(&uid.as_str()) && now.saturating_duration_since(*at) < FRESH);
        known.iter().map(|(uid, (_, uses))| (uid.clone(), uses.clone())).collect()
    }

    fn keep(&self, uid: &str, uses: &[VolumeUse], now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), (now, uses.to_vec()));
    }
}

/// Of all these pods, by uid.
pub async fn of(ctx: &Context, pods: impl Iterator<Item = &Pod>) -> HashMap<String, Vec<VolumeUse>> {
    let pods: Vec<&Pod> = pods.collect();
    let uids: Vec<&str> = pods.iter().map(|pod| spec::uid(pod)).collect();
    let mut out = ctx.volumes.fresh(&uids, Instant::now());
    for pod in pods {
        let uid = spec::uid(pod);
        if out.contains_key(uid) {
            continue;
        }
        let volumes: Vec<Volume> = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| is_measured(v)).cloned().collect();
        let dir = ctx.pod_dir(pod);
        let uses = tokio::task::spawn_blocking(move || volumes.iter().filter_map(|v| measure(&dir, v)).collect::<Vec<_>>()).await;
        let uses = uses.unwrap_or_default();
        ctx.volumes.keep(uid, &uses, Instant::now());
        out.insert(uid.to_owned(), uses);
    }
    out
}

/// Whether it is the pod's own: nobody walks the node's directories, or an image.
fn is_measured(volume: &Volume) -> bool {
    volume.empty_dir.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

/// `None` of one that is not there yet.
fn measure(pod_dir: &Path, volume: &Volume) -> Option<VolumeUse> {
    let path = mount::path(pod_dir, volume);
    let taken = usage::of(&path);
    let (bytes, inodes) = signals::file_system(&path);
    let found = taken.inodes > 0;
    found.then(|| VolumeUse { name: volume.name.clone(), taken, bytes, inodes, on_disk: storage::takes_disk(volume), at: Timestamp::now() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(of: Value) -> Volume {
        serde_json::from_value(of).expect("a volume")
    }

    #[test]
    fn what_a_volume_holds_is_told_with_the_file_system_that_it_is_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let scratch = volume(json!({ "name": "v", "emptyDir": {} }));
        assert_eq!(measure(dir.path(), &scratch), None, "not there yet");
        let at = mount::path(dir.path(), &scratch);
        std::fs::create_dir_all(&at).expect("made");
        std::fs::write(at.join("f"), vec![1; 1 << 20]).expect("written");
        let told = measure(dir.path(), &scratch).expect("it is there");
        assert!(told.taken.bytes >= 1 << 20 && told.taken.inodes == 2 && told.on_disk, "{told:?}");
        assert!(told.bytes.available > 0 && told.bytes.capacity > told.taken.bytes, "{told:?}");
    }

    #[test]
    fn the_node_and_images_are_nobodys_volume() {
        for (of, want) in [
            (json!({ "name": "v", "emptyDir": { "medium": "Memory" } }), true),
            (json!({ "name": "v", "secret": { "secretName": "s" } }), true),
            (json!({ "name": "v", "projected": {} }), true),
            (json!({ "name": "v", "downwardAPI": {} }), true),
            (json!({ "name": "v", "hostPath": { "path": "/" } }), false),
            (json!({ "name": "v", "image": { "reference": "i" } }), false),
        ] {
            assert_eq!(is_measured(&volume(of.clone())), want, "{of}");
        }
    }

    #[test]
    fn figures_are_told_again_for_a_minute_and_go_with_their_pod() {
        let (volumes, start) = (Volumes::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        volumes.keep("a", &[], start);
        volumes.keep("b", &[], start);
        let fresh = |uids: &[&str], now| {
            let mut found: Vec<String> = volumes.fresh(uids, now).into_keys().collect();
            found.sort();
            found
        };
        assert_eq!(fresh(&["a", "b"], after(59)), ["a", "b"]);
        assert_eq!(fresh(&["a"], after(59)), ["a"]);
        assert!(fresh(&["a", "b"], after(60)).is_empty());
    }
}
