//! Writes the limits of a resize to the cgroups: the pod's are widened first and narrowed last, since no container may have more than its pod.

use std::collections::BTreeMap;

use coracle_runtime::{ContainerId, Resources};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    context::{Context, chain},
    resources::limits,
};

/// What is to be written.
pub(super) struct Wish {
    /// The pod's sandbox.
    pub sandbox: String,
    /// The pod with what it was granted.
    pub granted: Pod,
    /// Its containers that run.
    pub alive: Vec<ContainerId>,
    /// What the pod as a whole has; `None` where nobody knows.
    pub before: Option<Resources>,
    /// What it is to have.
    pub whole: Resources,
    /// What its containers are to have.
    pub changes: Vec<(ContainerId, Resources)>,
}

/// What was written of which container, what the pod as a whole has now if that is something else than before, and why not all was written.
pub(super) type Written = (Vec<(ContainerId, Resources)>, Option<Resources>, Option<String>);

/// Writes `wish`.
pub(super) async fn write(ctx: &Context, wish: Wish) -> Written {
    let Wish { sandbox, granted, alive, before, whole, changes } = wish;
    if let Err(message) = fits(ctx, &granted, &alive, before.as_ref(), &whole).await {
        return (Vec::new(), None, Some(message));
    }
    let protects = ctx.config.memory_throttling_factor.is_some();
    let protection = granted.spec.as_ref().filter(|_| protects).map(limits::memory_protection).unwrap_or_default();
    let open = before
        .as_ref()
        .map_or_else(|| Resources { cpu_quota: Some(-1), memory_limit: Some(-1), ..whole.clone() }, |before| limits::wider(before, &whole));
    let protected = |of: &Resources| Resources { unified: protection.clone(), ..of.clone() };
    if let Err(error) = ctx.runtime.update_sandbox(&sandbox, &protected(&open)).await {
        return (Vec::new(), None, Some(chain(&error)));
    }
    let mut done = Vec::with_capacity(changes.len());
    let mut failure = None;
    for (id, wanted) in changes {
        match one(ctx, &granted, &id, &wanted).await {
            Ok(limits) => done.push((id, limits)),
            Err(message) => failure = Some(message),
        }
    }
    // A pod whose container keeps more than it was granted stays open until that is done.
    if failure.is_none() {
        match ctx.runtime.update_sandbox(&sandbox, &protected(&whole)).await {
            Ok(()) => return (done, Some(whole), None),
            Err(error) => failure = Some(chain(&error)),
        }
    }
    (done, Some(open), failure)
}

/// Whether what the pod takes now fits below a limit of its own that is lower than the one before.
async fn fits(ctx: &Context, granted: &Pod, alive: &[ContainerId], before: Option<&Resources>, whole: &Resources) -> Result<(), String> {
    let own = granted.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.limits.as_ref());
    let Some(limit) = whole.memory_limit.filter(|m| *m > 0 && own.is_some_and(|own| own.contains_key("memory"))) else { return Ok(()) };
    if before.and_then(|b| b.memory_limit).is_some_and(|had| had > 0 && had <= limit) {
        return Ok(());
    }
    let mut used = 0_u64;
    for id in alive {
        used = used.saturating_add(ctx.runtime.stats(id).await.map_err(|e| chain(&e))?.memory_working_set);
    }
    if i64::try_from(used).unwrap_or(i64::MAX) > limit {
        return Err(too_low("the pod", limit, used));
    }
    Ok(())
}

fn too_low(whose: &str, limit: i64, used: u64) -> String {
    format!("{whose} would have a memory limit ({limit}) below current usage ({used})")
}

async fn one(ctx: &Context, granted: &Pod, id: &ContainerId, wanted: &Resources) -> Result<Resources, String> {
    let status = ctx.runtime.container(id).await.map_err(|e| chain(&e))?;
    if let Some(limit) = wanted.memory_limit.filter(|m| *m > 0) {
        let used = ctx.runtime.stats(id).await.map_err(|e| chain(&e))?.memory_working_set;
        if i64::try_from(used).unwrap_or(i64::MAX) > limit {
            return Err(too_low(&format!("container {}", status.spec.name), limit, used));
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
