//! Writes the limits of a resize to the cgroups: the pod's are opened first and closed last, since no container may have more than its pod.

use std::collections::BTreeMap;

use coracle_runtime::{ContainerId, Resources};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    context::{Context, chain},
    resources::limits,
};

/// Writes `changes`; says which were written, and why not the others.
pub(super) async fn write(
    ctx: &Context,
    sandbox: &str,
    granted: &Pod,
    changes: Vec<(ContainerId, Resources)>,
) -> (Vec<(ContainerId, Resources)>, Option<String>) {
    let whole = granted.spec.as_ref().map(limits::of_whole_pod).unwrap_or_default();
    let protects = ctx.config.memory_throttling_factor.is_some();
    let protection = granted.spec.as_ref().filter(|_| protects).map(limits::memory_protection).unwrap_or_default();
    let shut = Resources { unified: protection, ..limits::changeable(&whole) };
    let open = Resources { cpu_quota: Some(-1), memory_limit: Some(-1), ..shut.clone() };
    if let Err(error) = ctx.runtime.update_sandbox(sandbox, &open).await {
        return (Vec::new(), Some(chain(&error)));
    }
    let mut done = Vec::with_capacity(changes.len());
    let mut failure = None;
    for (id, wanted) in changes {
        match one(ctx, granted, &id, &wanted).await {
            Ok(limits) => done.push((id, limits)),
            Err(message) => failure = Some(message),
        }
    }
    // A pod whose container keeps more than it was granted stays open until that is done.
    if failure.is_none()
        && let Err(error) = ctx.runtime.update_sandbox(sandbox, &shut).await
    {
        failure = Some(chain(&error));
    }
    (done, failure)
}

async fn one(ctx: &Context, granted: &Pod, id: &ContainerId, wanted: &Resources) -> Result<Resources, String> {
    let status = ctx.runtime.container(id).await.map_err(|e| chain(&e))?;
    if let Some(limit) = wanted.memory_limit.filter(|m| *m > 0) {
        let used = ctx.runtime.stats(id).await.map_err(|e| chain(&e))?.memory_working_set;
        if i64::try_from(used).unwrap_or(i64::MAX) > limit {
            return Err(format!("container {} uses {used} bytes of memory, more than the new limit of {limit}", status.spec.name));
        }
    }
    let unified = quality(ctx, granted, &status.spec.name).unwrap_or_default();
    let limits = Resources {
        unified,
        cpu_shares: wanted.cpu_shares,
        cpu_quota: wanted.cpu_quota,
        cpu_period: wanted.cpu_period,
        memory_limit: wanted.memory_limit,
        ..status.spec.resources
    };
    ctx.runtime.update_container(id, &limits).await.map_err(|e| chain(&e))?;
    Ok(limits)
}

/// Protection and throttling of the container's memory, where the node has that.
fn quality(ctx: &Context, granted: &Pod, name: &str) -> Option<BTreeMap<String, String>> {
    let (factor, spec) = (ctx.config.memory_throttling_factor?, granted.spec.as_ref()?);
    let container = spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)?;
    Some(limits::memory_quality_anew(spec, container, ctx.node_memory(), factor))
}
