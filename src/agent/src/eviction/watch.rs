//! Looks from time to time at what limited pods have on disk: the kernel tells nobody when a directory grows.

use std::{path::Path, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio_util::sync::CancellationToken;

use super::{
    storage::{self, Usage},
    usage,
};
use crate::{context::Context, pod::worker::Facts, pods::Pods, volume};

/// Between two looks: upstream's figure.
const PERIOD: Duration = Duration::from_secs(10);

/// Runs until the agent stops.
pub async fn run(ctx: Context, pods: Pods, stop: CancellationToken) {
    let mut looks = tokio::time::interval(PERIOD);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return,
        }
        for (pod, facts) in
            pods.list().into_iter().filter(|(pod, facts)| !facts.over && facts.sandbox.is_some() && storage::is_limited(pod))
        {
            let usage = measure(&ctx, &pod, &facts).await;
            if let Some(message) = storage::verdict(&pod, &usage) {
                pods.evict(&pod, message).await;
            }
        }
    }
}

async fn measure(ctx: &Context, pod: &Arc<Pod>, facts: &Facts) -> Usage {
    let mut usage = Usage::default();
    for (name, (id, ..)) in &facts.runs {
        // A container that went in between has nothing any more.
        let written = ctx.runtime.stats(id).await.map_or(0, |s| s.rootfs_bytes);
        usage.containers.insert(name.clone(), written);
    }
    let (pod, dir, logs) = (pod.clone(), ctx.pod_dir(pod), ctx.log_dir(pod));
    let walked = tokio::task::spawn_blocking(move || {
        for (name, bytes) in &mut usage.containers {
            *bytes += usage::of(&logs.join(name));
        }
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| is_on_disk(v));
        usage.volumes = volumes.map(|v| (v.name.clone(), usage::of(&volume::mount::path(Path::new(&dir), v)))).collect();
        usage
    });
    walked.await.unwrap_or_default()
}

fn is_on_disk(volume: &Volume) -> bool {
    let in_memory = volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() == Some("Memory"));
    let files = volume.empty_dir.is_some() || volume.config_map.is_some() || volume.downward_api.is_some();
    // Secrets and tokens are kept in memory.
    files && !in_memory
}
