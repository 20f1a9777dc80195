//! How long a pod takes to start where only the node is to blame: without pulls of its images and the work of its init containers, and told only
//! of pods without volumes that last (upstream's service level indicator). Pure but for the lock.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::{
    life::{Life, RunState},
    spec::Kind,
};
use crate::stats::meters::seconds_since;

/// Pulls of one pod that are remembered: its containers and image volumes are fewer, and failures beyond change little.
const PULLS: usize = 256;

/// From when to when images of the pod were pulled.
#[derive(Clone, Debug, Default)]
pub struct Pulls(Arc<Mutex<Vec<(Timestamp, Timestamp)>>>);

impl Pulls {
    /// Takes one in.
    pub fn add(&self, from: Timestamp, to: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < PULLS {
            all.push((from, to));
        }
    }
}

/// Seconds from the creation of `pod` until now, when its containers run; `None` for one that is not counted.
pub fn seconds(pod: &Pod, life: &Life, pulls: &Pulls, now: Timestamp) -> Option<f64> {
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    if pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(lasts) {
        return None;
    }
    let mut spans = pulls.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for member in life.members.values().filter(|m| m.kind == Kind::Init) {
        if let Some(RunState::Ended(ended)) = member.run.as_ref().map(|r| &r.state) {
            spans.extend(ended.started_at.map(|from| (from, ended.finished_at)));
        }
    }
    Some((seconds_since(created, now) - covered(spans, created, now)).max(0.0))
}

fn lasts(volume: &Volume) -> bool {
    let passes = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.empty_dir.is_some()
        || volume.image.is_some();
    !passes
}

/// Seconds that any of the spans covers, between two moments.
fn covered(mut spans: Vec<(Timestamp, Timestamp)>, begin: Timestamp, end: Timestamp) -> f64 {
    spans.sort();
    let (mut sum, mut reached) = (0.0, begin);
    for (from, to) in spans {
        let (from, to) = (from.max(reached), to.min(end));
        if to > from {
            sum += seconds_since(from, to);
            reached = to;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::life::{Ended, Run};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    #[test]
    fn what_overlaps_counts_once() {
        let check = |spans: &[(i64, i64)], want: f64| {
            let spans = spans.iter().map(|(from, to)| (at(*from), at(*to))).collect();
            assert!((covered(spans, at(0), at(100)) - want).abs() < 1e-9);
        };
        check(&[], 0.0);
        check(&[(10, 20), (30, 35)], 15.0);
        check(&[(15, 30), (10, 20), (12, 13)], 20.0);
        check(&[(-5, 5), (90, 110)], 15.0);
    }

    #[test]
    fn pulls_and_init_containers_are_not_the_nodes_fault() {
        let pod = |volume: serde_json::Value| -> Pod {
            let spec = json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }], "volumes": [volume] });
            serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u", "creationTimestamp": at(0).to_string() }, "spec": spec }))
                .expect("a pod")
        };
        let passing = pod(json!({ "name": "v", "emptyDir": {} }));
        let mut life = Life::new(&passing, None, at(1));
        let ended = Ended {
            id: "i".into(),
            started_at: Some(at(8)),
            finished_at: at(12),
            exit_code: 0,
            reason: "Completed".into(),
            message: String::new(),
        };
        let id = Life::container_id("s", "i", 0);
        let run = Run { id, attempt: 0, image_id: String::new(), user: None, limits: None, state: RunState::Ended(ended) };
        life.members.get_mut("i").expect("it is there").run = Some(run);
        let pulls = Pulls::default();
        pulls.add(at(2), at(9));
        assert_eq!(seconds(&passing, &life, &pulls, at(15)), Some(5.0));
        assert_eq!(seconds(&pod(json!({ "name": "v", "hostPath": { "path": "/x" } })), &life, &pulls, at(15)), None);
    }
}
