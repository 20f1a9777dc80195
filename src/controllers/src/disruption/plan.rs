//! PodDisruptionBudget: its status says how many of its pods may go now. Evictions spend that number; only the controller raises it.

use std::{collections::BTreeMap, sync::Arc};

use coracle_client::{EventType, events::reference, pod::Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString},
};

use super::scale::Scale;
use crate::{
    condition::{self, Says},
    plan::{Patch, Plan, Target, Told, soonest},
    pods::is_ready,
};

/// A pod that was evicted and is not being deleted after this time will not be: it counts again.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
/// The one condition of a budget.
const ALLOWED: &str = "DisruptionAllowed";

/// What the runner saw.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The budget.
    pub budget: &'a PodDisruptionBudget,
    /// The pods that it covers.
    pub pods: &'a [Arc<Pod>],
    /// What their controllers want, or why that cannot be said.
    pub scale: Result<&'a Scale, &'a str>,
    /// Now, in whole seconds.
    pub now: Timestamp,
}

/// Whether the budget is a share of what controllers want.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|s| s.max_unavailable.is_some() || matches!(s.min_available, Some(IntOrString::String(_))))
}

/// What the status should say.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let budget = seen.budget;
    let before = budget.status.clone().unwrap_or_default();
    let counted = seen.scale.map_err(str::to_owned).and_then(|scale| Ok((counts(seen, *scale)?, *scale)));
    let mut plan = Plan::default();
    let tell = |kind, reason, message: String| Told { regarding: reference(budget), kind, reason, message };
    let (counts, scale) = match counted {
        Ok(counted) => counted,
        Err(why) => {
            // Nothing may go as long as nobody can say what there should be.
            let mut after = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..before.clone() };
            let generation = before.observed_generation;
            let says = Says { type_: ALLOWED, holds: false, reason: "SyncFailed", message: &why, generation };
            condition::set(after.conditions.get_or_insert_default(), &says, seen.now);
            plan.status = Patch::status(Target::of(budget), budget.status.as_ref(), &after);
            if plan.status.is_some() {
                let text = format!("Failed to calculate the number of expected pods: {why}");
                plan.events.push(tell(EventType::Warning, "CalculateExpectedPodCountFailed", text));
            }
            return plan;
        }
    };
    let (disrupted, again) = disrupted(&before, seen);
    let healthy = count(seen.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod)).filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        !disrupted.contains_key(name)
    }));
    let allowed = if counts.expected <= 0 { 0 } else { (healthy - counts.desired).max(0) };
    let generation = budget.metadata.generation;
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    let mut conditions = before.conditions.clone().unwrap_or_default();
    condition::set(&mut conditions, &Says { type_: ALLOWED, holds: allowed > 0, reason, message: "", generation }, seen.now);
    let after = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(counts.desired),
        expected_pods: Some(counts.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: generation,
        conditions: Some(conditions),
    };
    plan.status = Patch::status(Target::of(budget), budget.status.as_ref(), &after);
    plan.requeue_at = again;
    if plan.status.is_some() && seen.pods.is_empty() {
        plan.events.push(tell(EventType::Normal, "NoPods", "No matching pods found".into()));
    }
    if plan.status.is_some() && scale.unmanaged > 0 {
        let text = format!(
            "{} of the pods of this budget have no controller, so that nobody says how many there should be; an integer as .spec.minAvailable counts them, too",
            scale.unmanaged
        );
        plan.events.push(tell(EventType::Warning, "UnmanagedPods", text));
    }
    plan
}

struct Counts {
    /// Pods that there should be.
    expected: i32,
    /// Of these, healthy at least.
    desired: i32,
}

fn counts(seen: &Observed<'_>, scale: Scale) -> Result<Counts, String> {
    let Some(spec) = &seen.budget.spec else { return Ok(Counts { expected: 0, desired: 0 }) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => Ok(Counts { expected: scale.wanted, desired: scale.wanted.saturating_sub(share(most, scale.wanted)?).max(0) }),
        (None, Some(IntOrString::Int(least))) => Ok(Counts { expected: count(seen.pods.iter()), desired: *least }),
        (None, Some(least)) => Ok(Counts { expected: scale.wanted, desired: share(least, scale.wanted)? }),
        (None, None) => Ok(Counts { expected: 0, desired: 0 }),
    }
}

/// A number, or a part of `whole` that is rounded up.
fn share(value: &IntOrString, whole: i32) -> Result<i32, String> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok());
            let percent = percent.ok_or_else(|| format!("invalid value for IntOrString: {text:?} is not a percentage"))?;
            let part = (i64::from(whole).saturating_mul(percent)).saturating_add(99).div_euclid(100);
            Ok(i32::try_from(part).unwrap_or(i32::MAX))
        }
    }
}

/// The pods that were evicted and do not go yet, and when the first of them is given up.
fn disrupted(before: &PodDisruptionBudgetStatus, seen: &Observed<'_>) -> (BTreeMap<String, Time>, Option<Timestamp>) {
    let (mut left, mut again) = (BTreeMap::new(), None);
    let listed = before.disrupted_pods.iter().flatten();
    for (name, at) in listed {
        let there = seen.pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(name) && pod.metadata.deletion_timestamp.is_none());
        let ends = at.0.checked_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
        if there && ends >= seen.now {
            left.insert(name.clone(), at.clone());
            again = soonest(again, ends.checked_add(SignedDuration::from_secs(1)).ok());
        }
    }
    (left, again)
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
