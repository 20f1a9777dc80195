//! The arithmetic of a rollout: how large each ReplicaSet shall be, by upstream's rules. Sizes in, sizes out.

use k8s_openapi::api::apps::v1::DeploymentSpec;

use super::sets::{DESIRED_REPLICAS, MAX_REPLICAS, Member, by_size_newer, by_size_older, max_surge, max_unavailable, noted, replicas};

/// Size of the new set in the next step of a rolling update: towards the Deployment's, as far as the surge allows. `planned` is the sum of
/// all sets' sizes.
pub fn new_size(spec: &DeploymentSpec, new: i32, planned: i32) -> i32 {
    let wanted = replicas(spec);
    if new >= wanted {
        return wanted;
    }
    let room = (wanted + max_surge(spec)).saturating_sub(planned).max(0);
    new + room.min(wanted - new)
}

/// Takes old sets down as far as availability allows: first pods that are not available anyway, then others while enough are available.
/// `old` is oldest first.
pub fn shrink_old(spec: &DeploymentSpec, new: &Member<'_>, old: &mut [Member<'_>]) {
    let planned: i32 = old.iter().map(|m| m.size).sum::<i32>() + new.size;
    let needed = replicas(spec) - max_unavailable(spec);
    let unavailable = (new.size - new.available()).max(0);
    let mut room = planned - needed - unavailable;
    if room <= 0 {
        return;
    }
    for set in old.iter_mut().filter(|m| m.size > m.available()) {
        let step = (set.size - set.available()).min(room);
        if step > 0 {
            set.scale(set.size - step);
            room -= step;
        }
    }
    let available: i32 = old.iter().map(|m| m.available().min(m.size)).sum::<i32>() + new.available();
    let mut spare = (available - needed).min(room);
    for set in old.iter_mut() {
        let step = set.size.min(spare);
        if step > 0 {
            set.scale(set.size - step);
            spare -= step;
        }
    }
}

/// Whether the Deployment was scaled since its active sets were.
pub fn was_scaled(spec: &DeploymentSpec, new: Option<&Member<'_>>, old: &[Member<'_>]) -> bool {
    new.into_iter().chain(old).filter(|m| m.is_active()).any(|m| noted(m.seen, DESIRED_REPLICAS).is_some_and(|n| n != replicas(spec)))
}

/// Follows a change of `spec.replicas` outside of a rollout's steps: one active set takes it all; during a rollout each gets its share.
pub fn scale<'a>(spec: &DeploymentSpec, new: Option<&mut Member<'a>>, old: &mut [Member<'a>]) {
    let wanted = replicas(spec);
    let saturated =
        new.as_ref().is_some_and(|m| noted(m.seen, DESIRED_REPLICAS) == Some(wanted) && m.size == wanted && m.available() == wanted);
    let had_new = new.is_some();
    let mut all: Vec<&mut Member<'a>> = new.into_iter().chain(old.iter_mut()).collect();
    let active = all.iter().filter(|m| m.is_active()).count();
    if active <= 1 {
        // The active one; else the new one; else the newest of the old.
        let only = all.iter().position(|m| m.is_active()).or(if had_new { Some(0) } else { all.len().checked_sub(1) });
        if let Some(set) = only.and_then(|i| all.get_mut(i))
            && set.size != wanted
        {
            set.scale(wanted);
        }
        return;
    }
    if saturated {
        for set in all.iter_mut().skip(1).filter(|m| m.is_active()) {
            set.scale(0);
        }
        return;
    }
    if recreates(spec) {
        return;
    }
    all.retain(|m| m.is_active());
    share(spec, &mut all);
}

/// Shares the difference to the allowed size among the active sets, by their sizes; the first takes what rounding leaves.
fn share(spec: &DeploymentSpec, active: &mut [&mut Member<'_>]) {
    let wanted = replicas(spec);
    let allowed = if wanted > 0 { wanted + max_surge(spec) } else { 0 };
    let planned: i32 = active.iter().map(|m| m.size).sum();
    let missing = allowed - planned;
    active.sort_by(|a, b| if missing >= 0 { by_size_newer(a, b) } else { by_size_older(a, b) });
    let mut given = 0;
    for set in active.iter_mut() {
        let left = missing - given;
        let fair = fraction(spec, set, planned);
        let step = if missing > 0 { fair.clamp(0, left.max(0)) } else { fair.clamp(left.min(0), 0) };
        set.scale(set.size + step);
        given += step;
    }
    if let Some(first) = active.first_mut() {
        first.scale(first.size + missing - given);
    }
}

/// The set's part of the new total, less what it has. `planned` stands in where no total was noted.
fn fraction(spec: &DeploymentSpec, set: &Member<'_>, planned: i32) -> i32 {
    if replicas(spec) == 0 {
        return -set.size;
    }
    let before = noted(set.seen, MAX_REPLICAS).filter(|n| *n > 0).unwrap_or(planned).max(1);
    let total = replicas(spec) + max_surge(spec);
    let exact = f64::from(set.size) * f64::from(total) / f64::from(before);
    #[expect(clippy::cast_possible_truncation, reason = "sizes are i32, and their share of an i32 total is clamped by it")]
    let rounded = exact.round() as i32;
    rounded - set.size
}

/// Whether the strategy is Recreate.
pub fn recreates(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}
