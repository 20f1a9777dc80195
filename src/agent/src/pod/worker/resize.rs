//! Writes the limits of a resize to the cgroups: the pod's are opened first and closed last, since no container may have more than its pod.

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
    let open = Resources { cpu_quota: Some(-1), memory_limit: Some(-1), ..limits::changeable(&whole) };
    if let Err(error) = ctx.runtime.update_sandbox(sandbox, &open).await {
        return (Vec::new(), Some(chain(&error)));
    }
    let mut done = Vec::with_capacity(changes.len());
    let mut failure = None;
    for (id, wanted) in changes {
        match one(ctx, &id, &wanted).await {
            Ok(limits) => done.push((id, limits)),
            Err(message) => failure = Some(message),
        }
    }
    // A pod whose container keeps more than it was granted stays open until that is done.
    if failure.is_none()
        && let Err(error) = ctx.runtime.update_sandbox(sandbox, &limits::changeable(&whole)).await
    {
        failure = Some(chain(&error));
    }
    (done, failure)
}

async fn one(ctx: &Context, id: &ContainerId, wanted: &Resources) -> Result<Resources, String> {
    let status = ctx.runtime.container(id).await.map_err(|e| chain(&e))?;
    if let Some(limit) = wanted.memory_limit.filter(|m| *m > 0) {
        let used = ctx.runtime.stats(id).await.map_err(|e| chain(&e))?.memory_working_set;
        if i64::try_from(used).unwrap_or(i64::MAX) > limit {
            return Err(format!("container {} uses {used} bytes of memory, more than the new limit of {limit}", status.spec.name));
        }
    }
    let limits = Resources {
        cpu_shares: wanted.cpu_shares,
        cpu_quota: wanted.cpu_quota,
        cpu_period: wanted.cpu_period,
        memory_limit: wanted.memory_limit,
        ..status.spec.resources
    };
    ctx.runtime.update_container(id, &limits).await.map_err(|e| chain(&e))?;
    Ok(limits)
}
